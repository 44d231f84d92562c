"""Additions from outside: operations, strategies, data sets and spaces.

A plug-in is one Python file, or a module that an installed package names as an entry point of group
`sgas.plugins`. While it is loaded it calls `operation`, `strategy`, `dataset` and `space`, most as
decorators; elsewhere these do nothing. What it adds is in the tables while a call names the plug-in
(`--plugin FILE.py`, `plugins=[…]`), and only then, so that nothing else changes by its being there.

A run or study keeps the text, the SHA-256 and the source of its plug-ins. What goes on with it runs
the file that the user names, or the one at the recorded source, and only with that SHA-256. The
text in the folder is there to be read: it runs where the user names it, and never by itself.

    from sgas.registry import operation
    from sgas_gcn.ops.operation import Operation

    @operation("mine", spaces=["point", "graph"])
    class Mine(Operation): ...
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sgas.cells.decisions import PRUNED, UNDECIDED
from sgas.config import STRATEGIES, StrategyInfo
from sgas.errors import PluginError, RunError, SgasError, option, unknown_name
from sgas.family import Family, Operations, Space
from sgas.files import read_json

GROUP = "sgas.plugins"
COPIES = "plugins"  # the folder of a run or study that holds the texts
NAME = r"[A-Za-z]\w*"  # of an addition: in paths, in lists with commas, of modules
RECORDS = ("config.json", "study.json")  # what names them there

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """A line of a table: what kind of thing is added there, under which name."""

    table: MutableMapping[str, Any]
    kind: str
    name: str
    value: Any
    where: str = "there"


# What a plug-in adds to a family, and to the candidates of its spaces; PluginError if it cannot be.
Addition = Callable[[Family], Iterable[Line]]


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was loaded: its file's name, where it is, its text, and what it adds.

    `source` is the absolute path of a file, or the name of an installed plug-in.
    """

    name: str
    source: str
    text: str
    sha256: str
    additions: tuple[Addition, ...]


_loading: ContextVar[tuple[str, list[Addition]] | None] = ContextVar("loading", default=None)
# By hash: a class stays the same in all calls of a process.
_loaded: dict[str, tuple[Addition, ...]] = {}
_active: list[Plugin] = []


def operation(name: str, *, spaces: Sequence[str], group: str = "own") -> Callable[[T], T]:
    """Adds a candidate operation to spaces, after those that are there.

    It is a class of the family's `ops.operation.Operation` with a `forward` of its own, or, where
    the space's own are, a call that makes one. In pictures it has the colour of its `group`.
    """

    def add(maker: T) -> T:
        def lines(family: Family) -> Iterator[Line]:
            for space in map(_space_of(family, f"operation {name!r}"), spaces):
                operations, candidates = space.operations(), space.search_space.candidates
                _require_operation(name, maker, operations)
                where = f"in space {space.search_space.name}"
                yield Line(operations.table, "operation", name, maker, where)
                if not isinstance(candidates, dict):
                    raise PluginError(f"{space.search_space.name} takes no more operations")
                yield Line(candidates, "operation", name, None, where)
            family_groups = family.operation_groups
            if name not in family_groups:
                yield Line(family_groups, "operation", name, group)

        return _collect(lines, maker)

    return add


def strategy(name: str, *, help: str = "own") -> Callable[[T], T]:
    """Adds a strategy: a class or object with the methods of `sgas.deciding.strategies.Strategy`.

    Or a criterion: a function of `alphas` `[E, O]` and `history` `[K, E, O-1]` that scores the
    edges, `[E]`, by which a greedy search decides.
    """

    def add(source: T) -> T:
        def lines(family: Family) -> Iterator[Line]:
            made = source() if isinstance(source, type) else source
            if inspect.isroutine(made):
                from sgas.deciding.strategies.greedy import Greedy

                made = Greedy(made)
            _require(made, f"strategy {name!r}", STRATEGY_PARTS)
            yield Line(STRATEGIES, "strategy", name, StrategyInfo(help, made))

        return _collect(lines, source)

    return add


