"""The C++ compiler: what kernels are compiled for, with which options, and the compiling itself.

Sources are compiled for this machine's processor or for those that SGAS_MARCH names (`x86-64-v2`,
`x86-64-v3`, `x86-64-v4`: whatever -march takes). What differs between processors stands in
`vectors.h`, and all that they ask of torch in `tensor.h`: by torch's stable C interface a build
serves every torch from 2.10 on and is compiled without torch, which need not be installed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

# Floating-point flags that leave results to the source text but for fused multiply-adds.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
)
# GCC's memory is given back at its end, and not sought through meanwhile, which takes a twelfth of
# its time: a unit takes 0.7 GB in place of 0.5.
WITHOUT_COLLECTING = ("--param", "ggc-min-heapsize=1000000")
HEADERS = Path(__file__).parent  # of both families' kernels
STABLE_SINCE = (2, 10)  # torch's version
INCLUDED = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
INSTRUCTION_MACRO = re.compile(r"__[A-Z]")  # names of processors are in small letters
INSTRUCTIONS = {64: "AVX-512", 32: "AVX2", 16: "SSE or NEON"}
# Machines, kinds of compiler and bytes of a vector for which search steps of every family took less
# CPU time by compiled kernels than by torch's operators: see "Speed" in benchmarks/README.md.
SHOWN_FASTER = frozenset({("x86_64", "gcc", 64), ("x86_64", "gcc", 32)})


class NotBuilt(Exception):
    """Why there is no library; the text is shown to the user."""


@dataclass(frozen=True)
class Build:
    """What compiles kernels, and for what: a machine, and how many bytes a vector has."""

    compiler: str
    kind: str
    machine: str
    vector_bytes: int

    @property
    def shown_faster(self) -> bool:
        """Whether such kernels were shown to be faster than torch's operators."""
        return (self.machine, self.kind, self.vector_bytes) in SHOWN_FASTER

    def __str__(self) -> str:
        width = INSTRUCTIONS[self.vector_bytes]
        return f"vectors of {self.vector_bytes} bytes ({width}), {self.compiler}"


@cache
def build_here() -> Build:
    """What a build on this machine is for, by the macros that its compiler defines; NotBuilt."""
    return build_for(flags())


def build_for(options: Sequence[str]) -> Build:
    """What a build with these of the compiler's options is for; NotBuilt."""
    compiler = compiler_here()
    macros = macros_of(compiler, options)
    if {"__AVX512F__", "__AVX512DQ__"} <= macros:
        vector_bytes = 64
    elif {"__AVX2__", "__FMA__"} <= macros:
        vector_bytes = 32
    else:
        vector_bytes = 16
    kind = "clang" if "__clang__" in macros else "gcc"
    version = output_of([compiler, "--version"]).partition("\n")[0]
    return Build(version, kind, platform.machine(), vector_bytes)


def check_processor() -> None:
    """NotBuilt where this processor lacks instructions of the build: they would end the process.

    They are told by the macros that the compiler defines for this processor and not for the build.
    """
    if march() == "native":
        return
    compiler = compiler_here()
    here, there = (macros_of(compiler, [f"-march={name}"]) for name in ("native", march()))
    missing = [name.strip("_") for name in sorted(there - here) if INSTRUCTION_MACRO.match(name)]
    if missing:
        raise NotBuilt(
            f"SGAS_MARCH is {march()}, and this processor does not have its {', '.join(missing)}; "
            f"name an older one, or unset it"
        )


def compile_library(name: str, sources: Sequence[Path], work: Path, options: Sequence[str]) -> Path:
    """The library `NAME.so` in folder `work`, of the `.cpp` files among the sources; NotBuilt.

    The compiler's words are in NotBuilt's text from the second line on.
    """
    compiler, links = compiler_here(), _linker_options(work)
    units = units_of(sources, work, _num_cores())
    objects = [unit.with_suffix(".o") for unit in units]
    quicker = WITHOUT_COLLECTING if build_for(options).kind == "gcc" else ()
    command = [compiler, *options, *quicker, f"-I{HEADERS}", "-c"]
    _run_all(
        [[*command, str(unit), "-o", str(to)] for unit, to in zip(units, objects, strict=True)]
    )
    built = work / f"{name}.so"
    _run_all([[compiler, "-shared", *map(str, objects), "-o", str(built), *links]])
    return built


def _run_all(commands: Sequence[list[str]]) -> None:
    """Runs the commands side by side; NotBuilt with what the first of them said that failed."""
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for command in commands
    ]
    try:
        for process in running:
            said, _ = process.communicate()
            if process.returncode:
                raise NotBuilt(f"the compiler ended with {process.returncode}\n{said}")
    finally:
        for process in running:
            process.kill()
            process.wait()


