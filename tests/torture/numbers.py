"""numbers: options at the ends of what is allowed. No run may write what it cannot read again."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from sgas.errors import SgasError
from sgas.running.runs import (
    read_checkpoint,
    read_config,
    read_genotype,
    read_metrics,
    read_records,
)
from tests.torture.bench import JOBS, Bench, Wrong, error_line, require

SIZES = ("0", "1e-300", "1e-30", "1", "1e4", "1e20", "1e30", "1e300")
NAMES = {
    "search": ("learning_rate", "learning_rate_min", "alpha_learning_rate", "alpha_weight_decay",
               "weight_decay", "grad_clip", "momentum", "noise"),
    "train": ("learning_rate", "learning_rate_min", "weight_decay", "grad_clip", "momentum",
              "noise", "label_smoothing", "drop_path"),
}  # fmt: skip


def check(bench: Bench, case: int, seed: int) -> None:
    """A run with extreme options ends or says why not, and all that it wrote can be read."""
    draw = random.Random(f"{seed}/{case}")
    job = JOBS[draw.choice(("search", "train", "effects"))]
    names = draw.sample(NAMES[job.verb], draw.randint(1, 3))
    options = [f"--{name}={draw.choice(SIZES)}" for name in names]
    job = replace(job, argv=[*job.argv, *options])
    run = "runs/x"
    with bench.folder() as folder:
        try:
            ended = bench.run(job, folder)
            if ended.status:
                error_line(ended)
            if not (folder / run).is_dir():
                require(ended.status == 2, f"no run, and status {ended.status}")
                return
            _read_all(folder / run)
            again = bench.run(job, folder, [job.verb, "--resume", run])
            require(again.status == ended.status, f"{ended.status}, resumed {again.status}")
            if again.status:
                first, second = error_line(ended), error_line(again)
                require(first == second, f"{first!r}, resumed {second!r}")
            _read_all(folder / run)
            if job.verb == "search" and not ended.status:
                replayed = bench.run(job, folder, ["replay", run])
                require("same decisions" in replayed.out, f"replayed: {replayed}")
        except (Wrong, SgasError) as error:
            raise Wrong(f"{' '.join([job.verb, *options])}: {error}") from None


def _read_all(run: Path) -> None:
    for read in (read_config, read_metrics):
        read(run)
    if (run / "decisions.jsonl").exists():
        read_records(run)
        read_genotype(run)
    require(read_checkpoint(run / "checkpoint.pt") is not None, "the checkpoint is damaged")


SMALL = 3
