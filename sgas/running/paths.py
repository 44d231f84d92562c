"""Single paths of a supernet: which one a step trains, and what they lose on shared batches.

A path is a complete cell of each kind. What is dealt follows from seed, purpose and epoch, so that
a resumed run deals the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from sgas.cells.decisions import CellDecisions
from sgas.config import BLOCK
from sgas.data import BatchOrder, Source, batches, stream_seed
from sgas.deciding.strategies.effects import Effects, deal_paths, fit_effects, used_by
from sgas.family import Supernet
from sgas.running.capture import Step

Path = dict[str, CellDecisions]


def paths(
    decisions: Mapping[str, CellDecisions], operations: tuple[str, ...], seed: int, *stream: object
) -> Iterator[Path]:
    """Paths without end that agree with `decisions`, dealt evenly for each kind of cell."""
    dealt = [
        deal_paths(cell, operations, str(stream_seed(seed, *stream, kind)))
        for kind, cell in decisions.items()
    ]
    for cells in zip(*dealt, strict=True):
        yield dict(zip(decisions, cells, strict=True))


@torch.no_grad()
def measure_effects(
    network: Supernet,
    step: Step,
    source: Source,
    decisions: Mapping[str, CellDecisions],
    operations: tuple[str, ...],
    num_paths: int,
    batch_size: int,
    seed: int,
    epoch: int,
) -> dict[str, Effects]:
    """The effects of all operations of each kind of cell, by the losses of `num_paths` paths.

    `step` gives the loss of a batch, which each block of paths shares, and whatever chance there is
    in it (dropout). Norms go by the batch: running statistics are those of no path.
    """
    num_blocks = num_paths // BLOCK
    order = BatchOrder(len(source), seed, "effects", source.index_device)
    dealt = paths(decisions, operations, seed, "scored", epoch)
    losses, blocks, used = [], [], []
    network.train()
    index = order.epoch(epoch, batch_size, num_blocks)
    for block, batch in enumerate(batches(source, index, epoch, None)):
        for path in islice(dealt, BLOCK):
            network.select(path)
            with torch.random.fork_rng(_devices(source)):
                torch.manual_seed(stream_seed(seed, "scored", epoch, block))
                losses.append(step(*batch)[0])
            blocks.append(block)
            used.append(torch.cat([used_by(cell, operations) for cell in path.values()]))
    network.select(None)
    found = fit_effects(torch.stack(losses).double().cpu(), torch.tensor(blocks), torch.stack(used))
    sizes = [len(cell.states) for cell in decisions.values()]
    tables = zip(decisions, found.gains.split(sizes), found.errors.split(sizes), strict=True)
    return {kind: Effects(gains, errors) for kind, gains, errors in tables}


def _devices(source: Source) -> list[torch.device]:
    device = source.index_device
    return [device] if device.type == "cuda" else []
