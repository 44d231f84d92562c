"""ModelNet10 and ModelNet40: clouds drawn once from the CAD models and kept.

Source: Wu et al., 3D ShapeNets, CVPR 2015. PyTorch Geometric's `ModelNet` tells where the archive
is. We read the meshes from the archive one by one: `ModelNet` itself holds all of a split in
memory (about 16 GB for ModelNet40), leaves the archive unpacked, and cannot resume a download.

    DATA_ROOT/modelnet10/ModelNet10.zip   downloaded, or put there by hand
    DATA_ROOT/modelnet10/train-2048.npz   points float16 [N, 2048, 6]: coordinates and normal
    DATA_ROOT/modelnet10/test-2048.npz

Dimensions: N clouds, V vertices, F triangles.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from sgas.data import LabelledArrays, stream_seed
from sgas.errors import DataError, option
from sgas.files import write_atomically
from sgas.own.download import Sha256, checksum_of, download
from sgas.own.npz import read_array, read_headers
from sgas_gcn.datasets.surface import sample_surface, unit_sphere

STORED_POINTS = 2048
# Every run draws from the same clouds, as with the published lists of points.
SEED = 0

# Of the archives, as several projects publish them.
CHECKSUMS = {
    10: Sha256("9d8679435fc07d1d26f13009878db164a7aa8ea5e7ea3c8880e42794b7307d51"),
    40: Sha256("42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac"),
}

# fmt: off
CLASSES = {
    10: (
        "bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table",
        "toilet",
    ),
    40: (
        "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair",
        "cone", "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box",
        "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor", "night_stand", "person",
        "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
        "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
    ),
}
# fmt: on


def load_modelnet(num_classes: int, split: str, data_root: Path, num_points: int) -> LabelledArrays:
    """One split of ModelNet10 or 40: inputs float32 `[N, num_points, 3]`, labels int64 `[N]`.

    Clouds are even by area, centred on their mean and scaled to the unit sphere. The first call
    for a split downloads the archive where it is missing and draws the clouds, which takes
    minutes; later calls read them. DataError where `num_points` is more than is kept, where the
    download fails (it says which file to put where), and where archive or clouds are damaged.
    """
    if num_points > STORED_POINTS:
        raise DataError(
            f"num_points is {num_points}, but ModelNet clouds are kept with {STORED_POINTS} "
            f"points: give {option('num_points', STORED_POINTS)} or less"
        )
    folder = data_root / f"modelnet{num_classes}"
    stored = folder / f"{split}-{STORED_POINTS}.npz"
    if not stored.exists():
        _draw_clouds(num_classes, split, _archive(num_classes, folder), stored)
    points, labels = _read_clouds(stored)
    # Points are in the order in which they were drawn, so a prefix is as even as the whole.
    inputs = points[:, :num_points, :3].astype(np.float32)
    return LabelledArrays(inputs, labels.astype(np.int64), CLASSES[num_classes])


def _read_clouds(stored: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of a file that `_draw_clouds` wrote; DataError where it is another."""
    headers = read_headers(stored)
    points, label = headers.get("points"), headers.get("label")
    if (
        points is None
        or label is None
        or points.shape != (*label.shape, STORED_POINTS, 6)
        or points.problem()
        or label.problem()
    ):
        raise DataError(f"{stored} is not what was written there: delete it and run again")
    return read_array(stored, "points"), read_array(stored, "label")


def _archive(num_classes: int, folder: Path) -> Path:
    """The archive of meshes, downloaded where it is missing."""
    from torch_geometric.datasets import ModelNet

    path = folder / f"ModelNet{num_classes}.zip"
    return download(ModelNet.urls[str(num_classes)], path, CHECKSUMS[num_classes])


def _draw_clouds(num_classes: int, split: str, path: Path, stored: Path) -> None:
    """Draws a split's clouds from the archive `path` and writes them to `stored`, whole or not."""
    from rich.console import Console
    from rich.progress import track

    classes = CLASSES[num_classes]
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, split, classes)
            points = np.empty((len(members), STORED_POINTS, 6), np.float16)
            console = Console(stderr=True)
            for row, (member, _) in enumerate(
                track(members, f"{path.stem}: {split} clouds", console=console)
            ):
                # Reading a member to its end compares its checksum.
                points[row] = _cloud(archive.read(member), member)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged ({error}): delete it to download it again, or put a whole one there"
        ) from error
    labels = np.array([label for _, label in members], np.uint8)
    try:
        write_atomically(
            stored,
            lambda file: np.savez(
                file,
                points=points,
                label=labels,
                classes=np.array(classes),
                archive_checksum=np.array(str(checksum_of(path))),
            ),
        )
    except OSError as error:
        raise DataError(
            f"cannot write {stored} ({error}): make room there or give another "
            f"{option('data_root')}"
        ) from error


