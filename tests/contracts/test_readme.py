"""README and docs held to what there is: commands, options, paths, presets, code and figures."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path

import pytest
from processes import Cli
from small_models import FAMILIES
from toy_family import QUICK, QUICK_WORDS

import sgas_gcn
from sgas.cli import VERBS
from sgas.running.settings import LOOPS, option_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = "\n".join([README, *(path.read_text() for path in (ROOT / "docs").rglob("*.md"))])
BLOCKS = re.findall(r"^```[^\n]*\n(.*?)^```$", TEXT, re.S | re.M)
COMMANDS = re.findall(r"^(?:\$ )?(sgas-(?:gcn|cnn) [^#\n]+)", "\n".join(BLOCKS), re.M)
COMMANDS += re.findall(r"`(sgas-(?:gcn|cnn) [^`]+)`", TEXT)
TREES = ("sgas", "sgas_gcn", "sgas_cnn", "tests")


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_commands_and_options_are_there(here: Path, cli: Cli) -> None:
    helps = {
        (family.command, verb): cli(verb, "--help", family=family).out
        for name, family in FAMILIES.items()
        for verb in VERBS
        if name != "toy"
    }
    assert len(COMMANDS) > 50
    for command in COMMANDS:
        program, verb, *words = command.split()
        for name in re.findall(r"--(\w+)", " ".join(words)):
            assert f"--{name}" in helps[program, verb], command
    scripts = re.findall(r"(?:benchmarks|scripts)/\w+\.py", TEXT)
    options = {
        f"--{option}"
        for name, family in FAMILIES.items()
        for space in family.spaces
        for verb in LOOPS
        for option in option_names(family, verb, space)
        if name != "toy"
    }
    texts = [*helps.values(), *((ROOT / path).read_text() for path in scripts)]
    known = "\n".join([*texts, *options])
    assert [name for name in re.findall(r"`--(\w+)", TEXT) if f"--{name}" not in known] == []


def test_paths_are_there() -> None:
    tops = "docs|benchmarks|examples|tests|scripts|sgas|sgas_gcn|sgas_cnn"
    paths = re.findall(rf"[(`]((?:{tops})/[\w./*-]+)", TEXT)
    assert len(paths) > 10
    assert [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []
    (tree,) = [block for block in BLOCKS if block.startswith("sgas/ ")]
    for name in re.findall(r"[\w.]+(?=/)|\w+\.py", tree):
        under = [path for top in TREES for path in (ROOT / top).rglob(name)]
        assert under or (ROOT / name).exists(), name


def test_presets_are_the_defaults_of_what_they_say() -> None:
    families = [family for name, family in FAMILIES.items() if name != "toy"]
    rows = [
        cells(line) for line in README.splitlines() if re.match(r"\| `(demo|small|paper)", line)
    ]
    assert len(rows) == 3
    for presets, use in rows:
        preset = re.findall(r"`(\w+)`", presets)[0]
        datasets = re.findall(r"`(\w+)`", use.partition("default for")[2]) or ["/my/own"]
        for dataset in datasets:
            known = [f for f in families if dataset in f.datasets] or families
            for family in known:
                spaces = [s for s in family.spaces if dataset in family.spaces[s].datasets]
                for space in spaces[:1] or family.spaces:
                    assert family.default_preset(dataset, space) == preset, (dataset, space)


def test_a_search_writes_the_files_that_it_lists(here: Path, cli: Cli) -> None:
    assert cli("search", *QUICK_WORDS, "--out", "run").status == 0
    (rows,) = re.findall(r"\| in the run folder of a search \|.*?\n\n", TEXT, re.S)
    names = [name for row in rows.splitlines() for name in re.findall(r"`(.+?)`", cells(row)[0])]
    assert len(names) > 10
    assert [name for name in names if not list(Path("run").glob(name))] == []


def test_the_python_code_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    small = {"num_points": 32, "channels": 4, "batch_size": 270}
    monkeypatch.setattr(sgas_gcn, "search", functools.partial(sgas_gcn.search, **small, **QUICK))
    monkeypatch.setattr(sgas_gcn, "train", functools.partial(sgas_gcn.train, **small))
    exec(code.replace("epochs=30", "epochs=1"), {})
    accuracy, classes = capsys.readouterr().out.splitlines()[-2:]
    assert 0 <= float(accuracy) <= 1 and len(ast.literal_eval(classes)) == 2


@pytest.mark.parametrize("study", ["modelnet10", "ppi"])
def test_results_are_those_of_the_stored_studies(study: str) -> None:
    table = json.loads((ROOT / f"benchmarks/results/{study}-small/table.json").read_text())
    link = rf"^\| \[.+\]\((?:\.\./)?benchmarks/results/{study}-small/table.md\)"
    rows = [cells(line) for line in TEXT.splitlines() if re.match(link, line)]
    assert table["protocol"] == "clean" and len(rows) == 2  # of README and of the docs
    for row in rows:
        given = dict(zip(("cri1", "cri2", "darts", "random"), row[2:], strict=False))
        for line in table["strategies"]:
            mean, sd = (float(figure) for figure in given[line["strategy"]].split(" ± "))
            assert line["seeds"] == [0, 1, 2]
            assert (mean, sd) == (round(line["test"]["mean"], 1), round(line["test"]["sd"], 1))
            del given[line["strategy"]]
        assert set(given.values()) <= {"–"}


def test_the_published_cell_has_the_parameters_that_it_is_said_to_have(
    here: Path, cli: Cli
) -> None:
    sizes = ("--preset", "small", "--num_classes", "10", "--in_channels", "3")
    shown = cli("show", "cri2-modelnet-best", *sizes, "--json", family=FAMILIES["gcn"]).json
    assert f"{shown['params']:,} parameters" in TEXT
    assert shown["protocol"] == "paper" and "its test split" in shown["provenance"]


def test_the_papers_runs_are_printed_as_they_are_quoted(cli: Cli) -> None:
    (quoted,) = re.findall(
        r"table --published cifar10` prints the\nauthors. runs \((\S+ ± \S+) and (\S+ ± \S+)", TEXT
    )
    printed = cli("table", "--published", "cifar10", family=FAMILIES["cnn"]).out
    assert all(figure in printed for figure in quoted)
