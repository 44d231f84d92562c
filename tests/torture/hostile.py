"""hostile: files made to run code, to write elsewhere, to fill memory, to fool who reads."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from toy_family import FAMILY as TOY

from sgas.cells.genotype import Genotype
from sgas.cli import main
from sgas.errors import DataError, SgasError
from sgas.files import SEALS, csv_text
from sgas.native.library import _own_folder
from sgas.options import read_yaml
from sgas.own.download import Sha256, checksum_of, download
from sgas.running import runs
from sgas.studies.study import read_study
from sgas_gcn.datasets.folder import describe_folder
from sgas_gcn.datasets.graph_folder import describe_graph_file
from sgas_gcn.datasets.planetoid import _unpickled
from sgas_gcn.family import FAMILY as GCN
from tests.torture.bench import JOBS, Bench, Job, Wrong, at_most, error_line, require

SECONDS = 1.0
ESCAPE = "\x1b[2Jname"


class Runs:
    """What a pickle may ask for: here, to make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _run(bench: Bench, place: Path, name: str = "search") -> Path:
    """A whole run in `place`, whose seals are gone, as of one who can make any."""
    shutil.copytree(bench.undisturbed(name).folder, place, dirs_exist_ok=True)
    run = place / "runs" / "x"
    (run / SEALS).unlink()
    return run


def _refused(call: Callable[[], Any]) -> str:
    """The error of ours that a call ends with."""
    try:
        call()
    except SgasError as error:
        return error.for_command()
    raise Wrong("it was taken")


def links(bench: Bench, place: Path) -> None:
    """Names in a run that are links to a file elsewhere: that file stays as it is."""
    run, victim = _run(bench, place), place / "victim"
    for name in ("log.txt", ".lock", "genotype.json", "checkpoint.previous.pt", SEALS):
        content = (run / name).read_bytes() if (run / name).exists() else b"{}"
        victim.write_bytes(content)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
        ended = bench.run(JOBS["search"], place)
        require(victim.read_bytes() == content, f"{name}: the file that the link names was written")
        if ended.status:
            error_line(ended)
        (run / name).unlink(missing_ok=True)


def checkpoint_runs_code(bench: Bench, place: Path) -> None:
    """A checkpoint with a right seal that is a pickle of a call."""
    run, made = _run(bench, place), place / "made"
    for dump in (pickle.dumps, _saved):
        content = dump({"kind": "search", "epoch": Runs(made)})
        for name in (runs.CHECKPOINT, runs.PREVIOUS):
            (run / name).write_bytes(content + runs._seal(content))
        line = error_line(bench.run(JOBS["search"], place))
        require("no readable checkpoint" in line, line)
    require(not made.exists(), "code of the file ran")


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def checkpoint_of_another_kind(bench: Bench, place: Path) -> None:
    """A checkpoint with a right seal that holds something else."""
    run = _run(bench, place)
    whole = runs.read_checkpoint(run / runs.CHECKPOINT)
    assert whole is not None
    for state in (
        [1],
        {},
        {**whole, "tally": 3},
        {**whole, "epoch": "no"},
        {**whole, "random": {}},
    ):
        content = _saved(state)
        for name in (runs.CHECKPOINT, runs.PREVIOUS):
            (run / name).write_bytes(content + runs._seal(content))
        ended = bench.run(JOBS["search"], place)
        require(ended.status == 1, f"{type(state)}: {ended}")
        error_line(ended)


def study_names_a_module(bench: Bench, place: Path) -> None:
    """A study whose `home` is a module that would make a file."""
    (place / "evil.py").write_text("import os\nos.mkdir('made')\n")
    words = dict.fromkeys(("home", "dataset", "space", "preset", "protocol", "command"), "evil")
    lists: dict[str, Any] = {"strategies": [], "seeds": [], "search": {}, "train": {}}
    info = {"format": 1, "family": "toy", **words, **lists, "environment": {}}
    (place / "study.json").write_text(json.dumps(info))
    (place / "manifest.json").write_text(json.dumps({"format": 1, "parts": {}}))
    read_study(place)
    bench.run(Job("toy_family", ["search"]), place, ["table", "."])
    require(not (place / "made").exists(), "the module of the file ran")


