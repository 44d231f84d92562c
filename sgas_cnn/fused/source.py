"""All operations on all edges that leave one state, as one autograd function.

    out_e = before_e + Σ_b (M_b F_b + bias_b) + Σ_q coefficient_eq Q_q

F_b are the depthwise convolutions that end in a pointwise one and its norm, Q_q the state and its
poolings. `norms` gives M_b and bias_b from the moments of F_b, so that pointwise convolution, norm
and mixture are one product. For separable convolutions F = taps * R(M₁ S + bias₁) with
S = taps₁ * R(x), and M₁ folded likewise.

Backward, with g_e the gradient of slot e: Σ g_e (F_b − m)', Σ g_e Q and Σ g_e give the gradients of
weights, norms and alphas and the coefficients by which F_b joins its own gradient; then
dF = M' g + S F + c is made image by image where it is convolved back, first to S, then to x.

Kept for it: x, S, F and the poolings. What lies between is made again, an image at a time.
Dimensions: N images, H × W pixels, C channels, E edges of the cell, O candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgas.precision import without_autocast
from sgas_cnn.fused.backward import SourceBackward
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.norms import Folded, fold
from sgas_cnn.fused.parts import Branch
from sgas_cnn.fused.plan import SourcePlan, affine_of, running_moments, square_weights
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
    @without_autocast
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
        taps = rest[plan.slots :][: plan.num_taps]
        halves, planes, first, folded = _branches(
            plan, backend, x, training, taps, scales[tables.branches], followers
        )
        images, mean, inverse = linear_images(plan, backend, x, training, followers)
        followers.update()
        linear_scales = scales[tables.linear].view(plan.slots, len(plan.forms))
        coefficients = linear_scales.unsqueeze(-1) * inverse
        bias = -(coefficients * mean).sum(1)
        matrices: list[Tensor] = []
        if folded is not None:
            bias = bias.index_add(0, tables.slots, folded.bias)
            matrices = [
                m if b.whole else m[b.rows]
                for b, m in zip(plan.branches, folded.matrices.unbind(), strict=True)
            ]
        started = [slot for slot in range(plan.slots) if rest[slot] is not None]
        reads = [planes[i] for i in plan.plane_of]
        outs = backend.mixture(
            [rest[slot] for slot in started],
            started,
            reads,
            plan.slot_of,
            matrices,
            [branch.first_row for branch in plan.branches],
            images,
            coefficients,
            bias,
        )
        ctx.plan, ctx.training, ctx.scales_size = plan, training, len(scales)
        _keep(
            ctx,
            x=[x],
            halves=halves if _goes_deeper(ctx) else [],
            planes=planes,
            images=[image for image in images if image is not x],
            linear=[mean, inverse, linear_scales],
            first=[] if first is None else first,
            folded=[] if folded is None else folded,
            taps=taps,
        )
        return tuple(outs)

    @staticmethod
    @once_differentiable
    @without_autocast
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
    taps: Sequence[Any],
    scales: Tensor,
    followers: Followers,
) -> tuple[list[Tensor], list[Tensor], Folded | None, Folded | None]:
    """S and F of all branches, and the norms folded behind them."""
    if not plan.branches:
        return [], [], None, None
    num = plan.num_doubled
    weights = plan.weights_of_taps(x, taps)
    planes, *moments = backend.depthwise(
        [x], None, None, weights, plan.dilations, plan.offsets, plan.stride, training
    )
    halves, final = planes[:num], planes[num:]
    pixels = planes[0][..., 0].numel()
    first = None
    if num:
        parts = [part[:num] for part in moments]
        first = _fold(plan.firsts, parts, None, training, pixels, followers)
        second, *others = backend.depthwise(
            halves, first.matrices, first.bias, taps[len(taps) - num :], [1] * num, [0] * num, 1,
            training,
        )  # fmt: skip
        final = [*second, *final]
        moments = [
            torch.cat([a, b[num:]]) if training else a for a, b in zip(others, moments, strict=True)
        ]
    if plan.planes_shared and training:
        moments = [part[plan.tables(x.device).planes] for part in moments]
    folded = _fold(plan.branches, moments, scales, training, pixels, followers)
    return halves, final, first, folded


def _fold(
    branches: list[Branch],
    moments: list[Tensor],
    scales: Tensor | None,
    training: bool,
    pixels: int,
    followers: Followers,
) -> Folded:
    """The norms of branches, folded; in training mode their running statistics follow."""
    folded = fold(
        square_weights(branches),
        (moments[0], moments[1]) if training else None,
        None if training else running_moments(branches),
        affine_of(branches),
        scales,
    )
    if training:
        spread = unbiased(folded.var, pixels)
        for branch, mean, var in zip(branches, folded.mean.unbind(), spread.unbind(), strict=True):
            followers.add(branch.norm, mean, var, None if branch.whole else branch.rows)
    return folded


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
