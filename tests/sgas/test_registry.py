"""Plug-ins: what they add, where it is known, what a run keeps of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, edit
from toy_family import FAMILY, QUICK, QUICK_WORDS

import sgas.registry
from sgas.config import STRATEGIES
from sgas.errors import PluginError
from sgas.interface import load, search, train
from sgas.registry import plugged, recorded_in
from sgas_cnn.family import FAMILY as IMAGES
from sgas_gcn.family import FAMILY as GRAPHS

STRATEGY = """from sgas.deciding.scoring import edge_importance
from sgas.registry import strategy

@strategy("mine", help="importance alone")
def mine(alphas, history):
    return edge_importance(alphas)
"""
OPERATION = """import torch
from sgas.registry import operation
from {package}.ops.operation import Operation

@operation("mine", spaces=["{space}"])
class Mine(Operation):
    def forward(self, x{more}):
        return torch.tanh(x[..., ::self.stride, ::self.stride] if {strided} else x)
"""
OF_CLOUDS = {"package": "sgas_gcn", "space": "point", "more": ", neighbors", "strided": False}
OF_IMAGES = {"package": "sgas_cnn", "space": "image", "more": "", "strided": True}


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def plugin(here: Path) -> Path:
    """A file with the strategy `mine`."""
    (here / "own.py").write_text(STRATEGY)
    return here / "own.py"


def test_help_and_choices_know_an_addition_where_it_is_given(plugin: Path, cli: Cli) -> None:
    shown = cli("search", "--help", "--plugin", "own.py").out
    assert ",mine}" in shown and "mine: importance alone" in " ".join(shown.split())
    assert "--plugin" in shown
    assert "unknown value of --strategy 'mine'" in cli("search", "--strategy=mine").err
    assert "mine" not in STRATEGIES


@pytest.mark.parametrize(
    "verb", ["search", "train", "evaluate", "sweep", "show", "table", "replay"]
)
def test_every_verb_that_may_need_one_takes_a_plugin(verb: str, plugin: Path, cli: Cli) -> None:
    assert "--plugin PLUGIN" in cli(verb, "--plugin", "own.py", "--help").out


def test_a_run_finds_its_plugin_again(
    plugin: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["search", "--plugin", "own.py", "--strategy=mine", "--out=run", *QUICK_WORDS]
    assert cli(*words).status == 0
    assert Path("run/plugins/own.py").read_text() == STRATEGY
    ((name, source, sha256),) = recorded_in(Path("run"))
    assert (name, source, len(sha256)) == ("own.py", str(plugin), 64)
    records = Path("run/decisions.jsonl").read_text()
    for follower in (
        ["search", "--resume", "run"],
        ["replay", "run"],
        ["train", "run", "--epochs=1", "--out=trained"],
        ["evaluate", "trained"],
        ["show", "trained"],
    ):
        monkeypatch.setattr(sgas.registry, "_loaded", {})
        ended = cli(*follower)
        assert ended.status == 0, ended.err
        assert follower[0] != "replay" or "same decisions as recorded (mine)" in ended.out
    assert Path("run/decisions.jsonl").read_text() == records
    assert recorded_in(Path("trained")) == [(name, source, sha256)]


@pytest.fixture(params=["search --resume", "train", "evaluate"])
def follower(request: pytest.FixtureRequest, plugin: Path) -> Iterator[tuple[str, list[str]]]:
    """A run of a plug-in that is not loaded any more, and the words of what follows it."""
    search(FAMILY, plugins=[plugin], strategy="mine", out="run", quiet=True, **QUICK)
    train(FAMILY, "run", plugins=[plugin], epochs=1, out="trained", quiet=True)
    run = "trained" if request.param == "evaluate" else "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sgas.registry, "_loaded", {})
        yield run, [*request.param.split(), run]


@pytest.mark.parametrize("is_named", [True, False])
def test_another_text_is_refused_in_one_line(
    follower: tuple[str, list[str]], is_named: bool, plugin: Path, cli: Cli
) -> None:
    run, words = follower
    plugin.write_text(STRATEGY.replace("alphas)\n", "-alphas)\n"))
    message = cli(*words, *(["--plugin", "own.py"] if is_named else [])).err
    where = "given" if is_named else f"at {plugin}"
    assert message.startswith(f"error: {run} was begun with another own.py than that {where}: its ")
    assert f"differ from line 6 on; --plugin {run}/plugins/own.py names the one it" in message
    assert message.count("\n") == 1
    assert cli(*words, "--plugin", f"{run}/plugins/own.py").status == 0


def test_no_text_of_a_run_folder_runs_where_it_is_not_named(
    follower: tuple[str, list[str]], plugin: Path, cli: Cli
) -> None:
    run, words = follower
    plugin.unlink()
    kept, config = Path(run, "plugins/own.py"), Path(run, "config.json")
    message = cli(*words).err
    assert message.startswith(f"error: {run} was begun with plug-in own.py, and the plug-in file ")
    assert message.endswith(f"does not exist; name it: --plugin PATH (its text is in {kept})\n")
    edit(config, config.read_text().replace(str(plugin), str(kept)))
    message = cli(*words).err
    assert message == f"error: {kept} runs where it is named only: give --plugin {kept}\n"
    assert not sgas.registry._loaded
    assert cli(*words, "--plugin", str(kept)).status == 0


def test_the_same_command_with_another_text_is_another_run(plugin: Path, cli: Cli) -> None:
    words = ["search", "--plugin=own.py", "--strategy=mine", "--out=run", *QUICK_WORDS]
    assert cli(*words).status == 0
    plugin.write_text(STRATEGY + "# changed\n")
    assert cli(*words).is_refused("run was begun with other options: plugins was ['own.py ")
    other = search(FAMILY, plugins=[plugin], strategy="random", out="other", **QUICK)
    assert cli("search", "--resume", str(other.folder), "--plugin=own.py").status == 0


def test_a_run_without_plugins_refuses_one_at_resume(plugin: Path, cli: Cli) -> None:
    search(FAMILY, out="run", **QUICK)
    assert "plugins" not in json.loads(Path("run/config.json").read_text())
    ended = cli("search", "--resume", "run", "--plugin", "own.py")
    assert ended.is_refused("run was begun with no plug-in, and given are own.py ")
    assert cli("replay", "run", "--plugin=own.py", "--strategy=mine").status == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name\n", "own.py, line 1: ModuleNotFoundError: No module named"),
        ("x = 1\ndef f():\n    return x +\n", "own.py, line 3: SyntaxError: "),
        ("def f():\n    return 1 / 0\nf()\n", "own.py, line 2: ZeroDivisionError: "),
        ("import sys\nsys.exit(3)\n", "own.py, line 2: SystemExit: 3"),
        ("x = 1\n", "own.py adds nothing; call operation, strategy, dataset or space of"),
        (STRATEGY + STRATEGY, "own.py: the name 'mine' is taken: a strategy is called that there"),
        (STRATEGY.replace('"mine"', '"cri1"'), "own.py: the name 'cri1' is taken: a strategy is"),
        (
            "from sgas.registry import strategy\n@strategy('mine')\n"
            "class Mine: frees_edges = True\n",
            "own.py: strategy 'mine' lacks trains_paths, first_decision, score, decide, evidence, "
            "complete",
        ),
        (OPERATION.format(**OF_CLOUDS), "operation 'mine' is for space 'point'; sgas-toy has toy"),
        (
            "from toy_family import FAMILY\nfrom sgas.interface import search\n"
            "search(FAMILY, plugins=[__file__])\n",
            'put such calls under if __name__ == "__main__":',
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_told_in_one_line(
    plugin: Path, cli: Cli, text: str, message: str
) -> None:
    plugin.write_text(text)
    ended = cli("search", "--plugin", "own.py")
    assert ended.is_refused(message) and ended.err.startswith("error: plug-in ")
    assert not Path("runs").exists() and "mine" not in STRATEGIES
    with pytest.raises(PluginError, match="plug-in"):
        search(FAMILY, plugins=["own.py"])


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        (
            GRAPHS,
            OPERATION.format(**{**OF_CLOUDS, "more": ""}),
            r"Mine.forward does not take \(x, n",
        ),
        (IMAGES, OPERATION.format(**{**OF_IMAGES, "package": "sgas_gcn"}), "no class of sgas_cnn"),
        (GRAPHS, OPERATION.format(**OF_CLOUDS).replace('"mine"', '"gat"'), "'gat' is taken.*point"),
        (
            GRAPHS,
            OPERATION.format(**OF_CLOUDS).replace("def forward", "def backward"),
            "Mine lacks forward",
        ),
        (
            IMAGES,
            "from sgas.registry import dataset\n@dataset('digits', space='image')\n"
            "def load(split, data_root, seed): ...\n",
            "the name 'digits' is taken: a data set",
        ),
        (
            GRAPHS,
            "from sgas.registry import dataset\n@dataset('mine', space='point')\n"
            "def load(split, data_root, num_points, seed): ...\n",
            "data set 'mine' of space point: .*most_points",
        ),
    ],
)
def test_an_addition_that_lacks_something_is_refused(
    plugin: Path, family: Any, text: str, message: str
) -> None:
    plugin.write_text(text)
    before = {name: family.search_space(name).operations for name in family.spaces}
    with pytest.raises(PluginError, match=message), plugged(family, [plugin]):
        pass
    assert before == {name: family.search_space(name).operations for name in family.spaces}


def test_an_operation_is_a_column_while_its_plugin_is_named(plugin: Path) -> None:
    for family, of in ((GRAPHS, OF_CLOUDS), (IMAGES, OF_IMAGES)):
        plugin.write_text(OPERATION.format(**of))
        space = family.search_space(of["space"])
        before, table = space.operations, family.spaces[space.name].operations().table
        with plugged(family, [plugin]):
            assert space.operations == (*before, "mine") and "mine" in table
            assert family.operation_groups["mine"] == "own"
            with plugged(family, [plugin]):  # once more is once
                assert space.operations == (*before, "mine")
        assert space.operations == before and "mine" not in table
        assert "mine" not in family.operation_groups


def test_an_operation_of_a_run_is_there_when_its_result_is_opened(plugin: Path) -> None:
    plugin.write_text(OPERATION.format(**OF_CLOUDS))
    genotype = (
        "Genotype(normal=[('mine', 0), ('mine', 1), ('mine', 0), ('gat', 1), ('mine', 2), "
        "('skip_connect', 3)], normal_concat=range(1, 5))"
    )
    small = {"num_points": 32, "channels": 4, "num_cells": 1, "epochs": 1, "emb_dims": 8}
    trained = train(GRAPHS, genotype, "shapes", plugins=[plugin], preset="demo", **small)
    again = load(GRAPHS, trained.folder)
    assert "mine" in again.genotype.to_text() and "mine" in again._repr_svg_()
    assert sum(p.numel() for p in again.network.parameters()) == again.result["parameters"]
    assert "mine" not in GRAPHS.search_space("point").operations


def test_an_installed_plugin_goes_by_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    package = here / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "scores.py").write_text("from sgas.deciding.scoring import edge_importance\n")
    text = STRATEGY.replace("sgas.deciding.scoring", ".scores")
    (package / "additions.py").write_text(text)
    monkeypatch.syspath_prepend(str(here))
    point = EntryPoint("theirs", "their_package.additions", sgas.registry.GROUP)
    monkeypatch.setattr(sgas.registry, "entry_points", lambda group: [point])
    assert search(FAMILY, plugins=["theirs"], strategy="mine", out="run", **QUICK).decisions
    assert Path("run/plugins/additions.py").read_text() == text
    wrong = cli("search", "--plugin=thiers")
    assert wrong.is_refused("unknown plug-in 'thiers': did you mean theirs?")


def test_a_study_has_its_plugins_in_all_parts(plugin: Path, cli: Cli) -> None:
    words = ["sweep", "--plugin=own.py", "--strategies=mine", "--seeds=0", "--out=study"]
    words += [f"--search.{word[2:]}" for word in QUICK_WORDS] + ["--train.epochs=1"]
    assert cli(*words).status == 0
    assert Path("study/plugins/own.py").read_text() == STRATEGY
    assert Path("study/mine-0/train/plugins/own.py").read_text() == STRATEGY
    assert cli(*words).status == 0
    assert "mine" in cli("table", "study").out
    assert cli("show", "study").status == 0
    plugin.write_text(STRATEGY + "# changed\n")
    assert "plugins was ['own.py " in cli(*words).err
    jobs_of = Path("study/mine-0/search/config.json").read_text()
    assert str(plugin) in jobs_of
