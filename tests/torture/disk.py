"""A disk of which only what was synced is sure, as POSIX has it: what may be there after a crash.

A file's bytes are sure once the file was synced, a name in a folder once the folder was. Of all
else any part may have reached the disk: writes to a file one by one, the last of them cut or as
zeros; changes of a folder's names in any choice, a rename as one change.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.calls import Call, Kind

ROOT = 0
Name = tuple[int, str]  # the number of a folder, and a name in it


@dataclass
class Content:
    """What a file holds for sure, and what was done to it since."""

    sure: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut there

    def now(self) -> bytes:
        """What a reader sees while the machine runs."""
        return _applied(self.sure, self.since)

    def after_crash(self, draw: random.Random) -> bytes:
        """What may be there then."""
        if not self.since:
            return self.sure
        kept = [change for change in self.since if draw.random() < draw.choice((0, 0.5, 1))]
        if kept and kept[-1][1] and draw.random() < 0.5:
            at, data = kept[-1]
            size = draw.randrange(len(data) + 1)
            kept[-1] = (at, data[:size] if draw.random() < 0.5 else bytes(len(data)))
        return _applied(self.sure, kept)


def _applied(content: bytes, changes: Iterable[tuple[int, bytes | None]]) -> bytes:
    held = bytearray(content)
    for at, data in changes:
        held.extend(bytes(max(0, at - len(held))))
        if data is None:
            del held[at:]
        else:
            held[at : at + len(data)] = data
    return bytes(held)


class Disk:
    """The files and folders below `root`, from the calls that made them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[int, Content] = {}
        self.folders = {ROOT}
        self.now: dict[Name, int] = {}
        self.sure: dict[Name, int] = {}
        self.since: list[dict[Name, int | None]] = []
        self.number_of: dict[int, int] = {}  # by inode; a system uses inodes again
        self.count = ROOT

    def add(self, call: Call) -> None:
        """Does what a recorded call did."""
        if call.kind in (Kind.MARK, Kind.MODE):
            return
        if call.kind is Kind.OPEN:
            self.number_of[call.inode] = self._new()
            self.files[self.count] = Content()
            self._change({self._name(call.path): self.count})
        elif call.kind is Kind.MKDIR:
            self.folders.add(self._new())
            self._change({self._name(call.path): self.count})
        elif call.kind is Kind.WRITE:
            self._file(call).since.append((call.offset, call.data))
        elif call.kind is Kind.TRUNCATE:
            self._file(call).since.append((call.offset, None))
        elif call.kind is Kind.RENAME:
            old, new = self._name(call.path), self._name(call.other)
            self._change({new: self.now[old], old: None})
        elif call.kind is Kind.LINK:
            self._change({self._name(call.other): self.now[self._name(call.path)]})
        elif call.kind is Kind.UNLINK:
            self._change({self._name(call.path): None})
        elif call.offset:
            self._sync_folder(self._folder(Path(call.path)))
        else:
            content = self._file(call)
            content.sure, content.since = content.now(), []

    def write_after_crash(self, folder: Path, draw: random.Random) -> None:
        """Puts what may be there after a crash into `folder`, which is empty."""
        share = draw.choice((0.0, 0.5, 0.9, 1.0))
        names = dict(self.sure)
        for change in self.since:
            if draw.random() < share:
                _apply(names, change)
        contents: dict[int, bytes] = {}

        def fill(number: int, place: Path) -> None:
            for (parent, name), held in sorted(names.items()):
                if parent == number and held in self.folders:
                    (place / name).mkdir()
                    fill(held, place / name)
                elif parent == number:
                    if held not in contents:
                        contents[held] = self.files[held].after_crash(draw)
                    (place / name).write_bytes(contents[held])

        fill(ROOT, folder)

    def _new(self) -> int:
        self.count += 1
        return self.count

    def _file(self, call: Call) -> Content:
        return self.files[self.number_of[call.inode]]

    def _folder(self, path: Path) -> int:
        number = ROOT
        for part in path.relative_to(self.root).parts:
            number = self.now[number, part]
        return number

    def _name(self, path: str) -> Name:
        return self._folder(Path(path).parent), Path(path).name

    def _change(self, change: dict[Name, int | None]) -> None:
        _apply(self.now, change)
        self.since.append(change)

    def _sync_folder(self, number: int) -> None:
        """All changes of the names in a folder are sure now."""
        rest = []
        for change in self.since:
            _apply(self.sure, {key: to for key, to in change.items() if key[0] == number})
            left = {key: to for key, to in change.items() if key[0] != number}
            rest += [left] if left else []
        self.since = rest


def _apply(names: dict[Name, int], change: dict[Name, int | None]) -> None:
    for key, number in change.items():
        if number is None:
            names.pop(key, None)
        else:
            names[key] = number