def pickles(bench: Bench, place: Path) -> None:
    """Pickles of data sets that ask for more than arrays."""
    for protocol in (0, 2, 5):
        (place / "ind.cora.x").write_bytes(pickle.dumps(Runs(place / "made"), protocol))
        try:
            _unpickled(place / "ind.cora.x")
        except pickle.UnpicklingError:
            continue
        raise Wrong("it was read")
    require(not (place / "made").exists(), "code of the file ran")


def yaml_tags(bench: Bench, place: Path) -> None:
    """Options that name a call."""
    (place / "o.yaml").write_text("seed: !!python/object/apply:os.mkdir [made]\n")
    _refused(lambda: read_yaml(str(place / "o.yaml")))
    require(not Path("made").exists(), "code of the file ran")


def tiny_files_that_fill_memory(bench: Bench, place: Path) -> None:
    """Arrays that claim much, and labels that would make long lists."""
    edge, x = np.zeros((1, 2), np.int64), np.ones((3, 1), np.float32)
    huge = np.array([0, 1, 2**31], np.int64)
    np.savez(place / "label.npz", edge=edge, x=x, label=huge)
    np.savez(place / "wide.npz", edge=edge, label=huge % 2, feat_indptr=[0, 0, 0, 0],
             feat_indices=np.empty(0, np.int64), feat_dim=2**50)  # fmt: skip
    np.savez(place / "names.npz", edge=edge, x=x, label=huge % 2)
    header = io.BytesIO()
    claims = {"descr": "<U0", "fortran_order": False, "shape": (10**8,)}
    np.lib.format.write_array_header_1_0(header, claims)
    with zipfile.ZipFile(place / "names.npz", "a") as archive:
        archive.writestr("label_names.npy", header.getvalue())
    began = time.process_time()
    for name in ("label", "wide", "names"):
        with at_most(512 << 20):
            told = describe_graph_file(place / f"{name}.npz")["problems"]
        require(bool(told), f"{name}: nothing is wrong with it")
    require("has no bytes" in told[0], f"names of no bytes were looked at: {told[0]}")
    text = "Genotype(normal=[('skip', 0)], normal_concat=range(10000000))"
    with at_most(64 << 20):
        told = _refused(lambda: Genotype.from_text(text, "toy"))
    require("too many states" in told, f"states of a cell were made first: {told}")
    require(time.process_time() - began < SECONDS, "it took long")


def names_that_steer_a_terminal(bench: Bench, place: Path) -> None:
    """Control characters in names of classes, labels and files."""
    labels = np.arange(12) % 2
    own = place / "own"
    own.mkdir()
    for split in ("train", "test"):
        np.savez(own / f"{split}.npz", points=np.ones((12, 4, 3)), label=labels,
                 classes=np.array([ESCAPE, "bad\nline"]))  # fmt: skip
    told = json.dumps(describe_folder(own), ensure_ascii=False)
    (own / f"train{ESCAPE}.npz").write_bytes((own / "train.npz").read_bytes())
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        main(GCN, ["check", str(own)])
    require("bad\nline" not in shown.getvalue(), "a name breaks a line")
    told += shown.getvalue() + csv_text([[ESCAPE]])
    graph = place / "graph.npz"
    np.savez(graph, edge=np.zeros((1, 2), int), x=np.ones((12, 1)), label=labels,
             label_names=np.array([ESCAPE, "b"]))  # fmt: skip
    told += json.dumps(describe_graph_file(graph), ensure_ascii=False)
    told += _refused(lambda: read_yaml(f"{ESCAPE}\n{ESCAPE}"))
    cell = bench.undisturbed("search").folder / "runs" / "x" / "genotype.json"
    notes = {**msgspec.json.decode(cell.read_bytes())}
    notes["meta"] |= {"dataset": f"{ESCAPE}[red]:boom:"}
    (place / "cell.json").write_bytes(msgspec.json.encode(notes))
    with contextlib.redirect_stdout(shown):
        main(TOY, ["show", str(place / "cell.json"), "--out", str(place)])
    told += shown.getvalue()
    require("[red]:boom:" in told, f"a name counts as markup: {told}")
    ended = bench.run(JOBS["search"], place, ["evaluate", f"{ESCAPE}\nerror: two"])
    require("\x1b" not in told + ended.err, "a control character is shown")
    error_line(ended)


