"""Aggregation over neighbours as functions that torch derives, by each backend's two halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sgas.native.backend import backend_for
from sgas_gcn.kernels import cpu_backend, torch_backend
from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.kernels.protocol import Graph
from sgas_gcn.library import LIBRARY

SLOPE = 0.2
PRIMITIVES = ("sum", "max", "difference", "stats", "attention")

Primitive = Callable[..., tuple[Tensor, ...]]


class _Derived(Function):
    """`forward` gives the outputs and what it keeps; `backward` takes gradients, inputs, kept."""

    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, *inputs: Tensor) -> Any:
        *outputs, kept = forward(*inputs)
        ctx.backward_half, ctx.num_inputs = backward, len(inputs)
        ctx.save_for_backward(*inputs, *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        inputs, kept = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        return None, None, *ctx.backward_half(grads, inputs, kept)


class _Compiled:
    """The halves of the compiled backend that its kernels of whole operations hold too."""

    @staticmethod
    def neighbor_max(x: Tensor, graph: Graph) -> Any:
        best, places = operators().neighbor_max(x, *graph.rows, False)
        return best, (places,)

    @staticmethod
    def neighbor_max_backward(grad: Tensor, kept: Any, graph: Graph) -> Tensor:
        return operators().neighbor_max_backward(grad, *kept, *graph.rows, False)

    @staticmethod
    def edge_relu_stats(target: Tensor, source: Tensor, sign: Tensor, graph: Graph) -> Any:
        found = operators().edge_relu_stats(target, source, sign, *graph.rows)
        best, places, total, squares = found
        return best, total, squares, (best, places)

    @staticmethod
    def edge_relu_stats_backward(*arguments: Any) -> Any:
        *tensors, kept, graph = arguments
        return operators().edge_relu_stats_backward(*tensors, *kept, *graph.rows)


def _backend_and_composed(kernels: str) -> tuple[Any, Any]:
    if kernels == "cuda":
        from sgas_gcn.kernels import cuda_backend

        return cuda_backend, cuda_backend.COMPOSED
    if kernels == "cpu":
        return cpu_backend, _Compiled
    return torch_backend, torch_backend.COMPOSED


def _halves(kernels: str, graph: Graph, sign: Tensor | None) -> dict[str, tuple[Any, Any]]:
    own, composed = _backend_and_composed(kernels)

    def attention_backward(grads: Any, inputs: Any, kept: Any) -> Any:
        values = inputs[0]
        unrelated = values.new_zeros(2, values.shape[1] * values.shape[2])
        return own.attention_sum_backward(*grads, values, kept, graph, SLOPE, None, unrelated)

    def signs_of(x: Tensor) -> Tensor:
        return (signs(x.shape[1]) if sign is None else sign).to(x)

    return {
        "sum": (
            lambda x: (own.neighbor_sum(x, graph), ()),
            lambda grads, inputs, kept: (own.neighbor_sum_backward(*grads, graph),),
        ),
        "max": (
            lambda x: composed.neighbor_max(x, graph),
            lambda grads, inputs, kept: (composed.neighbor_max_backward(*grads, kept, graph),),
        ),
        "difference": (
            lambda x: own.largest_difference(x, graph),
            lambda grads, inputs, kept: (own.largest_difference_backward(*grads, kept, graph),),
        ),
        "stats": (
            lambda a, b: composed.edge_relu_stats(a, b, signs_of(a), graph),
            lambda *given: composed.edge_relu_stats_backward(*given[0], *given[1], given[2], graph),
        ),
        "attention": (
            lambda v, t, s: own.attention_sum(v, t, s, graph, SLOPE),
            attention_backward,
        ),
    }


def signs(channels: int) -> Tensor:
    """Which extremum `stats` takes of each channel, where nothing else is asked for."""
    return torch.where(torch.arange(channels) % 3 == 1, -1.0, 1.0)


def primitives(
    graph: Graph, sign: Tensor | None = None, kernels: str | None = None
) -> dict[str, Primitive]:
    """Each primitive as a function of tensors alone, by the kernels in force or those named."""

    def of(name: str) -> Primitive:
        def function(*inputs: Tensor) -> tuple[Tensor, ...]:
            by = kernels or backend_for(inputs[0].device, LIBRARY)
            return _Derived.apply(*_halves(by, graph, sign)[name], *inputs)

        return function

    return {name: of(name) for name in PRIMITIVES}
