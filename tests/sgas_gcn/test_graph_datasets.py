"""Data sets of graphs: generated ones, PyG's from made-up files, and files of one's own."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.errors import ConfigError, DataError
from sgas.own.download import checksum_of
from sgas_gcn.config import GraphDataConfig
from sgas_gcn.datasets import graph_file, planetoid, ppi
from sgas_gcn.datasets.graph_arrays import GraphSplit
from sgas_gcn.datasets.graph_folder import describe_graph_file
from sgas_gcn.datasets.graphs import GRAPH_DATASETS, SPLITS, load_graphs
from sgas_gcn.datasets.kind import kind_of
from sgas_gcn.datasets.tissues import BEND, MEAN_DEGREE, OWN_WEIGHT, _Rule

pytestmark = pytest.mark.usefixtures("no_network")


def load(dataset: str | Path, split: str = "train", root: Path = Path("nowhere")) -> GraphSplit:
    return load_graphs(str(dataset), split, root, 0)


def several(**changes: Any) -> dict[str, Any]:
    """Three graphs of 4, 3 and 5 nodes with two labels a node."""
    generator = np.random.default_rng(0)
    arrays = {
        "node_ptr": np.array([0, 4, 7, 12]),
        "edge_ptr": np.array([0, 3, 5, 9]),
        "edge": np.array(
            [(0, 1), (1, 2), (2, 2), (0, 1), (0, 2), (0, 4), (1, 2), (3, 4), (2, 3)], np.uint16
        ),
        "x": generator.integers(0, 2, (12, 3)).astype(np.uint8),
        "y": generator.integers(0, 2, (12, 2)).astype(np.uint8),
        "split": np.array(["train", "test", "train"]),
    }
    arrays.update(changes)
    return {name: value for name, value in arrays.items() if value is not None}


def one(**changes: Any) -> dict[str, Any]:
    """One graph of 20 nodes in two classes, node 19 of unknown class, features in rows."""
    arrays = {
        "label": np.array([0, 1] * 9 + [0, -1], np.int16),
        "edge": np.array([(i, i + 1) for i in range(18)]),
        "feat_indptr": np.arange(21),
        "feat_indices": np.arange(20) % 4,
        "feat_dim": np.array(4),
        "train": np.arange(6),
        "val": np.arange(6, 10),
        "test": np.arange(10, 19),
    }
    arrays.update(changes)
    return {name: value for name, value in arrays.items() if value is not None}


def saved(tmp_path: Path, arrays: dict[str, Any]) -> Path:
    path = tmp_path / "graphs.npz"
    np.savez(path, **arrays)
    return path


def test_tissues_need_no_download_and_are_the_same_every_time() -> None:
    sizes = {"train": 20, "val": 2, "test": 2}
    for split in SPLITS:
        first, again = load("tissues", split), load("tissues", split)
        assert len(first.graphs) == sizes[split] and first.multi_label and not first.transductive
        for a, b in zip(first.graphs, again.graphs, strict=True):
            assert a.x.dtype == np.float32 and a.targets.dtype == bool
            assert a.targets.shape == (len(a.x), len(first.label_names))
            assert all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("x", "edges"))
            assert np.array_equal(a.targets, b.targets)
            assert set(map(tuple, a.edges.T)) == set(map(tuple, a.edges[::-1].T))
    other = load_graphs("tissues", "train", Path("nowhere"), 1)
    assert not np.array_equal(other.graphs[0].edges, load("tissues").graphs[0].edges)


def mean(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over the neighbours of each node, by a matrix."""
    adjacency = np.zeros((len(x), len(x)))
    adjacency[edges[1], edges[0]] = 1
    out: np.ndarray = adjacency @ x / np.maximum(adjacency.sum(1, keepdims=True), 1)
    return out


