"""Sums over neighbours times the weights of edges, where a graph has some.

Compiled kernels add up without weights; with them torch's own kernel does, on all devices.
Dimensions: N nodes, C channels.
"""

from __future__ import annotations

from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels import torch_csr
from sgas_gcn.kernels.backend import backend_of


def weighted_sum(x: Tensor, graph: CsrGraph) -> Tensor:
    """Σ over the edges j→i of w x_j, `[N, C]`, w the weight of the edge (without: 1)."""
    if graph.weights is None:
        return backend_of(x).neighbor_sum(x, graph)
    return torch_csr.weighted_sum(x, graph.weights, graph)


def weighted_sum_backward(grad: Tensor, graph: CsrGraph) -> Tensor:
    """The gradient of x."""
    if graph.weights is None:
        return backend_of(grad).neighbor_sum_backward(grad, graph)
    return torch_csr.weighted_sum_backward(grad, graph.weights, graph)
