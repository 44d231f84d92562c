"""What `search` and `train` share: resuming, the state of torch, the end of a run."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser

from sgas.allocator import keep_freed_memory
from sgas.commands.common import Settings, with_absolute_paths
from sgas.config import RunConfig
from sgas.errors import ConfigError, DamagedRunError, DataError, Interrupted, SgasError
from sgas.family import Family
from sgas.runs import Run, is_held, is_run, numbered_folders, read_config
from sgas.schedule import Schedule

if TYPE_CHECKING:
    import torch

    from sgas.capture import Recorder
    from sgas.progress import ShowProgress

Result = TypeVar("Result")
SHOWN, LONGEST = 4, 120  # differences that a refusal names, and letters of each


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


def run_to_go_on_with(
    family: Family, settings: Settings, name: str, has_ended: Callable[[Path], bool], **more: Any
) -> Path | None:
    """The run that the same command began before, so that repeating it goes on; None without one.

    With `out`, the run there, ended or not; ConfigError where it was begun with other options.
    Without, the last of runs/NAME, NAME-2, … with these options that has not ended and that no
    process is writing. `more` is compared too, as it stands in config.json.
    """
    found = None
    if settings.run.out:
        folder = Path(settings.run.out)
        told = differences(family, settings, read_config(folder), more) if is_run(folder) else ""
        if told:
            raise ConfigError(
                f"{folder} was begun with other options: {told}; give them as they were, or "
                "another --out"
            )
        found = folder if is_run(folder) else None
    else:
        for folder in numbered_folders(Path("runs"), name):
            same = is_run(folder) and not differences(family, settings, read_config(folder), more)
            if same and not has_ended(folder) and not is_held(folder):
                found = folder
    if found is not None:
        logging.getLogger("sgas").info("going on with %s, which the same command began", found)
    return found


def differences(
    family: Family, settings: Settings, config: Mapping[str, Any], more: Mapping[str, Any]
) -> str:
    """What a run was begun with that is not as in `settings`, in words; empty where nothing is."""
    run = dataclasses.asdict(with_absolute_paths(family, settings.run))
    asked = {"family": family.name, "verb": settings.verb, **more}
    kept: dict[str, Any] = {name: config.get(name) for name in asked}
    for section in ("run", "loop", "model", "data"):
        values = run if section == "run" else dataclasses.asdict(getattr(settings, section))
        kept_values = {**settings.defaults(section), **config[section]}
        for name, value in values.items():
            # A run keeps what `auto` found, and where it lies it tells by being there.
            found_there = value == "auto" and name in ("device", "kernels")
            if not found_there and name not in ("out", "preset", "data_root"):
                asked[name], kept[name] = value, kept_values[name]
    # Through JSON, as the run's: there, tuples are lists.
    asked = json.loads(json.dumps(asked))
    told = [f"{n} was {kept[n]!r}, now {asked[n]!r}" for n in asked if asked[n] != kept[n]]
    return "; ".join(text if len(text) < LONGEST else text.split(" ")[0] for text in told[:SHOWN])


def require_batch(batch_size: int, smallest: int) -> None:
    """ConfigError where a batch is smaller than what the networks can train on."""
    if batch_size < smallest:
        raise ConfigError(f"batch_size is {batch_size}; it has to be at least {smallest}")


def require_samples(parts: Mapping[str, Sized], smallest: int) -> None:
    """DataError where a part that is trained on, by its name, is smaller than a batch has to be."""
    for name, part in parts.items():
        if len(part) < smallest:
            samples = "1 sample" if len(part) == 1 else f"{len(part)} samples"
            raise DataError(
                f"the {name} has {samples}; training takes at least {smallest}: give more data or "
                "another validation_fraction"
            )


def require_trained_alphas(family: Family, settings: Settings, strategy: str) -> None:
    """ConfigError where a search would decide edges by alphas that no epoch has trained."""
    topology = family.spaces[str(settings.run.space)].topology(settings.model.num_steps)
    schedule, start = Schedule.of(settings.loop, topology), settings.loop.alpha_start_epoch
    first = schedule.last_epoch if strategy == "darts" else schedule.warmup_epochs
    if strategy != "random" and start > first:
        raise ConfigError(
            f"alpha_start_epoch is {start}, but {strategy} first decides after epoch {first}, by "
            f"alphas that would not be trained yet: give at most {first}"
        )


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


def recorder_on(run: RunConfig, device: torch.device, example: Any) -> Recorder | None:
    """What records steps: CUDA graphs, where inputs like `example` have one size; else nothing."""
    from sgas.capture import CudaGraphs, can_repeat

    wanted = run.cuda_graphs and device.type == "cuda" and can_repeat(example)
    return CudaGraphs(device) if wanted else None


def sizes_of(parts: Sequence[Sized | None]) -> list[int]:
    """How many samples each part has, or asked nodes where it is a part of one graph."""
    return [0 if part is None else getattr(part, "num_asked", len(part)) for part in parts]


def require_same_sizes(folder: Path, config: Mapping[str, Any], sizes: list[int]) -> None:
    """DataError where the data of a run to go on with have other sizes than it began with."""
    before = config.get("sizes", sizes)
    if before != sizes:
        raise DataError(
            f"the data of {folder} have changed: its parts had {before} samples, and have {sizes} "
            "now; bring back the data, or start again with another --out"
        )


def restore(loop: Any, run: Run, verb: str) -> None:
    """Gives a loop the newest checkpoint of its run, if there is one; a DamagedRunError if not its.

    The checkpoint of another run is whole, but does not fit.
    """
    import torch

    state = run.load_checkpoint()
    if state is None:
        return
    try:
        if state["kind"] != verb:
            raise ValueError(f"it is of a {state['kind']}")
        loop.restore(state)
    except (SgasError, torch.OutOfMemoryError):
        raise
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedRunError(
            f"the checkpoint in {run.folder} is not of this run ({reason}); put its own back, or "
            "start again with another --out"
        ) from None


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
