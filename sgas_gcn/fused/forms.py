"""Fused forms of the operations that are the same for points and graphs, but for whom they read.

R stands for ReLU, W for a weight, BN for batch norm; its mathematics is in `norms`. Each class is
the fused form of the operation of its name in `ops/`, and states its backward pass.
Dimensions: N nodes, m edges, C channels, D = m·C.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sgas_gcn.fused.call import Aggregate, Call, Form, Kept, State, Term
from sgas_gcn.fused.norms import (
    NORM,
    coefficients,
    gradients,
    relu_norm,
    relu_norm_backward,
    signs,
)
from sgas_gcn.kernels import Graph, halves, pointwise


class Zero(Form):
    """Nothing."""

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """No term."""
        return None, ()

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """No gradient."""


class SkipConnect(Form):
    """w x, with the gradients w G of x and Σ G x of w."""

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return Term(call.state.x, kind=pointwise.BROADCAST), ()

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        if state.needs_scale:
            call.grad_scale = call.per_edge(pointwise.column_sums(grad, state.x, None)[1])
        if state.needs_x:
            for edge, part in enumerate(grad.split(state.x.shape[1], dim=1)):
                state.add(part * 1 if call.scale is None else part * call.scale[edge])


class Conv1x1(Form):
    """BN(R(W x))."""

    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked("lin.weight")
        y = call.state.x @ weight.t()
        coefs = relu_norm(call, y)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        y, coefs, weight = kept
        assert y is not None and coefs is not None
        grad_h = relu_norm_backward(call, grad, y, coefs, call.scale)
        if grad_h is not None and weight is not None:
            call.linear_backward("lin.weight", grad_h, weight)


class OfAggregate(Form):
    """BN(R(W a)) with an aggregation a of the state."""

    weight: ClassVar[str] = "lin.weight"
    aggregate: ClassVar[type[Aggregate]]
    parameters = (weight, *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked(cls.weight)
        y = call.state.shared(cls.aggregate) @ weight.t()
        coefs = relu_norm(call, y)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients; that of a is summed up first for all that read it."""
        y, coefs, weight = kept
        assert y is not None and coefs is not None
        grad_h = relu_norm_backward(call, grad, y, coefs, call.scale)
        if grad_h is None or weight is None:
            return
        if call.state.needs_x:
            call.state.add_shared(cls.aggregate, grad_h, weight)
        if call.state.needs_weights:
            call.gradients[cls.weight] = grad_h.t() @ call.state.shared(cls.aggregate)


class MRConv(Form):
    """BN(R(W [x, d])) with the largest difference d to a neighbour."""

    aggregate: ClassVar[type[Aggregate]]
    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked("lin.weight")
        y = pair_product(call.state.x, call.state.shared(cls.aggregate), weight)
        coefs = relu_norm(call, y)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        y, coefs, weight = kept
        assert y is not None and coefs is not None
        grad_h = relu_norm_backward(call, grad, y, coefs, call.scale)
        if grad_h is not None and weight is not None:
            message = call.state.shared(cls.aggregate)
            call.pair_backward("lin.weight", grad_h, weight, message, cls.aggregate)


def pair_product(x: Tensor, message: Tensor, weight: Tensor) -> Tensor:
    """`weight` `[D, 2C]` times [x, message]: `[N, D]`."""
    own, other = weight.chunk(2, dim=1)
    return (x @ own.t()).addmm_(message, other.t())


class EdgeConv(Form):
    """max over the neighbours j of BN(R(A x_i + B x_j)), with A = W1 − W2 and B = W2.

    BN's statistics are of all E edges, and its maximum is at the extremum y of R(A x_i + B x_j) by
    the sign of γ. The edge that has it takes w k G where y > 0; all edges with a positive value h
    take f1 + f2 h, by the factors of `norms` with n = E. A node without edges has y = 0, no shift,
    and no part in Σ G. A x and B x are not kept but computed again: one product for two matrices.
    """

    parameters = ("lin.weight", *NORM)

    @staticmethod
    def graph(neighbors: Any) -> Graph:
        """Which edges are read."""
        raise NotImplementedError

    @staticmethod
    def mask(state: State) -> Tensor | None:
        """1 for nodes with edges and 0 for others, `[N]`; None where all have some."""
        raise NotImplementedError

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, graph = call.state, cls.graph(call.state.neighbors)
        first, second = call.stacked("lin.weight").chunk(2, dim=1)
        maps = torch.cat([first - second, second])
        target, source = (state.x @ maps.t()).chunk(2, dim=1)
        sign = signs(call.weights["norm.weight"], state.x)
        y, total, squares, kept = halves.stats_forward(target, source, sign, graph)
        coefs = coefficients(call, torch.stack([total, squares]), graph.num_edges)
        mask = cls.mask(state)
        kind = pointwise.AFFINE if mask is None else pointwise.MASKED
        return Term(y, coefs, kind, mask), (y, coefs, *((maps, *kept[2:]) if state.full else ()))

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        y, coefs, *others = kept
        assert y is not None and coefs is not None
        state, graph = call.state, cls.graph(call.state.neighbors)
        sums = pointwise.column_sums(grad, y, cls.mask(state))
        factors, of_scale = gradients(call, sums, coefs, call.scale, graph.num_edges, y)
        call.grad_scale = call.per_edge(of_scale)
        if not state.full:
            return
        maps, *stats = (t for t in others if t is not None)
        projected = (state.x @ maps.t()).chunk(2, dim=1)
        selected = grad * factors[0].to(grad.dtype)
        grad_target, grad_source = halves.stats_backward(
            selected, factors[1], factors[2] / 2, (*projected, *stats), graph
        )
        first, second = maps.chunk(2)
        if state.needs_x:
            state.add_product(grad_target, first)
            state.add_product(grad_source, second)
        if state.needs_weights:
            of_first = grad_target.t() @ state.x
            of_second = (grad_source.t() @ state.x).sub_(of_first)
            call.gradients["lin.weight"] = torch.cat([of_first, of_second], dim=1)


def attention_map(attention: Tensor, num_edges: int) -> Tensor:
    """The matrix `[m·C, 2m]` by which nodes `[N, m·C]` get their scores as targets, as sources.

    `attention` are the edges' vectors `[2C]`, target first, one after the other.
    """
    vectors = attention.view(num_edges, 2, -1)
    out = attention.new_zeros(num_edges, vectors.shape[2], 2, num_edges)
    out.diagonal(dim1=0, dim2=3).copy_(vectors.permute(2, 1, 0))
    return out.flatten(0, 1).flatten(1, 2)


def scores(h: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The scores `[N, m]` of nodes `h` `[N, m·C]` as targets and as sources."""
    target, source = (h @ matrix).chunk(2, dim=1)
    return target.contiguous(), source.contiguous()


def attention_map_gradient(h: Tensor, grad_scores: Tensor, num_edges: int) -> Tensor:
    """The gradient of the edges' attention vectors, one after the other, from `[N, 2m]`."""
    found = (grad_scores.t() @ h).view(2, num_edges, num_edges, -1)
    return found.diagonal(dim1=1, dim2=2).permute(2, 0, 1).flatten()
