"""The alphas of a supernet: drawn once, by kind of cell.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 3.
Dimensions: E edges of a cell, O candidate operations.
"""

from __future__ import annotations

import torch
from torch import nn

from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology

ALPHA_SCALE = 1e-3


def draw_alphas(space: SearchSpace, topology: CellTopology) -> nn.ParameterDict:
    """Alphas `[E, O]` for each kind of cell, from the global generator."""
    shape = topology.num_edges, len(space.operations)
    return nn.ParameterDict(
        {kind: nn.Parameter(ALPHA_SCALE * torch.randn(shape)) for kind in space.cell_kinds}
    )


def weights_of(supernet: nn.Module) -> list[nn.Parameter]:
    """All parameters of a supernet but its `alphas`; after a decision, those that are left."""
    named = supernet.named_parameters()
    return [value for name, value in named if not name.startswith("alphas.")]
