"""Downloads that show progress, go on where they were cut off, and never pass for complete."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sgas.errors import DataError, option
from sgas.files import no_link, sync_folder, write_text

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file by an algorithm of `hashlib`, as `sha256:…`; reads it in pieces."""
    # Published checksums are often MD5: good against damage, and nobody's security rests on it.
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def download(url: str, path: Path, checksum: str | None = None, hint: str = "") -> Path:
    """`path`, holding what `url` offers; returns at once where the file is there already.

    What has arrived lies in `path` + ".part" until it is complete and, where `checksum` is given
    ("sha256:…" or "md5:…"), agrees with it; the next call asks for the rest. Where no checksum is
    given, that of the first call holds for all later ones. Two processes do not
    download the same file at once. DataError where the network, the server, the disk or the
    checksum fails: it says which file to put where, followed by `hint`.
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
                _complete(url, path, checksum, advice)
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise DataError(f"cannot download {url} ({reason}): {advice}") from error
    if wrong := _wrong_checksum(path, checksum or _first_seen(path)):
        kept = "" if checksum else f" and {_kept(path).name}"
        raise DataError(f"{path} {wrong}: delete it{kept} and run the command again")
    return path


def _first_seen(path: Path) -> str | None:
    """The checksum that a file had when it was first opened, kept beside it; None: not kept.

    It stands in where none is published: what changes later is not taken for what was downloaded.
    """
    beside = _kept(path)
    try:
        if not beside.exists():
            write_text(beside, f"{checksum_of(path)}\n")
        return beside.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # a folder of others, to read alone
        return None


def _kept(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _complete(url: str, path: Path, checksum: str | None, advice: str) -> None:
    """Downloads `path`, unless another process has while this one waited."""
    if path.exists():
        return
    part = path.with_name(path.name + ".part")
    _fetch(url, part)
    if wrong := _wrong_checksum(part, checksum):
        part.unlink()
        raise DataError(f"what came from {url} {wrong}: {advice}")
    _kept(path).unlink(missing_ok=True)  # of a file that was here before
    os.replace(part, path)
    sync_folder(path.parent)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other process downloads the same file."""
    with open(lock, "a", encoding="utf-8", opener=no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wrong_checksum(path: Path, checksum: str | None) -> str | None:
    """What is wrong with a file's checksum, or None; None also where no checksum is known."""
    if checksum is None:
        return None
    actual = checksum_of(path, checksum.partition(":")[0])
    if actual == checksum.lower():
        return None
    return f"has the checksum {actual}, expected is {checksum}"


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
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        name = Path(file.name).name.removesuffix(".part")
        task = progress.add_task(f"download {name}", total=total, completed=start)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            progress.advance(task, len(chunk))
