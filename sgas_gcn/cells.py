"""The cell of point-cloud and graph networks, and the stem before the first.

A cell is a list of edges that each hold some operations: all candidates (undecided), one (decided)
or none (pruned); the supernet's cell and a derived cell are the same class, and so are those of
points and graphs, which differ in the table of operations. Dimensions: B clouds or graphs, N nodes
of all of them together, C channels, E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from sgas.cell import dag_extend
from sgas_gcn.config import GraphModelConfig, PointModelConfig
from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.features import Affine, Beside, Features, beside, reduced, with_ones
from sgas_gcn.fused.layer import linear_norm
from sgas_gcn.fused.state import Member, Plan
from sgas_gcn.ops.common import BatchNorm, Operation, SourceState

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
        self.lin = nn.Linear(in_channels, out_channels, bias=bias)
        self.norm = BatchNorm(out_channels)
        self.negative_slope = negative_slope

    def forward(self, x: Features) -> Tensor:
        """The normalised `[N, out_channels]`."""
        inputs, weight = reduced(x, self.lin.weight)
        return linear_norm(inputs, weight, self.lin.bias, self.norm, self.negative_slope)


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


@dataclass(frozen=True)
class StatePlan:
    """What leaves one state: its edges, the fused function for them, and what has no fused form."""

    edges: tuple[int, ...]
    skips: tuple[bool, ...]
    fused: Plan | None
    others: tuple[OperationGroup, ...]

    @property
    def scale_sizes(self) -> list[int]:
        """How many weights the fused function takes, and each of the others."""
        fused = [] if self.fused is None else [self.fused.num_pieces]
        return fused + [len(group.edges) for group in self.others]


class Cell(nn.Module):
    """A cell over `edges`, with outputs `concat` side by side: `[N, len(concat)·C]`."""

    scale_index: Tensor

    def __init__(
        self,
        operations: Operations,
        in_channels: tuple[int, int],
        channels: int,
        edges: Sequence[CellEdge],
        num_steps: int,
        concat: Sequence[int],
    ) -> None:
        super().__init__()
        self.operations = operations
        self.concat = tuple(concat)
        self.num_steps = num_steps
        self.out_channels = len(self.concat) * channels
        self.pre0 = LinearNorm(in_channels[0], channels, RELU)
        self.pre1 = LinearNorm(in_channels[1], channels, RELU)
        self.links = [(edge.source, edge.step) for edge in edges]
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: operations[op](channels) for op in edge.ops}) for edge in edges
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
        self.plans: list[StatePlan] = []
        index: list[int] = []
        columns = {op: column for column, op in enumerate(self.operations)}
        for source in range(NUM_INPUTS + self.num_steps):
            groups = self._groups(source)
            # Edges that hold more come first: those of most operations then stand side by side.
            edges = {edge: -len(self._held(edge)) for group in groups for edge in group.edges}
            order = tuple(sorted(edges, key=lambda edge: (edges[edge], edge)))
            groups = [OperationGroup(g.op, tuple(e for e in order if e in g.edges)) for g in groups]
            fused = [group for group in groups if self.operations[group.op].form]
            others = [group for group in groups if not self.operations[group.op].form]
            skips = tuple(self._skips(edge) for edge in order)
            plan = self._fused_plan(fused, order)
            self.plans.append(StatePlan(order, skips, plan, tuple(others)))
            for group in (*fused, *others):
                index += [edge * len(columns) + columns[group.op] for edge in group.edges]
        self.scale_index = torch.tensor(index, dtype=torch.int64, device=self.scale_index.device)

    def _groups(self, source: int) -> list[OperationGroup]:
        """The operations on the edges that leave a state, in the order of the table."""
        leaving = [edge for edge, (start, _) in enumerate(self.links) if start == source]
        groups = [
            OperationGroup(op, tuple(edge for edge in leaving if self._contributes(edge, op)))
            for op in self.operations
        ]
        return [group for group in groups if group.edges]

    def _fused_plan(self, groups: Sequence[OperationGroup], order: Sequence[int]) -> Plan | None:
        """The fused function of some operations; None where there is none."""
        members = []
        for group in groups:
            form = self.operations[group.op].form
            assert form is not None
            modules = tuple(self._held(edge)[group.op] for edge in group.edges)
            members.append(Member(form, modules, tuple(order.index(edge) for edge in group.edges)))
        return Plan(tuple(members), len(order)) if members else None

    def _skips(self, edge: int) -> bool:
        """True where drop path leaves an edge alone."""
        return any(self.operations[op].skips for op in self._held(edge))

    def _contributes(self, edge: int, op: str) -> bool:
        """True where an edge holds an operation that adds something to its output."""
        held = self._held(edge)
        return op in held and (op != "none" or len(held) == 1)

    def _scales(self, weights: Tensor | None) -> Iterator[Tensor | None]:
        """The weights of the operations' edges, part by part of the plans; None stands for ones."""
        sizes = [size for plan in self.plans for size in plan.scale_sizes]
        if weights is None:
            return iter([None] * len(sizes))
        return iter(weights.flatten().index_select(0, self.scale_index).split(sizes))

    def forward(
        self,
        s0: Features,
        s1: Features,
        neighbors: Any,
        weights: Tensor | None = None,
        drop_path: DropPath | None = None,
        apart: bool = False,
    ) -> Tensor | Beside:
        """The output `[N, out_channels]` for the outputs of the two cells before.

        `weights` `[E, O]` multiply the operations (None: all 1); `drop_path` is applied to what
        every edge puts out, `[N, m, C]`, but where it holds a skip. `apart` says that the reader
        takes the states of the output each by itself.
        """
        scales = self._scales(weights)

        def extend(source: int, x: Tensor, sums: Mapping[int, Tensor]) -> dict[int, Tensor]:
            plan = self.plans[source]
            if drop_path is None and not plan.others:
                return self._added(plan, x, neighbors, scales, sums)
            outputs = self._outputs(plan, x, neighbors, scales)
            if drop_path is not None and outputs:
                dropped = drop_path(torch.stack(outputs, dim=1)).unbind(1)
                choices = zip(plan.skips, outputs, dropped, strict=True)
                outputs = [out if skips else without for skips, out, without in choices]
            return self._by_step(plan, outputs, sums)

        states = dag_extend([self.pre0(s0), self.pre1(s1)], self.num_steps, extend)
        output = [states[state] for state in self.concat]
        return beside(output) if apart else torch.cat(output, dim=1)

    def _added(
        self,
        plan: StatePlan,
        x: Tensor,
        neighbors: Any,
        scales: Iterator[Tensor | None],
        sums: Mapping[int, Tensor],
    ) -> dict[int, Tensor]:
        """The sums `[N, C]` of the steps that a fused plan reaches, added to as they are made."""
        if plan.fused is None:
            return {}
        steps = [self.links[edge][1] for edge in plan.edges]
        # Of edges into one step, the first adds to what there is.
        bases = [
            None if step in steps[:number] else sums.get(step) for number, step in enumerate(steps)
        ]
        outputs = plan.fused.outputs(x, neighbors, next(scales), self.training, bases)
        found: dict[int, Tensor] = {}
        for step, out in zip(steps, outputs, strict=True):
            found[step] = found[step] + out if step in found else out
        return found

    def _outputs(
        self, plan: StatePlan, x: Tensor, neighbors: Any, scales: Iterator[Tensor | None]
    ) -> list[Tensor]:
        """What each edge of a plan puts out, `[N, C]`."""
        outputs: dict[int, Tensor] = {}
        if plan.fused is not None:
            found = plan.fused.outputs(x, neighbors, next(scales), self.training)
            outputs = dict(zip(plan.edges, found, strict=True))
        state = SourceState(x, neighbors)
        for group in plan.others:
            ops = [self._held(edge)[group.op] for edge in group.edges]
            parts = self.operations[group.op].evaluate(ops, state, next(scales)).unbind(1)
            for edge, part in zip(group.edges, parts, strict=True):
                outputs[edge] = outputs[edge] + part if edge in outputs else part
        return [outputs[edge] for edge in plan.edges]

    def _by_step(
        self, plan: StatePlan, outputs: Sequence[Tensor], sums: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """The sums `[N, C]` of the steps that a plan reaches, from the outputs of its edges."""
        found: dict[int, Tensor] = {}
        for edge, out in zip(plan.edges, outputs, strict=True):
            step = self.links[edge][1]
            so_far = found.get(step, sums.get(step))
            found[step] = out if so_far is None else so_far + out
        return found


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
    edges: Sequence[CellEdge],
    num_steps: int,
    concat: Sequence[int],
) -> Sequence[Cell]:
    """The cells of a network as a module list, all over the same edges."""
    widths = [STEM_MULTIPLE * config.channels] * NUM_INPUTS
    cells = nn.ModuleList()
    for _ in range(config.num_cells):
        inputs = (widths[-2], widths[-1])
        cell = Cell(operations, inputs, config.channels, edges, num_steps, concat)
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
            with torch.no_grad():
                unbiased = variance * (len(x) / max(len(x) - 1, 1))
                self.norm.running_mean.lerp_(mean.to(self.norm.running_mean), MOMENTUM)
                self.norm.running_var.lerp_(unbiased.to(self.norm.running_var), MOMENTUM)
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


def build_stem(config: ModelConfig, in_channels: int) -> Stem:
    """The layer before the first cell."""
    return Stem(in_channels, STEM_MULTIPLE * config.channels)


def forward_cells(
    cells: Sequence[Cell],
    stem: Features,
    neighbors_of: Callable[[int, Features], Neighborhood],
    run: Callable[[Cell, Features, Features, Neighborhood], Features],
) -> list[Features]:
    """The stem's output and those of all cells; the first cell reads the stem twice.

    `neighbors_of(number, s0)` are the neighbours of a cell, from the first of its inputs before
    any layer.
    """
    outputs: list[Features] = [stem]
    s0 = s1 = stem
    for number, cell in enumerate(cells):
        s0, s1 = s1, run(cell, s0, s1, neighbors_of(number, s0))
        outputs.append(s1)
    return outputs
