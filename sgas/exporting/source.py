"""Definitions of our packages, and of plug-ins, as text that stands alone in a file.

A class of modules is written with its `__init__` and its definition in plain torch (`plain`, or
else `forward`, by the name `forward`), and of its other members what these two use; a function, a
constant or another class as it stands. All that a text names comes with it, from the same sources.
So a definition is written once, and what is exported is what our tests hold the fast forms to.
"""

from __future__ import annotations

import ast
import builtins
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from sgas.errors import InputError

OURS = re.compile(
    r"sgas(_\w+)?(\.|$)|.*\.sgas_plugin_"
)  # of modules; the last: plug-ins of packages
WIDTH = 100
RESERVED = (
    "Cell",
    "NormalCell",
    "ReduceCell",
    "Network",
    "CLASSES",
    "prepare",
    "numbers",
    "build",
    "load",
)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class ModuleSource:
    """The text of a module, and the statements that bind its names."""

    name: str

    @cached_property
    def text(self) -> str:
        """The source; an InputError where there is none."""
        try:
            return inspect.getsource(sys.modules[self.name])
        except (OSError, TypeError):
            raise InputError(
                f"the source of {self.name} is not there: it cannot be exported"
            ) from None

    @cached_property
    def bindings(self) -> dict[str, ast.stmt]:
        """The statement of each name at the top of the module."""
        return {name: node for node in ast.parse(self.text).body for name in _bound(node)}

    def segment(self, node: ast.stmt) -> str:
        """The lines of a statement, decorators and the comment at its end included."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)])
        return "\n".join(self.text.splitlines()[first - 1 : node.end_lineno])


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, FunctionNode | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


class Sources:
    """The texts that a file is made of, each once, in an order in which Python can read them.

    `replaced` has other definitions for some names, as (module, name); `renamed` other names for
    some definitions in the file. `libraries` are the packages that it may import.
    """

    def __init__(
        self,
        replaced: Mapping[str, tuple[str, str]],
        renamed: Mapping[str, str],
        libraries: Sequence[str],
    ) -> None:
        self.replaced, self.renamed, self.libraries = replaced, renamed, libraries
        self.imports: set[tuple[str, str, str]] = set()
        self._modules: dict[str, ModuleSource] = {}
        self._order: dict[tuple[str, str], str] = {}
        self._members: dict[type, set[str]] = {}
        self._seen: set[tuple[str, str]] = set()

    def _module(self, name: str) -> ModuleSource:
        if name not in self._modules:
            importlib.import_module(name)
            self._modules[name] = ModuleSource(name)
        return self._modules[name]

    def need(self, module: str, name: str) -> None:
        """Adds what a name stands for in a module, and all that it names."""
        module, name = self.replaced.get(name, (module, name))
        node = self._module(module).bindings.get(name)
        if node is None:
            assert hasattr(builtins, name), f"{module} has no {name}"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            self._need_import(module, name, node)
        elif isinstance(node, ast.ClassDef):
            self.need_class(getattr(sys.modules[module], name))
        elif (module, name) not in self._seen:
            self._seen.add((module, name))
            self._need_names(module, node)
            self._order[module, name] = self._module(module).segment(node)

    def _need_import(self, module: str, name: str, node: ast.Import | ast.ImportFrom) -> None:
        alias = next(a for a in node.names if (a.asname or a.name.partition(".")[0]) == name)
        if isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), sys.modules[module].__package__
            )
            if OURS.match(source):
                self.need(source, alias.name)
                return
            if (source, alias.name) == ("torch.nn", "functional"):
                source, alias = "", ast.alias("torch.nn.functional", name)
        else:
            source = ""
        self.need_import(source, alias.name, name, module)

    def need_import(self, source: str, name: str, local: str, user: str = "") -> None:
        """Adds an import of a library or of Python's own modules; InputError for any other."""
        root = (source or name).partition(".")[0]
        if root not in self.libraries and root not in sys.stdlib_module_names:
            alone = " and ".join(self.libraries)
            raise InputError(f"{user} uses {root}, and an exported file imports {alone} alone")
        self.imports.add((source, name, local))

    def _need_names(self, module: str, node: ast.AST) -> None:
        """Adds what a piece of a module's text names, but for its local names."""
        names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        own = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
        own |= {each.id for each in names if isinstance(each.ctx, ast.Store)}
        for name in dict.fromkeys(each.id for each in names):
            if name not in own and (name in self._module(module).bindings or name in self.replaced):
                self.need(module, name)

    def need_class(self, cls: type) -> str:
        """Adds a class; the name that it has in the file."""
        if not issubclass(cls, nn.Module):
            self._need_whole_class(cls)
            return cls.__name__
        if _owner(cls, definition_of(cls)) is None:
            raise InputError(
                f"{cls.__name__} is of {cls.__module__}, whose text is not ours to copy"
            )
        wanted, done = ["__init__", definition_of(cls)], set[str]()
        while wanted:
            name = wanted.pop()
            owner = _owner(cls, name)
            if owner is None or name in done:
                continue
            done.add(name)
            self._members.setdefault(owner, set()).add(name)
            node = self._member(owner, name)
            wanted += self._own_names(cls, owner, node)
            self._need_names(owner.__module__, node)
        shown = next(base for base in cls.__mro__ if base in self._members)
        for base in reversed(cls.__mro__):
            if base in self._members:
                self._need_inits(base)
                self._order.setdefault((base.__module__, base.__name__), "")
        return shown.__name__

    def _need_inits(self, cls: type) -> None:
        """Adds every `__init__` that this class's calls."""
        if (base := _base_with_init(cls)) is not None:
            self._need_inits(base)
            self._members.setdefault(base, set()).add("__init__")
            self._need_names(base.__module__, self._member(base, "__init__"))
            self._order.setdefault((base.__module__, base.__name__), "")

    def methods(self, cls: type, name: str) -> Iterator[str]:
        """The text of a method and of those that it uses; adds what they name, but not these."""
        wanted = [name]
        for each in wanted:
            owner = _owner(cls, each)
            assert owner is not None, f"{cls.__name__} has no {each}"
            node = self._member(owner, each)
            self._need_names(owner.__module__, node)
            names = dict.fromkeys(self._own_names(cls, owner, node))
            wanted += [other for other in names if other not in wanted]
            yield self._module(owner.__module__).segment(node)

    def _need_whole_class(self, cls: type) -> None:
        key = (cls.__module__, cls.__name__)
        if key not in self._seen:
            self._seen.add(key)
            node = self._module(cls.__module__).bindings[cls.__name__]
            self._need_names(cls.__module__, node)
            self._order[key] = self._module(cls.__module__).segment(node)

    def _member(self, owner: type, name: str) -> ast.stmt:
        node = self._module(owner.__module__).bindings[owner.__name__]
        assert isinstance(node, ast.ClassDef)
        return next(each for each in node.body if name in _bound(each))

    def _own_names(self, cls: type, owner: type, node: ast.AST) -> Iterator[str]:
        """Members of the class that a member uses through `self`, `cls` or the class's name."""
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
                through = each.value.id in ("self", "cls", owner.__name__)
                if through and _owner(cls, each.attr) is not None:
                    yield each.attr

    def texts(self) -> Iterator[str]:
        """All texts in order, names changed; InputError where two are of one name."""
        names = [self.renamed.get(name, name) for _, name in self._order]
        names += [name for name in RESERVED if name in names]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two definitions in the file would be called {twice}: rename yours")
        classes = {(cls.__module__, cls.__name__): cls for cls in self._members}
        for key, text in self._order.items():
            yield self.changed(self._class_text(classes[key]) if key in classes else text)

    def changed(self, text: str) -> str:
        """A text with the names and calls of the file."""
        for old, new in self.renamed.items():
            text = re.sub(rf"\b{old}\b", new, text)
        text = text.replace(", in plain torch", "").replace("def plain(", "def forward(")
        return _without_fused(re.sub(r"\.plain\(", "(", text))

    def _class_text(self, cls: type) -> str:
        source, node = (
            self._module(cls.__module__),
            self._module(cls.__module__).bindings[cls.__name__],
        )
        assert isinstance(node, ast.ClassDef)
        base = _base_with_members(cls, self._members)
        parts = []
        if ast.get_docstring(node) is not None:
            doc = source.segment(node.body[0])
            only_base = self._members[cls] <= {"__init__"} and "__init__" in self._members[cls]
            parts.append(_first_paragraph(doc) if only_base else doc)
        values = []
        for each in node.body:
            kept = self._members[cls] & set(_bound(each))
            if isinstance(each, FunctionNode) and kept:
                text = source.segment(each)
                if each.name == "__init__" and _base_with_init(cls) is None:
                    text = re.sub(r"super\(\)\.__init__\(.*\)", "super().__init__()", text)
                parts.append(text)
            elif kept:
                values.append(source.segment(each))
        parts[1:1] = ["\n".join(values)] if values else []
        name = "nn.Module" if base is None else base.__name__
        if base is None:
            self.imports.add(("torch", "nn", "nn"))
        return f"class {cls.__name__}({name}):\n" + "\n\n".join(parts)


