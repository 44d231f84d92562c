"""`train GENOTYPE`: trains the derived network from scratch; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgas.commands.common import command_of, run_parser, run_to_resume
from sgas.family import Family
from sgas.options import Positional, Words, parse, print_config
from sgas.running.card import CARD, can_write_card
from sgas.running.genotype_files import genotype_label, load_genotype
from sgas.running.session import begin, resume
from sgas.running.settings import resolve
from sgas.running.trained import read_result
from sgas.terminal import tell

GENOTYPE = Positional(
    "genotype", "published name, genotype file (JSON or DARTS text) or run folder"
)
ABOUT = "Train the network of a genotype from scratch."


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `train` and returns 0; errors are raised."""
    old, place = run_to_resume(family, "train", argv)
    folder = _begin(family, argv) if old is None else resume(family, old, "train", place=place)
    print(f"run      {folder}")
    for name, value in read_result(folder).items():
        tell(f"{name:<10} {value:.4f}" if isinstance(value, float) else f"{name:<10} {value}")
    card = folder / CARD if can_write_card() else "none: pip install 'sgas[hub]' for a model card"
    print(f"card       {card}")
    print(f"next     {family.command} evaluate {folder}")
    return 0


def _begin(family: Family, argv: Sequence[str]) -> Path:
    """The folder of the training that a command asks for, run to its end."""
    words = Words.of(argv)
    start = words.value("weights")
    if start and not words.positionals:
        argv = [start, *argv]  # the cell of the run that it starts from
        words = Words.of(argv)
    # Where no data set is named, the cell's own says which options there are.
    own = words.value("dataset") is None and not {"--help", "-h"} & set(argv)
    genotype = load_genotype(family, words.positionals[0]) if own and words.positionals else None
    parser = run_parser(family, "train", argv, ABOUT, [GENOTYPE], genotype)
    values = parse(parser, argv)
    name = values["genotype"]
    genotype = genotype or load_genotype(family, name)
    settings = resolve(family, "train", values, source=Path(name), genotype=genotype)
    print_config(parser, argv, settings.values())
    label, command = genotype_label(name, genotype), command_of(family, "train", argv)
    return begin(family, settings, label, command)