def explained(train: GraphSplit, test: GraphSplit, steps: int) -> float:
    """How well means over up to `steps` steps tell the labels of other graphs, linearly: R²."""
    sides = []
    for split in (train, test):
        rows = []
        for graph in split.graphs:
            parts = [np.ones((len(graph.x), 1)), graph.x]
            for _ in range(steps):
                parts.append(mean(parts[-1], graph.edges))
            rows.append(np.concatenate(parts, 1))
        truth = np.concatenate([graph.targets for graph in split.graphs]).astype(float)
        sides.append((np.concatenate(rows), truth))
    (x, y), (x_test, y_test) = sides
    error = y_test - x_test @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - error.var() / (y_test - y_test.mean(0)).var())


def test_labels_of_tissues_need_two_steps_in_the_graph() -> None:
    train, test = load("tissues"), load("tissues", "test")
    own, one_step, two_steps = (explained(train, test, steps) for steps in range(3))
    assert own < 0.2 and one_step < 0.2 and 0.25 < two_steps < 0.4
    rule, agree = _Rule(0), []
    for graph in test.graphs:
        around = mean(graph.x, graph.edges) @ rule.inner.T * MEAN_DEGREE**0.5
        score = mean(np.maximum(around - BEND, 0), graph.edges)
        labels = score + OWN_WEIGHT * (graph.x @ rule.own.T) > rule.thresholds
        agree.append((labels == graph.targets).mean())
    assert 0.97 < min(agree) < 0.99  # all but the noise


def test_an_unknown_name_names_the_nearest_and_every_entry_has_a_loader() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'coraa': did you mean cora\?.*\.npz"):
        load("coraa")
    with pytest.raises(DataError, match="unknown split 'all'"):
        load("tissues", "all")
    assert all(callable(entry.load) and entry.help for entry in GRAPH_DATASETS.values())


@pytest.mark.parametrize("name", ["ppi", "cora", "citeseer", "pubmed"])
def test_a_download_that_fails_says_which_file_to_put_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot download .*: put the file (ppi\.zip|ind\.).* into"
    ):
        load(name, root=tmp_path)


def write_ppi(root: Path) -> None:
    """An archive like PPI's, of two small graphs a split."""
    archive = zipfile.ZipFile(root / "ppi.zip", "w")
    for part in ("train", "valid", "test"):
        links = [{"source": a, "target": b} for a, b in [(0, 1), (1, 1), (2, 3), (3, 4)]]
        graph = {
            "directed": False,
            "multigraph": False,
            "graph": {},
            "nodes": [{"id": number} for number in range(5)],
            "links": links,
        }
        arrays = {
            "feats": np.arange(10.0).reshape(5, 2),
            "labels": np.eye(5, 3, dtype=np.int64),
            "graph_id": np.array([1, 1, 2, 2, 2]),
        }
        archive.writestr(f"{part}_graph.json", json.dumps(graph))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{part}_{name}.npy", buffer.getvalue())
    archive.close()


@pytest.fixture
def small_ppi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppi, "SIZES", dict.fromkeys(SPLITS, (2, 5)))
    monkeypatch.setattr(ppi, "NUM_FEATURES", 2)
    monkeypatch.setattr(ppi, "NUM_LABELS", 3)


@pytest.mark.usefixtures("small_ppi")
def test_ppi_is_read_from_an_archive_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ppi").mkdir()
    write_ppi(tmp_path / "ppi")
    monkeypatch.setattr(ppi, "CHECKSUM", checksum_of(tmp_path / "ppi" / "ppi.zip"))
    split = load("ppi", "val", tmp_path)
    assert [graph.x.shape for graph in split.graphs] == [(2, 2), (3, 2)]
    assert split.multi_label and split.graphs[0].targets.dtype == bool
    assert sorted(map(tuple, split.graphs[0].edges.T)) == [(0, 1), (1, 0)]  # the loop is gone
    assert sorted(map(tuple, split.graphs[1].edges.T)) == [(0, 1), (1, 0), (1, 2), (2, 1)]


