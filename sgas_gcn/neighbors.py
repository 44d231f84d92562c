"""Neighbours of points: nearest-neighbour search, dilation, and the graphs that kernels read.

Dimensions: B clouds, P points of a cloud, N = B·P nodes, C channels, k neighbours of a point, the
point itself included and always in column 0. Dilated neighbours as in Li et al., "DeepGCNs", ICCV
2019: of the k·d nearest every d-th.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from sgas.errors import ConfigError, DataError
from sgas.native.precision import widened
from sgas_gcn.features import Affine, Features
from sgas_gcn.kernels import indices
from sgas_gcn.rows import Rows, rows_of_constant_degree


@dataclass(frozen=True, eq=False)
class NeighborGraph:
    """A graph of constant degree: row i of `sources` int64 `[N, degree]` are the nodes i reads.

    DataError where the degree is not 1 or more; nodes without edges are for `CsrGraph`.
    """

    sources: Tensor
    weights: ClassVar[None] = None  # of edges, which are those of points
    attributes: ClassVar[None] = None
    _stacked: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sources.dim() != 2 or self.sources.shape[1] == 0:
            raise DataError(
                f"sources have the shape {list(self.sources.shape)}, not [nodes, degree] with a "
                "degree of 1 or more; give a CsrGraph where nodes have no neighbours"
            )

    @property
    def num_nodes(self) -> int:
        """Number of nodes (N)."""
        return self.sources.shape[0]

    @property
    def degree(self) -> int:
        """Number of edges that enter each node."""
        return self.sources.shape[1]

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.sources.numel()

    @cached_property
    def degrees(self) -> Tensor:
        """How many edges enter each node, int64 `[N, 1]`."""
        return torch.full((self.num_nodes, 1), self.degree, device=self.sources.device)

    @property
    def totals(self) -> Tensor:
        """The degrees; as in `CsrGraph`."""
        return self.degrees

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The sources and the targets of all edges, int64 `[N·degree]` each."""
        nodes = torch.arange(self.num_nodes, device=self.sources.device)
        return self.sources.flatten(), nodes.repeat_interleave(self.degree)

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """None, since edges enter all nodes; as in `CsrGraph`."""
        return None

    @cached_property
    def rows(self) -> Rows:
        """The edges as compiled kernels read them; edge number e enters node e // degree."""
        return rows_of_constant_degree(self.sources)

    @cached_property
    def runs(self) -> tuple[Tensor, Tensor]:
        """The edges as compressed rows: where each node's run starts `[N + 1]`, and the sources."""
        starts = torch.arange(self.num_nodes + 1, device=self.sources.device)
        return starts.mul_(self.degree), self.sources.reshape(-1)

    @cached_property
    def columns(self) -> tuple[Tensor, ...]:
        """The sources column by column: `degree` contiguous tensors `[N]`."""
        return self.sources.t().contiguous().unbind(0)

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The edges sorted by source: their targets, where each source's run starts, their numbers.

        int64 `[N·degree]`, `[N]` and `[N·degree]`; edge number e enters node e // degree.
        """
        sources, order = self.sources.reshape(-1).sort(stable=True)
        nodes = torch.arange(self.num_nodes, device=sources.device)
        return order // self.degree, torch.searchsorted(sources, nodes), order

    def stacked(self, copies: int) -> Tensor:
        """The sources where each node stands for `copies` nodes, i·copies + c for c in order."""
        if copies not in self._stacked:
            offsets = torch.arange(copies, device=self.sources.device).view(1, -1, 1)
            index = self.sources.unsqueeze(1) * copies + offsets
            self._stacked[copies] = index.view(-1, self.degree)
        return self._stacked[copies]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The `edges` from the neighbours of each point, and with the point itself among them."""

    with_self: NeighborGraph
    edges: NeighborGraph

    @classmethod
    def from_local(cls, index: Tensor) -> Neighbors:
        """The neighbourhoods that `index` `[B, P, k]` lists, numbered within each cloud.

        Column 0 has to be the point itself.
        """
        num_clouds, num_points, k = index.shape
        first = torch.arange(num_clouds, device=index.device).mul_(num_points).view(-1, 1, 1)
        columns = (index.to(torch.int64) + first).view(-1, k)
        return cls(NeighborGraph(columns), NeighborGraph(columns[:, 1:]))


