"""`evaluate RUN`: opens the test split, once, for the network of a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgas.commands.common import DEVICE, THREADS, print_json, use_threads
from sgas.family import Family
from sgas.options import PLUGIN, Flag, Positional, parse, parser_for
from sgas.running.evaluation import evaluate_run
from sgas.terminal import tell

RUN = Positional("run", "run folder of a training that has ended")
FLAGS = [
    PLUGIN,
    Flag("json", "print one JSON object"),
    DEVICE,
    THREADS,
    Flag("dataset", "where the run's own data lie now, if they were moved", is_switch=False),
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `evaluate` and returns 0; errors are raised."""
    about = (
        "Measure a trained network on the test split. The split is opened once: the figures are "
        "kept in evaluation.json and printed again when the command is repeated."
    )
    parser = parser_for(family.command, "evaluate", about, {}, [RUN], FLAGS)
    values = parse(parser, argv)
    use_threads(values)
    device = values["device"] or "auto"
    evaluation = evaluate_run(family, Path(values["run"]), device, values["dataset"])
    if values["json"]:
        print_json(evaluation)
        return 0
    for name, value in evaluation.items():
        tell(f"{name:<18} {value:.4f}" if isinstance(value, float) else f"{name:<18} {value}")
    return 0
