"""Supernet and derived network of the NAS-Bench-201 space.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", ICLR 2020, section 2.1: three stages of equal cells with C, 2C and 4C channels, a residual
block of stride 2 before the second and third. A cell has one input, and its last state is its
output. Dimensions: B images, H × W pixels, C channels, E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.alphas import draw_alphas, weights_of
from sgas.cells.decisions import CellDecisions
from sgas.cells.edges import CellLayout, derived_layout, kept_operations, searched_layout
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.errors import GenotypeError
from sgas.native.precision import runs_plain
from sgas_cnn.cells import check_sides, classify
from sgas_cnn.config import NASBENCH201_SPACE, NasBench201Config
from sgas_cnn.edges import CellEdges, OperationTable
from sgas_cnn.fused.parts import SeparableConv
from sgas_cnn.fused.plan import SourcePlan, Use
from sgas_cnn.fused.source import forward_source
from sgas_cnn.ops.layers import BatchNorm, ConvNorm
from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE

KIND = "normal"
NUM_STAGES = 3
SMALLEST_SIDE = 8  # leaves the last stage two pixels a side


class ResidualBlock(nn.Module):
    """`[B, in_channels, H, W]` to `[B, out_channels, H/2, W/2]`: two convolutions, a shortcut.

    As in He et al., CVPR 2016, with R before the convolutions; the shortcut averages 2 × 2 pixels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.first = ConvNorm(in_channels, out_channels, 3, 2)
        self.second = ConvNorm(out_channels, out_channels, 3)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    @cached_property
    def plan(self) -> SourcePlan:
        """How the second convolution is added to the shortcut."""
        last = SeparableConv(None, self.second.lin, self.second.norm)
        return SourcePlan([Use(0, None, last)], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        # Odd sides are rounded up, as the convolution of stride 2 does.
        smaller = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        first, shortcut = self.first(x), self.shortcut(smaller)
        return forward_source(self.plan, first, None, [shortcut], self.training)[0]

    def plain(self, x: Tensor) -> Tensor:
        """The sum of both ways, in plain torch."""
        smaller = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.second.plain(self.first.plain(x)) + self.shortcut(smaller)


class Cell(CellEdges):
    """A cell, which is nothing but its edges; its last state is its output."""

    def plain(self, x: Tensor) -> Tensor:
        """The output `[B, C, H, W]`, in plain torch, of a cell that is decided."""
        return self.plain_states([x])[-1]


class NasBench201Body(nn.Module):
    """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`, by cells after one layout."""

    def __init__(
        self,
        layout: CellLayout,
        config: NasBench201Config,
        in_channels: int,
        num_classes: int,
        affine: bool,
        space: SearchSpace,
        operations: OperationTable,
    ) -> None:
        super().__init__()
        widths = [config.channels * 2**stage for stage in range(NUM_STAGES)]
        self.num_cells, self.name = config.num_cells, space.name
        self.stem = ConvNorm(in_channels, widths[0], 3, relu=False)
        cells = nn.ModuleList(
            Cell(
                layout,
                width,
                [1] * (layout.num_steps + 1),
                table=operations,
                candidates=space.operations,
                affine=affine,
            )
            for width in widths
            for _ in range(config.num_cells)
        )
        self.cells = cast("Sequence[Cell]", cells)  # nn.ModuleList hides what it holds
        reductions = (ResidualBlock(width, 2 * width) for width in widths[: NUM_STAGES - 1])
        self.reductions = cast("Sequence[ResidualBlock]", nn.ModuleList(reductions))
        self.norm = BatchNorm(widths[-1])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(
        self, images: Tensor, weights: Tensor | None = None, drop_path: float = 0.0
    ) -> Tensor:
        """The logits; `weights` `[E, O]` and `drop_path` are those of `CellEdges`."""
        check_sides(images, SMALLEST_SIDE, f"space {self.name}")
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        for number, cell in enumerate(self.cells):
            if number and number % self.num_cells == 0:
                x = self.reductions[number // self.num_cells - 1](x)
            x = cell([x], weights, drop_path)[-1]
        return classify(self.classifier, F.relu(self.norm(x)))

    def plain(self, images: Tensor) -> Tensor:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`, in plain torch."""
        x = self.stem.plain(images.contiguous(memory_format=torch.channels_last))
        for number, cell in enumerate(self.cells):
            if number and number % self.num_cells == 0:
                x = self.reductions[number // self.num_cells - 1].plain(x)
            x = cell.plain(x)
        return classify(self.classifier, F.relu(self.norm(x)))


class NasBench201Supernet(nn.Module):
    """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`.

    All cells share `alphas["normal"]` `[E, O]`, and each has weights of its own for every edge and
    operation.
    """

    def __init__(
        self,
        config: NasBench201Config,
        in_channels: int,
        num_classes: int,
        space: SearchSpace = NASBENCH201_SPACE,
        operations: OperationTable = NASBENCH201_TABLE,
    ) -> None:
        super().__init__()
        self.config, self.space = config, space
        topology = space.topology(config.num_steps)
        layout = searched_layout(space, topology)
        sizes = in_channels, num_classes
        self.body = NasBench201Body(layout, config, *sizes, False, space, operations)
        self.alphas = draw_alphas(space, topology)
        self._running = self._decisions = CellDecisions.none_yet(topology)

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided, by kind of cell."""
        return {KIND: self._decisions}

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas; after a decision, those that are left."""
        return weights_of(self)

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Free the operations that `decisions` gives up; those that stay keep their parameters.

        Takes any later state of the decisions, also one that is in force already, and is how a
        fresh supernet gets the shape of a checkpoint. What is gone cannot come back.
        """
        self._running = self._decisions = decisions[KIND]
        kept = kept_operations(self.space, self._decisions)
        for cell in self.body.cells:
            cell.restrict(kept)

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        """Run what complete `cells` keep and nothing else; None: all that is held."""
        self._running = self._decisions if cells is None else cells[KIND]
        kept = kept_operations(self.space, self._running)
        for cell in self.body.cells:
            cell.select(kept)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`.

        ConfigError where the images are too small for the reductions.
        """
        is_open = not self._running.complete
        return self.body(images, torch.softmax(self.alphas[KIND], dim=-1) if is_open else None)


class NasBench201Network(nn.Module):
    """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`, by the cells of a genotype.

    The number of steps is the genotype's; `config.num_steps` is not read. `drop_path` is the
    probability of dropping an edge for an image and may change between epochs. GenotypeError where
    the genotype is none of this space, or the output of its cell is not the last state.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: NasBench201Config,
        in_channels: int,
        num_classes: int,
        drop_path: float = 0.0,
        space: SearchSpace = NASBENCH201_SPACE,
        operations: OperationTable = NASBENCH201_TABLE,
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(space)
        self.config = config
        self.drop_path = drop_path
        layout = derived_layout(space, genotype.cells[KIND])
        if layout.concat != (layout.num_steps,):
            raise GenotypeError(
                f"{KIND} cell: concat is {list(layout.concat)}; a cell of space "
                f"{space.name!r} outputs its last state: give [{layout.num_steps}]"
            )
        sizes = in_channels, num_classes
        self.body = NasBench201Body(layout, config, *sizes, True, space, operations)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`.

        ConfigError where the images are too small for the reductions.
        """
        return (
            self.plain(images)
            if runs_plain(self, images)
            else self.body(images, drop_path=self.drop_path)
        )

    def plain(self, images: Tensor) -> Tensor:
        """The logits in plain torch."""
        return self.body.plain(images)
