"""Features far from 0: said by `check` and by a search, standardised, and carried with weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SPACES

import sgas_gcn
from sgas.config import RunConfig
from sgas.errors import ConfigError
from sgas_gcn.config import GraphDataConfig, GraphModelConfig
from sgas_gcn.datasets.graph_folder import describe_graph_file
from sgas_gcn.datasets.moments import Moments
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import GraphSource, GraphTask
from sgas_gcn.standardize import RowNormalize

NODES, MEAN, STD = 400, 5e5, 1e2


@pytest.fixture(scope="module")
def utm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One graph of places in metres, joined to the next ones; their class is the quarter."""
    draw = np.random.default_rng(0)
    places = draw.normal(MEAN, STD, (NODES, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    nearest = apart.argsort(1)[:, 1:5]
    ends = np.stack([np.repeat(np.arange(NODES), 4), nearest.ravel()], 1)
    edge = np.unique(np.sort(ends, 1), axis=0)
    order, zone = draw.permutation(NODES), np.full((NODES, 1), 32.0)
    path = tmp_path_factory.mktemp("utm") / "utm.npz"
    np.savez(
        path,
        x=np.concatenate([places, zone], 1).astype(np.float32),
        edge=edge,
        label=(places > MEAN) @ [1, 2],
        train=order[:200],
        val=order[200:300],
        test=order[300:],
    )
    return path


def test_moments_are_those_of_all_rows_and_constants_are_left_alone() -> None:
    draw = np.random.default_rng(1)
    parts = [draw.normal(MEAN, STD, (rows, 3)).astype(np.float32) for rows in (5000, 0, 7)]
    for part in parts:
        part[:, 2] = 0.1
    moments, rows = Moments.of(parts), np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std[:2], rows[:, :2].std(0), rtol=1e-9)
    assert moments.std[2] == 0 and moments.scale[2] == 1
    (warning,) = moments.warnings()
    ratios = moments.mean[:2] / moments.std[:2]
    named = f": 0 ({ratios[0]:.3g}), 1 ({ratios[1]:.3g}); give --standardize true"
    assert named in warning
    assert not Moments.of([rows - [MEAN, MEAN, 0]]).warnings()
    assert not Moments.of([np.full((4, 2), 0.1, np.float32)]).warnings()


def test_check_and_a_search_name_features_far_from_0(
    utm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("few digits: 0 (" in warning for warning in describe_graph_file(utm)["warnings"])
    options = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0, "channels": 2}
    sgas_gcn.search(utm, preset="demo", out=tmp_path / "run", **options)
    told = " ".join("".join(capsys.readouterr()).split())
    assert "note" in told and "give --standardize true" in told
    assert "give --standardize true" in (tmp_path / "run" / "log.txt").read_text()
    run = RunConfig(dataset=str(utm))
    for standardize in (False, True):
        model = GraphModelConfig(standardize=standardize)
        task = GraphTask(str(utm), model, GraphDataConfig(), run)
        assert bool(task.warnings) is not standardize


def test_standardised_places_are_learnt_and_the_run_carries_how(utm: Path, tmp_path: Path) -> None:
    trained = sgas_gcn.train(
        "cri2-ppi-best",
        dataset=utm,
        preset="demo",
        standardize=True,
        epochs=40,
        channels=8,
        num_cells=1,
        out=tmp_path / "run",
        quiet=True,
    )
    assert sgas_gcn.evaluate(trained)["accuracy"] > 0.95
    arrays = np.load(utm)
    kept = sgas_gcn.load(trained.folder).network.standardize
    ours = arrays["x"][arrays["train"]].astype(np.float64)
    np.testing.assert_allclose(kept.mean.numpy(), ours.mean(0), rtol=1e-6)
    np.testing.assert_allclose(kept.scale.numpy()[:2], 1 / ours[:, :2].std(0), rtol=1e-6)
    assert kept.scale[2] == 1
    assert trained.export(tmp_path / "net").to_plain == 0
    with pytest.raises(ConfigError, match="unknown format 'pickle'"):
        trained.export(tmp_path / "net", format="pickle")
    np.savez(tmp_path / "other.npz", **{**arrays, "x": arrays["x"] + 1e5})
    tuned = sgas_gcn.train(
        trained,
        tmp_path / "other.npz",
        weights=trained.folder,
        epochs=1,
        out=tmp_path / "tuned",
        quiet=True,
    )
    np.testing.assert_allclose(tuned.network.standardize.mean, ours.mean(0) + 1e5, rtol=1e-6)


def test_counts_of_words_are_taken_over_their_sum() -> None:
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.5, 0.5]])
    wanted = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [-0.5, 0.25, 0.25]])
    assert torch.equal(RowNormalize()(counts), wanted)
    with pytest.raises(ConfigError, match=r"standardize and row_normalize are both true.*give one"):
        GraphModelConfig(standardize=True, row_normalize=True)


@pytest.mark.parametrize("searched", [False, True])
def test_networks_take_features_over_their_sum(searched: bool) -> None:
    model = {"channels": 4, "stem": "none", "row_normalize": True}
    made = SPACES["graph"].models(**model)
    genotype = SPACES["graph"].genotype(0)
    net = made.build_supernet() if searched else made.build_network(genotype, False)
    batch = SPACES["graph"].batch()
    scaled = batch.with_features(batch.x * torch.arange(1, len(batch.x) + 1)[:, None])
    torch.testing.assert_close(net.double()(scaled), net(batch))


def test_dropped_features_fall_to_their_mean() -> None:
    centre = torch.tensor([MEAN, 0.0])
    x = centre + torch.randn(500, 2)
    batch = GraphBatch.of_graph(x, torch.zeros(2, 1, dtype=torch.int64))
    source = GraphSource([batch], [torch.zeros(500)], 0.5, centre)
    dropped = source.batch(torch.tensor([0]), torch.Generator().manual_seed(0))[0].x
    is_centre = dropped == centre
    assert 0.4 < is_centre.float().mean() < 0.6
    wanted = (centre + 2 * (x - centre))[~is_centre]
    torch.testing.assert_close(dropped[~is_centre], wanted)
