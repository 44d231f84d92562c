"""Imports run downwards only and never between families, and the command line starts light.

The imports are read from the source, nested and type-checking ones included, so that the order
holds for the reader too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAMILIES = ("sgas_gcn", "sgas_cnn")
PACKAGES = ("sgas", *FAMILIES)

# Bottom to top. A module imports from lower layers alone; those of one layer know nothing of each
# other. A folder is in the layer as a whole.
LAYERS = (
    ("__init__",),  # runs before any other module, and holds the version
    ("errors",),
    ("files", "terminal"),
    ("config", "data", "keywords"),
    ("labels",),
    ("options", "native", "own", "cells", "protocols"),
    ("exporting",),
    ("deciding", "family"),
    ("registry",),
    ("reports",),
    ("running",),
    ("studies",),
    ("commands", "interface", "testing"),
    ("cli", "estimators"),
)
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = ("torch", "triton", "torch_geometric", "sklearn", "scipy", "jinja2")


def module_name(path: Path) -> str:
    """The dotted name of a file; a package's own is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
ENGINE = sorted(name for name in MODULES if name.split(".")[0] == "sgas")
LIGHT = sorted(
    name for name in MODULES if name.split(".")[-1] in ("cli", "config", "interface", *FAMILIES)
)


def absolute(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    """The module that `from … import` names, with leading dots resolved against the importer."""
    if not node.level:
        return node.module or ""
    parents = importer.split(".") + ([""] if is_package else [])
    base = parents[: len(parents) - node.level]
    return ".".join(base + ([node.module] if node.module else []))


def imports_in(source: str, importer: str, is_package: bool, modules: set[str]) -> set[str]:
    """All modules that a source text imports; `from package import module` counts as the module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, importer, is_package)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else base for name in names}
    return found


IMPORTS = {
    name: imports_in(
        path.read_text(encoding="utf-8"), name, path.name == "__init__.py", set(MODULES)
    )
    for name, path in MODULES.items()
}


def layer_name(module: str) -> str:
    """The name by which LAYERS knows a module of the engine: `sgas.reports.svg` is in `reports`."""
    return [*module.split("."), "__init__"][1]


def level(module: str) -> int:
    """How high a module of the engine stands; fails the test where LAYERS does not know it."""
    name = layer_name(module)
    assert name in LAYER_OF, f"{module} is in no layer: put {name!r} into LAYERS"
    return LAYER_OF[name]


def upward_imports(importer: str, imported: set[str]) -> list[str]:
    """What a module of the engine imports from its own layer or a higher one, folders excepted."""
    return sorted(
        name
        for name in imported
        if name.split(".")[0] == "sgas"
        and layer_name(name) != layer_name(importer)
        and level(name) >= level(importer)
    )


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_imports_downwards(module: str) -> None:
    level(module)
    assert not upward_imports(module, IMPORTS[module])


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_a_family_but_its_own(package: str) -> None:
    others = set(FAMILIES) - {package}
    crossings = [
        (module, name)
        for module, imported in IMPORTS.items()
        for name in imported
        if module.split(".")[0] == package and name.split(".")[0] in others
    ]
    assert not crossings


def test_no_module_reaches_itself() -> None:
    graph = {name: imported & set(MODULES) for name, imported in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


PUBLISHED = "from {} import FAMILY; FAMILY.load_published(FAMILY.published_names()[0])"
# What each of them alone must not load, in the order in which one process runs them.
QUICK = {
    **{f"import {module}": HEAVY for module in LIGHT},
    **{f"import {family}.datasets": (*HEAVY, "numpy", "PIL") for family in FAMILIES},
    **{PUBLISHED.format(f"{family}.family"): HEAVY for family in FAMILIES},
    "import sgas.reports": HEAVY,
    "import sgas.testing": ("pytest",),
}


def test_what_starts_at_once_loads_no_heavy_library() -> None:
    lines = [f"{run}\nshow({run!r}, {names})" for run, names in QUICK.items()]
    head = "import sys\ndef show(*of): print(*[(of[0], n) for n in of[1] if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([head, *lines])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
from typing import TYPE_CHECKING
from . import config
from .. import cli
if TYPE_CHECKING:
    from sgas.running.search import search
def late() -> None:
    import sgas.running.runs
"""
    above = ["sgas.cli", "sgas.running.runs", "sgas.running.search"]
    modules = {"sgas.reports.config", *above}
    found = imports_in(source, "sgas.reports.svg", False, modules)
    assert found == {"typing", *modules}
    assert upward_imports("sgas.reports.svg", found) == above
    with pytest.raises(AssertionError, match="put 'nowhere' into LAYERS"):
        level("sgas.nowhere")
    assert imports_in("from .svg import draw", "sgas.reports", True, set()) == {"sgas.reports.svg"}
