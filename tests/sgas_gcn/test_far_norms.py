"""Norms of features whose mean is large beside their deviation: as good as torch's own."""

from __future__ import annotations

import pytest
import torch
from neighbor_primitives import primitives
from torch import Tensor, nn
from triton_runs import INTERPRETED

from sgas.native.backend import use_kernels
from sgas_gcn.cells import LinearNorm
from sgas_gcn.csr import CsrGraph
from sgas_gcn.pooling import pool_layer

ROWS, COLUMNS = 2000, 8
INTERPRETED_ROWS = 40  # Triton's interpreter takes a thousand times longer over an edge
BACKENDS = ["torch", "cpu", "cuda"]
RATIOS = [1.0, 1e3, 1e4, 1e5]  # mean over deviation
TIMES = 10  # the error of torch's own norm
ROUNDING = 1e-6


@pytest.fixture(params=BACKENDS, autouse=True)
def kernels(request: pytest.FixtureRequest) -> str:
    """The kernels in force; skips those that do not run here."""
    if request.param == "cuda" and not INTERPRETED:
        pytest.skip("Triton does not interpret here")
    use_kernels(request.param)
    return str(request.param)


def far_features(ratio: float, rows: int = ROWS) -> Tensor:
    """Float32 `[N, D]` with deviations of 1 and means of about `ratio`."""
    generator = torch.Generator().manual_seed(0)
    means = ratio * (1 + torch.rand(COLUMNS, generator=generator))
    return torch.randn(rows, COLUMNS, generator=generator) + means


def worst(result: Tensor, truth: Tensor) -> float:
    return float((result.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-30))


def run(layer: nn.Module, norm: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics, by the norm of a layer."""
    own = x.clone().requires_grad_()
    out = layer(own)
    out.backward(grad.to(x.dtype))
    assert own.grad is not None and norm.weight.grad is not None
    found = {"out": out.detach(), "grad": own.grad, "weight": norm.weight.grad}
    layer.eval()
    with torch.no_grad():
        return {**found, "mean": norm.running_mean, "var": norm.running_var, "eval": layer(x)}


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_layer_s_norm_is_as_good_as_torch_s(ratio: float) -> None:
    x = far_features(ratio)
    grad = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    exact, plain = nn.BatchNorm1d(COLUMNS).double(), nn.BatchNorm1d(COLUMNS)
    layer = LinearNorm(COLUMNS, COLUMNS)
    nn.init.eye_(layer.lin.weight)
    truth, torch_s = run(exact, exact, x.double(), grad), run(plain, plain, x, grad)
    ours = run(layer, layer.norm, x, grad)
    for name, value in truth.items():
        error, allowed = worst(ours[name], value), worst(torch_s[name], value)
        assert error <= TIMES * allowed + ROUNDING, f"{name}: {error}, torch {allowed}"


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("degree", [5, 9])
def test_moments_over_edges_keep_their_digits(ratio: float, degree: int, kernels: str) -> None:
    rows = INTERPRETED_ROWS if kernels == "cuda" else ROWS
    x = far_features(ratio, rows)
    sources = torch.randint(rows, (rows * degree,), generator=torch.Generator().manual_seed(2))
    targets = torch.arange(rows).repeat_interleave(degree)
    graph = CsrGraph.from_edges(torch.stack([sources, targets]), rows)
    _, total, squares = primitives(graph, sign=torch.ones(COLUMNS))["stats"](x, x)
    h = (x[targets] + x[sources]).double().relu()  # rounded as the kernels round it
    edges = len(h)
    mean, var = total / edges, squares / edges - (total / edges) ** 2
    torch.testing.assert_close(mean, h.mean(0), rtol=1e-9 + 1e-9 * ratio / 1e5, atol=1e-6)
    torch.testing.assert_close(var, h.var(0, correction=0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e4])
def test_pooled_norms_move_true_statistics(ratio: float) -> None:
    x = far_features(ratio)
    layer = LinearNorm(COLUMNS, COLUMNS)
    nn.init.eye_(layer.lin.weight)
    pool_layer(layer, [x], 4, 1.0)
    moved = 0.1 * x.double().var(0) + 0.9
    torch.testing.assert_close(layer.norm.running_var.double(), moved, rtol=1e-3, atol=0)
