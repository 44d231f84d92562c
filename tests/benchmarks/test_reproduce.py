"""The reproduction scripts: what they ask of the commands, and the page that they write.

The commands themselves are stood in for here; CI runs all scripts at scale tiny besides.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import all as every
import cifar10
import imagenet
import modelnet40
import msgspec
import pytest
import reproduction
from paper import DATA, Reproduction
from processes import Cli
from reproduction import main
from studies import write_study

from sgas.family import Family
from sgas.running.runs import RunFacts

FIGURES = {"cri1": 0.90, "cri2": 0.92, "darts": 0.89, "random": 0.88}
RESULT = {"parameters": 5, "flops": 7, "protocol": "clean"}


def figure(strategy: str, seed: int) -> float:
    return FIGURES[strategy] + 0.001 * seed


class Commands:
    """Stands in for the command line: writes what a command would, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.status = 0

    def __call__(self, family: Family, words: list[str]) -> int:
        self.asked.append(words)
        if self.status:
            return self.status
        values = dict(pairwise(words))
        act = {"sweep": self.sweep, "train": self.train, "evaluate": self.evaluate}[words[0]]
        act(family, values)
        return 0

    def sweep(self, family: Family, values: dict[str, str]) -> None:
        folder = Path(values["--out"])
        if not folder.exists():
            metric = "micro_f1" if "ppi" in str(folder) else "accuracy"
            strategies = values["--strategies"].split(",")
            space = "graph" if metric == "micro_f1" else None
            steps = 4 if family.name == "cnn" else 3
            write_study(
                folder, family, figure, strategies=strategies, seeds=range(2), num_steps=steps,
                metric=metric, space=space, validation=figure, protocol=values["--protocol"],
            )  # fmt: skip

    def train(self, family: Family, values: dict[str, str]) -> None:
        folder = Path(values.get("--resume") or values["--out"])
        folder.mkdir(parents=True, exist_ok=True)
        facts = RunFacts("cnn", "train", {}, {}, {}, {}, {}, environment={"torch": "2.13.0"})
        (folder / "config.json").write_bytes(msgspec.json.encode(facts))
        (folder / "result.json").write_text(json.dumps(RESULT))

    def evaluate(self, family: Family, values: dict[str, str]) -> None:
        folder = Path(values["evaluate"])
        (folder / "evaluation.json").write_text(json.dumps({"loss": 0.5, "accuracy": 0.75}))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, here: Path) -> Commands:
    found = Commands()
    monkeypatch.setattr(reproduction, "command", found)
    return found


def by_name(name: str) -> Reproduction:
    return next(found for found in every.REPRODUCTIONS if found.name == name)


