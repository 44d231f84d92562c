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
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgas.native.precision import without_autocast
from sgas_cnn.fused.backward import Kept, SourceBackward
from sgas_cnn.fused.inference import sum_source
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.plan import SourcePlan, affine_of
from sgas_cnn.kernels.backend import backend_of
from sgas_cnn.kernels.protocol import Backend, Mixture, Separable

LEADING = 4  # arguments of the function before what was there, and the parameters

Moments = tuple[Tensor, Tensor]


def forward_source(
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
    starts = [None if b is None else _nhwc(b) for b in before]
    if not (training or torch.is_grad_enabled()):
        outs = sum_source(plan, _nhwc(x), flat, *starts)
    else:
        outs = _Source.apply(plan, training, _nhwc(x), flat, *starts, *plan.parameters())
    return [out.permute(0, 3, 1, 2) for out in outs]


class _Source(torch.autograd.Function):
    """out_e = before_e + Σ_b (s_b y_b + bias_b) + Σ_q (s_eq Q_q + bias_eq), as above.

    Images are `[N, H, W, C]`. `rest` is what was before in each slot, and the plan's parameters.
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
        backend, before, parameters = backend_of(x), rest[: plan.slots], rest[plan.slots :]
        running = None if training else plan.running_moments(x)
        convolved = _convolved(plan, backend, x, running, parameters)
        images, pooled = linear_images(plan, backend, x, training)
        moments = running or _joined([*convolved.moments, *pooled], x)
        affine = plan.affine()
        factors, bias, centres, inverse = plan.fold(backend, *moments, affine, weights)
        of_branches, of_poolings = plan.split(factors)
        starts = {slot: image for slot, image in enumerate(before) if image is not None}
        outs = backend.mixture(
            Mixture(
                list(starts.values()), list(starts), convolved.outputs, plan.slot_of, of_branches,
                images, of_poolings, bias,
            )
        )  # fmt: skip
        if training:
            plan.follow(backend, *moments, outs[0][..., 0].numel())
        ctx.plan, ctx.training = plan, training
        kept = Kept(
            x=[x],
            halves=convolved.halves if _goes_deeper(ctx) else [],
            outputs=convolved.outputs,
            images=[image for image in images if image is not x],
            first=convolved.first,
            folded=[factors, centres, inverse, *affine],
            weights=parameters[: plan.num_taps + len(plan.convolutions)],
            scales=[weights],
        )
        ctx.counts = [len(group) for group in kept]
        ctx.save_for_backward(*[tensor for group in kept for tensor in group])
        return tuple(outs)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        kept = Kept(*[[next(saved) for _ in range(count)] for count in ctx.counts])
        wanted = ctx.needs_input_grad[LEADING - 2 :]
        return None, None, *SourceBackward(ctx.plan, ctx.training, kept, wanted).run(gradients)


class Convolved(NamedTuple):
    """h and y of all branches; the norms of h, folded: (s₁, bias₁, m, 1/σ, γ, β); the moments.

    The moments are those of h and y, none where the running ones are taken.
    """

    halves: list[Tensor]
    outputs: list[Tensor]
    first: list[Tensor | None]
    moments: list[Moments]


def _convolved(
    plan: SourcePlan,
    backend: Backend,
    x: Tensor,
    running: Moments | None,
    parameters: Sequence[Any],
) -> Convolved:
    """All convolutions of the state, and of what they give."""
    if not plan.branches:
        return Convolved([], [], [], [])
    num, by_batch = plan.num_doubled, running is None
    weights, second_weights = plan.weights(x, parameters)
    outputs, mean, var = backend.separable(
        Separable(plan.convolutions_of_state(x, weights), by_batch)
    )
    if not num:
        return Convolved([], outputs, [], [(mean, var)])
    halves, outputs = outputs[:num], outputs[num:]
    folded = plan.fold_firsts(backend, *(running or (mean, var)))
    second = plan.convolutions_of_firsts(halves, *folded[:2], second_weights)
    second_outputs, *of_second = backend.separable(Separable(second, by_batch))
    first = [*folded, *affine_of(plan.firsts, 0)]
    moments = [(mean, var), (of_second[0], of_second[1])]
    return Convolved(halves, [*second_outputs, *outputs], first, moments)


def _joined(moments: Sequence[Moments], x: Tensor) -> Moments:
    """The means and variances of all, one behind the other."""
    if not moments:
        nothing = x.new_empty(0, x.shape[-1])
        return nothing, nothing
    if len(moments) == 1:
        return moments[0]
    means, variances = zip(*moments, strict=True)
    return torch.cat(means), torch.cat(variances)


def _nhwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _goes_deeper(ctx: Any) -> bool:
    """Whether gradients go beyond the mixture: to the state or to a convolution."""
    first = LEADING + ctx.plan.slots
    return ctx.needs_input_grad[LEADING - 2] or any(ctx.needs_input_grad[first:])
