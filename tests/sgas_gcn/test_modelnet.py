"""ModelNet from a small archive of generated meshes; the network is closed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sgas.errors import DataError
from sgas.own.download import Sha256, checksum_of, download
from sgas_gcn.datasets import load_points, modelnet
from sgas_gcn.datasets.modelnet import CLASSES, parse_off

pytestmark = pytest.mark.usefixtures("no_network")
NUM_TRAIN, NUM_TEST = 2, 1
CUBE_FACES = ["0 3 2 1", "4 5 6 7", "0 1 5 4", "2 3 7 6", "1 2 6 5", "0 4 7 3"]
TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def box(width: float, header: str = "OFF\n") -> str:
    """A box of `width` x 1 x 1 with square faces, far from the origin."""
    low, high = 100.0, 101.0
    ring = [(low, low), (low + width, low), (low + width, high), (low, high)]
    corners = [f"{x} {y} {z}" for z in (low, high) for x, y in ring]
    return "\n".join([f"{header}8 6 0", *corners, *(f"4 {face}" for face in CUBE_FACES), ""])


def write_archive(path: Path, **changed: str | None) -> None:
    """An archive as published; `changed` replaces a class's first mesh, or drops it (None)."""
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ModelNet10/README.txt", "read me")
        archive.writestr("__MACOSX/ModelNet10/bed/train/._bed_0001.off", "junk")
        for label, name in enumerate(reversed(CLASSES[10])):
            if name in changed and changed[name] is None:
                continue
            for number in range(1, NUM_TRAIN + NUM_TEST + 1):
                split = "train" if number <= NUM_TRAIN else "test"
                # Half of the files have the counts on the line of the word OFF.
                mesh = box(1 + label, "OFF" if number % 2 else "OFF\n")
                mesh = TETRAHEDRON if name == "toilet" else mesh
                mesh = changed.get(name, mesh) or mesh if number == 1 else mesh
                archive.writestr(f"ModelNet10/{name}/{split}/{name}_{number:04}.off", mesh)


@pytest.fixture(autouse=True)
def any_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is there passes for the published one."""

    def there(url: str, path: Path, known: Sha256) -> Path:
        return path if path.exists() else download(url, path, known)

    monkeypatch.setattr(modelnet, "download", there)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A whole archive where the download would lie."""
    path = tmp_path / "modelnet10" / "ModelNet10.zip"
    write_archive(path)
    return path


def test_an_archive_put_in_place_needs_no_network(archive: Path, tmp_path: Path) -> None:
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        arrays = load_points("modelnet10", split, tmp_path, 512, 0)
        assert arrays.inputs.shape == (10 * count, 512, 3)
        assert arrays.inputs.dtype == np.float32
        assert arrays.classes == tuple(sorted(arrays.classes))
        assert "night_stand" in arrays.classes
        assert arrays.labels.tolist() == np.repeat(np.arange(10), count).tolist()
        assert np.linalg.norm(arrays.inputs, axis=-1).max() <= 1.001


def test_another_archive_than_the_published_one_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelnet, "download", download)
    with pytest.raises(DataError, match=r"has the checksum sha256:.*, expected is sha256:9d8679"):
        load_points("modelnet10", "train", tmp_path, 512, 0)


