"""How networks of clouds and of graphs are written as files of their own.

Dimensions: B clouds, P points, N nodes, C channels, E edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sgas.exporting.forms import CellForm, NetworkForm
from sgas_gcn.cells import RELU, LinearNorm
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.datasets.graph_file import MOST_DEGREES
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.nasbenchgraph import NasBenchGraphNetwork
from sgas_gcn.network import GraphNetwork, PointNetwork
from sgas_gcn.preparation import FIRST, CloudPreparation, GraphPreparation

NODES, EDGES = 200, 1500  # of a graph that a file is tried on
PLAIN = "sgas_gcn.ops.plain"
REPLACED = {"Neighborhood": (PLAIN, "PlainNeighbors"), "Graph": (PLAIN, "PlainGraph")}
RENAMED = {
    "PlainNeighbors": "Neighbors",
    "PlainGraph": "Graph",
    "Neighborhood": "Neighbors",
}


def _cells(network: Any) -> list[CellForm]:
    cell = network.cells[0]
    return [
        CellForm(
            "Cell",
            "A cell of the genotype: from the outputs of the two cells before, s0 and s1.",
            ("s0", "s1"),
            "in_channels: tuple[int, int], channels: int",
            [
                f"self.pre0 = LinearNorm(in_channels[0], channels, {RELU})",
                f"self.pre1 = LinearNorm(in_channels[1], channels, {RELU})",
            ],
            (LinearNorm,),
            ["s0, s1 = self.pre0(s0), self.pre1(s1)"],
            cell.layout,
            cell.edges,
            f"`[N, {len(cell.concat)}·C]`",
            more=("neighbors", "Neighbors"),
        )
    ]


def _made(cell: Any) -> str:
    return f"Cell({cell.in_channels}, {cell.channels})"


def cloud_form(
    network: PointNetwork, preparation: CloudPreparation | None, example: Any
) -> NetworkForm:
    """A network of clouds."""
    prepare: list[str] = []
    usage = "logits = network(clouds)  # [B, P, 3 or more] float32"
    if preparation is not None:
        taken = f"chosen_points(clouds, {preparation.num_points}, {preparation.seed})"
        if preparation.drawn == FIRST:
            taken = f"clouds[:, : {preparation.num_points}]"
        usage = f"logits = network(prepare(clouds))  # [B, P, {preparation.in_channels}] float32"
        prepare = [
            "def prepare(clouds: Tensor) -> Tensor:",
            '    """The points that the network is asked about, of clouds float32 `[B, P, C]`."""',
            f"    if clouds.shape[1] <= {preparation.num_points}:",
            "        return clouds",
            f"    return {taken}",
        ]
    chosen = [("sgas_gcn.drawing", "chosen_points")] if "chosen" in "".join(prepare) else []
    channels, least = network.stem.in_channels, network.config.k * network.config.num_cells

    def inputs(count: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(count, network.config.num_points, channels, generator=generator),)

    return NetworkForm(
        "A network for point clouds",
        inputs,
        network,
        _cells(network),
        _made,
        network.config,
        usage,
        replaced=REPLACED,
        renamed=RENAMED,
        prepare=prepare,
        needs=chosen,
        dynamic=[{0: ("batch", 1), 1: ("points", least)}],
    )


DEGREES = f"""
def prepare(edge_index: Tensor, num_nodes: int) -> Tensor:
    \"\"\"The degrees of nodes, one-hot: `[N, {MOST_DEGREES + 1}]`.\"\"\"
    # Neighbours count once, and nodes are none of their own.
    low, high = edge_index.min(dim=0).values, edge_index.max(dim=0).values
    apart = torch.stack([low, high])[:, low != high].unique(dim=1)
    degrees = torch.bincount(apart.flatten(), minlength=num_nodes).clamp(max={MOST_DEGREES})
    return nn.functional.one_hot(degrees, {MOST_DEGREES + 1}).float()
