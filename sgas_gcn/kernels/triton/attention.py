"""Sum over the edges of each row, weighted by the softmax of their scores, and its gradient.

For node i and head h the weight of an edge from j is w = softmax over j of l(t_i + s_j), l the
leaky ReLU (Veličković et al., "Graph Attention Networks", ICLR 2018). The maximum is followed while
the edges pass (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018); of the
weights the backward pass needs only their logarithmic sum Z_i, since w = exp(l(t_i + s_j) - Z_i).
With g the gradient of the output, a = g_i · v_j and d_i = Σ w·a, the gradient of a score is
w·(a - d_i)·l'. Dimensions: N nodes, E edges, m heads, C channels of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.rows import Tile, contiguous, row_bounds, wide


@triton.jit
def leaky(score, slope):
    """`score` where it is positive, else `slope` times it."""
    return tl.where(score > 0, score, score * slope)


@triton.jit
def leaky_slope(score, slope):
    """The derivative of `leaky`; `slope` is `[1]` and says in which type."""
    return tl.where(score > 0, tl.full([1], 1, slope.dtype), slope)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _attention_kernel(
    values,
    target_score,
    source_score,
    offsets,
    index,
    out,
    log_sum,
    num_rows,
    num_edges,
    heads,
    width,
    SLOPE: tl.constexpr,
    ACC: tl.constexpr,
    EDGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0)
    head = tl.program_id(1)
    channel = tl.arange(0, CHANNELS)
    inside = channel < width
    slope = tl.full([1], SLOPE, ACC)  # a bare number would be rounded to float32
    here = row.to(tl.int64) * heads + head
    own = tl.load(target_score + here).to(ACC)
    total = tl.zeros([CHANNELS], ACC)
    weight_sum = tl.zeros([1], ACC)
    largest = tl.full([1], float("-inf"), ACC)
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        there = edge < last
        place = tl.load(index + edge, mask=there, other=0).to(tl.int64) * heads + head
        score = own + tl.load(source_score + place, mask=there, other=0).to(ACC)
        score = tl.where(there, leaky(score, slope), float("-inf"))
        higher = tl.maximum(largest, tl.max(score, axis=0))
        weight = tl.exp(score - higher)
        rescale = tl.exp(largest - higher)
        known = there[:, None] & inside[None, :]
        value = tl.load(values + place[:, None] * width + channel[None, :], mask=known, other=0)
        total = total * rescale + tl.sum(weight[:, None] * value.to(ACC), axis=0)
        weight_sum = weight_sum * rescale + tl.sum(weight, axis=0)
        largest = higher
    some = weight_sum > 0
    divisor = tl.where(some, weight_sum, 1)
    tl.store(out + here * width + channel, total / divisor, mask=inside)
    level = tl.where(some, largest, 0) + tl.log(divisor)
    tl.store(log_sum + here + tl.arange(0, 1), level)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _grad_target_kernel(
    values,
    target_score,
    source_score,
    log_sum,
    grad,
    offsets,
    index,
    mean_grad,
    grad_target,
    num_rows,
    num_edges,
    heads,
    width,
    SLOPE: tl.constexpr,
    ACC: tl.constexpr,
    EDGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0)
    head = tl.program_id(1)
    channel = tl.arange(0, CHANNELS)
    inside = channel < width
    slope = tl.full([1], SLOPE, ACC)  # a bare number would be rounded to float32
    here = row.to(tl.int64) * heads + head
    own = tl.load(target_score + here).to(ACC)
    level = tl.load(log_sum + here)
    wanted = tl.load(grad + here * width + channel, mask=inside, other=0).to(ACC)
    mean = tl.zeros([1], ACC)  # Σ w·a
    bent_mean = tl.zeros([1], ACC)  # Σ w·a·l'
    bent = tl.zeros([1], ACC)  # Σ w·l'
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        there = edge < last
        place = tl.load(index + edge, mask=there, other=0).to(tl.int64) * heads + head
        score = own + tl.load(source_score + place, mask=there, other=0).to(ACC)
        weight = tl.exp(tl.where(there, leaky(score, slope) - level, float("-inf")))
        known = there[:, None] & inside[None, :]
        value = tl.load(values + place[:, None] * width + channel[None, :], mask=known, other=0)
        product = weight * tl.sum(wanted[None, :] * value.to(ACC), axis=1)
        bend = leaky_slope(score, slope)
        mean += tl.sum(product, axis=0)
        bent_mean += tl.sum(product * bend, axis=0)
        bent += tl.sum(weight * bend, axis=0)
    at = here + tl.arange(0, 1)
    tl.store(mean_grad + at, mean)
    tl.store(grad_target + at, bent_mean - mean * bent)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _grad_source_kernel(
    values,
    target_score,
    source_score,
    log_sum,
    grad,
    mean_grad,
    offsets,
    index,
    grad_values,
    grad_source,
    num_rows,
    num_edges,
    heads,
    width,
    SLOPE: tl.constexpr,
    ACC: tl.constexpr,
    EDGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0)
    head = tl.program_id(1)
    channel = tl.arange(0, CHANNELS)
    inside = channel < width
    slope = tl.full([1], SLOPE, ACC)  # a bare number would be rounded to float32
    here = row.to(tl.int64) * heads + head
    own = tl.load(source_score + here).to(ACC)
    value = tl.load(values + here * width + channel, mask=inside, other=0).to(ACC)
    flow = tl.zeros([CHANNELS], ACC)
    score_flow = tl.zeros([1], ACC)
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        there = edge < last
        place = tl.load(index + edge, mask=there, other=0).to(tl.int64) * heads + head
        score = own + tl.load(target_score + place, mask=there, other=0).to(ACC)
        level = tl.load(log_sum + place, mask=there, other=0)
        weight = tl.exp(tl.where(there, leaky(score, slope) - level, float("-inf")))
        known = there[:, None] & inside[None, :]
        wanted = tl.load(grad + place[:, None] * width + channel[None, :], mask=known, other=0)
        wanted = wanted.to(ACC)
        flow += tl.sum(weight[:, None] * wanted, axis=0)
        above = tl.sum(wanted * value[None, :], axis=1)
        above -= tl.load(mean_grad + place, mask=there, other=0)
        score_flow += tl.sum(weight * above * leaky_slope(score, slope), axis=0)
    tl.store(grad_values + here * width + channel, flow, mask=inside)
    tl.store(grad_source + here + tl.arange(0, 1), score_flow)


def attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    offsets: Tensor,
    index: Tensor,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Weighted sums `[N, m, C]` of `values` and the logarithmic sums Z `[N, m]`.

    Z is float64 where the values are, else float32. A row without edges has the sum 0.
    """
    values, target_score, source_score = contiguous(values, target_score, source_score)
    num_rows, heads, width = values.shape
    out = torch.empty_like(values)
    log_sum = torch.zeros_like(target_score, dtype=wide(values.dtype))
    if values.numel():
        tile = Tile.of(width, whole=True)
        read = (values, target_score, source_score, offsets, index)
        sizes = (num_rows, index.numel(), heads, width)
        _attention_kernel[(num_rows, heads)](
            *read, out, log_sum, *sizes, SLOPE=slope, **tile.options(values.dtype)
        )
    return out, log_sum