STRATEGY_PARTS = (
    "frees_edges",
    "trains_paths",
    "first_decision",
    "score",
    "decide",
    "evidence",
    "complete",
)


def dataset(name: str, *, space: str, help: str = "own", **more: Any) -> Callable[[T], T]:
    """Adds a data set to a space, by a function that loads one split of it.

    It takes what the entries of the space's table take, which `more` completes: of images
    `(split, data_root, seed)`, of clouds `(split, data_root, num_points, seed)` with `most_points`.
    """

    def add(load: T) -> T:
        def lines(family: Family) -> Iterator[Line]:
            place = _space_of(family, f"data set {name!r}")(space)
            if place.dataset_entry is None or not callable(load):
                raise PluginError(f"data set {name!r} of space {space} needs a function that loads")
            try:
                entry = place.dataset_entry(name=name, help=help, load=load, **more)
            except TypeError as error:
                raise PluginError(f"data set {name!r} of space {space}: {error}") from None
            if name in family.datasets:
                raise _taken("data set", name, "there")
            yield Line(place.datasets, "data set", name, entry)

        return _collect(lines, load)

    return add


def space(space: Space) -> Space:
    """Adds a search space, whose `like` says of which other space it takes the data sets."""
    name = space.search_space.name

    def lines(family: Family) -> Iterator[Line]:
        _space_of(family, f"space {name!r}")(space.like or "")
        for part in ("model_config", "data_config"):
            if not is_dataclass(getattr(space, part)):
                raise PluginError(f"{part} of space {name!r} is no dataclass of options")
        if not space.presets:
            raise PluginError(f"space {name!r} has no presets; give one at least, if it is empty")
        yield Line(family.spaces, "search space", name, space)

    return _collect(lines, space)


def _collect(addition: Addition, value: T) -> T:
    """Keeps an addition where a plug-in is being loaded, and returns what it is of."""
    loading = _loading.get()
    if loading is not None:
        loading[1].append(addition)
    return value


def _space_of(family: Family, what: str) -> Callable[[str], Space]:
    def look_up(name: str) -> Space:
        if name not in family.spaces:
            known = ", ".join(family.spaces)
            raise PluginError(f"{what} is for space {name!r}; {family.command} has {known}")
        return family.spaces[name]

    return look_up


def _require(value: Any, what: str, parts: Sequence[str]) -> None:
    missing = [part for part in parts if not hasattr(value, part)]
    if missing:
        raise PluginError(f"{what} lacks {', '.join(missing)}")


def _require_operation(name: str, maker: Any, operations: Operations) -> None:
    """PluginError where no operation of the class that is needed can come of a maker."""
    from torch.nn import ModuleDict

    base = operations.base
    classes = all(isinstance(each, type) for each in operations.table.values())

    if name in (str(UNDECIDED), str(PRUNED)) or hasattr(ModuleDict, name):
        raise PluginError(f"operation {name!r} has a name that is needed elsewhere; give another")
    if not callable(maker) or (classes and not isinstance(maker, type)):
        raise PluginError(f"operation {name!r} is no class of {base.__module__}.{base.__name__}")
    if not isinstance(maker, type):
        return
    if not issubclass(maker, base):
        raise PluginError(
            f"operation {name!r}: {maker.__name__} is no class of {base.__module__}.{base.__name__}"
        )
    for method in ("__init__", "forward"):
        wanted = list(inspect.signature(getattr(base, method)).parameters)
        try:
            inspect.signature(getattr(maker, method)).bind(*wanted)
        except TypeError:
            raise PluginError(
                f"operation {name!r}: {maker.__name__}.{method} does not take "
                f"({', '.join(wanted[1:])})"
            ) from None
    if vars(base).get("forward") is getattr(maker, "forward", None):
        raise PluginError(f"operation {name!r}: {maker.__name__} lacks forward")


def _taken(kind: str, name: str, where: str) -> PluginError:
    return PluginError(f"the name {name!r} is taken: a {kind} is called that {where}; give another")


