"""Compiled kernels that a wheel brings, by which no compiler is needed: for each kind of processor.

They lie in `built/`, each beside a file that says what it was made of. What was made of other
sources than those that lie here, or is not as it was made, is left alone. Nothing but Python's own
library is imported: `setup.py` builds them where nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sgas.native.compiler import (
    HEADERS,
    Build,
    NotBuilt,
    build_for,
    compile_library,
    compiler_here,
    cpu_features,
    cpu_info,
    flags_for,
    march,
)

logger = logging.getLogger("sgas")

FOLDER = Path(__file__).parent / "built"
# What Linux calls the instructions of a level (x86-64 psABI, section 3.1.1).
_V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}


@dataclass(frozen=True)
class Processors:
    """Those of a level; of AMD alone where their kernels differ."""

    level: str
    vendor: str = ""

    def __str__(self) -> str:
        return f"{self.level}-amd" if self.vendor else self.level

    @property
    def flags(self) -> list[str]:
        """The compiler's options for them."""
        return flags_for(self.level, f"{self.vendor}\nflags: {' '.join(LEVELS[self.level])}")

    def include(self, info: str) -> bool:
        """Whether the one is among them that Linux describes so."""
        return LEVELS[self.level].issubset(cpu_features(info).split()) and self.vendor in info


AMD = "AuthenticAMD"
BEST_FIRST = (
    *(Processors(level, vendor) for level in ("x86-64-v4", "x86-64-v3") for vendor in (AMD, "")),
    Processors("x86-64-v2"),
)


@dataclass(frozen=True)
class Shipped:
    """A library that is there, its SHA-256, and what it was built by and for."""

    path: Path
    sha256: str
    build: Build


def find(name: str, sources: Sequence[Path]) -> Shipped | None:
    """The build of a library for this processor; None where there is none of these sources.

    Nor is there where SGAS_MARCH asks for a build of one's own.
    """
    if march() != "native" or not FOLDER.is_dir():
        return None
    for processors in BEST_FIRST:
        if processors.include(cpu_info()) and (found := _whole(name, processors, sources)):
            return found
    return None


def _whole(name: str, processors: Processors, sources: Sequence[Path]) -> Shipped | None:
    """A build where it is there, as it was made, and made of these sources."""
    path = FOLDER / f"{name}-{processors}.so"
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        made = hashlib.sha256(path.read_bytes()).hexdigest()
        if told["sources"] == hash_of(sources, processors) and told["sha256"] == made:
            return Shipped(path, made, Build(**told["build"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("the kernels in %s are not used: %s", path, error)
        return None
    logger.warning("the kernels in %s are not used: they are of other sources", path)
    return None


def hash_of(sources: Sequence[Path], processors: Processors) -> str:
    """SHA-256 of all that a build for these processors is made of but the compiler."""
    texts = sorted({*HEADERS.glob("*.h"), *sources}, key=lambda path: path.name)
    parts = [*processors.flags, *(path.name + path.read_text(encoding="utf-8") for path in texts)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def can_be_built() -> bool:
    """Whether kernels are for such a machine, and it has a compiler."""
    try:
        return sys.platform == "linux" and platform.machine() == "x86_64" and bool(compiler_here())
    except NotBuilt:
        return False


def build(name: str, sources: Sequence[Path], folder: Path) -> None:
    """Writes a library's builds for all processors into a folder; NotBuilt where one fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for processors in BEST_FIRST:
        path = folder / f"{name}-{processors}.so"
        with tempfile.TemporaryDirectory() as work:
            built = compile_library(name, sources, Path(work), processors.flags)
            path.write_bytes(built.read_bytes())
        told = {
            "sources": hash_of(sources, processors),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "build": asdict(build_for(processors.flags)),
        }
        path.with_suffix(".json").write_text(json.dumps(told, indent=1), encoding="utf-8")
