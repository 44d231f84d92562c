"""Splits, device-resident data, and batch orders that live a whole phase.

Dimensions: N samples, B samples a batch. All randomness of an order comes from (seed, stream,
epoch), so that a resumed run sees the same batches without replaying any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sgas.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AT_ONCE = 256  # samples whose targets are read at a time


@dataclass(frozen=True)
class LabelledArrays:
    """One split in memory: inputs `[N, ...]`, labels int64 `[N]` from 0, names of the classes.

    Of many labels bool `[N, L]`, of numbers float32 `[N, L]`, with their names. Labels of the R
    parts of samples have an axis `[N, R, …]` more, and `rows` `[N, R]` are the parts' numbers in
    the data. `remarks` say what of the data is not used or was changed.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A hash of the samples and labels: the same for the same data, wherever they lie."""
        return hash_of(self.inputs, self.labels, self.classes)

    def subset(self, index: np.ndarray) -> LabelledArrays:
        """The samples `index` `[n]` of these."""
        rows = None if self.rows is None else self.rows[index]
        return replace(self, inputs=self.inputs[index], labels=self.labels[index], rows=rows)


class Source(Protocol):
    """Samples that can be fetched by number, already where the model is.

    The numbers have to be on `index_device`: where a source looks them up, so that no batch waits
    for them to be moved.
    """

    def __len__(self) -> int: ...

    @property
    def index_device(self) -> torch.device: ...

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Any, Tensor]:
        """Inputs and targets of the samples `index` `[B]`; augmented where a generator is given."""
        ...


Augment = Callable[["Tensor", "torch.Generator"], "Tensor"]


@dataclass(frozen=True)
class DeviceSource:
    """Tensors that live on the device once.

    `prepare` makes a batch ready without chance (evaluation), `augment` with it (training).
    """

    inputs: Tensor
    targets: Tensor
    augment: Augment
    prepare: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def index_device(self) -> torch.device:
        """The device of the tensors."""
        return self.targets.device

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the samples `index` `[B]`; augmented where a generator is given."""
        inputs, targets = self.inputs[index], self.targets[index]
        if generator is None:
            return self.prepare(inputs), targets
        return self.augment(inputs, generator), targets


@dataclass(frozen=True)
class SubsetSource:
    """The samples `index` `[N]` of another source, without a copy of its data."""

    source: Source
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def index_device(self) -> torch.device:
        """The device of the subset's own index."""
        return self.index.device

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Any, Tensor]:
        """Inputs and targets of the samples `index` `[B]` of this subset."""
        return self.source.batch(self.index[index], generator)


@dataclass(frozen=True)
class PermutedSource:
    """The samples of another source with the targets of others: `targets` has those of each."""

    source: Source
    targets: Sequence[Tensor]

    @classmethod
    def of(cls, source: Source, seed: int) -> PermutedSource:
        """All rows of targets in an order that follows from the seed, each sample with as many.

        A sample is one row, or any number of them (a graph and its nodes).
        """
        import torch

        device = source.index_device
        own: list[Tensor] = []
        for index in in_order(len(source), AT_ONCE, device):
            (_, targets), several = source.batch(index, None), len(index)
            if len(targets) == several:
                own.extend(targets.split(1))
            else:
                own.extend(source.batch(one, None)[1] for one in index.split(1))
        rows = torch.cat(own)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        return cls(source, rows[order.to(rows.device)].split([len(one) for one in own]))

    def __len__(self) -> int:
        return len(self.source)

    @property
    def index_device(self) -> torch.device:
        """That of the source."""
        return self.source.index_device

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Any, Tensor]:
        """The inputs of the samples `index` `[B]`, and their new targets."""
        import torch

        inputs, _ = self.source.batch(index, generator)
        return inputs, torch.cat([self.targets[number] for number in index.tolist()])