@pytest.mark.usefixtures("small_ppi")
def test_a_damaged_ppi_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ppi").mkdir()
    archive = tmp_path / "ppi" / "ppi.zip"
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"ppi\.zip has the checksum .*delete it"):
        load("ppi", root=tmp_path)
    monkeypatch.setattr(ppi, "CHECKSUM", checksum_of(archive))
    with pytest.raises(DataError, match=r"ppi\.zip is damaged .*delete it"):
        load("ppi", root=tmp_path)
    write_ppi(archive.parent)
    monkeypatch.setattr(ppi, "CHECKSUM", checksum_of(archive))
    monkeypatch.setattr(ppi, "NUM_LABELS", 4)
    with pytest.raises(DataError, match="other sizes than published"):
        load("ppi", root=tmp_path)


class _Program:
    """What a pickle may ask for: here, to end the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"kill {os.getpid()}",)


def bless(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files of Cora the published ones by their checksums."""
    found = tuple(checksum_of(raw / f"ind.cora.{name}").digits for name in planetoid.FILES)
    monkeypatch.setitem(planetoid.CHECKSUMS, "Cora", found)


def test_the_checksums_of_planetoid_are_those_that_are_published() -> None:
    # GraphMLDatasets.jl publishes the exclusive or of all of them, others each.
    hashes = [int(digits, 16) for files in planetoid.CHECKSUMS.values() for digits in files]
    assert len(set(hashes)) == 24
    combined = "f52b3d47f5993912d7509b51e8090b6807228c4ba8c7d906f946868005c61c18"
    assert functools.reduce(operator.xor, hashes) == int(combined, 16)


def test_arrays_of_pickles_are_numbers_whatever_the_state_of_their_type(tmp_path: Path) -> None:
    path, array = tmp_path / "a", np.arange(6.0).reshape(3, 2)
    path.write_bytes(pickle.dumps(array, 3).replace(b"NNN", b"MNN"))  # NumPy's own type crashes
    np.testing.assert_array_equal(planetoid._unpickled(path), array)
    path.write_bytes(pickle.dumps(array.astype(object), 3))
    with pytest.raises(pickle.UnpicklingError, match="type 'O8', which no number has"):
        planetoid._unpickled(path)


def test_planetoid_is_read_from_files_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scipy.sparse

    monkeypatch.setitem(planetoid.SIZES, "Cora", (600, 1200, 5, 2))
    raw = tmp_path / "Cora" / "raw"
    raw.mkdir(parents=True)
    nodes, train, test = 600, 4, np.arange(597, 600)
    x = scipy.sparse.csr_matrix(np.eye(nodes, 5, dtype=np.float32))
    y = np.eye(2, dtype=np.int64)[np.arange(nodes) % 2]
    ring = {node: [(node + 1) % nodes, (node - 1) % nodes] for node in range(nodes)}
    objects = {"x": x[:train], "tx": x[597:], "allx": x[:597], "graph": ring}
    objects |= {"y": y[:train], "ty": y[597:], "ally": y[:597]}
    for name, value in objects.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(value))
    (raw / "ind.cora.test.index").write_text("".join(f"{node}\n" for node in test))
    with pytest.raises(DataError, match=r"ind\.cora\.x has the checksum .*delete it"):
        load("cora", "train", tmp_path)
    bless(raw, monkeypatch)
    split = load("cora", "train", tmp_path)
    (graph,) = split.graphs
    assert split.transductive and not split.multi_label and len(split.label_names) == 2
    assert graph.nodes is not None and graph.nodes.tolist() == [0, 1, 2, 3]
    assert graph.targets.tolist() == [0, 1, 0, 1]
    assert graph.x.shape == (nodes, 5) and graph.edges.shape == (2, 2 * nodes)
    (tested,) = load("cora", "test", tmp_path).graphs
    assert tested.nodes is not None and tested.nodes.tolist() == test.tolist()
    (raw / "ind.cora.tx").write_bytes(pickle.dumps(x[596:]))
    bless(raw, monkeypatch)
    with pytest.raises(DataError, match="cannot be read"):
        load("cora", "train", tmp_path)
    (raw / "ind.cora.tx").write_bytes(pickle.dumps(_Program()))
    bless(raw, monkeypatch)
    with pytest.raises(DataError, match=r"it asks for posix\.system, which no array needs"):
        load("cora", "train", tmp_path)


def options(**values: Any) -> GraphDataConfig:
    return GraphDataConfig(**values)


