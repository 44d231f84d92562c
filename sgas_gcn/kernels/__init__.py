"""Aggregation over neighbours: the primitives that all operations are made of.

Operations import from here and nowhere deeper, so that another implementation of a primitive
changes this folder alone. A graph says which nodes each node reads: `NeighborGraph` the same number
for every node (`sgas_gcn.neighbors`), `CsrGraph` any number (`sgas_gcn.csr`). A node without edges
gives 0. Dimensions: N nodes, D or m·C stacked channels (m edges of a cell, C channels each).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas_gcn.compiled import kernels_for
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels import cpu_backend, csr_backend, torch_backend
from sgas_gcn.kernels.autocast import InFloat32
from sgas_gcn.neighbors import NeighborGraph

Graph = NeighborGraph | CsrGraph

__all__ = ["Graph", "attention_sum", "edge_relu_stats", "neighbor_max", "neighbor_sum"]


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    return _backend(x, graph).neighbor_sum(x, graph)


def neighbor_max(x: Tensor, graph: Graph) -> Tensor:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    return _backend(x, graph).neighbor_max(x, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch norm over edges followed by a maximum needs of h = ReLU(target_i + source_j).

    Returns, for `target` and `source` `[N, D]` and `sign` `[D]` of 1 or -1: the largest h of each
    node where the sign is 1 and the smallest where it is -1, `[N, D]`; the sum of h and the sum of
    h² over all edges, float64 `[D]`.
    """
    return _backend(target, graph).edge_relu_stats(target, source, sign, graph)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> Tensor:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`.

    The weights are the softmax over the sources j of leaky ReLU(target_score_i + source_score_j),
    scores `[N, m]`.
    """
    return _backend(values, graph).attention_sum(values, target_score, source_score, graph, slope)


def _backend(x: Tensor, graph: Graph) -> Any:
    """The module that implements the primitives for a tensor and a kind of graph."""
    kernels = kernels_for(x.device)
    if kernels == "cuda":
        from sgas_gcn.kernels import cuda_backend

        return cuda_backend
    narrow = torch.is_autocast_enabled(x.device.type)
    backend: Any = csr_backend if isinstance(graph, CsrGraph) else torch_backend
    if kernels == "cpu" and (narrow or x.dtype.itemsize >= 4):
        backend = cpu_backend
    return InFloat32(backend, x.device) if narrow else backend
