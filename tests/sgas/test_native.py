"""Libraries of compiled kernels: built once, whole, and never a reason to fail."""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from processes import command, edit

from sgas.errors import DeviceError, InputError
from sgas.native import compiler, shipped
from sgas.native import library as native
from sgas.native.backend import backend_for, use_kernels
from sgas.native.compiler import HEADERS, tuning, units_of
from sgas.native.library import Library
from sgas_cnn.library import LIBRARY as IMAGES
from sgas_gcn.library import LIBRARY as CLOUDS

SOURCE = 'extern "C" int NAME() { return 0; }'

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="no C++ compiler on this machine"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def library(folder: Path, name: str, text: str = SOURCE) -> Library:
    """A library of one source file; each test has a name of its own, since torch keeps them all."""
    path = folder / f"{name}.cpp"
    path.write_text(text.replace("NAME", name))
    return Library(name, (path,))


def use_in_process(source: Library, cache: Path) -> subprocess.Popen[str]:
    """Another process that loads the library and calls it."""
    program = f"""
        from pathlib import Path
        from sgas.native.library import Library
        reason = Library({source.name!r}, (Path({str(source.sources[0])!r}),)).load()
        print(reason or "loaded")
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"SGAS_CACHE": str(cache), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )


@needs_compiler
def test_two_processes_build_at_once_after_a_build_that_was_killed(
    tmp_path: Path, cache: Path
) -> None:
    source = library(tmp_path, "sgas_test_together")
    killed = use_in_process(source, cache)
    while not list(cache.glob("native/*/build-*")):
        assert killed.poll() is None, killed.communicate()
    killed.kill()
    killed.wait()
    processes = [use_in_process(source, cache) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out) == (0, "loaded\n"), err
    files = {path.name for path in next(cache.glob("native/*")).iterdir()}
    assert files == {"lock", "sgas_test_together.so", "sgas_test_together.so.sha256"}


@needs_compiler
def test_a_damaged_or_foreign_library_is_built_again(tmp_path: Path, cache: Path) -> None:
    source = library(tmp_path, "sgas_test_damaged")
    assert use_in_process(source, cache).communicate(timeout=240)[0] == "loaded\n"
    (built,) = cache.glob("native/*/*.so")
    whole = built.read_bytes()
    built.write_bytes(whole[: len(whole) // 2])  # which would end the process that loads it
    assert use_in_process(source, cache).communicate(timeout=240)[0] == "loaded\n"
    assert len(built.read_bytes()) == len(whole)
    assert built.parent.stat().st_mode & 0o777 == 0o700
    built.parent.chmod(0o777)  # whatever is in it now, anybody may have put it there
    built.write_bytes(b"no library")
    out, told = use_in_process(source, cache).communicate(timeout=240)
    assert out == "loaded\n" and built.read_bytes() == b"no library"
    assert f"for this process alone, since others may write {built.parent}; SGAS_CACHE" in told


def test_without_a_compiler_the_reason_is_told_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    source = library(tmp_path, "sgas_test_no_compiler")
    with caplog.at_level(logging.WARNING, "sgas"):
        assert "no C++ compiler 'no-such-compiler'" in str(source.load())
        assert backend_for(torch.device("cpu"), source) == "torch"
    assert len(caplog.records) == 1
    assert not cache.exists()


@needs_compiler
def test_a_source_that_does_not_compile_is_told_in_one_line(tmp_path: Path, cache: Path) -> None:
    reason = library(tmp_path, "sgas_test_wrong", "int main( {").load()
    assert reason is not None and "\n" not in reason and "failed.log" in reason
    assert "error" in next(cache.glob("native/*/failed.log")).read_text()


def test_an_older_torch_is_refused_in_words(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.metadata, "version", lambda name: "2.9.1+cpu")
    source = library(tmp_path, "sgas_test_old_torch")
    use_kernels("auto")
    assert "need torch 2.10 or newer, and this is torch 2.9.1+cpu" in str(source.load())
    assert backend_for(torch.device("cpu"), source) == "torch" and not cache.exists()


@needs_compiler
def test_what_was_built_ahead_is_loaded(tmp_path: Path, cache: Path) -> None:
    source = library(tmp_path, "sgas_test_ahead")
    source.build_ahead()
    (built,) = cache.glob("native/*/*.so")
    made = built.stat().st_mtime_ns
    assert use_in_process(source, cache).communicate(timeout=240)[0] == "loaded\n"
    assert built.stat().st_mtime_ns == made


@pytest.mark.parametrize("num_units", [1, 2, 5, 99])
def test_every_source_stands_in_one_unit(tmp_path: Path, num_units: int) -> None:
    units = units_of(IMAGES.sources, tmp_path, num_units)
    lines = [line for unit in units for line in unit.read_text().splitlines()]
    sources = [path.resolve() for path in IMAGES.sources if path.suffix == ".cpp"]
    assert sorted(lines) == sorted(f'#include "{path}"' for path in sources)
    assert len(units) == min(num_units, len(sources))


@needs_compiler
@pytest.mark.parametrize("library", [CLOUDS, IMAGES], ids=["gcn", "cnn"])
def test_all_sources_may_share_a_unit(library: Library, tmp_path: Path) -> None:
    (unit,) = units_of(library.sources, tmp_path, 1)
    command = [
        "c++",
        "-std=c++17",
        "-march=native",
        "-w",
        "-fsyntax-only",
        f"-I{HEADERS}",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_that_cannot_run_are_an_error_with_a_way_out(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    source = library(tmp_path, "sgas_test_forced")
    use_kernels("cpu")
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler.*--kernels auto"):
        backend_for(torch.device("cpu"), source)
    with pytest.raises(DeviceError, match="the device is cuda"):
        backend_for(torch.device("cuda"), source)
    use_kernels("torch")
    assert backend_for(torch.device("cpu"), source) == "torch"
    with pytest.raises(InputError, match="did you mean cuda"):
        use_kernels("cudo")


@pytest.mark.parametrize(
    ("vendor", "features", "march", "wanted"),
    [
        ("AuthenticAMD", "avx2 avx512f", "native", ("-DSGAS_AMD", "-mtune=icelake-server")),
        ("AuthenticAMD", "avx2 avx512f", "x86-64-v3", ("-DSGAS_AMD",)),
        ("AuthenticAMD", "avx2", "native", ("-DSGAS_AMD",)),
        ("GenuineIntel", "avx2 avx512f", "native", ()),
    ],
)
def test_amd_s_wide_registers_are_tuned_as_intel_s(
    vendor: str, features: str, march: str, wanted: tuple[str, ...]
) -> None:
    info = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {features}\n"
    assert tuning(info, march) == wanted


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the level of processors that kernels are compiled for."""
    kept = (compiler.march, compiler.build_here, native._why_not_shown)

    def ask_for(march: str) -> None:
        monkeypatch.setenv("SGAS_MARCH", march)
        for answer in kept:
            answer.cache_clear()

    yield ask_for
    for answer in kept:
        answer.cache_clear()


