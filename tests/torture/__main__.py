"""`python -m tests.torture NAME [NAME ...] --n N --seed S [--case K]`: N cases of each program.

Prints how many were wrong, and for each of these the command that repeats it; ends with 1 then.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.torture.calls import preloaded
from tests.torture.seeded import ENVIRON, seed_bug

PROGRAMS = {
    "kill": "kill",
    "power": "power",
    "errno": "errnos",
    "rot": "rot",
    "fuzz": "fuzz",
    "hostile": "hostile",
    "signals": "signals",
    "writers": "writers",
    "numbers": "numbers",
    "build": "build",
    "mutants": "mutants",
}
SHOWN = 20  # failures that are told


def main() -> int:
    """Runs the programs that are named and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*PROGRAMS, "all"], metavar="NAME")
    parser.add_argument("--n", type=int, help="cases of each (default: a small number)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", metavar="DECODER", help="of fuzz: N cases of this decoder alone")
    parser.add_argument("--first", action="store_true", help="end with the first that is wrong")
    parser.add_argument("--case", type=int, help="this one alone")
    asked = parser.parse_args()
    preloaded()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if ENVIRON in os.environ:
        seed_bug(int(os.environ[ENVIRON]))
    from tests.torture.bench import Bench

    bench, failed = Bench(), 0
    try:
        for name in PROGRAMS if "all" in asked.names else asked.names:
            failed += _run(bench, name, asked)
    finally:
        bench.close()
    return 1 if failed else 0


def cpu_seconds() -> float:
    """What this process and those that it waited for have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def program_cases(
    program: Any, bench: object, cases: list[int], seed: int
) -> Iterator[tuple[int, str]]:
    """The cases that are wrong, and what is."""
    from tests.torture.bench import Wrong

    if hasattr(program, "run"):  # in processes of its own
        yield from program.run(bench, cases, seed).items()
        return
    for case in cases:
        try:
            program.check(bench, case, seed)
        except Wrong as error:
            yield case, str(error)


def _run(bench: object, name: str, asked: argparse.Namespace) -> int:
    """How many cases of a program were wrong."""
    program = import_module(f"tests.torture.{PROGRAMS[name]}")
    began, failed = cpu_seconds(), 0
    cases = list(range(asked.n or program.SMALL)) if asked.case is None else [asked.case]
    if asked.of is not None:
        cases = program.cases_of(asked.of, asked.n or program.SMALL)
    for case, what in program_cases(program, bench, cases, asked.seed):
        failed += 1
        if failed <= SHOWN:
            again = f"python -m tests.torture {name} --seed {asked.seed} --case {case}"
            print(f"wrong  {name}: {what}\n       {again}", flush=True)
        if asked.first:
            break
    seconds = cpu_seconds() - began
    name += f" {asked.of}" if asked.of else ""
    told = f"{name:<8} n {len(cases)} seed {asked.seed} failures {failed} CPU seconds {seconds:.0f}"
    print(told, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
