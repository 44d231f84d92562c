"""Fixtures of the whole suite: where the reference data lies, and how many threads torch takes."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Cli, Ended
from triton_runs import interpret, triton_kernels

from sgas.native.backend import use_kernels
from sgas_cnn.library import LIBRARY as IMAGES
from sgas_gcn.library import LIBRARY as CLOUDS

LIBRARIES = (CLOUDS, IMAGES)

# Before anything imports Triton, which settles then whether it interprets.
interpret()

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks a test as `compiled` where the kernels that it is run over are compiled ones."""
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(isinstance(value, str) and value == "cpu" for value in parameters):
            item.add_marker("compiled")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test of compiled kernels is skipped where they are not; fails if SGAS_MARCH asks for them.

    Else a level of processors would pass that was never built.
    """
    if item.get_closest_marker("compiled") is None:
        return
    for library in LIBRARIES:
        if (reason := library.load()) is not None:
            (pytest.fail if os.environ.get("SGAS_MARCH") else pytest.skip)(reason)


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """One thread: the suite's tensors are small, and more threads wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def usual_kernels() -> Iterator[None]:
    """A test that chooses kernels does so for itself alone."""
    yield
    use_kernels("auto")


@pytest.fixture(params=["torch", "cpu"])
def kernels(request: pytest.FixtureRequest) -> str:
    """Each choice of kernels on the CPU in turn, in force."""
    use_kernels(request.param)
    return str(request.param)


@pytest.fixture
def triton() -> Iterator[None]:
    """Triton's kernels are in force; skips the test where Triton is not installed."""
    with triton_kernels():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process, of the toy family if of no other; returns how it ended."""
    from toy_family import FAMILY

    from sgas.cli import main

    def run(*argv: str, family: Any = FAMILY) -> Ended:
        capsys.readouterr()
        status = main(family, [*argv])
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be downloaded."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("the network is closed")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: `shared` beside the checkout, or SGAS_SHARED."""
    folder = Path(os.environ.get("SGAS_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (SGAS_SHARED names another folder)")
    return folder


def existing_folder(path: Path) -> Path:
    """`path`; skips the test where it is not a folder."""
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}")
    return path


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The folder of arrays and networks computed with the authors' published method."""
    return existing_folder(shared / "golden")


@pytest.fixture(scope="session")
def data(shared: Path) -> Path:
    """The folder of real data sets."""
    return existing_folder(shared / "data")