def read(path: Path, part: str = "train", **values: Any) -> GraphSplit:
    return load_graphs(str(path), part, path, 0, options(**values))


def test_weights_of_edges_follow_their_edges(tmp_path: Path) -> None:
    weights = np.arange(18) / 4
    path = saved(tmp_path, one(edge_weight=weights))
    for directed in (False, True):
        split = read(path, directed=directed)
        (graph,) = split.graphs
        assert graph.weights is not None and split.weighted
        pairs = dict(zip(map(tuple, graph.edges.T.tolist()), graph.weights.tolist(), strict=True))
        assert pairs[3, 4] == 0.75 and len(pairs) == 18 * (2 - directed)
        assert directed or pairs[4, 3] == 0.75
        assert any("edge_weight counts in semi_gcn" in told for told in split.remarks)
        plain = read(saved(tmp_path, one()), directed=directed)
        assert split.fingerprint() != plain.fingerprint() and not plain.weighted
        path = saved(tmp_path, one(edge_weight=weights[:, None]))
    twice = {"edge": np.array([(0, 1), (1, 0), (1, 2)])}
    (graph,) = read(saved(tmp_path, one(**twice, edge_weight=np.array([2.0, 2, 3])))).graphs
    assert graph.weights is not None and graph.weights.tolist() == [2, 3, 2, 3]
    below = read(saved(tmp_path, one(edge_weight=weights - 1)))
    assert not below.weighted and "below 0" in below.remarks[0]
    for own, told in (
        (np.array([2.0, 2.5, 3]), r"edge 1 \[1, 0\] is the same with 2.5"),
        (np.array([2.0, np.nan, 3]), "NaN or infinite, first edge 1"),
        (np.ones(2), r"edge_weight has shape \[2\] for 3 edges"),
        (np.array(["a", "b", "c"]), "edge_weight is <U1; write numbers"),
    ):
        with pytest.raises(DataError, match=told):
            read(saved(tmp_path, one(**twice, edge_weight=own)))