def definition_of(cls: type[nn.Module]) -> str:
    """The method that says in plain torch what a module computes."""
    name: str = getattr(cls, "plain", cls.forward).__name__
    return name


def _owner(cls: type, name: str) -> type | None:
    """The class of ours that defines a member of a class; None where none does."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    ours = owner is not None and OURS.match(owner.__module__)
    return owner if ours else None


def _base_with_init(cls: type) -> type | None:
    """The base of ours whose `__init__` that of a class calls."""
    bases = cls.__mro__[1:]
    base = next((base for base in bases if "__init__" in vars(base)), None)
    return base if base is not None and _owner(base, "__init__") is base else None


def _base_with_members(cls: type, members: Mapping[type, set[str]]) -> type | None:
    return next((base for base in cls.__mro__[1:] if base in members), None)


def _without_fused(text: str) -> str:
    """A text without the paragraphs of docstrings that say how an operation runs fused."""
    text = re.sub(r'\n\n    Fused[^"]*?(?=\n    """|\n\n    [A-Z])', "", text)
    return re.sub(r'^(    """[^"\n]+)\n    """$', r'\1"""', text, flags=re.MULTILINE)


def _first_paragraph(doc: str) -> str:
    """A docstring's first paragraph."""
    return doc if "\n\n" not in doc else f'{doc.partition(chr(10) * 2)[0]}"""'


