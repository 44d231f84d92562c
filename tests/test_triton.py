"""Triton's kernels of both families compile for GPUs that are not here; with one their tests pass.

Elsewhere the interpreter runs them, which forgives what a compiler does not.
"""

from __future__ import annotations

import ast
import sys

import pytest
from triton_runs import pass_compiled, run_alone

TESTS = {  # and which of them
    "tests/sgas/test_capture.py": "replayed",  # by CUDA graphs
    "tests/sgas_gcn/test_kernels.py": "triton",
    "tests/sgas_gcn/test_triton_kernels.py": "",
    "tests/sgas_gcn/test_pointwise_triton.py": "",
    "tests/sgas_cnn/test_triton_primitives.py": "",
    "tests/sgas_cnn/test_triton_launches.py": "",
}
HEAD = """
import sys
sys.path[:0] = ["tests", "tests/sgas_cnn"]
import compile_kernels, torch
from compile_kernels import compiled
"""
# Programs, for which GPUs they are compiled, and how often each kernel is launched or its name.
NEIGHBORS = """
from neighbor_primitives import primitives
from sgas_gcn.csr import CsrGraph

by = primitives(CsrGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), 2), kernels="cuda")

def program():
    x, y = (torch.zeros(2, 40, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    outputs = [*by["sum"](x), *by["max"](x), *by["stats"](x, y)]
    outputs += by["attention"](x.view(2, 1, 40), x[:, :1], y[:, :1])
    torch.autograd.backward(outputs, [torch.zeros_like(out) for out in outputs])

print(compiled(program, (80,)))
"""
COLUMNS = """
from pointwise_cases import CASES, Arguments
from sgas_gcn.kernels.cuda_columns import FUNCTIONS

def program():
    for dtype in (torch.float32, torch.float64):
        for name, make in CASES.values():
            if name in FUNCTIONS:
                FUNCTIONS[name](*make(Arguments(20, 17, dtype)))

print([*compiled(program, (80, 90))])
"""
IMAGES = """
from test_triton_primitives import every_kernel

compile_kernels.TYPES[torch.int8] = "i8"
print([*compiled(every_kernel, (80,))])
"""
PROGRAMS = {
    "neighbors": (
        NEIGHBORS,
        {"sum": 2, "max": 1, "chosen_sum": 1, "stats": 1, "attention": 1}
        | {"grad_target": 2, "grad_source": 2},
    ),
    "columns": (
        COLUMNS,
        "activation_sums coefficients column_sums dots_backward dots factors gradients length skip "
        "term",
    ),
    "images": (
        IMAGES,
        "added fold joined_moments linear_gradient mixture planes_gradient planes pool_gradient "
        "pool products pulled reached strip_moments taps_gradient unfold",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(name: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    program, kernels = PROGRAMS[name]
    launched = ast.literal_eval(run_alone([sys.executable, "-c", HEAD + program], {}))
    if isinstance(kernels, str):
        assert sorted(launched) == sorted(f"_{kernel}_kernel" for kernel in kernels.split())
    else:
        assert launched == {f"_{kernel}_kernel": count for kernel, count in kernels.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("file", TESTS)
def test_tests_of_kernels_pass_on_a_gpu(file: str) -> None:
    pass_compiled(file, only=TESTS[file])
