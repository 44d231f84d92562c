"""Aggregation over neighbours as functions that torch derives, by each backend's two halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd import Function

from sgas.native.backend import backend_for
from sgas_gcn.kernels import cpu_backend, torch_backend
from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.kernels.protocol import Backend, Graph, Kept
from sgas_gcn.library import LIBRARY

Forward = Callable[..., tuple[Sequence[Tensor], Kept]]
Backward = Callable[[Sequence[Tensor], Sequence[Tensor], Kept], Sequence[Tensor]]


class _Derived(Function):
    @staticmethod
    def forward(ctx: Any, forward: Forward, backward: Backward, *inputs: Tensor) -> Any:
        outputs, kept = forward(*inputs)
        ctx.backward_half, ctx.num_inputs = backward, len(inputs)
        ctx.save_for_backward(*inputs, *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        inputs, kept = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        return None, None, *ctx.backward_half(grads, inputs, kept)


def _compiled_max(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    best, places = operators().neighbor_max(x, *graph.rows, False)
    return best, (places,)


def _compiled_max_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    return operators().neighbor_max_backward(grad, *kept, *graph.rows, False)


def _compiled_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    best, places, total, squares = operators().edge_relu_stats(target, source, sign, *graph.rows)
    return best, total, squares, (best, places)


def _compiled_stats_backward(
    selected: Tensor,
    total: Tensor,
    squares: Tensor,
    target: Tensor,
    source: Tensor,
    kept: Kept,
    graph: Graph,
) -> tuple[Tensor, Tensor]:
    grads = (selected, total, squares)
    return operators().edge_relu_stats_backward(*grads, target, source, *kept, *graph.rows)


@dataclass(frozen=True)
class Derived:
    """The primitives of a backend, with the gradients that its backward halves give."""

    backend: Backend
    by: Any

    def neighbor_sum(self, x: Tensor, graph: Graph) -> Tensor:
        def forward(x: Tensor) -> tuple[Sequence[Tensor], Kept]:
            return [self.backend.neighbor_sum(x, graph)], ()

        def backward(grads: Sequence[Tensor], inputs: Any, kept: Kept) -> Sequence[Tensor]:
            return [self.backend.neighbor_sum_backward(grads[0], graph)]

        return _Derived.apply(forward, backward, x)[0]

    def neighbor_max(self, x: Tensor, graph: Graph) -> Tensor:
        def forward(x: Tensor) -> tuple[Sequence[Tensor], Kept]:
            best, kept = self.by.neighbor_max(x, graph)
            return [best], kept

        def backward(grads: Sequence[Tensor], inputs: Any, kept: Kept) -> Sequence[Tensor]:
            return [self.by.neighbor_max_backward(grads[0], kept, graph)]

        return _Derived.apply(forward, backward, x)[0]

    def largest_difference(self, x: Tensor, graph: Graph) -> Tensor:
        def forward(x: Tensor) -> tuple[Sequence[Tensor], Kept]:
            best, kept = self.backend.largest_difference(x, graph)
            return [best], kept

        def backward(grads: Sequence[Tensor], inputs: Any, kept: Kept) -> Sequence[Tensor]:
            return [self.backend.largest_difference_backward(grads[0], kept, graph)]

        return _Derived.apply(forward, backward, x)[0]

    def edge_relu_stats(
        self, target: Tensor, source: Tensor, sign: Tensor, graph: Graph
    ) -> tuple[Tensor, Tensor, Tensor]:
        def forward(target: Tensor, source: Tensor) -> tuple[Sequence[Tensor], Kept]:
            *outputs, kept = self.by.edge_relu_stats(target, source, sign, graph)
            return outputs, kept

        def backward(grads: Sequence[Tensor], inputs: Any, kept: Kept) -> Sequence[Tensor]:
            return self.by.edge_relu_stats_backward(*grads, *inputs, kept, graph)

        return _Derived.apply(forward, backward, target, source)

    def attention_sum(
        self,
        values: Tensor,
        target_score: Tensor,
        source_score: Tensor,
        graph: Graph,
        slope: float,
    ) -> Tensor:
        def forward(*inputs: Tensor) -> tuple[Sequence[Tensor], Kept]:
            out, kept = self.backend.attention_sum(*inputs, graph, slope)
            return [out], kept

        def backward(grads: Sequence[Tensor], inputs: Any, kept: Kept) -> Sequence[Tensor]:
            values = inputs[0]
            unrelated = values.new_zeros(2, values.shape[1] * values.shape[2])
            return self.backend.attention_sum_backward(
                grads[0], values, kept, graph, slope, None, unrelated
            )

        return _Derived.apply(forward, backward, values, target_score, source_score)[0]


class _Compiled:
    """The primitives of the compiled backend, whose kernels of whole operations hold them too."""

    neighbor_max = staticmethod(_compiled_max)
    neighbor_max_backward = staticmethod(_compiled_max_backward)
    edge_relu_stats = staticmethod(_compiled_stats)
    edge_relu_stats_backward = staticmethod(_compiled_stats_backward)


def on(kernels: str) -> Derived:
    """The primitives of a backend."""
    if kernels == "cuda":
        from sgas_gcn.kernels import cuda_backend

        return Derived(cuda_backend, cuda_backend.COMPOSED)
    if kernels == "cpu":
        return Derived(cpu_backend, _Compiled)
    return Derived(torch_backend, torch_backend.COMPOSED)


def _on_device(x: Tensor) -> Derived:
    return on(backend_for(x.device, LIBRARY))


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """By the kernels in force, as all that follow."""
    return _on_device(x).neighbor_sum(x, graph)


def neighbor_max(x: Tensor, graph: Graph) -> Tensor:
    return _on_device(x).neighbor_max(x, graph)


def largest_difference(x: Tensor, graph: Graph) -> Tensor:
    return _on_device(x).largest_difference(x, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor]:
    return _on_device(target).edge_relu_stats(target, source, sign, graph)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> Tensor:
    return _on_device(values).attention_sum(values, target_score, source_score, graph, slope)
