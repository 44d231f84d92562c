"""`none`: zeros. In a mixture it only takes softmax mass from the others.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgas_cnn.fused.parts import Part
from sgas_cnn.ops.operation import Operation


class Zero(Operation):
    """0."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros `[B, C, H/S, W/S]`."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])

    def parts(self) -> Sequence[Part]:
        """None that add anything."""
        return ()
