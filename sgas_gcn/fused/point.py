"""Fused forms of the operations on point clouds; their mathematics is that of `ops/point.py`.

n(i) are the neighbours of point i without i. Dimensions: N nodes, m edges, C channels, D = m·C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.fused import forms
from sgas_gcn.fused.call import Aggregate, Call, Form, Kept, State, Term
from sgas_gcn.fused.norms import NORM, linear_norm, linear_norm_backward
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
        return halves.difference_forward(x, neighbors.without_self)

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighbors) -> Tensor:
        """The gradient of x."""
        return halves.difference_backward(grad, kept, neighbors.without_self)


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
    other operations, with T in the place of G. For the weight w of an edge alone, v does. With
    gradients, sums over the d neighbours stand for means: the slope of the norm is divided by d
    forward; backward w is, and the gradient of w that the sums give.
    """

    parameters = ("lin.weight", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, graph = call.state, call.state.neighbors.with_self
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [state.x], weight)
        total = halves.sum_forward(y, graph)
        if not state.full:
            mean = total.mul_(1 / graph.degree)
            return Term(mean, coefs), (mean, coefs, None)
        of_total = torch.cat([coefs[:1] / graph.degree, coefs[1:]])
        return Term(total, of_total), (y, coefs, weight)

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, scale, degree = call.state, call.scale, 1
        if state.full:
            graph = state.neighbors.with_self
            grad, degree = halves.sum_backward(grad, graph), graph.degree
            whole = grad.new_ones(call.num_edges) if scale is None else scale
            call.scale = whole / degree
        linear_norm_backward(
            call, "lin.weight", grad, kept, [state.x], lambda: [state.grad_buffer()]
        )
        call.scale = scale
        if call.grad_scale is not None:
            call.grad_scale = call.grad_scale / degree


class GAT(Form):
    """Σ over i and n(i) of a_ij h_j with h = BN(R(W x)) and a the softmax of node scores att · h.

    With y = R(W x) and h = s y + t: the a_ij sum to 1, so that the sum is s Σ a_ij y_j + t, and a
    score is (att s) · y + att · t. Neither h nor its gradient times s is ever made. The gradient of
    h is what comes through the sum, and through both scores; BN's backward pass takes it in the
    place of G.
    """

    parameters = ("lin.weight", "att", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        weight = call.stacked("lin.weight")
        y, coefs = linear_norm(call, [state.x], weight)
        vectors = forms.attention_vectors(call.stacked("att"), m)
        slope, shift = coefs[:2].to(y.dtype)
        shifts = (vectors * shift).view(2, m, -1).sum(2)
        scores = pointwise.head_dots(y, vectors * slope, shifts, m)
        out, kept = halves.attention_forward(
            y.unflatten(1, (m, -1)), *scores, state.neighbors.with_self, LEAKY_SLOPE
        )
        out = out.flatten(1)
        return Term(out, coefs), (
            out if state.needs_scale else None,
            coefs,
            *((y, weight, vectors, *kept) if state.full else ()),
        )

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, m = call.state, call.num_edges
        values, coefs, *others = kept
        assert coefs is not None
        if values is not None:
            sums = pointwise.column_sums(grad, values, None)
            norm = (coefs, call.scale, len(grad), state.training, values)
            call.grad_scale = call.per_edge(pointwise.norm_gradients(sums, *norm)[2])
        if not state.full:
            return
        y, weight, vectors, *attention = (t for t in others if t is not None)
        grad_norm, *of_scores = halves.attention_backward(
            grad.unflatten(1, (m, -1)),
            y.unflatten(1, (m, -1)),
            tuple(attention),
            state.neighbors.with_self,
            LEAKY_SLOPE,
            coefs[0].to(y.dtype),
            vectors,
        )
        if state.needs_weights:
            call.gradients["att"] = cls._vectors_gradient(call, y, coefs, of_scores)
        of_scale = call.grad_scale
        linear_norm_backward(
            call,
            "lin.weight",
            grad_norm.flatten(1),
            (y, coefs, weight),
            [state.x],
            lambda: [state.grad_buffer()],
        )
        call.grad_scale = of_scale

    @staticmethod
    def _vectors_gradient(
        call: Call, y: Tensor, coefs: Tensor, of_scores: Sequence[Tensor]
    ) -> Tensor:
        """Σ h · the gradient of a score, for both kinds of scores, times the edges' scale."""
        m = call.num_edges
        found = pointwise.head_dots_backward(y, *of_scores).view(2, m, -1)
        totals = torch.stack([of.sum(0, dtype=torch.float64) for of in of_scores]).unsqueeze(2)
        found = found * coefs[0].view(m, -1) + totals * coefs[1].view(m, -1)
        if call.scale is not None:
            found = found * call.scale.view(m, 1)
        return forms.attention_gradient(found, m, y)


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