class Writer:
    """Writes calls that make modules again, with the classes that they are of."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def call(self, module: nn.Module, variables: Mapping[str, str] | None = None) -> str:
        """The call that makes a module; `variables` are texts for some arguments, by name.

        InputError where a module does not keep an argument as its attribute.
        """
        cls = type(module)
        if isinstance(module, nn.Sequential) and type(module) is nn.Sequential:
            self.sources.need_import("collections", "OrderedDict", "OrderedDict")
            self.sources.need_import("torch", "nn", "nn")
            parts = (
                f"{name}={self.call(child, variables)}" for name, child in module.named_children()
            )
            return f"nn.Sequential(OrderedDict({', '.join(parts)}))"
        if cls.__module__.startswith("torch.nn."):
            self.sources.need_import("torch", "nn", "nn")
            name = f"nn.{cls.__name__}"
        else:
            name = self.sources.need_class(cls)
        return f"{name}({', '.join(self._arguments(module, variables or {}))})"

    def _arguments(self, module: nn.Module, variables: Mapping[str, str]) -> Iterator[str]:
        positional = True
        for parameter in inspect.signature(type(module).__init__).parameters.values():
            name = parameter.name
            several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if several or name in ("self", "device", "dtype"):  # as those of nn.Module's own
                continue
            text = variables.get(name) or self._value(module, parameter, variables)
            if text is None:
                positional = False
                continue
            positional &= parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            positional &= parameter.default is inspect.Parameter.empty
            yield text if positional else f"{name}={text}"

    def _value(
        self, module: nn.Module, parameter: inspect.Parameter, variables: Mapping[str, str]
    ) -> str | None:
        """An argument as text; None where it is the default."""
        if not hasattr(module, parameter.name):
            raise InputError(
                f"{type(module).__name__} cannot be exported: it keeps its argument "
                f"{parameter.name} under no attribute of this name"
            )
        value: Any = getattr(module, parameter.name)
        if parameter.name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value == parameter.default:
            return None
        if isinstance(value, nn.Module):
            return self.call(value, variables)
        if isinstance(value, enum.Enum):
            self.sources.need_class(type(value))
            return str(value)
        return repr(value)
