"""Fused optimisers give what the plain ones give, however gradients lie in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import PLACE, SPACES
from torch import Tensor, nn
from torch.autograd import Function

from sgas.config import SearchConfig, TrainConfig
from sgas.running.optimizers import AlphaOptimizer, make_optimizer, whole_steps

STEPS = 3
LAYOUTS = {"channels last": torch.channels_last, "in order": torch.contiguous_format}


class _WithGradientOfLayout(Function):
    """Σ weight · by, whose gradient has the layout of `by`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, by: Tensor) -> Tensor:
        ctx.by = by
        return (weight * by).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.by * grad, None


def plain_sgd(weight: Tensor, gradients: list[Tensor], config: TrainConfig) -> Tensor:
    """SGD with momentum as the formula says: b = m b + g + d w, w = w - r b."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = config.momentum * buffer + gradient + config.weight_decay * weight
        weight = weight - config.learning_rate * buffer
    return weight


def plain_adam(
    weight: Tensor, gradients: list[Tensor], rate: float, betas: tuple[float, float], decay: float
) -> Tensor:
    """Adam as the formula says, with weight decay in the gradient."""
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for number, gradient in enumerate(gradients, 1):
        gradient = gradient + decay * weight
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient.square()
        deviation = (square / (1 - betas[1] ** number)).sqrt() + 1e-8
        weight = weight - rate / (1 - betas[0] ** number) * mean / deviation
    return weight


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_gradient_may_lie_otherwise_than_its_weight(
    optimizer: str, of_gradient: str, of_weight: str
) -> None:
    torch.manual_seed(0)
    config = TrainConfig(optimizer=optimizer)
    start = torch.randn(4, 6, 3, 5)
    weight = nn.Parameter(start.to(memory_format=LAYOUTS[of_weight], copy=True))
    gradients = [torch.randn(4, 6, 3, 5) for _ in range(STEPS)]
    made = make_optimizer(config, nn.ParameterList([weight]))
    assert made.param_groups[0]["fused"] is True
    for gradient in gradients:
        laid = gradient.to(memory_format=LAYOUTS[of_gradient], copy=True)
        assert of_gradient == "in order" or not laid.is_contiguous()
        _WithGradientOfLayout.apply(weight, laid).backward()
        made.step()
        made.zero_grad()
    if optimizer == "sgd":
        wanted = plain_sgd(start, gradients, config)
    else:
        rate, decay = config.learning_rate, config.weight_decay
        wanted = plain_adam(start, gradients, rate, (0.9, 0.999), decay)
    torch.testing.assert_close(weight.detach(), wanted, check_stride=False)


DECAYS = {"weight_decay": 0.1, "operation_decay": 0.2, "head_decay": 0.3, "norm_decay": 0.4}


@pytest.mark.parametrize("config", [SearchConfig, TrainConfig])
@pytest.mark.parametrize("name", SPACES)
def test_operations_head_and_vectors_decay_as_they_are_told(name: str, config: Any) -> None:
    small = SPACES[name]
    net = small.supernet() if config is SearchConfig else small.network()
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    make_optimizer(config(learning_rate=0.5, momentum=0.0, **DECAYS), net).step()
    heads = 0
    for name, weight in net.named_parameters():
        decay = DECAYS["weight_decay"]
        if name.startswith("alphas."):
            decay = 0.0
        elif weight.dim() < 2:
            decay = DECAYS["norm_decay"]
        elif PLACE.search(name):
            decay = DECAYS["operation_decay"]
        elif len(weight) == net(small.batch()).shape[1]:
            decay, heads = DECAYS["head_decay"], heads + 1
        torch.testing.assert_close(weight.detach(), before[name] * (1 - 0.5 * decay), msg=name)
    assert heads == 1


def test_weights_of_one_decay_are_one_group_in_their_order() -> None:
    net = SPACES["toy"].supernet()
    (group,) = make_optimizer(SearchConfig(), net).param_groups
    assert list(map(id, group["params"])) == list(map(id, net.weights()))


def test_gradients_of_alphas_may_lie_by_columns() -> None:
    torch.manual_seed(1)
    config = SearchConfig()
    start = torch.randn(5, 7)
    alpha = nn.Parameter(start.clone())
    optimizer = AlphaOptimizer({"normal": alpha}, config)
    assert optimizer.adam.param_groups[0]["fused"] is True
    gradients = [torch.randn(5, 7) for _ in range(STEPS)]
    for gradient in gradients:
        by_columns = gradient.t().contiguous().t()
        assert not by_columns.is_contiguous()
        optimizer.step((by_columns,))
    betas, decay = (0.5, 0.999), config.alpha_weight_decay
    wanted = plain_adam(start, gradients, config.alpha_learning_rate, betas, decay)
    torch.testing.assert_close(alpha.detach(), wanted)


def test_where_torch_has_no_fused_optimiser_there_is_none() -> None:
    assert whole_steps(torch.device("mps")) == {"foreach": True}
    assert whole_steps(torch.device("cuda")) == whole_steps(torch.device("cpu"))
