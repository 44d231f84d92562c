"""Bugs of the saving and loading code, and which program catches each. Imports nothing of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

ENVIRON = "SGAS_TORTURE_MUTANT"
ROOT = Path(__file__).parents[2]
FILES, RUNS, LOOP = "sgas/files.py", "sgas/running/runs.py", "sgas/running/loop.py"
SEARCH, TRAIN, SESSION = (
    "sgas/running/search.py",
    "sgas/running/train.py",
    "sgas/running/session.py",
)
GENOTYPE, NPZ, CLI = "sgas/cells/genotype.py", "sgas/own/npz.py", "sgas/cli.py"
STUDY, NATIVE = "sgas/studies/study.py", "sgas/native/library.py"


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` stands where `new` does; `program` catches it within `n` cases."""

    file: str
    old: str
    new: str
    program: str
    n: int


def seed_bug(number: int) -> None:
    """From now on the module of a mutant is imported with its bug."""
    mutant = MUTANTS[number]
    target, read = ROOT / mutant.file, SourceFileLoader.get_data
    sys.dont_write_bytecode = True

    def with_bug(self: SourceFileLoader, path: str) -> bytes:
        place = Path(path)
        if place.name.startswith(f"{target.stem}.cpython") and place.parents[1] == target.parent:
            raise OSError("a mutant has no bytecode")
        content = read(self, path)
        return changed(mutant, content) if place == target else content

    SourceFileLoader.get_data = with_bug  # type: ignore[method-assign]


def changed(mutant: Mutant, content: bytes) -> bytes:
    """The source with the bug; AssertionError where it has no such place."""
    old = mutant.old.encode()
    assert old in content, f"{mutant.file} has no {mutant.old!r}"
    return content.replace(old, mutant.new.encode(), 1)


