"""Nearest neighbours against sorted distances; dilation, duplicates, clouds that are too small."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from golden_arrays import read_arrays

from sgas.errors import ConfigError, DataError
from sgas_gcn.cells import build_stem, triangle_of
from sgas_gcn.config import PointModelConfig
from sgas_gcn.features import reduced_parts
from sgas_gcn.neighbors import CellNeighbors, Neighbors, knn, nearest


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("k", "dilation"), [(2, 1), (5, 1), (5, 3), (20, 1), (10, 2)])
def test_knn_takes_every_dilation_th_nearest_point(k: int, dilation: int) -> None:
    torch.manual_seed(k)
    x = torch.randn(3, 20, 4, dtype=torch.float64)
    distances = (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1)
    wanted = distances.argsort(dim=-1)[:, :, ::dilation][:, :, :k]
    found = knn(x, k, dilation)
    assert torch.equal(found.with_self.sources, Neighbors.from_local(wanted).with_self.sources)
    assert torch.equal(found.edges.sources, found.with_self.sources[:, 1:])
    assert (found.with_self.num_nodes, found.with_self.degree) == (60, k)


@pytest.mark.usefixtures("kernels")
def test_many_clouds_are_searched_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 16, 3)
    whole = nearest(x, 6)
    monkeypatch.setattr("sgas_gcn.kernels.indices.DISTANCES_AT_ONCE", 2 * 16**2)
    assert torch.equal(nearest(x, 6), whole)
    assert torch.equal(nearest(x[3:4], 6), whole[3:4])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_column_0_is_the_point_itself_among_duplicates(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3).to(dtype).repeat(1, 4, 1) * 1e4  # each point four times, far from 0
    index = nearest(x, 5)
    assert torch.equal(index[:, :, 0], torch.arange(24).expand(2, 24))
    assert all(len(set(row)) == 5 for row in index.flatten(0, 1).tolist())


@pytest.mark.usefixtures("kernels")
def test_points_that_are_all_equal_have_neighbors() -> None:
    index = nearest(torch.ones(1, 8, 3), 8)
    assert sorted(index[0, 5].tolist()) == list(range(8))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize(("points", "width"), [(300, 1), (300, 17), (300, 100), (9, 9), (1, 1)])
def test_the_nearest_come_in_order(points: int, width: int, channels: int) -> None:
    torch.manual_seed(points)
    x = torch.randn(2, points, channels, dtype=torch.float64)
    distances = (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1)
    assert torch.equal(nearest(x, width), distances.argsort(dim=-1)[:, :, :width])


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "width"), [(300, 17), (300, 150), (40, 40), (1000, 5)])
def test_of_equal_entries_the_compiled_search_takes_the_first(
    size: int, width: int, dtype: torch.dtype
) -> None:
    rows = torch.randint(30, (4, size), generator=torch.Generator().manual_seed(0)).to(dtype)
    wanted = rows.sort(dim=-1, stable=True).indices[:, :width]
    assert torch.equal(torch.ops.sgas_gcn.smallest(rows, width), wanted)


@pytest.mark.compiled
def test_entries_that_are_no_numbers_come_last() -> None:
    rows = torch.full((1, 200), float("nan"))
    rows[0, [150, 20]] = torch.tensor([1.0, 2.0])
    assert torch.ops.sgas_gcn.smallest(rows, 2).tolist() == [[150, 20]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_channels", [3, 6])
def test_the_stem_s_coordinates_have_the_distances_of_its_output(
    in_channels: int, training: bool
) -> None:
    torch.manual_seed(0)
    stem = build_stem(PointModelConfig(channels=8), in_channels).double().train(training)
    stem.norm.weight.data.normal_()
    stem.norm.running_var.uniform_(0.5, 2)
    points = torch.randn(50, in_channels, dtype=torch.float64) + 3
    coordinates = stem.coordinates(points)
    out = stem(points)
    torch.testing.assert_close(torch.pdist(coordinates), torch.pdist(out))


@pytest.mark.parametrize("dependent", [False, True])
def test_the_triangle_is_that_of_the_qr_decomposition(dependent: bool) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(24, 6, dtype=torch.float64)
    if dependent:
        matrix[:, 1], matrix[:, 3] = 2 * matrix[:, 0], 0
    triangle = triangle_of(matrix)
    torch.testing.assert_close(triangle.t() @ triangle, matrix.t() @ matrix)
    assert torch.count_nonzero(triangle.abs().sum(1)) == (4 if dependent else 6)
    if not dependent:
        exact = torch.linalg.qr(matrix, mode="r").R
        torch.testing.assert_close(triangle, exact * exact.diagonal().sign().unsqueeze(1))


@pytest.mark.parametrize("training", [True, False])
def test_the_stem_s_affine_map_is_its_output(training: bool) -> None:
    torch.manual_seed(0)
    stem = build_stem(PointModelConfig(channels=8), 3).double().train(training)
    stem.norm.weight.data.normal_()
    stem.norm.bias.data.normal_()
    stem.norm.running_mean.normal_()
    stem.norm.running_var.uniform_(0.5, 2)
    plain = copy.deepcopy(stem)
    points = torch.randn(50, 3, dtype=torch.float64) + 3
    readers = torch.randn(5, 24 + 7, dtype=torch.float64)
    other = torch.randn(50, 7, dtype=torch.float64)
    given = [stem.affine(points), other]
    matrices, weight = reduced_parts(given, readers)
    assert [matrix.shape[1] for matrix in matrices] == [4, 7]
    inputs = torch.cat(matrices, dim=1)
    ours, wanted = inputs @ weight.t(), torch.cat([plain(points), other], dim=1) @ readers.t()
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(wanted)
    found = torch.autograd.grad(ours, list(stem.parameters()), grad)
    expected = torch.autograd.grad(wanted, list(plain.parameters()), grad)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    for one, two in zip(stem.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_no_gradient_runs_through_the_search() -> None:
    x = torch.randn(1, 8, 3, requires_grad=True)
    assert not nearest(x, 3).requires_grad


def test_the_transposed_graph_lists_the_same_edges() -> None:
    graph = knn(torch.randn(2, 12, 3), 4).with_self
    targets, offsets, order = graph.transposed
    ends = [*offsets.tolist()[1:], graph.num_edges]
    edges = {
        (source, target)
        for source, (start, end) in enumerate(zip(offsets.tolist(), ends, strict=True))
        for target in targets[start:end].tolist()
    }
    rows = enumerate(graph.sources.tolist())
    assert edges == {(source, target) for target, row in rows for source in row}
    assert torch.equal(order // graph.degree, targets)


def test_cells_0_and_1_share_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = torch.randn(2, 32, 3)
    stem, other = clouds.flatten(0, 1), torch.randn(64, 5)
    features = (stem, stem, other)
    wanted = [knn(x.view(2, 32, -1), 4, cell + 1) for cell, x in enumerate(features)]
    widths = []

    def counted(x: torch.Tensor, width: int) -> torch.Tensor:
        widths.append(width)
        return nearest(x, width)

    monkeypatch.setattr("sgas_gcn.neighbors.nearest", counted)
    search = CellNeighbors(clouds.shape, 4, 3)
    for cell, x in enumerate(features):
        found = search.of_cell(cell, x)
        assert torch.equal(found.with_self.sources, wanted[cell].with_self.sources)
    assert widths == [7, 10]


def test_a_cloud_that_is_too_small_is_an_error_that_says_what_to_lower() -> None:
    with pytest.raises(ConfigError, match=r"9 · 2 = 18 nearest.*has 16; lower k to at most 8"):
        CellNeighbors((4, 16, 3), 9, 2)
    with pytest.raises(ConfigError, match=r"cell 1 looks at"):
        CellNeighbors((4, 16, 3), 9, 2)
    with pytest.raises(ConfigError, match=r"3 · 4 = 12"):
        knn(torch.randn(1, 10, 3), 3, 4)


def test_given_neighbors_have_to_be_one_for_each_cell() -> None:
    given = [torch.zeros(1, 4, 2, dtype=torch.int32)]
    with pytest.raises(DataError, match=r"neighbours of 1 cells given; the network has 2"):
        CellNeighbors((1, 4, 3), 2, 2, given)


def test_knn_finds_the_reference_neighbors(golden: Path) -> None:
    arrays = read_arrays(golden / "point_ops.npz")
    clouds = torch.from_numpy(arrays["pos"]).double().transpose(1, 2)
    wanted = torch.from_numpy(arrays["neighbors"])
    found = knn(clouds, int(arrays["k"]), int(arrays["dilation"]))
    assert torch.equal(found.with_self.sources, Neighbors.from_local(wanted).with_self.sources)


def test_under_autocast_distances_are_of_float32() -> None:
    """Far from the origin bfloat16 could not tell these points from each other."""
    points = 100 + torch.arange(12.0).view(1, 12, 1).expand(1, 12, 3) / 16
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(points, 3)
    assert torch.equal(found, nearest(points, 3))
    assert [set(row) for row in found[0, 1:-1].tolist()] == [
        {i - 1, i, i + 1} for i in range(1, 11)
    ]