BOTH_WAYS = np.array([(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (6, 6), (4, 5)])


@pytest.mark.parametrize(
    ("arrays", "directed", "edges", "told"),
    [
        ({}, None, {(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4), (6, 6)}, "3 of 7 edges repeat"),
        ({"directed": True}, False, {(4, 5), (5, 4)}, "3 of 7 edges repeat"),
        (
            {"directed": True},
            None,
            {(4, 5)},
            "1 of 6 edges lead one way (directed false: both ways)",
        ),
        ({}, True, {(4, 5)}, "1 edges are there more than once and count as often"),
    ],
)
def test_edges_that_are_there_twice_or_one_way_are_told(
    tmp_path: Path, arrays: Any, directed: bool | None, edges: set[Any], told: str
) -> None:
    path = saved(tmp_path, one(edge=BOTH_WAYS, **arrays))
    split = read(path, directed=directed)
    have = [*map(tuple, split.graphs[0].edges.T)]
    assert edges <= set(have) and ((5, 4) in edges) == ((5, 4) in have)
    assert any(told in remark for remark in split.remarks)
    if not arrays and not directed:
        assert len(have) == len(edges)
        assert describe_graph_file(path)["remarks"] == [*split.remarks]


def masks(columns: int) -> dict[str, np.ndarray]:
    """Masks of 20 nodes for each split, of which each column takes others."""
    place = (np.arange(20)[:, None] + np.arange(columns)) % 3
    return {f"{name}_mask": np.squeeze(place == i) for i, name in enumerate(SPLITS)}


@pytest.mark.parametrize("form", ["masks", "0 and 1", "columns"])
def test_masks_in_any_form_are_splits(tmp_path: Path, form: str) -> None:
    own = masks(2 if form == "columns" else 1)
    if form == "0 and 1":
        own = {name.removesuffix("_mask"): mask.astype(np.uint8) for name, mask in own.items()}
    arrays = one(train=None, val=None, test=None, label=np.arange(20) % 2, year=np.ones(20))
    path = saved(tmp_path, arrays | own)
    for number in range(2 if form == "columns" else 1):
        split = read(path, "val", split=number)
        (graph,) = split.graphs
        assert graph.nodes is not None
        assert graph.nodes.tolist() == [n for n in range(20) if (n + number) % 3 == 1]
        assert split.remarks[0] == "not used: year"
        assert form != "columns" or f"split {number} of 2" in split.remarks
    with pytest.raises(DataError, match=r"2 splits, numbered from 0|no several splits"):
        read(path, "val", split=5)


def test_labels_of_graphs(tmp_path: Path) -> None:
    path = saved(tmp_path, several(y=np.array(["b", "a", "b"])))
    split = read(path)
    assert split.per_graph and split.label_names == ("a", "b")
    assert [graph.targets.tolist() for graph in split.graphs] == [[1], [1]]
    described = describe_graph_file(path)
    assert described["task"] == "graphs" and described["labels"][1] == {"name": "b", "graphs": 2}
    numbers = read(saved(tmp_path, several(y=np.array([0.5, 1, 2]))), target="numbers")
    assert numbers.per_graph and numbers.graphs[1].targets.tolist() == [[2.0]]


def test_features_are_made_of_what_there_is(tmp_path: Path) -> None:
    kinds = {"node_label": np.arange(12) % 3, "num_node_labels": np.array(4)}
    split = read(saved(tmp_path, several(x=None, node_attr=np.ones((12, 2)), **kinds)))
    assert split.graphs[0].x.tolist()[1] == [1, 1, 0, 1, 0, 0]
    split = read(saved(tmp_path, several(x=None)))
    assert split.graphs[0].x.argmax(1).tolist() == [1, 2, 1, 0]  # degrees, without the loop
    assert any("no features: the degree" in remark for remark in split.remarks)


def test_tudatasets_text_files_are_read(tmp_path: Path) -> None:
    files = {
        "A": "1, 2\n2, 1\n4, 5\n5, 4\n3, 5",
        "graph_indicator": "1\n1\n2\n2\n2",
        "graph_labels": "-1\n1",
        "node_labels": "7\n9\n7\n7\n9",
        "edge_labels": "5\n5\n2\n2\n5",
        "edge_attributes": "0.5\n0.5\n1\n1\n2",
    }
    for name, text in files.items():
        (tmp_path / f"MINE_{name}.txt").write_text(text)
    file, problems = graph_file.read_graph_file(tmp_path / "MINE_A.txt", options())
    assert file is not None and not problems
    assert file.per_graph and file.label_names == ("-1", "1") and file.targets.tolist() == [0, 1]
    assert file.x.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]
    assert file.edge.tolist() == [[0, 1], [1, 2], [0, 2]] and file.edge_ptr.tolist() == [0, 1, 3]
    assert file.attributes is not None and kind_of(str(tmp_path)) == "graph"
    assert file.attributes.tolist() == [
        [0, 0, 0, 0, 0, 1, 0.5],
        [0, 0, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 2],
    ]
    assert graph_file.ATTRIBUTES in file.remarks
    (tmp_path / "MINE_edge_attributes.txt").write_text("0.5\n0.5")
    with pytest.raises(DataError, match=r"5 edges in MINE_A.txt and 2 lines in MINE_edge_attrib"):
        load(tmp_path)
    (tmp_path / "MINE_edge_attributes.txt").write_text("0.5\n0.6\n1\n1\n2")
    with pytest.raises(DataError, match=r"has attributes .* 0.5, edge .* 0.6: give both the same"):
        load(tmp_path)
    (tmp_path / "MINE_edge_attributes.txt").unlink()
    (tmp_path / "MINE_graph_labels.txt").write_text("0")
    with pytest.raises(DataError, match=r"2 graphs in MINE_graph_indicator.txt and 1 labels"):
        load(tmp_path)