def check_torch() -> None:
    """NotBuilt where torch is older than the interface that kernels are built against."""
    found = metadata.version("torch")
    version = re.match(r"(\d+)\.(\d+)", found)
    if version is not None and tuple(map(int, version.groups())) < STABLE_SINCE:
        wanted = ".".join(map(str, STABLE_SINCE))
        raise NotBuilt(f"they need torch {wanted} or newer, and this is torch {found}: upgrade it")


def _linker_options(work: Path) -> list[str]:
    """What the linker needs for torch.

    The library has to say that it needs torch's, or else it would not find its functions in a
    process that has it; an empty library of that name will do for the linker.
    """
    if sys.platform == "darwin":
        return ["-undefined", "dynamic_lookup"]
    torch_name = "libtorch_cpu.so"
    empty = ["-shared", "-x", "c++", os.devnull, "-o", str(work / torch_name)]
    _run_all([[compiler_here(), *empty, f"-Wl,-soname,{torch_name}"]])
    return [f"-L{work}", "-Wl,--no-as-needed", "-ltorch_cpu"]


def units_of(sources: Sequence[Path], folder: Path, num_units: int) -> list[Path]:
    """Files in `folder` that include the `.cpp` files among the sources, of about equal length.

    At most `num_units`: each reads the headers of its sources again, and what they make of the
    same templates is made once where they share a unit. What a source names for itself alone, in a
    namespace without a name, has to be unlike the names of the others, since any of them may.
    """
    files = {source.name: source for source in sources}
    lengths = {name: source.stat().st_size for name, source in files.items()}
    units: list[list[str]] = [[] for _ in range(num_units)]
    read = [set[str]() for _ in units]
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        if name.endswith(".cpp"):
            needs = {name, *_headers_of(name, files)}
            grown = [sum(lengths[part] for part in has | needs) for has in read]
            unit = grown.index(min(grown))
            units[unit].append(name)
            read[unit] |= needs
    filled = [names for names in units if names]
    paths = [folder / f"unit{number}.cpp" for number in range(len(filled))]
    for path, names in zip(paths, filled, strict=True):
        text = "".join(f'#include "{files[name].resolve()}"\n' for name in names)
        path.write_text(text, encoding="utf-8")
    return paths


def _headers_of(name: str, files: Mapping[str, Path]) -> set[str]:
    """The names of those files that one of them includes, and that these include."""
    found: set[str] = set()
    new = [name]
    while new:
        named = INCLUDED.findall(files[new.pop()].read_text(encoding="utf-8"))
        more = (set(named) & files.keys()) - found
        found |= more
        new += more
    return found


def _num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compiler_here() -> str:
    """The C++ compiler, CXX or c++; NotBuilt where there is none."""
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name)
    if found is None:
        raise NotBuilt(f"there is no C++ compiler {name!r} on the path: install one, or set CXX")
    return found


def macros_of(compiler: str, options: Sequence[str]) -> set[str]:
    """The names that the compiler defines under these options; NotBuilt where it refuses them."""
    lines = output_of([compiler, *options, "-dM", "-E", "-x", "c++", os.devnull]).splitlines()
    return {line.split()[1] for line in lines}


def output_of(command: list[str]) -> str:
    """What a command prints; NotBuilt with its first line of complaint where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        first = done.stderr.strip().partition("\n")[0] or f"it ended with {done.returncode}"
        asked = "" if march() == "native" else f" with SGAS_MARCH={march()}"
        raise NotBuilt(f"the compiler {command[0]} does not work{asked}: {first}")
    return done.stdout


def flags() -> list[str]:
    """The compiler's options, as SGAS_MARCH and this machine's processor ask for."""
    return flags_for(march(), cpu_info())


def flags_for(name: str, info: str) -> list[str]:
    """Those for processors that -march names so, tuned for the CPU that Linux describes so."""
    return [*FLAGS, f"-march={name}", *tuning(info, name)]


@cache
def march() -> str:
    """The processors to compile for: read once, since a process has one build of a library."""
    return os.environ.get("SGAS_MARCH") or "native"


def cpu_info() -> str:
    """What Linux tells of the first CPU; elsewhere nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return ""


def cpu_features(info: str) -> str:
    """What the CPU can do, for -march=native: a cache may be shared by several machines."""
    lines = info.splitlines()  # others, as the clock's, change
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def tuning(info: str, name: str = "native") -> tuple[str, ...]:
    """Flags beside -march=NAME for the CPU that Linux describes so.

    GCC 12 tunes AMD's CPUs with AVX-512 as their forerunners without, and spills registers inside
    of products. With Intel's tuning search steps took 4 to 7 % less CPU time on a Zen 4. Torch's
    library is slower on AMD's CPUs than tiles of registers: there large products are ours too.
    """
    if "AuthenticAMD" not in info:
        return ()
    wide = "avx512f" in cpu_features(info).split() and name in ("native", "x86-64-v4")
    return ("-DSGAS_AMD", "-mtune=icelake-server") if wide else ("-DSGAS_AMD",)