def _members(
    archive: zipfile.ZipFile, path: Path, split: str, classes: tuple[str, ...]
) -> list[tuple[str, int]]:
    """The meshes of a split by name, each with its label; DataError where a class has none."""
    root = f"ModelNet{len(classes)}"
    meshes = []
    for name in sorted(archive.namelist()):
        parts = PurePosixPath(name).parts
        # Archives made on a Mac have a second tree of the same names beside the first.
        if len(parts) != 4 or parts[::2] != (root, split) or not name.endswith(".off"):
            continue
        if parts[1] in classes:
            meshes.append((name, classes.index(parts[1])))
    missing = sorted(set(range(len(classes))) - {label for _, label in meshes})
    if missing:
        raise DataError(
            f"{path} has no {root}/{classes[missing[0]]}/{split}/*.off ({len(missing)} of "
            f"{len(classes)} classes are missing): delete it to download the published archive"
        )
    return meshes


def _cloud(text: bytes, member: str) -> np.ndarray:
    """Points and normals `[STORED_POINTS, 6]` of a mesh."""
    generator = np.random.default_rng(stream_seed(SEED, "modelnet", PurePosixPath(member).stem))
    try:
        vertices, faces = parse_off(text)
        points, normals = sample_surface(vertices, faces, STORED_POINTS, generator)
    except ValueError as error:
        raise DataError(
            f"{member} is not a mesh ({error}): delete the archive to download it again"
        ) from error
    return np.concatenate([unit_sphere(points), normals], axis=1)


def parse_off(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices float64 `[V, 3]` and triangles `[F, 3]` of an OFF file; polygons become fans.

    Many files of ModelNet have the counts on the line of the word OFF ("OFF12 34 0"). ValueError
    where the text is no OFF file or names vertices that it does not have.
    """
    body = text.lstrip()
    if not body.startswith(b"OFF"):
        raise ValueError("it does not begin with OFF")
    with warnings.catch_warnings():
        # Where a text holds something else than numbers, old NumPy warns and new NumPy raises.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            numbers = np.fromstring(body[3:].decode("ascii"), sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise ValueError("it holds something else than numbers") from error
    if len(numbers) < 3:
        raise ValueError("it has no counts of vertices and faces")
    if not np.isfinite(numbers).all():
        raise ValueError("it has numbers that are not finite")
    num_vertices, num_faces = int(numbers[0]), int(numbers[1])
    if num_vertices < 0 or num_faces < 0:
        raise ValueError("it claims less than no vertices or faces")
    vertices = numbers[3 : 3 + 3 * num_vertices]
    faces = _triangles(numbers[3 + 3 * num_vertices :].astype(np.int64), num_faces)
    if len(vertices) < 3 * num_vertices:
        raise ValueError("it ends before its last vertex")
    if len(faces) and not 0 <= faces.min() <= faces.max() < num_vertices:
        raise ValueError("a face has a vertex that does not exist")
    return vertices.reshape(-1, 3), faces


def _triangles(numbers: np.ndarray, num_faces: int) -> np.ndarray:
    """Triangles `[F, 3]` of faces written as count and corners, one after the other."""
    if len(numbers) == 4 * num_faces and (numbers[::4] == 3).all():
        return numbers.reshape(-1, 4)[:, 1:]
    triangles: list[tuple[int, int, int]] = []
    at, listed = 0, numbers.tolist()
    for _ in range(num_faces):
        if at >= len(listed) or at + listed[at] >= len(listed) or listed[at] < 0:
            raise ValueError("it ends before its last face")
        first, *others = listed[at + 1 : at + 1 + listed[at]] or [0]
        triangles += [(first, *pair) for pair in pairwise(others)]
        at += 1 + listed[at]
    return np.array(triangles, np.int64).reshape(-1, 3)
