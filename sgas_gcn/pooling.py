"""Pooling over clouds and graphs, of clouds with the batch norm before it by compiled kernels.

Dimensions: B clouds or graphs, N points or nodes of all together, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.constants import EPS
from sgas_gcn.features import Features, reduced_parts
from sgas_gcn.fused.layer import linear_norm
from sgas_gcn.kernels.pools import pooled_activations


def pool_clouds(x: Tensor, num_clouds: int) -> Tensor:
    """Largest and mean value over the points of each cloud, `[N, D]` to `[B, 2D]`."""
    clouds = x.unflatten(0, (num_clouds, -1))
    return torch.cat([clouds.max(dim=1).values, clouds.mean(dim=1)], dim=1)


def pool_graphs(x: Tensor, graph_of_node: Tensor, num_graphs: int) -> Tensor:
    """Mean, largest value and sum over the nodes of each graph, `[N, D]` to `[B, 3D]`."""
    total = x.new_zeros(num_graphs, x.shape[1]).index_add(0, graph_of_node, x)
    sizes = graph_of_node.new_zeros(num_graphs, 1)
    sizes = sizes.index_add(0, graph_of_node, torch.ones_like(graph_of_node).unsqueeze(1))
    place = graph_of_node.unsqueeze(1).expand(-1, x.shape[1])
    largest = torch.zeros_like(total).scatter_reduce(0, place, x, "amax", include_self=False)
    return torch.cat([total / sizes.to(x.dtype), largest, total], dim=1)


def pool_layer(
    layer: Any, parts: Sequence[Features], num_clouds: int, negative_slope: float
) -> Tensor:
    """`pool_clouds` of BN(leaky ReLU(W x)) `[B, 2D]`, for a layer with this slope where negative.

    x are the `parts` side by side; the layer has no bias.
    BN is affine with the sign of its weight, so largest and mean value are those of the largest, or
    smallest, and mean activation. Compiled, these are found as W x is made, which alone is kept.
    """
    norm = layer.norm
    inputs, weight = reduced_parts(parts, layer.lin.weight)
    num_points = len(inputs[0])
    sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0)
    pooled = pooled_activations(inputs, weight, sign, num_clouds, negative_slope)
    if pooled is None:
        x = torch.cat(inputs, dim=1)
        return pool_clouds(linear_norm(x, weight, None, norm, negative_slope), num_clouds)
    extremum, total, squares = pooled
    mean, var = norm.running_mean.double(), norm.running_var.double()
    if norm.training:
        mean = total.sum(0) / num_points
        var = (squares.sum(0) / num_points - mean.square()).clamp_min(0)
        with torch.no_grad():
            unbiased = var * (num_points / max(num_points - 1, 1))
            norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
            norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
    slope = norm.weight * (var + EPS).rsqrt()
    shift = norm.bias - slope * mean
    mean_activation = total * (num_clouds / num_points)
    both = torch.stack([extremum.double(), mean_activation], dim=1)  # [B, 2, D]
    return torch.addcmul(shift, both, slope).flatten(1).to(inputs[0].dtype)
