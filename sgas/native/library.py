"""C++ libraries of operators, built where they are first needed and kept in a cache.

A family's compiled kernels are sources in its package. Where a build fails, callers go on with
plain torch: `Library.load` says why. No torch at this module's import.
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
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sgas.files import make_folder, no_link, take_lock, write_text
from sgas.native.compiler import (
    HEADERS,
    Build,
    NotBuilt,
    build_here,
    check_processor,
    check_torch,
    compile_library,
    compiler_here,
    cpu_features,
    cpu_info,
    flags,
    output_of,
)
from sgas.native.shipped import find

logger = logging.getLogger("sgas")

RATIO = "ratio.json"  # beside a build: its speed on this machine


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

    def build(self) -> Build:
        """What its kernels are built by and for; NotBuilt."""
        shipped = find(self.name, self.sources)
        return build_here() if shipped is None else shipped.build

    def keep_ratio(self, ratio: float) -> None:
        """Keeps for `auto` how many times faster than torch the kernels are on this machine."""
        write_text(_folder_of(self) / RATIO, json.dumps(ratio))
        _why_not_shown.cache_clear()

    def load(self) -> str | None:
        """None where the operators are there; else why not, in one line.

        Builds them on the first call that finds none in the cache (about 40 seconds of CPU time);
        calls after the first cost nothing.
        """
        return _load(self)

    def build_ahead(self) -> None:
        """Builds them where the cache has none, without torch: it may be installed meanwhile.

        NotBuilt where they cannot be built.
        """
        _build_or_find(self, lambda built: None)


@cache
def _load(library: Library) -> str | None:
    import torch

    try:
        check_torch()
        _build_or_find(library, lambda built: torch.ops.load_library(str(built)))
    except NotBuilt as error:
        logger.warning("compiled kernels are not used: %s", error)
        return str(error)
    return None


@cache
def _why_not_shown(library: Library) -> str | None:
    try:
        build, measured = library.build(), _measured(library)
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


def _build_or_find(library: Library, load: Callable[[Path], None]) -> None:
    """Calls `load` with a library that is there, or else with the one that it builds."""
    if shipped := find(library.name, library.sources):
        with contextlib.suppress(OSError):
            load(shipped.path)
            return
    check_processor()
    folder = _own_folder(_folder_of(library))
    built = folder / f"{library.name}.so"
    try:
        with _locked(folder / "lock"):
            for left in folder.glob("build-*"):  # of a build that was killed
                shutil.rmtree(left, ignore_errors=True)
            if _is_whole(built):
                with contextlib.suppress(OSError):
                    load(built)
                    return
            _build(library, folder, built, load)
    except OSError as error:
        if _is_whole(built):  # in a folder that can be read alone
            with contextlib.suppress(OSError):
                load(built)
                return
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
    """Where a build of the library, or what is known of it, is kept; NotBuilt without any."""
    shipped = find(library.name, library.sources)
    key = _key(library, compiler_here()) if shipped is None else shipped.sha256[:16]
    return cache_folder() / "native" / f"{library.name}-{key}"


def _build(library: Library, folder: Path, built: Path, load: Callable[[Path], None]) -> None:
    """Compiles in a folder of its own, loads, and puts the file in place in one step."""
    logger.info("building the kernels of %s, once on this machine (half a minute)", library.name)
    work = Path(tempfile.mkdtemp(prefix="build-", dir=folder))
    try:
        finished = compile_library(library.name, library.sources, work, flags())
        load(finished)
        with open(finished, "rb") as file:
            os.fsync(file.fileno())
        write_text(_hash_file(built), _sha256(finished))
        os.replace(finished, built)
    except (NotBuilt, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        log = folder / "failed.log"
        log.write_text(str(error), encoding="utf-8")
        raise NotBuilt(f"the build failed ({first}); the compiler's words are in {log}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _key(library: Library, compiler: str) -> str:
    """A name for what a build depends on: compiler, flags, CPU, sources."""
    parts = [compiler, output_of([compiler, "--version"])]
    parts += [*flags(), platform.machine()]
    parts += [cpu_features(cpu_info()) or platform.processor()]
    sources = [*HEADERS.glob("*.h"), *library.sources]
    parts += [path.name + path.read_text(encoding="utf-8") for path in sorted(sources)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; without locks a build may be made twice, and is put in place whole."""
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        take_lock(file)
        yield
