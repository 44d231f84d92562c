"""The calls of a process that change files, numbered: one is disturbed, or all are recorded.

`calls.c` is preloaded, so that every writer is seen; `preloaded` starts this program again with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("calls.c")
LIBRARY = "SGAS_TORTURE_CALLS"


class Action(IntEnum):
    """What is done with a call; the order is that of calls.c."""

    NOTHING = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_WITHIN = 3  # half of what a write has to write
    FAIL = 4
    FAIL_FROM = 5  # it, and all after it
    SHORT = 6
    SIGNAL = 7


KILLS = (Action.KILL_BEFORE, Action.KILL_WITHIN, Action.KILL_AFTER)


class Kind(IntEnum):
    """What a recorded call did; the order is that of calls.c."""

    MARK = 0
    OPEN = 1  # a new file
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    RENAME = 5
    LINK = 6
    MKDIR = 7
    UNLINK = 8
    MODE = 9


@dataclass(frozen=True)
class Call:
    """A recorded call: `offset` of a write, size of a truncation, 1 for the sync of a folder."""

    kind: Kind
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


@dataclass(frozen=True)
class Disturbance:
    """Call number `at` below the folder of a case meets `action`; `value` is an errno or signal."""

    at: int
    action: Action
    value: int = 0

    def __str__(self) -> str:
        value = f" {self.value}" if self.value else ""
        return f"{self.action.name.lower()}{value} at call {self.at}"


def preloaded() -> None:
    """Returns where the calls are watched; else begins this program again so that they are."""
    if LIBRARY in os.environ:
        return
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        sys.exit("there is no C compiler on the path: install one, or set CC")
    built = Path(tempfile.mkdtemp(prefix="sgas-torture-")) / "calls.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    environ = {**os.environ, "LD_PRELOAD": str(built), LIBRARY: str(built)}
    os.execve(sys.executable, [*sys.orig_argv[:1], *sys.orig_argv[1:]], environ)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ[LIBRARY])
    library.torture_count.restype = ctypes.c_long
    library.torture_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    return library


def arm(root: Path, disturbance: Disturbance | None = None, trace: Path | None = None) -> None:
    """Counts the calls below `root` from now on, and disturbs one; `trace` gets all of them."""
    if trace is not None:
        file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _library().torture_trace(file)
    it = disturbance or Disturbance(-1, Action.NOTHING)
    _library().torture_arm(os.fsencode(root), it.at, int(it.action), it.value)


def count() -> int:
    """How many calls there were since `arm`."""
    return int(_library().torture_count())


def mark(text: str) -> None:
    """Puts a word between the recorded calls."""
    _library().torture_mark(text.encode())


def read_trace(path: Path) -> Iterator[Call]:
    """The calls that were recorded."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        kind, inode, offset, *sizes = struct.unpack_from("6Q", content, at)
        at += struct.calcsize("6Q")
        parts = []
        for size in sizes:
            parts.append(content[at : at + size])
            at += size
        yield Call(
            Kind(kind), inode, offset, os.fsdecode(parts[0]), os.fsdecode(parts[1]), parts[2]
        )
