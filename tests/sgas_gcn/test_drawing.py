"""The points that are taken of a cloud."""

from __future__ import annotations

import torch

from sgas_gcn.drawing import chosen_points


def test_the_points_taken_of_a_cloud_follow_from_its_points_alone() -> None:
    many = torch.randn(24, 32, 3)
    taken = chosen_points(many, 24, 5)
    assert torch.equal(chosen_points(many[3:4], 24, 5)[0], taken[3])
    order = torch.randperm(32)
    moved = chosen_points(many[:, order], 24, 5)
    assert torch.equal(moved.sort(1).values, taken.sort(1).values)
    other = chosen_points(many, 24, 6)
    assert not torch.equal(other, taken)
    draws = [chosen_points(many, 24, seed)[..., 0] for seed in range(200)]
    shares = torch.stack([torch.isin(many[..., 0], draw).float() for draw in draws]).mean(0)
    assert shares.min() > 0.6 and shares.max() < 0.9  # each point by a chance of 3/4
