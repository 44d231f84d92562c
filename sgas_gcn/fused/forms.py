"""Fused forms of the operations that are the same for points and graphs, but for whom they read.

R stands for ReLU, W for a weight, BN for batch norm; its mathematics is in `norms`. Each class is
the fused form of the operation of its name in `ops/`, and states its backward pass.
Dimensions: N nodes, m edges, C channels, D = m·C.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from sgas_gcn.fused.call import Aggregate, Call, Form, Kept, State, Term
from sgas_gcn.fused.norms import NORM, linear_norm, linear_norm_backward, norms_of
from sgas_gcn.kernels import Graph, messages, pointwise


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
        buffer = state.grad_buffer() if state.needs_x else None
        call.grad_scale = pointwise.skip_backward(grad, state.x, call.scale, buffer)


class Conv1x1(Form):
    """BN(R(W x))."""

    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [call.state.x], weight)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        linear_norm_backward(
            call, "lin.weight", grad, kept, [state.x], lambda: [state.grad_buffer()]
        )


class OfAggregate(Form):
    """BN(R(W a)) with an aggregation a of the state."""

    weight: ClassVar[str] = "lin.weight"
    aggregate: ClassVar[type[Aggregate]]
    parameters = (weight, *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked(cls.weight)
        y, coefs = linear_norm(call, [call.state.shared(cls.aggregate)], weight)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients; that of a is summed up first for all that read it."""
        state, inputs = call.state, []
        if state.full:
            inputs = [state.shared(cls.aggregate)]
        linear_norm_backward(
            call,
            cls.weight,
            grad,
            kept,
            inputs,
            lambda: [state.shared_grad_buffer(cls.aggregate)],
        )


class MRConv(Form):
    """BN(R(W [x, d])) with the largest difference d to a neighbour."""

    aggregate: ClassVar[type[Aggregate]]
    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [call.state.x, call.state.shared(cls.aggregate)], weight)
        return Term(y, coefs), (y, coefs, weight if call.state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, inputs = call.state, []
        if state.full:
            inputs = [state.x, state.shared(cls.aggregate)]
        linear_norm_backward(
            call,
            "lin.weight",
            grad,
            kept,
            inputs,
            lambda: [state.grad_buffer(), state.shared_grad_buffer(cls.aggregate)],
        )


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
        state, weight = call.state, call.stacked("lin.weight")
        graph = cls.graph(state.neighbors)
        y, coefs, kept = messages.edge_conv_forward(state.x, weight, graph, *norms_of(call))
        mask = cls.mask(state)
        kind = pointwise.AFFINE if mask is None else pointwise.MASKED
        return Term(y, coefs, kind, mask), (y, coefs, *((weight, *kept) if state.full else ()))

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, graph, mask = call.state, cls.graph(call.state.neighbors), cls.mask(call.state)
        y, coefs, *others = (t for t in kept if t is not None)
        if not state.full:
            sums = pointwise.column_sums(grad, y, mask)
            norm = (coefs, call.scale, graph.num_edges, state.training, y)
            call.grad_scale = call.per_edge(pointwise.norm_gradients(sums, *norm)[2])
            return
        weight, *chosen = others
        affine, call.grad_scale, of_weight = messages.edge_conv_backward(
            *(grad, y, coefs, call.scale, mask, call.num_edges, state.training),
            *(state.x, tuple(chosen), weight, graph),
            state.grad_buffer() if state.needs_x else None,
            state.needs_weights,
        )
        if state.needs_weights:
            call.gradients["lin.weight"] = of_weight
            call.gradients["norm.weight"], call.gradients["norm.bias"] = affine


def attention_vectors(attention: Tensor, num_edges: int) -> Tensor:
    """`[2, m·C]`: what scores of targets and of sources are products with, all edges in a row.

    `attention` are the edges' vectors `[2C]`, target first, one after the other.
    """
    return attention.view(num_edges, 2, -1).transpose(0, 1).reshape(2, -1).contiguous()


def attention_gradient(of_vectors: Tensor, num_edges: int, like: Tensor) -> Tensor:
    """The gradient of the edges' vectors, one after the other, from that of `[2, m·C]`."""
    return of_vectors.view(2, num_edges, -1).transpose(0, 1).flatten().to(like.dtype)
