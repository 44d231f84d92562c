"""What `search` and `train` share: resuming, the state of torch, the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser

from sgas.allocator import keep_freed_memory
from sgas.config import RunConfig
from sgas.errors import ConfigError, Interrupted
from sgas.family import Family
from sgas.runs import Run

if TYPE_CHECKING:
    import torch

    from sgas.progress import ShowProgress

Result = TypeVar("Result")


def resume_only(parser: ArgumentParser, argv: Sequence[str]) -> Path | None:
    """The run folder of `--resume`, which takes no other option; None where it is not given."""
    words = [word for word in argv if word != "--debug"]
    given = [word for word in words if word == "--resume" or word.startswith("--resume=")]
    if not given:
        return None
    joined = words[0].startswith("--resume=")
    folder = [words[0].partition("=")[2], *words[1:]] if joined else words[1:]
    alone = joined or words[0] == "--resume"
    if not alone or len(folder) != 1 or not folder[0]:
        raise ConfigError(
            f"--resume takes a run folder and no other option, since a run goes on with its own "
            f"configuration: {parser.prog} --resume RUN"
        )
    return Path(folder[0])


def require_batch(batch_size: int, smallest: int) -> None:
    """ConfigError where a batch is smaller than what the networks can train on."""
    if batch_size < smallest:
        raise ConfigError(f"batch_size is {batch_size}; it has to be at least {smallest}")


def rehearse(network: Callable[[Any], Any], example: Any) -> None:
    """Runs one sample through a network, so that what does not fit is told before a run is written.

    The network is thrown away: the loop builds its own, by the run's seed.
    """
    import torch

    with torch.no_grad():
        network(example)


def begin(
    family: Family, run: RunConfig, device: torch.device, config: Mapping[str, Any] | None
) -> None:
    """Sets up memory, threads and kernels: for a resumed run (`config`) those that it began with.

    Sums are split over threads and each backend rounds in its own way; others would give other last
    bits. DeviceError where the kernels asked for cannot run.
    """
    import torch

    from sgas.kernels import backend_for, use_kernels

    keep_freed_memory()
    threads = run.threads if config is None else config["environment"]["threads"]
    if threads is not None:
        torch.set_num_threads(threads)
    use_kernels(run.kernels)
    backend_for(device, family.library)


def conclude(
    family: Family, run: Run, execute: Callable[[], Result], progress: ShowProgress
) -> Result:
    """What a loop returns; where it was interrupted, the error says how to go on."""
    for message in run.notices:
        progress.console.print(f"note  {message}", soft_wrap=True)
    try:
        return execute()
    except Interrupted as stop:
        verb = progress.verb
        raise Interrupted(
            f"{stop}; go on with: {family.command} {verb} --resume {run.folder}"
        ) from None
