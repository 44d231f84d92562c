"""GraphTask: one data set of graphs with the supernet and the networks for it.

Dimensions: B graphs, N nodes of a graph, R nodes that are asked, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig
from sgas.data import Source, SubsetSource, strata_of, stratified_parts
from sgas.errors import ConfigError, DataError, option
from sgas.family import Network, Supernet, refuse_auxiliary
from sgas.labels import Labels, ManyLabelsByGraph, kept, labels_of
from sgas.protocols import AlphasOn
from sgas_gcn.blocks import Blocks
from sgas_gcn.config import (
    GRAPH_SPACE,
    NASBENCHGRAPH_SPACE,
    NO_STEM,
    GraphDataConfig,
    GraphModelConfig,
    NasBenchGraphConfig,
)
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit
from sgas_gcn.datasets.graph_file import DEGREES
from sgas_gcn.datasets.graphs import load_graphs
from sgas_gcn.datasets.homophily import homophily_warnings
from sgas_gcn.datasets.moments import ADVICE, Moments, edge_warnings
from sgas_gcn.features import sparse, with_values
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.network import GraphNetwork
from sgas_gcn.ops.graph import GRAPH_OPERATIONS, WITH_ATTRIBUTES
from sgas_gcn.parts import PartedNeighbors, gains_by_parts
from sgas_gcn.preparation import GraphPreparation, graph_batch_of
from sgas_gcn.standardize import Standardize
from sgas_gcn.supernet import GraphSupernet

# The mean training graph of PPI, for counting operations and time.
EXAMPLE_NODES = 2245
EXAMPLE_DEGREE = 27
SPARSE = 0.1  # share of features that are not 0, below which products with them skip the others
MOLECULE = (30, 2)  # nodes and degree of a graph that has a label itself, as of NCI1


class GraphModels:
    """The supernet and the networks for nodes of `in_channels` features, `num_outputs` logits.

    With `per_graph` the logits are those of graphs. The space is the model's, unless
    another of the same layers is given with its operations.
    """

    smallest_batch: int
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def __init__(
        self,
        model: GraphModelConfig | NasBenchGraphConfig,
        in_channels: int,
        num_outputs: int,
        per_graph: int = 0,
        edge_channels: int = 0,
        space: SearchSpace | None = None,
        operations: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.num_steps = model, model.num_steps
        own = isinstance(model, GraphModelConfig)
        self.space = space or (GRAPH_SPACE if own else NASBENCHGRAPH_SPACE)
        self._cells: dict[str, Any] = {"space": self.space}
        if operations is not None:
            self._cells["operations"] = operations
        self.in_channels, self.num_outputs = in_channels, num_outputs
        self.dimensions = {"in_channels": in_channels, "num_outputs": num_outputs}
        self.per_graph, self.smallest_batch = bool(per_graph), 2 if per_graph else 1
        if per_graph:
            self.dimensions["per_graph"] = 1
            if not own:
                raise ConfigError(
                    f"space {self.space.name} labels nodes, and these labels are of graphs: leave "
                    f"{option('space')} out"
                )
            self._cells["per_graph"] = True
        self.edge_channels = edge_channels if own else 0
        if self.edge_channels:
            self.dimensions["edge_channels"] = edge_channels
            plain = self._cells.get("operations", GRAPH_OPERATIONS)
            table = {name: WITH_ATTRIBUTES.get(each, each) for name, each in plain.items()}
            self._cells |= {"operations": table, "edge_channels": edge_channels}

    def build_supernet(self) -> Supernet:
        """A supernet with nothing decided, on the CPU."""
        sizes = self.in_channels, self.num_outputs
        if isinstance(self.model, NasBenchGraphConfig):
            from sgas_gcn.nasbenchgraph import NasBenchGraphSupernet

            return NasBenchGraphSupernet(self.model, *sizes, **self._cells)
        return GraphSupernet(self.model, *sizes, **self._cells)

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Network:
        """The derived network of a genotype, on the CPU."""
        sizes = self.in_channels, self.num_outputs
        if isinstance(self.model, NasBenchGraphConfig):
            from sgas_gcn.nasbenchgraph import NasBenchGraphNetwork

            refuse_auxiliary(auxiliary, f"space {self.space.name}")
            return NasBenchGraphNetwork(genotype, self.model, *sizes, **self._cells)
        if self.per_graph:
            refuse_auxiliary(auxiliary, f"space {self.space.name}")
        return GraphNetwork(genotype, self.model, *sizes, auxiliary=auxiliary, **self._cells)

    def example_input(self) -> GraphBatch:
        """One random graph of the size of PPI's mean training graph, or of a molecule."""
        generator = torch.Generator().manual_seed(0)
        num_nodes, degree = MOLECULE if self.per_graph else (EXAMPLE_NODES, EXAMPLE_DEGREE)
        x = torch.randn(num_nodes, self.in_channels, generator=generator)
        sources = torch.randint(num_nodes, (num_nodes * degree,), generator=generator)
        targets = torch.arange(num_nodes).repeat_interleave(degree)
        attributes = None
        if self.edge_channels:
            attributes = torch.randn(len(sources), self.edge_channels, generator=generator)
        edges = torch.stack([sources, targets])
        return GraphBatch.of_graph(x, edges, attributes=attributes)


