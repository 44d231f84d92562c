"""The network derived from a genotype, for images.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.1; stems and
auxiliary heads as in Liu et al., "DARTS", ICLR 2019.
Dimensions: B images, H × W pixels, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.edges import CellLayout, derived_layout
from sgas.cells.genotype import CellGene, Genotype
from sgas.cells.space import SearchSpace
from sgas.errors import GenotypeError
from sgas.native.precision import runs_plain
from sgas_cnn.cells import (
    NUM_INPUTS,
    REDUCE,
    build_cells,
    build_stem,
    check_size,
    classify,
    forward_cells,
)
from sgas_cnn.config import IMAGE_SPACE, ImageModelConfig
from sgas_cnn.edges import OperationTable
from sgas_cnn.ops.image import IMAGE_OPERATIONS
from sgas_cnn.ops.layers import BatchNorm, conv

AUXILIARY_CHANNELS = (128, 768)
AUXILIARY_WINDOW = 5
AUXILIARY_STRIDE = {"cifar": 3, "imagenet": 2}
AUXILIARY_SIDE = 2  # pixels a side after the pooling


class AuxiliaryHead(nn.Module):
    """Logits `[B, num_classes]` from a cell's output `[B, in_channels, H, W]`, for training alone.

    R, pooling to 2 × 2, 1 × 1, BN, R, 2 × 2, BN, R, linear. The pooling is DARTS's where it gives
    2 × 2 (images of 32 pixels, of 224 with the ImageNet stem), and else adaptive.
    """

    def __init__(self, in_channels: int, num_classes: int, stride: int) -> None:
        super().__init__()
        first, second = AUXILIARY_CHANNELS
        self.stride = stride
        self.lin1 = conv(in_channels, first)
        self.norm1 = BatchNorm(first)
        self.lin2 = nn.Conv2d(first, second, AUXILIARY_SIDE, bias=False)
        self.norm2 = BatchNorm(second)
        self.classifier = nn.Linear(second, num_classes)

    def _pool(self, x: Tensor) -> Tensor:
        sides = {(side - AUXILIARY_WINDOW) // self.stride + 1 for side in x.shape[-2:]}
        if sides == {AUXILIARY_SIDE}:
            return F.avg_pool2d(x, AUXILIARY_WINDOW, self.stride)
        return F.adaptive_avg_pool2d(x, AUXILIARY_SIDE)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        x = F.relu(self.norm1(self.lin1(self._pool(F.relu(x)))))
        return self.classifier(F.relu(self.norm2(self.lin2(x))).flatten(1))


class ImageNetwork(nn.Module):
    """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`, by the cells of a genotype.

    The number of steps and the output of a cell are the genotype's; `config.num_steps` is not read.
    `drop_path` is the probability of dropping an edge for an image and may change between epochs.
    GenotypeError where the genotype is not one of images, or a reducing cell hands on its inputs.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: ImageModelConfig,
        in_channels: int,
        num_classes: int,
        drop_path: float = 0.0,
        auxiliary: bool = False,
        space: SearchSpace = IMAGE_SPACE,
        operations: OperationTable = IMAGE_OPERATIONS,
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(space)
        self.config = config
        self.drop_path = drop_path
        layouts = {kind: layout_of(space, kind, gene) for kind, gene in genotype.cells.items()}
        self.stem = build_stem(config, in_channels)
        self.cells = build_cells(config, self.stem, layouts, True, space, operations)
        self.classifier = nn.Linear(self.cells[-1].out_channels, num_classes)
        self.auxiliary_cell = 2 * config.num_cells // 3
        self.auxiliary = None
        if auxiliary:
            out_channels = self.cells[self.auxiliary_cell].out_channels
            stride = AUXILIARY_STRIDE[config.stem]
            self.auxiliary = AuxiliaryHead(out_channels, num_classes, stride)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`.

        In training mode with an auxiliary head, the pair of the logits and the auxiliary logits.
        ConfigError where the images are too small for the reductions.
        """
        check_size(images, self.config)
        if runs_plain(self, images):
            return self.plain(images)
        outputs = forward_cells(
            self.cells,
            self.stem,
            images,
            lambda cell, s0, s1: cell(s0, s1, drop_path=self.drop_path),
        )
        logits = classify(self.classifier, outputs[-1])
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(outputs[self.auxiliary_cell])

    def plain(self, images: Tensor) -> Tensor:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`, in plain torch."""
        s0, s1 = self.stem.plain(images.contiguous(memory_format=torch.channels_last))
        for cell in self.cells:
            s0, s1 = s1, cell.plain(s0, s1)
        return classify(self.classifier, s1)


def layout_of(space: SearchSpace, kind: str, gene: CellGene) -> CellLayout:
    """The cells of a gene.

    GenotypeError where the output of a reducing cell holds its inputs, which are larger.
    """
    if kind == REDUCE and min(gene.concat) < NUM_INPUTS:
        raise GenotypeError(
            f"{kind} cell: concat is {list(gene.concat)}; its inputs are larger than its output: "
            f"give states from {NUM_INPUTS} on"
        )
    return derived_layout(space, gene)
