"""Generated solids: reproducible, even by area, told apart by more than their proportions."""

from __future__ import annotations

import numpy as np
import pytest

from sgas_gcn.datasets import load_points
from sgas_gcn.datasets.shapes import PER_CLASS, SOLIDS
from sgas_gcn.datasets.surface import sample_surface, unit_sphere


def test_splits_have_all_classes_and_fit_the_unit_sphere() -> None:
    for split, count in PER_CLASS.items():
        arrays = load_points("shapes", split, "unused", 64, 0)
        assert arrays.inputs.shape == (count * len(SOLIDS), 64, 3)
        assert arrays.inputs.dtype == np.float32
        assert arrays.labels.dtype == np.int64
        assert np.bincount(arrays.labels).tolist() == [count] * len(SOLIDS)
        assert arrays.classes == tuple(SOLIDS)
        norms = np.linalg.norm(arrays.inputs, axis=-1).max(axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-5)
        np.testing.assert_allclose(arrays.inputs.mean(axis=1), 0, atol=1e-5)


def test_the_seed_alone_decides() -> None:
    first, again, other = (load_points("shapes", "test", "unused", 32, s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)


def test_train_and_test_share_no_cloud() -> None:
    train, test = (load_points("shapes", split, "unused", 32, 0) for split in PER_CLASS)
    assert not {cloud.tobytes() for cloud in train.inputs} & {c.tobytes() for c in test.inputs}


@pytest.mark.parametrize("kind", SOLIDS)
def test_solids_are_closed_surfaces(kind: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        vertices, faces = SOLIDS[kind](generator)
        corners = vertices[faces]
        area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        assert np.isfinite(vertices).all()
        edges: dict[frozenset[tuple[float, ...]], int] = {}
        for triangle in corners[area > 1e-9].round(6) + 0.0:
            for a, b in zip(triangle, np.roll(triangle, 1, axis=0), strict=True):
                edge = frozenset((tuple(a), tuple(b)))
                edges[edge] = edges.get(edge, 0) + 1
        open_edges = sum(count % 2 for count in edges.values())
        # The helix is a wire with two open ends of eight edges each.
        assert open_edges == (16 if kind == "helix" else 0)


def test_the_kinds_are_neither_trivial_nor_noise() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def moments(clouds: np.ndarray) -> np.ndarray:
        return np.einsum("npc,npd->ncd", clouds, clouds).reshape(len(clouds), 9)

    def distances(clouds: np.ndarray) -> np.ndarray:
        rows = [np.linalg.norm(c[:, None] - c[None], axis=-1).ravel() for c in clouds]
        return np.stack([np.histogram(row, 32, (0, 2))[0] for row in rows])

    train, test = (load_points("shapes", split, "unused", 96, 0) for split in PER_CLASS)
    scores = {}
    for features in (moments, distances):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features(train.inputs), train.labels)
        scores[features.__name__] = model.score(features(test.inputs), test.labels)
    assert 2 / len(SOLIDS) < scores["moments"] < 0.7
    assert 0.4 < scores["distances"] < 0.9


def test_sampling_is_even_by_area() -> None:
    # Two squares, the second three times as wide; the last triangle has no area.
    vertices = np.array(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [8, 1, 0], [5, 1, 0]],
        float,
    )
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [4, 5, 5]])
    points, normals = sample_surface(vertices, faces, 40_000, np.random.default_rng(0))
    assert abs((points[:, 0] > 2).mean() - 0.75) < 0.01
    wide = points[points[:, 0] > 2]
    counts = np.histogram2d(wide[:, 0], wide[:, 1], bins=(6, 2), range=((5, 8), (0, 1)))[0]
    assert np.abs(counts / counts.mean() - 1).max() < 0.08
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (40_000, 1)), atol=1e-12)


def test_a_surface_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 4, np.random.default_rng(0))


def test_unit_sphere_keeps_a_single_place_finite() -> None:
    np.testing.assert_array_equal(unit_sphere(np.ones((2, 5, 3))), 0)
