"""Depthwise convolutions by the kernels that run: Triton's, or torch's own.

Dimensions: B images, C channels, H × W pixels, k × k taps. Images are channels-last.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sgas.kernels import backend_for
from sgas.precision import narrowed
from sgas_cnn.kernels import torch_depthwise
from sgas_cnn.library import LIBRARY


def depthwise_conv(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """`x` `[B, C, H, W]` with each channel convolved by its kernel in `weight` `[C, 1, k, k]`.

    k is odd and the padding keeps the size at stride 1; at stride 2 it is halved, rounded up. Under
    autocast both are taken in its type, as by torch's own convolutions.
    """
    x, weight = narrowed(x, weight)
    return _module(x).depthwise_conv(x, weight, stride, dilation)


def depthwise_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `depthwise_conv` by `x` `[B, C, H, W]` and `weight`, None where not wanted."""
    return _module(x).depthwise_gradients(grad, x, weight, stride, dilation, wanted)


def _module(x: Tensor) -> Any:
    if backend_for(x.device, LIBRARY) != "cuda":
        return torch_depthwise
    from sgas_cnn.kernels import cuda_backend

    return cuda_backend
