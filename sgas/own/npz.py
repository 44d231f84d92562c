"""What an `.npz` file holds, known from its headers before anything is allocated.

An `.npz` is a zip of `.npy` files, each of which begins with its shape and type. A file can claim
any size there, so the claim is compared with what is stored and with the memory that is free. Texts
in arrays are names that a terminal may show: `as_names` takes control characters out of them.
"""

from __future__ import annotations

import math
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sgas.errors import DataError, printable

MOST_PACKED = 1032  # bytes that one byte of a deflated stream can stand for
LONGEST_HEADER = 1024  # bytes; NumPy writes 118 of plain arrays, and takes seconds over 10,000
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type that an array claims, and the bytes that the file stores for it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: int

    @property
    def nbytes(self) -> int:
        """Bytes that the array takes in memory, by its claim."""
        return math.prod(self.shape) * self.dtype.itemsize

    def problem(self) -> str | None:
        """Why the array cannot be read, or None."""
        if self.dtype.hasobject:
            return "holds pickled Python objects; save plain numbers, or names as a text array"
        if self.dtype.itemsize == 0:
            return (
                f"is of type {self.dtype}, which has no bytes; the file is damaged: write it again"
            )
        if min(self.shape, default=0) < 0 or self.nbytes != self.stored:
            return (
                f"claims shape {list(self.shape)} of {self.dtype} ({in_words(self.nbytes)}), but "
                f"{in_words(self.stored)} are stored; the file is damaged: write it again"
            )
        free = available_memory()
        if self.nbytes > free:
            return f"takes {in_words(self.nbytes)}, {in_words(free)} of memory are free: cut it up"
        return None


def read_headers(path: Path) -> dict[str, ArrayHeader]:
    """The header of each array in an `.npz` file, by name; DataError where the file is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _read_header(archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    except Exception as error:  # whatever a damaged file leads zipfile and NumPy to
        raise _damaged(path, error) from error


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an `.npz` file; DataError where the file is damaged or the array is missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [file.removesuffix(".npy") for file in archive.namelist()]
            if name not in names:
                raise DataError(f"{path} has no array {name}; it has {', '.join(names) or 'none'}")
            problem = _read_header(archive, archive.getinfo(f"{name}.npy")).problem()
            if problem:
                raise ValueError(f"{name} {problem}")
            with archive.open(f"{name}.npy") as member:
                return _of_characters(np.lib.format.read_array(member, allow_pickle=False))
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file leads zipfile and NumPy to
        raise _damaged(path, error) from error


def read_lone_array(path: Path) -> np.ndarray:
    """The array of an `.npy` file; DataError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            header = _header_of(file, os.fstat(file.fileno()).st_size)
            if problem := header.problem():
                raise ValueError(f"it {problem}")
            file.seek(0)
            return _of_characters(np.lib.format.read_array(file, allow_pickle=False))
    except Exception as error:  # whatever a damaged file leads zipfile and NumPy to
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path} cannot be read as an array ({reason})") from None


def _of_characters(array: np.ndarray) -> np.ndarray:
    """The array; ValueError where it is of text, and numbers in it are no characters."""
    if array.dtype.kind == "U" and array.nbytes:
        numbers = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.str[0]}u4")
        if numbers.max() > sys.maxunicode:
            raise ValueError(f"{numbers.max()} is no character")
    return array


def as_names(array: np.ndarray) -> list[str]:
    """The texts of an array, or its values as text, with control characters as escapes."""
    return [
        printable(name.decode(errors="replace") if isinstance(name, bytes) else str(name))
        for name in array.reshape(-1).tolist()
    ]


def available_memory() -> int:
    """Bytes of memory that are free, or the limit of the container where that is less."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(
            line.split(":", 1) for line in meminfo.read_text("utf-8").splitlines() if ":" in line
        )
        if "MemAvailable" in fields:
            free = int(fields["MemAvailable"].split()[0]) * 1024
    for path in _CGROUP_LIMITS:
        limit = path.read_text("utf-8").strip() if path.exists() else ""
        free = min(free, int(limit)) if limit.isdigit() else free
    return free


def in_words(num_bytes: int) -> str:
    """A number of bytes with its unit, such as `3.6 TiB`."""
    if num_bytes < 1024:
        return f"{num_bytes} bytes"
    size = float(num_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.4g} PiB"


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    if info.file_size > MOST_PACKED * max(info.compress_size, 1):
        raise ValueError(f"{info.filename} claims {in_words(info.file_size)} of next to nothing")
    with archive.open(info) as member:
        return _header_of(member, info.file_size)


def _header_of(member: IO[bytes], size: int) -> ArrayHeader:
    """The header of an array of which `size` bytes are stored with it."""
    version = np.lib.format.read_magic(member)
    shape, _, dtype = _header_fields(member, version)
    return ArrayHeader(shape, dtype, size - member.tell())


def _header_fields(
    member: IO[bytes], version: tuple[int, int]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member, LONGEST_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member, LONGEST_HEADER)
    raise ValueError(f"an array of format {version}, which plain arrays do not have")


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:160]
    return DataError(
        f"{path} is damaged or not an .npz file ({reason}): write it again with np.savez"
    )
