"""The contract of folded norms, over all backends: the plain formula and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from image_kernels import needs_library
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sgas_cnn.kernels import torch_norms
from sgas_cnn.kernels.protocol import Fold, Follow, Unfold

EPS = 1e-5
PIXELS, CHANNELS, SLOTS = 30, 5, 2
ROW_OF = [1, 0, -1, 1]  # one row has no norm, two share theirs
PLACES = [2, -1, 0, -2]  # one counts once, one not at all
SLOT_OF = [0, 1, 1, 0]


def images_and_affine(affine: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What the norms read `[2, P, C]`, the weights, γ and β."""
    torch.manual_seed(0)
    images = torch.randn(2, PIXELS, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, dtype=torch.float64, requires_grad=True)
    if not affine:
        return images, weights, None, None
    gamma, beta = torch.randn(2, len(ROW_OF), CHANNELS, dtype=torch.float64).unbind()
    return images, weights, gamma.requires_grad_(), beta.requires_grad_()


def plain(
    images: Tensor, bare: Tensor, weights: Tensor, gamma: Tensor | None, beta: Tensor | None
) -> list[Tensor]:
    """The outputs of the slots: rows normed, times γ, plus β, times their weights."""
    outs = [torch.zeros(PIXELS, CHANNELS, dtype=torch.float64) for _ in range(SLOTS)]
    for i, (row, place, slot) in enumerate(zip(ROW_OF, PLACES, SLOT_OF, strict=True)):
        y = images[row] if row >= 0 else bare
        if row >= 0:
            y = (y - y.mean(0)) / (y.var(0, correction=0) + EPS).sqrt()
        y = y if gamma is None or beta is None else gamma[i] * y + beta[i]
        weight = {-1: 1.0, -2: 0.0}.get(place, weights[max(place, 0)])
        outs[slot] = outs[slot] + weight * y
    return outs


@pytest.mark.parametrize("affine", [False, True])
def test_folded_norms_equal_the_plain_formula_and_its_gradients(backend: Any, affine: bool) -> None:
    images, weights, gamma, beta = images_and_affine(affine)
    bare = torch.randn(PIXELS, CHANNELS, dtype=torch.float64, requires_grad=True)
    outs = plain(images, bare, weights, gamma, beta)
    gradients = [torch.randn_like(out) for out in outs]
    leaves = [x for x in (images, bare, weights, gamma, beta) if x is not None]
    wanted = torch.autograd.grad(outs, leaves, gradients)
    with torch.no_grad():
        mean, var = images.mean(1), images.var(1, correction=0)
        factors, bias, centres, inverse = backend.fold(
            Fold(mean, var, ROW_OF, gamma, beta, weights, PLACES, SLOT_OF, SLOTS, EPS)
        )
        read = [images[row] if row >= 0 else bare for row in ROW_OF]
        for slot, out in enumerate(outs):
            ours = bias[slot] + sum(
                f * y for f, y, s in zip(factors, read, SLOT_OF, strict=True) if s == slot
            )
            torch.testing.assert_close(ours, out)
        given = [gradients[slot] for slot in SLOT_OF]
        crossed = torch.stack(
            [(g * (y - m)).sum(0) for g, y, m in zip(given, read, centres, strict=True)]
        )
        sums = torch.stack([g.sum(0) for g in gradients])
        to_weights, to_gamma, to_beta, slopes, constants = backend.unfold(
            Unfold(
                factors, centres, inverse, ROW_OF, gamma, beta, weights, PLACES, SLOT_OF, crossed,
                sums, PIXELS,
            )
        )  # fmt: skip
        to_images, to_bare = torch.zeros_like(images), torch.zeros_like(bare)
        for i, row in enumerate(ROW_OF):
            to_row = factors[i] * given[i] + slopes[i] * read[i] + constants[i]
            (to_images[row] if row >= 0 else to_bare).add_(to_row)
        found = [to_images, to_bare, to_weights, *([to_gamma, to_beta] if affine else [])]
        for ours, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, exact)


def test_running_moments_correct_nothing(backend: Any) -> None:
    mean, var = torch.randn(2, CHANNELS), torch.rand(2, CHANNELS)
    rest = None, None, None, [-1, -1, -1, -2], SLOT_OF
    factors, _, centres, inverse = backend.fold(Fold(mean, var, ROW_OF, *rest, SLOTS, EPS))
    sums = torch.randn(SLOTS, CHANNELS)
    to_weights, *_, slopes, constants = backend.unfold(
        Unfold(factors, centres, inverse, ROW_OF, *rest, torch.randn(4, CHANNELS), sums, 0)
    )
    assert not slopes.any() and not constants.any() and not to_weights.numel()


def test_a_trace_and_inference_leave_nothing_behind() -> None:
    numbers = (3, 1, 4)  # of no other test
    with FakeTensorMode():
        torch_norms._index(numbers, torch.device("cpu"))
    with torch.inference_mode():
        torch_norms._index(numbers, torch.device("cpu"))
    rows = torch.randn(5, 2, requires_grad=True)
    rows[torch_norms._index(numbers, torch.device("cpu"))].sum().backward()
    assert rows.grad is not None and rows.grad.sum() == 6


def test_running_moments_follow_on_their_channels_alone(backend: Any) -> None:
    means, variances = torch.randn(2, CHANNELS), torch.rand(2, CHANNELS)
    before = [torch.randn(CHANNELS) for _ in range(3)], [torch.rand(CHANNELS) for _ in range(3)]
    running = [[x.clone() for x in part] for part in before]
    rows, first, last = [1, 0, 1], [0, 2, 0], [CHANNELS, 4, 1]
    backend.follow(Follow(*running, means, variances, rows, first, last, 1.5, 0.1))
    for part, old, found in zip(running, before, (means, 1.5 * variances), strict=True):
        for ours, was, row, a, b in zip(part, old, rows, first, last, strict=True):
            wanted = was.clone()
            wanted[a:b] = 0.9 * was[a:b] + 0.1 * found[row, a:b]
            torch.testing.assert_close(ours, wanted)
    backend.follow(Follow([], [], means, variances, [], [], [], 1.5, 0.1))


@pytest.mark.compiled
def test_rows_and_places_beyond_the_last_are_refused() -> None:
    needs_library()
    moments, rest = (torch.ones(2, CHANNELS), torch.ones(2, CHANNELS)), (None, None, torch.ones(3))
    with pytest.raises(RuntimeError, match="a row is 2 of 2"):
        torch.ops.sgas_cnn.fold(*moments, [2, 0, 0, 0], *rest, PLACES, SLOT_OF, SLOTS, EPS)
    with pytest.raises(RuntimeError, match="a place is 7 of 3"):
        torch.ops.sgas_cnn.fold(*moments, ROW_OF, *rest, [7, 0, 0, 0], SLOT_OF, SLOTS, EPS)