on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None, reason="no GCC for x86-64 here"
)


@on_x86
@pytest.mark.parametrize(
    ("march", "vector_bytes"), [("x86-64-v2", 16), ("x86-64-v3", 32), ("x86-64-v4", 64)]
)
def test_a_level_of_processors_says_how_wide_vectors_are(
    levels: Callable[[str], None], march: str, vector_bytes: int
) -> None:
    levels(march)
    assert compiler.build_here().vector_bytes == vector_bytes
    assert f"-march={march}" in compiler.flags()


@on_x86
def test_auto_leaves_kernels_alone_that_were_not_shown_to_be_faster(
    tmp_path: Path, cache: Path, levels: Callable[[str], None]
) -> None:
    source = library(tmp_path, "sgas_test_not_shown")
    levels("x86-64")
    assert "not shown to be faster than torch: --kernels cpu" in str(source.why_not_shown())
    assert backend_for(torch.device("cpu"), source) == "torch"
    assert not cache.exists()  # nothing was built in vain
    levels("x86-64-v3")
    assert source.why_not_shown() is None


@needs_compiler
def test_auto_goes_by_what_was_measured_on_this_machine(
    tmp_path: Path, cache: Path, levels: Callable[[str], None]
) -> None:
    source = library(tmp_path, "sgas_test_measured")
    levels("native")
    assert source.load() is None
    source.keep_ratio(0.8)
    assert "measured here at 0.80 times the speed of torch" in str(source.why_not_shown())
    source.keep_ratio(2)
    assert source.why_not_shown() is None
    (kept,) = cache.glob("native/*/ratio.json")
    for text in ("no number", "NaN", "[2.0]"):
        kept.write_text(text)
        native._why_not_shown.cache_clear()
        assert (source.why_not_shown() is None) == compiler.build_here().shown_faster


