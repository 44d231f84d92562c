"""Arguments of every operator of columns, for whatever computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.kernels import torch_columns
from sgas_gcn.kernels.protocol import (
    AFFINE,
    BROADCAST,
    LENGTH,
    MASKED,
    Lengths,
    Normed,
    Norms,
    Term,
)

EDGES = 3


class Arguments:
    """Arguments of all operators for `[rows, EDGES · channels]`; columns are slices of wider rows.

    A y may have exact zeros, as after a ReLU, and a whole row of them, which has no length.
    """

    def __init__(self, rows: int, channels: int, dtype: torch.dtype, device: str = "cpu") -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.rows, self.channels, self.dtype, self.device = rows, channels, dtype, device
        self.columns = EDGES * channels

    def numbers(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=dtype or self.dtype)
        return drawn.to(self.device)

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


def column_sums(given: Arguments) -> tuple[Any, ...]:
    mask = (given.numbers(given.rows) > 0).to(given.dtype)
    return given.matrix(), given.activations(), mask


def norm_gradients(given: Arguments) -> tuple[Any, ...]:
    sums = given.doubles(2, given.columns)
    return sums, given.coefficients(), given.numbers(EDGES), given.rows, True, given.matrix()


def mixture(given: Arguments) -> tuple[Any, ...]:
    """Terms of all kinds; the second edge has nothing to start from."""
    one = given.matrix()[:, : given.channels]
    values = [given.matrix(), given.matrix(), one, given.activations(), given.activations()]
    coefs = [given.coefficients(), given.coefficients(), None, given.coefficients(), None]
    kinds, counts = [AFFINE, MASKED, BROADCAST, LENGTH, LENGTH], [3, 3, 2, 3, 3]
    slots = [0, 1, 2, 1, 0, 2, 1, 0, 0, 1, 2, 2, 1, 0]
    mask = (given.numbers(given.rows) > 0).to(given.dtype)
    scale, bases = given.numbers(len(slots)), [one.clone(), None, one[:, : given.channels]]
    return values, coefs, kinds, slots, counts, scale, mask, bases, given.channels, 1e-12


def skip_backward(given: Arguments) -> tuple[Any, ...]:
    x, grad_x = given.matrix()[:, : given.channels], given.numbers(given.rows, given.channels)
    return given.matrix(), x, given.numbers(EDGES), grad_x


def length_backward(given: Arguments) -> tuple[Any, ...]:
    y = given.activations()
    lengths = y.unflatten(1, (EDGES, -1)).norm(dim=2).clamp_min(1e-12)
    inverse, scale = lengths.reciprocal(), given.numbers(EDGES)
    return given.matrix(), y, None, inverse, scale, 1e-12, given.matrix()


def length_backward_of_norms(given: Arguments) -> tuple[Any, ...]:
    inverse = given.numbers(given.rows, EDGES).abs()
    tensors = given.matrix(), given.activations(), given.coefficients(), inverse
    return *tensors, None, 1e-12, given.matrix()


# By case: the operator's name, and what makes its arguments.
CASES: dict[str, tuple[str, Callable[[Arguments], tuple[Any, ...]]]] = {
    "relu_sums_": ("relu_sums_", lambda of: (of.matrix(), 0.2)),
    "relu_norm_": ("relu_norm_", lambda of: (of.matrix(), 0.0, *of.norms(), True, 0.1, 1e-5)),
    "relu_norm_backward": ("relu_norm_backward", relu_norm_backward),
    "head_dots": (
        "head_dots",
        lambda of: (of.matrix(), of.numbers(2, of.columns), of.numbers(2, EDGES), EDGES),
    ),
    "head_dots_backward": (
        "head_dots_backward",
        lambda of: (of.matrix(), of.numbers(of.rows, EDGES), of.numbers(of.rows, EDGES)),
    ),
    "linear_norm": ("linear_norm", linear_norm),
    "linear_norm_backward": ("linear_norm_backward", linear_norm_backward),
    "linear_norm_backward of bias": ("linear_norm_backward", linear_norm_backward_of_bias),
    "norm_coefficients": (
        "norm_coefficients",
        lambda of: (of.doubles(2, of.columns), of.rows, *of.norms(), False, 0.1, 1e-5),
    ),
    "column_sums": ("column_sums", column_sums),
    "column_sums of one": (
        "column_sums",
        lambda of: (of.matrix(), of.activations()[:, : of.channels], None),
    ),
    "norm_gradients": ("norm_gradients", norm_gradients),
    "apply_factors": (
        "apply_factors",
        lambda of: (of.matrix(), of.activations(), of.doubles(3, of.columns), 0.2, of.matrix()),
    ),
    "mixture": ("mixture", mixture),
    "skip_backward": ("skip_backward", skip_backward),
    "skip_backward of scale": (
        "skip_backward",
        lambda of: (*skip_backward(of)[:2], None, None),
    ),
    "length_backward": ("length_backward", length_backward),
    "length_backward of norms": ("length_backward", length_backward_of_norms),
}


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def terms_of(
    values: Any, coefficients: Any, kinds: Any, slots: Any, counts: Any, *others: Any
) -> tuple[Any, ...]:
    """The arguments of `Backend.mixture` from those of the operator."""
    scale, mask, *rest = others
    terms, first = [], 0
    for y, coefs, kind, count in zip(values, coefficients, kinds, counts, strict=True):
        own = mask if kind == MASKED else None
        terms.append(Term(y, coefs, kind, own, slots[first : first + count]))
        first += count
    return terms, scale, *rest


# By operator: its arguments as functions of a backend take them.
TYPED: dict[str, Callable[..., tuple[Any, ...]]] = {
    "relu_norm_": lambda h, slope, *norms: (h, slope, Norms(*norms)),
    "norm_coefficients": lambda sums, count, *norms: (sums, count, Norms(*norms)),
    "relu_norm_backward": lambda grad, *normed: (grad, Normed(*normed[:6]), *normed[6:]),
    "linear_norm": lambda x, weight, bias, slope, *norms: (x, weight, bias, slope, Norms(*norms)),
    "linear_norm_backward": lambda grad, *normed: (grad, Normed(*normed[:6]), *normed[6:]),
    "length_backward": lambda grad, y, coefs, inverse, scale, floor, out: (
        grad,
        y,
        coefs,
        Lengths(inverse, scale, floor),
        out,
    ),
    "mixture": terms_of,
}


def typed(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's arguments as functions of a backend take them."""
    return TYPED[name](*arguments) if name in TYPED else arguments


def plain(name: str, arguments: tuple[Any, ...]) -> Any:
    """What plain torch computes for the arguments of an operator."""
    return getattr(torch_columns, name)(*typed(name, arguments))


def assert_equal_its_twin(
    case: str, ours: Any, rows: int, channels: int, dtype: torch.dtype, device: str
) -> None:
    """Passes where the function that `ours` has for a name gives and writes what plain torch does.

    `ours` takes an operator's arguments.
    """
    name, make = CASES[case]
    found, wanted = (make(Arguments(rows, channels, dtype, device)) for _ in range(2))
    outputs, theirs = tensors_in(ours(name)(*found)), tensors_in(plain(name, wanted))
    relative, absolute = (1e-4, 1e-3) if dtype == torch.float32 else (1e-10, 1e-10)
    # Arguments too: some are written to.
    pairs = zip([*outputs, *tensors_in(found)], [*theirs, *tensors_in(wanted)], strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=relative, atol=absolute)