def batches(
    source: Source, order: Iterable[Tensor], epoch: int, generator: torch.Generator | None
) -> Iterator[tuple[Any, Tensor]]:
    """The batches of `order`, rows of sample numbers; augmented where a generator is given.

    A source that reads from disk may have `read_ahead(order, epoch)`, which reads the next batches
    meanwhile (epoch None: no augmentation); its chance follows from the epoch, not the generator.
    """
    read_ahead = getattr(source, "read_ahead", None)
    if read_ahead is not None:
        yield from read_ahead(order, None if generator is None else epoch)
        return
    for index in order:
        yield source.batch(index, generator)


def row_names(source: Source, numbers: Sequence[int]) -> list[tuple[str, ...]]:
    """Where each row of the targets of samples stands in the data set: sample, node and point.

    What is not there is empty, or missing at the end. A source of files, graphs or points has a
    `row_names(number)` of its own for the rows of a sample.
    """
    if isinstance(source, SubsetSource):
        index = source.index.tolist()
        return row_names(source.source, [index[number] for number in numbers])
    own = getattr(source, "row_names", lambda number: [(str(number),)])
    return [name for number in numbers for name in own(number)]


def hash_of(*parts: Any) -> str:
    """A short hash of arrays and of texts."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).view(np.uint8).data if part.size else b"")
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def stream_seed(seed: int, *stream: object) -> int:
    """A 63-bit seed for one stream of random numbers of a run; distinct streams are independent."""
    text = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class BatchOrder:
    """A new shuffling of N samples for each epoch, in whole batches.

    Samples that fill no whole batch are left out of that epoch (batch norm needs full batches);
    fewer samples than one batch make one batch of all.
    """

    def __init__(self, num_samples: int, seed: int, stream: str, device: torch.device) -> None:
        self.num_samples, self.seed, self.stream, self.device = num_samples, seed, stream, device

    def num_batches(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return max(1, self.num_samples // batch_size)

    def epoch(self, epoch: int, batch_size: int, num_batches: int) -> Tensor:
        """Sample numbers `[num_batches, B]`; reshuffled and begun again where N is too small."""
        import torch

        size = min(batch_size, self.num_samples)
        rows: list[Tensor] = []
        have = 0
        while have < num_batches:
            generator = torch.Generator().manual_seed(
                stream_seed(self.seed, self.stream, epoch, have)
            )
            order = torch.randperm(self.num_samples, generator=generator)
            whole = order[: self.num_batches(batch_size) * size].view(-1, size)
            rows.append(whole)
            have += len(whole)
        return torch.cat(rows)[:num_batches].to(self.device)


def in_order(num_samples: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """All samples once, in order, for evaluation: yields `[B]`, the last batch shorter."""
    import torch

    yield from torch.arange(num_samples, device=device).split(batch_size)


def stratified_parts(
    labels: np.ndarray, fractions: tuple[float, ...], seed: int
) -> tuple[np.ndarray, ...]:
    """Disjoint sample numbers, one array a fraction, drawn within each class.

    The fractions add up to 1; a part whose fraction is 0 is empty. Every class is in every other
    part: DataError where a class has too few samples for that.
    """
    wanted = [part for part, fraction in enumerate(fractions) if fraction > 0]
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < len(wanted):
            raise DataError(
                f"class {label} has {len(members)} samples; splitting needs at least "
                f"{len(wanted)}: add samples or leave the class out"
            )
        draw = np.random.default_rng(stream_seed(seed, "split", int(label)))
        members = draw.permutation(members)
        for part, chunk in zip(parts, _cut(members, fractions), strict=True):
            part.append(chunk)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def strata_of(targets: np.ndarray) -> np.ndarray:
    """What parts are drawn within, int64 `[N]`: the classes; all together of labels and numbers."""
    return targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)


def _cut(members: np.ndarray, fractions: tuple[float, ...]) -> list[np.ndarray]:
    """`members` in consecutive parts by largest remainder, none of a positive fraction empty."""
    exact = np.asarray(fractions) * len(members)
    counts = np.where(np.asarray(fractions) > 0, np.maximum(1, np.floor(exact)), 0).astype(int)
    while counts.sum() > len(members):
        counts[np.argmax(counts - exact)] -= 1
    while counts.sum() < len(members):
        counts[np.argmax(exact - counts)] += 1
    return np.split(members, np.cumsum(counts)[:-1])
