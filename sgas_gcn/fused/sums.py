"""Sums over neighbours as autograd functions of their own, for operations that are not fused.

No tensor of edges is made but the weights of attention. Dimensions: N nodes, C channels in all,
H heads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas.native.precision import without_autocast
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.protocol import Graph
from sgas_gcn.kernels.weighted import weighted_sum, weighted_sum_backward


def neighbor_sum(x: Tensor, graph: CsrGraph, weighted: bool = False) -> Tensor:
    """Σ over the edges j→i of x_j: `[N, C]`, 0 for a node without edges.

    `weighted`: times the weights of the edges, where these have some.
    """
    out: Tensor = _NeighborSum.apply(x, graph, weighted)
    return out


def attention_sum(x: Tensor, vectors: Tensor, heads: int, graph: Graph, slope: float) -> Tensor:
    """Σ over the edges j→i of a_ij x_j `[N, C]`, head by head of the channels side by side.

    a is the softmax over j of leaky ReLU(t · x_i + s · x_j); `vectors` `[2, C]` are t and s.
    """
    out: Tensor = _AttentionSum.apply(x, vectors, heads, graph, slope)
    return out


class _NeighborSum(Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, graph: CsrGraph, weighted: bool) -> Tensor:
        ctx.graph, ctx.weighted, x = graph, weighted, x.contiguous()
        return weighted_sum(x, graph) if weighted else backend_of(x).neighbor_sum(x, graph)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        graph, grad = ctx.graph, grad.contiguous()
        if ctx.weighted:
            return weighted_sum_backward(grad, graph), None, None
        return backend_of(grad).neighbor_sum_backward(grad, graph), None, None


class _AttentionSum(Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, x: Tensor, vectors: Tensor, heads: int, graph: Graph, slope: float
    ) -> Tensor:
        backend, x = backend_of(x), x.contiguous()
        scores = backend.head_dots(x, vectors, vectors.new_zeros(2, heads), heads)
        out, kept = backend.attention_sum(x.unflatten(1, (heads, -1)), *scores, graph, slope)
        ctx.heads, ctx.graph, ctx.slope = heads, graph, slope
        ctx.save_for_backward(x, vectors, *kept)
        return out.flatten(1)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, vectors, *kept = ctx.saved_tensors
        backend, by_head = backend_of(x), (ctx.heads, -1)
        grad_x, *of_scores = backend.attention_sum_backward(
            grad.contiguous().unflatten(1, by_head),
            x.unflatten(1, by_head),
            tuple(kept),
            ctx.graph,
            ctx.slope,
            None,
            vectors,
        )
        of_vectors = backend.head_dots_backward(x, *of_scores).to(vectors.dtype)
        return grad_x.flatten(1), of_vectors, None, None, None
