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

    def add(self, norm: nn.Module, mean: Tensor, var: Tensor, rows: slice | None = None) -> None:
        """The norm follows `mean` and the unbiased `var`, both `[C]`, or on channels `rows`."""
        buffers = norm._buffers  # a module's own look-up takes as long as the update
        for name, value in (("running_mean", mean), ("running_var", var)):
            buffer = buffers[name]
            assert buffer is not None
            self.running.append(buffer if rows is None else buffer[rows])
            self.found.append(value if rows is None else value[rows])

    def update(self) -> None:
        """running = 0.9 running + 0.1 found."""
        if self.running:
            torch._foreach_lerp_(self.running, self.found, MOMENTUM)


def unbiased(var: Tensor, pixels: int) -> Tensor:
    """The unbiased variance of `pixels` values from their biased one."""
    return var * (pixels / max(1, pixels - 1))
