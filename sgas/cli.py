"""The command line of a family: verbs, exit status, errors in one line. No torch at its import.

Exit status: 0 done, 1 failure, 2 wrong input, 130 interrupted after writing a checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sgas import __version__
from sgas.errors import SgasError, printable, unknown_name
from sgas.family import Family
from sgas.options import Words
from sgas.registry import plugged

Verb = Callable[[Family, Sequence[str]], int]


@dataclass(frozen=True)
class VerbInfo:
    """A verb: the module of `sgas.commands` that holds its `main`, and its line in the help."""

    module: str
    help: str


REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "take a folder where you may write",
    errno.EROFS: "take a folder where you may write",
}
CAPTURING = ("search", "train", "sweep")  # verbs that take --cuda_graphs

VERBS: dict[str, VerbInfo] = {
    "search": VerbInfo("search", "search a cell; writes a run folder"),
    "train": VerbInfo("train", "train the network of a genotype from scratch"),
    "evaluate": VerbInfo("evaluate", "open the test split, once, for a trained run"),
    "predict": VerbInfo("predict", "what a trained run says of new data"),
    "export": VerbInfo("export", "write a network as files that need torch alone"),
    "sweep": VerbInfo("sweep", "strategies x seeds: search, train, evaluate, in one study"),
    "show": VerbInfo("show", "draw a genotype, a run or a study; parameters, FLOPs, latency"),
    "table": VerbInfo("table", "compare the strategies of a study; print the paper's runs"),
    "replay": VerbInfo("replay", "recompute every decision of a search from its log"),
    "check": VerbInfo("check", "say what a data folder holds and what looks wrong"),
    "doctor": VerbInfo("doctor", "say what this machine has"),
}


def main(family: Family, argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know fewer characters
    debug = "--debug" in words
    try:
        with _notes(), _terminated_as_interrupted():
            return _dispatch(family, words[1:] + words[:1] if words[:1] == ["--debug"] else words)
    except SgasError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error.for_command()}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        told = "error: interrupted; what is on disk is whole, and the same command goes on with it"
        print(told, file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a disk that is full, a folder that may not be written
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        remedy = REMEDIES.get(error.errno or 0, "see to that")
        told = printable(f"{where}{error.strerror or error}")
        print(f"error: {told}; {remedy} and run the same command again", file=sys.stderr)
        return 1
    except Exception as error:  # the last line of defence: one line, the traceback on request
        if debug:
            traceback.print_exc()
        message = printable(" ".join(str(error).split()))
        print(
            f"error: {type(error).__name__}: {message} (this looks like a fault of ours; "
            "run again with --debug and report what it prints)",
            file=sys.stderr,
        )
        return 1


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: by an exception, so that all is left in order."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: nothing to catch
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """What the packages log, such as that kernels are being built, appears as lines on stderr."""
    logger, handler = logging.getLogger("sgas"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note  %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _dispatch(family: Family, words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help(family))
        return 0
    if words[0] == "--version":
        print(f"{family.command} {__version__}")
        return 0
    if words[0] not in VERBS:
        raise unknown_name("command", words[0], VERBS)
    module = import_module(f"sgas.commands.{VERBS[words[0]].module}")
    verb: Verb = module.main
    try:
        with plugged(family, *_plugins_of(words[1:])):
            return verb(family, words[1:])
    except SystemExit as leave:  # --help and --print_config end here
        return int(leave.code or 0)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or _is_out_of_memory(error):
            captures = type(error).__name__ == "OutOfMemoryError" and words[0] in CAPTURING
            less = ", or give --cuda_graphs false, which takes less," if captures else ""
            raise SgasError(
                f"out of memory: lower batch_size or the size of the network{less} and start again"
            ) from error
        raise


def _plugins_of(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The plug-ins that a command gives, and the paths in it that may be of runs and studies."""
    options, positionals = Words.of(words).options, Words.of(words).positionals
    by_name = [(name, value) for name, value in options if value]
    given = [value for name, value in by_name if name == "plugin"]
    resumed = [value for name, value in by_name if name == "resume"]
    return given, [Path(path) for path in (*positionals, *resumed)]


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate: an error of its own on a GPU, a sentence on the CPU."""
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def _help(family: Family) -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {info.help}" for name, info in VERBS.items())
    tasks: dict[str, list[str]] = {}
    for info in family.datasets.values():
        tasks.setdefault(info.task, []).append(f"    {info.name:<12}  {info.help}")
    sets = "\n".join(f"  {task}\n" + "\n".join(lines) for task, lines in tasks.items())
    return (
        f"{family.command}: {family.title}\n\nusage: {family.command} VERB [options]; "
        f"{family.command} VERB --help lists them\n\nverbs\n{verbs}\n\n"
        f"data sets (or the path of a folder with your own)\n{sets}\n\n"
        f"default: {family.command} search --dataset {family.default_dataset}"
    )
