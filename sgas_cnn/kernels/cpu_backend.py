"""The primitives as compiled operators, `torch.ops.sgas_cnn`; what they compute say torch_backend
and torch_norms.

Once the library is loaded, `operators` gives them their gradients and their shapes: they then work
under autograd, fake tensors and torch.compile by themselves too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sgas_cnn.kernels.operators import whole


def separable(*given: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    return _operators().separable(*given)


def separable_backward(
    *given: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    return _operators().separable_backward(*given)


def separable_sum(*given: Any) -> list[Tensor]:
    """As `torch_backend.separable_sum`."""
    return _operators().separable_sum(*given)


def projection(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_backend.projection`."""
    return _operators().projection(*given)


def projection_backward(*given: Any) -> tuple[Tensor, Tensor]:
    """As `torch_backend.projection_backward`."""
    return _operators().projection_backward(*given)


def mixture(*given: Any) -> list[Tensor]:
    """As `torch_backend.mixture`."""
    return _operators().mixture(*given)


def mixture_backward(*given: Any) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As `torch_backend.mixture_backward`."""
    return _operators().mixture_backward(*given)


def fold(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.fold`."""
    return _operators().fold(*given)


def unfold(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.unfold`."""
    return _operators().unfold(*given)


def follow(*given: Any) -> None:
    """As `torch_norms.follow`."""
    _operators().follow(*given)


def pool(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    return _operators().pool(*given)


def pool_backward(*given: Any) -> Tensor:
    """As `torch_backend.pool_backward`."""
    return _operators().pool_backward(*given)


def _operators() -> Any:
    return whole("sgas_cnn")
