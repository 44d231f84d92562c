"""Generated solids of twelve kinds: data that needs no download and is not solved at a glance.

Each cloud is a solid of its kind with proportions of its own, stretched along its axes, sampled by
area, turned about the vertical and tilted, seen unevenly (one side denser, another cut off) and
jittered.

Dimensions: N clouds, P points, V vertices, F triangles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from sgas.data import LabelledArrays, stream_seed
from sgas_gcn.datasets.surface import sample_surface, unit_sphere

PER_CLASS = {"train": 100, "test": 40}
TILT = np.pi / 6  # radians
STRETCH = 0.3  # each axis by e^-STRETCH .. e^STRETCH
JITTER = 0.01  # standard deviation of each coordinate, in radii of the cloud
CUT = 0.15  # up to this part of a cloud is missing, at one side
DENSITY = 2.0  # one half is up to this many times as dense as the other
SPARE = 2  # candidates drawn for each point that is kept

Mesh = tuple[np.ndarray, np.ndarray]  # vertices [V, 3], faces [F, 3]


def load_shapes(split: str, num_points: int, seed: int) -> LabelledArrays:
    """One split: inputs float32 `[N, num_points, 3]` in the unit sphere, labels int64 `[N]`.

    The clouds depend on the arguments alone. The two splits come from different streams of random
    numbers, and classes follow one another in the order of `SOLIDS`.
    """
    count = PER_CLASS[split]
    clouds = [
        _clouds(kind, count, num_points, stream_seed(seed, "shapes", split, kind))
        for kind in SOLIDS
    ]
    labels = np.repeat(np.arange(len(SOLIDS)), count)
    return LabelledArrays(np.concatenate(clouds), labels, tuple(SOLIDS))


def _clouds(kind: str, count: int, num_points: int, seed: int) -> np.ndarray:
    """Clouds `[count, num_points, 3]` of one kind."""
    generator = np.random.default_rng(seed)
    surfaces = np.empty((count, SPARE * num_points, 3), np.float32)
    for surface in surfaces:
        vertices, faces = SOLIDS[kind](generator)
        stretched = vertices * np.exp(generator.uniform(-STRETCH, STRETCH, 3))
        surface[:] = sample_surface(stretched, faces, len(surface), generator)[0]
    turned = unit_sphere(surfaces) @ _rotations(count, generator)
    kept = _uneven(turned, num_points, generator)
    return unit_sphere(kept + JITTER * generator.standard_normal(kept.shape, np.float32))


def _rotations(count: int, generator: np.random.Generator) -> np.ndarray:
    """Rotations `[count, 3, 3]`: any turn about the vertical axis, then a tilt of up to `TILT`."""
    turn, lean = generator.uniform(0, np.pi, count), generator.uniform(0, TILT / 2, count)
    aside = generator.uniform(0, 2 * np.pi, count)
    # The unit quaternion of both; its angles are halves of those of the rotations.
    w, z = np.cos(lean) * np.cos(turn), np.cos(lean) * np.sin(turn)
    x, y = np.sin(lean) * np.cos(aside), np.sin(lean) * np.sin(aside)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows, np.float32), -1, 0)


def _uneven(candidates: np.ndarray, num_points: int, generator: np.random.Generator) -> np.ndarray:
    """`num_points` of each cloud's candidates, one side cut off and one half denser.

    The axis of both is the first coordinate: a random direction aside, since clouds are turned.
    """
    count, spare = candidates.shape[:2]
    height = candidates[..., 0]  # [N, SPARE * P]
    cut = (generator.uniform(0, CUT, (count, 1)) * spare).astype(int)
    lowest = np.take_along_axis(np.sort(height, axis=1), cut, axis=1)
    weight = DENSITY ** generator.uniform(-1, 1, (count, 1)).astype(np.float32)
    # Of independent exponential draws, the smallest are a choice in proportion to their rates.
    order = generator.standard_exponential(height.shape, np.float32)
    order /= np.where(height > 0, weight, np.float32(1))
    order[height < lowest] = np.inf
    chosen = np.argpartition(order, num_points - 1, axis=1)[:, :num_points]
    return np.take_along_axis(candidates, chosen[..., None], axis=1)


def grid(points: np.ndarray) -> Mesh:
    """A sheet through `points` `[rows, columns, 3]`, two triangles to a cell."""
    rows, columns = points.shape[:2]
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return points.reshape(-1, 3), faces.reshape(-1, 3)


def revolve(profile: np.ndarray, num_sides: int = 40) -> Mesh:
    """The surface that `profile` `[rows, 2]`, of (radius, height), sweeps around the axis."""
    angle = np.linspace(0, 2 * np.pi, num_sides + 1)
    radius, height = profile[:, :1], profile[:, 1:]
    around = [radius * np.cos(angle), radius * np.sin(angle), height + 0 * angle]
    return grid(np.stack(around, axis=-1))


@cache
def _block_faces(filled: tuple[str, ...]) -> Mesh:
    """The outer squares of a drawing in unit cells, one layer thick, as grid corners and faces."""
    cells = {(x, y) for y, row in enumerate(filled) for x, mark in enumerate(row) if mark == "#"}
    corners: list[tuple[int, int, int]] = []
    for x, y in sorted(cells):
        for z in (0, 1):
            corners += [(x, y, z), (x + 1, y, z), (x + 1, y + 1, z), (x, y + 1, z)]
        for side, (dx, dy) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            if (x + dx, y + dy) in cells:
                continue
            at, across = side % 2, side < 2
            ends = [(x + at, y), (x + at, y + 1)] if across else [(x, y + at), (x + 1, y + at)]
            (x0, y0), (x1, y1) = ends
            corners += [(x0, y0, 0), (x1, y1, 0), (x1, y1, 1), (x0, y0, 1)]
    first = np.arange(0, len(corners), 4)[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    return np.array(corners), faces


def blocks(generator: np.random.Generator, *filled: str, depth: float) -> Mesh:
    """A plate of the cells marked `#`, with rows and columns of random widths around 1."""
    corners, faces = _block_faces(filled)
    columns, rows = (
        np.concatenate([[0], np.cumsum(generator.uniform(0.7, 1.4, count))])
        for count in (len(filled[0]), len(filled))
    )
    x, y, z = corners.T
    return np.stack([columns[x], rows[y], depth * z], axis=-1), faces


def _arc(
    radius: float, start: float, stop: float, num_steps: int, centre: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """Points `[num_steps + 1, 2]` of a circle, from one angle to the other."""
    angle = np.linspace(start, stop, num_steps + 1)
    return np.array(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def ellipsoid(generator: np.random.Generator) -> Mesh:
    """A ball, which stretching makes an ellipsoid."""
    return revolve(_arc(1, -np.pi / 2, np.pi / 2, 20))


def cylinder(generator: np.random.Generator) -> Mesh:
    """A closed cylinder, from flat to long."""
    half = generator.uniform(0.6, 1.4)
    return revolve(np.array([[0, -half], [1, -half], [1, half], [0, half]]))


def cone(generator: np.random.Generator) -> Mesh:
    """A closed cone, whose tip may be cut off a little."""
    tip, height = generator.uniform(0, 0.15), generator.uniform(1.4, 2.4)
    return revolve(np.array([[0, 0], [1, 0], [tip, height], [0, height]]))


def capsule(generator: np.random.Generator) -> Mesh:
    """A cylinder with round ends."""
    half = generator.uniform(0.5, 1.2)
    lower = _arc(1, -np.pi / 2, 0, 10, (0, -half))
    upper = _arc(1, 0, np.pi / 2, 10, (0, half))
    return revolve(np.concatenate([lower, upper]))


def torus(generator: np.random.Generator) -> Mesh:
    """A ring, from thin to nearly closed in the middle."""
    return revolve(_arc(generator.uniform(0.25, 0.7), 0, 2 * np.pi, 20, (1, 0)))


def pyramid(generator: np.random.Generator) -> Mesh:
    """A pyramid on a square."""
    return revolve(np.array([[0, 0], [1, 0], [0, generator.uniform(1.0, 2.0)]]), num_sides=4)


def octahedron(generator: np.random.Generator) -> Mesh:
    """Two pyramids, base to base."""
    half = generator.uniform(0.8, 1.5)
    return revolve(np.array([[0, -half], [1, 0], [0, half]]), num_sides=4)


def helix(generator: np.random.Generator) -> Mesh:
    """A wire wound around an axis."""
    turns, rise = generator.uniform(1.5, 3.0), generator.uniform(0.5, 0.9)
    angle = np.linspace(0, 2 * np.pi * turns, round(20 * turns))[:, None]
    wire = _arc(generator.uniform(0.12, 0.2), 0, 2 * np.pi, 8)
    reach = 1 + wire[:, 0]
    height = rise * angle / (2 * np.pi) + wire[:, 1]
    return grid(np.stack([reach * np.cos(angle), reach * np.sin(angle), height], axis=-1))


def box(generator: np.random.Generator) -> Mesh:
    """A box of three different sides."""
    return blocks(generator, "#", depth=generator.uniform(0.5, 1.4))


def bracket(generator: np.random.Generator) -> Mesh:
    """An L with thick arms."""
    return blocks(generator, "#.", "##", depth=generator.uniform(0.6, 1.6))


def cross(generator: np.random.Generator) -> Mesh:
    """A plus sign with thick arms."""
    return blocks(generator, ".#.", "###", ".#.", depth=generator.uniform(0.6, 1.6))


def stairs(generator: np.random.Generator) -> Mesh:
    """Three steps."""
    return blocks(generator, "#..", "##.", "###", depth=generator.uniform(0.9, 2.2))


SOLIDS: dict[str, Callable[[np.random.Generator], Mesh]] = {
    solid.__name__: solid
    for solid in (
        ellipsoid,
        box,
        cylinder,
        cone,
        capsule,
        torus,
        pyramid,
        octahedron,
        helix,
        cross,
        bracket,
        stairs,
    )
}
