"""The plain supernet and derived network of point clouds, on dense tensors as in DGCNN.

Operations of Li et al., "SGAS", CVPR 2020, section 4.2: linear, ReLU, then batch norm.
Dimensions: B clouds, C channels, N points, k neighbours of a point, itself first.

Features are `[B, C, N]` under 1d layers and `[B, C, N, k]` under 2d ones. Not `[B, C, N, 1]` under
BatchNorm2d, as many codes have it: there torch 2.13 computes a wrong gradient on the CPU when the
incoming one is laid out channels-last; Conv1d was also twice as fast as Conv2d on that shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.common import Cell, CellNetwork, Plan, layers

HEAD_CHANNELS = (512, 256)


def linear_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    """BN(R(W x)) on `[B, in_channels, N]`."""
    return layers(
        lin=nn.Conv1d(in_channels, out_channels, 1, bias=False),
        act=nn.ReLU(),
        norm=nn.BatchNorm1d(out_channels),
    )


def gather(x: Tensor, index: Tensor) -> Tensor:
    """The features `[B, C, N, k]` of the neighbours `index` `[B, N, k]`, from `x` `[B, C, N]`."""
    flat = index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    return x.gather(2, flat).view(*x.shape[:2], *index.shape[1:])


@torch.no_grad()
def knn(x: Tensor, k: int, dilation: int) -> Tensor:
    """Every `dilation`-th of the k·dilation nearest points, int64 `[B, N, k]`, the nearest first.

    Dilated neighbours of Li et al., "DeepGCNs", ICCV 2019; `x` is `[B, C, N]`.
    """
    squares = x.square().sum(1, keepdim=True)  # [B, 1, N]
    distances = squares.transpose(1, 2) - 2 * x.transpose(1, 2) @ x + squares  # [B, N, N]
    nearest = distances.topk(k * dilation, largest=False).indices
    return nearest[:, :, ::dilation]


class Zero(nn.Module):
    """`none`: zeros."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Zeros `[B, C, N]`."""
        return torch.zeros_like(x)


class Skip(nn.Module):
    """`skip_connect`: x."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """`x` `[B, C, N]`."""
        return x


class Conv1x1(nn.Module):
    """BN(R(W x_i))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def transform(self, x: Tensor) -> Tensor:
        """BN(R(W x_i)) `[B, C, N]`."""
        return self.norm(F.relu(self.lin(x)))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        return self.transform(x)