"""
ANY_GRAPH = ({0: ("nodes", 2)}, {1: ("edges", 1)})


ANY_EDGE = ({0: ("edges", 1)}, {0: ("edges", 1)})  # weights and attributes


def _graph_inputs(
    in_channels: int, per_graph: bool, edge_channels: int = 0
) -> Callable[[int], tuple[Tensor, ...]]:
    """Draws features and edges of so many graphs, and the graph of each node where it is asked.

    Where edges have attributes, these come last, after their weights.
    """

    def inputs(count: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        graphs, edges = torch.arange(count), (2, EDGES * count)
        x = torch.randn(NODES * count, in_channels, generator=generator)
        first = NODES * graphs.repeat_interleave(EDGES)
        edge_index = torch.randint(NODES, edges, generator=generator) + first
        of_nodes = (graphs.repeat_interleave(NODES),) if per_graph else ()
        if not edge_channels:
            return (x, edge_index, *of_nodes)
        attributes = torch.randn(EDGES * count, edge_channels, generator=generator)
        return (x, edge_index, *of_nodes, torch.ones(EDGES * count), attributes)

    return inputs


def _run(network: Any, x: Tensor, edge_index: Tensor, *more: Tensor) -> Any:
    """The network's outputs as it runs here, for what `_graph_inputs` drew."""
    per_graph = getattr(network, "per_graph", False)
    sizes = more[0].bincount().tolist() if per_graph else [len(x)]
    of_edges = more[1:] if per_graph else more
    neighbors = GraphNeighbors.from_edges(edge_index, len(x), *of_edges)
    return network(GraphBatch(x, neighbors, tuple(sizes)))


def graph_form(
    network: GraphNetwork, preparation: GraphPreparation | None, example: Any
) -> NetworkForm:
    """A network of graphs, that labels their nodes or them; features are taken as they are."""
    given = "x, edge_index, graph_of_node" if network.per_graph else "x, edge_index"
    more, rows = (", [N] int64", "graph") if network.per_graph else ("", "node")
    degrees = preparation is not None and preparation.degrees
    if network.edge_channels:
        given, more = f"{given}, edge_attr=edge_attr", f"{more}, [E, {network.edge_channels}]"
    usage = f"logits = network({given})  # [N, D] float32, [2, E] int64{more}: a row a {rows}"
    if preparation is not None and preparation.weighted:
        usage += "\n    # edge_weight=[E] float32 too: the network learnt from edges with weights"
    if degrees:
        usage = f"x = prepare(edge_index, num_nodes)  # [2, E] int64\n    {usage}"
    of_edges = ANY_EDGE if network.edge_channels else ()
    return NetworkForm(
        "A network for graphs" if network.per_graph else "A network for the nodes of graphs",
        _graph_inputs(network.in_channels, network.per_graph, network.edge_channels),
        network,
        _cells(network),
        _made,
        network.config,
        usage,
        replaced=REPLACED,
        renamed=RENAMED,
        prepare=DEGREES.strip().splitlines() if degrees else (),
        # How many answers there are follows from values, which no program of torch.export may ask.
        dynamic=() if network.per_graph else (*ANY_GRAPH, *of_edges),
        run=_run,
        definition="plain_of_graphs" if network.per_graph else "plain",
    )


def nasbenchgraph_form(
    network: NasBenchGraphNetwork, preparation: Any, example: GraphBatch
) -> NetworkForm:
    """A network of NAS-Bench-Graph's cells, whose operators are PyTorch Geometric's."""
    cell: Any = network.body.cells[0]
    form = CellForm(
        "Cell",
        "The cell of the genotype, of the features x or of a layer of them.",
        ("x",),
        "channels: int",
        [],
        (),
        [],
        cell.layout,
        cell.edges,
        "of the leaves, `[N, C]` each",
        returns=("list[Tensor]", "[{}]"),
        more=("neighbors", "Neighbors"),
    )
    return NetworkForm(
        "A network for the nodes of graphs of the space of NAS-Bench-Graph",
        _graph_inputs(example.x.shape[1], False),
        network.body,
        [form],
        lambda cell: f"Cell({network.config.channels})",
        network.config,
        "logits = network(x, edge_index)  # [N, D] float32, [2, E] int64: a row a node",
        dynamic=ANY_GRAPH,
        prefix="body.",
        renamed={**RENAMED, "PlainGraph": "Edges"},  # an operation is called Graph
        run=_run,
        libraries=("torch", "torch_geometric"),
    )
