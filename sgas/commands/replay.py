"""`replay RUN`: every decision again from decisions.jsonl, without data or model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgas.cells.decisions import genotype_of
from sgas.commands.common import print_json
from sgas.config import STRATEGIES
from sgas.errors import RunError
from sgas.family import Family
from sgas.options import PLUGIN, Flag, Positional, parse, parser_for
from sgas.running.runs import read_records
from sgas.running.settings import open_settings

RUN = Positional("run", "run folder of a search")


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `replay` and returns 0; errors are raised."""
    about = (
        "Recompute every decision of a search from its log, under the run's strategy or another, "
        "and say where they part. After the first difference the alphas are still those of the "
        "recorded run."
    )
    flags = [
        PLUGIN,
        Flag("json", "print one JSON object"),
        Flag("strategy", f"{', '.join(STRATEGIES)} (default: that of the run)", is_switch=False),
    ]
    parser = parser_for(family.command, "replay", about, {}, [RUN], flags)
    values = parse(parser, argv)
    folder = Path(values["run"])
    settings, _ = open_settings(family, folder)
    if settings.verb != "search":
        raise RunError(f"{folder} is a training; give the folder of a search")
    from sgas.deciding.replay import replay
    from sgas.deciding.schedule import Schedule, shown_epoch
    from sgas.deciding.strategies import strategy_named

    space = family.search_space(str(settings.run.space))
    strategy = values["strategy"] or settings.loop.strategy
    recorded = read_records(folder)
    if not recorded:
        raise RunError(f"{folder} has no scored epoch yet; wait for the first to end")
    schedule = Schedule.of(settings.loop, space.topology(settings.model.num_steps))
    replayed = replay(
        recorded,
        strategy_named(strategy),
        space,
        schedule,
        settings.model.num_steps,
        settings.loop.history_size,
        settings.run.seed,
    )
    epochs = len({record.epoch for record in recorded})
    complete = all(cell.complete for cell in replayed.decisions.values())
    topology = space.topology(settings.model.num_steps)
    decisions = [
        {
            "epoch": shown_epoch(record.epoch),
            "cell": record.cell,
            "edge": record.edge,
            "edge_name": topology.edge_name(topology.edges[record.edge]),
            "op": record.op,
            "score": record.score[record.edge],
            "margin": record.margin,
            "pruned": record.pruned,
        }
        for record in replayed.records
        if record.edge is not None
    ]
    text = genotype_of(space, replayed.decisions).to_text() if complete else None
    result = {
        "run": str(folder),
        "recorded_strategy": settings.loop.strategy,
        "strategy": strategy,
        "epochs": epochs,
        "epochs_from": shown_epoch(0),
        "decisions": decisions,
        "genotype": text,
        "same": not replayed.differences,
        "differences": list(replayed.differences),
    }
    if values["json"]:
        print_json(result)
        return 0
    for line in decisions:
        margin = "" if line["margin"] is None else f", margin {line['margin']:.4f}"
        print(
            f"epoch {line['epoch']:>4}  {line['cell']}  {line['edge_name']} = {line['op']}, "
            f"score {line['score']:.4f}{margin}"
        )
    print(text or f"the log ends after {epochs} epochs; the cell is not complete")
    if not replayed.differences:
        print(f"same decisions as recorded ({settings.loop.strategy}), {epochs} epochs")
    for difference in replayed.differences:
        print(f"parts: {difference}")
    return 0
