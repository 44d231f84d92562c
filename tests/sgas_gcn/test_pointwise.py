"""The pointwise operators agree with their twins in plain torch, and pass torch's own checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sgas.kernels import use_kernels
from sgas_gcn.compiled import LIBRARY
from sgas_gcn.kernels import pointwise, pointwise_torch
from sgas_gcn.kernels.cpu_backend import operators
from sgas_gcn.kernels.pointwise import AFFINE, BROADCAST, LENGTH, MASKED

EDGES = 3


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    """The compiled kernels are in force; skips where they cannot be built."""
    if (reason := LIBRARY.load()) is not None:
        pytest.skip(reason)
    use_kernels("cpu")
    yield
    use_kernels("auto")


class Arguments:
    """Arguments of all operators for `[rows, EDGES · channels]`; columns are slices of wider rows.

    A y may have exact zeros, as after a ReLU, and a whole row of them, which has no length.
    """

    def __init__(self, rows: int, channels: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.rows, self.channels, self.dtype = rows, channels, dtype
        self.columns = EDGES * channels

    def numbers(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=dtype or self.dtype)

    def matrix(self) -> Tensor:
        wide = self.numbers(self.rows, self.columns + 5)
        return wide[:, 2 : 2 + self.columns]

    def activations(self) -> Tensor:
        y = self.matrix()
        y.relu_()[:1] = 0
        return y

    def norms(self) -> list[list[Tensor]]:
        """Weights, biases, running means and variances."""
        found = [[self.numbers(self.channels) for _ in range(EDGES)] for _ in range(4)]
        return [*found[:3], [x.abs() for x in found[3]]]

    def doubles(self, *shape: int) -> Tensor:
        return self.numbers(*shape, dtype=torch.float64)

    def coefficients(self) -> Tensor:
        found = self.doubles(4, self.columns)
        found[3].abs_()
        return found


def relu_sums(given: Arguments) -> tuple[Any, ...]:
    return given.matrix(), 0.2


def relu_norm(given: Arguments) -> tuple[Any, ...]:
    return given.matrix(), 0.0, *given.norms(), True, 0.1, 1e-5


def relu_norm_backward(given: Arguments) -> tuple[Any, ...]:
    tensors = given.matrix(), given.activations(), given.coefficients(), given.numbers(EDGES)
    return *tensors, EDGES, True, 0.0, given.matrix()


def linear_norm(given: Arguments) -> tuple[Any, ...]:
    """Two inputs side by side; the first a slice of wider rows."""
    inputs = [given.matrix()[:, : given.channels], given.numbers(given.rows, given.channels)]
    weight, bias = given.numbers(given.columns, 2 * given.channels), given.numbers(given.columns)
    return inputs, weight, bias, 0.2, *given.norms(), given.rows > 1, 0.1, 1e-5


def linear_norm_backward(given: Arguments) -> tuple[Any, ...]:
    inputs = linear_norm(given)[0]
    grads = [given.matrix()[:, : given.channels], given.numbers(given.rows, given.channels)]
    weight = given.numbers(given.columns, 2 * given.channels)
    tensors = given.matrix(), given.activations(), given.coefficients(), given.numbers(EDGES)
    return *tensors, EDGES, True, 0.0, inputs, weight, grads, True, False


def linear_norm_backward_of_bias(given: Arguments) -> tuple[Any, ...]:
    first = linear_norm_backward(given)
    return *first[:6], 0.2, *first[7:9], [], False, True


def norm_coefficients(given: Arguments) -> tuple[Any, ...]:
    sums = given.doubles(2, given.columns)
    return sums, given.rows, *given.norms(), False, 0.1, 1e-5


def column_sums(given: Arguments) -> tuple[Any, ...]:
    mask = (given.numbers(given.rows) > 0).to(given.dtype)
    return given.matrix(), given.activations(), mask


def column_sums_of_one(given: Arguments) -> tuple[Any, ...]:
    return given.matrix(), given.activations()[:, : given.channels], None


def norm_gradients(given: Arguments) -> tuple[Any, ...]:
    sums = given.doubles(2, given.columns)
    return sums, given.coefficients(), given.numbers(EDGES), given.rows, True, given.matrix()


def apply_factors(given: Arguments) -> tuple[Any, ...]:
    factors = given.doubles(3, given.columns)
    return given.matrix(), given.activations(), factors, 0.2, given.matrix()


def mixture(given: Arguments) -> tuple[Any, ...]:
    """Terms of all kinds; the third edge holds one operation alone."""
    one = given.matrix()[:, : given.channels]
    values = [given.matrix(), given.matrix(), one, given.activations(), given.activations()]
    coefs = [given.coefficients(), given.coefficients(), None, given.coefficients(), None]
    kinds, counts = [AFFINE, MASKED, BROADCAST, LENGTH, LENGTH], [3, 3, 2, 3, 3]
    slots = [0, 1, 2, 1, 0, 2, 1, 0, 0, 1, 2, 2, 1, 0]
    mask = (given.numbers(given.rows) > 0).to(given.dtype)
    shape = [given.rows, EDGES, given.channels]
    return values, coefs, kinds, slots, counts, given.numbers(len(slots)), mask, shape, 1e-12


def length_backward(given: Arguments) -> tuple[Any, ...]:
    y = given.activations()
    lengths = y.unflatten(1, (EDGES, -1)).norm(dim=2).clamp_min(1e-12)
    return (
        given.matrix(),
        y,
        None,
        lengths.reciprocal(),
        given.numbers(EDGES),
        1e-12,
        given.matrix(),
    )


def length_backward_of_norms(given: Arguments) -> tuple[Any, ...]:
    inverse = given.numbers(given.rows, EDGES).abs()
    tensors = given.matrix(), given.activations(), given.coefficients(), inverse
    return *tensors, None, 1e-12, given.matrix()


# By case: the operator's name, and what makes its arguments.
CASES: dict[str, tuple[str, Callable[[Arguments], tuple[Any, ...]]]] = {
    "relu_sums_": ("relu_sums_", relu_sums),
    "relu_norm_": ("relu_norm_", relu_norm),
    "relu_norm_backward": ("relu_norm_backward", relu_norm_backward),
    "linear_norm": ("linear_norm", linear_norm),
    "linear_norm_backward": ("linear_norm_backward", linear_norm_backward),
    "linear_norm_backward of bias": ("linear_norm_backward", linear_norm_backward_of_bias),
    "norm_coefficients": ("norm_coefficients", norm_coefficients),
    "column_sums": ("column_sums", column_sums),
    "column_sums of one": ("column_sums", column_sums_of_one),
    "norm_gradients": ("norm_gradients", norm_gradients),
    "apply_factors": ("apply_factors", apply_factors),
    "mixture": ("mixture", mixture),
    "length_backward": ("length_backward", length_backward),
    "length_backward of norms": ("length_backward", length_backward_of_norms),
}


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 17, 33, 64])
@pytest.mark.parametrize("rows", [1, 15, 600])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_twin(case: str, rows: int, channels: int, dtype: torch.dtype) -> None:
    name, make = CASES[case]
    ours, wanted = make(Arguments(rows, channels, dtype)), make(Arguments(rows, channels, dtype))
    found = tensors_in(getattr(pointwise, name)(*ours))
    twins = tensors_in(getattr(pointwise_torch, name)(*wanted))
    tolerance = {"rtol": 1e-10, "atol": 1e-10}
    if dtype == torch.float32:
        tolerance = {"rtol": 1e-4, "atol": 1e-3}
    # Arguments too: some are written to.
    pairs = zip([*found, *tensors_in(ours)], [*twins, *tensors_in(wanted)], strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_says_the_truth_about_shapes_and_what_it_writes(case: str) -> None:
    name, make = CASES[case]
    operator = getattr(operators(), name).default
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
            found.append([*tensors_in(getattr(pointwise, name)(*given)), *tensors_in(given)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("rows", [3, 700])
def test_a_large_weight_goes_through_a_library(rows: int) -> None:
    for case in ("linear_norm", "linear_norm_backward"):
        name, make = CASES[case]
        ours, wanted = (make(Arguments(rows, 80, torch.float64)) for _ in range(2))
        found = [*tensors_in(getattr(pointwise, name)(*ours)), *tensors_in(ours)]
        twins = [*tensors_in(getattr(pointwise_torch, name)(*wanted)), *tensors_in(wanted)]
        for mine, theirs in zip(found, twins, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_refuses_matrices_whose_rows_are_no_runs() -> None:
    given = torch.zeros(4, 6)
    with pytest.raises(RuntimeError, match="dense rows"):
        pointwise.column_sums(given.t(), given.t(), None)
