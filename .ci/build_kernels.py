"""Builds the compiled kernels of both families, for the processors that SGAS_MARCH names.

The exit status is 0 where they load, 1 where they do not, and SKIPPED where this processor lacks
the instructions or its own build stands for the level; a line says which. CI starts it before it
runs tests with such kernels.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from sgas.native.shipped import LEVELS
from sgas_cnn.library import LIBRARY as IMAGES
from sgas_gcn.library import LIBRARY as CLOUDS

SKIPPED = 77  # as for Automake's tests
# With all of these, of the next level, the build for this very processor has longer vectors.
LONGER = {"x86-64-v2": {"avx2", "fma"}, "x86-64-v3": {"avx512f", "avx512dq"}}


def why_not(level: str) -> str | None:
    """Why this machine cannot run the builds of a level, or need not; None where it has to.

    What kernels do differs by the length of vectors: of two builds with one, tests of either do.
    """
    if platform.machine() != "x86_64":
        return f"this machine is {platform.machine()}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = next((line.split() for line in lines if line.startswith("flags")), [])
    if lacking := LEVELS[level].difference(features):
        return f"this processor lacks {', '.join(sorted(lacking))}"
    if not LONGER[level].issubset(features):
        return "the build for this processor has vectors of the same length"
    return None


def main() -> int:
    """Builds both libraries, or says why not."""
    level = os.environ.get("SGAS_MARCH")
    if level in LONGER and (reason := why_not(level)):
        print(f"kernels for {level} are skipped: {reason}")
        return SKIPPED
    began = time.perf_counter()
    reasons = [reason for library in (CLOUDS, IMAGES) if (reason := library.load())]
    seconds = time.perf_counter() - began
    print(*reasons or [f"kernels for {level or 'this processor'} are there after {seconds:.0f} s"])
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
