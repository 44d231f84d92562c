"""Files are there whole or not at all, and errors name the file that was wanted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sgas.files import make_folder, no_link, write_atomically, write_text


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "one")
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda file: file.write(b"half") and 1 / 0)
    assert path.read_text() == "one" and [*tmp_path.iterdir()] == [path]


def test_an_error_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    wanted = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_text(wanted, "one")
    assert caught.value.filename == str(wanted)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(NotADirectoryError) as below:
        write_text(tmp_path / "taken" / "file", "one")
    assert below.value.filename == str(tmp_path / "taken" / "file")


def test_a_library_s_own_error_stays(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise OSError("the pixels are all gone")

    with pytest.raises(OSError, match="the pixels are all gone"):
        write_atomically(tmp_path / "file", write)
    assert [*tmp_path.iterdir()] == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("untouched")
    link.symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"), open(link, "a", opener=no_link):
        pass
    write_text(link, "ours")
    assert other.read_text() == "untouched" and not link.is_symlink()


def test_every_new_parent_of_a_folder_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
