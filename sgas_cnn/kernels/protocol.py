"""Backend: the primitives that fused cells are made of, and what each of them takes.

A primitive takes one record, whose fields stand in the order of its operator's schema (`flat`).
What they compute say torch_backend and torch_norms. Dimensions: N images, H × W pixels, C channels,
S the stride (1 or 2), n convolutions, k × k taps. Images are `[N, H, W, C]`, after the stride
`[N, H/S, W/S, C]`. A slot is the output of an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

Tensors = Sequence[Tensor]
Numbers = Sequence[int]


class Convolutions(NamedTuple):
    """Separable convolutions: of one input, or with scales and shifts `[n, C]` of one each.

    After them dense ones of stride 1 of the one input: those whose weight in `pointwise` is
    `[C, C, 3, 3]`, without taps.
    Taps are `[C, 1, k, k]`, padded to keep the size, or empty for the pixel (S h + offset,
    S w + offset) as it is. A pointwise weight `[rows, C, 1, 1]` gives the channels from its first
    row on; the others are zero.
    """

    inputs: Tensors
    scales: Tensor | None
    shifts: Tensor | None
    taps: Tensors
    dilations: Numbers
    offsets: Numbers
    pointwise: Tensors
    first_rows: Numbers
    stride: int

    @property
    def has_dense(self) -> bool:
        """Whether the last of them are dense."""
        return self.pointwise[-1].shape[-1] > 1


class Separable(NamedTuple):
    """Of `separable`; with `moments` those of the outputs are wanted."""

    convolutions: Convolutions
    moments: bool


class SeparableSum(NamedTuple):
    """Of `separable_sum`: as of `separable` and `mixture`; every slot has a convolution."""

    convolutions: Convolutions
    before: Tensors
    before_slots: Numbers
    slot_of: Numbers
    factors: Tensor
    bias: Tensor


class SeparableBackward(NamedTuple):
    """Of `separable_backward`: dy_i = factor_i g + slope_i y_i + constant_i, `[n, C]` each.

    g is `gradients[gradient_of[i]]`, y_i `outputs[i]`, read where there are slopes. `centres`
    `[n, C]` are those of inputs of their own; `added` joins the gradient of one input of all.
    """

    gradients: Tensors
    gradient_of: Numbers
    factors: Tensor
    outputs: Tensors
    slopes: Tensor | None
    constants: Tensor | None
    convolutions: Convolutions
    centres: Tensor | None
    added: Tensor | None
    wants_inputs: bool
    wants_taps: Sequence[bool]
    wants_pointwise: Sequence[bool]


class Mixture(NamedTuple):
    """Of `mixture`: each part goes to one slot, each linear image to all.

    `before` is what the slots `before_slots` begin with. `factors` are `[parts, C]`, `coefficients`
    `[slots, linear, C]`, `bias` `[slots, C]`.
    """

    before: Tensors
    before_slots: Numbers
    parts: Tensors
    slot_of: Numbers
    factors: Tensor
    linear: Tensors
    coefficients: Tensor
    bias: Tensor


class MixtureBackward(NamedTuple):
    """Of `mixture_backward`: the gradients of all slots, and the centres of all images `[…, C]`."""

    gradients: Tensors
    parts: Tensors
    slot_of: Numbers
    centres: Tensor
    linear: Tensors
    linear_centres: Tensor
    coefficients: Tensor
    wants_linear: bool


class Projection(NamedTuple):
    """Of `projection`: an image of I channels, a weight `[C, I, 1, 1]`, a bias `[C]`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    moments: bool


class ProjectionBackward(NamedTuple):
    """Of `projection_backward`: dy = factor g + slope y + constant, `[1, C]` each."""

    gradient: Tensor
    factors: Tensor
    output: Tensor
    slopes: Tensor | None
    constants: Tensor | None
    x: Tensor
    weight: Tensor
    wants_x: bool
    wants_weight: bool


class Pool(NamedTuple):
    """Of `pool`; with `moments` those of both poolings are wanted, hence also the largest."""

    x: Tensor
    stride: int
    moments: bool
    wants_largest: bool


