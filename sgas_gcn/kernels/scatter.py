"""torch-scatter, where it is installed and faster than torch itself.

On a CPU its segment maximum runs on all threads and torch's on one (`embedding_bag`, mode max);
with one thread, and for everything else, torch is as fast or faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.csr import CsrGraph

CHANNELS_AT_ONCE = 32  # bounds the tensor of edges that torch-scatter needs


@cache
def segment_max_csr() -> Callable[..., Any] | None:
    """torch-scatter's maximum over compressed rows; None where it is not installed or not usable.

    A build for another torch raises OSError when it is loaded.
    """
    try:
        from torch_scatter import segment_max_csr as function
    except (ImportError, OSError):
        return None
    return function


def max_by_rows(x: Tensor, graph: CsrGraph) -> tuple[Tensor, Tensor] | None:
    """Maxima `[N, D]` over the sources and the source that had each first; None where torch wins.

    A node without edges has the maximum 0, and some source that means nothing.
    """
    if x.device.type != "cpu" or torch.get_num_threads() == 1 or not graph.num_edges:
        return None
    maximum = segment_max_csr()
    if maximum is None:
        return None
    parts = [
        maximum(part.index_select(0, graph.sources), graph.offsets)
        for part in x.split(CHANNELS_AT_ONCE, dim=1)
    ]
    best, edge = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    # torch-scatter says E for a node without edges.
    return best, graph.sources.take(edge.clamp_max_(graph.num_edges - 1))
