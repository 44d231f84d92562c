"""Propagation: logits that go on to neighbours after the last layer.

Dimensions: N nodes, L labels, K steps.
"""

from __future__ import annotations

from torch import Tensor, nn

from sgas_gcn.ops.operation import Neighborhood
from sgas_gcn.ops.plain import sums, weighted


class Propagation(nn.Module):
    """Logits `[N, L]` after K steps z ← (1 − a) Σ over the edges j→i of z_j / √(d_i d_j) + a h.

    h are the logits that come in, a is `teleport`, d the degrees with self. Edges with weights are
    taken as in `sgas_gcn.ops.semi_gcn`. It has no weights: a
    network learns from the nodes around those that have labels, as deep as it may be. Source:
    Klicpera et al., "Predict then Propagate", ICLR 2019, equation 4.
    """

    def __init__(self, steps: int, teleport: float) -> None:
        super().__init__()
        self.steps, self.teleport = steps, teleport

    def forward(self, logits: Tensor, neighbors: Neighborhood) -> Tensor:
        """The logits `[N, L]`."""
        graph = neighbors.with_self
        (sources, _), share = graph.ends, graph.totals.to(logits.dtype).rsqrt()
        own, keep = self.teleport * logits, (1 - self.teleport) * share
        for _ in range(self.steps):
            logits = keep * sums(weighted((share * logits)[sources], graph), graph) + own
        return logits
