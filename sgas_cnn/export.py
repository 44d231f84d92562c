"""How networks of images are written as files of their own.

Dimensions: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas.exporting.forms import CellForm, NetworkForm
from sgas_cnn.cells import REDUCE
from sgas_cnn.ops.layers import ConvNorm, HalvingConvNorm
from sgas_cnn.preparation import ImagePreparation

NORMALIZED = [
    "def prepare(images: Tensor) -> Tensor:",
    '    """Images uint8 `[B, H, W, C]` as float32 `[B, C, H, W]`, normalised as in training."""',
    "    pixels = images.permute(0, 3, 1, 2).float()",
    "    mean = torch.tensor(MEAN, device=images.device).view(1, -1, 1, 1)",
    "    std = torch.tensor(STD, device=images.device).view(1, -1, 1, 1)",
    "    return (pixels - mean) / std",
]


def image_form(network: Any, preparation: ImagePreparation | None, example: Tensor) -> NetworkForm:
    """A network of DARTS's cells."""
    kinds = {cell.kind: cell for cell in network.cells}
    cells = [
        CellForm(
            f"{kind.title()}Cell",
            f"The {kind} cell, of the outputs of the two cells before"
            + (": it halves H and W." if kind == REDUCE else "."),
            ("s0", "s1"),
            "in_channels: tuple[int, int], channels: int, after_reduction: bool",
            [
                "first = HalvingConvNorm if after_reduction else ConvNorm",
                "self.pre0 = first(in_channels[0], channels)",
                "self.pre1 = ConvNorm(in_channels[1], channels)",
            ],
            (ConvNorm, HalvingConvNorm),
            ["s0, s1 = self.pre0(s0), self.pre1(s1)"],
            cell.edges.layout,
            cell.edges,
            f"`[B, {len(cell.concat)}·C, H, W]`",
        )
        for kind, cell in kinds.items()
    ]
    return _form(
        "A network for images", network, cells, _cell_of_two, network.config, preparation, example
    )


def _cell_of_two(cell: Any) -> str:
    return f"{cell.kind.title()}Cell({cell.in_channels}, {cell.channels}, {cell.after_reduction})"


def nasbench201_form(
    network: Any, preparation: ImagePreparation | None, example: Tensor
) -> NetworkForm:
    """A network of NAS-Bench-201's cells."""
    body = network.body
    cell = CellForm(
        "Cell",
        "A cell of the genotype.",
        ("x",),
        "channels: int",
        [],
        (),
        [],
        body.cells[0].layout,
        body.cells[0],
        "`[B, C, H, W]`",
        returns=("Tensor", "{}"),
    )
    title = "A network for images of the space of NAS-Bench-201"
    return _form(title, body, [cell], _cell_of_one, network.config, preparation, example, "body.")


def _cell_of_one(cell: Any) -> str:
    return f"Cell({cell.channels})"


def _form(
    title: str,
    root: Any,
    cells: list[CellForm],
    made: Any,
    settings: Any,
    preparation: ImagePreparation | None,
    example: Tensor,
    prefix: str = "",
) -> NetworkForm:
    usage, prepare, constants = "logits = network(images)  # [B, C, H, W] float32", [], []
    if preparation is not None:
        sides = f"{preparation.height}, {preparation.width}, {preparation.in_channels}"
        usage = f"logits = network(prepare(images))  # [B, {sides}] uint8"
        prepare = NORMALIZED
        constants = [f"MEAN = {preparation.mean}", f"STD = {preparation.std}"]

    def inputs(count: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(count, *example.shape[1:], generator=generator),)

    return NetworkForm(
        title,
        inputs,
        root,
        cells,
        made,
        settings,
        usage,
        prefix=prefix,
        prepare=prepare,
        constants=constants,
        dynamic=[{0: ("batch", 1)}],
    )
