"""fuzz: what decoders make of any bytes. Our own errors alone, within a second and 512 MiB."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from toy_family import FAMILY, SPACE

from sgas.cells.genotype import Genotype
from sgas.errors import SgasError
from sgas.files import SEALS, decode, read_seals
from sgas.options import read_yaml
from sgas.own.samples import array_of
from sgas.running import runs
from sgas.running.settings import open_settings
from sgas.running.trained import trained_weights
from sgas.studies.study import read_info, read_manifest
from sgas_cnn.datasets import folder as images
from sgas_cnn.nasbench201_text import from_nasbench201
from sgas_gcn.config import GraphDataConfig
from sgas_gcn.datasets import folder as clouds
from sgas_gcn.datasets.graph_folder import describe_graph_file, load_graph_file
from sgas_gcn.datasets.modelnet import parse_off
from sgas_gcn.datasets.planetoid import _unpickled
from sgas_gcn.datasets.ppi import _Links
from tests.torture.bench import GENOTYPE, Bench, Wrong, at_most, require
from tests.torture.rot import folders

SECONDS, BYTES = 1.0, 512 << 20
BLOCK = 500  # cases of a process
TEXT = "Genotype(normal=[('skip', 0), ('linear', 1)], normal_concat=range(1, 3), " \
       "reduce=[('skip', 0), ('gate', 1)], reduce_concat=[1, 2])"  # fmt: skip
OFF = b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@dataclass(frozen=True)
class Decoder:
    """What reads a file of this name in a folder, and files that are right.

    `foreign` are errors of others that its only caller turns into ours.
    """

    name: str
    read: Callable[[Path], Any]
    seeds: Callable[[Bench], list[bytes]]
    foreign: tuple[type[Exception], ...] = ()


def _sealed(path: Path) -> Any:
    """Reads a checkpoint whose seal is right, whatever it holds."""
    content = path.read_bytes()
    path.write_bytes(content + runs._seal(content))
    return runs.read_checkpoint(path)


def _of_run(number: int, name: str) -> Callable[[Bench], list[bytes]]:
    return lambda bench: [folders(bench)[number].contents[name]]


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@cache
def _checkpoint(bench: Bench) -> list[bytes]:
    """What a checkpoint holds, with a weight or two of each kind: its reader looks at no more."""
    whole = folders(bench)[0].contents["checkpoint.pt"][: -runs.SEAL_LENGTH]
    state = torch.load(io.BytesIO(whole), weights_only=True)
    del state["history"], state["alpha_optimizer"]["state"]
    state["supernet"] = dict(list(state["supernet"].items())[:2])
    state["weight_optimizer"]["state"] = {0: state["weight_optimizer"]["state"][0]}
    state["random"] = {name: each[:64].clone() for name, each in state["random"].items()}
    file = io.BytesIO()
    torch.save(state, file)
    return [file.getvalue()]


LABELS = np.arange(12) % 3
ONES = np.ones((3, 2))
CLOUDS = _npz(points=np.ones((12, 4, 3), np.float32), label=LABELS, classes=np.array(list("abc")))
PICTURES = _npz(image=np.ones((12, 4, 4, 3), np.uint8), label=LABELS, classes=np.array(list("abc")))
EDGES = np.stack([np.arange(11), np.arange(1, 12)], 1)
GRAPH = _npz(x=np.ones((12, 2), np.float32), edge=EDGES, label=LABELS)
POINTERS = {"node_ptr": np.array([0, 12]), "edge_ptr": np.array([0, 11])}
GRAPHS = _npz(x=np.ones((12, 2), np.float32), edge=EDGES, y=LABELS, split=["train"],
              edge_attr=np.ones((11, 2), np.float32), **POINTERS)  # fmt: skip
SPARSE = _npz(edge=EDGES, label=LABELS, feat_indptr=np.arange(13), feat_indices=LABELS, feat_dim=3)
NASBENCH = b"|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|"
YAML = b"seed: 3\nloop:\n  learning_rate: 1.0e-3\nlist: [1, {a: b}]\n"

DECODERS = {
    "genotype": Decoder(
        "g.json",
        lambda path: Genotype.from_json(path.read_bytes()).validate(SPACE).to_text(),
        lambda bench: [json.dumps(GENOTYPE).encode()],
    ),
    "darts": Decoder(
        "g.txt",
        lambda path: Genotype.from_text(path.read_bytes().decode("latin1"), "toy").validate(SPACE),
        lambda bench: [TEXT.encode()],
    ),
    "nasbench": Decoder(
        "g.txt", lambda path: from_nasbench201(path.read_bytes().decode("latin1")),
        lambda bench: [NASBENCH],
    ),
    "config": Decoder(
        "config.json", lambda path: open_settings(FAMILY, path.parent), _of_run(1, "config.json")
    ),
    "metrics": Decoder(
        "metrics.jsonl", lambda path: runs.read_metrics(path.parent), _of_run(0, "metrics.jsonl")
    ),
    "decisions": Decoder(
        "decisions.jsonl",
        lambda path: runs.read_records(path.parent),
        _of_run(0, "decisions.jsonl"),
    ),
    "seals": Decoder(SEALS, lambda path: read_seals(path.parent), _of_run(0, SEALS)),
    "checkpoint": Decoder("checkpoint.pt", _sealed, _checkpoint),
    "weights": Decoder(
        "weights.safetensors",
        lambda path: trained_weights(path.parent),
        _of_run(1, "weights.safetensors"),
    ),
    "study": Decoder("study.json", lambda path: read_info(path.parent), _of_run(2, "study.json")),
    "manifest": Decoder(
        "manifest.json", lambda path: read_manifest(path.parent), _of_run(2, "manifest.json")
    ),
    "yaml": Decoder("o.yaml", lambda path: read_yaml(str(path)), lambda bench: [YAML]),
    "npy": Decoder(
        "a.npy", lambda path: array_of(path, "x"), lambda bench: [_npy(np.ones((5, 3)))]
    ),
    "clouds": Decoder(
        "train.npz", lambda path: clouds.describe_folder(path.parent), lambda bench: [CLOUDS]
    ),
    "images": Decoder(
        "train.npz", lambda path: images.load_folder(path.parent, "train"),
        lambda bench: [PICTURES],
    ),
    "graphs": Decoder(
        "g.npz",
        lambda path: (describe_graph_file(path), load_graph_file(path, "train", GraphDataConfig())),
        lambda bench: [GRAPH, GRAPHS, SPARSE],
    ),
    "mesh": Decoder("m.off", lambda path: parse_off(path.read_bytes()), lambda bench: [OFF],
                    (ValueError,)),
    "links": Decoder(
        "l.json", lambda path: decode(path.read_bytes(), _Links),
        lambda bench: [b'{"links": [{"source": 0, "target": 1}]}'], (ValueError,),
    ),
    "pickle": Decoder(  # whose caller takes any exception
        "ind.cora.x", _unpickled,
        lambda bench: [pickle.dumps(a, 3) for a in (ONES, csr_matrix(ONES), {0: [1]})],
        (Exception,),
    ),
}  # fmt: skip

STRANGE: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**63, 10**30, 1e308, -0.0, "", "\x1b[2J", "=1+1", "../x", "NaN"),
    *("a" * 5000, [], {}, [[]], [None] * 3, {"": ""}),
]
TOKENS = [
    *(b"\x00", b"\xff", b"\x80", b"[" * 3000, b"{" * 3000, b'{"a":' * 2000, b"(" * 3000, b"1e999"),
    *(b"NaN", b"Infinity", b"null", b'"', b"\\", b"'", b"!!python/name:os.system", b"&a [*a]"),
    *(b"\xef\xbb\xbf", b"9" * 5000, b"-", b"range(0, 10**9)", b"\n" * 100, b"PK\x05\x06", b"<U0"),
    *(b"|O", b"(100000000,)", b"(2147483648, 2147483648)", b"\xff\xff\xff\x7f"),
]
KINDS = (np.int64, np.uint64, np.float32, np.int8, np.bool_, "<U3", "S2", np.complex64)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content, changed in one or several places."""
    with suppress(ValueError):
        if content[:1] in b"{[" and draw.random() < 0.5:
            lines = content.splitlines() if b"}\n{" in content else [content]
            number = draw.randrange(len(lines))
            lines[number] = json.dumps(_with_strange(json.loads(lines[number]), draw)).encode()
            return b"\n".join(lines)
    if content[:4] == b"PK\x03\x04" and draw.random() < 0.8:
        return _repacked(content, draw)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at = draw.randrange(len(content) + 1)
        size = draw.choice((0, 1, 1, 4, 50))
        way = draw.randrange(5)
        piece = draw.choice(TOKENS) if way < 2 else draw.randbytes(max(1, size))
        piece = content[at : at + 40] * 20 if way == 3 else b"" if way == 4 else piece
        content = content[:at] + piece + content[at + size :]
    return content


