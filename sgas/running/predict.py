"""What a trained network says of new data, which are prepared as those of its training were.

Dimensions: R rows of answers (samples, nodes of graphs, points), L classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.errors import DataError, InputError, RunError
from sgas.family import Family, Preparation, Samples
from sgas.running.settings import Settings, open_settings, with_absolute_paths

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sgas.config import RunConfig
    from sgas.labels import Labels


@dataclass(frozen=True)
class Answers:
    """The logits of samples: a row `[1, L]` each, or several, of what `row_name` says."""

    samples: Samples
    logits: Sequence[Tensor]
    labels: Labels
    row_name: str

    def collected(self, of_logits: Callable[[Tensor], Tensor]) -> Any:
        """What `of_logits` makes of them, as arrays: of one sample, of all, or a list of graphs."""
        import torch

        if self.samples.alone or self.row_name:
            each = [of_logits(logits).cpu().numpy() for logits in self.logits]
            if not self.samples.alone:
                return each
            return each[0] if self.row_name else each[0][0]
        return of_logits(torch.cat([*self.logits])).cpu().numpy()

    def figures(self) -> dict[str, float]:
        """The metrics of the predictions; none where targets are not known."""
        import torch

        if self.samples.targets is None:
            return {}
        predictions = self.labels.predictions(torch.cat([*self.logits])).cpu()
        return self.labels.metrics(predictions, self.samples.targets, [*map(len, self.logits)])


def kept_inputs(family: Family, folder: Path) -> tuple[tuple[str, ...], Preparation]:
    """The classes of a trained run, and how its inputs are made.

    A run of before kept neither: they are taken of its data. RunError where these are gone.
    """
    settings, config = open_settings(family, folder, "train")
    if "inputs" in config:
        space = family.spaces[str(settings.run.space)]
        return tuple(config["classes"]), space.preparation(config["inputs"])
    try:
        task = family.open_task(settings.run, settings.model, settings.data)
    except InputError as error:
        raise RunError(
            f"{folder} is of a version that kept no classes and no preprocessing, and its data "
            f"cannot be read to find them ({error}): put them back, or train it again"
        ) from None
    return task.classes, task.preparation


def is_own_data(family: Family, run: RunConfig, data: Any) -> bool:
    """Whether what a user gives is the data set of a run, of which the test part is meant."""
    if not isinstance(data, str | Path):
        return False
    asked = with_absolute_paths(family, replace(run, dataset=str(data)))
    return asked.dataset == with_absolute_paths(family, run).dataset


def answer(
    network: nn.Module,
    preparation: Preparation,
    classes: tuple[str, ...],
    data: Any,
    settings: Settings,
) -> Answers:
    """The logits of a network for what a user gives, in the batches of its training.

    Targets that are numbers of other classes are left out.
    """
    import torch

    from sgas.running.loop import run_network

    samples = preparation.read(data, settings.run, settings.data)
    if samples.classes != classes:
        samples = replace(samples, targets=None)
    first = next(network.parameters())
    if first.dtype != torch.float32:
        raise DataError(f"data come in float32, the network is {first.dtype}: network.float()")
    device = first.device
    parts: list[list[Tensor]] = [[] for _ in samples.items]
    trains = network.training
    network.eval()
    with torch.no_grad():
        size = settings.loop.batch_size
        for numbers, inputs, rows in preparation.batches(samples.items, size, device):
            output = run_network(network, inputs, settings.run.precision, device)
            for number, part in zip(numbers, output.split([*rows]), strict=True):
                parts[number].append(part)
    network.train(trains)
    joined = getattr(preparation, "joined", lambda item, own: own[0])
    logits = [joined(item, own) for item, own in zip(samples.items, parts, strict=True)]
    return Answers(samples, logits, preparation.labels, preparation.row_name)
