"""Clouds of one's own in files: a folder with a folder of files for each class.

Points lie in .npy `[P, 3 or more]`, .xyz, .txt, .pts and .pcd, meshes in .off, .obj, .stl and .ply
(a .ply without faces is a cloud). Of a mesh, 2,048 points are drawn evenly by area, with the
normals of its triangles; the draw follows from the file's name. Clouds of other sizes than wanted
give a choice of their points, or some of theirs twice. Where some have more channels than others,
the coordinates are taken alone.

Dimensions: N clouds, P points of a cloud, C channels, V vertices, F triangles.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sgas.data import LabelledArrays, stream_seed
from sgas.errors import DataError
from sgas.own.class_folders import FileKind, describe_files, load_files
from sgas.own.npz import available_memory, in_words
from sgas_gcn.datasets.folder import near_origin
from sgas_gcn.datasets.modelnet import parse_off
from sgas_gcn.datasets.surface import sample_surface

MESH_POINTS = 2048
MOST_POINTS = 2**24  # of one file: more is a header that lies
Mesh = tuple[np.ndarray, np.ndarray]


def load_clouds(folder: Path, split: str, num_points: int | None, seed: int) -> LabelledArrays:
    """One split: inputs float32 `[N, num_points, C]` (None: as many as the smallest cloud has).

    Which points are taken is as for clouds in `.npz` files (`sgas_gcn.drawing`). DataError for the
    first file that cannot be read, and where the clouds do not fit into memory.
    """
    files = load_files(folder, split, CLOUD_FILES)
    clouds = [read_cloud(files.folder / files.name(number)) for number in range(len(files))]
    sizes, widths = [len(cloud) for cloud in clouds], {cloud.shape[1] for cloud in clouds}
    count, channels = num_points or min(sizes), min(widths) if len(widths) == 1 else 3
    wanted, free = 4 * len(clouds) * count * channels, available_memory()
    if wanted > free:
        raise DataError(
            f"{folder}: {len(clouds)} clouds of {count} points take {in_words(wanted)}, "
            f"{in_words(free)} of memory are free: lower num_points or use fewer clouds"
        )
    inputs, far = np.empty((len(clouds), count, channels), np.float32), 0
    for number, cloud in enumerate(clouds):
        near, distance = near_origin(cloud[None, :, :channels])
        far += int(distance[0] > 0)
        if not np.isfinite(near).all():
            path = files.folder / files.name(number)
            raise DataError(f"{path} has NaN or infinite points: correct or remove it")
        inputs[number] = _drawn(near, count, seed)
    told = [f"{far} clouds far from the origin are centred"] if far else []
    if len(set(sizes)) > 1:
        told.append(f"clouds of {min(sizes)} to {max(sizes)} points: {count} of each")
    if len(widths) > 1:
        told.append("coordinates alone are used, since not all clouds have more")
    return LabelledArrays(inputs, files.labels, files.classes, (*files.remarks, *told))


def _drawn(cloud: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` points of a cloud float32 `[1, P, C]`; of a smaller one all, and then some again."""
    import torch

    from sgas_gcn.drawing import chosen_points

    if cloud.shape[1] < count:
        return np.resize(cloud[0], (count, cloud.shape[2]))
    if cloud.shape[1] == count:
        whole: np.ndarray = cloud[0]
        return whole
    chosen: np.ndarray = chosen_points(torch.from_numpy(cloud), count, seed)[0].numpy()
    return chosen


def describe_clouds(folder: str | Path) -> dict[str, Any]:
    """A folder of class folders as JSON values (`sgas.own.class_folders.describe_files`)."""
    path = Path(folder)
    return describe_files(path, CLOUD_FILES, lambda split: load_clouds(path, split, None, 0), {})


def read_cloud(path: Path) -> np.ndarray:
    """The points `[P, 3 or more]` in a file, or drawn on its mesh; DataError if it is none."""
    try:
        found = READERS[path.suffix.lower()](path.read_bytes())
        if isinstance(found, tuple):
            vertices, faces = found
            if not len(faces):
                found = vertices
            else:
                generator = np.random.default_rng(stream_seed(0, "mesh", PurePath(path).stem))
                found = np.concatenate(
                    sample_surface(vertices, faces, MESH_POINTS, generator), axis=1
                )
    except (OSError, ValueError, IndexError, KeyError, OverflowError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is no cloud and no mesh ({reason}): write it again") from None
    if found.ndim != 2 or found.shape[1] < 3 or not len(found) or found.dtype.kind not in "fiu":
        raise DataError(
            f"{path} has shape {list(found.shape)} of {found.dtype}; wanted is [points, 3 or more]"
        )
    return found


def _npy(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _table(data: bytes) -> np.ndarray:
    """Numbers with spaces or commas between; a first line that is none is a heading or a count."""
    lines = data.decode("ascii").replace(",", " ").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith(("#", "//"))]
    if len(rows) > 1 and (len(rows[0]) != len(rows[1]) or not _is_number(rows[0][0])):
        rows = rows[1:]
    return np.array(rows, np.float64)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _obj(data: bytes) -> Mesh:
    """Wavefront's: v and f lines; corners count from 1, or from the end where negative."""
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            numbers = [int(word.partition("/")[0]) for word in words[1:]]
            corners = [n - 1 if n > 0 else len(vertices) + n for n in numbers]
            faces += _fan(corners)
    return _checked(np.array(vertices, np.float64).reshape(-1, 3), np.array(faces, np.int64))


def _stl(data: bytes) -> Mesh:
    """Binary, or text that begins with `solid`."""
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count:
        kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        corners = np.frombuffer(data, kind, offset=84)["corners"]
    else:
        words = data.decode("ascii").split()
        values = [words[n + 1 : n + 4] for n, word in enumerate(words) if word == "vertex"]
        corners = np.array(values, np.float64).reshape(-1, 3, 3)
    vertices = corners.reshape(-1, 3).astype(np.float64)
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}


