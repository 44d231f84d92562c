"""Aggregation over neighbours by plain formulas with tensors of edges, for tests of the kernels.

`edges` are an edge index `[2, E]`: sources above targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from neighbor_primitives import SLOPE, Primitive, signs
from torch import Tensor

HEADS = 2


def by_node(edges: Tensor, num_nodes: int) -> list[Tensor]:
    """The numbers of the edges into each node, in their order."""
    return [(edges[1] == node).nonzero().flatten() for node in range(num_nodes)]


def stacked(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(rows) if rows else 0 * like


def largest(values: Tensor) -> Tensor:
    """The first of the largest in each column, which alone takes the gradient."""
    return values.gather(0, values.argmax(0, keepdim=True))[0]


def plain_sum(x: Tensor, edges: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


def plain_max(x: Tensor, edges: Tensor) -> Tensor:
    rows = [x[edges[0, row]] for row in by_node(edges, len(x))]
    return stacked([largest(row) if len(row) else 0 * row.sum(0) for row in rows], x)


def plain_difference(x: Tensor, edges: Tensor) -> Tensor:
    has_edges = torch.zeros(len(x), 1).index_fill(0, edges[1], 1).to(x)
    return plain_max(x, edges) - has_edges * x


def plain_stats(
    target: Tensor, source: Tensor, sign: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.relu(target[edges[1]] + source[edges[0]])  # [E, D]
    rows = [h[row] for row in by_node(edges, len(target))]
    chosen = [sign * largest(sign * row) if len(row) else 0 * row.sum(0) for row in rows]
    return stacked(chosen, target), h.double().sum(0), h.double().square().sum(0)


def plain_attention(values: Tensor, target: Tensor, source: Tensor, edges: Tensor) -> Tensor:
    out = []
    for node, row in enumerate(by_node(edges, len(values))):
        scores = F.leaky_relu(target[node] + source[edges[0, row]], SLOPE)
        weights = torch.softmax(scores, dim=0)  # [degree, m]
        out.append((weights.unsqueeze(-1) * values[edges[0, row]]).sum(0))
    return stacked(out, values)


def plain_forms(edges: Tensor) -> dict[str, Primitive]:
    return {
        "sum": lambda x: (plain_sum(x, edges),),
        "max": lambda x: (plain_max(x, edges),),
        "difference": lambda x: (plain_difference(x, edges),),
        "stats": lambda a, b: plain_stats(a, b, signs(a.shape[1]).to(a), edges),
        "attention": lambda v, t, s: (plain_attention(v, t, s, edges),),
    }


def inputs_of(primitive: str, num_nodes: int, channels: int, heads: int = HEADS) -> list[Tensor]:
    """Random float64 arguments."""
    generator = torch.Generator().manual_seed(channels)
    matrix, scores = (num_nodes, channels), (num_nodes, heads)
    shapes = {
        "sum": [matrix],
        "max": [matrix],
        "difference": [matrix],
        "stats": [matrix, matrix],
        "attention": [(num_nodes, heads, channels), scores, scores],
    }[primitive]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def run(function: Primitive, inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, and all gradients for random gradients of these."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    grads = [
        torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs
    ]
    found = torch.autograd.grad(outputs, leaves, grads, allow_unused=True)
    given = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
    return [*(out.detach() for out in outputs), *given]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """Equal up to `tolerance`, of each array's largest magnitude where that is above one."""
    for one, other in zip(ours, theirs, strict=True):
        size = float(other.abs().max()) if other.numel() else 1.0
        torch.testing.assert_close(
            one.cpu().double(), other.double(), rtol=0, atol=tolerance * max(size, 1.0)
        )
