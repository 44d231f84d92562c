"""The functions of columns by Triton kernels agree with their twins in plain torch.

Interpreted on the CPU; tests/test_triton.py runs the file again on a GPU.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from pointwise_cases import CASES, Arguments, assert_equal_its_twin, plain, typed
from torch._subclasses.fake_tensor import FakeTensorMode
from triton_runs import DEVICE, run_interpreted

from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.cuda_operators import OPERATORS, SCHEMAS


def launched(name: str) -> Any:
    """The function of an operator, which launches."""
    from sgas_gcn.kernels.cuda_columns import FUNCTIONS

    return FUNCTIONS[name]


pytestmark = pytest.mark.usefixtures("triton")
NAMES = [schema.partition("(")[0] for schema in SCHEMAS]
LAUNCHED = [case for case, (name, _) in CASES.items() if name in NAMES]
SIZES = [(1, 1), (15, 17), (70, 33), (0, 4)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("rows", "channels"), SIZES)
@pytest.mark.parametrize("case", LAUNCHED)
def test_equals_its_twin(case: str, rows: int, channels: int, dtype: torch.dtype) -> None:
    assert_equal_its_twin(case, launched, rows, channels, dtype, DEVICE)


def test_many_strips_are_added() -> None:
    for case in ("relu_norm_", "column_sums", "skip_backward", "length_backward"):
        assert_equal_its_twin(case, launched, 9000, 1, torch.float64, DEVICE)


def test_more_edges_than_a_launch_has_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    y, scale = (torch.randn(n, generator=generator).to(DEVICE) for n in (60, 6))
    values, slots = [y.view(5, 12), y.view(5, 12)[:, :2]], [3, 0, 1, 2, 4, 5, 5]
    given = (values, [None, None], [0, 2], slots, [6, 1], scale.repeat(2)[:7], None, [None] * 7)
    found, _ = launched("mixture")(*given, 2, 1e-12)
    wanted, _ = plain("mixture", (*given, 2, 1e-12))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["relu_norm_", "relu_norm_backward", "mixture"])
def test_a_nan_is_seen(name: str) -> None:
    given = CASES[name][1](Arguments(20, 5, torch.float32, DEVICE))
    first = given[0] if isinstance(given[0], torch.Tensor) else given[0][0]
    first[3, 1] = float("nan")
    found = launched(name)(*given)
    results = {"relu_norm_": found, "relu_norm_backward": found[0], "mixture": found[0][0]}
    assert results[name].isnan().any()


@pytest.mark.parametrize("case", LAUNCHED)
def test_torch_knows_the_operators(case: str) -> None:
    """Schemas and shapes of results, as fake tensors and torch.compile rely on them."""
    name, make = CASES[case]
    given = make(Arguments(20, 5, torch.float64, DEVICE))
    operator = getattr(OPERATORS, name).default
    torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.compiled
def test_the_compiled_operators_have_the_same_schemas() -> None:
    for schema in SCHEMAS:
        name = schema.partition("(")[0]
        ours, theirs = (
            str(getattr(of, name).default._schema).partition("(")[2]
            for of in (OPERATORS, torch.ops.sgas_gcn)
        )
        assert ours == theirs, name


def test_fake_tensors_are_served_by_the_operators() -> None:
    with FakeTensorMode():
        given = CASES["relu_norm_"][1](Arguments(20, 5, torch.float32, DEVICE))
        found = backend_of(given[0]).relu_norm_(*typed("relu_norm_", given))
    assert found.shape == (4, 15) and found.dtype == torch.float64


COUNT = """
import sys
sys.path[:0] = ["tests"]
import torch
from pointwise_cases import CASES, Arguments, typed
from torch.utils.flop_counter import FlopCounterMode
from triton_runs import triton_kernels
from sgas_gcn.kernels.backend import backend_of

given = CASES["linear_norm"][1](Arguments(20, 5, torch.float32))
with triton_kernels(), FlopCounterMode(display=False) as counter:
    backend_of(given[1]).linear_norm(*typed("linear_norm", given))
print(counter.get_total_flops() == 2 * 20 * given[1].numel())
"""


def test_products_are_counted_from_the_first() -> None:
    """A counter copies the formulas that there are when it is made."""
    assert run_interpreted([sys.executable, "-c", COUNT]).strip() == "True"
