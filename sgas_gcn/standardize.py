"""What is done to features in front of a network: Standardize and RowNormalize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.datasets.moments import Moments
from sgas_gcn.features import with_values

TINY = 1e-12  # least sum that values are divided by, as in torch's normalize


class Standardize(nn.Module):
    """(x - mean) scale on features `[N, in_channels]`: before `take`, x itself.

    Mean and scale are kept with the weights, so that a network takes raw features anywhere.
    """

    mean: Tensor
    scale: Tensor
    of_data = True  # of the training set: weights that go to another leave them behind

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("scale", torch.ones(in_channels))

    def take(self, moments: Moments) -> None:
        """Takes mean and deviation of data; constants are centred alone."""
        self.mean.copy_(torch.from_numpy(moments.mean))
        self.scale.copy_(torch.from_numpy(moments.scale))

    def forward(self, x: Tensor) -> Tensor:
        """The features `[N, in_channels]`."""
        return (x - self.mean) * self.scale


class RowNormalize(nn.Module):
    """x_i / Σ |x_i| on features `[N, in_channels]`, sparse or not; rows of zeros stay."""

    def forward(self, x: Tensor) -> Tensor:
        """The features `[N, in_channels]`."""
        if not x.is_sparse:
            return self.plain(x)
        rows, values = x.indices()[0], x.values()
        sums = values.new_zeros(len(x)).index_add_(0, rows, values.abs())
        return with_values(x, values / sums[rows].clamp_min(TINY))

    def plain(self, x: Tensor) -> Tensor:
        """The features `[N, in_channels]`, in plain torch."""
        return F.normalize(x, p=1.0, dim=1)
