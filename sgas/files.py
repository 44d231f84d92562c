"""Files: written whole or not at all, never through a link that someone laid there; JSON read."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from sgas.errors import RunError

T = TypeVar("T")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path` and puts it in place once it is on disk.

    A reader sees the old file or the new one, whatever happens to this process. An OSError names
    `path`.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb", opener=no_link) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # a library's own
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Puts `text` into `path`, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def temporary_beside(path: Path) -> Path:
    """A name that nobody can guess, which `Run.open` clears where a killed process left it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def no_link(path: str, flags: int) -> int:
    """Opens a file for `open(..., opener=no_link)`; OSError where the name is a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that their names survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        return decode(path.read_bytes(), kind)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
