"""PPI (table 4 of Li et al., CVPR 2020): micro-F1 on 24 protein graphs.

    python benchmarks/reproduce/ppi.py --scale tiny|small|full [--protocol clean|paper]

`tiny` is generated tissues, `small` the 24 graphs in a folder with preset small, `full` the paper.
Options of `sweep` may follow: --jobs, --cluster slurm, …
"""

from __future__ import annotations

import sys

from paper import DATA, TRAIN_TERAFLOPS, PaperFigure, Reproduction, Scale, pflop_minutes
from reproduction import main

# 2,000 epochs of 44,906 nodes at 53 MFLOP, forward and backward 3 times the forward pass. A search
# is a thousandth of that and bound by memory: ten minutes are a guess.
TRAIN_PFLOP = 14.3

TINY = Scale(
    dataset="tissues",
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
        "--search.num_steps=2",
        "--search.batch_size=10",
        "--train.epochs=1",
        "--train.channels=8",
        "--train.num_cells=1",
        "--threads=1",
        "--jobs=2",
    ),
)
SMALL = Scale(
    dataset=f"{DATA}/ppi24",
    preset="small",
    search_minutes=1.5,
    train_minutes=2,
    origin="from the twelve of benchmarks/results/ppi-small",
    strategies="cri1,cri2,darts,random",
    seeds="0-2",
    options=("--threads=1", "--jobs=2"),
)
FULL = Scale(
    dataset="ppi",
    preset="paper",
    search_minutes=10,
    train_minutes=pflop_minutes(TRAIN_PFLOP, TRAIN_TERAFLOPS),
    origin=f"counted FLOPs at {TRAIN_TERAFLOPS} TFLOP/s, an assumption; the search is a guess",
    processor="GPU",
    comparable=True,
    protocol="paper",
)
PPI = Reproduction(
    name="ppi",
    title="PPI: micro-F1 of ten searches each",
    family="sgas_gcn.family",
    metric="micro_f1",
    paper={
        "cri1": PaperFigure("99.38 ± 0.17", "99.46"),
        "cri2": PaperFigure("99.40 ± 0.09", "99.46"),
    },
    scales={"tiny": TINY, "small": SMALL, "full": FULL},
)
REPRODUCTIONS = (PPI,)

if __name__ == "__main__":
    sys.exit(main(REPRODUCTIONS))
