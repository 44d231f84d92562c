"""The allocator's settings, each in a process of its own: they cannot be taken back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
from sgas.native.allocator import keep_freed_memory
kept = keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del_me = bytearray(2**26)
    del del_me
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def outcome(**environment: str) -> tuple[bool, int]:
    """What the function says, and the page faults of a block of 64 MiB that was there before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**clean, **environment},
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_a_block_that_was_freed_is_used_again() -> None:
    kept, faults = outcome()
    assert kept and faults < 100
    untouched, usual = outcome(MALLOC_ARENA_MAX="4")
    assert not untouched and usual > 10 * (faults + 1)
