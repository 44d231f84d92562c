"""Operation: what every candidate operation on an edge is. A new one is one file beside this one.

Dimensions: B images, C channels, H × W pixels, S the stride (1 or 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from sgas_cnn.fused.parts import Part


class Operation(nn.Module):
    """A candidate operation on one edge of C channels and a stride; it owns its parameters.

    `forward` is its definition, in plain torch, and all that an operation needs. One that says of
    which `parts` it is the sum is fused with all others on its state, and then gives the same.

    `affine` says whether its norms have weight and bias, as in a derived network; without, it is a
    candidate of a search. `skips` says that the operation hands its input on, which drop path
    leaves alone.
    """

    skips: ClassVar[bool] = False

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.channels, self.stride, self.affine = channels, stride, affine

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/S, W/S]` on a state `[B, C, H, W]`; odd sides are rounded up."""
        raise NotImplementedError

    def parts(self) -> Sequence[Part] | None:
        """What the operation is the sum of, by which it is fused; None: `forward` runs."""
        return None
