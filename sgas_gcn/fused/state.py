"""One autograd function for a cell's state: all edges that leave it, all operations on them.

Edge e of the state puts out Σ_o w_eo o(x), over the operations o that it holds. Each operation
(`FusedOperation`) is computed on all its edges at once and says how it enters the sum: as
slope · y + shift by columns, where batch norm and aggregation weights are folded into slope and
shift, or as such a term over its length. The sum itself is one pass over all y (`mixture`).
Backward, each operation gets the gradient G of its edges' outputs. Two sums over nodes, Σ G and
Σ G y, give the gradients of w, γ and β and what batch norm adds to that of y; what is left is the
transposed linear map, and the transposed aggregation.

Where only the edges' weights w need a gradient, as in the alpha step in front of the first mixture,
operations keep their y and nothing for x and the parameters. Nothing is kept for single edges of
the graph but attention weights.
Dimensions: N nodes, M edges of the cell, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas.native.precision import without_autocast
from sgas_gcn.constants import NORM_FLOOR
from sgas_gcn.fused.call import Aggregate, Call, State
from sgas_gcn.kernels.protocol import LENGTH, Term
from sgas_gcn.ops.operation import FusedOperation


@dataclass(frozen=True)
class FusedGroup:
    """One operation on the edges that hold it: its modules by edge, and the edges' places."""

    operation: type[FusedOperation]
    modules: tuple[nn.Module, ...]
    slots: tuple[int, ...]

    @cached_property
    def owners(self) -> list[tuple[dict[str, nn.Parameter | None], str]]:
        """Where each parameter is, by name and edge: a module's table, and the key in it."""
        owners = []
        for path in self.operation.weight_names:
            parent, _, name = path.rpartition(".")
            owners += [(module.get_submodule(parent)._parameters, name) for module in self.modules]
        return owners

    def weights(self, tensors: Sequence[Tensor]) -> dict[str, Sequence[Tensor]]:
        """The parameters by name, out of all of them in the order of `owners`."""
        m = len(self.modules)
        names = enumerate(self.operation.weight_names)
        return {name: tensors[number * m : (number + 1) * m] for number, name in names}

    def gradients(self, call: Call) -> Iterator[Tensor | None]:
        """The gradients in the order of `owners`."""
        for name in self.operation.weight_names:
            stacked = call.gradients.get(name)
            if stacked is None:
                yield from [None] * len(self.modules)
            else:
                yield from stacked.chunk(len(self.modules))


@dataclass(frozen=True)
class FusedEdges:
    """The fused operations on all edges that leave a state, `num_slots` of them (M)."""

    groups: tuple[FusedGroup, ...]
    num_slots: int

    @property
    def num_weights(self) -> int:
        """How many operations on edges there are, each of which has a weight."""
        return sum(len(group.slots) for group in self.groups)

    def outputs(
        self,
        x: Tensor,
        neighbors: Any,
        scale: Tensor | None,
        training: bool,
        bases: Sequence[Tensor | None] | None = None,
    ) -> tuple[Tensor, ...]:
        """What each of the M edges puts out, `[N, C]`, on top of its base `[N, C]` if it has one.

        `scale` `[num_weights]` are the weights (None: 1).
        """
        weights = [table[name] for group in self.groups for table, name in group.owners]
        tracked = torch.is_grad_enabled()
        bases = bases or [None] * self.num_slots
        return _StateFunction.apply(self, neighbors, training, tracked, x, scale, *bases, *weights)

    def calls(self, state: State, scale: Tensor | None, weights: Sequence[Tensor]) -> list[Call]:
        """A call for each group."""
        calls, first, place = [], 0, 0
        for group in self.groups:
            m, count = len(group.modules), len(group.owners)
            part = None if scale is None else scale[place : place + m]
            named = group.weights(weights[first : first + count])
            calls.append(Call(state, group.modules, named, part))
            first, place = first + count, place + m
        return calls

    def mixture(
        self,
        state: State,
        terms: Sequence[Term | None],
        scale: Tensor | None,
        bases: Sequence[Tensor | None],
    ) -> tuple[Sequence[Tensor], Tensor]:
        """The sums of the terms `[N, C]`, and the inverse lengths of those over their length."""
        x = state.x
        pairs = zip(terms, self.groups, strict=True)
        placed = [term._replace(slots=group.slots) for term, group in pairs if term is not None]
        if not placed:
            sums = [torch.zeros_like(x) if base is None else base.clone() for base in bases]
            return sums, x.new_empty(len(x), 0)
        return state.backend.mixture(placed, scale, bases, x.shape[1], NORM_FLOOR)