def test_a_test_part_of_graphs_is_drawn_where_there_is_none(tmp_path: Path) -> None:
    path = saved(tmp_path, one(test=None, train=np.arange(15), val=None))
    assert "no test part (test_fraction draws one)" in read(path).remarks
    parts = [read(path, part, test_fraction=0.4).graphs[0].nodes for part in ("train", "test")]
    assert parts[0] is not None and parts[1] is not None
    assert sorted([*parts[0], *parts[1]]) == [*range(15)] and len(parts[1]) == 6
    assert read(path, test_fraction=0.4).remarks == ("test part drawn, 40%",)
    drawn = read(saved(tmp_path, one(train=None, val=None, test=None))).remarks
    assert drawn == ("splits drawn: 60% train, 20% val, 20% test",)
    path = saved(tmp_path, one(test=None, train=np.arange(15), val=None))
    with pytest.raises(ConfigError, match="has a test part"):
        read(saved(tmp_path, one()), test_fraction=0.4)
    with pytest.raises(ConfigError, match=r"test_fraction is 0.4, which is for data of your own"):
        load_graphs("tissues", "train", tmp_path, 0, options(test_fraction=0.4))


def test_several_graphs_of_ones_own(tmp_path: Path) -> None:
    saved(tmp_path, several())
    split = load(tmp_path)
    assert [graph.x.shape for graph in split.graphs] == [(4, 3), (5, 3)]
    assert split.label_names == ("0", "1") and split.multi_label
    # Stored once, read in both directions; the self-loop once.
    assert sorted(map(tuple, split.graphs[0].edges.T)) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]
    assert load(tmp_path, "val").graphs == ()
    assert len(load(tmp_path / "graphs.npz", "test").graphs) == 1


def test_several_graphs_with_classes_a_direction_and_names(tmp_path: Path) -> None:
    classes = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, -1])
    names = np.array(["a", "b", "c"])
    path = saved(tmp_path, several(y=classes, directed=np.array(True), label_names=names))
    split = load(path)
    assert split.label_names == ("a", "b", "c") and not split.multi_label
    assert sorted(map(tuple, split.graphs[0].edges.T)) == [(0, 1), (1, 2), (2, 2)]
    assert split.graphs[0].nodes is None and split.graphs[1].nodes is not None
    assert split.graphs[1].nodes.tolist() == [0, 1, 2, 3]


def test_one_graph_of_ones_own(tmp_path: Path) -> None:
    path = saved(tmp_path, one())
    split = load(path, "test")
    (graph,) = split.graphs
    assert split.transductive and split.label_names == ("0", "1")
    assert graph.nodes is not None and graph.nodes.tolist() == list(range(10, 19))
    assert graph.targets.tolist() == [0, 1] * 4 + [0]
    assert np.array_equal(graph.x, np.eye(4, dtype=np.float32)[np.arange(20) % 4])
    masks = {name: np.isin(np.arange(20), one()[name]) for name in SPLITS}
    dense = saved(tmp_path, one(x=np.eye(20), feat_indptr=None, feat_indices=None, **masks))
    again = load(dense, "test").graphs[0]
    assert again.nodes is not None and again.nodes.tolist() == graph.nodes.tolist()


def test_without_a_split_the_same_one_is_drawn_for_every_seed(tmp_path: Path) -> None:
    path = saved(tmp_path, one(train=None, val=None, test=None))
    parts = [load_graphs(str(path), split, tmp_path, seed=7).graphs[0] for split in SPLITS]
    again = [load(path, split).graphs[0] for split in SPLITS]
    nodes = [part.nodes for part in parts]
    for part, other in zip(nodes, again, strict=True):
        assert part is not None and other.nodes is not None
        assert part.tolist() == other.nodes.tolist()
    every = np.concatenate([part for part in nodes if part is not None])
    assert sorted(every.tolist()) == list(range(19))  # node 19 has no known class
    assert all(set(part.targets.tolist()) == {0, 1} for part in parts)
    path = saved(tmp_path, several(split=None))
    assert [len(load(path, split).graphs) for split in SPLITS] == [1, 1, 1]


def test_a_search_needs_no_test_part(tmp_path: Path) -> None:
    path = saved(tmp_path, several(split=np.array(["train"] * 3)))
    assert [len(load(path, split).graphs) for split in SPLITS] == [3, 0, 0]


