"""CIFAR-10 (table 1 of Li et al., CVPR 2020): search, training from scratch, test error.

    python benchmarks/reproduce/cifar10.py --scale tiny|small|full [--protocol clean|paper]

`tiny` is the digits of scikit-learn, `small` 10,000 images of CIFAR-10 in a folder, `full` the
paper. Options of `sweep` may follow: --jobs, --cluster slurm, …
"""

from __future__ import annotations

import sys

from paper import DATA, SEARCH_TERAFLOPS, TRAIN_TERAFLOPS, Reproduction, Scale, pflop_minutes
from reproduction import main

FAMILY = "sgas_cnn.family"
# 50 epochs of 25,000 pairs of steps, forward and backward 3 times the forward pass of the supernet
# (0.60 GFLOP), of which decisions take away a quarter; 600 epochs of 50,000 images at 1.26 GFLOP.
SEARCH_PFLOP, TRAIN_PFLOP = 3.4, 114.0
ORIGIN = (
    f"counted FLOPs at {SEARCH_TERAFLOPS} TFLOP/s in the search, as the paper's 0.25 GPU days, and "
    f"{TRAIN_TERAFLOPS} in the training, an assumption"
)

TINY = Scale(
    dataset="digits",
    preset="demo",
    search_minutes=0.1,
    train_minutes=0.1,
    origin="a rough figure",
    strategies="cri2,random",
    seeds="0",
    options=(
        "--search.warmup_epochs=0",
        "--search.decision_interval=1",
        "--search.final_epochs=0",
        "--search.channels=4",
        "--search.batch_size=256",
        "--train.channels=4",
        "--train.epochs=1",
        "--train.num_cells=3",
        "--train.batch_size=256",
        "--threads=1",
        "--jobs=2",
    ),
)
SMALL = Scale(
    dataset=f"{DATA}/cifar10_small",
    preset="small",
    search_minutes=11,
    train_minutes=6,
    origin="from the twelve of benchmarks/results/cifar10-small",
    strategies="cri1,cri2,darts,random",
    seeds="0-2",
    options=(
        "--search.channels=4",
        "--search.warmup_epochs=2",
        "--train.epochs=6",
        "--threads=1",
        "--jobs=2",
    ),
)
FULL = Scale(
    dataset="cifar10",
    preset="paper",
    search_minutes=pflop_minutes(SEARCH_PFLOP, SEARCH_TERAFLOPS),
    train_minutes=pflop_minutes(TRAIN_PFLOP, TRAIN_TERAFLOPS),
    origin=ORIGIN,
    processor="GPU",
    comparable=True,
    protocol="paper",
)
CIFAR10 = Reproduction(
    name="cifar10",
    title="CIFAR-10: test error of ten searches each",
    family=FAMILY,
    metric="error",
    published="cifar10",
    scales={"tiny": TINY, "small": SMALL, "full": FULL},
)
REPRODUCTIONS = (CIFAR10,)

if __name__ == "__main__":
    sys.exit(main(REPRODUCTIONS))
