"""The halves of the primitives by Triton kernels; what they compute says `halves`.

Dimensions: N nodes, D or m·C stacked channels.
"""

from __future__ import annotations

from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels import cuda_backend
from sgas_gcn.neighbors import NeighborGraph

Graph = NeighborGraph | CsrGraph
Kept = tuple[Tensor, ...]


def sum_forward(x: Tensor, graph: Graph) -> Tensor:
    """As `halves.sum_forward`."""
    return cuda_backend.sum_op(x, cuda_backend.incoming(graph), [])


def sum_backward(grad: Tensor, graph: Graph) -> Tensor:
    """As `halves.sum_backward`."""
    return cuda_backend.sum_op(grad, cuda_backend.outgoing(graph)[:2], [])


def max_forward(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """As `halves.max_forward`; keeps which edge was chosen."""
    best, chosen = cuda_backend.max_op(x, cuda_backend.incoming(graph), [])
    return best, (chosen,)


def max_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """As `halves.max_backward`."""
    return cuda_backend.max_gradient_op(grad, *kept, cuda_backend.outgoing(graph))


def stats_forward(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """As `halves.stats_forward`; keeps which edge was chosen."""
    found = cuda_backend.relu_stats_op(target, source, sign, cuda_backend.incoming(graph), [])
    return (*found[:3], (target, source, found[3]))


def stats_backward(
    grad_selected: Tensor, grad_total: Tensor, grad_squares: Tensor, kept: Kept, graph: Graph
) -> tuple[Tensor, Tensor]:
    """As `halves.stats_backward`."""
    grads, edges = [grad_selected, grad_total, grad_squares], cuda_backend.outgoing(graph)
    return cuda_backend.relu_stats_gradients_op(
        grads, list(kept), cuda_backend.incoming(graph), edges
    )


def attention_forward(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> tuple[Tensor, Kept]:
    """As `halves.attention_forward`; keeps the scores and their logarithmic sums `[N, m]`."""
    given = (values, target_score, source_score)
    out, log_sum = cuda_backend.attention_op(*given, cuda_backend.incoming(graph), [], slope)
    return out, (target_score, source_score, log_sum)


def attention_gradients(
    grad: Tensor, values: Tensor, kept: Kept, graph: Graph, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `halves.attention_gradients`."""
    return cuda_backend.attention_gradients_op(
        grad,
        [values, *kept],
        cuda_backend.incoming(graph),
        cuda_backend.outgoing(graph)[:2],
        slope,
    )
