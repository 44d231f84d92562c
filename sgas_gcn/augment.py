"""Augmentation of whole batches of clouds on the device, drawn from one generator.

Dimensions: B clouds, P points of a stored cloud, N points used, C channels: xyz, then normals or
whatever else there is.
Source: scale 2/3 to 3/2 and shift ±0.2 as in the published training of DGCNN (Wang et al., ACM TOG
2019) and SGAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sgas_gcn.config import PointDataConfig
from sgas_gcn.drawing import points_of

UNIT = 0.02  # how far from 1 the squared length of a stored normal may be
UNIT_SHARE = 0.99  # of vectors, that have to be of that length


def have_normals(clouds: np.ndarray) -> bool:
    """Whether channels 3 to 5 of points `[B, P, C]` are normals: nearly all that are not 0 unit.

    Vectors of whole numbers, such as a class out of three, are none.
    """
    if clouds.shape[-1] < 6:
        return False
    vectors = units = parts = 0
    for cloud in clouds:
        normals = cloud[:, 3:6]
        squares = np.square(normals.astype(np.float32)).sum(-1)
        vectors += int((squares > 0).sum())
        units += int((np.abs(squares - 1) < UNIT).sum())
        parts += int((normals != np.rint(normals)).any(-1).sum())
    return parts > 0 and units >= UNIT_SHARE * vectors


@dataclass(frozen=True)
class CloudAugmentation:
    """Takes `[B, P, C]` to `[B, num_points, C]`: by chance in training, else as they are.

    Channels after xyz stay as they are, but for normals, which turn with a surface that is scaled.
    """

    config: PointDataConfig
    num_points: int
    normals: bool

    def prepare(self, clouds: Tensor) -> Tensor:
        """The first `num_points` points of each cloud."""
        return clouds[:, : self.num_points]

    def augment(self, clouds: Tensor, generator: torch.Generator) -> Tensor:
        """A random choice or the first points, then scaled, shifted and jittered."""
        return self.moved(points_of(clouds, self.taken(clouds, generator)), generator)

    def taken(self, clouds: Tensor, generator: torch.Generator | None) -> Tensor:
        """The numbers of the points that are taken, int64 `[B, num_points]`.

        The first, or with `resample` distinct ones in random order, if there is a generator.
        """
        (batch, stored), device = clouds.shape[:2], clouds.device
        if generator is None or not self.config.resample:
            return torch.arange(self.num_points, device=device).expand(batch, -1)
        lots = torch.rand(batch, stored, generator=generator, device=device)
        return lots.argsort(dim=1)[:, : self.num_points]

    def moved(self, clouds: Tensor, generator: torch.Generator) -> Tensor:
        """Clouds scaled, shifted and jittered."""
        config, batch, device = self.config, len(clouds), clouds.device

        def uniform(low: float, high: float) -> Tensor:
            draw = torch.rand(batch, 1, 3, generator=generator, device=device, dtype=clouds.dtype)
            return low + (high - low) * draw

        scale = uniform(1 / config.scale, config.scale)
        xyz = clouds[..., :3] * scale + uniform(-config.shift, config.shift)
        if config.jitter > 0:
            noise = torch.randn(xyz.shape, generator=generator, device=device, dtype=xyz.dtype)
            xyz = xyz + config.jitter * noise
        if not self.normals:
            return torch.cat([xyz, clouds[..., 3:]], -1)
        # A surface scaled by S has normals scaled by the inverse of S.
        normals = torch.nn.functional.normalize(clouds[..., 3:6] / scale, dim=-1)
        return torch.cat([xyz, normals, clouds[..., 6:]], -1)
