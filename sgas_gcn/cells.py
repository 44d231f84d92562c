"""The cell of point-cloud and graph networks, and the stem before the first.

A cell is a list of edges that each hold some operations: all candidates (undecided), one (decided)
or none (pruned); the supernet's cell and a derived cell are the same class, and so are those of
points and graphs, which differ in the table of operations. Dimensions: B clouds or graphs, N nodes
of all of them together, C channels, E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.edges import CellLayout, restrict, running
from sgas.cells.forward import dag_extend
from sgas.cells.space import NONE
from sgas.native.precision import widened
from sgas_gcn.config import AFFINE, NO_STEM, GraphModelConfig, PointModelConfig
from sgas_gcn.constants import EPS
from sgas_gcn.features import Affine, Features, reduced, sparse_product, with_ones
from sgas_gcn.fused.layer import linear_norm
from sgas_gcn.fused.state import FusedEdges, FusedGroup
from sgas_gcn.ops.operation import BatchNorm, Operation, runs_fused
from sgas_gcn.ops.plain import PlainNeighbors
from sgas_gcn.parts import PartedNeighbors

DropPath = Callable[[Tensor], Tensor]
Operations = Mapping[str, type[Operation]]
ModelConfig = PointModelConfig | GraphModelConfig
Neighborhood = TypeVar("Neighborhood")

NUM_INPUTS = 2
RELU = 0.0  # the negative slope of a ReLU
STEM_MULTIPLE = 3  # channels of the stem, in units of C


class LinearNorm(nn.Module):
    """BN(leaky ReLU(W x)) on features `[N, in_channels]`: `[N, out_channels]`; activation first.

    `negative_slope` is the activation's: 0 is a ReLU, 1 none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        negative_slope: float = 1.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.negative_slope, self.bias = negative_slope, bias
        self.lin = nn.Linear(in_channels, out_channels, bias=bias)
        self.norm = BatchNorm(out_channels)

    def forward(self, x: Features) -> Tensor:
        """The normalised `[N, out_channels]`."""
        if isinstance(x, Tensor) and x.is_sparse:
            y = sparse_product(x, self.lin.weight)
            y = y if self.lin.bias is None else y + self.lin.bias
            return self.norm(F.leaky_relu(y, self.negative_slope))
        matrix, weight = reduced(x, self.lin.weight)
        return linear_norm(matrix, weight, self.lin.bias, self.norm, self.negative_slope)

    def plain(self, x: Tensor) -> Tensor:
        """The normalised `[N, out_channels]`, in plain torch."""
        return self.norm(F.leaky_relu(self.lin(x), self.negative_slope))


