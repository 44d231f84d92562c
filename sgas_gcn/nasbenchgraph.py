"""Supernet and derived network of the NAS-Bench-Graph space.

Source: Qin et al., "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search", NeurIPS 2022,
section 3.1, and the code that comes with it: dropout on the features, a linear layer where
`pre_layers` says so, one cell, a linear layer on the ReLU of its leaves, another one
(`post_layers`) after it. Each node of the cell has one input, an earlier node or the features. An
operation that reads a node is op(dropout(ReLU(BN(x)))); one that reads the features, or a chain of
skips from them, reads them as they are. Dimensions: N nodes of graphs, R nodes that are asked,
I features, C channels, E edges of the cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.alphas import draw_alphas, weights_of
from sgas.cells.decisions import CellDecisions, Status
from sgas.cells.edges import (
    CellLayout,
    derived_layout,
    kept_operations,
    restrict,
    running,
    searched_layout,
)
from sgas.cells.genotype import Genotype
from sgas.cells.space import NONE, SearchSpace
from sgas.native.precision import runs_plain
from sgas_gcn.cells import DropPath, drop_clouds
from sgas_gcn.config import NASBENCHGRAPH_SPACE, NasBenchGraphConfig
from sgas_gcn.constants import EPS
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.graph_batch import GraphBatch, edges_of
from sgas_gcn.ops.nasbenchgraph import NASBENCHGRAPH_TABLE, NodeOperation, Skip
from sgas_gcn.ops.operation import BatchNorm
from sgas_gcn.ops.plain import PlainNeighbors, given_edges
from sgas_gcn.sparse import dense, drop, linear

KIND = "normal"
OperationTable = Mapping[str, Callable[[int, int], NodeOperation]]


class Activated(nn.Module):
    """An operation with what stands before it: op(dropout(ReLU(BN(x)))), or op(x) where `alone`."""

    def __init__(self, operation: Any, alone: bool, dropout: float) -> None:
        super().__init__()
        self.alone, self.dropout = alone, dropout
        self.norm = None if alone else BatchNorm(operation.in_channels)
        self.operation, self.drop = operation, nn.Dropout(dropout)

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]` for a node `[N, C]`, or for the features `[N, I]`."""
        if self.norm is not None:
            x = drop(F.relu(_normed(self.norm, x)), self.drop)
        return self.operation(x, neighbors)

    def plain(self, x: Tensor, neighbors: PlainNeighbors) -> Tensor:
        """The output `[N, C]` for a node `[N, C]`, or for the features `[N, I]`, in plain torch."""
        if self.norm is not None:
            x = self.drop(F.relu(self.norm(x)))
        return self.operation.plain(x, neighbors)


def _normed(norm: BatchNorm, x: Tensor) -> Tensor:
    """`norm(x)` by torch's own kernel, where there is a variance."""
    if len(x) < 2:
        return cast("Tensor", norm(x))
    parameters = norm.weight, norm.bias, norm.running_mean, norm.running_var
    return torch.batch_norm(x, *parameters, norm.training, norm.momentum, EPS, False)