def cells_that_compute(bench: Bench, place: Path) -> None:
    """Texts in CSV that a spreadsheet takes for formulas; numbers stay numbers."""
    for first in ("=", "+", "-", "@", "\t", "\r"):
        require(csv_text([[first + "1"]]).lstrip('"').startswith("'"), f"{first!r} begins a cell")
    require(csv_text([[-1.5, "a=b", ""]]) == "-1.5,a=b,\n", "a cell was changed")


def cache_of_others(bench: Bench, place: Path) -> None:
    """Folders of the kernel cache that others can write, own or link elsewhere."""
    for mode in (0o777, 0o770, 0o702):
        folder = place / f"cache-{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        require(_own_folder(folder) != folder, f"a folder of mode {mode:o} is trusted")
    (place / "link").symlink_to(place)
    require(_own_folder(place / "link") != place / "link", "a link is trusted")


def downloads(bench: Bench, place: Path) -> None:
    """Files beside a download that are links, and a file that is another than published."""
    victim, path = place / "victim", place / "data"
    victim.write_text("as it was")
    for name in (".data.lock", "data.part"):
        (place / name).symlink_to(victim)
        with contextlib.suppress(DataError):
            download("http://127.0.0.1:9/data", path, Sha256("0" * 64))
        require(victim.read_text() == "as it was", f"{name} was followed")
        (place / name).unlink(missing_ok=True)
    path.write_text("first")
    download("http://127.0.0.1:9/data", path, known := checksum_of(path))
    path.write_text("second")
    line = _refused(lambda: download("http://127.0.0.1:9/data", path, known))
    require("checksum" in line, line)


def plugins_of_a_run(bench: Bench, place: Path) -> None:
    """A run that names a plug-in which lies in it, or outside."""
    run = _run(bench, place)
    config = runs.read_config(run)
    (run / "plugins").mkdir()
    (run / "plugins" / "evil.py").write_text("import os\nos.mkdir('made')\n")
    for source in (str(run / "plugins" / "evil.py"), "../../x.py", "evil"):
        entry = {"name": "../evil.py", "source": source, "sha256": "0" * 64}
        (run / "config.json").write_bytes(msgspec.json.encode({**config, "plugins": [entry]}))
        error_line(bench.run(JOBS["search"], place, ["search", "--resume", "runs/x"]))
    require(not (place / "made").exists(), "the plug-in ran")


SCENARIOS = (
    *(links, checkpoint_runs_code, checkpoint_of_another_kind, study_names_a_module, pickles),
    *(yaml_tags, tiny_files_that_fill_memory, names_that_steer_a_terminal, cells_that_compute),
    *(cache_of_others, downloads, plugins_of_a_run),
)


def check(bench: Bench, case: int, seed: int) -> None:
    """One of the scenarios."""
    scenario = SCENARIOS[case % len(SCENARIOS)]
    with bench.folder() as folder:
        try:
            scenario(bench, folder)
        except (Wrong, SgasError) as error:
            raise Wrong(f"{scenario.__name__}: {error}") from None


SMALL = len(SCENARIOS)
