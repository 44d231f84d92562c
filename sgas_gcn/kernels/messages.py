"""Operations that look at neighbours between two linear maps, in two halves, by all their edges.

As in `halves`, a forward half returns what its backward half needs as `kept`; x, the weights and y
the caller keeps himself. Compiled, a half is one operator; else it is made of other kernels here.
Weights of two inputs `[D, 2C]` are those of both side by side; batch norm is as in `pointwise`.
Dimensions: N nodes, m edges of a call, C channels, D = m·C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas_gcn.compiled import runs_compiled
from sgas_gcn.kernels import halves, pointwise
from sgas_gcn.kernels.cpu_backend import Graph, operators

Kept = tuple[Tensor, ...]


def sage_forward(
    x: Tensor, pre: Tensor, weight: Tensor, graph: Graph, relative: bool, tracked: bool
) -> tuple[Tensor, Tensor, Kept]:
    """y = R(W [x, M]) and M = R(max over the sources j of P x_j), both `[N, D]`; R is the ReLU.

    `relative`: less P x_i, in graphs where each node has an edge. `pre` `[D, C]` is P, `weight`
    `[D, 2C]`. Without `tracked` there is no way back.
    """
    if runs_compiled(x):
        given = (x, pre, weight, *graph.rows, relative, tracked)
        y, message, places = operators().sage(*given)
        return y, message, (places,)
    channels = x.shape[1]
    own, other = weight.chunk(2, dim=1)
    projected = x @ pre.t()
    message, kept = halves.max_forward(projected, graph)
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
    grad: Tensor,
    y: Tensor,
    inverse: Tensor,
    scale: Tensor | None,
    floor: float,
    x: Tensor,
    message: Tensor,
    kept: Kept,
    pre: Tensor,
    weight: Tensor,
    graph: Graph,
    relative: bool,
    grad_x: Tensor | None,
    of_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of scale · y / |y|, whose inverse lengths `[N, m]` are given; adds to `grad_x`.

    Returns float64 `[m]`, the gradient of the scale, and those of P and W, empty if not wanted.
    """
    if runs_compiled(grad):
        return operators().sage_backward(
            *(grad, y, inverse, scale, floor, x, message, *kept, pre, weight, *graph.rows),
            *(relative, grad_x, of_weights),
        )
    channels = x.shape[1]
    own, other = weight.chunk(2, dim=1)
    grad_h, grad_message = torch.empty_like(y), torch.empty_like(message)
    of_scale = pointwise.length_backward(grad, y, None, inverse, scale, floor, grad_h)
    grad_weight = weight.new_zeros(weight.shape if of_weights else (0, weight.shape[1]))
    for first in range(0, y.shape[1], channels):
        rows = slice(first, first + channels)
        torch.mm(grad_h[:, rows], other[rows], out=grad_message[:, rows])
        if of_weights:
            grad_weight[rows, channels:] = grad_h[:, rows].t() @ message[:, rows]
    grad_message = torch.ops.aten.threshold_backward(grad_message, message, 0)
    grad_pre = halves.max_backward(grad_message, kept, graph)
    if relative:
        grad_pre.sub_(grad_message)
    if grad_x is not None:
        grad_x.addmm_(grad_h, own).addmm_(grad_pre, pre)
    if not of_weights:
        return of_scale, pre.new_zeros(0, channels), grad_weight
    grad_weight[:, :channels] = grad_h.t() @ x
    return of_scale, grad_pre.t() @ x, grad_weight


def edge_maps(weight: Tensor) -> Tensor:
    """A = W1 − W2 and B = W2 of W [x_i, x_j − x_i] = A x_i + B x_j: `[2D, C]`."""
    first, second = weight.chunk(2, dim=1)
    return torch.cat([first - second, second])


def edge_conv_forward(
    x: Tensor, weight: Tensor, graph: Graph, *norms: Any
) -> tuple[Tensor, Tensor, Kept]:
    """The extremum `[N, D]` of R(A x_i + B x_j) over the sources j, by the sign of the norm's γ.

    Then the coefficients of the norm over all E edges, for maps A and B as in `edge_maps`; `norms`
    as in `pointwise.linear_norm`.
    """
    if runs_compiled(x):
        y, places, coefs = operators().edge_conv(x, weight, *graph.rows, *norms)
        return y, coefs, (places,)
    target, source = (x @ edge_maps(weight).t()).chunk(2, dim=1)
    sign = torch.where(torch.cat(tuple(norms[0])) < 0, -1.0, 1.0).to(x.dtype)
    y, total, squares, kept = halves.stats_forward(target, source, sign, graph)
    coefs = pointwise.norm_coefficients(torch.stack([total, squares]), graph.num_edges, *norms)
    return y, coefs, kept[2:]


def edge_conv_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    mask: Tensor | None,
    edges: int,
    training: bool,
    x: Tensor,
    kept: Kept,
    weight: Tensor,
    graph: Graph,
    grad_x: Tensor | None,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of scale · norm(y); adds to `grad_x`. `mask` `[N]` is 0 for nodes without edges.

    Returns the gradients `[2, D]` of γ and β, float64 `[m]` of the scale, and that of the weight,
    empty if not wanted.
    """
    if runs_compiled(grad):
        return operators().edge_conv_backward(
            *(grad, y, coefficients, scale, mask, edges, training, x, *kept, weight),
            *(*graph.rows, grad_x, of_weight),
        )
    sums = pointwise.column_sums(grad, y, mask)
    given = (sums, coefficients, scale, graph.num_edges, training, y)
    factors, affine, of_scale = pointwise.norm_gradients(*given)
    grad_weight = weight.new_empty(0, weight.shape[1])
    if grad_x is not None or of_weight:
        maps = edge_maps(weight)
        target, source = (x @ maps.t()).chunk(2, dim=1)
        stats = (factors[1], factors[2] / 2, (target, source, *kept), graph)
        found = halves.stats_backward(grad * factors[0].to(grad.dtype), *stats)
        both = torch.cat(found, dim=1)
        if grad_x is not None:
            grad_x.addmm_(both, maps)
        if of_weight:
            of_first, of_second = (both.t() @ x).chunk(2)
            grad_weight = torch.cat([of_first, of_second - of_first], dim=1)
    return affine, of_scale.view(edges, -1).sum(1), grad_weight
