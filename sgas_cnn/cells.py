"""The cell of image networks, and the layers around it.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019. Dimensions: B images,
C channels of a cell, H × W pixels, E edges, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.edges import CellLayout
from sgas.cells.space import SearchSpace
from sgas.errors import ConfigError
from sgas_cnn.config import ImageModelConfig
from sgas_cnn.edges import CellEdges, OperationTable
from sgas_cnn.ops.layers import BatchNorm, ConvNorm, HalvingConvNorm, conv, conv_norm

NUM_INPUTS = 2
STEM_MULTIPLE = 3  # channels of the CIFAR stem, in units of C
NORMAL, REDUCE = "normal", "reduce"
SMALLEST_SIDE = {"cifar": 8, "imagenet": 64}  # leaves the last cells two pixels a side


class ImageCell(nn.Module):
    """A cell after `layout`, with outputs side by side: `[B, len(concat)·C, H, W]`.

    A reducing cell halves H and W on the edges that leave its inputs. `after_reduction` says that
    the cell before halved them, so that the input from the cell before that one has to follow.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        layout: CellLayout,
        *,
        kind: str,
        after_reduction: bool,
        affine: bool,
        candidates: Sequence[str],
        operations: OperationTable,
    ) -> None:
        super().__init__()
        self.in_channels, self.channels, self.after_reduction = (
            in_channels,
            channels,
            after_reduction,
        )
        self.kind, self.concat = kind, layout.concat
        self.out_channels = len(layout.concat) * channels
        first_input = HalvingConvNorm if after_reduction else ConvNorm
        self.pre0: HalvingConvNorm | ConvNorm = first_input(in_channels[0], channels, affine=affine)
        self.pre1 = ConvNorm(in_channels[1], channels, affine=affine)
        strides = [2 if kind == REDUCE else 1] * NUM_INPUTS + [1] * layout.num_steps
        self.edges = CellEdges(
            layout,
            channels,
            strides,
            table=operations,
            candidates=candidates,
            affine=affine,
        )

    def forward(
        self, s0: Tensor, s1: Tensor, weights: Tensor | None = None, drop_path: float = 0.0
    ) -> Tensor:
        """The output `[B, out_channels, H, W]` for the outputs of the two cells before.

        `weights` `[E, O]` and `drop_path` are those of `CellEdges`.
        """
        states = self.edges([self.pre0(s0), self.pre1(s1)], weights, drop_path)
        return torch.cat([states[state] for state in self.concat], dim=1)

    def plain(self, s0: Tensor, s1: Tensor) -> Tensor:
        """The output in plain torch, of a cell that is decided."""
        states = self.edges.plain_states([self.pre0.plain(s0), self.pre1.plain(s1)])
        return torch.cat([states[state] for state in self.concat], dim=1)


class CifarStem(nn.Module):
    """Both inputs of the first cell, BN(W * x) `[B, 3C, H, W]`: a 3 × 3 convolution."""

    reduces = False

    def __init__(self, channels: int, in_channels: int) -> None:
        super().__init__()
        self.channels, self.in_channels = channels, in_channels
        self.out_channels = STEM_MULTIPLE * channels
        self.lin = conv(in_channels, self.out_channels, 3)
        self.norm = BatchNorm(self.out_channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs, which are one."""
        x = conv_norm(images, self.lin, self.norm)
        return x, x

    def plain(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs, in plain torch."""
        x = self.norm(self.lin(images))
        return x, x


class ImageNetStem(nn.Module):
    """The inputs of the first cell, `[B, C, H/4, W/4]` and `[B, C, H/8, W/8]`.

    Three 3 × 3 convolutions of stride 2, as in DARTS; the first cell has to reduce its first input.
    """

    reduces = True

    def __init__(self, channels: int, in_channels: int) -> None:
        super().__init__()
        self.channels, self.in_channels = channels, in_channels
        self.out_channels = channels
        self.first = ConvNorm(in_channels, channels // 2, 3, 2, relu=False)
        self.second = ConvNorm(channels // 2, channels, 3, 2)
        self.third = ConvNorm(channels, channels, 3, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs."""
        x = self.second(self.first(images))
        return x, self.third(x)

    def plain(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs, in plain torch."""
        x = self.second.plain(self.first.plain(images))
        return x, self.third.plain(x)


def build_stem(config: ImageModelConfig, in_channels: int) -> CifarStem | ImageNetStem:
    """The layers before the first cell."""
    return (ImageNetStem if config.stem == "imagenet" else CifarStem)(config.channels, in_channels)


def reduction_cells(num_cells: int) -> set[int]:
    """The cells that halve the image and double the channels."""
    return {num_cells // 3, 2 * num_cells // 3}


def build_cells(
    config: ImageModelConfig,
    stem: CifarStem | ImageNetStem,
    layouts: Mapping[str, CellLayout],
    affine: bool,
    space: SearchSpace,
    operations: OperationTable,
) -> Sequence[ImageCell]:
    """The cells of a network as a module list, each after the layout of its kind."""
    widths, channels, after_reduction = [stem.out_channels] * 2, config.channels, stem.reduces
    cells = nn.ModuleList()
    for number in range(config.num_cells):
        kind = REDUCE if number in reduction_cells(config.num_cells) else NORMAL
        channels *= 2 if kind == REDUCE else 1
        cell = ImageCell(
            (widths[-2], widths[-1]),
            channels,
            layouts[kind],
            kind=kind,
            after_reduction=after_reduction,
            affine=affine,
            candidates=space.operations,
            operations=operations,
        )
        after_reduction = kind == REDUCE
        widths.append(cell.out_channels)
        cells.append(cell)
    return cast("Sequence[ImageCell]", cells)  # nn.ModuleList does not say what it holds


def forward_cells(
    cells: Sequence[ImageCell],
    stem: CifarStem | ImageNetStem,
    images: Tensor,
    run: Callable[[ImageCell, Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """The outputs of all cells for images `[B, in_channels, H, W]`."""
    s0, s1 = stem(images.contiguous(memory_format=torch.channels_last))
    outputs = []
    for cell in cells:
        s0, s1 = s1, run(cell, s0, s1)
        outputs.append(s1)
    return outputs


def check_size(images: Tensor, config: ImageModelConfig) -> None:
    """ConfigError where images `[B, in_channels, H, W]` are too small for the reductions."""
    check_sides(images, SMALLEST_SIDE[config.stem], f"stem {config.stem}")


def check_sides(images: Tensor, smallest: int, what: str) -> None:
    """ConfigError where images `[B, in_channels, H, W]` have a side below `smallest` pixels."""
    height, width = images.shape[-2:]
    if not torch.jit.is_tracing() and min(height, width) < smallest:  # traced, sizes are tensors
        raise ConfigError(
            f"images have {height} × {width} pixels; {what} needs at least {smallest} a side: give "
            "larger images"
        )


def classify(classifier: nn.Linear, x: Tensor) -> Tensor:
    """Logits `[B, num_classes]` of the last cell's output: its mean over the pixels, linear."""
    return classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
