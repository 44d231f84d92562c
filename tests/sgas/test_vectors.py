"""The kernels' tiles as the compiler makes them for each width of vectors: in registers, whole."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sgas.native.compiler import FLAGS, HEADERS
from sgas_cnn.library import LIBRARY as IMAGES
from sgas_gcn.library import LIBRARY as CLOUDS

# Each function is one tile of the shape that kernels take, called as they call it.
PROGRAMS = {
    "gcn": """
        #include "tiles.h"
        using namespace sgas;
        template <class T, int count>
        void multiply_tile(const std::vector<Factor<T>>& factors, T* out) {
          multiply_block<T, tile_rows<count>(), count>(
              factors, 0, 0, [&](auto block, int64_t row, auto& values) {
                for (int u = 0; u < count; u++) block.store(out + row * block.width, u, values[u]);
              });
        }
        template <class T, int count>
        void add_tile(const T* left, int64_t step, const T* right, int64_t rows, Padded<T>& out) {
          add_block<T, tile_rows<count>(), count>(left, step, right, step, rows, out, 0, 0);
        }
        #define TILES(T, count) \\
          template void multiply_tile<T, count>(const std::vector<Factor<T>>&, T*); \\
          template void add_tile<T, count>(const T*, int64_t, const T*, int64_t, Padded<T>&);
        TILES(float, 1) TILES(float, 2) TILES(double, 1) TILES(double, 2)
    """,
    "cnn": """
        #include "cross.h"
        #include "pointwise.h"
        #include "taps.h"
        using namespace sgas;
        template <class T, int count, int C>
        void map_tile_of(const T* pixels, const T* matrix, long channels, T* out) {
          map_tile<T, tile_rows<count>(), count, C>(
              pixels, channels, channels, matrix, channels, 0, 0,
              [&](long p, long b, Vec<T> y) { store(out + p * channels + b * LANES<T>, y); });
        }
        template <class T>
        void cross_tile_of(const T* a, const T* b, long width, long pixels, double* sums) {
          add_cross(a, width, b, width, pixels, sums);
        }
        template <class T, int K, int D>
        void taps_tile(const T* in, long row, const T* weight, T* out) {
          convolve_run<T, K, D, 1, true, OUTPUTS>(in, row, weight, out, LANES<T>);
        }
        template <class T, int K, int D>
        void taps_gradient_tile(const T* in, const T* gradient, T* sums, long rows, long width) {
          sum_taps<T, K, D, 1>(in, width, gradient, width, sums, rows, width);
        }
        #define TILES(T) \\
          template void map_tile_of<T, 1, 16>(const T*, const T*, long, T*); \\
          template void map_tile_of<T, 2, 32>(const T*, const T*, long, T*); \\
          template void map_tile_of<T, 2, 0>(const T*, const T*, long, T*); \\
          template void map_tile_of<T, 3, 0>(const T*, const T*, long, T*); \\
          template void cross_tile_of<T>(const T*, const T*, long, long, double*); \\
          template void taps_tile<T, 3, 1>(const T*, long, const T*, T*); \\
          template void taps_tile<T, 3, 2>(const T*, long, const T*, T*); \\
          template void taps_tile<T, 5, 1>(const T*, long, const T*, T*); \\
          template void taps_gradient_tile<T, 3, 1>(const T*, const T*, T*, long, long); \\
          template void taps_gradient_tile<T, 3, 2>(const T*, const T*, T*, long, long); \\
          template void taps_gradient_tile<T, 5, 1>(const T*, const T*, T*, long, long);
        TILES(float) TILES(double)
    """,
}
FOLDERS = {"gcn": CLOUDS.sources[0].parent, "cnn": IMAGES.sources[0].parent}
X86 = {"x86-64-v2": "xmm", "x86-64-v3": "ymm", "x86-64-v4": "zmm"}
FEWEST = 6  # products of a tile's loop, and loops of a program
ARM_COMPILER = "aarch64-linux-gnu-g++"

on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("c++") is None,
    reason="no C++ compiler for x86-64 on this machine",
)
with_arm = pytest.mark.skipif(
    shutil.which(ARM_COMPILER) is None, reason=f"no {ARM_COMPILER} on this machine"
)


def products_of(family: str, folder: Path, compiler: str, *options: str) -> list[list[str]]:
    """The instructions between labels that multiply; fails where a vector is taken apart."""
    source, output = folder / "tiles.cpp", folder / "tiles.s"
    source.write_text(PROGRAMS[family])
    command = [compiler, *FLAGS, *options, "-Wvector-operation-performance"]
    command += [f"-I{HEADERS}", f"-I{FOLDERS[family]}", "-S", "-o", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    assert "piecewise" not in done.stderr, done.stderr[:2000]
    ends = r"^\.?\w+:|^\s+(?:j\w+|b\.\w+|cbn?z)\s.*$"
    blocks = re.split(ends, output.read_text(), flags=re.MULTILINE)
    instructions = [[line.strip() for line in block.splitlines()] for block in blocks]
    return [lines for lines in instructions if sum(map(is_product, lines)) >= FEWEST]


def is_product(line: str) -> bool:
    """Whether an instruction multiplies vectors."""
    return re.match(r"v?mulp|vfmadd\w+p|fmla|fmul\s+v", line) is not None


def sums_on_stack(lines: list[str], register: str, stack: str) -> list[str]:
    """The instructions that store what was added up; x86 names what is written last, ARM first."""
    added: dict[str, bool] = {}
    found = []
    for line in lines:
        names = re.findall(register, line)
        stores = re.search(stack, line) is not None
        if stores and re.match(r"v?mov|str|stp", line):
            found += [line for name in names if added.get(name)]
        elif names:
            written = names[-1] if "%" in line else names[0]
            added[written] = re.match(r"v?addp|vfmadd|fmla|fadd", line) is not None
    return found


@on_x86
@pytest.mark.parametrize("march", X86)
@pytest.mark.parametrize("family", PROGRAMS)
def test_tiles_of_each_width_keep_their_sums_in_registers(
    family: str, march: str, tmp_path: Path
) -> None:
    tuned = ["-mtune=icelake-server"] if march == "x86-64-v4" else []
    blocks = products_of(family, tmp_path, "c++", f"-march={march}", *tuned)
    assert len(blocks) >= FEWEST
    for lines in blocks:
        assert all(f"%{X86[march]}" in line for line in lines if is_product(line))
        assert not sums_on_stack(lines, r"%([xyz]mm\d+)", r"\(%r[sb]p\)$"), "\n".join(lines)


@with_arm
@pytest.mark.parametrize("family", PROGRAMS)
def test_tiles_of_arm_keep_their_sums_in_registers(family: str, tmp_path: Path) -> None:
    blocks = products_of(family, tmp_path, ARM_COMPILER)
    assert len(blocks) >= FEWEST
    for lines in blocks:
        assert not sums_on_stack(lines, r"\b[qv](\d+)", r"\[sp.*\]$"), "\n".join(lines)
