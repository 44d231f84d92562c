"""Aggregation over neighbours: the primitives that all operations are made of.

Operations import from here and nowhere deeper, so that another implementation of a primitive
changes this module alone. A graph says which nodes each node reads (`sgas_gcn.neighbors`).
"""

from sgas_gcn.kernels.torch_backend import (
    attention_sum,
    edge_relu_stats,
    neighbor_max,
    neighbor_sum,
)

__all__ = ["attention_sum", "edge_relu_stats", "neighbor_max", "neighbor_sum"]