@torch.no_grad()
def nearest(x: Tensor, width: int) -> Tensor:
    """The `width` nearest points of each point in its cloud, int64 `[B, P, width]`, nearest first.

    `x` is `[B, P, C]`; distances are squared Euclidean, less the row's own constant where they come
    from a product. Column 0 is the point itself even where rounding or a duplicate would put
    another one first. Of points equally far compiled kernels take the first. Distances are float32
    at least, also under autocast: they are differences of larger numbers.
    """
    with torch.autocast(x.device.type, enabled=False):
        return indices.nearest(widened(x), width)


def search_width(k: int, dilation: int) -> int:
    """How many nearest points hold the k dilated neighbours; of k·dilation the last are unused."""
    return (k - 1) * dilation + 1


def dilate(index: Tensor, k: int, dilation: int) -> Neighbors:
    """Every `dilation`-th of the nearest points `[B, P, width]`, k of them, as graphs."""
    return Neighbors.from_local(index[:, :, : search_width(k, dilation) : dilation])


def check_cloud_size(num_points: int, k: int, dilation: int, reader: str = "the search") -> None:
    """ConfigError where a cloud has fewer points than `reader` looks at."""
    if k * dilation > num_points:
        largest = num_points // dilation
        lower_k = f"lower k to at most {largest}, " if largest > 1 else ""
        raise ConfigError(
            f"{reader} looks at the k · dilation = {k} · {dilation} = {k * dilation} nearest "
            f"points, but a cloud has {num_points}; {lower_k}lower num_cells, or give clouds of "
            "more points"
        )


def knn(x: Tensor, k: int, dilation: int = 1) -> Neighbors:
    """The k nearest points of each point of clouds `[B, P, C]`, every `dilation`-th of k·dilation.

    ConfigError where a cloud has fewer than k·dilation points.
    """
    check_cloud_size(x.shape[1], k, dilation)
    return dilate(nearest(x, search_width(k, dilation)), k, dilation)


class CellNeighbors:
    """The neighbourhoods of all cells in one forward pass; cell i has dilation i + 1.

    Cells 0 and 1 read the same features (the stem's output) and share one search; it runs among
    the fewer numbers that `stem_coordinates` gives, where these have the same distances.
    `neighbors`, int `[B, P, k]` for each cell, replaces the searches.
    """

    def __init__(
        self,
        shape: Sequence[int],
        k: int,
        num_cells: int,
        neighbors: Sequence[Tensor] | None = None,
        stem_coordinates: Callable[[], Tensor] | None = None,
    ) -> None:
        num_clouds, num_points = shape[:2]
        if neighbors is not None and len(neighbors) != num_cells:
            raise DataError(
                f"neighbours of {len(neighbors)} cells given; the network has {num_cells}"
            )
        check_cloud_size(
            num_points, k, num_cells if neighbors is None else 1, f"cell {num_cells - 1}"
        )
        self._clouds = (num_clouds, num_points)
        self._k, self._num_cells, self._neighbors = k, num_cells, neighbors
        self._stem_coordinates = stem_coordinates
        self._searched: tuple[Features, Tensor] | None = None

    def of_cell(self, cell: int, features: Features) -> Neighbors:
        """The neighbourhoods for a cell whose first input, before any layer, is `[N, C]`."""
        if self._neighbors is not None:
            return Neighbors.from_local(self._neighbors[cell])
        if self._searched is None or self._searched[0] is not features:
            largest = min(2, self._num_cells) if cell == 0 else cell + 1
            width = search_width(self._k, largest)
            if cell < 2 and self._stem_coordinates is not None:
                x = self._stem_coordinates()
            else:
                assert not isinstance(features, Affine), "only the stem's output is an affine map"
                x = features.detach()
            index = nearest(x.view(*self._clouds, -1), width)
            self._searched = (features, index)
        return dilate(self._searched[1], self._k, cell + 1)
