"""Family: what a family of networks supplies to the engine; it never decides anything.

The engine knows cells, alphas, decisions and time. A family knows operations, supernets and data.
They meet here: a `Family` describes itself without torch (names, options, presets) and opens a
`Task`, which is one data set with the models for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig
from sgas.errors import ConfigError
from sgas.native.library import Library
from sgas.protocols import Splits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sgas.cells.decisions import CellDecisions
    from sgas.exporting.forms import NetworkForm
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

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        """Runs what complete `cells` keep and nothing else; None: all that is not removed.

        Nothing is freed, and a cell may be any that agrees with the decisions in force.
        """
        ...

    def __call__(self, inputs: Any) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, device: torch.device) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


def refuse_auxiliary(auxiliary: bool, of: str) -> None:
    """ConfigError where a network `of` something without auxiliary heads is to have one."""
    if auxiliary:
        raise ConfigError(
            f"auxiliary is true, but networks of {of} have no auxiliary head: leave it out"
        )


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


class Trainable(Models, Searchable, Protocol):
    """What a training of one of the cells of a space needs of a task besides data."""


@dataclass(frozen=True)
class Samples:
    """What a network is asked: `items`, as `Preparation.batches` takes them, and their `names`.

    `alone` says that one was given by itself, not a list of one. `targets` `[R]` or `[R, L]` are
    of all rows of answers, numbers of `classes`; None where they are not known. `rows` are the
    numbers of the rows of each sample, where these are not all that it has.
    """

    items: Sequence[Any]
    names: Sequence[str]
    alone: bool = False
    targets: Tensor | None = None
    classes: tuple[str, ...] = ()
    rows: Sequence[Sequence[int]] = ()


class Preparation(Protocol):
    """How a trained network's inputs are made of what a user has; its run keeps the fields.

    A frozen dataclass of JSON values. A sample has one row of logits, or where a row has a name any
    number of them. One that asks of a sample in parts has a method `joined(item, parts)`, which
    makes the rows of an item from those of its parts in turn.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def row_name(self) -> str:
        """What has a row of logits where a sample has several (node, point); empty else."""
        ...

    @property
    def labels(self) -> Labels:
        """How logits become predictions."""
        ...

    def read(self, data: Any, run: RunConfig, options: Any) -> Samples:
        """The samples in arrays, lists, data sets or files.

        A data set by name, or a folder of one's own, gives its test part; `run` says where data
        lie, `options`, a data config, what own data is. DataError where the network cannot take
        them.
        """
        ...

    def batches(
        self, items: Sequence[Any], batch_size: int, device: torch.device
    ) -> Iterator[tuple[Sequence[int], Any, Sequence[int]]]:
        """Inputs of a network, each with the numbers of its samples and their counts of rows."""
        ...


