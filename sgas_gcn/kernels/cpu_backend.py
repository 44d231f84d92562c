"""The primitives compiled for the CPU, for every kind of graph: `torch.ops.sgas_gcn.*`.

The operators are C++ (`kernels/cpu`); what torch has to know of them besides is here: shapes for
tracing, and which operator is whose gradient. They are raw: a fused function calls them inside its
own forward and backward pass. Gradients can be taken once, but for the sum's.
Dimensions: N nodes, E edges, D or m·C stacked channels (m edges of a cell, C channels each).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from sgas_gcn.csr import CsrGraph
from sgas_gcn.neighbors import NeighborGraph

Graph = NeighborGraph | CsrGraph


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    return operators().neighbor_sum(x, *graph.rows[:4])


def neighbor_max(x: Tensor, graph: Graph) -> Tensor:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    return operators().neighbor_max(x, *graph.rows)[0]


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor]:
    """Extrema `[N, D]` by `sign` `[D]`, sums and sums of squares `[D]` of ReLU(target + source)."""
    found = operators().edge_relu_stats(target, source, sign, *graph.rows)
    return found[0], found[4], found[5]


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> Tensor:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`."""
    return operators().attention_sum(values, target_score, source_score, *graph.rows, slope)[0]


@cache
def operators() -> Any:
    """`torch.ops.sgas_gcn`, with gradients and shapes; the library has to be loaded before."""
    for name, (fake, autograd) in OPERATORS.items():
        register_fake(f"sgas_gcn::{name}", fake)
        if autograd is not None:
            register_autograd(f"sgas_gcn::{name}", autograd[1], setup_context=autograd[0])
    return torch.ops.sgas_gcn


def _like(x: Tensor) -> Tensor:
    """A new dense tensor of the shape and type of `x`."""
    return x.new_empty(x.shape)


def _edges_like(x: Tensor) -> Tensor:
    """Numbers of edges `[N, D]`."""
    return x.new_empty(x.shape, dtype=torch.int32)


def _column_sums(x: Tensor) -> Tensor:
    """Sums over nodes or edges `[D]`."""
    return x.new_empty(x.shape[1], dtype=torch.float64)


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:])


def _grad_sum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    offsets, sources, out_offsets, out_targets = ctx.saved_tensors
    reverse = (out_offsets, out_targets, offsets, sources)
    return torch.ops.sgas_gcn.neighbor_sum(grad, *reverse), None, None, None, None


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *inputs[3:])


def _grad_max(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return (torch.ops.sgas_gcn.neighbor_max_backward(grad, *ctx.saved_tensors), *[None] * 5)


def _save_stats(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mark_non_differentiable(*output[1:4])
    ctx.save_for_backward(*inputs[:2], *output[:4], *inputs[5:])


def _grad_stats(
    ctx: Any, grad_selected: Tensor, *others: Tensor | None
) -> tuple[Tensor | None, ...]:
    given = (grad_selected, *others[3:], *ctx.saved_tensors)
    return (*torch.ops.sgas_gcn.edge_relu_stats_backward(*given), *[None] * 6)


def _save_attention(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:3], output[1], *inputs[3:8])
    ctx.slope = inputs[8]


def _grad_attention(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    given = (grad, *ctx.saved_tensors, ctx.slope)
    return (*torch.ops.sgas_gcn.attention_sum_backward(*given), *[None] * 6)


def _stats_shapes(target: Tensor, source: Tensor, sign: Tensor, *rows: Tensor) -> tuple[Any, ...]:
    nodes = _like(target), _edges_like(target), _like(target), _like(target)
    return (*nodes, _column_sums(target), _column_sums(target))


def _attention_shapes(
    values: Tensor, target: Tensor, source: Tensor, offsets: Tensor, sources: Tensor, *_: Any
) -> tuple[Any, ...]:
    return _like(values), values.new_empty(sources.shape[0], values.shape[1])


Fake = Callable[..., Any]
Autograd = tuple[Callable[..., None], Callable[..., Any]]

# By operator: the shapes of its results, and what it saves for its gradient and that gradient.
OPERATORS: dict[str, tuple[Fake, Autograd | None]] = {
    "transpose": (lambda offsets, sources: (_like(offsets), _like(sources), _like(sources)), None),
    "neighbor_sum": (lambda x, *rows: _like(x), (_save_sum, _grad_sum)),
    "neighbor_max": (lambda x, *rows: (_like(x), _edges_like(x)), (_save_max, _grad_max)),
    "neighbor_max_backward": (lambda grad, edges, *rows: _like(grad), None),
    "edge_relu_stats": (_stats_shapes, (_save_stats, _grad_stats)),
    "edge_relu_stats_backward": (
        lambda selected, total, squares, target, *others: (_like(target), _like(target)),
        None,
    ),
    "attention_sum": (_attention_shapes, (_save_attention, _grad_attention)),
    "attention_sum_backward": (
        lambda grad, values, target, source, *others: (_like(values), _like(target), _like(source)),
        None,
    ),
}
