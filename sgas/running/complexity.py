"""Size and cost of a network: parameters, FLOPs, latency of one sample."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sgas.family import Network


def num_parameters(network: Network) -> int:
    """The number of trained values of a network as it is used: without an auxiliary head."""
    named = network.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith("auxiliary."))


@torch.no_grad()
def num_flops(network: Network, example: Any) -> int:
    """Floating-point operations of matrix products and convolutions for one sample.

    Counted by `torch.utils.flop_counter` in evaluation mode: 2 for each multiply-add.
    """
    network.eval()
    network(example)  # compiled kernels come with their formulas, which the counter reads once
    with FlopCounterMode(display=False) as counter:
        network(example)
    return int(counter.get_total_flops())


@torch.no_grad()
def latency(network: Network, example: Any, repeats: int = 7) -> float:
    """Median seconds of a forward pass of one sample in evaluation mode, after two to warm up."""
    network.eval()
    on_gpu = next(network.parameters()).is_cuda
    seconds = []
    for turn in range(repeats + 2):
        began = time.perf_counter()
        network(example)
        if on_gpu:
            torch.cuda.synchronize()
        if turn >= 2:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
