"""Batch norm inside fused functions: y = ReLU(h), then γ (y − μ) / σ + β, for m edges side by side.

With G the gradient of w · norm(y) (w the weight of the edge), r = 1/σ, k = γ r, and sums over n
rows: c = Σ G y − μ Σ G gives the gradients w r c of γ, w Σ G of β and Σ (k c + β Σ G) of w; that of
y is w k (G − ΣG/n − (y − μ) r² c/n), and of h the same where y > 0. In evaluation mode μ and σ are
constants and the last two terms of it are gone.
Dimensions: N rows, D = m·C columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgas_gcn.constants import EPS
from sgas_gcn.fused.call import Aggregate, Call, Kept
from sgas_gcn.kernels.protocol import Normed, Norms, Term

NORM = ("norm.weight", "norm.bias")


def norms_of(call: Call) -> Norms:
    """The norms of a call."""
    norms = [module.norm for module in call.modules]
    return Norms(
        call.weights["norm.weight"],
        call.weights["norm.bias"],
        [norm.running_mean for norm in norms],
        [norm.running_var for norm in norms],
        call.state.training,
        norms[0].momentum,
        EPS,
    )


def linear_norm(
    call: Call, name: str, sources: Sequence[type[Aggregate] | None] = (None,)
) -> tuple[Tensor, Tensor, Tensor]:
    """y = R(W a), the coefficients of its norm, and W, the stacked parameters `name`.

    The `sources` are what stands side by side in a: aggregations of the state, or (None) itself.
    """
    weight = call.stacked(name)
    inputs = [call.state.read(source) for source in sources]
    y, coefs = call.state.backend.linear_norm(inputs, weight, None, 0.0, norms_of(call))
    return y, coefs, weight


def linear_norm_term(
    call: Call, name: str, sources: Sequence[type[Aggregate] | None] = (None,)
) -> tuple[Term, Kept]:
    """The term norm(y), and what `linear_norm_backward` needs of it."""
    y, coefs, weight = linear_norm(call, name, sources)
    return Term(y, coefs), (y, coefs, weight if call.state.full else None)


def linear_norm_backward(
    call: Call,
    name: str,
    grad: Tensor,
    kept: Kept,
    sources: Sequence[type[Aggregate] | None] = (None,),
) -> None:
    """Backward of scale · norm(y) of `linear_norm`; `kept` are y, coefficients and W.

    Leaves the gradients of W, γ, β and the scale, and adds those of the sources where they are
    needed. Without W it is the scale's alone that is wanted.
    """
    y, coefs, weight = kept
    assert y is not None and coefs is not None
    state = call.state
    normed = Normed(y, coefs, call.scale, call.num_edges, state.training, 0.0)
    if weight is None:
        _, call.grad_scale = state.backend.relu_norm_backward(grad, normed, None)
        return
    inputs = [state.read(source) for source in sources]
    buffers = [state.grad_buffer(source) for source in sources] if state.needs_x else []
    affine, call.grad_scale, of_weight, _ = state.backend.linear_norm_backward(
        grad, normed, inputs, weight, buffers, state.needs_weights, False
    )
    if state.needs_weights:
        call.gradients[name] = of_weight
        call.gradients["norm.weight"], call.gradients["norm.bias"] = affine


def relu_norm(call: Call, h: Tensor) -> Tensor:
    """ReLU of `h` `[N, D]` in place, and the coefficients of its norm."""
    return call.state.backend.relu_norm_(h, 0.0, norms_of(call))


def relu_norm_backward(
    call: Call, grad: Tensor, y: Tensor, coefs: Tensor, scale: Tensor | None, of_scale: bool = True
) -> Tensor | None:
    """The gradient of h, from that of scale · norm(y); None where only the scale's is wanted.

    Leaves the gradients of γ, β and, if `of_scale`, of the scale.
    """
    state = call.state
    out = torch.empty_like(y, memory_format=torch.contiguous_format) if state.full else None
    normed = Normed(y, coefs, scale, call.num_edges, state.training, 0.0)
    affine, grad_scale = state.backend.relu_norm_backward(grad, normed, out)
    if of_scale:
        call.grad_scale = grad_scale
    if state.needs_weights:
        call.gradients["norm.weight"], call.gradients["norm.bias"] = affine
    return out
