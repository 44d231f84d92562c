"""Runs of the toy family that commit a3a66eb wrote, stopped in an epoch, go on to the same end.

`tests/old_runs` has a search and a training as SIGTERM left them, and what the same commands gave
when nothing stopped them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import Cli
from toy_family import FAMILY

from sgas.cli import main
from sgas.errors import InputError
from sgas.running.runs import read_genotype, read_metrics, read_records
from sgas.running.settings import open_settings

OLD = Path(__file__).parents[1] / "old_runs"


@pytest.fixture(autouse=True)
def old_runs(here: Path) -> None:
    shutil.copytree(OLD, here, dirs_exist_ok=True)


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("verb", ["search", "train"])
def test_an_old_run_is_resumed_to_the_same_end(here: Path, verb: str) -> None:
    began = len(read_metrics(here / verb))
    assert main(FAMILY, [verb, "--resume", verb]) == 0
    ours, wanted = here / verb, here / f"{verb}-to-its-end"
    metrics, expected = (without_seconds(read_metrics(folder)) for folder in (ours, wanted))
    assert 0 < began < len(metrics) == len(expected)
    for line, other in zip(metrics, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    genotypes = [read_genotype(folder) for folder in (ours, wanted)]
    unknown = genotypes[0].meta.pop("without_evidence", [])
    assert verb == "train" or len(unknown) > 0  # what was decided before records had evidence
    assert genotypes[0] == genotypes[1]
    if verb == "train":
        results = [json.loads((folder / "result.json").read_text()) for folder in (ours, wanted)]
        assert results[0].pop("protocol") == results[1].pop("protocol")
        assert results[0].pop("provenance") == (
            "cell searched on blobs (protocol clean); network trained on blobs (protocol clean)"
        )
        assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("verb", ["search", "train"])
def test_an_old_run_keeps_what_was_usual_then(here: Path, verb: str) -> None:
    settings, config = open_settings(FAMILY, here / verb)
    assert "norm_batches" not in config["loop"]
    assert settings.loop.norm_batches == 0 < type(settings.loop)().norm_batches


@pytest.mark.parametrize("space", [None, {}, "moon"])
def test_a_space_that_there_is_none_of_is_told(here: Path, space: Any) -> None:
    config = json.loads((here / "search" / "config.json").read_text())
    config["run"]["space"] = space
    (here / "search" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"search space in .*config\.json"):
        open_settings(FAMILY, here / "search")


def test_an_old_search_is_replayed(here: Path, cli: Cli) -> None:
    replayed = cli("replay", "search", "--json").json
    assert replayed["same"] is True and replayed["epochs"] == 3
    recorded = [record for record in read_records(here / "search") if record.edge is not None]
    assert [line["edge"] for line in replayed["decisions"]] == [r.edge for r in recorded]
