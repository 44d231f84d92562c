"""The primitives by Triton kernels, on CUDA or interpreted; what they compute say torch_backend and
torch_norms.

Tensors without memory (traced, fake) or elements, and such that torch itself is to derive by, go to
torch_backend. Running moments follow by torch's own kernels, which take lists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sgas_cnn.kernels import torch_backend
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
    """What the primitive returns, by Triton on the device of its tensors, or by torch."""
    tensors = []
    for value in given:
        values = value if isinstance(value, list | tuple) else (value,)
        tensors += [x for x in values if isinstance(x, Tensor)]
    first = tensors[0]
    traced = torch.compiler.is_compiling() or type(first) not in (Tensor, nn.Parameter)
    derived = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if traced or derived or not first.numel():
        return getattr(torch_backend, name)(*given)
    from sgas_cnn.kernels.triton import primitives

    with torch.cuda.device_of(first):
        return getattr(primitives, name)(*given)
