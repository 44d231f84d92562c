"""`search`: searches a cell and writes a run folder; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence

from sgas.commands.common import command_of, run_parser, run_to_resume
from sgas.family import Family
from sgas.options import parse, print_config
from sgas.running.runs import read_config, read_genotype
from sgas.running.session import begin, resume
from sgas.running.settings import default_preset, resolve

ABOUT = "Search a cell. What is found stands in the run folder: genotype.json, cell-*.svg."


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `search` and returns 0; errors are raised."""
    folder, place = run_to_resume(family, "search", argv)
    if folder is not None:
        folder = resume(family, folder, "search", place=place)
    else:
        parser = run_parser(family, "search", argv, ABOUT)
        settings = resolve(family, "search", parse(parser, argv))
        print_config(parser, argv, settings.values())
        folder = begin(family, settings, "", command_of(family, "search", argv))
    print(read_genotype(folder).to_text())
    print(f"run      {folder}")
    print(f"genotype {folder / 'genotype.json'}")
    for path in [*sorted(folder.glob("cell-*.svg")), folder / "report.html"]:
        print(f"picture  {path}")
    run = read_config(folder)["run"]
    usual = run["preset"] == default_preset(family, run["dataset"], run["space"])
    preset = "" if usual else f" --preset {run['preset']}"  # else the training's sizes are others
    print(f"next     {family.command} train {folder}{preset}")
    return 0