class EdgeConv(nn.Module):
    """max over j of BN(R(W [x_i, x_j - x_i]))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        x_j = gather(x, index[:, :, 1:])
        x_i = x.unsqueeze(-1).expand_as(x_j)
        edges = self.norm(F.relu(self.lin(torch.cat([x_i, x_j - x_i], dim=1))))
        return edges.max(dim=-1).values


class MRConv(nn.Module):
    """BN(R(W [x_i, max over j of (x_j - x_i)]))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin = nn.Conv1d(2 * channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        difference = gather(x, index[:, :, 1:]) - x.unsqueeze(-1)
        largest = difference.max(dim=-1).values
        return self.norm(F.relu(self.lin(torch.cat([x, largest], dim=1))))


class GAT(Conv1x1):
    """Σ over i and j of a_ij h_j with h = BN(R(W x)), by two scores a point as in PyG's GATConv."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.att = nn.Parameter(torch.empty(2, channels))
        nn.init.xavier_uniform_(self.att)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        h = self.transform(x)
        target, source = (self.att @ h).unbind(1)  # [B, N] each
        scores = target.unsqueeze(-1) + gather(source.unsqueeze(1), index).squeeze(1)
        weights = F.leaky_relu(scores, 0.2).softmax(dim=-1)  # [B, N, k]
        return (weights.unsqueeze(1) * gather(h, index)).sum(dim=-1)


class SemiGCN(Conv1x1):
    """Mean over i and j of BN(R(W x_j))."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        return gather(self.transform(x), index).mean(dim=-1)


class GIN(Conv1x1):
    """BN(R(W (x_i + Σ over j of x_j)))."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        return self.transform(gather(x, index).sum(dim=-1))


class SAGE(nn.Module):
    """o / |o| with o = R(W [x_i, max over i and j of R(P x_j)]), without batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pre = nn.Conv1d(channels, channels, 1, bias=False)
        self.lin = nn.Conv1d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        return self.combine(x, gather(F.relu(self.pre(x)), index).max(dim=-1).values)

    def combine(self, x: Tensor, message: Tensor) -> Tensor:
        """The output for messages `[B, C, N]`."""
        return F.normalize(F.relu(self.lin(torch.cat([x, message], dim=1))), dim=1)


class RelSAGE(SAGE):
    """SAGE with P (x_j - x_i) in place of P x_j in the message; points are projected, not edges."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The output `[B, C, N]`."""
        h = self.pre(x)
        messages = F.relu(gather(h, index) - h.unsqueeze(-1))
        return self.combine(x, messages.max(dim=-1).values)


OPS: dict[str, type[nn.Module]] = {
    "none": Zero,
    "skip_connect": Skip,
    "conv_1x1": Conv1x1,
    "edge_conv": EdgeConv,
    "mr_conv": MRConv,
    "gat": GAT,
    "semi_gcn": SemiGCN,
    "gin": GIN,
    "sage": SAGE,
    "rel_sage": RelSAGE,
}


def make_op(name: str, channels: int) -> nn.Module:
    """The operation of a name."""
    if name in ("none", "skip_connect"):
        return OPS[name]()
    return OPS[name](channels)


class PlainPoint(CellNetwork):
    """Logits `[B, num_classes]` for clouds `[B, in_channels, N]`."""

    def __init__(
        self,
        plan: Plan,
        *,
        search: bool,
        in_channels: int = 3,
        num_classes: int = 10,
        channels: int = 32,
        num_cells: int = 2,
        k: int = 9,
        emb_dims: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__({"normal": plan}, search)
        self.k, self.dropout = k, dropout
        stem = 3 * channels
        self.stem = layers(
            lin=nn.Conv1d(in_channels, stem, 1, bias=False), norm=nn.BatchNorm1d(stem)
        )
        self.cells = nn.ModuleList()
        before, last, fused = stem, stem, stem
        for _ in range(num_cells):
            pre0, pre1 = linear_norm(before, channels), linear_norm(last, channels)
            self.cells.append(Cell(pre0, pre1, plan, lambda name, _: make_op(name, channels)))
            before, last = last, len(plan.concat) * channels
            fused += last
        first, second = HEAD_CHANNELS
        self.fusion = layers(
            lin=nn.Conv1d(fused, emb_dims, 1, bias=False),
            act=nn.LeakyReLU(0.2),
            norm=nn.BatchNorm1d(emb_dims),
        )
        self.head0 = self._head(2 * emb_dims, first)
        self.head1 = self._head(first, second)
        self.head2 = layers(lin=nn.Linear(second, num_classes))

    @staticmethod
    def _head(in_channels: int, out_channels: int) -> nn.Sequential:
        return layers(
            lin=nn.Linear(in_channels, out_channels),
            act=nn.LeakyReLU(0.2),
            norm=nn.BatchNorm1d(out_channels),
        )

    def forward(self, points: Tensor, neighbors: Sequence[Tensor] | None = None) -> Tensor:
        """Logits; `neighbors`, int64 `[B, N, k]` for each cell, replaces the searches."""

        def index_of(cell: int, features: Tensor) -> tuple[Tensor]:
            if neighbors is not None:
                return (neighbors[cell],)
            return (knn(features, self.k, cell + 1),)

        stem = self.stem(points)
        outputs = self.run_cells(stem, stem, index_of)
        x = self.fusion(torch.cat([stem, *outputs], dim=1))
        x = torch.cat([x.max(dim=-1).values, x.mean(dim=-1)], dim=1)
        for head in (self.head0, self.head1):
            x = F.dropout(head(x), self.dropout, self.training)
        return cast("Tensor", self.head2(x))
