"""What is measured on a GPU runs on the CPU at tiny sizes, and a part that fails is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gpu
import pytest
from processes import Ended
from reporting import read_lines


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["cloud_search", "image_search", "training_step", "agreement"])
def test_each_part_tells_its_figures(
    script: Callable[..., Ended], tmp_path: Path, part: str
) -> None:
    kept = tmp_path / "gpu.jsonl"
    ended = script(gpu, "--device=cpu", "--quick", "--only", part, f"--keep={kept}")
    assert ended.status == 0, ended
    (line,) = read_lines(kept)
    assert line["part"] == part and line["device"] and line["torch"]
    if part.endswith("search"):
        assert line["epochs"] == line["of"] and line["whole_s"] == line["seconds"] > 0
        assert line["data"] == "noise" and line["cell"].startswith("Genotype(")
    elif part == "training_step":
        assert min(line["ours_ms"], line["torch_compile_ms"]) > 0 and line["batch"] == 4
    else:
        assert line["float32_again"] == line["edges"] >= line["bf16"]


def test_a_part_that_fails_is_told_and_the_others_go_on(
    script: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([None, "stopped after 1 s", None, "error: no"])
    monkeypatch.setattr(gpu, "measure_part", lambda *_: next(outcomes))
    ended = script(gpu, "--device=cpu", f"--keep={tmp_path / 'gpu.jsonl'}")
    lines = read_lines(tmp_path / "gpu.jsonl")
    assert ended.status == 1 and "stopped after 1 s" in ended.out
    assert [(line["part"], line["failed"]) for line in lines] == [
        ("training_step", "stopped after 1 s"),
        ("agreement", "error: no"),
    ]
