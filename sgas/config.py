"""Configurations: frozen dataclasses that check themselves; every option is a field of one.

No torch here: the command line reads this module to answer `--help`. Units stand in each field's
help. The defaults are the paper's where one preset serves all families; presets are YAML files
beside the family (`presets/`).
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from sgas.errors import ConfigError, nearest, unknown_name
from sgas.errors import option as named

PROTOCOLS = ("clean", "paper")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("cosine", "linear", "two_slopes")
LAST, BEST = KEPT_EPOCHS = ("last", "best")
CLUSTERS = ("slurm", "local")
AUTO, CLASS, LABELS, NUMBERS = TARGETS = ("auto", "class", "labels", "numbers")
UNKNOWN = -1  # the class of a node or a point that is not known
MSE, MAE = NUMBER_LOSSES = ("mse", "mae")
TARGET = (
    "what own data's labels are: one class, labels that are on or off, or numbers; auto tells "
    "classes from labels"
)
NUMBER_LOSS = "loss of numbers, which are standardised: squares or absolute values of differences"
TEST_FRACTION = (
    "part of own data without a test part that is drawn to be one, the same for every seed"
)
MAX_SEED = 2**31 - 1
MOST_THREADS = 1024  # many more, and OpenMP ends the process
BLOCK = 16  # single paths that share a batch
MAX_SEEDS = 10_000  # a range of more is a slip of the finger
PRECISIONS = ("float32", "bf16")
KERNELS = ("auto", "torch", "cpu", "cuda")
PERMUTED_LABELS = "permuted_labels"
NO_CONTROL = "none"
CONTROLS = (NO_CONTROL, PERMUTED_LABELS)
OF_TRAINING, OF_VALIDATION = "training", "validation"
ALPHAS_FROM = (OF_TRAINING, OF_VALIDATION, AUTO)
ALL, FIRST_HALF, SECOND_HALF = "all", "first_half", "second_half"
SEES = (ALL, PERMUTED_LABELS, FIRST_HALF, SECOND_HALF)
NORM_BATCHES = (
    "training batches, neither augmented nor dropped from, that norms take their statistics of "
    "anew before a network is measured; 0: moving averages"
)


@dataclass(frozen=True)
class StrategyInfo:
    """A strategy as help and checks know it: `source` is it, or its `module:name`.

    That is imported when the strategy is first asked, since strategies need torch. Where a search
    trains complete cells, `keeps` is the share of them that goes on after a round (0: one round),
    and `predicts` says that cells are proposed by those that were trained before.
    """

    help: str
    source: Any
    keeps: float | None = None
    predicts: bool = False


STRATEGIES: dict[str, StrategyInfo] = {
    "cri1": StrategyInfo("SGAS", "sgas.deciding.strategies.greedy:CRI1"),
    "cri2": StrategyInfo("SGAS with stability", "sgas.deciding.strategies.greedy:CRI2"),
    "darts": StrategyInfo("cut at the end", "sgas.deciding.strategies.darts:DARTS"),
    "effects": StrategyInfo("losses of single paths", "sgas.deciding.strategies.effects:EFFECTS"),
    "halving": StrategyInfo(
        "trained cells, the better half on", "sgas.deciding.strategies.candidates:CANDIDATES", 0.5
    ),
    "predictor": StrategyInfo(
        "trained cells, proposed by those before",
        "sgas.deciding.strategies.candidates:CANDIDATES",
        0.0,
        predicts=True,
    ),
    "random": StrategyInfo("lots, not alphas", "sgas.deciding.strategies.random:RANDOM"),
    "random_trained": StrategyInfo(
        "the best of trained cells", "sgas.deciding.strategies.candidates:CANDIDATES", 0.0
    ),
}


def option(
    default: Any,
    help: str,
    *,
    choices: Collection[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    verbs: tuple[str, ...] | None = None,
    of_data: bool = False,
    before: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with its help and its range: `low` ≤ value ≤ `high`, value > `above`.

    `choices` may be a table that grows. `verbs` names the commands that have this option (None: all
    that use the dataclass). `of_data` marks a size of a network that says how the data are taken:
    it goes from a search to a training. `before` is what runs had before the option was there,
    where that is not its default.
    """
    rules = {"help": help, "choices": choices, "low": low, "high": high, "above": above}
    rules |= {"verbs": verbs, "of_data": of_data}
    rules["before"] = default if before is dataclasses.MISSING else before
    return field(default=default, metadata=rules)