class _Packed:
    """Tensors in groups, as one flat list that autograd keeps, and back."""

    def __init__(self) -> None:
        self.tensors: list[Tensor | None] = []
        self.sizes: list[int] = []

    def add(self, group: Sequence[Tensor | None]) -> None:
        """Adds a group."""
        self.tensors += group
        self.sizes.append(len(group))

    @staticmethod
    def groups(
        sizes: Sequence[int], tensors: Sequence[Tensor | None]
    ) -> Iterator[tuple[Tensor | None, ...]]:
        """The groups again, in order."""
        first = 0
        for size in sizes:
            yield tuple(tensors[first : first + size])
            first += size


class _StateFunction(Function):
    """out_e = base_e + Σ_o w_eo o(x) for all edges e of a state x, and operations o on each.

    With G_e the gradient of out_e: G_e is that of base_e, Σ G_e o(x) that of w_eo, and x and the
    parameters of o get w_eo (∂o)' G_e, as its docstring says.
    """

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        edges: FusedEdges,
        neighbors: Any,
        training: bool,
        tracked: bool,
        x: Tensor,
        scale: Tensor | None,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        needs = ctx.needs_input_grad
        bases, weights = others[: edges.num_slots], others[edges.num_slots :]
        full = tracked and (needs[4] or any(needs[6 + edges.num_slots :]))
        state = State(x, neighbors, training, full, tracked and needs[5])
        packed, terms, lengths = _Packed(), [], []
        packed.add([x, scale])
        for call, group in zip(edges.calls(state, scale, weights), edges.groups, strict=True):
            term, kept = group.operation.fused_forward(call)
            packed.add(kept)
            terms.append(term)
            is_length = term is not None and term.kind == LENGTH
            lengths.append(len(group.modules) if is_length else 0)
        outs, inverse = edges.mixture(state, terms, scale, bases)
        packed.add([inverse])
        if full:
            for aggregate, value in state.aggregates.items():
                packed.add([value, *state.kept[aggregate]])
        ctx.edges, ctx.neighbors, ctx.training, ctx.lengths = edges, neighbors, training, lengths
        ctx.sizes, ctx.aggregates = packed.sizes, [*state.aggregates] if full else []
        ctx.save_for_backward(*packed.tensors)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        edges: FusedEdges = ctx.edges
        needs = ctx.needs_input_grad
        groups = _Packed.groups(ctx.sizes, ctx.saved_tensors)
        x, scale = next(groups)
        assert x is not None
        of_weights = needs[6 + edges.num_slots :]
        needs_weights = any(of_weights)
        full = needs[4] or needs_weights
        needed = (needs[5], needs[4], needs_weights)
        state = State(x, ctx.neighbors, ctx.training, full, *needed)
        kept = [next(groups) for _ in edges.groups]
        (inverse,) = next(groups)
        assert inverse is not None
        restore(state, ctx.aggregates, groups)
        calls = edges.calls(state, scale, [x] * len(of_weights))
        columns = grads[0].contiguous() if len(grads) == 1 else torch.cat(grads, dim=1)
        place = 0
        for call, group, own, count in zip(calls, edges.groups, kept, ctx.lengths, strict=True):
            call.inverse, place = inverse[:, place : place + count], place + count
            group.operation.fused_backward(call, columns_of(columns, group.slots, x.shape[1]), own)
        state.finish()
        of_parameters = [
            g
            for call, group in zip(calls, edges.groups, strict=True)
            for g in group.gradients(call)
        ]
        of_bases = [
            grad if wanted else None for grad, wanted in zip(grads, needs[6:], strict=False)
        ]
        of_scale = scale_gradient(calls, scale)
        return None, None, None, None, state.grad_x, of_scale, *of_bases, *of_parameters


def restore(
    state: State,
    aggregates: Sequence[type[Aggregate]],
    groups: Iterator[tuple[Tensor | None, ...]],
) -> None:
    """Gives a state back the aggregations that its forward pass has computed."""
    for aggregate in aggregates:
        value, *others = next(groups)
        assert value is not None
        state.aggregates[aggregate] = value
        state.kept[aggregate] = tuple(t for t in others if t is not None)


def columns_of(grad: Tensor, slots: Sequence[int], channels: int) -> Tensor:
    """The columns of some of the edges, `[N, m·C]`: a slice where they stand side by side."""
    first = slots[0]
    if list(slots) == list(range(first, first + len(slots))):
        return grad[:, first * channels : (first + len(slots)) * channels]
    return torch.cat([grad[:, slot * channels : (slot + 1) * channels] for slot in slots], dim=1)


def scale_gradient(calls: Sequence[Call], scale: Tensor | None) -> Tensor | None:
    """The gradient of the edges' weights, of all calls one after the other."""
    if scale is None or not calls[0].state.needs_scale:
        return None
    parts = [
        scale.new_zeros(call.num_edges) if call.grad_scale is None else call.grad_scale
        for call in calls
    ]
    return torch.cat(parts).to(scale.dtype)
