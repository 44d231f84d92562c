"""Clouds and meshes in files: every format gives the same points, folders of classes are read."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sgas.config import RunConfig
from sgas.errors import ConfigError, DataError
from sgas_gcn.config import PointDataConfig
from sgas_gcn.datasets import load_points
from sgas_gcn.datasets.cloud_files import MESH_POINTS, read_cloud
from sgas_gcn.family import FAMILY
from sgas_gcn.preparation import CHOSEN, CloudPreparation

POINTS = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
CORNERS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], np.float32)  # one square of 2 x 1
HEAD = (
    "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
)
FACE = "element face 1\nproperty list uchar int vertex_indices\n"
PCD = "# .PCD\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 40\nDATA {}\n"


def lines(rows: np.ndarray, between: str = " ", before: str = "") -> str:
    return "".join(before + between.join(f"{v:.9g}" for v in row) + "\n" for row in rows)


def stl() -> bytes:
    corners = CORNERS[[[0, 1, 2], [0, 2, 3]]]
    parts = [struct.pack("<12fH", 0, 0, 1, *triangle.ravel(), 0) for triangle in corners]
    return b"binary".ljust(80) + struct.pack("<I", 2) + b"".join(parts)


def stl_text() -> str:
    corners = CORNERS[[[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    return "solid square\n" + lines(corners, before="vertex ") + "endsolid square\n"


CLOUDS = {
    "a.xyz": lines(POINTS),
    "b.txt": "x,y,z\n" + lines(POINTS, ","),
    "c.pts": "40\n" + lines(POINTS),
    "d.pcd": PCD.format("ascii") + lines(POINTS),
    "e.pcd": PCD.format("binary").encode() + POINTS.tobytes(),
    "f.ply": HEAD.format("ascii", 40) + "end_header\n" + lines(POINTS),
    "g.ply": (HEAD.format("binary_little_endian", 40) + "end_header\n").encode() + POINTS.tobytes(),
    "h.PLY": (HEAD.format("binary_big_endian", 40) + "end_header\n").encode()
    + POINTS.astype(">f4").tobytes(),
}
MESHES = {
    "a.off": "OFF\n4 1 0\n" + lines(CORNERS) + "4 0 1 2 3\n",
    "b.obj": lines(CORNERS, before="v ") + "vn 0 0 1\nf 1/1/1 2//1 3 -1\n",
    "c.stl": stl(),
    "d.stl": stl_text(),
    "e.ply": HEAD.format("ascii", 4) + FACE + "end_header\n" + lines(CORNERS) + "4 0 1 2 3\n",
    "f.ply": (HEAD.format("binary_little_endian", 4) + FACE + "end_header\n").encode()
    + CORNERS.tobytes()
    + struct.pack("<B4i", 4, 0, 1, 2, 3),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", CLOUDS)
def test_points_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    np.testing.assert_allclose(read_cloud(write(tmp_path / name, CLOUDS[name])), POINTS, rtol=1e-6)


@pytest.mark.parametrize("name", MESHES)
def test_meshes_give_points_by_area_with_normals(tmp_path: Path, name: str) -> None:
    cloud = read_cloud(write(tmp_path / name, MESHES[name]))
    assert cloud.shape == (MESH_POINTS, 6)
    assert (np.abs(cloud[:, 3:]) == [0, 0, 1]).all() and (cloud[:, 2] == 0).all()
    assert (cloud[:, :2] >= 0).all() and (cloud[:, :2] <= [2, 1]).all()
    np.testing.assert_allclose(cloud[:, :2].mean(0), [1, 0.5], atol=0.05)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.off", "OFF\n4 1 0\n0 0"),
        ("b.obj", "v 0 0 0\nf 1 2 3\n"),
        ("c.stl", b"binary".ljust(80) + struct.pack("<I", 9)),
        ("d.ply", "ply\nformat ascii 1.0\nelement vertex 999999999999\nend_header\n"),
        ("e.xyz", "1 2\n3 4\n"),
        ("f.pcd", "FIELDS x y z\nPOINTS 3\nDATA binary_compressed\n"),
        ("g.npy", "no array"),
        ("h.txt", "some words\nand more\n"),
    ],
)
def test_what_is_no_cloud_is_told_in_one_line(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=name) as raised:
        read_cloud(write(tmp_path / name, content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_class_folders_of_clouds_of_any_size_are_a_data_set(tmp_path: Path, layout: str) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("ball", "rod"):
            folder = tmp_path / layout.format(split=split, kind=kind)
            folder.mkdir(parents=True)
            for number in range(count):
                points = draw.standard_normal((20 + 5 * number, 3))
                np.save(folder / f"{number}.npy", points)
            write(folder / "read.me", "")
    train = load_points(str(tmp_path), "train", "unused", 22, 0)
    assert train.inputs.shape == (6, 22, 3) and train.classes == ("ball", "rod")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.remarks == ("skipped: 2 files .me", "clouds of 20 to 30 points: 22 of each")
    assert len(np.unique(train.inputs[0], axis=0)) == 20
    assert len(np.unique(train.inputs[2], axis=0)) == 22
    assert len(load_points(str(tmp_path), "test", "unused", 22, 0)) == 4
    assert load_points(str(tmp_path), "train", "unused", None, 0).inputs.shape[1] == 20
    described = FAMILY.check_folder(str(tmp_path), "auto")
    assert described["clouds"] == {"train": 6, "test": 4} and not described["problems"]
    with pytest.raises(ConfigError, match="has a test part"):
        load_points(str(tmp_path), "train", "unused", 22, 0, PointDataConfig(test_fraction=0.2))
    with pytest.raises(ConfigError, match="are classes: leave target= out"):
        load_points(str(tmp_path), "train", "unused", 22, 0, PointDataConfig(target="numbers"))


def test_files_are_predicted_by_a_list_a_folder_or_one_alone(tmp_path: Path) -> None:
    written = {**{name: CLOUDS[name] for name in ("a.xyz", "e.pcd")}, "m.off": MESHES["a.off"]}
    for name, content in written.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    np.save(tmp_path / "n.npy", POINTS)
    paths = [tmp_path / name for name in (*written, "n.npy")]
    reading = CloudPreparation(3, 16, 4, CHOSEN, 0), RunConfig(), PointDataConfig()
    read = partial(CloudPreparation.read, reading[0], run=reading[1], options=reading[2])
    several, folder = read([str(path) for path in paths]), read(tmp_path)
    assert several.names == folder.names == [str(path) for path in paths]
    wanted = read([read_cloud(path)[:, :3] for path in paths]).items
    for samples in (several, folder):
        assert all(map(torch.equal, samples.items, wanted))
    alone = read(paths[0])
    assert alone.alone and torch.equal(alone.items[0], wanted[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no clouds to predict"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match=r"b\.off is no cloud"):
        (tmp_path / "b.off").write_text("OFF")
        read([tmp_path / "b.off"])