def validate(config: Any) -> None:
    """ConfigError for the first field of a dataclass that is outside the range of its `option`."""
    for spec in dataclasses.fields(config):
        value, rules = getattr(config, spec.name), spec.metadata
        if value is None or not rules:
            continue
        carried = {"field": spec.name, "value": value, "choices": rules["choices"] or ()}
        if rules["choices"] is not None and value not in rules["choices"]:
            raise ConfigError(
                f"{spec.name} is {value!r}; choose from {', '.join(rules['choices'])}", **carried
            )
        limits = []
        if rules["low"] is not None and not value >= rules["low"]:
            limits.append(f"at least {rules['low']}")
        if rules["above"] is not None and not value > rules["above"]:
            limits.append(f"above {rules['above']}")
        if rules["high"] is not None and not value <= rules["high"]:
            limits.append(f"at most {rules['high']}")
        if limits:
            raise ConfigError(
                f"{spec.name} is {value}; it has to be {' and '.join(limits)}", **carried
            )


def fields_of(config: type, verb: str) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """The fields of a config dataclass that are options of a verb, with their types, by name."""
    hints = get_type_hints(config)
    return {
        spec.name: (spec, hints[spec.name])
        for spec in dataclasses.fields(config)
        if not spec.metadata.get("verbs") or verb in spec.metadata["verbs"]
    }


def refuse_unknown(
    names: Iterable[str],
    known: Iterable[str],
    what: str = "unknown option {}",
    otherwise: str = "",
) -> None:
    """ConfigError for the first of `names` that is not known, with the nearest that is.

    `what` says what it would have been, and `otherwise` what to do where none is near.
    """
    known, is_option = list(known), what.startswith("unknown option")
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {named(near) if is_option else near}?" if near else otherwise
            shown = named(name) if is_option else repr(name)
            raise ConfigError(what.format(shown) + hint, field=name, choices=known)


