"""The documentation: each block that can be run is run, pages lead somewhere, the site is built."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import Cli
from small_models import FAMILIES

from sgas import interface
from sgas.config import STRATEGIES
from sgas.running.settings import option_names, presets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).with_suffix("").as_posix(): path for path in DOCS.rglob("*.md")}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.S | re.M)
RUNNABLE = [name for name, path in PAGES.items() if BLOCK.search(path.read_text())]
OWN = [family for name, family in FAMILIES.items() if name != "toy"]
# What a reader runs is as long and as large as its preset has it.
SHORT: dict[str, dict[str, Any]] = {
    "search": {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0, "channels": 4},
    "train": {"epochs": 1, "channels": 4},
}
WORDS = {verb: [f"--{k}={v}" for k, v in values.items()] for verb, values in SHORT.items()}
WORDS["sweep"] = [f"--{verb}.{k}={v}" for verb in SHORT for k, v in SHORT[verb].items()]
WORDS["sweep"] += ["--strategies=random", "--seeds=0"]
FEW_POINTS = {"search": ["--num_points=32"], "sweep": ["--search.num_points=32"]}


def commands(block: str) -> Iterator[tuple[Any, list[str]]]:
    """The family and the words of each command of a block."""
    for line in block.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True)
        yield FAMILIES[program.removeprefix("sgas-")], words


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_the_blocks_of_a_page_run(
    name: str,
    here: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("docs/shapes-run", "examples"):
        shutil.copytree(ROOT / folder, here / folder)
    for verb, short in SHORT.items():
        monkeypatch.setattr(interface, verb, partial(getattr(interface, verb), **short))
    monkeypatch.syspath_prepend(here)
    names: dict[str, object] = {}
    for kind, block, output in BLOCK.findall(PAGES[name].read_text()):
        printed = ""
        capsys.readouterr()
        if kind == "python":
            exec(block, names)
            printed = capsys.readouterr().out
        else:
            for family, words in commands(block):
                few = FEW_POINTS.get(words[0], ()) if "shapes" in words else ()
                ended = cli(*words, *WORDS.get(words[0], ()), *few, family=family)
                assert ended.status == 0, ended.err
                printed += ended.out
        assert printed or "print(" not in block
        assert output in ("", printed)


def test_pages_lead_where_they_say() -> None:
    for name, page in PAGES.items():
        for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / link).exists(), f"{name} leads to {link}"


def test_the_site_is_built_and_has_every_option_and_docstring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sphinx = pytest.importorskip("sphinx.cmd.build", reason="Sphinx is not installed")
    monkeypatch.setattr(sys, "path", sys.path[:])  # to which conf.py adds
    status = sphinx.main(["-qW", "--keep-going", str(DOCS), str(tmp_path)])
    assert (status, *capsys.readouterr()) == (0, "", "")
    text = {}
    for name in PAGES:
        html = (tmp_path / f"{name}.html").read_text()
        text[name] = " ".join(re.sub(r"<[^>]+>", "", html).split())
    options = {
        f"--{name}"
        for family in OWN
        for space in family.spaces
        for verb in ("search", "train")
        for name in option_names(family, verb, space)
    }
    named = {name for family in OWN for space in family.spaces for name in presets(family, space)}
    assert options - set(text["reference/options"].split()) == set()
    assert {*named, *STRATEGIES} - set(text["presets"].split()) == set()
    assert "Searches a cell and returns what was found" in text["reference/python"]
    assert "checkpoint.pt everything that resuming needs" in text["reference/files"]
