"""A folder of images at 16 × 16, for searches and trainings that are to cost less.

    python benchmarks/quality/shrink.py cifar10_small OUT

Each pixel is the mean of a block, as in `search_quality.py`; labels and splits are as they were.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from search_quality import load_small_images

from sgas.errors import SgasError
from sgas_cnn.datasets.folder import SPLITS


def shrink(folder: str, out: Path) -> None:
    """Writes `train.npz` and `test.npz`; DataError where the folder cannot be read."""
    splits = {split: load_small_images(folder, split) for split in SPLITS}
    out.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        np.savez(out / f"{split}.npz", image=images, label=labels)


def main() -> int:
    """Writes the folder; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", help="with train*.npz and test*.npz")
    parser.add_argument("out", type=Path, help="folder that is written")
    asked = parser.parse_args()
    try:
        shrink(asked.folder, asked.out)
    except SgasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
