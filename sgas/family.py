"""Family: what a family of networks supplies to the engine; it never decides anything.

The engine knows cells, alphas, decisions and time. A family knows operations, supernets and data.
They meet here: a `Family` describes itself without torch (names, options, presets) and opens a
`Task`, which is one data set with the models for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig
from sgas.native.library import Library
from sgas.protocols import Splits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sgas.cells.decisions import CellDecisions
    from sgas.labels import Labels


class Network(Protocol):
    """An `nn.Module` with one operation on each edge.

    It returns logits, in training with an auxiliary head (logits, auxiliary logits), which is its
    module `auxiliary`. `drop_path` is the probability of dropping an edge in training and may be
    changed from epoch to epoch.
    """

    drop_path: float

    def __call__(self, inputs: Any) -> Any: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, device: torch.device) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Supernet(Protocol):
    """An `nn.Module` whose open edges mix all candidates by the softmax of `alphas`."""

    @property
    def alphas(self) -> Any:
        """A mapping from each cell kind to a parameter `[E, O]`."""
        ...

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas, of what is not pruned."""
        ...

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Removes the operations that are not kept; what stays keeps its parameter objects."""
        ...

    def __call__(self, inputs: Any) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, device: torch.device) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Models(Protocol):
    """The networks of a search space for inputs and outputs of known size."""

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Network:
        """The derived network of a genotype, on the CPU."""
        ...

    def example_input(self) -> Any:
        """An input of one sample, for counting operations."""
        ...


class Searchable(Protocol):
    """What a search needs of a task besides data: a supernet, and how its logits are judged."""

    space: SearchSpace
    num_steps: int
    labels: Labels

    def build_supernet(self) -> Supernet:
        """A supernet with nothing decided, on the CPU."""
        ...


class Task(Models, Searchable, Splits, Protocol):
    """One data set, its splits, and the models for it.

    `dimensions` are the sizes that the data settle; `smallest_batch` how many samples a training
    batch needs at least (batch norm over single rows cannot train).
    """

    dimensions: dict[str, int]
    smallest_batch: int


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as the command line lists it."""

    name: str
    task: str
    help: str


@dataclass(frozen=True)
class Family:
    """A family as the command line sees it; nothing here needs torch.

    `home` is the module whose FAMILY this is: jobs on other machines import it by that name.
    `model_configs` and `data_configs` are, for each search space, dataclasses whose fields become
    options. `space_of(dataset, space)` names the search space of a data set without loading it
    (`space`: what the user asked for, or None).
    `open_task` loads the data set's training part and may raise DataError or ConfigError.
    `keep_own(dataset, test, root)` puts data that a program holds in memory into a folder under
    `root`, which is then a data set like any other. `library` are the compiled kernels, where there
    are some.
    """

    name: str
    home: str
    title: str
    package: str
    datasets: Mapping[str, DatasetInfo]
    default_dataset: str
    spaces: Mapping[str, SearchSpace]
    model_configs: Mapping[str, type]
    data_configs: Mapping[str, type]
    operation_groups: Mapping[str, str]
    default_preset: Callable[[str, str], str]
    space_of: Callable[[str, str | None], str]
    open_task: Callable[[RunConfig, Any, Any], Task]
    models: Callable[[str, Any, Mapping[str, int]], Models]
    paper_dimensions: Mapping[str, Mapping[str, int]]
    check_folder: Callable[[str], dict[str, Any]]
    keep_own: Callable[[Any, Any, str], Path]
    published_names: Callable[[], tuple[str, ...]]
    load_published: Callable[[str], Genotype]
    library: Library | None = None

    @property
    def command(self) -> str:
        """The console command of this family."""
        return f"sgas-{self.name}"
