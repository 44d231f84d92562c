"""build: builds of kernels that are killed, run at once, cut, flipped, or kept where others write.

The compiler is a small one that makes an empty library; all around it is what users run.
"""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path

from sgas.native import library as native
from tests.torture.bench import Bench, Wrong, require
from tests.torture.calls import KILLS, Action, Disturbance, arm, count

COMPILER = """#!/bin/sh
case " $* " in
  *" -dM "*|*" --version "*) exec c++ "$@" ;;
esac
out=$(printf '%s\\n' "$@" | sed -n '/^-o$/{n;p}')
case " $* " in
  *" -shared "*) exec cc -shared -o "$out" {source} ;;
  *) exec cc -c -fPIC -o "$out" {source} ;;
esac
"""


@cache
def compiler(bench: Bench) -> Path:
    """The small compiler, which the environment names from now on."""
    source, script = bench.root / "empty.c", bench.root / "small-c++"
    source.write_text("int sgas_torture = 1;\n")
    script.write_text(COMPILER.replace("{source}", str(source)))
    script.chmod(0o755)
    (bench.root / "kernel.cpp").write_text("// made empty\n")
    os.environ.update(CXX=str(script), OMP_NUM_THREADS="1")
    return script


def start(bench: Bench, cache_folder: Path, disturbance: Disturbance | None = None) -> int:
    """A process that loads the library, and ends with 0 where it is loaded."""
    compiler(bench)
    process = os.fork()
    if process == 0:
        status = 70
        try:
            os.environ["SGAS_CACHE"] = str(cache_folder)
            void = os.open(os.devnull, os.O_WRONLY)
            os.dup2(void, 1)
            os.dup2(void, 2)
            arm(cache_folder, disturbance)
            kernel = native.Library("sgas_torture", (bench.root / "kernel.cpp",))
            status = 0 if kernel.load() is None else 1
        finally:
            os._exit(status)
    return process


def ended(process: int) -> int:
    """The exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@cache
def calls(bench: Bench) -> int:
    """How many calls of a build change files."""
    with bench.folder("build") as folder:
        status = ended(start(bench, folder / "cache"))
        require(status == 0, f"a build alone ended with {status}")
        return count()


def check(bench: Bench, case: int, seed: int) -> None:
    """One build that is disturbed; whoever comes next loads a whole library."""
    draw = random.Random(f"{seed}/{case}")
    number = calls(bench)
    with bench.folder("build") as folder:
        place = folder / "cache"
        way = draw.randrange(4)
        what = ("killed", "several at once", "damaged", "failing")[way]
        try:
            if way == 0:
                kill = Disturbance(draw.randrange(number), draw.choice(KILLS))
                status = ended(start(bench, place, kill))
                require(status == -9, f"{kill}: ended with {status}")
            elif way == 1:
                kill = Disturbance(draw.randrange(number), draw.choice(KILLS))
                processes = [start(bench, place), start(bench, place), start(bench, place, kill)]
                status = [ended(process) for process in processes]
                require(status[:2] == [0, 0], f"they ended with {status}")
            elif way == 2:
                require(ended(start(bench, place)) == 0, "it was not built")
                _damage(place, draw)
            else:
                fail = Disturbance(draw.randrange(number), Action.FAIL, draw.choice((28, 5, 13)))
                status = ended(start(bench, place, fail))
                require(status in (0, 1), f"{fail}: ended with {status}")
            status = ended(start(bench, place))
            require(status == 0, f"the next process ended with {status}")
            left = [path.name for path in place.rglob("build-*")]
            require(not left, f"the next process left {left}")
        except Wrong as error:
            raise Wrong(f"{what}: {error}") from None


def _damage(place: Path, draw: random.Random) -> None:
    """Cuts or flips a library or the hash beside it, or takes one away."""
    (library,) = place.rglob("*.so")
    path = draw.choice((library, library.with_name(f"{library.name}.sha256")))
    content = bytearray(path.read_bytes())
    way = draw.randrange(3)
    if way == 0:
        path.unlink()
    elif way == 1:
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)


SMALL = 4