def attention_gradients(
    grad: Tensor,
    saved: Sequence[Tensor],
    incoming: Sequence[Tensor],
    outgoing: Sequence[Tensor],
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values `[N, m, C]`, target and source scores `[N, m]`.

    `saved` are these three and Z; `incoming` offsets and sources; `outgoing` offsets and targets of
    the edges sorted by source.
    """
    grad, *saved_tensors = contiguous(grad, *saved)
    values, target_score, source_score, log_sum = saved_tensors
    num_rows, heads, width = values.shape
    grad_values = torch.empty_like(values)
    grad_target, grad_source = torch.zeros_like(target_score), torch.zeros_like(source_score)
    if values.numel():
        tile = Tile.of(width, whole=True)
        options = {"SLOPE": slope, **tile.options(values.dtype)}
        read = (values, target_score, source_score, log_sum, grad)
        sizes = (num_rows, incoming[1].numel(), heads, width)
        mean_grad = torch.empty_like(log_sum)
        programs = (num_rows, heads)
        _grad_target_kernel[programs](*read, *incoming, mean_grad, grad_target, *sizes, **options)
        _grad_source_kernel[programs](
            *read, mean_grad, *outgoing, grad_values, grad_source, *sizes, **options
        )
    return grad_values, grad_target, grad_source