def test_the_papers_column_stands_beside_ours(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(cifar10.REPRODUCTIONS, ["--scale", "tiny", "--out", "out"]) == 0
    written = (tmp_path / "out" / "table.md").read_text()
    ours = "3,908,868 | 7.95 ± 0.07 | 7.90 | 2 | 1,000 | clean |"
    assert f"| cri2 | 2.67 ± 0.21 | 2.44 | {ours}" in written
    assert "| cri1 | 2.66 ± 0.24 | 2.39 | 3,658,503 | – | – | 0 | – | clean |" in written
    assert "**Not the paper's setting**: digits, preset demo, protocol clean" in written
    assert "Fewer than ten seeds" in written and "cifar10.py" not in written.split("command")[0]
    assert "benchmarks/reproduce/" in written and "--scale tiny" in written
    for name in ("report.html", "ranks.svg"):
        assert (tmp_path / "out" / name).is_file()
    printed = capsys.readouterr().out
    assert printed.index("estimate 2 searches and 2 trainings") < printed.index("table    ")


def test_full_is_the_paper_and_says_its_hours_first(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.status = 2  # stop before anything is written
    assert main(cifar10.REPRODUCTIONS, ["--scale", "full", "--jobs", "4"]) == 2
    asked = commands.asked[0]
    assert asked[:5] == ["sweep", "--dataset", "cifar10", "--preset", "paper"]
    assert asked[asked.index("--protocol") + 1] == "paper" and asked[-2:] == ["--jobs", "4"]
    printed = capsys.readouterr().out
    assert "30 searches and 30 trainings" in printed and "hours of one GPU" in printed


def test_other_strategies_and_seeds_are_counted(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.status = 2
    main(cifar10.REPRODUCTIONS, ["--strategies", "cri1", "--seeds", "0-4"])
    assert "5 searches and 5 trainings" in capsys.readouterr().out
    assert commands.asked[0][commands.asked[0].index("--seeds") + 1] == "0-4"


def test_an_interrupted_script_ends_with_130_and_starts_nothing_else(commands: Commands) -> None:
    commands.status = 130
    assert main(every.REPRODUCTIONS, ["--scale", "tiny"]) == 130
    assert len(commands.asked) == 1


def test_published_cells_are_trained_once_and_gone_on_with(
    commands: Commands, tmp_path: Path
) -> None:
    half = tmp_path / "out" / "transfer" / "cri1-imagenet-2"
    commands.train(imagenet, {"--out": str(half)})  # type: ignore[arg-type]
    (half / "result.json").unlink()
    assert main(imagenet.REPRODUCTIONS, ["--out", "out"]) == 0
    trained = [words for words in commands.asked if words[0] == "train"]
    assert len(trained) == 6 and trained[0][1] == "cri1-imagenet-1"
    assert trained[1] == ["train", "--resume", "out/transfer/cri1-imagenet-2"]
    written = (tmp_path / "out" / "table.md").read_text()
    assert "| cri2 | 24.37 ± 0.22 | 24.13 | 5,444,064 | 25.00 ± 0.00 | 25.00 | 3 |" in written
    assert "have no finished seed in common" in written and "seeds: not named" in written
    commands.asked.clear()
    assert main(imagenet.REPRODUCTIONS, ["--out", "out"]) == 0
    assert commands.asked == []


def test_cells_of_modelnet10_are_trained_on_modelnet40(commands: Commands, tmp_path: Path) -> None:
    argv = ["--scale", "full", "--strategies", "cri1,random", "--out", "out"]
    assert main(modelnet40.REPRODUCTIONS, argv) == 0
    trained = [words for words in commands.asked if words[0] == "train"]
    assert len(trained) == 4 and trained[0][1] == "out/study/cri1-0/search"
    values = dict(pairwise(trained[0]))
    assert (values["--dataset"], values["--preset"]) == ("modelnet40", "paper")
    written = (tmp_path / "out" / "table.md").read_text()
    assert "| cri1 | 92.69 ± 0.20 | 92.87 | – | 75.00 ± 0.00 | 75.00 | 2 | 5 | paper |" in written
    assert "Data set, sizes and epochs are the paper's" in written


def test_where_the_data_are_missing_it_says_where_they_are_wanted(
    commands: Commands, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(cifar10.REPRODUCTIONS, ["--scale", "small", "--data", "nowhere"]) == 2
    told = capsys.readouterr().err
    assert f"there is no data at {tmp_path}/nowhere/cifar10_small" in told and "--data" in told
    assert not commands.asked


@pytest.mark.parametrize("scale", reproduction.SCALES)
@pytest.mark.parametrize("name", [found.name for found in every.REPRODUCTIONS])
def test_every_scale_asks_for_options_that_exist(name: str, scale: str, cli: Cli) -> None:
    found = by_name(name)
    size, package = found.scales[scale], __import__(found.family, fromlist=["FAMILY"])
    verb = ["train", found.cells[0][0]] if found.cells else ["sweep", "--seeds", size.seeds]
    # Any set of the same space has the same options.
    dataset = SAME_SPACE[found.metric] if size.dataset.startswith(DATA) else size.dataset
    words = [*verb, "--dataset", dataset, "--preset", size.preset, *size.options]
    ended = cli(*words, "--print_config", family=package.FAMILY)
    assert ended.status == 0, ended.err


SAME_SPACE = {"error": "digits", "accuracy": "shapes", "micro_f1": "tissues"}


def test_small_has_three_seeds_of_both_criteria_darts_and_random() -> None:
    for found in (by_name(name) for name in ("cifar10", "modelnet40", "ppi")):
        small = found.scales["small"]
        assert small.strategies == "cri1,cri2,darts,random" and small.seeds == "0-2"
        assert 12 * (small.search_minutes + small.train_minutes) / 2 <= 180  # on 2 cores