MUTANTS = [
    # What is on disk when the power fails.
    Mutant(FILES, "                os.fsync(file.fileno())\n", "", "power", 400),
    Mutant(FILES, "    sync_folder(path.parent)\n", "", "power", 400),
    Mutant(FILES, "        sync_folder(folder.parent)\n", "", "power", 400),
    Mutant(FILES, "            os.fsync(descriptor)\n", "            pass\n", "power", 400),
    Mutant(RUNS, "                sync_folder(folder.parent)\n", "", "power", 400),
    Mutant(
        FILES,
        "os.replace(temporary, path)",
        "path.write_bytes(temporary.read_bytes())",
        "power",
        400,
    ),
    Mutant(
        RUNS,
        "                os.rename(fresh, folder)\n",
        "                folder.mkdir()\n                os.rename(fresh, folder)\n",
        "power",
        400,
    ),
    # What a kill leaves.
    Mutant(FILES, "temporary = temporary_beside(path)", "temporary = path", "kill", 60),
    Mutant(
        RUNS,
        "        write_bytes(current, sealed + _seal(sealed))",
        "        current.write_bytes(sealed + _seal(sealed))",
        "kill",
        300,
    ),
    Mutant(
        RUNS,
        "            _keep_as(current, self.folder / PREVIOUS)\n",
        "            current.unlink()\n",
        "power",
        400,
    ),
    Mutant(RUNS, "        spare.unlink(missing_ok=True)  #", "        pass  #", "kill", 300),
    Mutant(RUNS, "leftover.unlink(missing_ok=True)", "pass", "kill", 150),
    Mutant(
        RUNS,
        "            shutil.rmtree(left, ignore_errors=True)\n",
        "            pass\n",
        "kill",
        150,
    ),
    Mutant(
        RUNS,
        'self.metrics = [line for line in self.metrics if line["epoch"] < epoch]',
        "pass",
        "kill",
        150,
    ),
    Mutant(
        RUNS,
        "self.records = [record for record in self.records if record.epoch < epoch]",
        "pass",
        "kill",
        150,
    ),
    Mutant(RUNS, 'if line["epoch"] < epoch]', 'if line["epoch"] <= epoch]', "kill", 150),
    Mutant(FILES, "*([_hash(path.read_bytes())] if path.exists() else [])", "", "kill", 150),
    Mutant(
        LOOP,
        "        self._save()\n        self.listener.epoch_ended",
        "        self.listener.epoch_ended",
        "power",
        400,
    ),
    Mutant(
        LOOP,
        'self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]',
        'self.epoch, self.step, self.seconds = state["epoch"], 0, state["seconds"]',
        "signals",
        40,
    ),
    Mutant(
        LOOP,
        '        self.tally = Tally.restored(state["tally"], self.body.device)\n',
        "",
        "signals",
        40,
    ),
    Mutant(LOOP, '        self.augment.set_state(state["augment"])\n', "", "kill", 100),
    Mutant(LOOP, '        torch.set_rng_state(state["torch"])\n', "", "kill", 100),
    Mutant(TRAIN, '        self.random.restore(state["random"])\n', "", "kill", 150),
    Mutant(
        TRAIN, '        restore_optimizer(self.optimizer, state["optimizer"])\n', "", "kill", 150
    ),
    Mutant(TRAIN, '        self.network.load_state_dict(state["network"])\n', "", "kill", 150),
    Mutant(TRAIN, 'self.best = state.get("best")', "self.best = None", "kill", 150),
    # What rots, and what is made.
    Mutant(
        FILES,
        "if path.name not in seals or _hash(content) in seals[path.name]:",
        "if True:",
        "rot",
        4000,
    ),
    Mutant(FILES, "_hash(content) in seals[path.name]", "len(content) > 0", "rot", 4000),
    Mutant(FILES, "if not of_earlier_version and", "if False and", "rot", 4000),
    Mutant(
        RUNS,
        "    if content[-SEAL_LENGTH:] != _seal(sealed):\n        return None\n",
        "",
        "rot",
        4000,
    ),
    Mutant(
        RUNS,
        'return b"sgas" + hashlib.sha256(content).digest()',
        'return b"sgas" + hashlib.sha256(content[:100]).digest()',
        "rot",
        4000,
    ),
    Mutant(
        RUNS,
        "for number, line in enumerate(read_sealed(path)",
        "for number, line in enumerate(path.read_bytes()",
        "rot",
        4000,
    ),
    Mutant(
        RUNS,
        "Genotype.from_json(read_sealed(path))",
        "Genotype.from_json(path.read_bytes())",
        "rot",
        4000,
    ),
    Mutant(
        "sgas/running/trained.py",
        "from_safetensors(read_sealed(folder / WEIGHTS))",
        "from_safetensors((folder / WEIGHTS).read_bytes())",
        "rot",
        4000,
    ),
    Mutant(
        STUDY,
        "            write_sealed(folder, {MANIFEST: _pretty(manifest)})",
        "            (folder / MANIFEST).write_bytes(_pretty(manifest))",
        "rot",
        4000,
    ),
    Mutant(
        STUDY,
        "        write_sealed(folder, {STUDY: _pretty(info)})",
        "        (folder / STUDY).write_bytes(_pretty(info))",
        "rot",
        4000,
    ),
    Mutant(
        FILES,
        "    except RecursionError:\n        raise ValueError",
        "    except KeyError:\n        raise ValueError",
        "fuzz",
        20000,
    ),
    Mutant(RUNS, "weights_only=True", "weights_only=False", "hostile", 2),
    Mutant(RUNS, "    except Exception:  # sealed", "    except KeyError:  # sealed", "hostile", 2),
    Mutant(FILES, "flags | os.O_NOFOLLOW", "flags", "hostile", 1),
    Mutant(NPZ, "        if self.dtype.itemsize == 0:", "        if False:", "hostile", 7),
    Mutant(GENOTYPE, "if max(map(abs, value)) > 1000:", "if False:", "hostile", 7),
    Mutant(
        "sgas/own/targets.py",
        "min(int(known[-1]), len(known)) if",
        "int(known[-1]) if",
        "fuzz",
        20000,
    ),
    Mutant("sgas/errors.py", "part if part.isprintable() else", "part if part else", "hostile", 8),
    Mutant(FILES, "if cell.startswith(FORMULAS) else", "if False else", "hostile", 9),
    Mutant(
        NATIVE,
        "    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):",
        "    if False:",
        "hostile",
        10,
    ),
    # What fails, who stops, who writes.
    Mutant(
        FILES,
        "        raise OSError(error.errno, error.strerror, str(path)) from None",
        "        raise OSError(error.errno, error.strerror) from None",
        "errno",
        60,
    ),
    Mutant(
        CLI,
        "        with _notes(), _terminated_as_interrupted():",
        "        with _notes():",
        "signals",
        30,
    ),
    Mutant(
        SESSION,
        "    except KeyboardInterrupt:\n        raise Interrupted(",
        "    except KeyboardInterrupt:\n        raise RuntimeError(",
        "signals",
        60,
    ),
    Mutant(RUNS, "take_lock(lock, wait=False)", "True", "writers", 12),
    Mutant(
        NATIVE,
        "return _why_not_trusted(built) is None and _sha256(built) == wanted",
        "return built.exists()",
        "build",
        40,
    ),
    Mutant(
        NATIVE,
        "                shutil.rmtree(left, ignore_errors=True)\n",
        "        pass\n",
        "build",
        40,
    ),
]
