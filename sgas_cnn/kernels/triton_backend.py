"""The primitives by Triton kernels, on CUDA or interpreted; what they compute say torch_backend and
torch_norms.

Torch knows them as `torch.ops.sgas_cnn_cuda`, with schemas, gradients and shapes of the compiled
operators. Running moments follow by torch's own kernels, which take lists.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sgas.operators import define, first_tensors, is_derived, is_looked_at
from sgas_cnn.kernels import torch_backend
from sgas_cnn.kernels.operators import GRADIENTS, whole
from sgas_cnn.kernels.torch_norms import follow

__all__ = [
    "fold",
    "follow",
    "mixture",
    "mixture_backward",
    "pool",
    "pool_backward",
    "projection",
    "projection_backward",
    "separable",
    "separable_backward",
    "separable_sum",
    "unfold",
]

_CONVOLUTIONS = (
    "Tensor[] inputs, Tensor? scales, Tensor? shifts, Tensor[] taps, int[] dilations, "
    "int[] offsets, Tensor[] pointwise, int[] first_rows, int stride"
)
SCHEMAS = (
    f"separable({_CONVOLUTIONS}, bool moments) -> (Tensor[], Tensor, Tensor)",
    "separable_backward(Tensor[] gradients, int[] gradient_of, Tensor factors, Tensor[] outputs, "
    f"Tensor? slopes, Tensor? constants, {_CONVOLUTIONS}, Tensor? centres, Tensor? added, "
    "bool wants_inputs, bool[] wants_taps, bool[] wants_pointwise) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor, Tensor)",
    f"separable_sum({_CONVOLUTIONS}, Tensor[] before, int[] before_slots, int[] slot_of, "
    "Tensor factors, Tensor bias) -> Tensor[]",
    "mixture(Tensor[] before, int[] before_slots, Tensor[] parts, int[] slot_of, Tensor factors, "
    "Tensor[] linear, Tensor coefficients, Tensor bias) -> Tensor[]",
    "mixture_backward(Tensor[] gradients, Tensor[] parts, int[] slot_of, Tensor centres, "
    "Tensor[] linear, Tensor linear_centres, Tensor coefficients, bool wants_linear) "
    "-> (Tensor[], Tensor, Tensor, Tensor)",
    "pool(Tensor x, int stride, bool moments) -> (Tensor, Tensor, Tensor, Tensor)",
    "pool_backward(Tensor x, Tensor largest, Tensor average, Tensor largest_gradient, "
    "Tensor average_gradient, Tensor slopes, Tensor constants, Tensor? added, int stride) "
    "-> Tensor",
    "projection(Tensor x, Tensor weight, Tensor? bias, bool moments) -> (Tensor, Tensor, Tensor)",
    "projection_backward(Tensor gradient, Tensor factors, Tensor output, Tensor? slopes, "
    "Tensor? constants, Tensor x, Tensor weight, bool wants_x, bool wants_weight) "
    "-> (Tensor, Tensor)",
    "fold(Tensor mean, Tensor var, int[] row_of, Tensor? gamma, Tensor? beta, Tensor? weights, "
    "int[] places, int[] slot_of, int slots, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    "unfold(Tensor factors, Tensor centres, Tensor inverse, int[] row_of, Tensor? gamma, "
    "Tensor? beta, Tensor? weights, int[] places, int[] slot_of, Tensor crossed, Tensor sums, "
    "int pixels) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def separable(*given: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    return _run("separable", given)


def separable_backward(
    *given: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    return _run("separable_backward", given)


def separable_sum(*given: Any) -> list[Tensor]:
    """As `torch_backend.separable_sum`."""
    return _run("separable_sum", given)


def projection(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_backend.projection`."""
    return _run("projection", given)


def projection_backward(*given: Any) -> tuple[Tensor, Tensor]:
    """As `torch_backend.projection_backward`."""
    return _run("projection_backward", given)


def mixture(*given: Any) -> list[Tensor]:
    """As `torch_backend.mixture`."""
    return _run("mixture", given)


def mixture_backward(*given: Any) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As `torch_backend.mixture_backward`."""
    return _run("mixture_backward", given)


def pool(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    return _run("pool", given)


def pool_backward(*given: Any) -> Tensor:
    """As `torch_backend.pool_backward`."""
    return _run("pool_backward", given)


def fold(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.fold`."""
    return _run("fold", given)


def unfold(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.unfold`."""
    return _run("unfold", given)


def _run(name: str, given: tuple[Any, ...]) -> Any:
    """What the primitive returns: by its operator where torch looks at it."""
    if is_derived(given):
        return getattr(OPERATORS if name in GRADIENTS else torch_backend, name)(*given)
    if is_looked_at(given):
        return getattr(OPERATORS, name)(*given)
    return _launch(name, *given)


def _launch(name: str, *given: Any) -> Any:
    """By the kernels of a primitive; images without pixels or channels are torch's."""
    first = list(first_tensors(given))
    like = next((x for x in first if x.dim() == 4), first[0])
    if not like.numel():
        return getattr(torch_backend, name)(*given)
    from sgas_cnn.kernels.triton import primitives  # Triton may not be installed

    with torch.cuda.device_of(like):
        return getattr(primitives, name)(*given)


define("sgas_cnn_cuda", SCHEMAS, lambda name: partial(_launch, name))
OPERATORS = whole("sgas_cnn_cuda")
