"""The transfer to ImageNet (table 2 of Li et al., CVPR 2020): cells found on CIFAR-10, top-1 error.

    python benchmarks/reproduce/imagenet.py --scale tiny|small|full --data_root FOLDER

Nothing is searched: the published cells are trained. `tiny` moves one cell of each criterion to the
digits of scikit-learn, `small` all of them to 10,000 images of CIFAR-10, `full` is the paper.
Options of `train` may follow: --data_root, --device, …
"""

from __future__ import annotations

import sys

from paper import DATA, TRAIN_TERAFLOPS, Reproduction, Scale, pflop_minutes
from reproduction import main

# 250 epochs of 1,281,167 images at 1.2 GFLOP, forward and backward 3 times the forward pass.
TRAIN_PFLOP = 1150.0
TINY = Scale(
    dataset="digits",
    preset="demo",
    search_minutes=0,
    train_minutes=0.1,
    origin="a rough figure",
    options=("--epochs=1", "--channels=4", "--num_cells=3", "--batch_size=256", "--threads=1"),
)
SMALL = Scale(
    dataset=f"{DATA}/cifar10_small",
    preset="small",
    search_minutes=0,
    train_minutes=23,
    origin="a rough figure",
    options=("--threads=2",),
)
FULL = Scale(
    dataset="imagenet",
    preset="imagenet",
    search_minutes=0,
    train_minutes=pflop_minutes(TRAIN_PFLOP, TRAIN_TERAFLOPS),
    origin=f"counted FLOPs at {TRAIN_TERAFLOPS} TFLOP/s, an assumption",
    processor="GPU",
    comparable=True,
    protocol="paper",
)
CELLS = tuple((f"{cri}-imagenet-{number}", cri) for cri in ("cri1", "cri2") for number in (1, 2, 3))
IMAGENET = Reproduction(
    name="imagenet",
    title="ImageNet: top-1 error of the published cells",
    family="sgas_cnn.family",
    metric="error",
    published="imagenet",
    cells=CELLS,
    scales={"tiny": TINY, "small": SMALL, "full": FULL},
)
REPRODUCTIONS = (IMAGENET,)

if __name__ == "__main__":
    sys.exit(main(REPRODUCTIONS))