def load(source: str | Path) -> Plugin:
    """The plug-in of a file, or of an entry point's name; PluginError where it cannot be loaded.

    A text that this process has run is not run again.
    """
    path, package = _located(str(source))
    return _loaded_from(str(source), path, package, *_read(path))


def _loaded_from(source: str, path: Path, package: str | None, text: str, sha256: str) -> Plugin:
    if sha256 not in _loaded:
        _loaded[sha256] = _run(path, text, sha256, package or "")
    kept = str(path.resolve()) if package is None else source
    return Plugin(path.name, kept, text, sha256, _loaded[sha256])


def _located(source: str) -> tuple[Path, str | None]:
    """The file of a plug-in, and of an installed one the package that it is in."""
    path = Path(source).expanduser()
    if path.suffix == ".py" or os.sep in source or path.is_file():
        if not path.is_file():
            raise PluginError(f"the plug-in file {source} does not exist")
        return path, None
    names = {point.name: point.module for point in entry_points(group=GROUP)}
    if source not in names:
        if names:
            raise unknown_name("plug-in", source, names, PluginError)
        raise PluginError(f"no plug-in {source!r} is installed; give the path of a .py file")
    try:
        spec = importlib.util.find_spec(names[source])
    except ImportError as error:
        raise PluginError(f"plug-in {source!r}: {_reason(error)}") from error
    if spec is None or spec.origin is None:
        raise PluginError(f"plug-in {source!r}: the module {names[source]} is not there")
    return Path(spec.origin), spec.name if spec.submodule_search_locations else spec.parent or ""


def _read(path: Path) -> tuple[str, str]:
    """The text of a plug-in and its SHA-256."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"the plug-in {path} cannot be read ({error})") from None
    return text, hashlib.sha256(text.encode()).hexdigest()


def _run(path: Path, text: str, sha256: str, package: str) -> tuple[Addition, ...]:
    """What a plug-in adds, by running its text."""
    loading = _loading.get()
    if loading is not None and loading[0] == sha256:
        raise PluginError(
            f"{path} calls a verb while it is loaded as a plug-in; put such calls under "
            'if __name__ == "__main__":'
        )
    module = ModuleType(".".join(filter(None, (package, f"sgas_plugin_{sha256[:16]}"))))
    module.__file__, module.__package__ = str(path), package
    sys.modules[module.__name__] = module  # where dataclasses look for the names of types
    additions: list[Addition] = []
    token = _loading.set((sha256, additions))
    try:
        exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise PluginError(f"{_place(error, path)}: {_reason(error)}") from error
    finally:
        _loading.reset(token)
    if not additions:
        raise PluginError(
            f"plug-in {path} adds nothing; call operation, strategy, dataset or space of "
            "sgas.registry in it"
        )
    return tuple(additions)


def _place(error: BaseException, path: Path) -> str:
    """File and line of a plug-in where an error came up."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"plug-in {path}, line {lines[-1]}" if lines else f"plug-in {path}"