class PoolBackward(NamedTuple):
    """Of `pool_backward`: each pooling has the gradient `gradient + slope · pooled + constant`.

    Slopes and constants are `[2, C]`. The gradient of a pooling that nothing reads is empty.
    """

    x: Tensor
    largest: Tensor
    average: Tensor
    largest_gradient: Tensor
    average_gradient: Tensor
    slopes: Tensor
    constants: Tensor
    added: Tensor | None
    stride: int


class Fold(NamedTuple):
    """Of `fold`: R moments `[R, C]`, and rows that are mixed, each one image times its factor.

    `row_of` is the row of the moments that norms it, -1 where none does; `places` are those of its
    weight in `weights`, -1 where it is 1 and -2 where it is 0. `gamma` and `beta` `[rows, C]` stand
    for ones and zeros where None.
    """

    mean: Tensor
    var: Tensor
    row_of: Numbers
    gamma: Tensor | None
    beta: Tensor | None
    weights: Tensor | None
    places: Numbers
    slot_of: Numbers
    slots: int
    eps: float


class Unfold(NamedTuple):
    """Of `unfold`: what `fold` gave and took, `crossed` `[rows, C]` and `sums` `[slots, C]`.

    `pixels` is the number of pixels behind the moments, 0 with running moments.
    """

    factors: Tensor
    centres: Tensor
    inverse: Tensor
    row_of: Numbers
    gamma: Tensor | None
    beta: Tensor | None
    weights: Tensor | None
    places: Numbers
    slot_of: Numbers
    crossed: Tensor
    sums: Tensor
    pixels: int


class Follow(NamedTuple):
    """Of `follow`: running moments `[C]`, and the row of `mean` and `var` that each follows.

    They do from the first to before the last channel, by `momentum`; `unbiased` multiplies `var`.
    """

    running_means: Tensors
    running_vars: Tensors
    mean: Tensor
    var: Tensor
    row_of: Numbers
    first_channels: Numbers
    last_channels: Numbers
    unbiased: float
    momentum: float


RECORDS: dict[str, type[tuple[Any, ...]]] = {
    "separable": Separable,
    "separable_sum": SeparableSum,
    "separable_backward": SeparableBackward,
    "mixture": Mixture,
    "mixture_backward": MixtureBackward,
    "projection": Projection,
    "projection_backward": ProjectionBackward,
    "pool": Pool,
    "pool_backward": PoolBackward,
    "fold": Fold,
    "unfold": Unfold,
    "follow": Follow,
}

Record = TypeVar("Record", bound=tuple[Any, ...])


def flat(call: tuple[Any, ...]) -> list[Any]:
    """The arguments of a record as its operator takes them."""
    arguments: list[Any] = []
    for value in call:
        arguments += value if isinstance(value, Convolutions) else (value,)
    return arguments


def packed(record: type[Record], arguments: Sequence[Any]) -> Record:
    """The record of the arguments that an operator takes; the inverse of `flat`."""
    values, fields = iter(arguments), getattr(record, "_fields", ())
    nested = len(Convolutions._fields)
    return record._make(  # type: ignore[attr-defined]
        Convolutions(*islice(values, nested)) if name == "convolutions" else next(values)
        for name in fields
    )


class Backend(Protocol):
    """A module with all primitives; `torch_backend` says what each returns."""

    def separable(self, call: Separable, /) -> tuple[list[Tensor], Tensor, Tensor]: ...

    def separable_sum(self, call: SeparableSum, /) -> list[Tensor]: ...

    def separable_backward(
        self, call: SeparableBackward, /
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]: ...

    def mixture(self, call: Mixture, /) -> list[Tensor]: ...

    def mixture_backward(
        self, call: MixtureBackward, /
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]: ...

    def projection(self, call: Projection, /) -> tuple[Tensor, Tensor, Tensor]: ...

    def projection_backward(self, call: ProjectionBackward, /) -> tuple[Tensor, Tensor]: ...

    def pool(self, call: Pool, /) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...

    def pool_backward(self, call: PoolBackward, /) -> Tensor: ...

    def fold(self, call: Fold, /) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...

    def unfold(self, call: Unfold, /) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]: ...

    def follow(self, call: Follow, /) -> None: ...
