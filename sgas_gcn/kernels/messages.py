"""Functions of a backend that are made of others, where they are not one kernel.

Dimensions: N nodes, m edges of a cell, C channels, D = m·C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.protocol import EdgeMap, Graph, Kept, Lengths, Normed, Norms, SageMap


def _own_values(x: Tensor, graph: Graph) -> Tensor:
    """`x` `[N, D]`, and 0 for nodes without sources."""
    return x.where(graph.has_edges, 0) if isinstance(graph, CsrGraph) else x


def times(values: Tensor, factors: Tensor | None) -> Tensor:
    """`values` `[N, m, C]` times their factors `[m·C]`."""
    return values if factors is None else values * factors.view(values.shape[1:])


def through_scores(
    gradients: tuple[Tensor, Tensor, Tensor], vectors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of values `[N, m, C]` and both scores, with what the scores hand on to values.

    Scores are products of the values with `vectors` `[2, m·C]`.
    """
    grad_values, *of_scores = gradients
    for of_score, vector in zip(of_scores, vectors.view(2, *grad_values.shape[1:]), strict=True):
        grad_values.addcmul_(of_score.unsqueeze(2), vector)
    return grad_values, of_scores[0], of_scores[1]


def _edge_maps(weight: Tensor) -> Tensor:
    """A = W1 − W2 and B = W2 of W [x_i, x_j − x_i] = A x_i + B x_j: `[2D, C]`."""
    first, second = weight.chunk(2, dim=1)
    return torch.cat([first - second, second])


@dataclass(frozen=True)
class Composed:
    """The functions that are made of others, and what they are made of, by a backend's own kernels.

    The last three of these are as in `Backend`.

    The maximum of x `[N, D]` over the sources of each node is the first of equals. The statistics
    are of h = ReLU(target_i + source_j) over all edges: for each node and column the largest h
    where the sign `[D]` is 1 and the smallest where it is -1, `[N, D]`; Σ h and Σ h², float64
    `[D]`. Coefficients of norms come from the sums `[2, D]` of y and of y² over so many rows; in
    training the running statistics move, unless there is no row.
    """

    neighbor_max: Callable[[Tensor, Graph], tuple[Tensor, Kept]]
    neighbor_max_backward: Callable[[Tensor, Kept, Graph], Tensor]
    edge_relu_stats: Callable[[Tensor, Tensor, Tensor, Graph], tuple[Tensor, Tensor, Tensor, Kept]]
    edge_relu_stats_backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, Kept, Graph], tuple[Tensor, Tensor]
    ]
    norm_coefficients: Callable[[Tensor, int, Norms], Tensor]
    column_sums: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    norm_gradients: Callable[
        [Tensor, Tensor, Tensor | None, int, bool, Tensor], tuple[Tensor, Tensor, Tensor]
    ]
    length_backward: Callable[[Tensor, Tensor, Tensor | None, Lengths, Tensor | None], Tensor]

    def largest_difference(self, x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
        """As in `Backend`."""
        best, kept = self.neighbor_max(x, graph)
        return best.sub_(_own_values(x, graph)), kept

    def largest_difference_backward(self, grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
        """As in `Backend`."""
        return self.neighbor_max_backward(grad, kept, graph).sub_(_own_values(grad, graph))

    def sage(self, sage_map: SageMap, tracked: bool) -> tuple[Tensor, Tensor, Kept]:
        """As in `Backend`; what the way back needs is kept in any case."""
        x, pre, weight, graph, relative = sage_map
        channels = x.shape[1]
        own, other = weight.chunk(2, dim=1)
        projected = x @ pre.t()
        message, kept = self.neighbor_max(projected, graph)
        if relative:
            message.sub_(projected)
        message.relu_()
        y = x @ own.t()
        for first in range(0, y.shape[1], channels):
            rows = slice(first, first + channels)
            part = y[:, rows]
            torch.addmm(part, message[:, rows], other[rows].t(), out=part)  # counted as FLOPs
        return y.relu_(), message, kept

    def sage_backward(
        self,
        grad: Tensor,
        y: Tensor,
        lengths: Lengths,
        sage_map: SageMap,
        message: Tensor,
        kept: Kept,
        grad_x: Tensor | None,
        of_weights: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in `Backend`."""
        x, pre, weight, graph, relative = sage_map
        channels = x.shape[1]
        own, other = weight.chunk(2, dim=1)
        grad_h, grad_message = torch.empty_like(y), torch.empty_like(message)
        of_scale = self.length_backward(grad, y, None, lengths, grad_h)
        grad_weight = weight.new_zeros(weight.shape if of_weights else (0, weight.shape[1]))
        for first in range(0, y.shape[1], channels):
            rows = slice(first, first + channels)
            torch.mm(grad_h[:, rows], other[rows], out=grad_message[:, rows])
            if of_weights:
                grad_weight[rows, channels:] = grad_h[:, rows].t() @ message[:, rows]
        grad_message = torch.ops.aten.threshold_backward(grad_message, message, 0)
        grad_pre = self.neighbor_max_backward(grad_message, kept, graph)
        if relative:
            grad_pre.sub_(grad_message)
        if grad_x is not None:
            grad_x.addmm_(grad_h, own).addmm_(grad_pre, pre)
        if not of_weights:
            return of_scale, pre.new_zeros(0, channels), grad_weight
        grad_weight[:, :channels] = grad_h.t() @ x
        return of_scale, grad_pre.t() @ x, grad_weight

    def edge_conv(self, edge_map: EdgeMap, norms: Norms) -> tuple[Tensor, Tensor, Kept]:
        """As in `Backend`."""
        x, weight, graph = edge_map
        target, source = (x @ _edge_maps(weight).t()).chunk(2, dim=1)
        sign = torch.where(torch.cat(tuple(norms.weight)) < 0, -1.0, 1.0).to(x.dtype)
        y, total, squares, kept = self.edge_relu_stats(target, source, sign, graph)
        coefs = self.norm_coefficients(torch.stack([total, squares]), graph.num_edges, norms)
        return y, coefs, kept

    def edge_conv_backward(
        self,
        grad: Tensor,
        normed: Normed,
        mask: Tensor | None,
        edge_map: EdgeMap,
        kept: Kept,
        grad_x: Tensor | None,
        of_weight: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in `Backend`."""
        (x, weight, graph), (y, coefs, scale, num_edges, training, _) = edge_map, normed
        sums = self.column_sums(grad, y, mask)
        count = graph.num_edges
        gradients = self.norm_gradients(sums, coefs, scale, count, training, y)
        factors, affine, of_scale = gradients
        grad_weight = weight.new_empty(0, weight.shape[1])
        if grad_x is not None or of_weight:
            maps = _edge_maps(weight)
            target, source = (x @ maps.t()).chunk(2, dim=1)
            of_y = grad * factors[0].to(grad.dtype)
            of_sums = (factors[1], factors[2] / 2)
            both = torch.cat(
                self.edge_relu_stats_backward(of_y, *of_sums, target, source, kept, graph), dim=1
            )
            if grad_x is not None:
                grad_x.addmm_(both, maps)
            if of_weight:
                of_first, of_second = (both.t() @ x).chunk(2)
                grad_weight = torch.cat([of_first, of_second - of_first], dim=1)
        return affine, of_scale.view(num_edges, -1).sum(1), grad_weight
