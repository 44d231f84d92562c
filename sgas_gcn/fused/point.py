"""Fused forms of the operations on point clouds; their mathematics is that of `ops/point.py`.

n(i) are the neighbours of point i without i. Dimensions: N nodes, m edges, C channels, D = m·C.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.fused import forms
from sgas_gcn.fused.call import Aggregate, Call, Form, Kept, State, Term
from sgas_gcn.fused.norms import NORM, linear_norm, linear_norm_backward, relu_norm_backward
from sgas_gcn.kernels import halves, messages, pointwise
from sgas_gcn.neighbors import NeighborGraph, Neighbors


class SumWithSelf(Aggregate):
    """Σ over i and n(i) of x_j."""

    @staticmethod
    def forward(x: Tensor, neighbors: Neighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        return halves.sum_forward(x, neighbors.with_self), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighbors) -> Tensor:
        """The gradient of x."""
        return halves.sum_backward(grad, neighbors.with_self)


class LargestDifference(Aggregate):
    """max over n(i) of (x_j − x_i) = (max x_j) − x_i."""

    @staticmethod
    def forward(x: Tensor, neighbors: Neighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The difference."""
        best, kept = halves.max_forward(x, neighbors.without_self)
        return best.sub_(x), kept

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighbors) -> Tensor:
        """The gradient of x."""
        return halves.max_backward(grad, kept, neighbors.without_self).sub_(grad)


class EdgeConv(forms.EdgeConv):
    """Over n(i), which is never empty."""

    @staticmethod
    def graph(neighbors: Neighbors) -> NeighborGraph:
        """The neighbours without the point itself."""
        return neighbors.without_self

    @staticmethod
    def mask(state: State) -> Tensor | None:
        """All points have neighbours."""
        return None


class MRConv(forms.MRConv):
    """Over n(i)."""

    aggregate = LargestDifference


class GIN(forms.OfAggregate):
    """Over i and n(i)."""

    aggregate = SumWithSelf


class SemiGCN(Form):
    """Mean over i and n(i) of BN(R(W x_j)) = norm(v), with the mean v of y = R(W x).

    With T the transposed mean of G, Σ T = Σ G and Σ T y = Σ G v: BN's backward pass is that of the
    other operations, with T in the place of G. For the weight w of an edge alone, v does.
    """

    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, graph = call.state, call.state.neighbors.with_self
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [state.x], weight)
        mean = halves.sum_forward(y, graph).mul_(1 / graph.degree)
        return Term(mean, coefs), (y if state.full else mean, coefs, weight if state.full else None)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        if state.full:
            graph = state.neighbors.with_self
            grad = halves.sum_backward(grad, graph).mul_(1 / graph.degree)
        linear_norm_backward(
            call, "lin.weight", grad, kept, [state.x], lambda: [state.grad_buffer()]
        )


class GAT(Form):
    """Σ over i and n(i) of a_ij h_j with h = BN(R(W x)) and a the softmax of node scores att · h.

    The gradient of h is what comes through the sum, and through both scores; BN's backward pass
    takes it in the place of G. h is a norm away from y = R(W x), which alone is kept.
    """

    parameters = ("lin.weight", "att", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [state.x], weight)
        h = cls._normalised(y, coefs)
        matrix = forms.attention_map(call.stacked("att"), m)
        target, source = forms.scores(h, matrix)
        out, kept = halves.attention_forward(
            h.unflatten(1, (m, -1)), target, source, state.neighbors.with_self, LEAKY_SLOPE
        )
        out = out.flatten(1)
        return Term(out), (
            out if state.needs_scale else None,
            *((y, coefs, weight, matrix, *kept) if state.full else ()),
        )

    @staticmethod
    def _normalised(y: Tensor, coefs: Tensor) -> Tensor:
        slope, shift = coefs[:2].to(y.dtype)
        return torch.addcmul(shift, y, slope)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, m = call.state, call.num_edges
        values, *others = kept
        if values is not None:
            call.grad_scale = call.per_edge(pointwise.column_sums(grad, values, None)[1])
        if not state.full:
            return
        y, coefs, weight, matrix, *attention = (t for t in others if t is not None)
        h = cls._normalised(y, coefs)
        found = halves.attention_backward(
            grad.unflatten(1, (m, -1)),
            h.unflatten(1, (m, -1)),
            tuple(attention),
            state.neighbors.with_self,
            LEAKY_SLOPE,
        )
        grad_scores = torch.cat(found[1:], dim=1)
        grad_norm = found[0].flatten(1).addmm_(grad_scores, matrix.t())
        if state.needs_weights:
            of_vectors = forms.attention_map_gradient(h, grad_scores, m)
            if call.scale is not None:
                of_vectors = (of_vectors.view(m, -1) * call.scale.view(m, 1)).flatten()
            call.gradients["att"] = of_vectors
        grad_h = relu_norm_backward(call, grad_norm, y, coefs, call.scale, of_scale=False)
        assert grad_h is not None
        call.linear_backward("lin.weight", grad_h, weight)


class SAGE(Form):
    """o / |o| with o = R(W [x, M]), M = R(max over i and n(i) of P x_j).

    With u = o / |o|, the gradient of o is w (G − u (u · G)) / |o|, where o > 0, and that of w is
    Σ u · G.
    """

    parameters = ("pre.weight", "lin.weight")
    relative: ClassVar[bool] = False

    @classmethod
    def graph(cls, neighbors: Neighbors) -> NeighborGraph:
        """Which edges the maximum is over; i itself gives a relative message of 0, which R does."""
        return neighbors.without_self if cls.relative else neighbors.with_self

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, graph = call.state, cls.graph(call.state.neighbors)
        pre, weight = call.stacked("pre.weight"), call.stacked("lin.weight")
        given = (state.x, pre, weight, graph, cls.relative, state.full)
        y, message, kept = messages.sage_forward(*given)
        return Term(y, kind=pointwise.LENGTH), (
            y,
            *((message, pre, weight, *kept) if state.full else ()),
        )

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        y, *others = (t for t in kept if t is not None)
        assert call.inverse is not None
        norm = (call.inverse, call.scale, NORM_FLOOR)
        if not state.full:
            call.grad_scale = pointwise.length_backward(grad, y, None, *norm, None)
            return
        message, pre, weight, *chosen = others
        call.grad_scale, of_pre, of_weight = messages.sage_backward(
            *(grad, y, *norm, state.x, message, tuple(chosen), pre, weight),
            *(cls.graph(state.neighbors), cls.relative),
            state.grad_buffer() if state.needs_x else None,
            state.needs_weights,
        )
        if state.needs_weights:
            call.gradients["pre.weight"], call.gradients["lin.weight"] = of_pre, of_weight


class RelSAGE(SAGE):
    """SAGE with M = R(max over n(i) of P x_j − P x_i)."""

    relative = True
