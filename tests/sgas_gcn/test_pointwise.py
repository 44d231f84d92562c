"""Compiled operators of columns agree with their twins in plain torch, and pass torch's checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pointwise_cases import CASES, Arguments, assert_equal_its_twin, plain, tensors_in

from sgas_gcn.kernels.cpu_operators import operators

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.parametrize("kernels", ["cpu"], indirect=True),
]


def compiled_operator(name: str) -> Any:
    return getattr(operators(), name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [0, 1, 17, 33, 64])
@pytest.mark.parametrize("rows", [0, 1, 15, 600])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_twin(case: str, rows: int, channels: int, dtype: torch.dtype) -> None:
    assert_equal_its_twin(case, compiled_operator, rows, channels, dtype, "cpu")


@pytest.mark.parametrize("case", CASES)
def test_torch_finds_the_truth_about_shapes_and_what_it_writes(case: str) -> None:
    name, make = CASES[case]
    operator = compiled_operator(name).default
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operator, make(Arguments(20, 17, torch.float64)), test_utils=checks)


@pytest.mark.parametrize("case", ["column_sums", "linear_norm", "linear_norm_backward"])
def test_sums_do_not_depend_on_the_number_of_threads(case: str) -> None:
    name, make = CASES[case]
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            given = make(Arguments(5000, 33, torch.float32))
            found.append([*tensors_in(compiled_operator(name)(*given)), *tensors_in(given)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("rows", [3, 700, 1030])
def test_large_weights_by_a_library_and_by_panels(rows: int) -> None:
    for case in ("linear_norm", "linear_norm_backward"):
        name, make = CASES[case]
        ours, wanted = (make(Arguments(rows, 80, torch.float64)) for _ in range(2))
        found = [*tensors_in(compiled_operator(name)(*ours)), *tensors_in(ours)]
        twins = [*tensors_in(plain(name, wanted)), *tensors_in(wanted)]
        for mine, theirs in zip(found, twins, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_refuses_matrices_whose_rows_are_no_runs() -> None:
    given = torch.zeros(4, 6)
    with pytest.raises(RuntimeError, match="dense rows"):
        operators().column_sums(given.t(), given.t(), None)
