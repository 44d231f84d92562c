"""What the plain supernets share: mixed operations, cells, alphas, and the steps of a search.

A cell is written as in DARTS (Liu et al., ICLR 2019): node by node, each the sum of its incoming
edges, each edge the sum of all its candidates by their softmax weights. Edges are decided and
pruned as in SGAS (Li et al., CVPR 2020). Dimensions: E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNDECIDED, PRUNED = -1, 0  # other numbers: the operation that the edge has taken
NUM_INPUTS = 2

MakeOp = Callable[[str, int], nn.Module]


class Link(NamedTuple):
    """One edge: the state it reads, the step it enters, and the names of its operations."""

    source: int
    step: int
    ops: tuple[str, ...]


class Plan(NamedTuple):
    """The edges of a cell, how many steps they make, and which states are its output."""

    links: tuple[Link, ...]
    num_steps: int
    concat: tuple[int, ...]


def search_plan(num_steps: int, ops: Sequence[str]) -> Plan:
    """The cell of a search: every step reads every earlier state, with all candidates."""
    links = [Link(j, i, tuple(ops)) for i in range(num_steps) for j in range(NUM_INPUTS + i)]
    return Plan(tuple(links), num_steps, tuple(range(num_steps - 2, num_steps + 2)))


def derived_plan(genes: Sequence[tuple[str, int]], concat: Sequence[int]) -> Plan:
    """The cell of a genotype `[(operation, source), …]`, two edges a step."""
    links = [Link(source, number // 2, (op,)) for number, (op, source) in enumerate(genes)]
    return Plan(tuple(links), len(genes) // 2, tuple(concat))


def layers(**modules: nn.Module) -> nn.Sequential:
    """The modules one after the other, by name."""
    return nn.Sequential(OrderedDict(modules))


class MixedOp(nn.ModuleDict):
    """The operations of one edge: a mixture of them, or the one that is left."""

    def forward(self, weights: Tensor | None, *inputs: Any) -> Tensor:
        """Σ weights_o · op_o(inputs); a single operation counts with weight 1."""
        if len(self) == 1:
            (op,) = self.values()
            return op(*inputs)
        assert weights is not None
        pairs = zip(weights, self.values(), strict=True)
        return cast("Tensor", sum(weight * op(*inputs) for weight, op in pairs))


class Cell(nn.Module):
    """A cell after `plan`; `make_op(name, source)` makes an operation that reads state `source`."""

    def __init__(
        self, pre0: nn.Module, pre1: nn.Module, plan: Plan, make_op: MakeOp, kind: str = "normal"
    ) -> None:
        super().__init__()
        self.pre0, self.pre1, self.plan, self.kind = pre0, pre1, plan, kind
        self.edges = nn.ModuleList(
            MixedOp({op: make_op(op, link.source) for op in link.ops}) for link in plan.links
        )

    def forward(
        self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor | None], *neighborhood: Any
    ) -> Tensor:
        """The output states along dimension 1; `weights` are those of each edge's operations."""
        states = [self.pre0(s0), self.pre1(s1)]
        edges = [cast("MixedOp", edge) for edge in self.edges]
        for step in range(self.plan.num_steps):
            parts = [
                edge(weight, states[link.source], *neighborhood)
                for link, edge, weight in zip(self.plan.links, edges, weights, strict=True)
                if link.step == step and len(edge) > 0
            ]
            states.append(cast("Tensor", sum(parts)))
        return torch.cat([states[i] for i in self.plan.concat], dim=1)


class CellNetwork(nn.Module):
    """A network of cells: with alphas a supernet, without them a derived network.

    Each edge has alphas `[O]` of its own for each kind of cell; that of a decided edge is frozen.
    """

    cells: nn.ModuleList

    def __init__(self, plans: Mapping[str, Plan], search: bool) -> None:
        super().__init__()
        self.plans = dict(plans)
        self.alphas = nn.ModuleDict()
        if search:
            for kind, plan in plans.items():
                values = [1e-3 * torch.randn(len(link.ops)) for link in plan.links]
                self.alphas[kind] = nn.ParameterList([nn.Parameter(value) for value in values])

    def mixing_weights(self) -> dict[str, list[Tensor | None]]:
        """The softmax weights of each edge, by kind of cell; None in a derived network."""
        if not self.alphas:
            return {kind: [None] * len(plan.links) for kind, plan in self.plans.items()}
        return {
            kind: [F.softmax(alpha, dim=-1) for alpha in self.edge_alphas(kind)]
            for kind in self.plans
        }

    def edge_alphas(self, kind: str) -> nn.ParameterList:
        """The alphas of a kind of cell, edge by edge."""
        return cast("nn.ParameterList", self.alphas[kind])

    def run_cells(
        self, s0: Tensor, s1: Tensor, neighborhood_of: Callable[[int, Tensor], tuple[Any, ...]]
    ) -> list[Tensor]:
        """The outputs of all cells; `neighborhood_of(number, s0)` are their further arguments."""
        weights = self.mixing_weights()
        outputs = []
        for number, cell in enumerate(cast("Iterator[Cell]", self.cells)):
            s0, s1 = s1, cell(s0, s1, weights[cell.kind], *neighborhood_of(number, s0))
            outputs.append(s1)
        return outputs

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas."""
        return [p for name, p in self.named_parameters() if not name.startswith("alphas.")]

    def select(self, selected: Mapping[str, Sequence[int]]) -> None:
        """Drop what the states `selected` of each kind's edges give up, and freeze their alphas.

        A state is UNDECIDED, PRUNED or the number of the operation taken.
        """
        for cell in cast("Iterator[Cell]", self.cells):
            links, states = self.plans[cell.kind].links, selected[cell.kind]
            for link, edge, state in zip(links, cell.edges, states, strict=True):
                kept = link.ops if state == UNDECIDED else link.ops[state : state + 1]
                if state == PRUNED:
                    kept = ()
                held = cast("MixedOp", edge)
                for name in set(held) - set(kept):
                    del held[name]
        for kind, states in selected.items():
            for alpha, state in zip(self.edge_alphas(kind), states, strict=True):
                if state != UNDECIDED:
                    alpha.requires_grad_(False)
                    alpha.grad = None


class SearchLoop:
    """The two steps of a first-order search, as DARTS's script has them.

    `network(*inputs)` gives logits, and `loss(logits, targets)` a scalar.
    """

    def __init__(
        self,
        network: CellNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        learning_rate: float,
        grad_clip: float = 5.0,
    ) -> None:
        self.network, self.loss, self.grad_clip = network, loss, grad_clip
        self.weight_optimizer = torch.optim.SGD(
            network.weights(), lr=learning_rate, momentum=0.9, weight_decay=3e-4
        )
        self.alpha_optimizer: torch.optim.Optimizer | None = None
        if network.alphas:
            self.alpha_optimizer = torch.optim.Adam(
                network.alphas.parameters(), lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3
            )

    def alpha_step(self, inputs: Sequence[Any], targets: Tensor) -> Tensor:
        """One step of Adam on the alphas; returns the loss."""
        assert self.alpha_optimizer is not None, "a derived network has no alphas"
        self.alpha_optimizer.zero_grad()
        loss = self.loss(self.network(*inputs), targets)
        loss.backward()
        self.alpha_optimizer.step()
        return loss

    def weight_step(self, inputs: Sequence[Any], targets: Tensor) -> Tensor:
        """One step of SGD on the weights, their gradient clipped; returns the loss."""
        self.weight_optimizer.zero_grad()
        loss = self.loss(self.network(*inputs), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.weights(), self.grad_clip)
        self.weight_optimizer.step()
        return loss
