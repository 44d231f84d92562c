"""Layers that operations and cells are made of: convolutions, batch norm, and both together.

Dimensions: B images, C channels, H × W pixels, S the stride (1 or 2). R stands for ReLU, BN for
batch norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.fused.parts import EPS, MOMENTUM
from sgas_cnn.fused.projection import relu_conv, relu_conv_bias, relu_conv_norm


class BatchNorm(nn.Module):
    """Batch norm of `[B, C, H, W]`; in evaluation mode by running statistics.

    While searching it has no weight and bias (`affine` False). The statistics move by `momentum`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.affine = channels, affine
        self.momentum = MOMENTUM
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @property
    def at_inference(self) -> bool:
        """Whether it can be `folded` into a convolution: running statistics and no gradients."""
        return not (self.training or torch.is_grad_enabled())

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution BN(W * x), for `weight` `[C, I, k, k]`: W.

        s W and β - s m with s = γ / sqrt(v + eps), m and v the running statistics.
        """
        scale = torch.rsqrt(self.running_var + EPS)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -scale * self.running_mean
        return weight * scale.view(-1, 1, 1, 1), shift if self.bias is None else shift + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[B, C, H, W]`."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
            self.momentum, EPS,
        )  # fmt: skip


def conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def depthwise(channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A depthwise convolution of k × k taps that keeps the size at stride 1; k is odd."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
    )


def even_pixels(x: Tensor) -> Tensor:
    """Every second row and column of `[B, C, H, W]`, from the first: `[B, C, H/2, W/2]`."""
    return x[:, :, ::2, ::2]


def odd_pixels(x: Tensor) -> Tensor:
    """Every second row and column of `[B, C, H, W]`, from the second; zeros beyond odd sides."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1::2, 1::2]


def conv_norm(x: Tensor, lin: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """BN(W * x); one convolution at inference."""
    if not norm.at_inference:
        return norm(lin(x))
    return F.conv2d(x, *norm.folded(lin.weight), lin.stride, lin.padding)


class ConvNorm(nn.Module):
    """BN(W * x), or BN(W * R(x)) with `relu`: `[B, in_channels, H, W]` to out_channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        relu: bool = True,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.stride, self.relu, self.affine = kernel, stride, relu, affine
        self.lin = conv(in_channels, out_channels, kernel, stride)
        self.norm = BatchNorm(out_channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[B, out_channels, H/S, W/S]`."""
        if not (self.relu and self.lin.kernel_size == (1, 1) and self.lin.stride == (1, 1)):
            return conv_norm(F.relu(x) if self.relu else x, self.lin, self.norm)
        if self.norm.at_inference:
            return relu_conv_bias(x, *self.norm.folded(self.lin.weight))
        return relu_conv_norm(x, self.lin.weight, self.norm)

    def plain(self, x: Tensor) -> Tensor:
        """The normalised `[B, out_channels, H/S, W/S]`, in plain torch."""
        return self.norm(self.lin(F.relu(x) if self.relu else x))


class HalvingConvNorm(nn.Module):
    """BN([W x₀, W' x₁]) with the even and the odd pixels of R(x), which halves the image.

    The odd pixels of an image with an odd side end in zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.even = conv(in_channels, out_channels // 2)
        self.odd = conv(in_channels, out_channels // 2)
        self.norm = BatchNorm(out_channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[B, out_channels, H/2, W/2]`."""
        even, odd = even_pixels(x), odd_pixels(x)
        if not self.norm.at_inference:
            halves = relu_conv(even, self.even.weight), relu_conv(odd, self.odd.weight)
            return self.norm(torch.cat(halves, dim=1))
        weight, bias = self.norm.folded(torch.cat([self.even.weight, self.odd.weight]))
        (w0, w1), (b0, b1) = weight.chunk(2), bias.chunk(2)
        return torch.cat([relu_conv_bias(even, w0, b0), relu_conv_bias(odd, w1, b1)], dim=1)

    def plain(self, x: Tensor) -> Tensor:
        """The normalised `[B, out_channels, H/2, W/2]`, in plain torch."""
        x = F.relu(x)
        halves = self.even(even_pixels(x)), self.odd(odd_pixels(x))
        return self.norm(torch.cat(halves, dim=1))
