"""Searches a cell on generated solids among the candidates and an operation of one's own.

`sgas-gcn search --plugin own_operation.py` has it too, and so has what goes on with such a run.
"""

import torch
from torch import Tensor, nn

import sgas_gcn
from sgas.registry import operation
from sgas_gcn.ops.operation import Neighborhood, Operation
from sgas_gcn.ops.plain import sums


@operation("edge_gate", spaces=["point", "graph"])
class EdgeGate(Operation):
    """The sum over the edges j→i of σ(V x_i) · W (x_j − x_i)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        sources, targets = neighbors.edges.ends
        messages = torch.sigmoid(self.gate(x))[targets] * self.lin(x[sources] - x[targets])
        return sums(messages, neighbors.edges)


if __name__ == "__main__":
    short = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0}
    small = {"num_points": 32, "channels": 4, "batch_size": 270}
    searched = sgas_gcn.search("shapes", plugins=[__file__], **short, **small)
    print(searched, f"candidates: {len(searched.decisions[0].alphas[0])}", sep="\n")