@dataclass(frozen=True)
class GraphSource:
    """Whole graphs on the device, each with its rows of targets; a sample is a graph.

    Their edges were sorted once; a batch joins them. In training, features are put to `centre`
    `[D]`, or zero, by chance. `blocks` are those of steps, where they do not hold the whole graph.
    With `per_graph` a row is of a graph.
    """

    graphs: Sequence[GraphBatch]
    targets: Sequence[Tensor]
    feature_dropout: float = 0.0
    centre: Tensor | None = None
    blocks: Blocks | None = None
    per_graph: bool = False

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def index_device(self) -> torch.device:
        """The CPU, wherever the graphs are: their tensors stand in a list."""
        return torch.device("cpu")

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[GraphBatch, Tensor]:
        """The graphs `index` `[B]` as one, with the targets of all their asked nodes."""
        numbers = index.tolist()
        batch = GraphBatch.join([self.graphs[number] for number in numbers])
        targets = torch.cat([self.targets[number] for number in numbers])
        if generator is None or self.feature_dropout == 0:
            return batch, targets
        keep, x = 1 - self.feature_dropout, batch.x
        if x.is_sparse:
            values = x.values()
            kept = torch.rand(values.shape, generator=generator, device=x.device) < keep
            return batch.with_features(with_values(x, values * kept / keep)), targets
        kept = torch.rand(x.shape, generator=generator, device=x.device) < keep
        if self.centre is None:
            return batch.with_features(x * kept / keep), targets
        return batch.with_features(self.centre + (x - self.centre) * kept / keep), targets

    @property
    def num_asked(self) -> int:
        """How many nodes are asked."""
        return sum(map(len, self.targets))

    def in_steps(self) -> GraphSource:
        """The asked nodes as training steps take them: in blocks, if there are any."""
        if self.blocks is None:
            return self
        (graph,), (targets,) = self.graphs, self.targets
        asked = graph.asked_nodes.cpu().numpy()
        graphs, parts = self.blocks.asking(asked, targets, graph.x.device)
        return replace(self, graphs=graphs, targets=parts, blocks=None)

    def in_parts(self, fractions: tuple[float, ...], seed: int) -> list[Source]:
        """Disjoint parts, drawn within the classes: of the asked nodes of one graph, or of graphs.

        The fractions add up to 1; a part of fraction 0 is empty.
        """
        if len(self) == 1 and self.graphs[0].asked is not None and not self.per_graph:
            (graph,), (targets,) = self.graphs, self.targets
            rows = stratified_parts(strata_of(targets.cpu().numpy()), fractions, seed)
            return [self.only(torch.from_numpy(part).to(graph.x.device)) for part in rows]
        strata = np.zeros(len(self), np.int64)
        if self.per_graph:
            strata = strata_of(torch.cat(list(self.targets)).cpu().numpy())
        numbers = stratified_parts(strata, fractions, seed)
        return [SubsetSource(self, torch.from_numpy(part)) for part in numbers]

    def row_names(self, number: int) -> list[tuple[str, ...]]:
        """A graph and each of its asked nodes, by their numbers; or the graph if it is asked."""
        if self.per_graph:
            return [(str(number),)]
        nodes = self.graphs[number].asked_nodes.tolist()
        return [(str(number), str(node)) for node in nodes]

    def only(self, rows: Tensor) -> GraphSource:
        """The same one graph, of whose asked nodes the `rows` `[n]` alone are asked."""
        (graph,), (targets,) = self.graphs, self.targets
        asked = graph.asked_nodes.index_select(0, rows)
        return replace(
            self, graphs=[replace(graph, asked=asked)], targets=[targets.index_select(0, rows)]
        )


