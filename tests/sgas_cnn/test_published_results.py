"""The paper's runs: what the table prints, and that the data are those of the authors' files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Cli

from sgas.studies.results import published_datasets, published_results
from sgas.studies.summary import summarise
from sgas_cnn.family import FAMILY


def test_the_table_prints_the_papers_figures(cli: Cli) -> None:
    printed = cli("table", "--published", "cifar10", family=FAMILY).out
    for figure in ("2.66 ± 0.24", "2.67 ± 0.21", "0.556", "0.422", "2.39", "2.44"):
        assert figure in printed
    assert "No random baseline" in printed and "Protocol paper" in printed
    assert "sgas-cnn table --published cifar10" in printed


def test_json_has_the_same_figures(cli: Cli) -> None:
    found = cli("table", "--published", "cifar10", "--json", family=FAMILY).json
    taus = {row["strategy"]: row["correlation"] for row in found["ranks"] if row["of"] == "ranks"}
    assert taus["cri1"]["tau"] == pytest.approx(5 / 9) and taus["cri1"]["n"] == 10
    assert taus["cri2"]["tau"] == pytest.approx(19 / 45)
    assert taus["cri1"]["low"] < 5 / 9 < taus["cri1"]["high"]
    assert taus["cri1"]["p_value"] < 0.05 < taus["cri2"]["p_value"]
    assert len(found["runs"]) == 20 and not found["comparisons"]


def test_imagenet_has_three_runs_of_each_criterion() -> None:
    summary = summarise(published_results("sgas_cnn", "imagenet"))
    best = {row.strategy: (row.test.n, row.test.best) for row in summary.strategies}
    assert best == {"cri1": (3, 24.22), "cri2": (3, 24.13)}


def test_the_runs_are_those_of_the_authors_files(golden: Path) -> None:
    networks = json.loads((golden / "networks.json").read_text())["networks"]
    by_name = {network["name"].lower().replace("_", "-"): network for network in networks}
    results = published_results("sgas_cnn", "cifar10")
    assert len(results.trials) == sum("cifar10" in n["published"] for n in networks)
    for trial in results.trials:
        published = by_name[trial.name]["published"]["cifar10"]
        count = by_name[trial.name]["counts"]["cifar10_c36_l20"]
        assert (trial.search, trial.test, trial.test_rank) == (
            published["search_val_error"],
            published["test_error"],
            published["ranking"],
        )
        assert (trial.parameters, trial.flops) == (count["params"], 2 * count["macs"])
    by_alias = {
        n["published"]["imagenet"]["alias"].lower().replace("_", "-"): n
        for n in networks
        if "imagenet" in n["published"]
    }
    transferred = published_results("sgas_cnn", "imagenet").trials
    assert {trial.name for trial in transferred} == set(by_alias)
    for trial in transferred:
        published = by_alias[trial.name]["published"]
        assert trial.test == published["imagenet"]["top1_error"]
        assert trial.search == published["cifar10"]["search_val_error"]


@pytest.mark.parametrize(
    ("name", "setting", "key"),
    [
        ("modelnet40", "modelnet40_l9_c128_k20", "overall_accuracy"),
        ("ppi", "ppi_l5_c512", "micro_f1"),
    ],
)
def test_graph_networks_are_those_of_the_authors_files(
    golden: Path, name: str, setting: str, key: str
) -> None:
    networks = json.loads((golden / "networks.json").read_text())["networks"]
    found = [network for network in networks if setting in network["counts"]]
    trials = {trial.name: trial for trial in published_results("sgas_gcn", name).trials}
    assert len(trials) == len(found) == 30
    for network in found:
        trial = trials[network["name"].lower().replace("_", "-")]
        readme = network["published"].get("readme", [])
        accuracy = [entry[key] for entry in readme if entry["setting"] == setting]
        assert trial.parameters == network["counts"][setting]["params"]
        assert ([] if trial.test is None else [trial.test]) == accuracy


def test_names_of_published_results(cli: Cli) -> None:
    assert published_datasets("sgas_cnn") == ["cifar10", "imagenet"]
    assert published_datasets("sgas_gcn") == ["modelnet40", "ppi"]
    wrong = cli("table", "--published", "cifar", family=FAMILY)
    assert wrong.is_refused("did you mean cifar10?")
