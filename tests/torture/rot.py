"""rot: flipped bits, cut ends, lost lines, zeroed blocks in every file that is read again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sgas.errors import SgasError
from sgas.files import SEALS, read_seals
from sgas.running.runs import (
    read_checkpoint,
    read_config,
    read_genotype,
    read_metrics,
    read_records,
)
from sgas.running.trained import read_evaluation, read_result, trained_weights
from sgas.studies.study import Part, StudyInfo, change_parts, read_info, read_manifest, write_info
from tests.torture.bench import JOBS, Bench, Wrong, require

READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": read_config,
    "metrics.jsonl": read_metrics,
    "decisions.jsonl": read_records,
    "genotype.json": read_genotype,
    "result.json": read_result,
    "evaluation.json": read_evaluation,
    "weights.safetensors": trained_weights,
    "checkpoint.pt": lambda run: _told(read_checkpoint(run / "checkpoint.pt")),
    "checkpoint.previous.pt": lambda run: _told(read_checkpoint(run / "checkpoint.previous.pt")),
    "study.json": read_info,
    "manifest.json": read_manifest,
    SEALS: lambda folder: {n: h for n, h in read_seals(folder).items() if (folder / n).exists()},
}


@dataclass(frozen=True, eq=False)
class Kept:
    """A folder, its files, and what its readers say of it whole."""

    folder: Path
    contents: dict[str, bytes]
    whole: dict[str, str]


@cache
def folders(bench: Bench) -> list[Kept]:
    """A search, an evaluated training and a study."""
    kept = []
    for name in ("search", "train"):
        place = bench.root / f"rot-{name}"
        shutil.copytree(bench.undisturbed(name).folder, place)
        kept.append(place / "runs" / "x")
    ended = bench.run(JOBS["train"], bench.root / "rot-train", ["evaluate", "runs/x"])
    require(ended.status == 0, ended.err)
    study = bench.root / "rot-study"
    study.mkdir()
    run: dict[str, Any] = {"search": {}, "train": {}, "environment": {"torch": "2"}}
    words = dict.fromkeys(("family", "home", "dataset", "space", "preset", "protocol"), "toy")
    info = StudyInfo(1, **words, strategies=["cri2"], seeds=[0], command="sweep", **run)
    write_info(study, info)
    change_parts(study, {f"cri2-{seed}/search": Part() for seed in range(9)})
    change_parts(study, {"cri2-0/search": Part(log="a", error="b")})
    return [_kept(folder) for folder in [*kept, study]]


def _kept(folder: Path) -> Kept:
    names = [name for name in READERS if (folder / name).exists()]
    contents = {name: (folder / name).read_bytes() for name in names}
    return Kept(folder, contents, {name: _said(name, folder) for name in names})


def _said(name: str, folder: Path) -> str:
    value = READERS[name](folder)
    by_name = isinstance(value, dict)
    return repr({key: _plain(value[key]) for key in sorted(value)} if by_name else value)


def _plain(value: Any) -> Any:
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def _told(state: dict[str, Any] | None) -> list[str]:
    """A checkpoint that is not whole is told by None."""
    if state is None:
        raise SgasError("damaged")
    return [str(sorted(state))]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content after one of the things that happen to files."""
    at = draw.randrange(len(content))
    way = draw.randrange(5)
    if way == 0:
        return content[:at]
    if way == 1:
        lines = content.splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        return b"".join(lines)
    if way == 2:
        size = min(draw.choice((16, 512, 4096)), len(content) - at)
        return content[:at] + bytes(size) + content[at + size :]
    flipped = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 4, 64))):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def check(bench: Bench, case: int, seed: int) -> None:
    """One damage of one file: each reader says so, or says what it said of the whole file."""
    draw = random.Random(f"{seed}/{case}")
    kept = draw.choice(folders(bench))
    name = draw.choice(sorted(kept.contents))
    content = damaged(kept.contents[name], draw)
    if content == kept.contents[name]:
        return
    (kept.folder / name).write_bytes(content)
    try:
        for reader in kept.whole if name == SEALS else [name]:
            try:
                said = _said(reader, kept.folder)
            except SgasError as error:
                require("\n" not in str(error), f"{name}: told in several lines")
                continue
            except Exception as error:
                raise Wrong(f"{name}: {type(error).__name__}: {error}") from None
            require(said == kept.whole[reader], f"{name}: {reader} is read as something else")
    finally:
        (kept.folder / name).write_bytes(kept.contents[name])


SMALL = 2000
