"""The cell of point-cloud networks, and the layers around it.

A cell is a list of edges that each hold some operations: all candidates (undecided), one (decided)
or none (pruned); the supernet's cell and a derived cell are the same class. Dimensions: B clouds,
N nodes of all clouds together, C channels, E edges, O candidate operations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cell import dag_forward
from sgas_gcn.config import PointModelConfig
from sgas_gcn.neighbors import CellNeighbors, Neighbors
from sgas_gcn.ops.common import BatchNorm, SourceState
from sgas_gcn.ops.point import LEAKY_SLOPE, POINT_OPERATIONS

Activation = Callable[[Tensor], Tensor]
NUM_INPUTS = 2
STEM_MULTIPLE = 3  # channels of the stem, in units of C
HEAD_CHANNELS = (512, 256)


def leaky_relu(x: Tensor) -> Tensor:
    """x where positive, 0.2 x elsewhere; overwrites x."""
    return F.leaky_relu_(x, LEAKY_SLOPE)


class LinearNorm(nn.Module):
    """BN(activation(W x)) on `[N, in_channels]`: `[N, out_channels]`. Activation before norm.

    The activation may overwrite its argument.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        activation: Activation | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels, bias=bias)
        self.norm = BatchNorm(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[N, out_channels]`."""
        x = self.lin(x)
        return self.norm(x if self.activation is None else self.activation(x))


@dataclass(frozen=True)
class CellEdge:
    """One edge: the state it reads, the step it enters, and the operations it holds."""

    source: int
    step: int
    ops: tuple[str, ...]


@dataclass(frozen=True)
class OperationGroup:
    """All edges out of one state that hold one operation; they are evaluated together."""

    op: str
    edges: tuple[int, ...]


class PointCell(nn.Module):
    """A cell over `edges`, with outputs `concat` side by side: `[N, len(concat)·C]`."""

    scale_index: Tensor

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        edges: Sequence[CellEdge],
        num_steps: int,
        concat: Sequence[int],
    ) -> None:
        super().__init__()
        self.concat = tuple(concat)
        self.num_steps = num_steps
        self.out_channels = len(self.concat) * channels
        self.pre0 = LinearNorm(in_channels[0], channels, F.relu_)
        self.pre1 = LinearNorm(in_channels[1], channels, F.relu_)
        self.links = [(edge.source, edge.step) for edge in edges]
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: POINT_OPERATIONS[op](channels) for op in edge.ops}) for edge in edges
        )
        self.register_buffer("scale_index", torch.zeros(0, dtype=torch.int64), persistent=False)
        self._plan()

    def restrict(self, kept: Sequence[Sequence[str]]) -> None:
        """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
        for edge, ops in enumerate(kept):
            held = self._held(edge)
            missing = set(ops) - set(held)
            assert not missing, f"edge {edge} has lost {sorted(missing)} in an earlier decision"
            for op in set(held) - set(ops):
                del held[op]
        self._plan()

    def _held(self, edge: int) -> nn.ModuleDict:
        """The operations that an edge still holds."""
        held = self.edges[edge]
        assert isinstance(held, nn.ModuleDict)
        return held

    def _plan(self) -> None:
        """Group the edges by what they read and hold, and note where their weights stand."""
        names = list(POINT_OPERATIONS)
        self.groups: list[list[OperationGroup]] = []
        index: list[int] = []
        for source in range(NUM_INPUTS + self.num_steps):
            leaving = [edge for edge, (start, _) in enumerate(self.links) if start == source]
            groups = []
            for column, op in enumerate(names):
                edges = tuple(edge for edge in leaving if self._contributes(edge, op))
                if edges:
                    groups.append(OperationGroup(op, edges))
                    index += [edge * len(names) + column for edge in edges]
            self.groups.append(groups)
        self.scale_index = torch.tensor(index, dtype=torch.int64, device=self.scale_index.device)

    def _contributes(self, edge: int, op: str) -> bool:
        """True where an edge holds an operation that adds something to its output."""
        held = self._held(edge)
        return op in held and (op != "none" or len(held) == 1)

    def _scales(self, weights: Tensor | None) -> Iterator[Tensor | None]:
        """The weights of each group's edges, in the order of the groups; None stands for ones."""
        sizes = [len(group.edges) for groups in self.groups for group in groups]
        if weights is None:
            return iter([None] * len(sizes))
        return iter(weights.flatten().index_select(0, self.scale_index).split(sizes))

    def forward(
        self,
        s0: Tensor,
        s1: Tensor,
        neighbors: Neighbors,
        weights: Tensor | None = None,
        drop_path: float = 0.0,
        num_clouds: int = 1,
    ) -> Tensor:
        """The output `[N, out_channels]` for the outputs of the two cells before.

        `weights` `[E, O]` multiply the operations (None: all 1). In training mode every edge but a
        skip is dropped with probability `drop_path` for each of the clouds.
        """
        scales = self._scales(weights)
        drop_path = drop_path if self.training else 0.0

        def push(source: int, x: Tensor) -> dict[int, Tensor]:
            state = SourceState(x, neighbors)
            mixtures: dict[tuple[int, ...], Tensor] = {}
            for group in self.groups[source]:
                operation = POINT_OPERATIONS[group.op]
                ops = [self._held(edge)[group.op] for edge in group.edges]
                out = operation.evaluate(ops, state, next(scales))
                if drop_path > 0 and not operation.skips:
                    out = drop_clouds(out, drop_path, num_clouds)
                known = mixtures.get(group.edges)
                mixtures[group.edges] = out if known is None else known + out
            return self._by_step(mixtures)

        states = dag_forward([self.pre0(s0), self.pre1(s1)], self.num_steps, push)
        return torch.cat([states[state] for state in self.concat], dim=1)

    def _by_step(self, mixtures: dict[tuple[int, ...], Tensor]) -> dict[int, Tensor]:
        """The contributions `[N, C]` to each step, from outputs `[N, m, C]` of groups of edges."""
        steps: dict[int, Tensor] = {}
        for edges, out in mixtures.items():
            for edge, part in zip(edges, out.unbind(1), strict=True):
                step = self.links[edge][1]
                steps[step] = steps[step] + part if step in steps else part
        return steps


def drop_clouds(x: Tensor, probability: float, num_clouds: int) -> Tensor:
    """`x` `[N, m, C]` with each edge's output zeroed for random clouds, the others scaled up.

    Drop path as in Larsson et al., "FractalNet", ICLR 2017, with one draw for a cloud and an edge.
    """
    keep = 1 - probability
    mask = torch.rand(num_clouds, 1, x.shape[1], 1, device=x.device, dtype=x.dtype) < keep
    return (x.unflatten(0, (num_clouds, -1)) * (mask / keep)).flatten(0, 1)


def build_cells(
    config: PointModelConfig, edges: Sequence[CellEdge], num_steps: int, concat: Sequence[int]
) -> Sequence[PointCell]:
    """The cells of a network as a module list, all over the same edges."""
    widths = [STEM_MULTIPLE * config.channels] * NUM_INPUTS
    cells = nn.ModuleList()
    for _ in range(config.num_cells):
        cell = PointCell((widths[-2], widths[-1]), config.channels, edges, num_steps, concat)
        widths.append(cell.out_channels)
        cells.append(cell)
    return cast("Sequence[PointCell]", cells)  # nn.ModuleList does not say what it holds


def build_stem(config: PointModelConfig, in_channels: int) -> LinearNorm:
    """The layer before the first cell: BN(W x)."""
    return LinearNorm(in_channels, STEM_MULTIPLE * config.channels)


def build_heads(
    config: PointModelConfig, cells: Sequence[PointCell], num_classes: int
) -> tuple[LinearNorm, LinearNorm, LinearNorm, nn.Sequential]:
    """The layers after the cells: fusion of stem and cells, then three layers of classifier."""
    fused = STEM_MULTIPLE * config.channels + sum(cell.out_channels for cell in cells)
    return (
        LinearNorm(fused, config.emb_dims, leaky_relu),
        LinearNorm(2 * config.emb_dims, HEAD_CHANNELS[0], leaky_relu, bias=True),
        LinearNorm(*HEAD_CHANNELS, leaky_relu, bias=True),
        nn.Sequential(OrderedDict(lin=nn.Linear(HEAD_CHANNELS[1], num_classes))),
    )


def forward_cells(
    cells: Sequence[PointCell],
    stem: Tensor,
    neighbors: CellNeighbors,
    run: Callable[[PointCell, Tensor, Tensor, Neighbors], Tensor],
) -> list[Tensor]:
    """The stem's output and those of all cells; the first cell reads the stem twice.

    The neighbours of a cell are those of the first of its inputs, before any layer.
    """
    outputs = [stem]
    s0 = s1 = stem
    for number, cell in enumerate(cells):
        s0, s1 = s1, run(cell, s0, s1, neighbors.of_cell(number, s0))
        outputs.append(s1)
    return outputs


def pool_clouds(x: Tensor, num_clouds: int) -> Tensor:
    """Largest and mean value over the points of each cloud, `[N, C]` to `[B, 2C]`."""
    clouds = x.unflatten(0, (num_clouds, -1))
    return torch.cat([clouds.max(dim=1).values, clouds.mean(dim=1)], dim=1)


def classify(
    outputs: Sequence[Tensor],
    fusion: nn.Module,
    heads: Sequence[nn.Module],
    num_clouds: int,
    dropout: float,
) -> Tensor:
    """Logits `[B, num_classes]` from the outputs of stem and cells, dropout between the heads."""
    x = pool_clouds(fusion(torch.cat(tuple(outputs), dim=1)), num_clouds)
    for head in heads[:-1]:
        x = F.dropout(head(x), dropout, fusion.training)
    return heads[-1](x)
