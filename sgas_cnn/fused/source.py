"""All operations on all edges that leave one state, as one autograd function.

    out_e = before_e + Σ_b (s_b y_b + bias_b) + Σ_q (s_eq Q_q + bias_eq)

y_b = W (taps * R(x)) are the convolutions of the state, Q_q the state and its poolings. `fold`
(kernels/torch_norms.py) gives s and bias from their moments: norm and mixture are one factor for
each channel. For separable convolutions y = W (taps * R(s₁ h + bias₁)) with h = W₁ (taps₁ * R(x)),
and s₁ likewise.

Backward, with g_e the gradient of slot e: Σ g_e (y_b − m), Σ g_e (Q − m) and Σ g_e give the
gradients of norms and alphas and the coefficients of dy = s g + S y + c. That is made again where
it is used, some rows of an image at a time, and goes on through W' and the taps, first to h, then
to x.

Kept for it: x, h, y and the poolings. taps * R(·) is made again where W wants a gradient.
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
from sgas_cnn.fused.inference import sum_source
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.parts import EPS
from sgas_cnn.fused.plan import SourcePlan, affine_of
from sgas_cnn.kernels import backend_of

GIVEN = 4  # arguments of the function before what was there, and the parameters

Moments = tuple[Tensor, Tensor]


def evaluate_source(
    plan: SourcePlan,
    x: Tensor,
    weights: Tensor | None,
    before: Sequence[Tensor | None],
    training: bool,
) -> list[Tensor]:
    """The outputs `[N, C, H/S, W/S]` of all slots, each plus what was there `before`.

    `x` is the state `[N, C, H, W]`, `weights` `[E, O]` those of the operations (None: all 1). In
    training mode the norms go by the batch, and their running statistics follow it. Without it and
    without gradients, inference.py does the work.
    """
    flat = None if weights is None else weights.flatten()
    given = [None if b is None else _nhwc(b) for b in before]
    if not (training or torch.is_grad_enabled()):
        outs = sum_source(plan, _nhwc(x), flat, *given)
        return [out.permute(0, 3, 1, 2) for out in outs]
    outs = _Source.apply(plan, training, _nhwc(x), flat, *given, *plan.parameters())
    return [out.permute(0, 3, 1, 2) for out in outs]


class _Source(torch.autograd.Function):
    """out_e = before_e + Σ_b (s_b y_b + bias_b) + Σ_q (s_eq Q_q + bias_eq), as above.

    Images are `[N, H, W, C]`.
    """

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
        backend, parameters = backend_of(x), rest[plan.slots :]
        running = None if training else plan.running_moments(x)
        halves, outputs, first, found = _convolved(plan, backend, x, running, parameters)
        images, pooled = linear_images(plan, backend, x, training)
        moments = running or _joined([*found, *pooled], x)
        affine = affine_of(plan.branches, plan.slots * len(plan.poolings))
        factors, bias, centres, inverse = backend.fold(
            *moments, plan.rows.row_of, *affine, weights, plan.rows.places, plan.rows.slot_of,
            plan.slots, EPS,
        )  # fmt: skip
        of_branches, of_poolings = plan.split(factors)
        started = [slot for slot in range(plan.slots) if rest[slot] is not None]
        outs = backend.mixture(
            [rest[slot] for slot in started], started, outputs, plan.slot_of,
            of_branches, images, of_poolings, bias,
        )  # fmt: skip
        if training:
            plan.follow(backend, *moments, outs[0][..., 0].numel())
        ctx.plan, ctx.training = plan, training
        _keep(
            ctx,
            x=[x],
            halves=halves if _goes_deeper(ctx) else [],
            outputs=outputs,
            images=[image for image in images if image is not x],
            first=first,
            folded=[factors, centres, inverse, *affine],
            weights=parameters[: plan.num_taps + len(plan.convolutions)],
            scales=[weights],
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
        return None, None, *step.run(gradients)


def _convolved(
    plan: SourcePlan, backend: Any, x: Tensor, running: Moments | None, parameters: Sequence[Any]
) -> tuple[list[Tensor], list[Tensor], list[Tensor | None], list[Moments]]:
    """h and y of all branches; the norms of h, folded; the moments of h and y, without `running`.

    The norms are (s₁, bias₁, m, 1/σ, γ, β).
    """
    if not plan.branches:
        return [], [], [], []
    num, by_batch = plan.num_doubled, running is None
    weights, second_weights = plan.weights(x, parameters)
    dilations, offsets, rows, stride = plan.first_taps
    outputs, *moments = backend.separable(
        [x], None, None, weights.taps, dilations, offsets, weights.pointwise, rows, stride, by_batch
    )
    if not num:
        return [], outputs, [], [tuple(moments)]
    halves, outputs = outputs[:num], outputs[num:]
    folded = plan.folded_firsts(backend, *(running or moments))
    affine = affine_of(plan.firsts, 0)
    dilations, offsets, rows, stride = plan.second_taps
    second, *others = backend.separable(
        halves, *folded[:2], second_weights.taps, dilations, offsets, second_weights.pointwise,
        rows, stride, by_batch,
    )  # fmt: skip
    return halves, [*second, *outputs], [*folded, *affine], [tuple(moments), tuple(others)]


def _joined(found: Sequence[Moments], x: Tensor) -> Moments:
    """The means and variances of all, one behind the other."""
    if not found:
        nothing = x.new_empty(0, x.shape[-1])
        return nothing, nothing
    means, variances = zip(*found, strict=True)
    return torch.cat(means), torch.cat(variances)


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
