"""Running statistics of batch norms, taken anew before a network is measured.

A moving average is of what training fed: augmented samples, features after dropout and drop path,
weights of some steps ago. Evaluation feeds none of these, so a network measured by it is another
than the one that was trained. Here the statistics become the means of those of some batches of the
training part, as evaluation sees them: nothing is drawn, and labels and weights take no part.
Sources: Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithm 2; Wu & Johnson, "Rethinking
'Batch' in BatchNorm", 2021, section 3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from sgas.data import BatchOrder, Source, batches
from sgas.running.capture import Recorder, Step, captured

SHARE = 4  # an epoch's batches to one of these: more would cost a sixth of a search of few batches


class NormStatistics:
    """Takes the statistics of a network's norms from `num_batches` of a source, or leaves them (0).

    `forward` runs the network. A norm has `running_mean`, `running_var` and `momentum`, as torch's
    have; the statistics of one that does not run stay as they are.
    """

    _captured: Step | None

    def __init__(
        self,
        network: Any,
        forward: Callable[[Any], Any],
        source: Source,
        num_batches: int,
        seed: int,
        recorder: Recorder | None = None,
    ) -> None:
        self.network, self.forward, self.source = network, forward, source
        self.num_batches, self.recorder = num_batches, recorder
        self.order = BatchOrder(len(source), seed, "statistics", source.index_device)
        self.release()

    def __str__(self) -> str:
        if self.num_batches == 0:
            return "norms: statistics are moving averages"
        return (
            f"norms: statistics are taken anew before each measurement, from {self.num_batches} "
            "batches of the training part at most, before the last epoch from a quarter of an "
            "epoch's at most, without augmentation, dropout and drop path"
        )

    def release(self) -> None:
        """Lets go of a captured step: the next is another."""
        self._captured = None

    @torch.no_grad()
    def estimate(self, epoch: int, batch_size: int, last: bool) -> None:
        """Takes the statistics from batches that follow from the epoch; leaves training mode on.

        Before the `last` epoch from a quarter of an epoch's batches at most.
        """
        norms = [module for module in self.network.modules() if _is_norm(module)]
        of_epoch = self.order.num_batches(batch_size)
        count = min(self.num_batches, of_epoch if last else max(1, of_epoch // SHARE))
        if not norms or not count:
            return
        if self._captured is None:
            (self._captured,) = captured(self.recorder, self._step)
        running = [x for norm in norms for x in (norm.running_mean, norm.running_var)]
        means = [x.clone() for x in running]
        index = self.order.epoch(epoch, batch_size, count)
        with _without_chance(self.network, norms):
            for number, (inputs, targets) in enumerate(batches(self.source, index, epoch, None), 1):
                self._captured(inputs, targets)
                torch._foreach_lerp_(means, running, 1 / number)
        torch._foreach_copy_(running, means)

    def _step(self, inputs: Any, targets: Tensor) -> tuple[()]:
        self.forward(inputs)
        return ()


def _is_norm(module: Any) -> bool:
    """Whether a module keeps running statistics."""
    return hasattr(module, "momentum") and isinstance(getattr(module, "running_mean", None), Tensor)


@contextlib.contextmanager
def _without_chance(network: Any, norms: list[Any]) -> Iterator[None]:
    """Training mode without dropout and drop path, where norms keep the last batch's statistics."""
    momenta = [norm.momentum for norm in norms]
    drop_path = getattr(network, "drop_path", None)
    network.train()
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    for norm in norms:
        norm.momentum = 1.0
    if drop_path is not None:
        network.drop_path = 0.0
    try:
        yield
    finally:
        network.train()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        if drop_path is not None:
            network.drop_path = drop_path
