"""Fused forms of the operations on graphs; their mathematics is that of `ops/graph.py`.

A(i) are the sources of the edges into node i as they are given. Dimensions: N nodes, m edges of a
cell, C channels, D = m·C.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.csr import CsrGraph, GraphNeighbors
from sgas_gcn.fused import forms
from sgas_gcn.fused.call import Aggregate, Call, Form, Kept, State, Term, products
from sgas_gcn.fused.norms import NORM, relu_norm, relu_norm_backward
from sgas_gcn.kernels import halves, pointwise


class SumAndOwn(Aggregate):
    """x_i + Σ over A(i) of x_j."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        return halves.sum_forward(x, neighbors.given).add_(x), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        return halves.sum_backward(grad, neighbors.given).add_(grad)


class LargestDifference(Aggregate):
    """max over A(i) of (x_j − x_i); 0 where A(i) is empty."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The difference."""
        return halves.difference_forward(x, neighbors.given)

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        return halves.difference_backward(grad, kept, neighbors.given)


class MeanWithSelf(Aggregate):
    """Mean of x_j over A(i) and i."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The mean."""
        graph = neighbors.with_self
        return halves.sum_forward(x, graph).div_(graph.degrees), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        graph = neighbors.with_self
        return halves.sum_backward(grad.div_(graph.degrees), graph)


class SymmetricSum(Aggregate):
    """Σ over A(i) and i of x_j / √(d_i d_j), d the degrees with self."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        graph = neighbors.with_self
        share = graph.degrees.to(x.dtype).rsqrt()
        return halves.sum_forward(x * share, graph).mul_(share), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        graph = neighbors.with_self
        share = graph.degrees.to(grad.dtype).rsqrt()
        return halves.sum_backward(grad.mul_(share), graph).mul_(share)


class EdgeConv(forms.EdgeConv):
    """Over A(i); a node without edges gets 0."""

    @staticmethod
    def graph(neighbors: GraphNeighbors) -> CsrGraph:
        """The edges as given."""
        return neighbors.given

    @staticmethod
    def mask(state: State) -> Tensor | None:
        """The nodes that have edges."""
        return state.neighbors.given.has_edges.squeeze(1).to(state.x.dtype)


class MRConv(forms.MRConv):
    """Over A(i)."""

    aggregate = LargestDifference


class GIN(forms.OfAggregate):
    """Over A(i), and i once more."""

    aggregate = SumAndOwn


class SemiGCN(forms.OfAggregate):
    """The symmetric sum, then P, R and BN."""

    weight = "proj.weight"
    parameters = (weight, *NORM)
    aggregate = SymmetricSum


class GAT(Form):
    """BN(R(Σ over A(i) and i of a_ij h_j)) with h = P x and a the softmax of node scores att · h.

    The gradient of h is what comes through the sum, and through both scores.
    """

    parameters = ("proj.weight", "att", *NORM)

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        weight = call.stacked("proj.weight")
        h = state.x @ weight.t()
        vectors = forms.attention_vectors(call.stacked("att"), m)
        scores = pointwise.head_dots(h, vectors, vectors.new_zeros(2, m), m)
        out, kept = halves.attention_forward(
            h.unflatten(1, (m, -1)), *scores, state.neighbors.with_self, LEAKY_SLOPE
        )
        y = out.flatten(1)
        coefs = relu_norm(call, y)
        return Term(y, coefs), (y, coefs, *((h, weight, vectors, *kept) if state.full else ()))

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, m = call.state, call.num_edges
        y, coefs, *others = kept
        assert y is not None and coefs is not None
        grad_sum = relu_norm_backward(call, grad, y, coefs, call.scale)
        if grad_sum is None:
            return
        h, weight, vectors, *attention = (t for t in others if t is not None)
        grad_h, *of_scores = halves.attention_backward(
            grad_sum.unflatten(1, (m, -1)),
            h.unflatten(1, (m, -1)),
            tuple(attention),
            state.neighbors.with_self,
            LEAKY_SLOPE,
            None,
            vectors,
        )
        if state.needs_weights:
            found = pointwise.head_dots_backward(h, *of_scores)
            call.gradients["att"] = forms.attention_gradient(found, m, h)
        call.linear_backward("proj.weight", grad_h.flatten(1), weight)


class SAGE(Form):
    """o / |o| with o = BN(R(W [x, P M])), M the mean over A(i) and i; W2 P is multiplied first.

    With u = o / |o|, the gradient of o is w (G − u (u · G)) / |o| and that of w is Σ u · G.
    """

    parameters = ("proj.weight", "lin.weight", *NORM)
    relative: ClassVar[bool] = False

    @classmethod
    def _message(cls, state: State) -> Tensor:
        """M, less x where it is relative."""
        mean = state.shared(MeanWithSelf)
        return mean - state.x if cls.relative else mean

    @classmethod
    def forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        projection = call.stacked("proj.weight").unflatten(0, (m, -1))
        weight = call.stacked("lin.weight")
        own, other = weight.chunk(2, dim=1)
        combined = torch.bmm(other.unflatten(0, (m, -1)), projection).flatten(0, 1)
        y = (state.x @ own.t()).addmm_(cls._message(state), combined.t())
        coefs = relu_norm(call, y)
        return Term(y, coefs, pointwise.LENGTH), (
            y,
            coefs,
            *((projection, weight, combined) if state.full else ()),
        )

    @classmethod
    def backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        y, coefs, *others = kept
        assert y is not None and call.inverse is not None
        grad_norm = torch.empty_like(y) if state.full else None
        call.grad_scale = pointwise.length_backward(
            grad, y, coefs, call.inverse, call.scale, NORM_FLOOR, grad_norm
        )
        if grad_norm is None or coefs is None:
            return
        grad_h = relu_norm_backward(call, grad_norm, y, coefs, None, of_scale=False)
        projection, weight, combined = (t for t in others if t is not None)
        assert grad_h is not None
        if state.needs_x:
            state.add_product(grad_h, weight.chunk(2, dim=1)[0])
            state.add_shared(MeanWithSelf, grad_h, combined)
            if cls.relative:
                state.add_product(grad_h, -combined)
        if state.needs_weights:
            cls._weight_gradients(call, grad_h, projection, weight)

    @classmethod
    def _weight_gradients(
        cls, call: Call, grad: Tensor, projection: Tensor, weight: Tensor
    ) -> None:
        """Leaves the gradients of W = [W1, W2] and P, from those of W1 and of W2 P."""
        m, channels = call.num_edges, call.state.x.shape[1]
        found = products(grad, call.state.x, cls._message(call.state))
        of_combined = found[:, channels:].unflatten(0, (m, -1))
        other = weight[:, channels:].unflatten(0, (m, -1))
        call.gradients["proj.weight"] = torch.bmm(other.mT, of_combined).flatten(0, 1)
        found[:, channels:] = torch.bmm(of_combined, projection.mT).flatten(0, 1)
        call.gradients["lin.weight"] = found


class RelSAGE(SAGE):
    """SAGE with M less x."""

    relative = True