def _with_strange(value: Any, draw: random.Random) -> Any:
    """A JSON value in which one node is a strange one."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        if draw.random() < 0.1:
            value.pop(key)
        else:
            value[key] = _with_strange(value[key], draw)
        return value
    return draw.choice(STRANGE)


def _repacked(content: bytes, draw: random.Random) -> bytes:
    """A zip whose members are mutated; their checksums are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            body = old.read(name)
            if name == chosen:
                body = _array(body, draw) if draw.random() < 0.5 else mutated(body, draw)
            new.writestr(name, body, zipfile.ZIP_DEFLATED if draw.random() < 0.3 else None)
    return file.getvalue()


def _array(body: bytes, draw: random.Random) -> bytes:
    """Another array in place of one: of odd values, shapes and types."""
    if body[:6] != b"\x93NUMPY":
        return draw.choice(TOKENS)
    size = draw.choice((0, 1, 3, 12, 13))
    values = [draw.choice((-1, 0, 1, 2, 11, 12, 2**31 - 1, 2**31, 2**62)) for _ in range(size)]
    kind = draw.choice(KINDS)
    array = np.array(values, np.float64 if kind == np.float32 else np.int64).astype(kind)
    shape = draw.choice(((-1,), (-1, 1), (1, -1), (1, 1, -1)))
    return _npy(array.reshape(shape) if size else array)


