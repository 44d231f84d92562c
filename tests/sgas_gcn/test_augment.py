"""Clouds in training: coordinates and normals change together, other channels stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgas_gcn.augment import CloudAugmentation, have_normals
from sgas_gcn.config import PointDataConfig


def clouds(kind: str) -> np.ndarray:
    """`[4, 50, C]`: normals (one is missing, one too short), colours, a class, or one feature."""
    draw = np.random.default_rng(0)
    points = draw.normal(size=(4, 50, 3))
    if kind == "one feature":
        return np.concatenate([points, points[..., :1]], -1).astype(np.float32)
    more = draw.random((4, 50, 3))
    if kind == "one of three":
        more = np.eye(3)[draw.integers(0, 3, (4, 50))]
    if kind == "normals":
        more = points / np.linalg.norm(points, axis=-1, keepdims=True)
        more[0, 0] = 0
        more[1, 0] *= 0.9
    return np.concatenate([points, more, points[..., :1]], -1).astype(np.float32)


@pytest.mark.parametrize("kind", ["normals", "colours", "one of three", "one feature"])
def test_normals_alone_turn_with_the_cloud(kind: str) -> None:
    stored = clouds(kind)
    assert have_normals(stored) == (kind == "normals")
    subject = CloudAugmentation(PointDataConfig(shift=0.0), 50, have_normals(stored))
    x = torch.from_numpy(stored)
    found = subject.augment(x, torch.Generator().manual_seed(0))
    first = 6 if kind == "normals" else 3
    assert torch.equal(found[..., first:], x[..., first:])
    assert not torch.equal(found[..., :3], x[..., :3])
    if kind == "normals":
        # The normal of the scaled surface: orthogonal to what was tangent to it.
        scale = found[:, :1, :3] / x[:, :1, :3]
        tangent = torch.linalg.cross(x[..., 3:6], torch.ones_like(x[..., 3:6]))
        assert ((tangent * scale) * found[..., 3:6]).sum(-1).abs().max() < 1e-5
        lengths = found[..., 3:6].norm(dim=-1)
        assert lengths[0, 0] == 0
        torch.testing.assert_close(lengths.flatten()[1:], torch.ones(199))