class NodeCell(nn.Module):
    """A cell after `layout`, whose first state has `in_channels` features.

    `raw` says of each state whether it is the features as they came, without a layer of its own.
    """

    def __init__(
        self,
        layout: CellLayout,
        config: NasBenchGraphConfig,
        in_channels: int,
        raw_features: bool,
        operations: OperationTable,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.links = [(edge.source, edge.step) for edge in layout.edges]
        self.columns = {op: column for column, op in enumerate(operations)}
        self.raw = [raw_features]
        self.edges = nn.ModuleList()
        for edge in layout.edges:
            raw = self.raw[edge.source]
            width = in_channels if raw else config.channels
            made = {op: operations[op](width, config.channels) for op in edge.ops}
            self.edges.append(
                nn.ModuleDict(
                    {op: Activated(m, raw or op == NONE, config.dropout) for op, m in made.items()}
                )
            )
            if edge.step + 1 == len(self.raw):
                skips = any(isinstance(operation, Skip) for operation in made.values())
                self.raw.append(raw and skips)
        self.select(None)

    def restrict(self, kept: Sequence[Sequence[str]]) -> None:
        """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
        restrict(self.edges, kept)
        self.select(None)

    def select(self, kept: Sequence[Sequence[str]] | None) -> None:
        """Run the operations in `kept` alone, by edge, and free none; None: all that are held."""
        self.running = [running(self.edges, edge, kept) for edge in range(len(self.edges))]

    def forward(
        self,
        x: Tensor,
        neighbors: GraphNeighbors,
        weights: Tensor | None = None,
        drop_path: DropPath | None = None,
    ) -> list[Tensor]:
        """All states, the features `x` `[N, I]` first, then `[N, C]` of each computing node.

        `weights` `[E, O]` multiply the operations of edges that hold several; `drop_path` is
        applied to what an edge puts out, `[N, 1, C]`, but where it holds a skip.
        """
        states = [x]
        for step in range(max(step for _, step in self.links) + 1):
            parts = [
                self._output(edge, states[source], neighbors, weights, drop_path)
                for edge, (source, into) in enumerate(self.links)
                if into == step and self.running[edge]
            ]
            states.append(sum(parts[1:], start=parts[0]))
        return states

    def plain(self, x: Tensor, neighbors: PlainNeighbors) -> list[Tensor]:
        """The leaves of a cell that is decided, whose nodes read one state each."""
        states = [x]
        for (source, _), held in zip(self.links, self.running, strict=True):
            (operation,) = cast("Mapping[str, Activated]", held).values()
            states.append(operation.plain(states[source], neighbors))
        return [states[leaf] for leaf in self.layout.concat]

    def _output(
        self,
        edge: int,
        x: Tensor,
        neighbors: GraphNeighbors,
        weights: Tensor | None,
        drop_path: DropPath | None,
    ) -> Tensor:
        """What an edge puts out."""
        operations = cast("Mapping[str, Activated]", self.running[edge])
        if weights is None or len(operations) == 1:
            (operation,) = operations.values()
            out = operation(x, neighbors)
            if drop_path is None or operation.operation.skips:
                return out
            return drop_path(out.unsqueeze(1)).squeeze(1)
        scaled = [
            weights[edge, self.columns[op]] * operation(x, neighbors)
            for op, operation in operations.items()
            if op != NONE
        ]
        return sum(scaled[1:], start=scaled[0])


class LeafLayer(nn.Module):
    """The linear layer on the joined leaves, by leaf: Σ over the leaves s of W_s R(x_s), and b.

    `widths` are the features of each leaf. `is_head` says that the output are the logits.
    """

    is_head = False

    def __init__(self, widths: Mapping[int, int], out_channels: int) -> None:
        super().__init__()
        self.widths, self.out_channels = dict(widths), out_channels
        whole = nn.Linear(sum(widths.values()), out_channels)
        self.bias = whole.bias
        self.parts = nn.ModuleDict()
        weights = whole.weight.detach().split(list(widths.values()), 1)
        for (leaf, width), weight in zip(widths.items(), weights, strict=True):
            part = nn.Linear(width, out_channels, bias=False)
            part.weight = nn.Parameter(weight.clone())
            self.parts[str(leaf)] = part
        self.select(list(widths))

    def restrict(self, leaves: Sequence[int]) -> None:
        """Free the weights of states that are no leaves."""
        for name in set(self.parts) - {str(leaf) for leaf in leaves}:
            del self.parts[name]
        self.select(leaves)

    def select(self, leaves: Sequence[int]) -> None:
        """Join these states alone, and free no weights."""
        self.running = tuple(leaves)

    def forward(self, states: Mapping[int, Tensor], shares: Mapping[int, Tensor]) -> Tensor:
        """The output `[R, out_channels]` for states `[R, C]`, each times its share (or 1)."""
        out = self.bias
        for leaf in self.running:
            output = self.parts[str(leaf)](F.relu(states[leaf]))
            out = out + (shares[leaf] * output if leaf in shares else output)
        return out

    def plain(self, leaves: Sequence[Tensor]) -> Tensor:
        """The output `[N, out_channels]` for all leaves in order, `[N, C]` each."""
        out: Tensor = self.bias
        for part, leaf in zip(self.parts.values(), leaves, strict=True):
            out = out + part(F.relu(leaf))
        return out


class NasBenchGraphBody(nn.Module):
    """Logits `[R, num_outputs]` of the asked nodes, by one cell after a layout."""

    def __init__(
        self,
        layout: CellLayout,
        config: NasBenchGraphConfig,
        in_channels: int,
        num_outputs: int,
        pre_layers: int,
        operations: OperationTable,
    ) -> None:
        super().__init__()
        channels, self.dropout = config.channels, nn.Dropout(config.dropout)
        self.pre = nn.Linear(in_channels, channels) if pre_layers else nn.Identity()
        cell = NodeCell(layout, config, in_channels, not pre_layers, operations)
        self.cells = cast("Sequence[NodeCell]", nn.ModuleList([cell]))  # which hides what it holds
        width = channels if config.post_layers else num_outputs
        widths = {leaf: in_channels if cell.raw[leaf] else channels for leaf in layout.concat}
        self.leaves = LeafLayer(widths, width)
        self.leaves.is_head = not config.post_layers
        self.post = nn.Linear(channels, num_outputs) if config.post_layers else nn.Identity()

    def forward(
        self,
        batch: GraphBatch,
        weights: Tensor | None = None,
        shares: Mapping[int, Tensor] | None = None,
        drop_path: DropPath | None = None,
    ) -> Tensor:
        """The logits; `weights` and `drop_path` are the cell's, `shares` those of its leaves."""
        x = drop(batch.features, self.dropout)
        if isinstance(self.pre, nn.Linear):
            x = linear(x, self.pre.weight, self.pre.bias)
        states = self.cells[0](x, batch.neighbors, weights, drop_path)
        asked = {leaf: batch.answers(dense(states[leaf])) for leaf in self.leaves.running}
        return self.post(self.leaves(asked, shares or {}))

    def plain(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Logits `[N, num_outputs]` of all nodes `[N, in_channels]`, in plain torch.

        Edges are int64 `[2, E]`, sources above targets; an undirected one is there both ways. Their
        weights are float32 `[E]`, none below 0 (None: all 1).
        """
        neighbors = given_edges(edge_index, x.shape[0], edge_weight)
        leaves = self.cells[0].plain(self.pre(self.dropout(x)), neighbors)
        return self.post(self.leaves.plain(leaves))


class NasBenchGraphSupernet(nn.Module):
    """Logits `[R, num_outputs]` of the asked nodes of graphs with features `[N, in_channels]`.

    A linear layer before the cell makes all states alike, which mixtures need: `config.pre_layers`
    is not read. An open edge is chosen, of those into its node, by its share of their importance
    (the probability of operations other than `none`), and a node is a leaf by the probability that
    no edge which leaves it is chosen: with all decided this is the derived network.
    """

    def __init__(
        self,
        config: NasBenchGraphConfig,
        in_channels: int,
        num_outputs: int,
        space: SearchSpace = NASBENCHGRAPH_SPACE,
        operations: OperationTable = NASBENCHGRAPH_TABLE,
    ) -> None:
        super().__init__()
        self.config, self.space = config, space
        topology = space.topology(config.num_steps)
        layout = searched_layout(space, topology)
        self.body = NasBenchGraphBody(layout, config, in_channels, num_outputs, 1, operations)
        self.alphas = draw_alphas(space, topology)
        self._running = self._decisions = CellDecisions.none_yet(topology)

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided, by kind of cell."""
        return {KIND: self._decisions}

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas; after a decision, those that are left."""
        return weights_of(self)

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Free the operations that `decisions` gives up; those that stay keep their parameters.

        Takes any later state of the decisions, also one that is in force already, and is how a
        fresh supernet gets the shape of a checkpoint. What is gone cannot come back.
        """
        self._running = self._decisions = decisions[KIND]
        self.body.cells[0].restrict(kept_operations(self.space, self._decisions))
        self.body.leaves.restrict(self._leaves())

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        """Run what complete `cells` keep and nothing else; None: all that is held."""
        self._running = self._decisions if cells is None else cells[KIND]
        self.body.cells[0].select(kept_operations(self.space, self._running))
        self.body.leaves.select(self._leaves())

    def _leaves(self) -> tuple[int, ...]:
        """The states that are part of the output by what is decided."""
        topology, decided = self._running.topology, self._running.with_status(Status.DECIDED)
        return topology.outputs({topology.edges[edge].source for edge in decided})

    def leaf_shares(self, weights: Tensor) -> dict[int, Tensor]:
        """The probabilities that states are leaves, those that are one whatever comes left out."""
        topology, decisions = self._decisions.topology, self._decisions
        shares: dict[int, Tensor] = {}
        for step in range(topology.num_steps):
            into = [edge for edge in topology.edges_into(step) if edge.index in decisions.undecided]
            importance = 1 - weights[[edge.index for edge in into], 0]
            chosen = importance / importance.sum()
            for edge, share in zip(into, chosen.unbind(), strict=True):
                shares[edge.source] = shares.get(edge.source, 1) * (1 - share)
        return shares

    def forward(self, batch: GraphBatch) -> Tensor:
        """Logits `[R, num_outputs]` of the asked nodes."""
        if self._running.complete:
            return self.body(batch)
        weights = torch.softmax(self.alphas[KIND], dim=-1)
        return self.body(batch, weights, self.leaf_shares(weights))


class NasBenchGraphNetwork(nn.Module):
    """Logits `[R, num_outputs]` of the asked nodes of graphs, by the cell of a genotype.

    The number of steps is the genotype's; `config.num_steps` is not read. `drop_path` is the
    probability of dropping an edge of the cell for a node of the graph and may change between
    epochs. GenotypeError where the genotype is none of this space.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: NasBenchGraphConfig,
        in_channels: int,
        num_outputs: int,
        drop_path: float = 0.0,
        space: SearchSpace = NASBENCHGRAPH_SPACE,
        operations: OperationTable = NASBENCHGRAPH_TABLE,
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(space)
        self.config, self.drop_path = config, drop_path
        layout, before = derived_layout(space, genotype.cells[KIND]), config.pre_layers
        self.body = NasBenchGraphBody(layout, config, in_channels, num_outputs, before, operations)

    def forward(
        self,
        batch: GraphBatch | Tensor,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Logits `[R, num_outputs]` of the asked nodes; tensors, as of `plain`, run by that."""
        if isinstance(batch, Tensor):
            return self.plain(batch, edges_of(edge_index), edge_weight)
        if runs_plain(self, batch.x):
            edges = batch.neighbors.edges
            return batch.answers(self.plain(batch.x, torch.stack(edges.ends), edges.weights))
        drop_path: DropPath | None = None
        if self.training and self.drop_path > 0:
            drop_path = partial(drop_clouds, probability=self.drop_path, num_clouds=len(batch.x))
        return self.body(batch, drop_path=drop_path)

    def plain(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Logits `[N, num_outputs]` of all nodes `[N, in_channels]`, as `NasBenchGraphBody`'s."""
        return self.body.plain(x, edge_index, edge_weight)