@dataclass(frozen=True)
class Outgoing:
    """All edges that leave one state: the steps that they enter, and what they hold.

    `skips` says of each edge whether drop path leaves it alone. `plain` are the operations that run
    by their `forward`, with the place of their edge among these.
    """

    steps: tuple[int, ...]
    skips: tuple[bool, ...]
    fused: FusedEdges | None
    plain: tuple[tuple[int, Operation], ...]

    @property
    def num_weights(self) -> int:
        """How many weights the operations have: the fused ones, then the others."""
        return len(self.plain) + (0 if self.fused is None else self.fused.num_weights)

    def bases(self, sums: Mapping[int, Tensor]) -> list[Tensor | None]:
        """What each edge adds to: of edges into one step, the first to what there is."""
        return [
            None if step in self.steps[:slot] else sums.get(step)
            for slot, step in enumerate(self.steps)
        ]

    def outputs(
        self,
        x: Tensor,
        neighbors: Any,
        scale: Tensor | None,
        training: bool,
        bases: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """What each edge puts out, `[N, C]`, on top of its base; `scale` are the weights."""
        outputs, num_fused = list(bases), 0
        if self.fused is not None:
            num_fused = self.fused.num_weights
            own = None if scale is None else scale[:num_fused]
            outputs = list(self.fused.outputs(x, neighbors, own, training, bases))
        for number, (slot, operation) in enumerate(self.plain, start=num_fused):
            with torch.autocast(x.device.type, enabled=False):  # as inside fused functions
                part = operation(widened(x), neighbors)
            part = part if scale is None else part * scale[number]
            so_far = outputs[slot]
            outputs[slot] = part if so_far is None else so_far + part
        return cast("list[Tensor]", outputs)  # each edge holds an operation

    def in_parts(
        self,
        x: Tensor,
        neighbors: PartedNeighbors,
        scale: Tensor | None,
        sums: Mapping[int, Tensor],
    ) -> dict[int, Tensor]:
        """What `by_step` gives of the outputs in evaluation mode, part by part, into `sums`."""
        totals = {step: sums[step] for step in self.steps if step in sums}
        begun = set(totals)
        for part in neighbors.on(x.device):
            bases = {step: totals[step].index_select(0, part.nodes) for step in begun}
            own = x.index_select(0, part.nodes)
            outputs = self.outputs(own, part.neighbors, scale, False, self.bases(bases))
            for step, rows in self.by_step(outputs).items():
                if step not in totals:
                    totals[step] = rows.new_zeros(len(x), rows.shape[1])
                totals[step] = totals[step].index_copy_(0, part.answered, rows[: part.count])
        return totals

    def dropped(self, outputs: Sequence[Tensor], drop_path: DropPath) -> list[Tensor]:
        """The outputs after drop path, those of skips as they are."""
        if not outputs:
            return []
        dropped = drop_path(torch.stack(list(outputs), dim=1)).unbind(1)
        choices = zip(self.skips, outputs, dropped, strict=True)
        return [output if skips else without for skips, output, without in choices]

    def by_step(
        self, outputs: Sequence[Tensor], sums: Mapping[int, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """The sums `[N, C]` of the steps that the edges enter, on top of `sums`."""
        totals: dict[int, Tensor] = {}
        for step, output in zip(self.steps, outputs, strict=True):
            so_far = totals.get(step, None if sums is None else sums.get(step))
            totals[step] = output if so_far is None else so_far + output
        return totals


def made(operation: type[Operation], channels: int, edge_channels: int) -> Operation:
    """An operation for `channels` features, and so many attributes of edges if it reads them."""
    if operation.reads_attributes:
        return operation(channels, edge_channels)  # type: ignore[call-arg]
    return operation(channels)


class Cell(nn.Module):
    """A cell after `layout`, with outputs side by side: `[N, len(concat)·C]`."""

    scale_index: Tensor

    def __init__(
        self,
        operations: Operations,
        in_channels: tuple[int, int],
        channels: int,
        layout: CellLayout,
        edge_channels: int = 0,
    ) -> None:
        super().__init__()
        self.operations = dict(operations)
        self.in_channels, self.channels, self.layout = in_channels, channels, layout
        self.concat, self.num_steps = layout.concat, layout.num_steps
        self.out_channels = len(self.concat) * channels
        self.pre0 = LinearNorm(in_channels[0], channels, RELU)
        self.pre1 = LinearNorm(in_channels[1], channels, RELU)
        self.links = [(edge.source, edge.step) for edge in layout.edges]
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: made(operations[op], channels, edge_channels) for op in edge.ops})
            for edge in layout.edges
        )
        self.register_buffer("scale_index", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.select(None)

    def restrict(self, kept: Sequence[Sequence[str]]) -> None:
        """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
        restrict(self.edges, kept)
        self.select(None)

    def select(self, kept: Sequence[Sequence[str]] | None) -> None:
        """Run the operations in `kept` alone, by edge, and free none; None: all that are held."""
        self.running = [running(self.edges, edge, kept) for edge in range(len(self.edges))]
        self._sort()

    def _sort(self) -> None:
        """Sort the edges by what they read and hold, and note where their weights stand."""
        columns = {op: column for column, op in enumerate(self.operations)}
        self.outgoing: list[Outgoing] = []
        index: list[int] = []
        for source in range(NUM_INPUTS + self.num_steps):
            leaving = [edge for edge, (start, _) in enumerate(self.links) if start == source]
            # Edges that hold more come first: those of most operations then stand side by side.
            sizes = {edge: len(self.running[edge]) for edge in leaving}
            order = sorted(filter(sizes.get, leaving), key=sizes.__getitem__, reverse=True)
            holders = self._holders(order)
            self.outgoing.append(self._outgoing(order, holders))
            for op, edges in holders:
                index += [edge * len(columns) + columns[op] for edge in edges]
        self.scale_index = torch.tensor(index, dtype=torch.int64, device=self.scale_index.device)

    def _holders(self, edges: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The operations on some edges and which of these hold them, those that run fused first."""
        names = sorted(self.operations, key=lambda op: not runs_fused(self.operations[op]))
        holders = [(op, [edge for edge in edges if self._contributes(edge, op)]) for op in names]
        return [(op, several) for op, several in holders if several]

    def _outgoing(
        self, edges: Sequence[int], holders: Sequence[tuple[str, Sequence[int]]]
    ) -> Outgoing:
        """What leaves a state by its edges, with the operations on them."""
        groups: list[FusedGroup] = []
        plain: list[tuple[int, Operation]] = []
        for op, several in holders:
            operation = self.operations[op]
            modules = [cast("Operation", self.running[edge][op]) for edge in several]
            slots = [edges.index(edge) for edge in several]
            if runs_fused(operation):
                groups.append(FusedGroup(operation, tuple(modules), tuple(slots)))
            else:
                plain += zip(slots, modules, strict=True)
        return Outgoing(
            tuple(self.links[edge][1] for edge in edges),
            tuple(self._skips(edge) for edge in edges),
            FusedEdges(tuple(groups), len(edges)) if groups else None,
            tuple(plain),
        )

    def _skips(self, edge: int) -> bool:
        """True where drop path leaves an edge alone."""
        return any(self.operations[op].skips for op in self.running[edge])

    def _contributes(self, edge: int, op: str) -> bool:
        """True where an edge holds an operation that adds something to its output."""
        operations = self.running[edge]
        return op in operations and (op != NONE or len(operations) == 1)

    def _scales(self, weights: Tensor | None) -> Sequence[Tensor | None]:
        """The weights of the operations on edges, by the state that they read; None for ones."""
        if weights is None:
            return [None] * len(self.outgoing)
        sizes = [outgoing.num_weights for outgoing in self.outgoing]
        return weights.flatten().index_select(0, self.scale_index).split(sizes)

    def forward(
        self,
        s0: Features,
        s1: Features,
        neighbors: Any,
        weights: Tensor | None = None,
        drop_path: DropPath | None = None,
    ) -> Tensor:
        """The output `[N, out_channels]` for the outputs of the two cells before.

        `weights` `[E, O]` multiply the operations (None: all 1); `drop_path` is applied to what
        every edge puts out, `[N, m, C]`, but where it holds a skip. `neighbors` may be in parts in
        evaluation mode: of a graph that is large, less is in memory then.
        """
        scales = self._scales(weights)

        def extend(source: int, x: Tensor, sums: Mapping[int, Tensor]) -> dict[int, Tensor]:
            outgoing, scale = self.outgoing[source], scales[source]
            if isinstance(neighbors, PartedNeighbors):
                assert not self.training, "training steps have a block of the graph"
                return outgoing.in_parts(x, neighbors, scale, sums)
            if drop_path is None:
                bases = outgoing.bases(sums)
                return outgoing.by_step(outgoing.outputs(x, neighbors, scale, self.training, bases))
            bases = outgoing.bases({})
            outputs = outgoing.outputs(x, neighbors, scale, self.training, bases)
            return outgoing.by_step(outgoing.dropped(outputs, drop_path), sums)

        states = dag_extend([self.pre0(s0), self.pre1(s1)], self.num_steps, extend)
        return torch.cat([states[state] for state in self.concat], dim=1)

    def plain(self, s0: Tensor, s1: Tensor, neighbors: PlainNeighbors) -> Tensor:
        """The output in plain torch, of a cell that is decided: each edge by its definition."""
        states = [self.pre0.plain(s0), self.pre1.plain(s1)]
        for step in range(self.num_steps):
            outs = [
                operation(states[source], neighbors)
                for edge, (source, end) in enumerate(self.links)
                if end == step
                for operation in self.running[edge].values()
            ]
            states.append(reduce(torch.add, outs))
        return torch.cat([states[state] for state in self.concat], dim=1)


def drop_clouds(x: Tensor, probability: float, num_clouds: int) -> Tensor:
    """`x` `[N, m, C]` with each edge's output zeroed for random clouds, the others scaled up.

    Drop path as in Larsson et al., "FractalNet", ICLR 2017, with one draw for a cloud and an edge.
    All clouds have the same number of nodes.
    """
    kept = _kept(x, probability, num_clouds).unsqueeze(1)
    return (x.unflatten(0, (num_clouds, -1)) * kept).flatten(0, 1)


def drop_graphs(x: Tensor, probability: float, graph_of_node: Tensor, num_graphs: int) -> Tensor:
    """`drop_clouds` for graphs, whose nodes `graph_of_node` `[N]` tells apart."""
    return x * _kept(x, probability, num_graphs).index_select(0, graph_of_node)


def _kept(x: Tensor, probability: float, num_samples: int) -> Tensor:
    """A factor `[num_samples, m, 1]` for the edges' outputs `x`: 0 by chance, else above 1."""
    keep = 1 - probability
    lots = torch.rand(num_samples, x.shape[1], 1, device=x.device, dtype=x.dtype)
    return (lots < keep) / keep


def build_cells(
    operations: Operations,
    config: ModelConfig,
    layout: CellLayout,
    stem: Stem | None,
    in_channels: int,
    edge_channels: int = 0,
) -> Sequence[Cell]:
    """The cells of a network as a module list, all after the same layout.

    The first reads what the stem gives, or the features, of `in_channels`, where there is none.
    """
    widths = [in_channels if stem is None else stem.out_channels] * NUM_INPUTS
    cells = nn.ModuleList()
    for _ in range(config.num_cells):
        inputs = (widths[-2], widths[-1])
        cell = Cell(operations, inputs, config.channels, layout, edge_channels)
        widths.append(cell.out_channels)
        cells.append(cell)
    return cast("Sequence[Cell]", cells)  # nn.ModuleList does not say what it holds


class Stem(LinearNorm):
    """The layer before the first cell: BN(W x), an affine map."""

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """BN's scale s `[D]` and shift, so that the output is s W x + shift; mean and variance.

        In training these are W μ and diag(W Σ Wᵀ), with the mean and the covariance of x
        `[N, in_channels]`. All float64.
        """
        weight = self.lin.weight.double()
        mean, variance = self.norm.running_mean.double(), self.norm.running_var.double()
        if self.training:
            centre = x.double().mean(0)
            centred = x.double() - centre
            covariance = centred.t() @ centred / len(x)
            mean, variance = weight @ centre, ((weight @ covariance) * weight).sum(1)
        scale = self.norm.weight * (variance + EPS).rsqrt()
        return scale, self.norm.bias - scale * mean, mean, variance

    def affine(self, x: Tensor) -> Affine:
        """The output for `[N, in_channels]` as an affine map; moves the running statistics."""
        scale, shift, mean, variance = self._affine(x)
        if self.training:
            norm = self.norm
            with torch.no_grad():
                unbiased = variance * (len(x) / max(len(x) - 1, 1))
                norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
                norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
        matrix = torch.cat([self.lin.weight * scale.unsqueeze(1), shift.unsqueeze(1)], dim=1)
        return Affine(with_ones(x), matrix.to(x.dtype))

    @torch.no_grad()
    def coordinates(self, x: Tensor) -> Tensor:
        """Coordinates `[N, in_channels]` with the distances of the stem's outputs for `x`.

        Outputs differ by s W (x_i - x_j), and that is as long as R (x_i - x_j) for the QR
        decomposition of s W. Computed in float64.
        """
        scale = self._affine(x)[0]
        triangle = triangle_of(self.lin.weight * scale.unsqueeze(1))
        return (x.double() @ triangle.t()).to(x.dtype)


def triangle_of(matrix: Tensor) -> Tensor:
    """R `[I, I]` of the QR decomposition of a float64 matrix `[D, I]` of few columns.

    By Gram–Schmidt, column after column, since solvers cannot be captured in a CUDA graph. A column
    that the others span to twelve digits gives a row of zeros.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    rows, smallest = [], 1e-12 * torch.linalg.vector_norm(matrix) + tiny
    for column in range(matrix.shape[1]):
        direction = matrix[:, column]
        length = torch.linalg.vector_norm(direction)
        direction = direction / length.clamp_min(smallest) * (length > smallest)
        rows.append(torch.mv(matrix.t(), direction))
        matrix = matrix - torch.outer(direction, rows[-1])
    return torch.stack(rows)


@overload
def build_stem(config: PointModelConfig, in_channels: int) -> Stem: ...
@overload
def build_stem(config: ModelConfig, in_channels: int) -> Stem | None: ...
def build_stem(config: ModelConfig, in_channels: int) -> Stem | None:
    """The layer before the first cell; None where cells read the features."""
    if isinstance(config, GraphModelConfig) and config.stem == NO_STEM:
        return None
    return Stem(in_channels, STEM_MULTIPLE * config.channels)


def keep_statistics(config: GraphModelConfig, *parts: nn.Module | None) -> None:
    """Keeps the norms of `parts` at mean 0 and variance 1 where the config says `affine`.

    That is what they begin with, and in evaluation mode they stay so. A norm by statistics undoes
    any scale of the layers before it, so that weight decay bounds nothing there (van Laarhoven, "L2
    Regularization versus Batch and Weight Normalization", 2017).
    """
    if config.norms == AFFINE:
        for part in filter(None, parts):
            part.eval()


def forward_cells(
    cells: Sequence[Cell],
    stem: Features,
    neighbors_of: Callable[[int, Features], Neighborhood],
    run: Callable[[Cell, Features, Features, Neighborhood], Features],
    last: bool = False,
) -> list[Features]:
    """The stem's output and those of all cells, or the last alone; the first reads the stem twice.

    `neighbors_of(number, s0)` are the neighbours of a cell, from the first of its inputs before
    any layer.
    """
    outputs: list[Features] = [stem]
    s0 = s1 = stem
    for number, cell in enumerate(cells):
        s0, s1 = s1, run(cell, s0, s1, neighbors_of(number, s0))
        outputs = [s1] if last else [*outputs, s1]
    return outputs
