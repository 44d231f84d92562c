"""The primitives as compiled operators, `torch.ops.sgas_cnn`; what they compute say torch_backend
and torch_norms.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sgas_cnn.kernels.cpu_operators import described
from sgas_cnn.kernels.protocol import (
    Fold,
    Follow,
    Mixture,
    MixtureBackward,
    Pool,
    PoolBackward,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableBackward,
    SeparableSum,
    Unfold,
    flat,
)
from sgas_cnn.kernels.torch_backend import summed


def separable(call: Separable) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    return _operators().separable(*flat(call))


def separable_sum(call: SeparableSum) -> list[Tensor]:
    """As `torch_backend.separable_sum`; the images of dense convolutions are made first."""
    if call.convolutions.has_dense:
        return summed(separable, mixture, call)
    return _operators().separable_sum(*flat(call))


def separable_backward(
    call: SeparableBackward,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    return _operators().separable_backward(*flat(call))


def mixture(call: Mixture) -> list[Tensor]:
    """As `torch_backend.mixture`."""
    return _operators().mixture(*call)


def mixture_backward(call: MixtureBackward) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As `torch_backend.mixture_backward`."""
    return _operators().mixture_backward(*call)


def projection(call: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_backend.projection`."""
    return _operators().projection(*call)


def projection_backward(call: ProjectionBackward) -> tuple[Tensor, Tensor]:
    """As `torch_backend.projection_backward`."""
    return _operators().projection_backward(*call)


def pool(call: Pool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    return _operators().pool(*call)


def pool_backward(call: PoolBackward) -> Tensor:
    """As `torch_backend.pool_backward`."""
    return _operators().pool_backward(*call)


def fold(call: Fold) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.fold`."""
    return _operators().fold(*call)


def unfold(call: Unfold) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.unfold`."""
    return _operators().unfold(*call)


def follow(call: Follow) -> None:
    """As `torch_norms.follow`."""
    _operators().follow(*call)


def _operators() -> Any:
    return described("sgas_cnn")
