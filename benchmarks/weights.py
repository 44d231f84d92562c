"""What the weights of the packages' networks are called in the plain ones, and how to copy them.

Both keep the published names where they can; PyG's operators have their own, and the plain
supernets keep the alphas edge by edge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

GRAPH_NAMES = (
    (r"\.(edge_conv|mr_conv|gin|conv_1x1)\.", r".\1.nn."),
    (r"sage\.(lin|norm)\.", r"sage.nn.\1."),
    (r"\.(gat|semi_gcn)\.proj\.", r".\1.conv.lin."),
    (r"^classifier\.lin\.", "classifier."),
)

CONSTANTS = ("num_batches_tracked", "gin.eps")  # buffers of torch and PyG that ours do without


def plain_names(name: str, space: str, rows: int) -> list[str]:
    """The names of the equal parts, along dimension 0, that a tensor of `rows` has in plain."""
    if name.startswith("alphas."):
        return [f"{name}.{edge}" for edge in range(rows)]
    if space == "graph":
        for pattern, replacement in GRAPH_NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("gat.att"):  # the scores of an edge's target, then of its source
            return [f"{name[:-3]}conv.att_dst", f"{name[:-3]}conv.att_src"]
    return [name]


def plain_values(ours: Mapping[str, Tensor], space: str) -> dict[str, Tensor]:
    """The tensors `ours` by their plain names; matrices have no trailing dimensions of one."""
    values: dict[str, Tensor] = {}
    for name, value in ours.items():
        parts = plain_names(name, space, len(value))
        values.update(zip(parts, value.chunk(len(parts)), strict=True))
    return values


@torch.no_grad()
def copy_weights(ours: Mapping[str, Tensor], plain: nn.Module, space: str) -> None:
    """Give a plain network the weights, alphas and statistics of `ours`; KeyError if one is off."""
    values = plain_values(ours, space)
    for name, tensor in plain.state_dict().items():
        if not name.endswith(CONSTANTS):
            tensor.copy_(values.pop(name).view_as(tensor))
    if values:
        raise KeyError(f"plain has no {', '.join(values)}")
