"""C++ libraries of operators, built where they are first needed and kept in a cache.

A family's compiled kernels are sources in its package; torch's extension loader builds them with
the compiler of the machine, for its processor or for those that SGAS_MARCH names (`x86-64-v2`,
`x86-64-v3`, `x86-64-v4`: whatever -march takes). What differs between processors stands in
`vectors.h`. Where a build fails, callers go on with plain torch: `Library.load` says why. No torch
at this module's import.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sgas.files import make_folder, no_link, write_text

logger = logging.getLogger("sgas")

# Floating-point flags that leave results to the source text but for fused multiply-adds.
FLAGS = (
    "-O3",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
)


HEADERS = Path(__file__).parent  # of both families' kernels
# Machines, kinds of compiler and bytes of a vector for which search steps of every family took less
# CPU time by compiled kernels than by torch's operators: see "Speed" in benchmarks/README.md.
SHOWN_FASTER = frozenset({("x86_64", "gcc", 64), ("x86_64", "gcc", 32)})
RATIO = "ratio.json"  # beside a build: its speed on this machine
INSTRUCTION_MACRO = re.compile(r"__[A-Z]")  # names of processors are in small letters
INSTRUCTIONS = {64: "AVX-512", 32: "AVX2", 16: "SSE or NEON"}


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


@dataclass(frozen=True)
class Library:
    """Operators that `sources` register with torch under the name `name`, for the CPU."""

    name: str
    sources: tuple[Path, ...]

    def __hash__(self) -> int:
        """Of the name alone: `load` is asked before each operator, and paths take a while."""
        return hash(self.name)

    def why_not_shown(self) -> str | None:
        """Why `auto` leaves these kernels alone; None where they are known to be faster than torch.

        What `keep_ratio` was told on this machine counts, else whether such a build was shown to
        be faster. Nothing is built.
        """
        return _why_not_shown(self)

    def keep_ratio(self, ratio: float) -> None:
        """Keeps for `auto` how many times faster than torch the kernels are on this machine."""
        write_text(_folder_of(self) / RATIO, json.dumps(ratio))
        _why_not_shown.cache_clear()

    def load(self) -> str | None:
        """None where the operators are there; else why not, in one line.

        Builds them on the first call that finds none in the cache (half a minute of CPU time);
        calls after the first cost nothing.
        """
        return _load(self)


@cache
def _load(library: Library) -> str | None:
    try:
        _build_or_find(library)
    except NotBuilt as error:
        logger.warning("compiled kernels are not used: %s", error)
        return str(error)
    return None


@cache
def build_here() -> Build:
    """What a build on this machine is for, by the macros that its compiler defines; NotBuilt."""
    compiler = _compiler()
    macros = _macros(compiler, flags())
    if {"__AVX512F__", "__AVX512DQ__"} <= macros:
        vector_bytes = 64
    elif {"__AVX2__", "__FMA__"} <= macros:
        vector_bytes = 32
    else:
        vector_bytes = 16
    kind = "clang" if "__clang__" in macros else "gcc"
    version = _output([compiler, "--version"]).partition("\n")[0]
    return Build(version, kind, platform.machine(), vector_bytes)


@cache
def _why_not_shown(library: Library) -> str | None:
    try:
        build, measured = build_here(), _measured(library)
    except NotBuilt:
        return None  # to load them says why
    faster = build.shown_faster if measured is None else measured > 1
    if faster:
        return None
    reason = "were not shown to be faster than torch"
    if measured is not None:
        reason = f"were measured here at {measured:.2f} times the speed of torch"
    logger.warning("compiled kernels are not used: those with %s %s", build, reason)
    return f"kernels with {build} {reason}: --kernels cpu takes them, doctor --measure measures"


def _measured(library: Library) -> float | None:
    """What `keep_ratio` was told; None where it was told nothing that can be read."""
    with contextlib.suppress(OSError, ValueError):
        ratio = json.loads((_folder_of(library) / RATIO).read_text(encoding="utf-8"))
        if isinstance(ratio, (int, float)) and math.isfinite(ratio):
            return float(ratio)
    return None


def _check_processor() -> None:
    """NotBuilt where this processor lacks instructions of the build: they would end the process.

    They are told by the macros that the compiler defines for this processor and not for the build.
    """
    if _march() == "native":
        return
    compiler = _compiler()
    here, there = (_macros(compiler, [f"-march={march}"]) for march in ("native", _march()))
    missing = [name.strip("_") for name in sorted(there - here) if INSTRUCTION_MACRO.match(name)]
    if missing:
        raise NotBuilt(
            f"SGAS_MARCH is {_march()}, and this processor does not have its {', '.join(missing)}; "
            f"name an older one, or unset it"
        )


def _macros(compiler: str, options: Sequence[str]) -> set[str]:
    """The names that the compiler defines under these options; NotBuilt where it refuses them."""
    lines = _output([compiler, *options, "-dM", "-E", "-x", "c++", os.devnull]).splitlines()
    return {line.split()[1] for line in lines}


def _output(command: list[str]) -> str:
    """What a command prints; NotBuilt with its first line of complaint where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        first = done.stderr.strip().partition("\n")[0] or f"it ended with {done.returncode}"
        asked = "" if _march() == "native" else f" with SGAS_MARCH={_march()}"
        raise NotBuilt(f"the compiler {command[0]} does not work{asked}: {first}")
    return done.stdout