class Task(Models, Searchable, Splits, Protocol):
    """One data set, its splits, and the models for it.

    `dimensions` are the sizes that the data settle, `classes` the names of the classes or labels;
    `smallest_batch` how many samples a training batch needs at least (batch norm over single rows
    cannot train); `warnings` what looks wrong with the training set, a line each; `remarks` what of
    the data is not used or was changed, a few words each.
    """

    dimensions: dict[str, int]
    classes: tuple[str, ...]
    smallest_batch: int
    warnings: Sequence[str]
    remarks: Sequence[str]

    def fingerprint(self) -> str:
        """A short hash of the training set, the same for the same data wherever they lie."""
        ...

    @property
    def preparation(self) -> Preparation:
        """How inputs are made where the data are not there any more."""
        ...


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as the command line lists it."""

    name: str
    task: str
    help: str


@dataclass(frozen=True)
class OperationCase:
    """What an operation is tried on: what it is made of, what it takes, what shape it gives.

    It takes `x` float64, and `rest` beside it. Where nothing may depend on the order of the rows
    of `x`, `order` is another, and `reordered` the rest in that.
    """

    arguments: tuple[Any, ...]
    x: Tensor
    rest: tuple[Any, ...]
    shape: tuple[int, ...]
    order: Tensor | None = None
    reordered: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Operations:
    """What the edges of a space can hold: makers by name, and the class of what they make.

    A space is searched over its candidates, which are in the table; others may be too. `cases` are
    for `sgas.testing`.
    """

    table: dict[str, Any]
    base: type
    cases: Callable[[], Sequence[OperationCase]] = tuple


@dataclass(frozen=True)
class Space:
    """A search space with all that the tasks in it are made of; nothing here needs torch.

    The fields of `model_config` and `data_config` become options. `open_task` loads the training
    part of a data set and may raise DataError or ConfigError; `models` are the networks for inputs
    and outputs of known size, as of `paper_dimensions`; `preparation` makes that of a task again
    from its fields. `operations` imports what its entries need.

    `datasets` are entries with `name`, `help` and `load`, made by `dataset_entry` of these, and
    `task` what they are called together. `like` is the space whose data sets another space takes.
    `compiled` tells whether supernets run the family's compiled kernels at all.
    `presets` are values by name and verb, for a space that no file of the package has any for.
    `form` says of a network, with its preparation if known and an example of its input, how it is
    written as a file of its own, and `from_text` reads a genotype that begins with `|`, as the
    space's users write it.
    """

    search_space: SearchSpace
    task: str
    model_config: type
    data_config: type
    open_task: Callable[[RunConfig, Any, Any], Task]
    models: Callable[[Any, Mapping[str, int]], Models]
    preparation: Callable[[Mapping[str, Any]], Preparation]
    paper_dimensions: Mapping[str, int]
    operations: Callable[[], Operations]
    datasets: dict[str, Any] = field(default_factory=dict)
    dataset_entry: Callable[..., Any] | None = None
    like: str | None = None
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    form: Callable[[Any, Any, Any], NetworkForm] | None = None
    from_text: Callable[[str], Genotype] | None = None
    compiled: bool = True


@dataclass(frozen=True)
class Family:
    """A family as the command line sees it; nothing here needs torch.

    `home` is the module whose FAMILY this is: jobs on other machines import it by that name.
    `spaces` are its search spaces by name, to which others can be added (`sgas.registry`), and
    `operation_groups` what operations are alike in pictures. `space_of(dataset, space)` names the
    search space of a data set without loading it (`space`: what the user asked for, or None).
    `keep_own(dataset, test, root, target)` puts data that a program holds in memory into a folder
    under `root`, which is then a data set like any other; `check_folder(folder, target)` describes
    one. `library` are the compiled kernels, where there are some.
    """

    name: str
    home: str
    title: str
    package: str
    default_dataset: str
    spaces: dict[str, Space]
    operation_groups: dict[str, str]
    default_preset: Callable[[str, str], str]
    space_of: Callable[[str, str | None], str]
    check_folder: Callable[[str, str], dict[str, Any]]
    keep_own: Callable[[Any, Any, str, str], Path]
    published_names: Callable[[], tuple[str, ...]]
    load_published: Callable[[str], Genotype]
    library: Library | None = None

    @property
    def command(self) -> str:
        """The console command of this family."""
        return f"sgas-{self.name}"

    @property
    def datasets(self) -> dict[str, DatasetInfo]:
        """The data sets of all spaces by name."""
        return {
            name: DatasetInfo(name, space.task, entry.help)
            for space in self.spaces.values()
            for name, entry in space.datasets.items()
        }

    def search_space(self, name: str) -> SearchSpace:
        """The cells of a space."""
        return self.spaces[name].search_space

    def open_task(self, run: RunConfig, model: Any, data: Any) -> Task:
        """The task of a run's data set in the run's space; DataError or ConfigError as there."""
        return self.spaces[str(run.space)].open_task(run, model, data)
