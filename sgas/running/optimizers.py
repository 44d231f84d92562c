"""Optimisers of weights and of alphas, and what a run has to keep of them.

Dimensions: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgas.cells.decisions import CellDecisions
from sgas.cells.edges import PLACE
from sgas.config import SearchConfig, TrainConfig
from sgas.deciding.replay import open_edges

OWN = ("lr", "capturable", "foreach", "fused")  # settings of an optimiser that no checkpoint has


def make_optimizer(
    config: SearchConfig | TrainConfig, network: Any, recorded: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of all weights but the alphas; their decay is added to the gradient."""
    groups = decay_groups(config, network)
    device = next(network.parameters()).device
    rate, how = rate_on(device, config.learning_rate, recorded), whole_steps(device)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, capturable=recorded, **how)
    return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, **how)


def decay_groups(config: SearchConfig | TrainConfig, network: Any) -> list[dict[str, Any]]:
    """The weights of a network or supernet in groups of one decay each, for an optimiser.

    Groups of their own have matrices on edges, matrices of the logits' layer, and vectors (scales,
    shifts and biases), whatever is left in them, so that those of a checkpoint fit. One group where
    all have the same decay.
    """
    named = [(n, p) for n, p in network.named_parameters() if not n.startswith("alphas.")]
    own = config.operation_decay, config.head_decay, config.norm_decay
    operations, head, norms = (config.weight_decay if decay is None else decay for decay in own)
    if own == (None, None, None):
        return [{"params": [p for _, p in named], "weight_decay": config.weight_decay}]
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay}
        for decay in (config.weight_decay, operations, head, norms)
    ]
    of_head = f"{head_of(dict(network.named_modules()))}."
    for name, weight in named:
        is_matrix, on_edge = weight.dim() > 1, PLACE.search(name) is not None
        number = 3 if not is_matrix else 1 if on_edge else 2 if name.startswith(of_head) else 0
        groups[number]["params"].append(weight)
    return groups


def head_of(modules: Mapping[str, nn.Module]) -> str:
    """The name of the layer of the logits: one that says so, or else the last linear one."""
    said = [name for name, module in modules.items() if getattr(module, "is_head", False)]
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    return said[0] if said else [n for n in linear if not n.startswith("auxiliary.")][-1]


def weights_in(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that an optimiser changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class AlphaOptimizer:
    """Adam on the alphas of open edges; those of other edges stand still.

    Weight decay is added to the gradient of open edges here (as Adam itself does for all): a
    decided edge then has gradient and moments of exactly zero, and does not move.
    """

    def __init__(
        self, alphas: Mapping[str, nn.Parameter], config: SearchConfig, capturable: bool = False
    ) -> None:
        self.alphas, self.weight_decay = dict(alphas), config.alpha_weight_decay
        self.adam = torch.optim.Adam(
            self.alphas.values(),
            lr=config.alpha_learning_rate,
            betas=(0.5, 0.999),
            capturable=capturable,
            **whole_steps(next(iter(self.alphas.values())).device),
        )
        self.closed = {
            kind: torch.zeros_like(alpha[:, :1], dtype=torch.bool)
            for kind, alpha in self.alphas.items()
        }

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        """One update by the gradients `[E, O]` of all kinds, in order."""
        for (kind, alpha), gradient in zip(self.alphas.items(), gradients, strict=True):
            gradient = gradient.contiguous()  # as the alphas lie: see `whole_steps`
            decayed = gradient + self.weight_decay * alpha
            alpha.grad = decayed.masked_fill(self.closed[kind], 0.0)
        self.adam.step()
        self.adam.zero_grad()

    def close(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Forgets the moments of edges that are decided or pruned."""
        for kind, alpha in self.alphas.items():
            self.closed[kind] = open_edges(decisions[kind]).to(alpha) == 0
            for name in ("exp_avg", "exp_avg_sq"):
                if name in self.adam.state[alpha]:
                    self.adam.state[alpha][name].masked_fill_(self.closed[kind], 0.0)


def add_zero_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives every parameter of an SGD the momentum of zero that it would begin with.

    A fused step takes no parameters of which some had a gradient before and others did not.
    """
    for parameter in weights_in(optimizer):
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def keep_only(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Takes all but `parameters` out of an optimiser, with their state; the rest keeps its own."""
    kept = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in kept:
                optimizer.state.pop(parameter, None)
        group["params"] = [p for p in group["params"] if id(p) in kept]


def whole_steps(device: torch.device) -> dict[str, Any]:
    """The option by which torch's SGD and Adam update all parameters in one pass over them.

    A fused step on the CPU goes through memory in order, whatever the strides say (torch 2.13):
    a gradient has to lie as its parameter does. Those of `backward()` do; others, such as those of
    `torch.autograd.grad`, have to be laid so.
    """
    return {"fused": True} if device.type in ("cpu", "cuda") else {"foreach": True}


def rate_on(device: torch.device, learning_rate: float, recorded: bool) -> float | Tensor:
    """A learning rate as optimisers take it: on a GPU, and where steps are recorded, a tensor.

    A recorded step reads it anew each time. On a GPU fused optimisers read float32; so that a step
    that is not recorded has the same rate to the last bit, it is a tensor for both.
    """
    if device.type == "cuda":
        return torch.tensor(learning_rate, dtype=torch.float32, device=device)
    return torch.tensor(learning_rate, dtype=torch.float64) if recorded else learning_rate


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all parameter groups; in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Gives an optimiser back its state, but for how it runs here and the learning rate.

    The run may have begun on another device, or before steps were recorded; an epoch sets its rate.
    """
    own = [{name: g[name] for name in OWN if name in g} for g in optimizer.param_groups]
    groups = [{**saved, **kept} for saved, kept in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = kept["lr"]  # the very tensor, of which loading makes a copy
