"""Downloads that show progress, go on where they were cut off, and never pass for complete."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sgas.errors import DataError, option
from sgas.files import no_link, sync_folder, take_lock
from sgas.terminal import console

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Sha256:
    """The published SHA-256 of a file, in hexadecimal digits."""

    digits: str

    def __str__(self) -> str:
        return f"sha256:{self.digits}"


def checksum_of(path: Path) -> Sha256:
    """The SHA-256 of a file, which is read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return Sha256(digest.hexdigest())


def download(url: str, path: Path, known: Sha256, hint: str = "") -> Path:
    """`path`, holding what `url` offers; returns at once where the file is there already.

    What has arrived lies in `path` + ".part" until it is complete and has the hash that is known;
    the next call asks for the rest. What is there is compared at each call. Two processes do not
    download the same file at once. DataError where the network, the server, the disk or the
    hash fails: it says which file to put where, followed by `hint`.
    """
    advice = f"put the file {path.name} into {path.parent.resolve()} and run the command again"
    advice = f"{advice}; {hint}" if hint else advice
    try:
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _alone(path.with_name(f".{path.name}.lock")):
                    pass
            except OSError as error:
                raise DataError(
                    f"cannot write in {path.parent.resolve()} ({error.strerror}): give a "
                    f"{option('data_root')} where you may write"
                ) from None
            with _alone(path.with_name(f".{path.name}.lock")):
                _complete(url, path, known, advice)
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise DataError(f"cannot download {url} ({reason}): {advice}") from error
    if wrong := _wrong_checksum(path, known):
        raise DataError(f"{path} {wrong}: delete it and run the command again")
    return path


def _complete(url: str, path: Path, known: Sha256, advice: str) -> None:
    """Downloads `path`, unless another process has while this one waited."""
    if path.exists():
        return
    part = path.with_name(path.name + ".part")
    _fetch(url, part)
    if wrong := _wrong_checksum(part, known):
        part.unlink()
        raise DataError(f"what came from {url} {wrong}: {advice}")
    os.replace(part, path)
    sync_folder(path.parent)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other process downloads the same file."""
    with open(lock, "a", encoding="utf-8", opener=no_link) as file:
        take_lock(file)  # without locks a file may come twice, and is put in place as a whole
        yield


def _wrong_checksum(path: Path, known: Sha256) -> str | None:
    """What is wrong with a file's hash, or None."""
    if (actual := checksum_of(path)) == known:
        return None
    return f"has the checksum {actual}, expected is {known}"


def _fetch(url: str, part: Path) -> None:
    """Completes `part`; OSError where the connection ends before all of it came."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        with error:
            if not have or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
        part.unlink()
        return _fetch(url, part)
    with answer, open(part, "r+b" if have else "wb", opener=no_link) as file:
        # A server that knows no ranges sends the whole file again.
        start = have if answer.status == http.client.PARTIAL_CONTENT else 0
        file.seek(start)
        file.truncate()
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _copy(answer, file, start, total)
        file.flush()
        os.fsync(file.fileno())
    size = part.stat().st_size
    if total is not None and size != total:
        raise ConnectionError(
            f"the connection ended after {size} of {total} bytes; the next run asks for the rest"
        )


def _copy(answer: Any, file: BinaryIO, start: int, total: int | None) -> None:
    """Copies a response's body under a progress bar on standard error."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        name = Path(file.name).name.removesuffix(".part")
        task = progress.add_task(f"download {name}", total=total, completed=start)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            progress.advance(task, len(chunk))