def test_graphs_without_a_known_class_are_in_no_draw(tmp_path: Path) -> None:
    sizes = {"node_ptr": np.array([0, 4, 7, 9, 12]), "edge_ptr": np.array([0, 3, 5, 5, 5])}
    edge, y = several()["edge"][:5], np.array([0, 1, 1, 0, -1, -1, -1, 1, 0, 1, 0, 1])
    path = saved(tmp_path, several(split=None, y=y, edge=edge, **sizes))
    graphs = [graph for split in SPLITS for graph in load(path, split).graphs]
    assert sorted(len(graph.x) for graph in graphs) == [2, 3, 4]
    assert all((graph.targets >= 0).all() for graph in graphs)


X = np.ones((12, 3))
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no edge array": (several(edge=None), r"no array 'edge' \(it has: node_ptr"),
    "no labels": (several(y=None), "no array 'y' .*several graphs need"),
    "no features": (one(feat_indptr=None), "no array 'feat_indptr' .*one graph needs"),
    "edge shape": (several(edge=np.zeros((2, 9), np.int64)), r"edge has shape \[2, 9\]"),
    "edge type": (several(edge=np.zeros((9, 2))), "edge is float64; write integers"),
    "edge too large": (
        several(edge=np.full((9, 2), 3)),
        r"2 edges name nodes that are not there, first edge 3: \[3, 3\] in graph 1, .* 0 to 2",
    ),
    "edge negative": (one(edge=np.array([(0, 1), (-1, 3)])), r"first edge 1: \[-1, 3\] in graph 0"),
    "NaN": (several(x=np.where(np.eye(12, 3) > 0, np.nan, 1)), "3 nodes have NaN .*first node 0"),
    "infinite": (one(feat_data=np.full(20, np.inf)), "20 nodes have NaN or infinite features"),
    "text features": (several(x=np.full((12, 3), "a")), "x is <U1; write numbers"),
    "rows of x": (several(x=np.ones((11, 3))), "x has 11 rows for 12 nodes"),
    "no features at all": (several(x=np.ones((12, 0))), r"x has shape \[12, 0\]"),
    "node_ptr": (several(node_ptr=np.array([0, 4, 7, 11])), "node_ptr has to rise .* 12 nodes"),
    "edge_ptr falls": (several(edge_ptr=np.array([0, 5, 3, 9])), "edge_ptr has to rise"),
    "pointers differ": (
        several(node_ptr=np.array([0, 12]), split=None),
        "node_ptr is of 1 graphs, edge_ptr of 3",
    ),
    "label width": (
        several(label_names=np.array(["a", "b", "c"])),
        "y is 2 labels wide, label_names has 3 names",
    ),
    "edge_index": (several(edge=None, edge_index=np.zeros((9, 2), int)), "wanted is .2, edges."),
    "soft labels": (several(y=np.full((12, 2), 0.3)), "first is 0.3: many labels are on or off"),
    "one class": (
        one(label=np.array([1, -1] * 10)),
        "every known label is 1, and -1 means unknown",
    ),
    "labels of 2": (several(y=np.full((12, 2), 2)), "labels of node 0 are not all 0 or 1"),
    "label rank": (several(y=np.zeros((12, 2, 1), int)), r"y has shape \[12, 2, 1\]"),
    "label type": (one(label=np.zeros(20)), "label is float64; write integers"),
    "label gap": (one(label=np.array([0, 2] * 10)), "no node has class 1 of 0 to 2"),
    "label below -1": (one(label=np.array([0, -2] * 10)), "node 1 has class -2; allowed are -1"),
    "too few names": (
        one(label_names=np.array(["a"])),
        "node 1 has class 1; allowed are .* 0 to 0",
    ),
    "no known class": (one(label=np.full(20, -1)), "no node has a known class"),
    "split word": (several(split=np.array(["train", "tset", "val"])), "split holds 'tset'"),
    "split length": (several(split=np.array(["train"])), "split has 1 words for 3 graphs"),
    "no train graph": (several(split=np.array(["test"] * 3)), "no graph is in train"),
    "unasked graph": (
        several(y=np.array([0, 1, 1, 0, -1, -1, -1, 1, 0, 1, 0, 1])),
        "no node of graph 1 of test has a known class: leave it out",
    ),
    "no train": (one(train=np.zeros(20, bool)), "no node is in train"),
    "overlap": (one(val=np.arange(4, 8)), r"node 4 is in train and in val \(2 nodes overlap\)"),
    "twice": (one(train=np.array([1, 1])), "train names a node twice"),
    "out of range": (one(test=np.array([20])), "test names node 20; there are the nodes 0 to 19"),
    "unknown in test": (one(test=np.array([19])), "node 19 of test has no known class"),
    "mask length": (one(train=np.ones(3, bool)), "mask train has 3 entries for 20 nodes"),
    "mask type": (one(train=np.ones(20)), "train is float64; write node numbers or a mask"),
    "row pointers": (one(feat_indptr=np.zeros(21, int)), "feat_indptr has to rise .* 20 entries"),
    "column": (one(feat_indices=np.full(20, 4)), "a feature outside 0 to 3"),
    "huge features": (one(feat_dim=np.array(10**14)), "feat_dim is 10+ with 20 entries"),
    "huge labels": (several(x=None, node_label=np.full(12, 10**7)), "too many for a feature each"),
    "no text": (
        several(split=np.array([97, 98, 2**30], np.uint32).view("U1")),
        "1073741824 is no character",
    ),
    "attributes": (one(edge_attr=np.ones((17, 2))), r"edge_attr has shape \[17, 2\] for 18 edges"),
    "attribute": (one(edge_attr=np.full(18, np.nan)), "18 edges have NaN or infinite attributes"),
    "pickles": (several(x=np.full((12, 3), None)), "x holds pickled Python objects"),
    "long header": (
        several(x=np.zeros(12, [(str(name), "f4") for name in range(99)])),
        "Header info length .* is large",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    arrays, message = WRONG[name]
    path = saved(tmp_path, arrays)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    described = describe_graph_file(path)
    assert described["problems"] and str(path) in described["problems"][0]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match=r"has to hold one \.npz file \(it has: none\)"):
        load(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"is damaged or not an .npz file"):
        load(tmp_path)
    np.savez(tmp_path / "good.npz", **one())
    with pytest.raises(DataError, match=r"it has: bad\.npz, good\.npz\): name the file"):
        load(tmp_path)


def test_a_file_that_claims_too_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, several())
    monkeypatch.setattr(graph_file, "available_memory", lambda: 1000)
    monkeypatch.setattr(graph_file, "read_array", None)
    with pytest.raises(DataError, match=r"12 nodes and 9 edges take .* KiB, 1000 bytes of memory"):
        load(path)


