"""What candidate operations share: the state they read, and batch norm that takes a weight.

Dimensions: B images, C channels, H × W pixels, S the stride (1 or 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.fused.parts import Part
from sgas_cnn.fused.projection import relu_conv_bias, relu_conv_norm
from sgas_cnn.kernels.torch_depthwise import join_phases, split_phases
from sgas_cnn.kernels.torch_pool import average_pool

MOMENTUM = 0.1
EPS = 1e-5


class SourceState:
    """A state `x` `[B, C, H, W]` as the edges of one stride read it; each form computed once."""

    def __init__(self, x: Tensor, stride: int = 1) -> None:
        self.x, self.stride = x, stride

    @cached_property
    def relu(self) -> Tensor:
        """R(x)."""
        return F.relu(self.x)

    @cached_property
    def max_pooled(self) -> Tensor:
        """The largest of 3 × 3 pixels, `[B, C, H/S, W/S]`."""
        return F.max_pool2d(self.x, 3, self.stride, padding=1)

    @cached_property
    def avg_pooled(self) -> Tensor:
        """The mean of 3 × 3 pixels, those outside the image left out, `[B, C, H/S, W/S]`."""
        return average_pool(self.x, self.stride)

    @cached_property
    def _split(self) -> bool:
        """Whether dilated convolutions are computed on phases.

        oneDNN's gradients of dilated convolutions took 3.9 to 8.1 ms, those on phases 0.5 to 1.4
        (64 images of 16 × 32 × 32, one thread, torch 2.13).
        """
        even = self.x.shape[2] % 2 == self.x.shape[3] % 2 == 0
        on_cpu = self.x.device.type == "cpu"
        return self.stride == 1 and even and on_cpu and torch.is_grad_enabled()

    @cached_property
    def dilated_relu(self) -> tuple[Tensor, int]:
        """R(x) for convolutions of dilation 2, rearranged, and the dilation that is left to do.

        At stride 2 these read even rows and columns alone, so the rest is left out first. What is
        computed from it goes through `joined`.
        """
        if self.stride == 2:
            return self.relu[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last), 1
        return (split_phases(self.relu), 1) if self._split else (self.relu, 2)

    def joined(self, x: Tensor) -> Tensor:
        """What was computed from `dilated_relu`, as images `[B, C, H/S, W/S]`."""
        return join_phases(x) if self._split else x


class BatchNorm(nn.Module):
    """Batch norm of `[B, C, H, W]`; in evaluation mode by running statistics.

    While searching it has no weight and bias (`affine` False).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
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

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """The normalised `[B, C, H, W]`, times `scale` `[C]`.

        The norm is affine in weight and bias, so scaling them scales its output and no scaled copy
        has to exist.
        """
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if scale is not None:
            weight = scale if weight is None else weight * scale
            bias = None if bias is None else bias * scale
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, MOMENTUM, EPS
        )


@torch.no_grad()
def copy_statistics(source: BatchNorm, targets: Sequence[BatchNorm]) -> None:
    """Give `targets` the running statistics of `source`."""
    if targets:
        kept = [norm.running_mean for norm in targets] + [norm.running_var for norm in targets]
        given = [source.running_mean] * len(targets) + [source.running_var] * len(targets)
        torch._foreach_copy_(kept, given)


def conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def conv_norm(x: Tensor, lin: nn.Conv2d, norm: BatchNorm, scale: Tensor | None = None) -> Tensor:
    """BN(W * x), times `scale` `[C]`; one convolution at inference."""
    if not norm.at_inference:
        return norm(lin(x), scale)
    weight, bias = norm.folded(lin.weight)
    if scale is not None:
        weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale
    return F.conv2d(x, weight, bias, lin.stride, lin.padding)


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
        self.lin = conv(in_channels, out_channels, kernel, stride)
        self.norm = BatchNorm(out_channels, affine)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[B, out_channels, H/S, W/S]`."""
        if not (self.relu and self.lin.kernel_size == (1, 1) and self.lin.stride == (1, 1)):
            return conv_norm(F.relu(x) if self.relu else x, self.lin, self.norm)
        if self.norm.at_inference:
            return relu_conv_bias(x, *self.norm.folded(self.lin.weight))
        return relu_conv_norm(x, self.lin.weight, self.norm)


class Operation(nn.Module):
    """A candidate operation on one edge of C channels and a stride; it owns its parameters.

    `affine` says whether its norms have weight and bias, as in a derived network; without, it is a
    candidate of a search. `skips` says that the operation hands its input on, which drop path
    leaves alone.
    """

    skips: ClassVar[bool] = False

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    @classmethod
    def evaluate(
        cls, ops: Sequence[Any], state: SourceState, scales: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Outputs `[B, C, H/S, W/S]` of several operations on one state, times `scales` `[C]`."""
        return [op(state, scale) for op, scale in zip(ops, scales, strict=True)]

    def parts(self) -> Sequence[Part] | None:
        """What the operation is the sum of, if it can be fused with others; None: it runs alone."""
        return None

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/S, W/S]` on a state, times `scale` `[C]`."""
        raise NotImplementedError