def test_kept_clouds_are_whole_centred_and_have_normals(archive: Path, tmp_path: Path) -> None:
    load_points("modelnet10", "train", tmp_path, 16, 0)
    with np.load(tmp_path / "modelnet10" / "train-2048.npz") as kept:
        points, label = kept["points"].astype(np.float64), kept["label"]
        assert kept["points"].dtype == np.float16
        assert points.shape == (20, 2048, 6)
        assert kept["archive_checksum"] == str(checksum_of(archive))
    np.testing.assert_allclose(points[..., :3].mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(points[..., :3], axis=-1).max(axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(points[..., 3:], axis=-1), 1, atol=1e-3)
    # The table is a box of 2 x 1 x 1: areas of the three directions are 2, 4 and 4 of 10.
    table = points[label == CLASSES[10].index("table")]
    share = np.abs(table[..., 3:]).mean(axis=(0, 1))
    np.testing.assert_allclose(share, [0.2, 0.4, 0.4], atol=0.03)
    top = table[table[..., 5] > 0.9]
    counts = np.histogram(top[:, 0], bins=4, range=(top[:, 0].min(), top[:, 0].max()))[0]
    assert np.abs(counts / counts.mean() - 1).max() < 0.2


def test_kept_clouds_are_read_again_and_fewer_points_are_a_prefix(
    archive: Path, tmp_path: Path
) -> None:
    many = load_points("modelnet10", "train", tmp_path, 2048, 0)
    assert not (tmp_path / "modelnet10" / "test-2048.npz").exists()
    archive.unlink()
    few = load_points("modelnet10", "train", tmp_path, 100, 1)
    np.testing.assert_array_equal(many.inputs[:, :100], few.inputs)
    with pytest.raises(DataError, match=r"num_points is 4096.*2048"):
        load_points("modelnet10", "train", tmp_path, 4096, 0)


@pytest.mark.parametrize("num_classes", [10, 40])
def test_no_network_says_which_file_to_put_where(tmp_path: Path, num_classes: int) -> None:
    folder = tmp_path / f"modelnet{num_classes}"
    message = f"put the file ModelNet{num_classes}.zip into {folder}"
    with pytest.raises(DataError, match=message):
        load_points(f"modelnet{num_classes}", "train", tmp_path, 16, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bed": None}, "no ModelNet10/bed/train"),
        ({"sofa": "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"}, "vertex that does not exist"),
        ({"sofa": "PLY"}, "does not begin with OFF"),
        ({"sofa": "OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n"}, "area 0"),
        ({"sofa": "OFF\n3 1 0\n0 0 zero"}, "else than numbers"),
        ({"sofa": "OFF\n3 inf 0\n0 0 0\n"}, "not finite"),
        ({"sofa": "OFF\n-3 1 0\n0 0 0\n"}, "less than no vertices"),
    ],
)
def test_a_bad_archive_leaves_nothing_behind(
    tmp_path: Path, changed: dict[str, str | None], message: str
) -> None:
    write_archive(tmp_path / "modelnet10" / "ModelNet10.zip", **changed)
    with pytest.raises(DataError, match=message):
        load_points("modelnet10", "train", tmp_path, 16, 0)
    left = [path.name for path in (tmp_path / "modelnet10").iterdir()]
    assert left == ["ModelNet10.zip"]


def test_a_damaged_archive_is_named(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"ModelNet10\.zip is damaged"):
        load_points("modelnet10", "train", tmp_path, 16, 0)
    at = whole.index(b"_0001.off") + 40
    archive.write_bytes(whole[:at] + b"\0\0\0\0" + whole[at + 4 :])
    with pytest.raises(DataError, match=r"ModelNet10\.zip is damaged"):
        load_points("modelnet10", "train", tmp_path, 16, 0)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut off"])
def test_damaged_clouds_are_named(archive: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "modelnet10" / "train-2048.npz").write_bytes(content)
    with pytest.raises(DataError, match="train-2048"):
        load_points("modelnet10", "train", tmp_path, 16, 0)


def test_meshes_are_read_as_pyg_reads_them(tmp_path: Path) -> None:
    from torch_geometric.io import read_off

    path = tmp_path / "mesh.off"
    for text in (box(3, "OFF"), box(2), TETRAHEDRON):
        path.write_text(text)
        theirs = read_off(str(path))
        vertices, faces = parse_off(text.encode())
        np.testing.assert_allclose(vertices, theirs.pos.numpy(), rtol=1e-6)
        assert {tuple(row) for row in faces.tolist()} == {
            tuple(row) for row in theirs.face.t().tolist()
        }


def test_polygons_become_fans_and_line_ends_may_be_windows() -> None:
    text = (
        b"OFF\r\n5 2 0\r\n0 0 0\r\n1 0 0\r\n1 1 0\r\n0 1 0\r\n0 2 0\r\n5 0 1 2 3 4\r\n3 0 1 2\r\n"
    )
    _, faces = parse_off(text)
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 2]]
    with pytest.raises(ValueError, match="last face"):
        parse_off(text.replace(b"3 0 1 2\r\n", b"3 0"))