@needs_compiler
def test_processors_that_the_compiler_does_not_know_are_told(
    tmp_path: Path, cache: Path, levels: Callable[[str], None]
) -> None:
    source = library(tmp_path, "sgas_test_unknown")
    levels("no-such-processor")
    assert "does not work with SGAS_MARCH=no-such-processor: " in str(source.load())
    assert source.why_not_shown() is None  # to load them says why
    assert backend_for(torch.device("cpu"), source) == "torch"


@on_x86
def test_kernels_of_a_wheel_are_loaded_without_a_compiler_unless_they_are_stale_or_damaged(
    tmp_path: Path, cache: Path, levels: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = library(tmp_path, "sgas_test_shipped")
    levels("native")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "built")
    shipped.build(source.name, source.sources, shipped.FOLDER)
    names = {f"{source.name}-{processors}.so" for processors in shipped.BEST_FIRST}
    assert {path.name for path in shipped.FOLDER.glob("*.so")} == names
    found = shipped.find(source.name, source.sources)
    assert found is not None and found.build.vector_bytes == compiler.build_here().vector_bytes
    levels("x86-64-v2")  # asks for a build of one's own
    assert shipped.find(source.name, source.sources) is None
    levels("native")
    text = source.sources[0].read_text()
    source.sources[0].write_text(SOURCE.replace("NAME", "another"))
    assert shipped.find(source.name, source.sources) is None
    source.sources[0].write_text(text)
    whole = found.path.read_bytes()
    for damaged in (whole[:-1], b""):
        found.path.write_bytes(damaged)
        another = shipped.find(source.name, source.sources)  # the next best, where there is one
        assert another is None or another.path != found.path
    found.path.write_bytes(whole)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert source.build() == found.build
    assert source.load() is None and not cache.exists()


@on_x86
@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        ("vendor_id: GenuineIntel", "x86-64-v4 x86-64-v3 x86-64-v2"),
        ("vendor_id: AuthenticAMD", "x86-64-v4-amd x86-64-v4 x86-64-v3-amd x86-64-v3 x86-64-v2"),
    ],
)
def test_a_processor_takes_the_best_kernels_that_it_can_run(info: str, wanted: str) -> None:
    def those_for(features: set[str]) -> str:
        text = f"{info}\nflags : {' '.join(features)}"
        return " ".join(str(each) for each in shipped.BEST_FIRST if each.include(text))

    assert those_for(shipped.LEVELS["x86-64-v4"]) == wanted
    assert those_for(shipped.LEVELS["x86-64-v2"]) == "x86-64-v2"
    assert those_for({"sse2"}) == ""


@on_x86
def test_kernels_that_this_processor_cannot_run_are_never_loaded(
    tmp_path: Path, cache: Path, levels: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels("x86-64-v4")
    wide = {"__AVX2__", "__AVX512F__", "__znver4__"}
    monkeypatch.setattr(
        compiler,
        "macros_of",
        lambda _, options: {"__AVX2__"} if "-march=native" in options else wide,
    )
    reason = library(tmp_path, "sgas_test_too_wide").load()
    assert reason is not None and "does not have its AVX512F; name an older one" in reason
    assert not cache.exists()


@pytest.mark.slow
def test_a_run_goes_on_with_the_kernels_that_it_began_with_or_not_at_all(tmp_path: Path) -> None:
    sizes = ["--num_points=32", "--k=3", "--channels=4", "--emb_dims=8", "--num_cells=1"]
    short = ["--num_steps=1", "--warmup_epochs=0", "--decision_interval=1", "--final_epochs=0"]
    words = ["search", "--dataset=shapes", "--out=x", "--batch_size=200", *sizes, *short]
    bare = {"CXX": "no-such-compiler", "SGAS_CACHE": str(tmp_path / "empty")}
    began = command(words, tmp_path, "sgas_gcn.family", **bare)
    assert began.status == 0 and "no C++ compiler" in began.err, began
    config = tmp_path / "x" / "config.json"
    edit(config, config.read_text().replace('"kernels": "torch"', '"kernels": "cpu"'))
    (config.parent / "checkpoint.previous.pt").replace(config.parent / "checkpoint.pt")
    gone = command(["search", "--resume=x"], tmp_path, "sgas_gcn.family", **bare)
    assert gone.status == 2, gone
    assert "kernels is 'cpu', but there is no C++ compiler" in gone.err.splitlines()[-1]
