"""Every candidate operation: the table's contract, its fused form, the published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from node_operations import (
    assert_fused_form_is_the_definition,
    assert_golden,
    fused,
    gradients,
    one_by_one,
    randomised,
)
from torch import Tensor

from sgas_gcn.config import OPERATIONS
from sgas_gcn.neighbors import Neighbors, knn
from sgas_gcn.ops.point import POINT_OPERATIONS

SIZES = [  # channels, clouds, points, k, dilation
    (1, 2, 6, 2, 1),
    (3, 1, 8, 8, 1),
    (5, 3, 12, 4, 3),
    (32, 2, 20, 9, 2),
    (40, 2, 300, 5, 1),  # more columns and points than go through the compiled steps at a time
]
ALL = pytest.mark.parametrize("name", POINT_OPERATIONS)
AT_ALL_SIZES = pytest.mark.parametrize("size", SIZES, ids=str)


def random_state(size: tuple[int, int, int, int, int], seed: int = 0) -> tuple[Tensor, Neighbors]:
    channels, clouds, points, k, dilation = size
    torch.manual_seed(seed)
    x = torch.randn(clouds * points, channels, dtype=torch.float64, requires_grad=True)
    return x, knn(torch.randn(clouds, points, 3), k, dilation)


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(POINT_OPERATIONS) == OPERATIONS


@ALL
@AT_ALL_SIZES
def test_shape_and_finite_gradients(name: str, size: tuple[int, int, int, int, int]) -> None:
    x, neighbors = random_state(size)
    (op,) = randomised(POINT_OPERATIONS[name], size[0])
    out = op(x, neighbors)
    assert out.shape == (len(x), size[0]) and out.dtype == x.dtype
    assert torch.isfinite(out).all()
    for grad in gradients(out, [x, *op.parameters()]):
        assert torch.isfinite(grad).all()


@ALL
@AT_ALL_SIZES
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.usefixtures("backend")
def test_the_fused_form_is_the_definition(
    name: str, size: tuple[int, int, int, int, int], training: bool
) -> None:
    for seed in range(2):
        x, neighbors = random_state(size, seed)
        assert_fused_form_is_the_definition(POINT_OPERATIONS[name], x, neighbors, training)


@ALL
def test_reordering_the_points_of_a_cloud_reorders_the_output(name: str) -> None:
    torch.manual_seed(1)
    clouds, features = torch.randn(2, 16, 3), torch.randn(2, 16, 5, dtype=torch.float64)
    order = torch.stack([torch.randperm(16) for _ in range(2)]).unsqueeze(-1)
    (op,) = randomised(POINT_OPERATIONS[name], 5)
    out = op(features.flatten(0, 1), knn(clouds, 4)).view(2, 16, 5)
    moved = op(
        features.gather(1, order.expand(-1, -1, 5)).flatten(0, 1),
        knn(clouds.gather(1, order.expand(-1, -1, 3)), 4),
    )
    torch.testing.assert_close(moved.view(2, 16, 5), out.gather(1, order.expand(-1, -1, 5)))


@ALL
def test_evaluation_mode_uses_and_keeps_the_running_statistics(name: str) -> None:
    x, neighbors = random_state(SIZES[2])
    (op,) = randomised(POINT_OPERATIONS[name], 5)
    for _ in range(200):
        trained = op(x, neighbors)
    op.eval()
    before = [buffer.clone() for buffer in op.buffers()]
    out = op(x, neighbors)
    assert all(torch.equal(a, b) for a, b in zip(before, op.buffers(), strict=True))
    # The running variance is unbiased, so the two differ by a few percent of a deviation.
    torch.testing.assert_close(out, trained, rtol=0.1, atol=0.1)


@ALL
def test_duplicate_points_give_equal_outputs_and_finite_gradients(name: str) -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 4, dtype=torch.float64).repeat(4, 1).requires_grad_()
    neighbors = knn(torch.ones(1, 20, 3), 20)  # all points at one place: everyone's neighbour
    (op,) = randomised(POINT_OPERATIONS[name], 4)
    out = op(x, neighbors)
    torch.testing.assert_close(out.view(4, 5, 4), out.view(4, 5, 4)[:1].expand(4, -1, -1))
    (grad,) = gradients(out, [x])
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", [name for name in OPERATIONS[2:]])
@pytest.mark.parametrize("way", [fused, one_by_one])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(
    way: Callable[..., Tensor], name: str, golden: Path
) -> None:
    with np.load(golden / "point_ops.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    neighbors = Neighbors.from_local(arrays["neighbors"])
    (op,) = randomised(POINT_OPERATIONS[name], arrays["x"].shape[1])
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"{name}.w.{key}"])
    x = nodes(arrays["x"]).requires_grad_()

    out = way([op], x, neighbors)[:, 0]
    (out * nodes(arrays[f"{name}.g"])).sum().backward()

    assert_golden(out, nodes(arrays[f"{name}.out"]))
    assert_golden(x.grad, nodes(arrays[f"{name}.grad_x"]))
    for key, parameter in op.named_parameters():
        assert_golden(parameter.grad, arrays[f"{name}.grad_w.{key}"])
    for key, buffer in op.named_buffers():
        assert_golden(buffer, arrays[f"{name}.after.{key}"])
    op.eval()
    assert_golden(way([op], x, neighbors)[:, 0], nodes(arrays[f"{name}.out_eval"]))


def nodes(array: Tensor) -> Tensor:
    """Points of all clouds as rows: `[B, C, P]` to `[B·P, C]`, float64."""
    return array.double().transpose(1, 2).flatten(0, 1)
