"""Files: written whole or not at all, never through a link that someone laid there; JSON read.

An OSError of what stands here names the file that was meant.

A folder of results may have a file of seals: the SHA-256 of each file's content by name. It is
written before the files are, with that of the content before too, and after them without: whenever
a process ends, each of them is one of those that are named. What is none was damaged later. Under
its own name it has the hash of its other entries.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import msgspec

from sgas.errors import RunError, printable

T = TypeVar("T")
SEALS = "seals.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems
EARLIER_SEALS = b"{\n"  # how those began that had no hash of themselves
TRIES = 3  # to read a file while its writer goes on
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the system inside names `path`; that of a library stays as it is."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path` and puts it in place once it is on disk.

    A reader sees the old file or the new one, whatever happens to this process.
    """
    temporary = temporary_beside(path)
    try:
        with naming(path):
            with open(temporary, "xb", opener=no_link) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Puts `content` into `path`, whole or not at all."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Puts `text` into `path`, whole or not at all."""
    write_bytes(path, text.encode())


def temporary_beside(path: Path) -> Path:
    """A name that nobody can guess, which `Run.open` clears where a killed process left it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def take_lock(file: IO[Any], wait: bool = True) -> bool:
    """Holds an open file for this process alone; False where its file system has no locks.

    The system lets go of it however the process ends. BlockingIOError where another process holds
    it and this one does not `wait`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def no_link(path: str, flags: int) -> int:
    """Opens a file for `open(..., opener=no_link)`; OSError where the name is a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that their names survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with naming(folder):
            folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where the file system can."""
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, with texts as names: control characters are escapes in them.

    A text that a spreadsheet would take for a formula has an apostrophe before.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_plain_cell(cell) for cell in row])
    return text.getvalue()


def _plain_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    return f"'{printable(cell)}" if cell.startswith(FORMULAS) else printable(cell)


def decode(content: bytes | str, kind: type[T]) -> T:
    """What a JSON text holds, of this type; ValueError in one line whatever the text is."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """What a JSON file holds, of type `kind`; RunError where it cannot be read or is damaged."""
    try:
        return decode(read_sealed(path), kind)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except RunError:
        raise
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None


def write_sealed(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Puts files into a folder by their names, each whole or not at all, after their seals."""
    seals = read_seals(folder)
    for name, content in contents.items():
        path = folder / name
        seals[name] = [_hash(content), *([_hash(path.read_bytes())] if path.exists() else [])]
    _write_seals(folder, seals)
    for name, content in contents.items():
        write_bytes(folder / name, content)
        del seals[name][1:]
    _write_seals(folder, seals)


def read_sealed(path: Path) -> bytes:
    """The content of a file; RunError where the seal beside it says that it is another now."""
    for _ in range(TRIES):
        content, seals = path.read_bytes(), read_seals(path.parent)
        if path.name not in seals or _hash(content) in seals[path.name]:
            return content
    whole = [
        name
        for name, hashes in seals.items()
        if (path.parent / name).is_file() and _hash((path.parent / name).read_bytes()) in hashes
    ]
    raise RunError(
        f"{path} is damaged: it is not what was written there (SHA-256); take it from a copy, or "
        f"delete {SEALS} if you changed it yourself; whole are {', '.join(whole) or 'none'}"
    )


def read_seals(folder: Path) -> dict[str, list[str]]:
    """The hashes by file; empty where a folder has none, as those of earlier versions.

    RunError where they are not those that were written.
    """
    try:
        content = (folder / SEALS).read_bytes()
        seals = decode(content, dict[str, list[str]])
        of_earlier_version = content.startswith(EARLIER_SEALS) and SEALS not in seals
        if not of_earlier_version and seals.pop(SEALS, None) != _seal_of(seals):
            raise ValueError("it is not what was written there (SHA-256)")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(
            f"{folder / SEALS} is damaged: {error}; take it from a copy, or delete it to go on "
            "without: what else is damaged is then not told"
        ) from None
    return seals


def _write_seals(folder: Path, seals: Mapping[str, list[str]]) -> None:
    text = json.dumps({**seals, SEALS: _seal_of(seals)})
    write_text(folder / SEALS, text + "\n")


def _seal_of(seals: Mapping[str, list[str]]) -> list[str]:
    return [_hash(json.dumps(seals).encode())]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
