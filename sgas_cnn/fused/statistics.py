"""The running statistics of many norms at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MOMENTUM = 0.1


@dataclass
class Followers:
    """Norms that follow the moments of a batch; `update` moves all of them together."""

    running: list[Tensor] = field(default_factory=list)
    found: list[Tensor] = field(default_factory=list)

    def add(self, norm: nn.Module, mean: Tensor, var: Tensor, rows: slice = slice(None)) -> None:
        """The norm's channels `rows` follow `mean` and the unbiased `var`."""
        for buffer, value in ((norm.running_mean, mean), (norm.running_var, var)):
            assert isinstance(buffer, Tensor)
            self.running.append(buffer[rows])
            self.found.append(value[rows])

    def update(self) -> None:
        """running = 0.9 running + 0.1 found."""
        if self.running:
            torch._foreach_lerp_(self.running, self.found, MOMENTUM)


def unbiased(var: Tensor, pixels: int) -> Tensor:
    """The unbiased variance of `pixels` values from their biased one."""
    return var * (pixels / max(1, pixels - 1))