def cases_of(name: str, count: int) -> list[int]:
    """The first cases of one decoder."""
    names = sorted(DECODERS)
    if name not in names:
        raise SystemExit(f"no decoder {name}: choose from {', '.join(names)}")
    return list(range(names.index(name), count * len(names), len(names)))


def run(bench: Bench, cases: list[int], seed: int) -> dict[int, str]:
    """What was wrong, by case; cases run in processes of limited memory."""
    wrong: dict[int, str] = {}
    folders(bench)
    for start in range(0, len(cases), BLOCK):
        block = cases[start : start + BLOCK]
        while block:
            block = _in_process(bench, block, seed, wrong)
    return wrong


def _in_process(bench: Bench, block: list[int], seed: int, wrong: dict[int, str]) -> list[int]:
    """Runs cases in a process; returns those that it did not come to."""
    log = bench.root / "fuzz.log"
    log.write_text("")
    process = os.fork()
    if process == 0:
        with open(log, "w", buffering=1) as file, suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with at_most(BYTES):
                for case in block:
                    print(json.dumps([case, None]), file=file)
                    signal.alarm(60)  # of the clock, on a machine that may be busy
                    try:
                        check(bench, case, seed)
                    except Wrong as error:
                        print(json.dumps([case, str(error)]), file=file)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(process, 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    wrong.update({case: text for case, text in lines if text})
    if status == 0:
        return []
    last = lines[-1][0]
    name = sorted(DECODERS)[last % len(DECODERS)]
    wrong[last] = f"{name}: the process ended with {os.waitstatus_to_exitcode(status)}"
    return block[block.index(last) + 1 :]


def check(bench: Bench, case: int, seed: int) -> None:
    """One file that may be anything."""
    draw = random.Random(f"{seed}/{case}")
    name = sorted(DECODERS)[case % len(DECODERS)]
    decoder = DECODERS[name]
    place = bench.root / f"fuzz-{os.getpid()}"
    place.mkdir(exist_ok=True)
    path = place / decoder.name
    path.write_bytes(mutated(draw.choice(decoder.seeds(bench)), draw))
    began = time.process_time()
    try:
        decoder.read(path)
    except SgasError as error:
        text = str(error)
        require(text.isprintable(), f"{name}: told in several lines or with control characters")
    except decoder.foreign:
        pass
    except Exception as error:
        raise Wrong(
            f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None
    finally:
        path.unlink(missing_ok=True)
    seconds = time.process_time() - began
    require(seconds <= SECONDS, f"{name}: it took {seconds:.1f} s")


SMALL = 2000
