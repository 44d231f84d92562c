"""Depthwise convolution in the forms that are fast: the primitive of the candidate operations.

Operations import from here and nowhere deeper, so that another implementation of a primitive
changes this folder alone. Dimensions: B images, C channels, H × W pixels, k × k taps.
"""

import torch
from torch import Tensor

from sgas.kernels import backend_for
from sgas_cnn.kernels import torch_backend
from sgas_cnn.kernels.torch_backend import join_phases, split_phases

__all__ = ["depthwise_conv", "join_phases", "split_phases"]


def depthwise_conv(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """`x` `[B, C, H, W]` with each channel convolved by its kernel in `weight` `[C, 1, k, k]`.

    k is odd and the padding keeps the size at stride 1; at stride 2 it is halved, rounded up. Under
    autocast both are taken in its type, as by torch's own convolutions.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    if backend_for(x.device, None) == "cuda":
        from sgas_cnn.kernels import cuda_backend

        return cuda_backend.depthwise_conv(x, weight, stride, dilation)
    return torch_backend.depthwise_conv(x, weight, stride, dilation)