class NotBuilt(Exception):
    """Why there is no library; the text is shown to the user."""


def cache_folder() -> Path:
    """Where built libraries are kept: `$SGAS_CACHE`, else the user's cache folder.

    Where the user has no home, a folder of his own among the temporary ones.
    """
    folder = os.environ.get("SGAS_CACHE")
    if folder:
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgas"
    except RuntimeError:  # neither HOME nor an entry among the users
        return Path(tempfile.gettempdir(), f"sgas-{os.getuid()}")


def _build_or_find(library: Library) -> None:
    import torch

    _check_processor()
    folder = _own_folder(_folder_of(library))
    built = folder / f"{library.name}.so"
    try:
        with _locked(folder / "lock"):
            if _is_whole(built):
                with contextlib.suppress(OSError):
                    torch.ops.load_library(str(built))
                    return
            _build(library, folder, built)
    except OSError as error:
        raise NotBuilt(f"{error.filename or folder}: {error.strerror or error}") from None


def _own_folder(folder: Path) -> Path:
    """The folder, made where it is missing, or one for this process alone where it cannot be used.

    A library runs in the process that loads it: one that others may have put there is not trusted.
    """
    try:
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        why = _why_not_trusted(folder)
    except OSError as error:
        why = f"{error.filename or folder}: {error.strerror}"
    if why is None:
        return folder
    private = Path(tempfile.mkdtemp(prefix="sgas-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    logger.warning(
        "kernels are built for this process alone, since %s; SGAS_CACHE names another folder", why
    )
    return private


def _why_not_trusted(path: Path) -> str | None:
    """Why somebody else may have written what is at `path`; None where nobody can."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {path}"
    return None


def _is_whole(built: Path) -> bool:
    """Whether a library is there, this user's own, as the build left it: a cut one ends a process.

    What its builder measured is in a file beside it.
    """
    try:
        wanted = _hash_file(built).read_text(encoding="ascii")
        return _why_not_trusted(built) is None and _sha256(built) == wanted
    except (OSError, UnicodeDecodeError):
        return False


def _hash_file(built: Path) -> Path:
    return built.with_name(f"{built.name}.sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder_of(library: Library) -> Path:
    """Where a build of the library for this machine is kept; NotBuilt without a compiler."""
    return cache_folder() / "native" / f"{library.name}-{_key(library, _compiler())}"


def _build(library: Library, folder: Path, built: Path) -> None:
    """Compiles in a folder of its own, loads, and puts the file in place in one step.

    What a killed build left behind is in other such folders; whoever holds the lock clears them.
    """
    for left in folder.glob("build-*"):
        shutil.rmtree(left, ignore_errors=True)
    logger.info("building the kernels of %s, once on this machine (half a minute)", library.name)
    work = Path(tempfile.mkdtemp(prefix="build-", dir=folder))
    try:
        from torch.utils.cpp_extension import load

        with _ninja_on_path():
            load(
                library.name,
                [str(unit) for unit in units_of(library, work, _num_cores())],
                extra_cflags=flags(),
                extra_include_paths=[str(HEADERS)],
                extra_ldflags=["-fopenmp"],
                build_directory=str(work),
                is_python_module=False,
            )
        finished = work / built.name
        with open(finished, "rb") as file:
            os.fsync(file.fileno())
        write_text(_hash_file(built), _sha256(finished))
        os.replace(finished, built)
    except (RuntimeError, ImportError, subprocess.SubprocessError) as error:
        first = str(error).strip().partition("\n")[0]
        log = folder / "failed.log"
        log.write_text(str(error), encoding="utf-8")
        raise NotBuilt(f"the build failed ({first}); the compiler's words are in {log}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def units_of(library: Library, folder: Path, num_units: int) -> list[Path]:
    """Files in `folder` that include the sources, at most `num_units`, of about equal length.

    Torch's headers take the compiler longer than a source of ours, so there are no more units than
    cores. What a source names for itself alone, in a namespace without a name, has to be unlike the
    names of the others, since any of them may share a unit.
    """
    sources = [source for source in library.sources if source.suffix == ".cpp"]
    units: list[list[Path]] = [[] for _ in range(min(num_units, len(sources)))]
    lengths = [0] * len(units)
    for source in sorted(sources, key=lambda path: (-path.stat().st_size, path.name)):
        shortest = lengths.index(min(lengths))
        units[shortest].append(source)
        lengths[shortest] += source.stat().st_size
    paths = [folder / f"unit{number}.cpp" for number in range(len(units))]
    for path, unit in zip(paths, units, strict=True):
        text = "".join(f'#include "{source.resolve()}"\n' for source in unit)
        path.write_text(text, encoding="utf-8")
    return paths


def _num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compiler() -> str:
    """The C++ compiler that torch will call; NotBuilt where there is none."""
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name)
    if found is None:
        raise NotBuilt(f"there is no C++ compiler {name!r} on the path: install one, or set CXX")
    return found


def _key(library: Library, compiler: str) -> str:
    """A name for what a build depends on: torch, Python's ABI, compiler, flags, CPU, sources."""
    import torch

    version = _output([compiler, "--version"])
    parts = [torch.__version__, str(torch._C._GLIBCXX_USE_CXX11_ABI), compiler, version]
    parts += [*flags(), platform.machine()]
    parts += [_cpu_features(_cpu_info()) or platform.processor()]
    sources = [*HEADERS.glob("*.h"), *library.sources]
    parts += [path.name + path.read_text(encoding="utf-8") for path in sorted(sources)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def flags() -> list[str]:
    """The compiler's options, as SGAS_MARCH and this machine's processor ask for."""
    return [*FLAGS, f"-march={_march()}", *tuning(_cpu_info(), _march())]


@cache
def _march() -> str:
    """The processors to compile for: read once, since a process has one build of a library."""
    return os.environ.get("SGAS_MARCH") or "native"


def _cpu_info() -> str:
    """What Linux tells of the first CPU; elsewhere nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return ""


def _cpu_features(info: str) -> str:
    """What the CPU can do, for -march=native: a cache may be shared by several machines."""
    lines = info.splitlines()  # others, as the clock's, change
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def tuning(info: str, march: str = "native") -> tuple[str, ...]:
    """Flags beside -march for the CPU that Linux describes so.

    GCC 12 tunes AMD's CPUs with AVX-512 as their forerunners without, and spills registers inside
    of products. With Intel's tuning search steps took 4 to 7 % less CPU time on a Zen 4. Torch's
    library is slower on AMD's CPUs than tiles of registers: there large products are ours too.
    """
    if "AuthenticAMD" not in info:
        return ()
    wide = "avx512f" in _cpu_features(info).split() and march in ("native", "x86-64-v4")
    return ("-DSGAS_AMD", "-mtune=icelake-server") if wide else ("-DSGAS_AMD",)


@contextlib.contextmanager
def _ninja_on_path() -> Iterator[None]:
    """The ninja of this environment is found although its folder may not be on the path."""
    import ninja

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock of a process that was killed."""
    import fcntl

    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
