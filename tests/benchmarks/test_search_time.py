"""The times of whole searches: how stages are counted, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import search_time
from processes import Ended
from settings import FAMILIES

from sgas.running.capture import AS_EVER

TINY = {"batch": 2, "points": 20, "k": 3, "channels": 4, "emb_dims": 8}


@pytest.mark.parametrize(
    ("family", "epochs", "first", "last"),
    [
        ("point", 50, (10, 28, 64), (5, 52, 34)),
        ("graph", 50, (10, 6, 1), (5, 10, 1)),
        ("image", 50, (10, 64, 351), (5, 128, 175)),
    ],
)
def test_the_stages_are_those_of_the_paper_s_search(
    family: str, epochs: int, first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    stages = search_time.stages_of(FAMILIES[family])
    assert sum(stage["epochs"] for stage in stages) == epochs
    found = [tuple(stage[name] for name in ("epochs", "batch", "steps")) for stage in stages]
    assert (found[0], found[-1]) == (first, last)


def test_a_whole_search_is_the_sum_of_its_stages() -> None:
    def stage(decided: int, epochs: int, steps: int) -> dict[str, int]:
        return {"decided": decided, "epochs": epochs, "steps": steps}

    def players(**ms: float) -> dict[str, Any]:
        return {name: {"ms": value, "record_ms": 500.0} for name, value in ms.items()}

    stages = [stage(0, 4, 10), stage(1, 2, 5), stage(2, 1, 4)]
    timed = [
        {**stages[0], "players": players(plain=100, ours=50, graphs=5)},
        {**stages[2], "players": players(plain=20, ours=10, graphs=1)},
    ]
    total = search_time.whole_search(stages, timed)
    assert total["plain"] == pytest.approx((40 * 100 + 10 * 60 + 4 * 20) / 1e3)
    assert total["ours"] == pytest.approx((40 * 50 + 10 * 30 + 4 * 10) / 1e3)
    replayed = (39 - AS_EVER) * 5 + (9 - AS_EVER) * 3 + (3 - AS_EVER) * 1
    assert total["graphs"] == pytest.approx((3 * (1 + AS_EVER) * 500 + replayed) / 1e3)


def test_reports_each_stage_and_the_whole(
    script: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--family", "point", "--repeats", "1", "--steps", "1"]
    point = FAMILIES["point"]
    tiny = replace(point, paper={**point.paper, **TINY}, small=TINY, num_samples=12, half=6)
    monkeypatch.setitem(FAMILIES, "point", tiny)
    result = script(search_time, *words, "--json").json
    assert [stage["decided"] for stage in result["stages"]] == [0, 1, 2, 3, 4, 5, 6]
    assert set(result["search_s"]) == {"plain", "ours"}
    for stage in result["stages"]:
        for figures in stage["players"].values():
            low, high = figures["spread"]
            assert 0 < low <= figures["ms"] <= high
    text = script(search_time, *words, "--stages", "0", "6").out
    assert text.count("plain") == 3 and "whole search of 12 samples, ours: " in text
    text = script(search_time, *words, "--stages", "0", "--players", "ours").out
    assert "plain" not in text and "whole search" not in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--stages", "7"], "no stage after 7 decisions; give some of 0 1 2"),
        (["--device", "tpu9"], "'tpu9'"),
    ],
)
def test_bad_input_is_refused(script: Callable[..., Ended], wrong: list[str], message: str) -> None:
    ended = script(search_time, "--family", "point", *wrong)
    assert ended.status == 2 and message in ended.err
