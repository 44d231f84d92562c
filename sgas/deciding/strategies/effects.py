"""Effects: every operation is judged by the loss that it adds to cells of one operation an edge.

    loss(path, batch) ≈ block(batch) + Σ_e effect[e, operation of the path on e]

A path is a complete cell. The weights are trained by single paths, each of them dealt evenly, and
a design of other paths is scored in blocks that share a batch; least squares gives the effects and
their standard errors. At each decision epoch the open edge with the best operation takes it, and
the effects are estimated again in the supernet that is left, where they are conditional on it.

Source: single paths, dealt evenly, are those of Chu et al., "FairNAS", ICCV 2021; least squares in
blocks is the classical analysis of a designed experiment. No alphas are trained: in their place
stand minus the effects, so that all that reads alphas reads these.
Dimensions: E edges, O candidate operations (column 0, `none`, is never dealt), N scored paths.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgas.cells.decisions import PRUNED, CellDecisions, Status, decided
from sgas.deciding.evidence import Evidence
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies.base import EpochView, best_gain, margin_by_errors
from sgas.deciding.strategies.greedy import Greedy


def best_effect(alphas: Tensor, history: Tensor) -> Tensor:
    """The gain by the best operation of each edge, `[..., E, O]` to `[..., E]`; no use of history.

    It counts from the mean over the paths, so that edges can be compared.
    """
    return best_gain(alphas)


@dataclass(frozen=True)
class ByEffects(Greedy):
    """Decides as `Greedy` does, by effects in the place of alphas."""

    trains_paths = True

    def first_decision(self, schedule: Schedule) -> None:
        """None: no alphas are trained."""

    def evidence(
        self, view: EpochView, edge: int, op: str, other: str | None = None
    ) -> Evidence | None:
        """How far the operation is ahead of the next on its edge, in nats; None without effects."""
        return margin_by_errors(view, edge, op, other)


EFFECTS = ByEffects(best_effect)


def deal_paths(
    cell: CellDecisions, operations: Sequence[str], seed: str
) -> Iterator[CellDecisions]:
    """Complete cells without end that agree with what is decided, and use all else evenly.

    Each edge deals its operations from a shuffled deck, which is shuffled anew when all are dealt;
    each step takes the open edges that it has taken least, by lot among equals. So in spaces that
    keep all edges every O - 1 paths in turn use each operation of each edge once. The paths follow
    from `seed` alone.
    """
    draw = random.Random(seed)
    decks: dict[int, list[str]] = {edge: [] for edge in cell.undecided}
    taken = dict.fromkeys(cell.undecided, 0)
    topology = cell.topology
    while True:
        states = list(cell.states)
        for step in range(topology.num_steps):
            into = [edge.index for edge in topology.edges_into(step)]
            missing = topology.kept_into(step) - sum(
                states[edge].status is Status.DECIDED for edge in into
            )
            open_edges = [edge for edge in into if states[edge].status is Status.UNDECIDED]
            draw.shuffle(open_edges)
            open_edges.sort(key=taken.__getitem__)
            for edge in open_edges[:missing]:
                if not decks[edge]:
                    decks[edge] = draw.sample(operations[1:], len(operations) - 1)
                states[edge] = decided(decks[edge].pop())
                taken[edge] += 1
            for edge in open_edges[missing:]:
                states[edge] = PRUNED
        yield CellDecisions(topology, tuple(states))


@dataclass(frozen=True)
class Effects:
    """Estimates: `gains` and `errors`, each float64 `[E, O]`.

    `gains` are minus the effects, in units of the loss; 0 where there is none to estimate.
    `errors` are the standard errors of an operation's distance to the best one of its edge.
    """

    gains: Tensor
    errors: Tensor


def used_by(path: CellDecisions, operations: Sequence[str]) -> Tensor:
    """Which operations a complete cell uses: float64 `[E, O]` of zeros and ones."""
    used = torch.zeros(len(path.states), len(operations), dtype=torch.float64)
    for edge, state in enumerate(path.states):
        if state.op is not None:
            used[edge, operations.index(state.op)] = 1
    return used


def fit_effects(losses: Tensor, blocks: Tensor, used: Tensor) -> Effects:
    """Least squares of `losses` float64 `[N]` by their `blocks` int64 `[N]` and what paths use.

    `used` is float64 `[N, E, O]`, the edges of all kinds of cell. The solution is the shortest:
    where only differences can be told (operations of an edge that is in every path), the effects
    of an edge add up to 0.
    """
    seen = used.sum(0) > 0
    seen &= (seen.sum(-1) > 1)[:, None]  # an edge that has no choice left
    design = within_blocks((used * seen).flatten(1), blocks)
    y = within_blocks(losses[:, None], blocks)[:, 0]
    inverse = torch.linalg.pinv(design.t() @ design, hermitian=True, rtol=1e-9)
    effects = inverse @ (design.t() @ y)
    freedom = len(losses) - len(blocks.unique()) - int(torch.linalg.matrix_rank(design))
    assert freedom > 0, "more paths than effects and blocks"
    variance = (y - design @ effects).square().sum() / freedom
    gains = torch.where(seen, -effects.view(seen.shape), 0.0)
    place = torch.arange(seen.numel()).view(seen.shape)
    best = place.gather(1, torch.where(seen, gains, -torch.inf).argmax(1, keepdim=True))
    diagonal = inverse.diagonal()
    spread = diagonal[place] + diagonal[best] - 2 * inverse[place, best]
    return Effects(gains, torch.where(seen, (variance * spread.clamp(min=0)).sqrt(), 0.0))


def within_blocks(values: Tensor, blocks: Tensor) -> Tensor:
    """`values` `[N, D]` less the mean of their block."""
    groups = torch.nn.functional.one_hot(blocks).to(values)
    return values - groups @ (groups.t() @ values / groups.sum(0)[:, None])
