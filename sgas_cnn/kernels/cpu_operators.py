"""Shapes and FLOPs of the operators, for fake tensors, torch.compile and counters.

Those compiled for the CPU, in namespace `sgas_cnn`, and those by Triton, in `sgas_cnn_cuda`. They
have no gradients of their own: fused cells call the backward operators themselves.
Dimensions as in protocol.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sgas.native.operators import once
from sgas_cnn.kernels.protocol import (
    RECORDS,
    Fold,
    Follow,
    Mixture,
    MixtureBackward,
    Pool,
    PoolBackward,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableBackward,
    SeparableSum,
    Unfold,
    packed,
)


@once
def described(namespace: str) -> Any:
    """`torch.ops` of a namespace whose operators are defined, with shapes and FLOPs."""
    operators = getattr(torch.ops, namespace)
    for name, fake in FAKES.items():
        if hasattr(operators, name):
            torch.library.register_fake(f"{namespace}::{name}", _of_arguments(name, fake))
    for name, count in FLOPS.items():
        register_flop_formula(getattr(operators, name))(_of_arguments(name, count))
    return operators


def _of_arguments(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a primitive's record as one of its operator's arguments."""

    def run(*arguments: Any, out_shape: Any = None) -> Any:
        call = packed(RECORDS[name], arguments)
        return function(call) if out_shape is None else function(call, out_shape)

    return run


