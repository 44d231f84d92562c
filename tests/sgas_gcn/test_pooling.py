"""The pooled layer against linear, leaky ReLU, batch norm and pooling one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sgas_gcn.cells import LinearNorm
from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.pooling import pool_layer

CLOUDS = 3


def plain(layer: LinearNorm, norm: nn.BatchNorm1d, x: Tensor, slope: float) -> Tensor:
    h = norm(F.leaky_relu(layer.lin(x), slope)).view(CLOUDS, -1, norm.num_features)
    first = h.argmax(1, keepdim=True)
    return torch.cat([h.gather(1, first).squeeze(1), h.mean(1)], dim=1)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("points", "inputs", "channels"),
    [(1, 5, 3), (40, 5, 17), (33, 5, 300), (33, 70, 300), (400, 70, 300)],  # the last two: large
)
@pytest.mark.parametrize("slope", [0.2, 0.0])
def test_equals_the_plain_formula(
    slope: float, points: int, inputs: int, channels: int, training: bool
) -> None:
    torch.manual_seed(channels)
    layer = LinearNorm(inputs, channels, slope).double().train(training)
    norm = nn.BatchNorm1d(channels).double().train(training)
    for values in layer.norm.parameters():
        values.data.normal_()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    norm.load_state_dict(layer.norm.state_dict(), strict=False)
    x = torch.randn(CLOUDS * points, inputs, dtype=torch.float64, requires_grad=True)
    parts = [x[:, :1], x[:, 1:4], x[:, 4:].detach(), x[:, 4:][:, :0]]
    ours, wanted = pool_layer(layer, parts, CLOUDS, slope), plain(layer, norm, x, slope)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(wanted)
    given = [x, layer.lin.weight]
    found = torch.autograd.grad(ours, [*given, *layer.norm.parameters()], grad)
    expected = torch.autograd.grad(wanted, [*given, *norm.parameters()], grad)
    found[0][:, 4:] = expected[0][:, 4:]  # of the part that has none
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.norm.running_mean, norm.running_mean)
    torch.testing.assert_close(layer.norm.running_var, norm.running_var)


@pytest.mark.usefixtures("kernels")
def test_float32_stays_float32_and_a_nan_is_seen() -> None:
    layer = LinearNorm(4, 20, 0.0)
    x = torch.randn(6, 4)
    x[2, 1] = float("nan")
    out = pool_layer(layer, [x], 2, 0.0)
    assert out.dtype == torch.float32 and out.shape == (2, 40) and out.isnan().all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kernels", ["cpu"], indirect=True)  # auto is not cpu everywhere
@pytest.mark.parametrize("of_first", [True, False])
def test_the_pooled_layer_counts_the_gradients_that_are_wanted(of_first: bool) -> None:
    operators()  # with their formulas, which a counter reads when it is made
    parts = [torch.randn(64, width).requires_grad_(width > 4 or of_first) for width in (4, 12)]
    layer = LinearNorm(16, 32, 0.2).train()
    with FlopCounterMode(display=False) as counter:
        pool_layer(layer, parts, 2, 0.2).sum().backward()
    wanted = 16 if of_first else 12
    assert counter.get_total_flops() == 2 * 64 * 32 * (16 + wanted + 16)
