"""Small images: what is written is what the searches on NAS-Bench-201 see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.shrink import main, shrink
from sgas_cnn.datasets.folder import load_folder


def test_each_pixel_is_the_mean_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "large").mkdir()
    for split, part in (("train", images[:4]), ("test", images[4:])):
        np.savez(tmp_path / "large" / f"{split}.npz", image=part, label=np.arange(len(part)) % 2)
    shrink(str(tmp_path / "large"), tmp_path / "small")
    small = load_folder(tmp_path / "small", "test")
    assert small.inputs.shape == (2, 16, 16, 3) and small.labels.tolist() == [0, 1]
    assert small.inputs[1, 3, 5, 2] == np.rint(images[5, 6:8, 10:12, 2].mean())
    words = ["shrink.py", str(tmp_path / "none"), str(tmp_path / "other")]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 2 and not (tmp_path / "other").exists()