class GraphTask(GraphModels):
    """A data set of graphs; its training part is read and checked here, its test part on demand."""

    paper_alphas_on = AlphasOn.VALIDATION

    def __init__(
        self,
        dataset: str,
        model: GraphModelConfig | NasBenchGraphConfig,
        data: GraphDataConfig,
        run: RunConfig,
        **cells: Any,
    ) -> None:
        self._load = partial(
            load_graphs, dataset, data_root=run.data_root, seed=run.seed, options=data
        )
        self._data, self.dataset = data, dataset
        self._training: GraphSplit = self._load(split="train")
        if not self._training.graphs:
            raise DataError(f"{dataset} has no training graphs: add some")
        if not self._training.per_graph:
            self._check_sizes(self._training.graphs)
        self.remarks = self._training.remarks
        self.classes = self._training.label_names
        self.transductive = self._training.transductive  # one graph, of which some nodes are asked
        self.samples = "nodes" if self.transductive else "graphs"
        by_graph = data.micro_f1_by == "graph" and not self._training.per_graph
        targets = [graph.targets for graph in self._training.graphs]
        self.labels: Labels = labels_of(targets, by_graph, data.number_loss)
        sizes = self._training.num_features, len(self.classes), int(self._training.per_graph)
        super().__init__(model, *sizes, self._training.edge_channels, **cells)
        answered = [g.x if g.nodes is None else g.x[g.nodes] for g in self._training.graphs]
        self._moments = Moments.of(answered)
        standardize = getattr(model, "standardize", None)  # None: the space has no such option
        self._standardizes = bool(standardize)
        advice = "standardise them in the data" if standardize is None else ADVICE
        far = [] if self._standardizes else self._moments.warnings(advice)
        self._blocks = self._in_blocks(data.batch_nodes)
        self._parted: PartedNeighbors | None = None
        self._sparse = self._is_sparse()
        of_edges = [g.attributes for g in self._training.graphs if g.attributes is not None]
        far += edge_warnings(of_edges) if self.edge_channels else []
        if self.transductive:
            far += homophily_warnings(self._training.graphs[0], getattr(model, "propagation", 0))
        self.warnings = [*far, *self._in_words(self._blocks)]

    def build_supernet(self) -> Supernet:
        """A supernet with nothing decided, on the CPU, that knows the training set's moments."""
        return self._standardizing(super().build_supernet())

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Network:
        """The derived network of a genotype, on the CPU, that knows the training set's moments."""
        return self._standardizing(super().build_network(genotype, auxiliary))

    def _standardizing(self, network: Any) -> Any:
        for module in network.modules():
            if isinstance(module, Standardize):
                module.take(self._moments)
        return network

    def _check_sizes(self, graphs: Sequence[GraphArrays]) -> None:
        """DataError where a batch could be of a single node, which batch norm cannot train on."""
        for number, graph in enumerate(graphs):
            if len(graph.x) < 2:
                raise DataError(
                    f"training graph {number} of {self.dataset} has {len(graph.x)} nodes; it "
                    "takes 2: leave it out"
                )

    def _is_sparse(self) -> bool:
        """Whether cells read the features of one graph, and nearly all of these are 0."""
        if getattr(self.model, "stem", None) != NO_STEM or self._standardizes:
            return False
        x = self._training.graphs[0].x
        few = bool(np.count_nonzero(x) < SPARSE * x.size)
        return few and self.transductive and self._blocks is None

    def _in_blocks(self, most_nodes: int) -> Blocks | None:
        """The blocks of steps, where there is one graph that is larger than that."""
        graph = self._training.graphs[0]
        if most_nodes and not self.transductive:
            raise ConfigError(
                f"batch_nodes is {most_nodes}, but {self.dataset} has several graphs, of which a "
                f"step takes {option('batch_size')}: leave it out"
            )
        if not 0 < most_nodes < len(graph.x):
            return None
        return Blocks.of(graph, most_nodes)

    def _in_words(self, blocks: Blocks | None) -> list[str]:
        if blocks is None:
            return []
        return [
            f"steps hold {len(blocks.batches)} blocks of at most {self._data.batch_nodes} nodes, "
            f"without the {blocks.left_out:.1%} of edges that join two; so are the figures of a "
            "search, and those of a training of the whole graph"
        ]

    def fingerprint(self) -> str:
        """A hash of the training set."""
        return self._training.fingerprint()

    @property
    def preparation(self) -> GraphPreparation:
        """Graphs as they are."""
        by_graph = isinstance(self.labels, ManyLabelsByGraph)
        many, per_graph = self._training.multi_label, self._training.per_graph
        how = DEGREES in self.remarks, kept(self.labels), self._training.weighted
        sizes = self.edge_channels, self._data.batch_nodes if can_part(self.model) else 0
        return GraphPreparation(self.in_channels, many, by_graph, per_graph, *how, *sizes)

    def _source(self, split: GraphSplit, device: torch.device) -> GraphSource:
        """The graphs of a split on the device, their edges sorted."""
        batches = [graph_batch_of(graph) for graph in split.graphs]
        if self._blocks is not None and can_part(self.model) and gains_by_parts(batches[0], device):
            if self._parted is None:  # all splits have the same graph
                self._parted = PartedNeighbors.of(batches[0].neighbors, self._blocks.block_of)
            batches = [replace(batch, neighbors=self._parted) for batch in batches]
        batches = [batch.to(device) for batch in batches]
        if self._sparse:
            batches = [batch.with_features(sparse(batch.x)) for batch in batches]
        targets = [torch.from_numpy(graph.targets).to(device) for graph in split.graphs]
        centre = None
        if self._standardizes:
            centre = torch.from_numpy(self._moments.mean.astype(np.float32)).to(device)
        options = self._data.feature_dropout, centre, self._blocks, self.per_graph
        return GraphSource(batches, targets, *options)

    def parts_of_training(
        self, fractions: tuple[float, ...], seed: int, device: torch.device
    ) -> list[Source]:
        """The training set in parts: its graphs, or where there is one graph, its nodes."""
        source = self.training_part(device)
        wanted = sum(fraction > 0 for fraction in fractions)
        if len(source) < wanted and not self.transductive:
            raise DataError(
                f"{self.dataset} has {len(source)} training graphs; splitting them takes at "
                f"least {wanted}: add graphs"
            )
        return source.in_parts(fractions, seed)

    def training_part(self, device: torch.device) -> GraphSource:
        """All training graphs."""
        return self._source(self._training, device)

    def validation_part(self, device: torch.device) -> GraphSource | None:
        """The validation split of the data set, or None where it has none."""
        split = self._load(split="val")
        self._check_agreement(split, "validation")
        return self._source(split, device) if split.graphs else None

    def test_part(self, device: torch.device) -> GraphSource:
        """The test split, opened here for the first time."""
        split = self._load(split="test")
        if not split.graphs:
            raise DataError(f"{self.dataset} has no test graphs: add some")
        self._check_agreement(split, "test")
        return self._source(split, device)

    def count(self, part: Source) -> int:
        """Graphs of a part, or where it is one graph of which nodes are asked, these nodes."""
        if self.transductive and isinstance(part, GraphSource):
            return part.num_asked
        return len(part)

    def _check_agreement(self, split: GraphSplit, name: str) -> None:
        """DataError where graphs of a split have other features than those of training."""
        if split.graphs and split.num_features != self.in_channels:
            raise DataError(
                f"{name} graphs have {split.num_features} features, training graphs "
                f"{self.in_channels}; both have to agree"
            )
        if split.graphs and split.per_graph != self._training.per_graph:
            raise DataError(f"{name} graphs have labels of another level than training graphs")
        if split.graphs and split.edge_channels != self._training.edge_channels:
            raise DataError(
                f"edges of {name} graphs have {split.edge_channels} attributes, of training graphs "
                f"{self._training.edge_channels}; both have to agree"
            )


def can_part(model: Any) -> bool:
    """Whether networks take a graph part by part: the graph space's, which do not propagate."""
    return isinstance(model, GraphModelConfig) and not model.propagation


def models(model: Any, dimensions: Mapping[str, int], **cells: Any) -> GraphModels:
    """The networks of the graph space for inputs and outputs of known size, without data.

    `cells` are the `space` and `operations` of another space of the same layers.
    """
    sizes: dict[str, Any] = dict(dimensions)
    return GraphModels(model, **sizes, **cells)


def open_task(run: RunConfig, model: Any, data: Any, **cells: Any) -> GraphTask:
    """The task of a run's data set; DataError or ConfigError where it cannot be used."""
    assert run.dataset is not None, "the command line resolves the data set first"
    return GraphTask(run.dataset, model, data, run, **cells)
