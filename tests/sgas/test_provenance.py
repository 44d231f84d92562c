"""No figure is called cleaner than what made it, whichever way it came from a search to a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from processes import Cli, edit
from small_models import FAMILIES
from studies import write_study
from sweeps import sweep
from toy_family import FAMILY as TOY
from toy_family import QUICK

import sgas.interface
from sgas.cells.genotype import Genotype
from sgas.protocols import cell_in_words, cell_protocol, provenance, worst
from sgas.running.trained import read_result
from sgas.studies.results import results_of
from sgas.studies.study import read_study


def test_pasted_text_and_cells_without_notes_are_unknown(here: Path, cli: Cli) -> None:
    searched = sgas.interface.search(TOY, quiet=True, protocol="paper", **QUICK)
    assert cell_protocol(searched.genotype.meta) == "paper"
    text = searched.genotype.to_text()
    Path("cell.txt").write_text(text)
    for cell in (Genotype.from_text(text, "toy"), "cell.txt", text):
        trained = sgas.interface.train(TOY, cell, "blobs", epochs=1, quiet=True)
        assert trained.result["protocol"] == trained.evaluate()["protocol"] == "unknown"
        assert "cell of unknown origin" in trained.result["provenance"]
    of_result = sgas.interface.train(TOY, searched, epochs=1, quiet=True, protocol="clean")
    of_object = sgas.interface.train(TOY, searched.genotype, epochs=1, quiet=True, protocol="clean")
    assert of_result.result["protocol"] == of_object.result["protocol"] == "paper"
    assert cli("show", str(of_result.folder), "--json").json["protocol"] == "paper"


def test_files_of_before_are_called_what_made_them(here: Path) -> None:
    """Results used to hold the protocol of the training alone."""
    searched = sgas.interface.search(TOY, quiet=True, protocol="paper", **QUICK)
    trained = sgas.interface.train(TOY, searched, epochs=1, quiet=True, protocol="clean")
    trained.evaluate()
    for name in ("config.json", "result.json", "evaluation.json"):
        kept = json.loads((trained.folder / name).read_text())
        del kept["provenance"]
        kept["protocol"] = "clean"
        edit(trained.folder / name, json.dumps(kept))
    assert read_result(trained.folder)["protocol"] == "paper"
    assert sgas.interface.load(TOY, trained.folder).evaluate()["protocol"] == "paper"


@pytest.mark.parametrize("name", ["gcn", "cnn"])
def test_every_published_cell_is_of_protocol_paper(name: str) -> None:
    (family,) = [family for family in FAMILIES.values() if family.name == name]
    for cell in family.published_names():
        notes = family.load_published(cell).meta
        assert notes["protocol"] == "paper" and notes["dataset"] in family.datasets
    best, words = {
        "gcn": ("cri2-modelnet-best", "modelnet10 with its test split"),
        "cnn": ("cri2-cifar-best", "cifar10"),
    }[name]
    notes = family.load_published(best).meta
    assert cell_in_words(notes) == f"cell searched on {words} (protocol paper)"


def test_a_study_is_called_by_its_worst_part(here: Path, cli: Cli) -> None:
    def figure(strategy: str, seed: int) -> float:
        return 0.5 + seed / 100

    mixes = {"paper": {"searched_by": "paper"}, "unknown": {"searched_by": "nobody's"}}
    mixes["clean"] = {}
    for worst_of, given in mixes.items():
        folder = write_study(here / worst_of, TOY, figure, **given)
        results = results_of(read_study(folder))
        assert results.protocol == results.stamp["protocol"] == worst_of
        table = cli("table", str(folder), "--json").json
        assert table["protocol"] == worst_of
        warned = f"Protocol {worst_of}" in " ".join(table["warnings"])
        assert warned == (worst_of != "clean")
        assert cli("show", str(folder), "--out", f"page-{worst_of}").status == 0
        (page,) = Path(f"page-{worst_of}").glob("*.html")
        assert f"<dd>{worst_of}</dd>" in page.read_text()


def test_a_published_cell_is_paper_from_its_training_to_the_page(here: Path, cli: Cli) -> None:
    family, name = FAMILIES["cnn"], "cri2-cifar-best"
    small = "--num_cells 3 --channels 2 --epochs 1 --batch_size 256 --threads 1".split()
    argv = ["train", name, "--dataset", "digits", *small, "--protocol", "clean", "--out", "trained"]
    words = "cell searched on cifar10 (protocol paper); network trained on digits (protocol clean)"
    assert f"data  {words} · protocol paper" in cli(*argv, family=family).err
    for verb in ("evaluate", "show"):
        figures = cli(verb, "trained", "--json", family=family).json
        assert (figures["protocol"], figures["provenance"]) == ("paper", words)
    # The same run in a study: the figures make it paper, whatever the study itself says.
    folder = write_study(here / "study", family, lambda *_: 0.5, strategies=["cri2"], seeds=[0])
    shutil.rmtree(folder / "cri2-0" / "train")
    Path("trained").rename(folder / "cri2-0" / "train")
    table = cli("table", "study", "--json", family=family).json
    assert table["protocol"] == "paper" and "Protocol paper" in " ".join(table["warnings"])
    assert cli("show", "study", "--out", "page", family=family).status == 0
    (page,) = (path.read_text() for path in Path("page").glob("*.html"))
    assert "<dd>paper</dd>" in page and "Protocol paper" in page


def test_a_sweep_by_protocol_paper_is_paper_everywhere(tmp_path: Path, cli: Cli) -> None:
    more = ("--protocol", "paper", "--seeds", "0", "--strategies", "random", "--threads", "1")
    assert sweep(tmp_path, *more).status == 0
    (entry,) = read_study(tmp_path / "study").entries
    assert results_of(read_study(tmp_path / "study")).stamp["machine"].endswith("threads 1")
    assert entry.genotype is not None and entry.result is not None
    assert cell_protocol(entry.genotype.meta) == entry.result["protocol"] == "paper"
    assert cli("table", str(tmp_path / "study"), "--json").json["protocol"] == "paper"


def test_the_worst_of_all() -> None:
    assert worst("clean") == worst() == "clean"
    assert worst("clean", "unknown") == "unknown" and worst("unknown", "paper") == "paper"
    notes = {"published_name": "Cri2_ModelNet_1"}  # as files of before had them
    made = provenance({"dataset": "/data/mine", "protocol": "clean"}, notes)
    assert made["protocol"] == "paper"
    assert made["provenance"].endswith("; network trained on mine (protocol clean)")
