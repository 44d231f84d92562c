"""All operations on all edges that leave one state, as one autograd function.

    out_e = before_e + Σ_b (s_b y_b + bias_b) + Σ_q coefficient_eq Q_q

y_b = W (taps * R(x)) are the convolutions of the state, Q_q the state and its poolings. `norms`
gives s_b and bias_b from the moments of y_b: norm and mixture are one factor for each channel. For
separable convolutions y = W (taps * R(s₁ h + bias₁)) with h = W₁ (taps₁ * R(x)), and s₁ likewise.

Backward, with g_e the gradient of slot e: Σ g_e (y_b − m), Σ g_e Q and Σ g_e give the gradients of
norms and alphas and the coefficients of dy = s g + S y + c. That is made again where it is used,
some rows of an image at a time, and goes on through W' and the taps, first to h, then to x.

Kept for it: x, h, y and the poolings. taps * R(·) is made again where W wants a gradient.
Dimensions: N images, H × W pixels, C channels, E edges of the cell, O candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgas_cnn.fused.backward import SourceBackward
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.norms import Folded, fold
from sgas_cnn.fused.parts import Branch
from sgas_cnn.fused.plan import SourcePlan, affine_of, running_moments
from sgas_cnn.fused.statistics import Followers, unbiased
from sgas_cnn.kernels import backend_of

GIVEN = 4  # arguments of the function before what was there, and the parameters


def evaluate_source(
    plan: SourcePlan,
    x: Tensor,
    weights: Tensor | None,
    before: Sequence[Tensor | None],
    training: bool,
) -> list[Tensor]:
    """The outputs `[N, C, H/S, W/S]` of all slots, each plus what was there `before`.

    `x` is the state `[N, C, H, W]`, `weights` `[E, O]` those of the operations (None: all 1). In
    training mode the norms go by the batch, and their running statistics follow it.
    """
    flat = None if weights is None else weights.flatten()
    given = [None if b is None else _nhwc(b) for b in before]
    outs = _Source.apply(plan, training, _nhwc(x), flat, *given, *plan.parameters())
    return [out.permute(0, 3, 1, 2) for out in outs]


class _Source(torch.autograd.Function):
    """The function; images are `[N, H, W, C]`."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: SourcePlan,
        training: bool,
        x: Tensor,
        weights: Tensor | None,
        *rest: Tensor | None,
    ) -> tuple[Tensor, ...]:
        backend, followers = backend_of(x), Followers()
        constants = [x.new_ones(1), x.new_zeros(1)]
        scales = torch.cat(constants if weights is None else [*constants, weights])
        tables = plan.tables(x.device)
        parameters = rest[plan.slots :]
        halves, outputs, first, folded = _branches(
            plan, backend, x, training, parameters, scales[tables.branches], followers
        )
        images, mean, inverse = linear_images(plan, backend, x, training, followers)
        followers.update()
        linear_scales = scales[tables.linear].view(plan.slots, len(plan.forms))
        coefficients = linear_scales.unsqueeze(-1) * inverse
        bias = -(coefficients * mean).sum(1)
        factors = x.new_empty(0, x.shape[-1])
        if folded is not None:
            bias = bias.index_add(0, tables.slots, folded.bias)
            factors = folded.factors
        started = [slot for slot in range(plan.slots) if rest[slot] is not None]
        outs = backend.mixture(
            [rest[slot] for slot in started], started, outputs, plan.slot_of, factors,
            images, coefficients, bias,
        )  # fmt: skip
        ctx.plan, ctx.training, ctx.scales_size = plan, training, len(scales)
        _keep(
            ctx,
            x=[x],
            halves=halves if _goes_deeper(ctx) else [],
            outputs=outputs,
            images=[image for image in images if image is not x],
            linear=[mean, inverse, linear_scales],
            first=[] if first is None else first,
            folded=[] if folded is None else folded,
            weights=parameters[: plan.num_taps + len(plan.convolutions)],
        )
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        kept, start = {}, 0
        saved = ctx.saved_tensors
        for name, count in ctx.kept.items():
            kept[name] = saved[start : start + count]
            start += count
        step = SourceBackward(ctx.plan, ctx.training, kept, ctx.needs_input_grad[GIVEN - 2 :])
        return None, None, *step.run(gradients, ctx.scales_size)


def _branches(
    plan: SourcePlan,
    backend: Any,
    x: Tensor,
    training: bool,
    parameters: Sequence[Any],
    scales: Tensor,
    followers: Followers,
) -> tuple[list[Tensor], list[Tensor], Folded | None, Folded | None]:
    """h and y of all branches, and the norms folded behind them."""
    if not plan.branches:
        return [], [], None, None
    num = plan.num_doubled
    weights, second_weights = plan.weights(x, parameters)
    dilations, offsets, rows, stride = plan.first_taps
    outputs, *moments = backend.separable(
        [x], None, None, weights.taps, dilations, offsets, weights.pointwise, rows, stride, training
    )
    halves, outputs = outputs[:num], outputs[num:]
    pixels = (outputs or halves)[0][..., 0].numel()
    first = None
    if num:
        found = [part[:num] for part in moments]
        first = _fold(plan.firsts, found, None, training, pixels, followers)
        dilations, offsets, rows, stride = plan.second_taps
        second, *others = backend.separable(
            halves, first.factors, first.bias, second_weights.taps, dilations, offsets,
            second_weights.pointwise, rows, stride, training,
        )  # fmt: skip
        outputs = [*second, *outputs]
        moments = [torch.cat([a, b[num:]]) for a, b in zip(others, moments, strict=True)]
    folded = _fold(plan.branches, moments, scales, training, pixels, followers)
    return halves, outputs, first, folded


def _fold(
    branches: list[Branch],
    moments: list[Tensor],
    scales: Tensor | None,
    training: bool,
    pixels: int,
    followers: Followers,
) -> Folded:
    """The norms of branches, folded; in training mode their running statistics follow."""
    mean, var = moments if training else running_moments(branches)
    if training:
        spread = unbiased(var, pixels)
        for branch, m, v in zip(branches, mean.unbind(), spread.unbind(), strict=True):
            followers.add(branch.norm, m, v, None if branch.whole else branch.rows)
    return fold(mean, var, affine_of(branches), scales)


def _nhwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _goes_deeper(ctx: Any) -> bool:
    """Whether gradients go beyond the mixture: to the state or to a convolution."""
    first = GIVEN + ctx.plan.slots
    return ctx.needs_input_grad[GIVEN - 2] or any(ctx.needs_input_grad[first:])


def _keep(ctx: Any, **groups: Sequence[Tensor | None]) -> None:
    """Saves groups of tensors for the backward pass, under their names."""
    ctx.kept = {name: len(group) for name, group in groups.items()}
    ctx.save_for_backward(*[tensor for group in groups.values() for tensor in group])
