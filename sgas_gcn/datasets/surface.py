"""Points on the surface of triangle meshes.

Dimensions: V vertices, F triangles, P points.
"""

from __future__ import annotations

import numpy as np


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, num_points: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points `[P, 3]` drawn uniformly by area, and the unit normals `[P, 3]` of their triangles.

    `vertices` are `[V, 3]`, `faces` `[F, 3]` vertex numbers; a normal's side follows the order of
    the triangle's corners. ValueError where the surface has no area, or none that is finite.
    """
    corners = vertices[faces]  # [F, 3, 3]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    cross = np.cross(first, second)  # [F, 3]
    doubled = np.sqrt(np.einsum("fc,fc->f", cross, cross))
    cumulative = np.cumsum(doubled)
    total = cumulative[-1] if len(cumulative) else 0.0
    if not 0 < total < np.inf:
        raise ValueError(f"a surface of area {total / 2}")
    # Triangles of no area are never chosen: the next one owns their place in the sum.
    chosen = np.searchsorted(cumulative, generator.random(num_points) * total, side="right")
    chosen = np.minimum(chosen, np.searchsorted(cumulative, total))
    # The square root makes the density even; without it points crowd at the first corner.
    out = np.sqrt(generator.random((num_points, 1)))
    across = generator.random((num_points, 1))
    points = corners[chosen, 0] + out * ((1 - across) * first[chosen] + across * second[chosen])
    return points, cross[chosen] / doubled[chosen, None]


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Clouds `[..., P, 3]` centred on their mean, the farthest point at distance 1."""
    centred = points - points.mean(axis=-2, keepdims=True)
    radius = np.sqrt(np.einsum("...c,...c->...", centred, centred).max(axis=-1))
    scaled: np.ndarray = centred / np.maximum(radius, np.finfo(np.float32).tiny)[..., None, None]
    return scaled
