"""What finds neighbours and turns edges round: results are indices, without gradients.

Dimensions: B clouds, P points of a cloud, C channels, N nodes, E edges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgas.native.backend import kernels_of
from sgas_gcn.library import LIBRARY

DISTANCES_AT_ONCE = 2**22  # bounds the memory of a search: 16 MiB of float32
FEW_DIMENSIONS = 16  # up to so many, distances are computed one by one and not as a product


def nearest(x: Tensor, width: int) -> Tensor:
    """The `width` nearest points of each point, itself first, int64 `[B, P, width]`.

    `x` is `[B, P, C]`, of 32 bits or more. Of points equally far compiled kernels take the first.
    """
    num_clouds, num_points, dimensions = x.shape
    compiled = kernels_of(x, LIBRARY) == "cpu"
    if compiled and dimensions <= FEW_DIMENSIONS:
        return torch.ops.sgas_gcn.nearest(x, width)
    index = torch.empty(num_clouds, num_points, width, dtype=torch.int64, device=x.device)
    clouds_at_once = max(1, DISTANCES_AT_ONCE // num_points**2)
    for part, out in zip(x.split(clouds_at_once), index.split(clouds_at_once), strict=True):
        norms = part.square().sum(-1).unsqueeze(1)  # [b, 1, P]
        distances = torch.baddbmm(norms, part, part.transpose(1, 2), alpha=-2)  # [b, P, P]
        distances.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        if compiled:
            out.copy_(torch.ops.sgas_gcn.smallest(distances, width))
        else:
            out.copy_(distances.topk(width, largest=False).indices)
    return index


def transpose(offsets: Tensor, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, targets and numbers of the edges sorted by source, from those sorted by target.

    `offsets` is `[N + 1]`, `sources` `[E]`; all are of one integer type.
    """
    if kernels_of(sources, LIBRARY) == "cpu":
        return torch.ops.sgas_gcn.transpose(offsets, sources)
    dtype, nodes = sources.dtype, torch.arange(len(offsets), device=sources.device)
    targets = nodes[:-1].repeat_interleave(offsets.diff(), output_size=len(sources))
    by_source, out_edges = sources.sort(stable=True)
    out_offsets = torch.searchsorted(by_source, nodes.to(dtype))
    return out_offsets.to(dtype), targets[out_edges].to(dtype), out_edges.to(dtype)
