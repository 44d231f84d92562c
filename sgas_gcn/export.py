"""How networks of clouds and of graphs are written as files of their own.

Dimensions: B clouds, P points, N nodes, C channels, E edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas.errors import InputError
from sgas.exporting.forms import CellForm, NetworkForm
from sgas_gcn.cells import RELU, LinearNorm
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.heads import GraphClassifier
from sgas_gcn.network import GraphNetwork, PointNetwork
from sgas_gcn.preparation import FIRST, CloudPreparation

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


def graph_form(network: GraphNetwork, preparation: Any, example: Any) -> NetworkForm:
    """A network of graphs; features are taken as they are. InputError where graphs are asked."""
    if isinstance(network.classifier, GraphClassifier):
        raise InputError(
            "networks that label whole graphs cannot be exported yet: predict by the run"
        )

    def inputs(count: int) -> tuple[Tensor, ...]:
        generator, nodes = torch.Generator().manual_seed(0), NODES * count
        x = torch.randn(nodes, network.in_channels, generator=generator)
        return x, torch.randint(nodes, (2, EDGES * count), generator=generator)

    return NetworkForm(
        "A network for the nodes of graphs",
        inputs,
        network,
        _cells(network),
        _made,
        network.config,
        "logits = network(x, edge_index)  # [N, features] float32, [2, E] int64: a row a node; "
        "edge_weight [E] third",
        replaced=REPLACED,
        renamed=RENAMED,
        run=lambda network, x, edges: network(GraphBatch.of_graph(x, edges)),
    )