def _reason(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    words = " ".join(message.split())
    return words if isinstance(error, SgasError) else f"{type(error).__name__}: {words}"


@contextlib.contextmanager
def plugged(
    family: Family, given: Iterable[str | Path] = (), folders: Iterable[Path] = ()
) -> Iterator[None]:
    """Has plug-ins in the tables: those given, and those that runs and studies in `folders` had.

    Where a call names none of theirs, they are taken from where they were. PluginError where a
    plug-in cannot be used, or is not the one that a folder had.
    """
    plugins = [load(source) for source in given]
    for folder in folders:
        plugins += _missing_of(folder, [*_active, *plugins])
    with contextlib.ExitStack() as stack:
        for plugin in plugins:
            if all(other.sha256 != plugin.sha256 for other in _active):
                stack.enter_context(_in_tables(family, plugin))
        yield


@contextlib.contextmanager
def _in_tables(family: Family, plugin: Plugin) -> Iterator[None]:
    """Has all that a plug-in adds in the tables; nothing of it where one addition cannot be."""
    for other in _active:
        if other.name == plugin.name:
            raise PluginError(f"two plug-ins are called {plugin.name}; rename one")
    with contextlib.ExitStack() as stack:
        for addition in plugin.additions:
            for line in _checked(addition, family, plugin):
                line.table[line.name] = line.value
                stack.callback(line.table.__delitem__, line.name)
        _active.append(plugin)
        stack.callback(_active.remove, plugin)
        yield


def _checked(addition: Addition, family: Family, plugin: Plugin) -> Iterator[Line]:
    try:
        for line in addition(family):
            if not re.fullmatch(NAME, line.name):
                raise PluginError(
                    f"{line.name!r} is no name for a {line.kind}: give letters, digits, _"
                )
            if line.name in line.table:
                raise _taken(line.kind, line.name, line.where)
            yield line
    except Exception as error:
        raise PluginError(f"plug-in {plugin.name}: {_reason(error)}") from error


def _missing_of(folder: Path, present: Sequence[Plugin]) -> Iterator[Plugin]:
    """The plug-ins of a run or study that are not among `present`, from where they were."""
    for name, source, sha256 in recorded_in(folder):
        if any(plugin.sha256 == sha256 for plugin in present):
            continue
        for plugin in present:
            if plugin.name == name:
                raise PluginError(_difference(folder, name, sha256, "given", plugin.text))
        yield _from_source(folder, name, source, sha256)


def _from_source(folder: Path, name: str, source: str, sha256: str) -> Plugin:
    """The plug-in of a folder from its recorded source, which runs with the same text alone."""
    kept = folder / COPIES / name
    try:
        path, package = _located(source)
        text, now = _read(path)
    except PluginError as error:
        raise PluginError(
            f"{folder} was begun with plug-in {name}, and {error}; name it: {option('plugin')} "
            f"PATH (its text is in {kept})"
        ) from None
    if now != sha256:
        raise PluginError(_difference(folder, name, sha256, f"at {path}", text))
    if path.resolve().is_relative_to(folder.resolve()):
        raise PluginError(f"{path} runs where it is named only: give {option('plugin')} {path}")
    return _loaded_from(source, path, package, text, now)


def _difference(folder: Path, name: str, sha256: str, where: str, text: str) -> str:
    """Why a plug-in is not the one of a folder, with the first line that differs."""
    kept = folder / COPIES / name
    try:
        before = kept.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        before = []
    now = text.splitlines()
    pairs = enumerate(zip(before, now, strict=False), start=1)
    line = next(
        (number for number, (old, new) in pairs if old != new), min(len(before), len(now)) + 1
    )
    return (
        f"{folder} was begun with another {name} than that {where}: its SHA-256 is {sha256[:12]}…, "
        f"and they differ from line {line} on; {option('plugin')} {kept} names the one it was"
    )


def recorded_in(folder: Path) -> list[tuple[str, str, str]]:
    """Name, source and SHA-256 of the plug-ins of a run or study; none where a path is neither."""
    for name in RECORDS:
        with contextlib.suppress(RunError, TypeError, AttributeError, KeyError):
            recorded = read_json(folder / name).get("plugins", [])
            return [
                (Path(entry["name"]).name, str(entry["source"]), str(entry["sha256"]))
                for entry in recorded
            ]
    return []


def records() -> list[dict[str, str]]:
    """What a run keeps of the plug-ins that are in the tables now, for its config.json."""
    return [
        {"name": plugin.name, "source": plugin.source, "sha256": plugin.sha256}
        for plugin in _active
    ]


def copies() -> dict[str, str]:
    """The texts of the plug-ins that are in the tables now, by their paths in a folder."""
    return {f"{COPIES}/{plugin.name}": plugin.text for plugin in _active}


def described(kept: Sequence[Mapping[str, str]]) -> list[str]:
    """Plug-ins as a message names them."""
    return [f"{entry['name']} {entry['sha256'][:12]}" for entry in kept]