def checked(spec: dataclasses.Field[Any], kind: Any, value: Any, name: str = "") -> Any:
    """A value, or the text of one, as a field of type `kind` holds it; ConfigError if it cannot.

    `name` is what the option is called where that is not the field's name.
    """
    name, choices = name or spec.name, spec.metadata["choices"]
    (base, *others) = [part for part in get_args(kind) or (kind,) if part is not type(None)]
    if type(None) in get_args(kind) and (value is None or value == "null"):
        return None
    if choices is not None and not (isinstance(value, str) and value in choices):
        kind_of = f"value of {named(name)}"
        raise unknown_name(kind_of, str(value), choices, ConfigError, field=name, value=value)
    try:
        if others:
            return value
        return _READERS[base](value)
    except (TypeError, ValueError, LookupError):
        raise ConfigError(
            f"{named(name)} takes {_TYPE_NAMES[base]}, got {value!r}", field=name, value=value
        ) from None


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return int(value) if isinstance(value, str) else operator.index(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    return os.fspath(value)


_READERS = {int: _whole, float: _number, bool: _truth, str: _text}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def make(config: type, values: Mapping[str, Any]) -> Any:
    """A config dataclass of the values that carry its fields' names; ConfigError for a bad one."""
    hints = get_type_hints(config)
    return config(
        **{
            spec.name: checked(spec, hints[spec.name], values[spec.name])
            for spec in dataclasses.fields(config)
            if spec.name in values
        }
    )


def values_before(config: type) -> dict[str, Any]:
    """What a run has of options that were not there when it began, by name."""
    return {s.name: s.metadata.get("before", s.default) for s in dataclasses.fields(config)}


def rebuild(config: type, values: Mapping[str, Any], where: str) -> Any:
    """A config dataclass of a run's config.json; ConfigError for a key that it does not know."""
    names = {spec.name for spec in dataclasses.fields(config)}
    for name in values:
        if name not in names:
            raise ConfigError(f"unknown key {name!r} in {where}; this run is of another version")
    try:
        return config(**{**values_before(config), **values})
    except TypeError:
        raise ConfigError(f"a value in {where} is of the wrong type; the file is damaged") from None


@dataclass(frozen=True)
class RunConfig:
    """What every verb that writes a run has in common."""

    dataset: str | None = option(None, "name of a data set, or path of a folder with your own")
    space: str | None = option(None, "search space, where the data set leaves a choice")
    preset: str | None = option(None, "named set of values for all other options")
    seed: int = option(
        0,
        "seed that governs the whole run",
        low=0,
        high=MAX_SEED,
        verbs=("search", "train"),
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    threads: int | None = option(
        None,
        "CPU threads (default: the preset's, else all that torch takes)",
        low=1,
        high=MOST_THREADS,
        verbs=("search", "train"),
    )
    kernels: str = option(
        "auto",
        "auto: the fastest that run here; torch: none compiled; cpu, cuda: these or an error",
        choices=KERNELS,
    )
    precision: str = option(
        "float32",
        "float32; bf16: linear layers and convolutions in bfloat16 (autocast); cells' fused "
        "states, sums, statistics, losses and weights in float32 or better",
        choices=PRECISIONS,
    )
    cuda_graphs: bool = option(
        True,
        "on a GPU: capture a step once a stage and replay it, for clouds and images; same results, "
        "more memory",
        verbs=("search", "train", "sweep"),
    )
    out: str | None = option(
        None,
        "run folder; default runs/NAME, with a number where it exists",
        verbs=("search", "train"),
    )
    no_lock: bool = option(
        False,
        "write the run without a lock, on a file system that has none: no other process may write "
        "it meanwhile",
        verbs=("search", "train"),
    )
    data_root: str = option("data", "folder that holds downloaded data sets")
    protocol: str = option(
        "clean",
        "clean: parts of the training set only; paper: the authors' splits, for reproduction",
        choices=PROTOCOLS,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class SearchConfig:
    """The search loop. Epoch counts follow from the decisions: see `sgas.deciding.schedule`."""

    strategy: str = option("cri2", "how edges are decided", choices=STRATEGIES)
    warmup_epochs: int = option(9, "epochs before the first decision", low=0)
    decision_interval: int = option(7, "epochs from one decision to the next", low=1)
    final_epochs: int = option(5, "epochs after the last decision", low=0)
    history_size: int = option(4, "epochs that selection stability looks back (K)", low=1)
    batch_size: int = option(28, "samples a batch, before the first decision", low=1)
    batch_increase: int = option(4, "samples that a batch grows by after each decision", low=0)
    learning_rate: float = option(0.005, "of the weights, at the start of the cosine", above=0)
    learning_rate_min: float = option(1e-4, "of the weights, at the end of the cosine", low=0)
    optimizer: str = option("sgd", "of the weights", choices=OPTIMIZERS)
    momentum: float = option(0.9, "of SGD; Adam keeps its 0.9 and 0.999", low=0, high=1)
    weight_decay: float = option(3e-4, "of the weights", low=0)
    operation_decay: float | None = option(
        None, "weight decay of operations on edges (default: weight_decay)", low=0
    )
    head_decay: float | None = option(
        None, "weight decay of the layer of the logits (default: weight_decay)", low=0
    )
    norm_decay: float | None = option(
        None, "weight decay of scales, shifts and biases (default: weight_decay)", low=0
    )
    grad_clip: float = option(5.0, "largest gradient norm of the weights", above=0)
    alpha_start_epoch: int = option(
        0, "first epochs, in which the alphas stay as drawn, also with strategy effects", low=0
    )
    alpha_learning_rate: float = option(3e-4, "of Adam on the alphas", above=0)
    alpha_weight_decay: float = option(1e-3, "of the alphas", low=0)
    norm_batches: int = option(20, NORM_BATCHES, low=0, before=0)
    scored_paths: int = option(
        256,
        f"single paths that strategy effects scores for a decision, in blocks of {BLOCK}",
        low=2 * BLOCK,
    )
    num_candidates: int = option(
        32,
        "cells that strategies random_trained, predictor and halving train",
        low=2,
        high=10_000,
    )
    candidate_epochs: int = option(
        25,
        "epochs that random_trained and predictor train each cell; halving has as many in all, "
        "fewer for each at first",
        low=1,
    )
    candidates: str | None = option(
        None,
        "cells that random_trained and halving train in the place of dealt ones: runs, files, "
        "published names, with commas between",
    )
    patience: int = option(
        0,
        "epochs that a decision without evidence (z of 2 or less) waits; edges still open in the "
        "end take the cheapest operation within 2 standard errors of the best",
        low=0,
    )
    beta_decay: float = option(
        0.0,
        "weight of the mean logsumexp of the alphas in their loss, which grows from 0 to this",
        low=0,
    )
    skip_penalty: float = option(
        0.0, "weight of the mean probability of skips in the alphas' loss", low=0
    )
    averaged_epochs: int = option(
        1, "last epochs whose probabilities by alphas are averaged before they are scored", low=1
    )
    alphas_from: str = option(
        OF_TRAINING,
        "what the alphas train on and cells are judged by (protocol clean): half of the training "
        "set; half of the data set's own validation split, so that all of the training set trains "
        "the weights, and the other half is reported; auto: the latter where there is such a split",
        choices=ALPHAS_FROM,
    )
    sees: str = option(
        ALL,
        "what of its parts a search sees; permuted_labels: each target another's of its part; "
        "first_half, second_half: disjoint halves of both parts (protocol clean)",
        choices=SEES,
    )
    control: str = option(
        NO_CONTROL,
        "permuted_labels: searches once more that way, in RUN/control, and shows the evidence of "
        "both",
        choices=CONTROLS,
    )
    halves: bool = option(
        False,
        "search twice more, on disjoint halves of the parts (RUN/half-1, RUN/half-2), and show on "
        "how many edges these agree",
    )
    validation_fraction: float = option(
        0.1, "part of the training set kept for reporting (protocol clean)", above=0, high=0.5
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.learning_rate_min > self.learning_rate:
            raise ConfigError(
                f"learning_rate_min is {self.learning_rate_min}, above learning_rate "
                f"{self.learning_rate}; lower it"
            )
        trained = STRATEGIES[self.strategy]
        if self.candidates is not None and (trained.keeps is None or trained.predicts):
            raise ConfigError(
                f"candidates are given, which strategy {self.strategy} does not train: give "
                f"{named('strategy', 'halving')} or random_trained, or leave them out"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Training of a derived network from scratch."""

    epochs: int = option(400, "epochs", low=1)
    batch_size: int = option(32, "samples a batch", low=1)
    optimizer: str = option("sgd", "of the weights", choices=OPTIMIZERS)
    learning_rate: float = option(0.1, "at the start of the schedule", above=0)
    learning_rate_min: float = option(1e-3, "at the end of the schedule", low=0)
    learning_rate_schedule: str = option(
        "cosine", "how the learning rate falls, epoch by epoch", choices=SCHEDULES
    )
    learning_rate_warmup: int = option(
        0, "first epochs, in which the learning rate rises in equal steps", low=0
    )
    momentum: float = option(0.9, "of SGD; Adam keeps its 0.9 and 0.999", low=0, high=1)
    weight_decay: float = option(1e-4, "of the weights", low=0)
    operation_decay: float | None = option(
        None, "weight decay of operations on edges (default: weight_decay)", low=0
    )
    head_decay: float | None = option(
        None, "weight decay of the layer of the logits (default: weight_decay)", low=0
    )
    norm_decay: float | None = option(
        None, "weight decay of scales, shifts and biases (default: weight_decay)", low=0
    )
    grad_clip: float = option(5.0, "largest gradient norm", above=0)
    label_smoothing: float = option(0.0, "mass spread over all classes", low=0, high=0.9)
    drop_path: float = option(
        0.2, "drop path probability at the end of its linear ramp", low=0, high=0.9
    )
    auxiliary: bool = option(False, "train with an auxiliary head at two thirds of the depth")
    auxiliary_weight: float = option(0.4, "weight of the auxiliary head's loss", low=0)
    norm_batches: int = option(20, NORM_BATCHES, low=0, before=0)
    validation_fraction: float = option(
        0.1, "part of the training set kept for reporting (protocol clean)", low=0, high=0.5
    )
    weights: str | None = option(
        None,
        "run folder of a training whose weights are the start; the head is new for other classes",
    )
    kept_epoch: str = option(
        LAST,
        "the epoch whose network is kept: the last, or the best by its validation figure",
        choices=KEPT_EPOCHS,
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.learning_rate_min > self.learning_rate:
            raise ConfigError(
                f"learning_rate_min is {self.learning_rate_min}, above learning_rate "
                f"{self.learning_rate}; lower it"
            )


@dataclass(frozen=True)
class SweepConfig:
    """A study: which searches it is made of, and how many run at once."""

    strategies: str = option("cri1,cri2,darts,random", "strategies, with commas between")
    seeds: str = option("0-9", "seeds and ranges of seeds, with commas between: 0-4,7")
    out: str | None = option(None, "study folder; default studies/DATASET-PRESET")
    jobs: int | None = option(
        None,
        "searches and trainings at a time (default: 1; on Slurm: what it allows)",
        low=1,
    )
    threads: int | None = option(
        None,
        "CPU threads of each (default: the preset's, or the cores shared by all jobs)",
        low=1,
        high=MOST_THREADS,
    )

    def __post_init__(self) -> None:
        validate(self)
        names = self.strategy_names
        for name in names:
            if name not in STRATEGIES:
                raise unknown_name(
                    f"strategy in {named('strategies')}", name, STRATEGIES, ConfigError
                )
        if not names or not self.seed_numbers:
            raise ConfigError(
                f"{named('strategies')} and {named('seeds')} have to name one each at least"
            )

    @property
    def strategy_names(self) -> tuple[str, ...]:
        """The strategies, each once, in the order given."""
        words = (word.strip() for word in self.strategies.split(","))
        return tuple(dict.fromkeys(word for word in words if word))

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds, each once, in the order given; ConfigError for what is no range of seeds."""
        seeds: dict[int, None] = {}
        for word in filter(None, (word.strip() for word in self.seeds.split(","))):
            match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", word)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not first <= last <= MAX_SEED or last - first >= MAX_SEEDS:
                raise ConfigError(
                    f"seeds is {self.seeds!r}; give whole numbers from 0 to {MAX_SEED} and ranges "
                    f"of up to {MAX_SEEDS} of them, such as 0-9 or 0,3,5-7"
                )
            seeds.update(dict.fromkeys(range(first, last + 1)))
        return tuple(seeds)


@dataclass(frozen=True)
class ClusterConfig:
    """Where the jobs of a study run, if not as children of the command; each is one search."""

    cluster: str | None = option(
        None, "slurm: submit to Slurm; local: as there, on this machine", choices=CLUSTERS
    )
    time: int = option(720, "minutes until a job is stopped, saved and put back", low=1)
    memory: float | None = option(None, "GiB of memory of a job (default: the cluster's)", above=0)
    cpus: int = option(1, "CPU cores of a job", low=1)
    gpus: int = option(0, "GPUs of a job", low=0)
    partition: str | None = option(None, "Slurm's partition")
    account: str | None = option(None, "Slurm's account")
    qos: str | None = option(None, "Slurm's quality of service")
    constraint: str | None = option(None, "features that a node has to have")
    setup: str | None = option(None, "shell command that a job begins with, as module load cuda")
    requeues: int = option(100, "times that a job is put back after it was stopped", low=0)

    def __post_init__(self) -> None:
        validate(self)