def _ply(data: bytes) -> np.ndarray | Mesh:
    """Stanford's, text or binary: vertices with x, y, z (and normals), and faces as lists."""
    head, _, body = data.partition(b"end_header")
    body = body.partition(b"\n")[2]
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    form = next(line[1] for line in lines if line[:1] == ["format"])
    elements: dict[str, tuple[int, list[list[str]]]] = {}
    for line in lines:
        if line[:1] == ["element"]:
            elements[line[1]] = (int(line[2]), [])
        elif line[:1] == ["property"]:
            elements[list(elements)[-1]][1].append(line[1:])
    order = ">" if "big" in form else "<"
    take = _of_text(body) if form == "ascii" else _of_bytes(body, order)
    vertices, faces = np.empty((0, 3)), []
    for name, (count, properties) in elements.items():
        if not 0 <= count <= MOST_POINTS:
            raise ValueError(f"it claims {count} of {name}")
        if name == "vertex":
            rows = take(count, [kind for kind, *_ in properties])
            columns = [name for _, name in properties]
            used = ["x", "y", "z", *(n for n in ("nx", "ny", "nz") if "nz" in columns)]
            vertices = rows[:, [columns.index(name) for name in used]]
        elif name == "face" and len(properties) == 1:
            for _ in range(count):
                size = int(take(1, [properties[0][1]])[0, 0])
                faces += _fan(take(1, [properties[0][2]] * size)[0].astype(int).tolist())
        else:
            break  # what follows the faces is not needed
    if not faces:
        return vertices
    return _checked(vertices[:, :3], np.array(faces, np.int64))


Take = Callable[[int, list[str]], np.ndarray]


def _of_text(body: bytes) -> Take:
    """What takes rows of numbers from text, one after the other."""
    numbers, at = np.array(body.split(), np.float64), 0

    def take(count: int, kinds: list[str]) -> np.ndarray:
        nonlocal at
        rows = numbers[at : at + count * len(kinds)].reshape(count, len(kinds))
        at += rows.size
        return rows

    return take


def _of_bytes(body: bytes, order: str) -> Take:
    """What takes rows of numbers of PLY's types from bytes, one after the other."""
    at = 0

    def take(count: int, kinds: list[str]) -> np.ndarray:
        nonlocal at
        row = np.dtype([(str(n), order + PLY_TYPES[kind]) for n, kind in enumerate(kinds)])
        rows = np.frombuffer(body, row, count, at)
        at += rows.nbytes
        columns = [rows[name].astype(np.float64) for name in row.names or ()]
        return np.stack(columns, axis=1) if columns else np.empty((count, 0))

    return take


def _pcd(data: bytes) -> np.ndarray:
    """The Point Cloud Library's, text or binary: x, y, z and normals where there are some."""
    head: dict[str, list[str]] = {}
    body = data
    while "DATA" not in head:
        line, found, body = body.partition(b"\n")
        if not found:
            raise ValueError("it has no line DATA")
        words = line.decode("ascii").split()
        head |= {words[0].upper(): words[1:]} if words and not words[0].startswith("#") else {}
    fields, count = head["FIELDS"], int(head["POINTS"][0])
    if not 0 < count <= MOST_POINTS or head.get("COUNT", ["1"]).count("1") < len(
        head.get("COUNT", ["1"])
    ):
        raise ValueError(f"it claims {count} points, or fields of several numbers")
    if head["DATA"][0] == "ascii":
        rows = np.array(body.split(), np.float64).reshape(count, len(fields))
    elif head["DATA"][0] == "binary":
        kinds = {"F": "f", "I": "i", "U": "u"}
        types = zip(head["TYPE"], head["SIZE"], strict=True)
        row = np.dtype([(f"{n}", f"<{kinds[t]}{size}") for n, (t, size) in enumerate(types)])
        table = np.frombuffer(body, row, count)
        rows = np.stack([table[name].astype(np.float64) for name in row.names or ()], axis=1)
    else:
        raise ValueError(f"its points are {head['DATA'][0]}; write ascii or binary")
    normals = [f"normal_{axis}" for axis in "xyz"]
    used = ["x", "y", "z", *(normals if set(normals) <= set(fields) else [])]
    return rows[:, [fields.index(name) for name in used]]


def _fan(corners: list[int]) -> list[tuple[int, int, int]]:
    """A polygon in triangles that share its first corner."""
    return [(corners[0], b, c) for b, c in pairwise(corners[1:])]


def _checked(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError("a face has a vertex that does not exist")
    return vertices, faces


READERS: dict[str, Callable[[bytes], np.ndarray | Mesh]] = {
    ".npy": _npy,
    **dict.fromkeys((".xyz", ".txt", ".pts"), _table),
    ".pcd": _pcd,
    ".off": parse_off,
    ".obj": _obj,
    ".stl": _stl,
    ".ply": _ply,
}
CLOUD_FILES = FileKind(tuple(READERS), "cloud", "clouds")
