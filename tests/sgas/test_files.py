"""Files are there whole or not at all, and errors name the file that was wanted."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_family import SPACE

from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.errors import RunError, SgasError, option
from sgas.files import (
    SEALS,
    make_folder,
    no_link,
    read_sealed,
    write_atomically,
    write_sealed,
    write_text,
)
from sgas.options import read_yaml
from sgas.running.runs import (
    Run,
    _keep_as,
    _lock,
    _seal,
    is_held,
    read_checkpoint,
    read_config,
    read_genotype,
    read_metrics,
    read_records,
)
from sgas.running.trained import read_result
from sgas.studies.study import hold, read_study


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


READERS: dict[str, Callable[[Path], object]] = {
    "config.json": read_config,
    "decisions.jsonl": read_records,
    "metrics.jsonl": read_metrics,
    "genotype.json": read_genotype,
    "result.json": read_result,
    "study.json": read_study,
    "options.yaml": lambda folder: read_yaml(str(folder / "options.yaml")),
}
NO_SUCH = {
    "bytes that are no text": b"\xff\xfe{\x80}",
    "a deep nest": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "brackets that a reader looks through again for each": b"a: " + b"{" * 3000,
    "another type": b"[1, 2]",
    "a tag": b"a: !!timestamp 1",
    "code": b"!!python/object/apply:os.abort []",
    "a number of no size": b'[{"epoch": 1e999}, 99999999999999999999999]',
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", NO_SUCH)
def test_whatever_a_file_holds_it_is_told_in_one_line(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(NO_SUCH[what])
    with pytest.raises(SgasError) as told:
        READERS[name](tmp_path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


@pytest.mark.parametrize("verb", ["tra\n", "\x1b[2Jtrain"])
def test_what_a_message_quotes_breaks_no_line(verb: str) -> None:
    told = RunError(f"this is a run of {verb}: give {option('out', 'elsewhere')}")
    assert str(told).isprintable() and told.for_command().isprintable()
    assert str(told).endswith("out=elsewhere") and told.for_command().endswith("--out elsewhere")


def test_a_sealed_checkpoint_that_names_code_is_damaged_however_long_the_name(
    tmp_path: Path,
) -> None:
    torch.save({"a": torch.ones(2)}, file := io.BytesIO())
    path = tmp_path / "checkpoint.pt"
    for name in (b"os\nsystem\n", b"os\n" + b"x" * 200_000 + b"\n"):
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed := io.BytesIO(), "w") as new:
            for member in old.namelist():
                code = b"\x80\x02c" + name + b"." if member.endswith("data.pkl") else None
                new.writestr(member, code or old.read(member))
        path.write_bytes(packed.getvalue() + _seal(packed.getvalue()))
        assert read_checkpoint(path) is None
    path.write_bytes(file.getvalue() + _seal(file.getvalue()))
    assert read_checkpoint(path)["a"].tolist() == [1, 1]


def test_a_genotype_of_any_length_is_told_at_once() -> None:
    words = ", ".join(f"a{number}=[('skip', 0)]" for number in range(100_000))
    with pytest.raises(SgasError, match="characters, more than"):
        Genotype.from_text(f"Genotype({words})", SPACE.name)
    cell = CellGene((EdgeGene("skip", 0),) * 100_000, (0,))
    with pytest.raises(SgasError, match="a cell lists 100000 edges; at most"):
        Genotype(1, SPACE.name, dict.fromkeys(SPACE.cell_kinds, cell)).validate(SPACE)


def test_what_changed_after_it_was_written_is_told(tmp_path: Path) -> None:
    write_sealed(tmp_path, {"a": b"1", "b": b"1"})
    write_sealed(tmp_path, {"a": b"2"})
    assert read_sealed(tmp_path / "a") == b"2"
    (tmp_path / "a").write_bytes(b"1")  # what was there before, too
    with pytest.raises(RunError, match=r"a is damaged: it is not what .*; whole are b$"):
        read_sealed(tmp_path / "a")


def test_seals_are_sealed_themselves(tmp_path: Path) -> None:
    write_sealed(tmp_path, {"a": b"1", "b": b"1"})
    seals = tmp_path / SEALS
    whole = seals.read_bytes()
    for at in range(len(whole) - 1):
        seals.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(RunError, match=f"{SEALS} is damaged: .*; take it from a copy, or"):
            read_sealed(tmp_path / "a")
    seals.write_text(
        json.dumps({"a": json.loads(whole)["a"]}, indent=1)
    )  # as earlier versions wrote them
    assert read_sealed(tmp_path / "a") == b"1"


@pytest.mark.parametrize("ended_at", range(5))
def test_a_process_that_ends_between_seals_and_files_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_at: int
) -> None:
    """Twice in turn: what lies there then is neither the last content nor the one before."""
    write_sealed(tmp_path, {"a": b"1", "b": b"1"})
    for content in (b"2", b"3"):
        replaced = []

        def replace(old: Path, new: Path, done: list[Path] = replaced) -> None:
            if len(done) == ended_at:
                raise KeyboardInterrupt
            done.append(new)
            os.rename(old, new)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", replace)
            if ended_at < 4:
                with pytest.raises(KeyboardInterrupt):
                    write_sealed(tmp_path, {"a": content, "b": content})
            else:
                write_sealed(tmp_path, {"a": content, "b": content})
        assert {read_sealed(tmp_path / name) for name in "ab"} <= {b"1", b"2", b"3"}


def test_one_file_of_two_names_leaves_no_third(tmp_path: Path) -> None:
    """A rename of a name onto another of the same file does nothing, by POSIX."""
    (tmp_path / "a").write_text("1")
    for _ in range(2):
        _keep_as(tmp_path / "a", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_system_without_locks_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunError, match=r"file system without locks.*no_lock"):
        Run.create(tmp_path / "run", {})
    assert not [*tmp_path.iterdir()]
    facts: dict[str, object] = {
        key: {} for key in ("loop", "model", "data", "dimensions", "environment")
    }
    config = {"family": "toy", "verb": "search", "run": {"no_lock": True}, **facts}
    with Run.create(tmp_path / "run", config), Run.open(tmp_path / "run"):
        pass
    assert not is_held(tmp_path / "run")
    with pytest.raises(RunError, match="which a study needs"), hold(tmp_path / "lock"):
        pass


def test_what_a_killed_start_left_is_cleared_and_a_running_one_is_not(tmp_path: Path) -> None:
    left, running = tmp_path / ".run.abcdefgh", tmp_path / ".run.01234567"
    left.mkdir()
    running.mkdir()
    with _lock(running), Run.create(tmp_path / "run", {}):
        assert not left.exists() and running.exists()
