"""`table STUDY` and `show STUDY`: the same figures in every form, and what they cannot say."""

from __future__ import annotations

import csv
import io
import re
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from drawn_searches import assert_apart, assert_inside
from processes import Cli
from studies import drawn_genotype, write_study
from toy_family import FAMILY, SPACE

from sgas.cli import main
from sgas.errors import InputError
from sgas.reports import draw_agreement
from sgas.reports.agreement import choices_of
from sgas.studies.figures import draw_figures, mean_interval
from sgas.studies.ranks import draw_ranks
from sgas.studies.results import Results, Trial, results_of
from sgas.studies.standings import tables_of
from sgas.studies.study import Part, State, change_parts, read_study
from sgas.studies.summary import summarise

SVG = "{http://www.w3.org/2000/svg}"
GAIN = {"cri1": 0.03, "cri2": 0.05, "random": 0.0}


def accuracy(strategy: str, seed: int) -> float:
    return 0.80 + GAIN[strategy] + 0.001 * ((seed * 7) % 10)


def of_search(strategy: str, seed: int) -> float:
    return accuracy(strategy, seed) - 0.2


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Ten seeds of three strategies."""
    of = {"validation": of_search, "seeds": range(10), "num_steps": 2}
    return write_study(tmp_path / "study", FAMILY, accuracy, **of)


def test_the_figures_are_those_of_the_runs(study: Path, cli: Cli) -> None:
    found = cli("table", str(study), "--json").json
    by_name = {row["strategy"]: row for row in found["strategies"]}
    values = [100 * accuracy("cri2", seed) for seed in range(10)]
    test = by_name["cri2"]["test"]
    assert test["n"] == 10 and test["mean"] == pytest.approx(statistics.fmean(values))
    assert test["sd"] == pytest.approx(statistics.stdev(values))
    assert (test["best"], test["worst"]) == pytest.approx((max(values), min(values)))
    assert by_name["cri2"]["search_seconds"] == 61.0
    assert by_name["cri2"]["parameters"] == pytest.approx(1004.5)
    assert by_name["cri2"]["flops"] == pytest.approx(2004.5)
    assert by_name["cri2"]["best_run"] == "cri2-7"  # 7 * 7 % 10 is 9
    taus = {row["strategy"]: row["correlation"]["tau"] for row in found["ranks"]}
    assert taus == {"cri1": 1.0, "cri2": 1.0, "random": 1.0, "all": 1.0}
    assert all(row["correlation"]["p_value"] < 0.001 for row in found["ranks"])
    against = {(r["first"], r["second"]): r for r in found["comparisons"]}
    pair = against["cri2", "random"]
    assert pair["difference"]["mean"] == pytest.approx(5.0)
    assert "cri2 is better than random by 5.00 % over 10 seeds" in pair["verdict"]
    assert "cri2 is better than cri1 by 2.00 %" in against["cri1", "cri2"]["verdict"]
    assert "best mean of 3 strategies" in found["verdict"] and "cri2" in found["verdict"]


def test_every_form_names_what_it_rests_on(study: Path, cli: Cli) -> None:
    named = ("sgas-toy sweep --dataset blobs", "clean", "torch 2.13.0", "0, 1, 2, 3", "cpu")
    for shape in ("text", "markdown", "json"):
        ended = cli("table", str(study), "--format", shape)
        assert ended.status == 0, ended.err
        assert all(word in ended.out for word in named), (shape, ended.out)
        assert "85.45" in ended.out  # the mean of cri2, in percent
    rows = list(csv.DictReader(io.StringIO(cli("table", str(study), "--format", "csv").out)))
    assert [row["name"] for row in rows if row["row"] == "strategy"] == ["cri1", "cri2", "random"]
    cri2 = next(row for row in rows if row["name"] == "cri2" and row["row"] == "strategy")
    assert float(cri2["mean"]) == pytest.approx(85.45) and cri2["seeds"] == "0 1 2 3 4 5 6 7 8 9"
    assert cri2["protocol"] == "clean" and cri2["command"].startswith("sgas-toy sweep")
    assert sum(row["row"] == "comparison" for row in rows) == 3


def test_a_file_takes_the_table_and_the_picture_lies_in_the_study(
    study: Path, tmp_path: Path, cli: Cli
) -> None:
    out_file = tmp_path / "new" / "table.md"
    ended = cli("table", str(study), "--format", "markdown", "--out", str(out_file))
    assert ended.status == 0, ended.err
    assert ended.out == f"picture  {study / 'ranks.svg'}\n"
    assert "| cri2 | 10 | 85.45 ± 0.30 |" in out_file.read_text()
    assert (study / "ranks.svg").read_text().startswith("<svg")


def test_where_the_picture_cannot_be_written_the_table_is_printed_all_the_same(
    study: Path, cli: Cli
) -> None:
    (study / "ranks.svg").mkdir()
    ended = cli("table", str(study))
    assert ended.status == 0 and "85.45" in ended.out and "picture" not in ended.out, ended.err
    ended = cli("table", str(study), "--picture", str(study / "ranks.svg"))
    assert ended.status == 2 and "cannot write" in ended.err and ended.err.count("\n") == 1


def test_few_seeds_and_no_random_baseline_are_told(tmp_path: Path, cli: Cli) -> None:
    few = {"strategies": ("cri1", "cri2"), "seeds": (0, 1, 2)}
    folder = write_study(tmp_path / "few", FAMILY, accuracy, **few)
    found = cli("table", str(folder), "--json").json
    told = " ".join(found["warnings"])
    assert "Fewer than ten seeds (cri1 3, cri2 3)" in told
    assert "No random baseline stands beside" in told
    small = "n = 3 is too small to tell cri1 from cri2: no outcome could have given p below 0.25."
    assert found["comparisons"][0]["verdict"] == small
    ten = cli("table", str(folder), "--metric", "error", "--json").json
    assert ten["strategies"][1]["test"]["mean"] == pytest.approx(14.6, abs=0.2)
    assert ten["verdict"].startswith("error in %: cri1 16.")
    assert ten["verdict"].endswith("too few seeds to name a best.")


def test_ten_seeds_with_a_baseline_have_no_such_warning(study: Path) -> None:
    told = " ".join(summarise(results_of(read_study(study))).warnings)
    assert "Fewer than ten" not in told and "No random baseline" not in told


def test_a_verdict_agrees_with_its_p_where_n_differ(tmp_path: Path) -> None:
    """Holm multiplies the fourth smallest of six p by three: 7 seeds can tell beside 10."""

    def figure(strategy: str, seed: int) -> float:
        return {"cri1": 0.7, "cri2": 0.6, "darts": 0.4, "random": 0.5}[strategy] + seed / 1000

    names = ("cri1", "cri2", "darts", "random")
    folder = write_study(tmp_path / "unequal", FAMILY, figure, seeds=range(10), strategies=names)
    change_parts(folder, {f"cri2-{seed}/evaluate": Part() for seed in range(7, 10)})
    for seed in range(7, 10):
        (folder / f"cri2-{seed}" / "train" / "evaluation.json").unlink()
    rows = summarise(results_of(read_study(folder))).comparisons
    assert sorted(row.difference.n for row in rows if row.difference) == [7, 7, 7, 10, 10, 10]
    for row in rows:
        assert row.p_holm is not None
        assert ("is better than" in row.verdict) == (row.p_holm <= 0.05)
    assert max(row.p_holm or 0.0 for row in rows) == pytest.approx(3 / 64)


def test_three_seeds_have_no_best(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "three", FAMILY, accuracy, seeds=(0, 1, 2))
    verdict = summarise(results_of(read_study(folder))).verdict
    assert "best mean" not in verdict and verdict.endswith("too few seeds to name a best.")
    assert all(f"{name} " in verdict for name in ("cri1", "cri2", "random"))
    one = write_study(tmp_path / "one", FAMILY, accuracy, seeds=(0, 1), strategies=("cri2",))
    assert summarise(results_of(read_study(one))).verdict.startswith("cri2: accuracy ")


def test_protocol_paper_is_labelled_and_has_its_best_epoch(tmp_path: Path) -> None:
    of = {"protocol": "paper", "result": {"best_test_epoch_accuracy": 0.91}}
    folder = write_study(tmp_path / "paper", FAMILY, accuracy, **of)
    summary = summarise(results_of(read_study(folder)))
    assert any("Protocol paper" in warning for warning in summary.warnings)
    assert summary.strategies[0].best_epoch.mean == pytest.approx(91.0)
    header = next(iter(tables_of(summary).values())).header
    assert "best test epoch" in header


def test_failed_and_unfinished_runs_are_told_and_left_out(study: Path, cli: Cli) -> None:
    failed = Part(State.FAILED, log="cri1-0/train.log", error="out of memory")
    change_parts(study, {"cri1-0/train": failed, "cri1-0/evaluate": Part()})
    found = cli("table", str(study), "--json").json
    by_name = {row["strategy"]: row for row in found["strategies"]}
    assert by_name["cri1"]["test"]["n"] == 9 and by_name["cri1"]["asked"] == 10
    told = " ".join(found["warnings"])
    assert "1 of 30 runs have no test figure yet" in told
    assert "cri1-0/train failed: out of memory" in told
    pair = next(r for r in found["comparisons"] if r["first"] == "cri1")
    assert pair["difference"]["n"] == 9 and 0 not in pair["seeds"]


def test_a_study_without_any_figure_has_a_table(tmp_path: Path, cli: Cli) -> None:
    folder = write_study(tmp_path / "empty", FAMILY, accuracy, seeds=(0,))
    waiting = {f"{s}-0/{p}": Part() for s in GAIN for p in ("search", "train", "evaluate")}
    change_parts(folder, waiting)
    ended = cli("table", str(folder))
    assert "No run has been evaluated on the test split yet." in ended.out, ended.err
    ended = cli("show", str(folder))
    assert ended.status == 0 and (folder / "report.html").is_file(), ended.err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["table"], "study is missing"),
        (["table", "nowhere"], "nowhere is not a study"),
        (["table", "study", "--format", "html"], "unknown value of --format 'html'"),
        (["table", "study", "--metric", "acuracy"], "did you mean accuracy?"),
        (["table", "study", "--json", "--format", "csv"], "exclude each other"),
        (["table", "--published", "cifar"], "no published runs"),
        (["table", "--published", "x", "--metric", "error"], "no meaning with --published"),
        (["table", "other"], "is a study of sgas-cnn; this is sgas-toy"),
        (["show", "study", "--preset", "small"], "unknown option --preset"),
    ],
)
def test_bad_input_is_one_line(
    study: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(study.parent)
    info = (study / "study.json").read_text().replace('"family": "toy"', '"family": "cnn"')
    other = study.parent / "other"
    other.mkdir()
    (other / "study.json").write_text(info)
    (other / "manifest.json").write_bytes((study / "manifest.json").read_bytes())
    assert cli(*argv).is_refused(told)


def test_the_page_holds_everything_and_asks_no_network(study: Path, cli: Cli) -> None:
    pictures = cli("show", str(study), "--json").json["pictures"]
    assert {Path(path).name for path in pictures} >= {
        *("report.html", "ranks.svg", "figures.svg"),
        *("agreement-cri2-normal.svg", "agreement-cri2-reduce.svg"),
    }  # fmt: skip
    page = (study / "report.html").read_text()
    for entry in read_study(study).entries:
        assert f"<figcaption>{entry.name}<small>" in page
    for words in ("sgas-toy sweep --dataset blobs", "arXiv:1912.00195", "85.45 ± 0.30", "τ-b"):
        assert words in page
    asked = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert asked == ["data:,"]
    assert page.index("best mean of 3") < page.index("Strategies (accuracy") < page.index("cri1-0")
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)


def test_the_page_of_twelve_runs_is_small(tmp_path: Path) -> None:
    from sgas_cnn.family import FAMILY as IMAGES

    strategies = ("cri1", "cri2", "darts", "random")
    folder = write_study(
        tmp_path / "twelve",
        IMAGES,
        lambda strategy, seed: 0.9 + 0.001 * seed + 0.003 * strategies.index(strategy),
        validation=lambda strategy, seed: 0.8 + 0.001 * seed,
        strategies=strategies,
        seeds=(0, 1, 2),
        num_steps=4,
        space="image",
    )
    assert main(IMAGES, ["show", str(folder)]) == 0
    assert (folder / "report.html").stat().st_size < 300_000


def test_every_run_is_at_its_figure_and_a_mean_has_its_interval() -> None:
    figures = {"a-0": 90.0, "a-1": 92.0, "random-0": 91.0, "random-1": 90.5, "a-2": None}
    trials = tuple(
        Trial(name, name[:-2], int(name[-1]), test=test, parameters=1000 * (n + 1))
        for n, (name, test) in enumerate(figures.items())
    )
    results = Results("t", "blobs", "clean", "accuracy", "%", True, trials, {})
    svg = draw_figures(summarise(results))
    assert_inside(svg)
    assert_apart(svg)
    root = ElementTree.fromstring(svg)
    said = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g")]
    assert said.count("a-1: 92.00, 2,000 parameters") == 2 and len(said) == 8
    assert said[4:6] == ["random-0: 91.00, 3,000 parameters", "random-1: 90.50, 4,000 parameters"]
    mean, low, high = mean_interval([90.0, 92.0, 91.0])
    assert mean == 91 and low is not None and high is not None
    assert high - mean == mean - low == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees


def test_the_scatter_shows_each_run_at_its_ranks() -> None:
    figures = {"a-0": (1.0, 10.0), "a-1": (2.0, 30.0), "b-0": (3.0, 20.0), "b-1": (3.0, None)}
    trials = tuple(
        Trial(name, name[0], int(name[2]), search=search, test=test)
        for name, (search, test) in figures.items()
    )
    results = Results("t", "blobs", "clean", "accuracy", "%", True, trials, {})
    root = ElementTree.fromstring(draw_ranks(summarise(results)))
    said = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g")]
    assert said == [
        "a-0: 1.00 in the search, 10.00 after training",
        "a-1: 2.00 in the search, 30.00 after training",
        "b-0: 3.00 in the search, 20.00 after training",
    ]
    discs = {g.findtext(f"{SVG}title"): g.find(f"{SVG}circle") for g in root.iter(f"{SVG}g")}
    first, second = discs[said[0]], discs[said[1]]
    assert first is not None and second is not None
    assert float(first.get("cx")) > float(second.get("cx"))  # the worse of the search to the right
    assert float(first.get("cy")) > float(second.get("cy"))  # and the worse after training below


def test_agreement_counts_edges_and_operations() -> None:
    genotypes = [drawn_genotype(SPACE, 3, seed) for seed in (1, 1, 2)]
    cells = [genotype.cells["normal"] for genotype in genotypes]
    counted = choices_of(cells, SPACE)
    by_hand: dict[tuple[int, int, str], int] = {}
    for cell in cells:
        for step in range(3):
            for edge in cell.edges[2 * step : 2 * step + 2]:
                key = (edge.source, step, edge.op)
                by_hand[key] = by_hand.get(key, 0) + 1
    assert dict(counted) == by_hand and sum(counted.values()) == 18
    root = ElementTree.fromstring(draw_agreement(genotypes, SPACE, "normal", "cri2"))
    said = {g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g")}
    assert len(said) == len(counted)
    most = max(counted, key=lambda key: counted[key])
    assert any(f"= {most[2]}: {counted[most]} of 3" in words for words in said)


def test_agreement_needs_cells_of_one_size() -> None:
    mixed = [drawn_genotype(SPACE, steps, 0) for steps in (2, 3)]
    with pytest.raises(InputError, match=r"got \[2, 3\]"):
        draw_agreement(mixed, SPACE, "normal", "cri2")


def test_a_table_for_a_paper_has_the_best_in_bold_and_marks_what_was_given(
    study: Path, cli: Cli
) -> None:
    rows = ["--add", "DG_CNN,92.9,0.2,10", "--add", "GCN,81.5"]
    text = cli("table", str(study), "--format", "latex", *rows).out
    assert r"    cri2 & $85.45 \pm 0.30$ & 10 \\" in text
    assert r"    DG\_CNN$^\dagger$ & $\mathbf{92.90} \pm 0.20$ & 10 \\" in text
    assert r"    GCN$^\dagger$ & $81.50$ & -- \\" in text and r"$^\dagger$Given, not run" in text
    assert text.count(r"\mathbf") == 1 and "% command: sgas-toy sweep" in text
    by_error = cli("table", str(study), "--format", "latex", "--metric", "error").out
    assert r"cri2 & $\mathbf{14.55} \pm 0.30$" in by_error
    assert "| GCN (given) | – | 81.50 |" in cli("table", str(study), "--format=markdown", *rows).out
    assert cli("table", str(study), "--json", *rows).json["given"][1]["mean"] == 81.5
    for row in ("GCN,81.5,0.1", "GCN,inf", "GCN,nan", "GCN,81.5,-1,3", "GCN,81.5,1,0", ",3"):
        ended = cli("table", str(study), "--add", row)
        assert ended.status == 2 and f"--add is {row!r}: give NAME,MEAN or" in ended.err