def test_a_file_is_described(tmp_path: Path) -> None:
    found = describe_graph_file(saved(tmp_path, several()))
    json.dumps(found)
    assert (found["graphs"], found["nodes"], found["edges"]) == (3, 12, 9)
    assert found["remarks"] == []
    assert found["task"] == "inductive" and found["self_loops"] == 1
    assert found["isolated_nodes"] == 1 and found["mean_degree"] == 1.5
    assert found["splits"] == {"train": 2, "val": 0, "test": 1} and not found["problems"]
    assert any("join a node to itself" in warning for warning in found["warnings"])
    found = describe_graph_file(saved(tmp_path, one(train=None, val=None, test=None)))
    assert found["task"] == "transductive" and found["labels"][0] == {"name": "0", "nodes": 10}
    assert found["remarks"] == ["splits drawn: 60% train, 20% val, 20% test"]


def test_the_real_graphs_can_be_read(data: Path) -> None:
    train = load(data / "ppi24")
    assert (len(train.graphs), len(train.label_names)) == (20, 121)
    assert sum(graph.edges.shape[1] for graph in train.graphs) / 2 + 0.0 > 5e5
    cora = load(data / "citation" / "cora.npz", "test")
    assert cora.graphs[0].x.shape == (2708, 1433) and len(cora.graphs[0].targets) == 1000