def _half_image(x: Tensor, stride: int) -> Tensor:
    count, height, width, channels = x.shape
    return x.new_empty(count, -(-height // stride), -(-width // stride), channels)


def _fake_separable(call: Separable) -> Any:
    convolutions = call.convolutions
    x, pointwise = convolutions.inputs[0], convolutions.pointwise
    num = len(pointwise) if call.moments else 0
    outputs = [_half_image(x, convolutions.stride) for _ in pointwise]
    return outputs, x.new_empty(num, x.shape[3]), x.new_empty(num, x.shape[3])


def _fake_separable_sum(call: SeparableSum) -> Any:
    x, stride = call.convolutions.inputs[0], call.convolutions.stride
    return [_half_image(x, stride) for _ in range(call.bias.shape[0])]


def _fake_separable_backward(call: SeparableBackward) -> Any:
    convolutions = call.convolutions
    inputs, taps, pointwise = convolutions.inputs, convolutions.taps, convolutions.pointwise
    x, mapped = inputs[0], 0 if convolutions.scales is None else len(pointwise)
    to_inputs = [i.new_empty(i.shape) for i in inputs] if call.wants_inputs or mapped else []
    to_weights = [
        [
            w.new_empty(w.shape) if wanted and w.numel() else w.new_empty(0)
            for w, wanted in zip(weights, wants, strict=True)
        ]
        for weights, wants in ((taps, call.wants_taps), (pointwise, call.wants_pointwise))
    ]
    sums = [x.new_empty(mapped, x.shape[3]) for _ in range(2)]
    return to_inputs, *to_weights, *sums


def _fake_mixture(call: Mixture) -> Any:
    like = call.parts[0] if call.parts else call.linear[0]
    return [like.new_empty(like.shape) for _ in range(call.bias.shape[0])]


def _fake_mixture_backward(call: MixtureBackward) -> Any:
    like, slots = call.gradients[0], len(call.gradients)
    channels = like.shape[3]
    return (
        [like.new_empty(like.shape if call.wants_linear else 0) for _ in call.linear],
        like.new_empty(len(call.parts), channels),
        like.new_empty(slots, len(call.linear), channels),
        like.new_empty(slots, channels),
    )


def _fake_projection(call: Projection) -> Any:
    x, rows = call.x, call.weight.shape[0]
    output = x.new_empty(*x.shape[:3], rows)
    return output, *(x.new_empty(int(call.moments), rows) for _ in range(2))


def _fake_projection_backward(call: ProjectionBackward) -> Any:
    pairs = (call.x, call.wants_x), (call.weight, call.wants_weight)
    return tuple(t.new_empty(t.shape if wanted else 0) for t, wanted in pairs)


def _fake_fold(call: Fold) -> Any:
    mean, channels = call.mean, call.mean.shape[1]
    factors, centres, inverse = (mean.new_empty(len(call.row_of), channels) for _ in range(3))
    return factors, mean.new_empty(call.slots, channels), centres, inverse


def _fake_unfold(call: Unfold) -> Any:
    factors, count = call.factors, 0 if call.weights is None else call.weights.numel()
    return factors.new_empty(count), *(factors.new_empty(factors.shape) for _ in range(4))


def _fake_follow(call: Follow) -> None:
    return None


def _fake_pool(call: Pool) -> Any:
    x, shape = call.x, (2 if call.moments else 0, call.x.shape[3])
    largest = _half_image(x, call.stride) if call.wants_largest else x.new_empty(0)
    return largest, _half_image(x, call.stride), x.new_empty(shape), x.new_empty(shape)


def _fake_pool_backward(call: PoolBackward) -> Tensor:
    return call.x.new_empty(call.x.shape)


FAKES: dict[str, Callable[[Any], Any]] = {
    "separable": _fake_separable,
    "separable_backward": _fake_separable_backward,
    "separable_sum": _fake_separable_sum,
    "mixture": _fake_mixture,
    "mixture_backward": _fake_mixture_backward,
    "projection": _fake_projection,
    "projection_backward": _fake_projection_backward,
    "fold": _fake_fold,
    "unfold": _fake_unfold,
    "follow": _fake_follow,
    "pool": _fake_pool,
    "pool_backward": _fake_pool_backward,
}


# In what follows a shape stands for each tensor of a record: hence Any.


def _taps_of(weight: Any) -> int:
    """How many taps a depthwise convolution has; 0 where pixels are as they are."""
    return math.prod(weight[-2:]) if len(weight) > 1 else 0


def _convolution_flops(convolutions: Any, outputs: Any) -> int:
    """Twice the multiply-adds of convolutions with outputs of known shapes."""
    total = 0
    for output, weight, through in zip(
        outputs, convolutions.taps, convolutions.pointwise, strict=True
    ):
        total += 2 * math.prod(output) * (_taps_of(weight) + through[0] * math.prod(through[2:]))
    return total


def _separable_flops(call: Any, out_shape: Any) -> int:
    return _convolution_flops(call.convolutions, out_shape[0])


def _separable_sum_flops(call: Any, out_shape: Any) -> int:
    """Those of `separable`, whose outputs are as large as the sums."""
    convolutions = call.convolutions
    return _convolution_flops(convolutions, [out_shape[0]] * len(convolutions.taps))


def _separable_backward_flops(call: Any, out_shape: Any) -> int:
    """What the wanted gradients take, and the depthwise half again for a pointwise weight's."""
    convolutions = call.convolutions
    into = call.wants_inputs or convolutions.scales is not None
    total = 0
    for i, (weight, through) in enumerate(
        zip(convolutions.taps, convolutions.pointwise, strict=True)
    ):
        output, depthwise = 2 * math.prod(call.gradients[call.gradient_of[i]]), _taps_of(weight)
        rows = through[0] * math.prod(through[2:])
        of_taps, of_pointwise = call.wants_taps[i] and depthwise > 0, call.wants_pointwise[i]
        total += output * rows * ((into or of_taps) + of_pointwise)
        total += output * depthwise * (into + of_taps + of_pointwise)
    return total


def _projection_flops(call: Any, out_shape: Any) -> int:
    """Twice the multiply-adds of the product."""
    return 2 * math.prod(call.x) * call.weight[0]


def _projection_backward_flops(call: Any, out_shape: Any) -> int:
    return 2 * math.prod(call.x) * call.weight[0] * (call.wants_x + call.wants_weight)


FLOPS: dict[str, Callable[[Any, Any], int]] = {
    "separable": _separable_flops,
    "separable_sum": _separable_sum_flops,
    "separable_backward": _separable_backward_flops,
    "projection": _projection_flops,
    "projection_backward": _projection_backward_flops,
}
