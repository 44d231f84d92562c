"""The primitives as compiled operators, `torch.ops.sgas_cnn`; what they compute says torch_backend.

`register` gives the operators their gradients and their shapes, once the library is loaded: they
then work under autograd, fake tensors and torch.compile by themselves too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas_cnn.kernels import cpu_autograd


def separable(*given: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    return _operators().separable(*given)


def separable_backward(
    *given: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    return _operators().separable_backward(*given)


def mixture(*given: Any) -> list[Tensor]:
    """As `torch_backend.mixture`."""
    return _operators().mixture(*given)


def mixture_backward(*given: Any) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As `torch_backend.mixture_backward`."""
    return _operators().mixture_backward(*given)


def pool(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    return _operators().pool(*given)


def pool_backward(*given: Any) -> Tensor:
    """As `torch_backend.pool_backward`."""
    return _operators().pool_backward(*given)


def _operators() -> Any:
    cpu_autograd.register()
    return torch.ops.sgas_cnn
