"""Aggregation over edges in plain torch: what the formulas of operations are written in.

Tensors of edges are made here, which fused forms avoid. Dimensions: N nodes, E edges, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.csr import with_loops
from sgas_gcn.kernels.protocol import Graph


@dataclass(frozen=True, eq=False)
class PlainGraph:
    """Edges from `sources` to `targets`, int64 `[E]` each, with `weights` `[E]` (None: all 1).

    `attributes` of edges are `[E, A]` (None: there are none).
    """

    sources: Tensor
    targets: Tensor
    num_nodes: int
    weights: Tensor | None = None
    attributes: Tensor | None = None

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The sources and the targets of all edges."""
        return self.sources, self.targets

    @property
    def edge_index(self) -> Tensor:
        """All edges as operators of PyG take them: int64 `[2, E]`, sources above targets."""
        return torch.stack(self.ends)

    @property
    def degrees(self) -> Tensor:
        """How many edges enter each node, int64 `[N, 1]`."""
        none = torch.zeros(self.num_nodes, dtype=torch.int64, device=self.targets.device)
        return none.index_add(0, self.targets, torch.ones_like(self.targets)).unsqueeze(1)

    @property
    def totals(self) -> Tensor:
        """The weights of the edges that enter each node, added up `[N, 1]`: without, degrees."""
        if self.weights is None:
            return self.degrees
        none = self.weights.new_zeros(self.num_nodes)
        return none.index_add(0, self.targets, self.weights).unsqueeze(1)


@dataclass(frozen=True, eq=False)
class PlainNeighbors:
    """The `edges` of a graph, and with one from each node to itself."""

    edges: PlainGraph
    with_self: PlainGraph


def nearest_points(x: Tensor, k: int, dilation: int) -> PlainNeighbors:
    """Edges into each point of clouds `[B, P, C]` from the nearest: every `dilation`-th, k of them.

    A point is its own nearest. Distances are squared Euclidean, less each point's own constant.
    """
    (num_clouds, num_points, _), device = x.shape, x.device
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    norms = x.square().sum(-1).unsqueeze(1)  # [B, 1, P]
    distances = torch.baddbmm(norms, x, x.transpose(1, 2), alpha=-2)  # [B, P, P]
    itself = torch.eye(num_points, dtype=torch.bool, device=device)
    width = (k - 1) * dilation + 1
    nearest = distances.masked_fill(itself, -torch.inf).topk(width, largest=False).indices
    first = torch.arange(num_clouds, device=device).view(-1, 1, 1) * num_points
    sources = (nearest[:, :, ::dilation] + first).flatten(0, 1)  # [N, k]
    num_nodes = num_clouds * num_points
    nodes = torch.arange(num_nodes, device=device)
    others = PlainGraph(sources[:, 1:].flatten(), nodes.repeat_interleave(k - 1), num_nodes)
    with_self = PlainGraph(sources.flatten(), nodes.repeat_interleave(k), num_nodes)
    return PlainNeighbors(others, with_self)


def given_edges(
    edge_index: Tensor,
    num_nodes: int,
    weights: Tensor | None = None,
    attributes: Tensor | None = None,
) -> PlainNeighbors:
    """The edges of a graph, int64 `[2, E]` with sources above targets; self-loops are renewed."""
    renewed, *own = with_loops(edge_index, num_nodes, weights, attributes)
    sources, targets = edge_index.unbind()
    edges = PlainGraph(sources, targets, num_nodes, weights, attributes)
    sources, targets = renewed.unbind()
    return PlainNeighbors(edges, PlainGraph(sources, targets, num_nodes, *own))


def sums(messages: Tensor, graph: Graph) -> Tensor:
    """Σ over the edges into each node of `messages` `[E, C]`: `[N, C]`."""
    _, targets = graph.ends
    out = messages.new_zeros(graph.num_nodes, messages.shape[1])
    return out.index_add(0, targets, messages)


def weighted(messages: Tensor, graph: Graph) -> Tensor:
    """`messages` `[E, C]` times the weights of the edges, if these have some."""
    if graph.weights is None:
        return messages
    return messages * graph.weights.to(messages.dtype).unsqueeze(1)


def mean(messages: Tensor, graph: Graph) -> Tensor:
    """The mean over the edges into each node of `messages` `[E, C]`: `[N, C]`; each has some.

    Of edges with weights it is Σ w m / Σ w.
    """
    return sums(weighted(messages, graph), graph) / graph.totals.to(messages.dtype)


def largest(messages: Tensor, graph: Graph) -> Tensor:
    """The largest of `messages` `[E, C]` on the edges into each node, 0 without any: `[N, C]`.

    The first of equals takes the gradient.
    """
    _, targets = graph.ends
    (num_edges, channels), values = messages.shape, messages.detach()
    index = targets.unsqueeze(1).expand(-1, channels)
    best = values.new_full((graph.num_nodes, channels), -torch.inf)
    best = best.scatter_reduce(0, index, values, "amax").index_select(0, targets)
    numbers = torch.arange(num_edges, device=values.device).unsqueeze(1)
    numbers = numbers.where((values == best) | values.isnan(), num_edges)
    first = numbers.new_full((graph.num_nodes, channels), num_edges)
    first = first.scatter_reduce(0, index, numbers, "amin")
    return torch.cat([messages, messages.new_zeros(1, channels)]).gather(0, first)


def attributes_of(graph: Graph, x: Tensor) -> Tensor:
    """The attributes of edges `[E, A]` in the type of `x`; ValueError where they have none."""
    if graph.attributes is None:
        raise ValueError("the network reads attributes of edges: give edge_attr")
    return graph.attributes.to(x.dtype)


def softmax(scores: Tensor, graph: Graph) -> Tensor:
    """The softmax of `scores` `[E]` over the edges into each node: `[E]`."""
    _, targets = graph.ends
    top = scores.detach().new_full((graph.num_nodes,), -torch.inf)
    top = top.scatter_reduce(0, targets, scores.detach(), "amax").index_select(0, targets)
    weights = (scores - top).exp()
    totals = weights.new_zeros(graph.num_nodes).index_add(0, targets, weights)
    return weights / totals.index_select(0, targets)


def attention(h: Tensor, vector: Tensor, graph: Graph, of_edges: Tensor | None = None) -> Tensor:
    """Σ_j a_ij h_j `[N, C]`, a the softmax over j of leaky ReLU(vector · [h_i, h_j]).

    `of_edges` `[E]` are added to the scores before the leaky ReLU.
    """
    sources, targets = graph.ends
    scores = torch.cat([h[targets], h[sources]], dim=1) @ vector
    if of_edges is not None:
        scores = scores + of_edges
    weights = softmax(nn.functional.leaky_relu(scores, LEAKY_SLOPE), graph)
    return sums(weights.unsqueeze(1) * h[sources], graph)


def over_length(x: Tensor) -> Tensor:
    """The rows of `x` `[N, C]` over their lengths, these at least NORM_FLOOR."""
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(NORM_FLOOR)
