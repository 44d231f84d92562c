"""Rows: a graph as kernels read it, by target and by source, in 32 bits where that is enough.

Dimensions: N nodes, E edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgas.errors import InputError
from sgas_gcn.kernels.indices import transpose


class Rows(NamedTuple):
    """The edges sorted by target, and a second time by source; all tensors of one integer type.

    Edges `offsets[i]` to `offsets[i + 1]` enter node i, from `sources`. Of the edges sorted by
    source, those that leave node j are `out_offsets[j]` to `out_offsets[j + 1]`, to `out_targets`;
    `out_edges` are their numbers in the first order. `offsets` and `out_offsets` are `[N + 1]`, the
    others `[E]`. No node has more than `degree` edges that enter it.
    """

    offsets: Tensor
    sources: Tensor
    out_offsets: Tensor
    out_targets: Tensor
    out_edges: Tensor
    degree: int


def index_dtype(num_nodes: int, num_edges: int) -> torch.dtype:
    """The integer type that numbers nodes and edges; InputError for more than it can number."""
    most = torch.iinfo(torch.int32).max
    if max(num_nodes, num_edges) > most:
        raise InputError(
            f"a graph has {num_nodes} nodes and {num_edges} edges, and a step takes at most {most} "
            "of each: split it into smaller graphs"
        )
    return torch.int32


def rows_of_constant_degree(sources: Tensor) -> Rows:
    """The rows of a graph whose node i reads the nodes `sources[i]`, int `[N, degree]`."""
    num_nodes, degree = sources.shape
    dtype = index_dtype(num_nodes, sources.numel())
    edges = sources.to(dtype).reshape(-1).contiguous()
    offsets = torch.arange(num_nodes + 1, dtype=dtype, device=sources.device).mul_(degree)
    return Rows(offsets, edges, *transpose(offsets, edges), degree)
