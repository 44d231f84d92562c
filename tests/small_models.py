"""Small supernets and networks of every search space, and inputs for them: one entry a space.

What holds of each entry is in tests/contracts; another space is another entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from toy_family import FAMILY as TOY

from sgas.cells.decisions import CellDecisions, Choice
from sgas.cells.edges import PLACE
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.family import Family
from sgas_cnn.family import FAMILY as CNN
from sgas_cnn.nasbench201_text import from_nasbench201
from sgas_gcn.family import FAMILY as GCN
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.nasbenchgraph_text import from_nasbenchgraph

FAMILIES = {family.name: family for family in (TOY, GCN, CNN)}


def tensors(*shape: int) -> Callable[[int], list[Tensor]]:
    """Samples of random numbers of one shape."""
    return lambda count: list(torch.randn(count, 1, *shape, dtype=torch.float64))


def graphs(count: int) -> list[GraphBatch]:
    """Graphs of different sizes, with an isolated node, a self-loop and edges that occur twice."""
    found = []
    for nodes in range(8, 8 + count):
        edges = torch.randint(nodes - 1, (2, 4 * nodes))
        edges = torch.cat([edges, edges[:, :5], torch.zeros(2, 1).long()], 1)
        found.append(GraphBatch.of_graph(torch.randn(nodes, 6, dtype=torch.float64), edges))
    return found


@dataclass(frozen=True)
class SmallSpace:
    """A search space with models of a moment.

    `sizes` are options of the model, `others` further ones that have to work; `decided_ops` are
    operations whose weights a supernet hands on to the derived network, `genotypes` published names
    or texts. `joined` makes one batch of samples.
    """

    family: Family
    name: str
    sizes: Mapping[str, Any]
    others: Sequence[Mapping[str, Any]]
    dimensions: Mapping[str, int]
    samples: Callable[[int], list[Any]]
    decided_ops: Sequence[str]
    genotypes: Sequence[str | Genotype]
    joined: Callable[[Any], Any] = torch.cat

    @property
    def space(self) -> SearchSpace:
        return self.family.search_space(self.name)

    def models(self, **options: Any) -> Any:
        config = self.family.spaces[self.name].model_config(**{**self.sizes, **options})
        return self.family.spaces[self.name].models(config, self.dimensions)

    def supernet(self, seed: int = 0, **options: Any) -> Any:
        """A supernet in float64, and in training mode."""
        torch.manual_seed(seed)
        return self.models(**options).build_supernet().double()

    def network(self, genotype: Genotype | None = None, auxiliary: bool = False) -> Any:
        """A network in float64, and in training mode; of the first genotype, unless told."""
        torch.manual_seed(0)
        return self.models().build_network(genotype or self.genotype(0), auxiliary).double()

    def genotype(self, number: int) -> Genotype:
        known = self.genotypes[number]
        return known if isinstance(known, Genotype) else self.family.load_published(known)

    def batch(self, count: int = 4) -> Any:
        """Samples as one batch."""
        torch.manual_seed(1)
        return self.joined(self.samples(count))

    @property
    def none_decided(self) -> dict[str, CellDecisions]:
        topology = self.space.topology(self.models().num_steps)
        return {kind: CellDecisions.none_yet(topology) for kind in self.space.cell_kinds}

    @property
    def stages(self) -> list[dict[str, CellDecisions]]:
        """None decided, then one edge more each: the second ends the choice for a step.

        Where a step keeps one edge, the first has ended it, and there is no second.
        """
        kinds, ops, stages = self.space.cell_kinds, self.space.operations, [self.none_decided]
        topology = stages[0][kinds[0]].topology
        *_, last = into = [edge.index for edge in topology.edges_into(1)]
        skip = next(op for op in ops if op.startswith("skip"))
        for kind, edge, op in (
            (kinds[0], last, ops[-1]),
            (kinds[0], into[0], skip),
            (kinds[0], 0, ops[2]),
            (kinds[-1], topology.num_edges - 1, ops[-2]),
        ):
            if edge not in stages[-1][kind].undecided:
                continue
            cell = stages[-1][kind].decide(Choice(edge, op))
            stages.append({**stages[-1], kind: cell})
        return stages

    def all_decided(self, ops: Sequence[str]) -> dict[str, CellDecisions]:
        """All edges are decided, from the last one, by these operations in turn."""
        decisions = self.none_decided
        for kind, cell in decisions.items():
            while cell.undecided:
                op = ops[cell.num_decided % len(ops)]
                cell = cell.decide(Choice(cell.undecided[-1], op))
            decisions[kind] = cell
        return decisions

    def places(self, net: nn.Module) -> dict[str, tuple[str, int, str]]:
        """The kind of cell, edge and operation of each parameter of an edge, by its name."""
        kinds, places = self.space.cell_kinds, {}
        for name, _ in net.named_parameters():
            if match := PLACE.search(name):
                cell = net.get_submodule(name[: match.end("cell")])
                kind = match["cell"] if match["cell"] in kinds else getattr(cell, "kind", kinds[0])
                places[name] = (kind, int(match["edge"]), match["op"])
        return places


ENTRIES = (
    SmallSpace(
        TOY,
        "toy",
        {"num_steps": 3, "dropout": 0.0},
        [{"num_steps": 1}, {"num_steps": 4, "channels": 1}],
        {},
        tensors(5),
        ["linear", "tanh", "gate", "skip"],
        [
            Genotype.from_text(
                "Genotype(normal=[('gate', 0), ('tanh', 1)], normal_concat=[2], "
                "reduce=[('linear', 0), ('skip', 1)], reduce_concat=[2])",
                "toy",
            )
        ],
    ),
    SmallSpace(
        GCN,
        "point",
        {"num_points": 16, "k": 4, "channels": 4, "num_cells": 2, "emb_dims": 8, "dropout": 0.0},
        [{"num_cells": cells, "num_steps": steps} for cells in (1, 3) for steps in (1, 4)],
        {"in_channels": 3, "num_classes": 5},
        tensors(16, 3),
        ["gat", "edge_conv", "skip_connect", "gin", "rel_sage", "semi_gcn"],
        ["cri2-modelnet-best", "cri1-modelnet-9", "random-modelnet-1", "random-modelnet-9"],
    ),
    SmallSpace(
        GCN,
        "graph",
        {"channels": 4, "num_cells": 2},
        [
            {"num_cells": cells, "num_steps": steps, "dropout": dropout}
            for cells, steps, dropout in ((1, 1, 0.0), (1, 4, 0.5), (3, 1, 0.5), (3, 4, 0.0))
        ]
        + [{"num_steps": 3, "stem": "none", "row_normalize": True}],
        {"in_channels": 6, "num_outputs": 5},
        graphs,
        ["gat", "edge_conv", "skip_connect", "gin", "rel_sage", "semi_gcn"],
        ["cri2-ppi-best", "cri1-ppi-10", "random-ppi-1", "random-ppi-8"],
        GraphBatch.join,
    ),
    SmallSpace(
        GCN,
        "nasbenchgraph",
        {"channels": 4, "dropout": 0.0},
        [{"num_steps": 1, "channels": 8}, {"num_steps": 3, "dropout": 0.5, "post_layers": 0}],
        {"in_channels": 6, "num_outputs": 5},
        graphs,
        ["gat", "arma", "skip", "cheb", "graph"],
        [
            from_nasbenchgraph([0, 1, 1, 2], ["gcn", "cheb", "gin", "fc"]),
            from_nasbenchgraph([0, 0, 2, 3], ["gat", "sage", "arma", "graph"]),
        ],
        GraphBatch.join,
    ),
    SmallSpace(
        CNN,
        "image",
        {"channels": 2, "num_cells": 3},
        [{"num_cells": cells, "num_steps": steps} for cells, steps in ((1, 4), (2, 5), (5, 4))],
        {"in_channels": 3, "num_classes": 5, "image_size": 8},
        tensors(3, 8, 8),
        ["skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"],
        ["cri2-cifar-best", "cri1-cifar-9", "darts-v1", "nasnet", "amoebanet"],
    ),
    SmallSpace(
        CNN,
        "nasbench201",
        {"channels": 2, "num_cells": 1},
        [{"num_steps": 1}, {"num_cells": 2, "num_steps": 4}],
        {"in_channels": 3, "num_classes": 5, "image_size": 8},
        tensors(3, 8, 8),
        ["nor_conv_1x1", "none", "avg_pool_3x3", "skip_connect", "nor_conv_3x3"],
        [
            from_nasbench201(
                "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|"
                "+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"
            )
        ],
    ),
)
SPACES = {entry.name: entry for entry in ENTRIES}
