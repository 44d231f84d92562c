"""Opens and resumes runs: from resolved settings, or a run folder, to a run that has ended.

Everything that can fail for the user's sake fails before a run folder is written: the data is
opened, the network built, one sample run through it. That network is the one that is trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sgas.config import ALL, BEST, FIRST_HALF, fields_of
from sgas.deciding.evidence import verdict
from sgas.deciding.schedule import Schedule, shown_epoch, turns
from sgas.errors import ConfigError, DamagedRunError, Interrupted, SgasError, option
from sgas.family import Family, Task
from sgas.own import OWN
from sgas.protocols import (
    cell_in_words,
    cell_protocol,
    provenance,
    search_parts,
    train_parts,
    worst,
)
from sgas.registry import copies, described, records
from sgas.running.checks import (
    rehearse,
    require_batch,
    require_grounds,
    require_same_contents,
    require_same_plugins,
    require_same_sizes,
    require_samples,
)
from sgas.running.companions import companions, what_is_known
from sgas.running.genotype_files import genotypes_in
from sgas.running.machine import environment, prepare, recorder_on, resolve_device
from sgas.running.runs import (
    RESULT,
    WEIGHTS,
    Run,
    free_folder,
    is_held,
    is_run,
    numbered_folders,
    read_config,
    read_metrics,
)
from sgas.running.settings import (
    SECTIONS,
    Settings,
    open_settings,
    with_absolute_paths,
    with_data_at,
)
from sgas.terminal import shown

if TYPE_CHECKING:
    import torch

    from sgas.running.listeners import Listener
    from sgas.running.loop import Body, Loop

SHOWN, LONGEST = 4, 120  # differences that a refusal names, and letters of each


@dataclass(frozen=True)
class Output:
    """Who hears of a run: the terminal, unless `quiet`, and a listener of the caller's own."""

    quiet: bool = False
    listener: Listener | None = None


@dataclass(frozen=True)
class Opened:
    """A task and a body with its data, before there is a run.

    `trained_on` are parts by name, `sizes` those of all parts; both, and `facts`, are of the data.
    """

    task: Task
    body: Body
    trained_on: Mapping[str, Sized]
    sizes: list[int]
    facts: Mapping[str, Any]


def begin(
    family: Family, settings: Settings, label: str, command: str, output: Output | None = None
) -> Path:
    """Runs to the end and returns the folder; goes on with the run begun with these settings.

    `label` is what a training's genotype is called, `command` what a new run says that it was made
    by. Interrupted after a stop signal, with the state in the run.
    """
    name = _name(settings, label)
    folder = _run_to_go_on_with(family, settings, name)
    if folder is not None:
        return resume(family, folder, settings.verb, output)
    return start(family, settings, name, command, output)


def start(
    family: Family, settings: Settings, name: str, command: str, output: Output | None = None
) -> Path:
    """Runs to the end in a new folder, `out` or the first free `runs/NAME`, and returns it."""
    if settings.verb == "search":
        require_grounds(family, settings, settings.loop.strategy)
    device = _prepared(family, settings, None)
    opened = _open(family, settings, device)
    _take_weights(family, settings, opened)
    rehearse(opened.body.network, opened.task.example_input().to(device))
    out = settings.run.out
    folder = Path(out) if out else free_folder(Path("runs"), name)
    config = _config_json(family, settings, device, command, opened)
    _execute(family, settings, opened, Run.create(folder, config, copies()), output)
    return _accompany(family, settings, folder, command, output)


def resume(
    family: Family,
    folder: Path,
    verb: str,
    output: Output | None = None,
    place: str | None = None,
) -> Path:
    """Goes on with the run of a folder to its end; where it had ended, writes its results again.

    `place` is where its data lie now, if not where they were.
    """
    settings, config = open_settings(family, folder, verb)
    settings = with_data_at(family, folder, settings, place)
    require_same_plugins(folder, config)
    device = _prepared(family, settings, config)
    opened = _open(family, settings, device, config.get("weights"))
    require_same_sizes(folder, config, opened.sizes)
    require_same_contents(folder, config, opened.task.fingerprint())
    _execute(family, settings, opened, Run.open(folder), output, resumed=True)
    return _accompany(family, settings, folder, config["command"], output, place)


def _accompany(
    family: Family,
    settings: Settings,
    folder: Path,
    command: str,
    output: Output | None,
    place: str | None = None,
) -> Path:
    """Runs the searches that stand beside a search, and returns its folder, where they are told."""
    beside = companions(settings.loop) if settings.verb == "search" else {}
    if not beside:
        return folder
    quiet = output is not None and output.quiet
    for name, loop in beside.items():
        run = dataclasses.replace(settings.run, out=str(folder / name))
        own = dataclasses.replace(settings, run=run, loop=loop)
        try:
            if is_run(folder / name):
                resume(family, folder / name, "search", Output(quiet), place)
            else:
                start(family, own, name, command, Output(quiet))
        except Interrupted as stop:
            again = f"{family.command} search --resume {folder}"
            raise Interrupted(
                f"{name}: {stop.args[0].partition(';')[0]}; go on with: {again}"
            ) from None
    from sgas.running.pictures import draw_run

    with Run.open(folder) as run_beside:
        for fact in what_is_known(folder, family.search_space(str(settings.run.space))):
            line = f"{fact.name}: {fact.value} ({fact.note})"
            run_beside.log(line)
            if not quiet:
                print(line, file=sys.stderr)
        draw_run(family, folder, folder)
    return folder


def _prepared(family: Family, settings: Settings, config: Mapping[str, Any] | None) -> torch.device:
    device = resolve_device(settings.run.device)
    prepare(family, settings.run, device, config)
    return device


def _take_weights(family: Family, settings: Settings, opened: Opened) -> None:
    """Gives a training the weights that it starts from, if any."""
    if settings.verb == "train" and settings.loop.weights:
        from sgas.running.finetune import start_from

        folder = Path(settings.loop.weights)
        start_from(family, folder, opened.body.network, opened.task.classes)


def _open(
    family: Family,
    settings: Settings,
    device: torch.device,
    weights: Mapping[str, Any] | None = None,
) -> Opened:
    """The task and the body of a run, checked as far as the data allow.

    `weights` is what a run that is resumed says of those that it started from.
    """
    genotype, space = settings.genotype, settings.run.space
    if genotype is not None and genotype.space != space:
        raise ConfigError(
            f"the genotype is of space {genotype.space!r}; data set {settings.run.dataset} needs "
            f"one of space {space!r}"
        )
    task = family.open_task(settings.run, settings.model, settings.data)
    require_batch(settings.loop.batch_size, task.smallest_batch)
    if settings.verb == "search":
        opened = _open_search(family, settings, task, device)
    else:
        if settings.loop.weights and weights is None:
            from sgas.running.finetune import origin_of

            weights = origin_of(family, Path(settings.loop.weights))
        opened = _open_training(settings, task, device, weights)
    require_samples(opened.trained_on, task.smallest_batch)
    return opened


def _open_search(family: Family, settings: Settings, task: Task, device: torch.device) -> Opened:
    from sgas.running.candidates import open_search

    run, loop = settings.run, settings.loop
    split = run.protocol, run.seed, loop.validation_fraction, device
    parts = search_parts(task, *split, loop.sees, loop.alphas_from)
    absolute = with_absolute_paths(family, run)  # as a resumed search has them
    given = genotypes_in(loop.candidates, task.space) if loop.candidates else []
    among = list(dict.fromkeys(cell_in_words(genotype.meta) for genotype in given))
    protocol = worst(run.protocol, *(cell_protocol(genotype.meta) for genotype in given))
    alphas_on = parts.seen if parts.alphas_on is None else parts.alphas_on.value
    search = open_search(
        task,
        loop,
        parts=parts,
        **_machine(settings, task, device),
        notes={
            "dataset": absolute.dataset,
            "strategy": loop.strategy,
            "seed": run.seed,
            "protocol": protocol,
            **({"alphas_on": alphas_on} if alphas_on else {}),
            **({"among": among} if among else {}),
            **({} if loop.sees == ALL else {"sees": loop.sees}),
        },
    )
    trained_on = {"part of the weights": parts.weights, "part of the alphas": parts.alphas}
    if loop.halves:  # told now, not after the search
        half = search_parts(task, *split, FIRST_HALF, loop.alphas_from)
        trained_on |= {"half of the part of the weights": half.weights}
    sizes = [_size(part) for part in (parts.weights, parts.alphas, parts.validation)]
    label = parts.label + "".join(f"; candidates: {words}" for words in among)
    facts = {"parts": label, "cell_protocol": protocol}
    return Opened(task, search, trained_on, sizes, facts)


def _open_training(
    settings: Settings, task: Task, device: torch.device, weights: Mapping[str, Any] | None
) -> Opened:
    from sgas.running.train import Training

    run, loop, genotype = settings.run, settings.loop, settings.genotype
    assert genotype is not None, "a training has a genotype"
    split = run.protocol, run.seed, loop.validation_fraction, device, loop.kept_epoch
    parts = train_parts(task, *split)
    training = Training(task, genotype, loop, parts=parts, **_machine(settings, task, device))
    sizes = [_size(part) for part in (parts.training, *(parts.measured.values() or (None,)))]
    facts = {
        "genotype": msgspec.to_builtins(genotype),
        "classes": list(task.classes),
        "inputs": dataclasses.asdict(task.preparation),
        **({"weights": weights} if weights else {}),
        **provenance(dataclasses.asdict(run), genotype.meta, weights),
    }
    return Opened(task, training, {"training part": parts.training}, sizes, facts)


def _machine(settings: Settings, task: Task, device: torch.device) -> dict[str, Any]:
    """What both bodies are told of the machine and of chance."""
    return {
        "seed": settings.run.seed,
        "device": device,
        "precision": settings.run.precision,
        "recorder": recorder_on(settings.run, device, task.example_input()),
    }


def _size(part: Any) -> int:
    """How many samples a part has, or asked nodes where it is a part of one graph."""
    return 0 if part is None else getattr(part, "num_asked", len(part))


def _execute(
    family: Family,
    settings: Settings,
    opened: Opened,
    run: Run,
    output: Output | None,
    resumed: bool = False,
) -> None:
    """Runs the loop in a run folder and writes its results."""
    from sgas.running.loop import Loop

    task, body, verb = opened.task, opened.body, settings.verb
    again = f"{family.command} {verb} --resume {run.folder}"
    with run, _stops(again), _listening(settings, task, run, output or Output()) as (listener, say):
        say(f"run   {run.folder}")
        if settings.genotype is None:
            say(_in_line("data ", settings.run.dataset, opened.facts["parts"], *task.remarks))
        else:
            if settings.origin and not resumed:
                say(f"from  {settings.origin}")
            protocol = f"protocol {opened.facts['protocol']}"
            say(_in_line("data ", opened.facts["provenance"], protocol, *task.remarks))
            say(f"net   {_network_in_words(settings, body.network)}")
            run.write_result("genotype.json", settings.genotype.to_json().encode())
            if settings.genotype.meta.get("final") is False:
                say("note  the genotype is of a search that has not ended")
        run.log(str(body.statistics))
        loop = Loop(body, run, listener)
        if resumed and not restore(loop):
            _take_weights(family, settings, opened)
        for warning in task.warnings:
            run.notice(f"{settings.run.dataset}: {warning}")
        for notice in run.notices:
            say(f"note  {notice}")
        loop.execute()
        if verb == "search":
            from sgas.running.pictures import draw_run

            decided = [record.evidence for record in run.records if record.edge is not None]
            run.log(verdict(decided))
            say(f"found {verdict(decided)}")
            draw_run(family, run.folder, run.folder)
        else:
            _write_trained(family, run, body, opened, settings)


def _in_line(name: str, *parts: Any) -> str:
    return f"{name} {' · '.join(map(str, parts))}"


@contextlib.contextmanager
def _stops(again: str) -> Iterator[None]:
    """A stop inside says how to go on; one between the epochs and the end loses nothing either."""
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(f"{stop.args[0]}; go on with: {again}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped outside of the epochs; go on with: {again}") from None


def _network_in_words(settings: Settings, network: Any) -> str:
    """The sizes of a derived network, the preset that they are of, and its parameters."""
    from sgas.running.complexity import num_parameters

    sizes = fields_of(type(settings.model), settings.verb)
    listed = " · ".join(f"{name} {getattr(settings.model, name)}" for name in sizes)
    return f"preset {settings.run.preset}: {listed} · {num_parameters(network):,} parameters"


@contextlib.contextmanager
def _listening(
    settings: Settings, task: Task, run: Run, output: Output
) -> Iterator[tuple[Listener, Any]]:
    """The listeners of a run as one, and what prints a line of the run's beginning."""
    from sgas.running.events import Events
    from sgas.running.listeners import Several

    space = task.space if settings.verb == "search" else None
    own = [] if output.listener is None else [output.listener]
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(Events(run, space))
        if output.quiet:
            yield Several(events, *own), lambda line: None
            return
        from sgas.running.progress import ShowProgress

        edges = 0 if space is None else space.topology(task.num_steps).num_decisions
        total = 0 if space is None else edges * len(space.cell_kinds)
        trains_cells = space is not None and bool(turns(settings.loop))
        progress = ShowProgress(settings.verb, total, task.labels.primary_metric, trains_cells)
        stack.enter_context(progress)
        yield (
            Several(progress, events, *own),
            lambda line: progress.console.print(shown(line), soft_wrap=True),
        )


def restore(loop: Loop) -> bool:
    """Gives a loop the newest checkpoint of its run, and says whether there is one.

    DamagedRunError for the checkpoint of another run, which is whole, but does not fit.
    """
    import torch

    state = loop.run.load_checkpoint()
    if state is None:
        return False
    try:
        loop.restore(state)
    except (SgasError, torch.OutOfMemoryError):
        raise
    except (LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedRunError(
            f"the checkpoint in {loop.run.folder} is not of this run ({reason}); put its own back, "
            f"or start again with another {option('out')}"
        ) from None
    return True


def _write_trained(
    family: Family, run: Run, training: Any, opened: Opened, settings: Settings
) -> None:
    """The weights, what they predict, the figures of the epoch that is kept, costs, and a page."""
    import torch
    from safetensors.torch import save as to_safetensors

    from sgas.running.complexity import num_flops, num_parameters
    from sgas.running.predictions import PREDICTIONS, as_csv
    from sgas.running.training_page import draw_trained

    epoch = training.keep()
    rows = _predictions(run, training, opened, settings)
    if rows:
        run.write_result(PREDICTIONS, as_csv(rows))
    network = training.network.to(torch.device("cpu"))
    run.write_result(WEIGHTS, to_safetensors(network.state_dict()))
    cost = {
        "parameters": num_parameters(network),
        "flops": num_flops(network, opened.task.example_input()),
    }
    run.write_result(RESULT, {**_result(run, opened, settings, epoch), **cost})
    draw_trained(family, run.folder, run.folder)


def _predictions(
    run: Run, training: Any, opened: Opened, settings: Settings
) -> list[dict[str, str]]:
    """What the network that is kept says of each part that was measured.

    Rows of the test part that `evaluate` has written stay where a run that had ended is resumed.
    """
    from sgas.running.loop import evaluation_step, measure
    from sgas.running.predictions import Said, read_predictions

    rows: list[dict[str, str]] = []
    network, labels, device = training.network, opened.task.labels, training.device
    for part, source in training.measured.items():
        said = Said(labels)
        step = evaluation_step(network, labels, device, training.precision, said)
        measure(network, labels, source, settings.loop.batch_size, device, step=step)
        rows += said.rows(part, source, opened.task.classes)
    kept = read_predictions(run.folder)
    return rows + [row for row in kept if row["part"] not in training.measured]


def _result(run: Run, opened: Opened, settings: Settings, epoch: int) -> dict[str, Any]:
    """The figures of the epoch that is kept; in protocol `paper` also the best test figure."""
    metric = opened.task.labels.primary_metric
    (kept,) = [line for line in run.metrics if line["epoch"] == epoch]
    result = {
        key: kept[key]
        for key in kept
        if key.startswith(("train_", "validation_", "test_")) and not key.endswith("loss")
    }
    result |= {name: opened.facts[name] for name in ("protocol", "provenance")}
    if settings.loop.kept_epoch == BEST:
        result["epoch"] = f"{shown_epoch(epoch)} of {settings.loop.epochs}, best on validation"
    if f"test_{metric}" in kept:
        best = max(run.metrics, key=lambda line: line[f"test_{metric}"])
        result[f"best_test_epoch_{metric}"] = best[f"test_{metric}"]
        result["note"] = "protocol paper: the best test epoch is chosen by the test split"
    return result


def _name(settings: Settings, label: str) -> str:
    """What a run without `out` is called in `runs/`."""
    run = settings.run
    dataset = Path(str(run.dataset)).resolve().name
    if settings.verb == "search":
        return f"{dataset}-{settings.loop.strategy}-{run.seed}"
    known = label if label.startswith(dataset) else f"{dataset}-{label}"
    return f"{known}-train-{run.seed}"


def _config_json(
    family: Family, settings: Settings, device: torch.device, command: str, opened: Opened
) -> dict[str, Any]:
    """What config.json holds: everything needed to make the run again, and where it was made.

    Paths are absolute, device and kernels are those that were found, so that a run can be gone on
    with from any folder and never moves to others by itself.
    """
    from sgas.native.backend import backend_for

    run = dataclasses.replace(
        with_absolute_paths(family, settings.run),
        device=str(device),
        kernels=backend_for(device, family.library),
    )
    sections = {name: dataclasses.asdict(getattr(settings, name)) for name in SECTIONS}
    return {
        "family": family.name,
        "verb": settings.verb,
        "command": command,
        **sections,
        "run": dataclasses.asdict(run),
        "dimensions": opened.task.dimensions,
        "sizes": opened.sizes,
        "contents": opened.task.fingerprint(),
        "epochs_from": 0,
        **({} if settings.asked is None else {"asked": list(settings.asked)}),
        **opened.facts,
        **({"plugins": records()} if records() else {}),
        "environment": environment(device),
    }


def _run_to_go_on_with(family: Family, settings: Settings, name: str) -> Path | None:
    """The run that the same settings began before, so that repeating a call goes on; or None.

    With `out`, the run there, ended or not; ConfigError where it was begun with other options.
    Without, the last of runs/NAME, NAME-2, … with these options that has not ended and that no
    process is writing.
    """
    last = None
    if settings.run.out:
        folder = Path(settings.run.out)
        changes = _differences(family, settings, read_config(folder)) if is_run(folder) else ""
        if changes:
            raise ConfigError(
                f"{folder} was begun with other options: {changes}; give them as they were, or "
                f"another {option('out')}"
            )
        last = folder if is_run(folder) else None
    else:
        for folder in numbered_folders(Path("runs"), name):
            same = is_run(folder) and not _differences(family, settings, read_config(folder))
            if same and not _has_ended(family, settings, folder) and not is_held(folder):
                last = folder
    if last is not None:
        logging.getLogger("sgas").info("going on with %s, which the same command began", last)
    return last


def _has_ended(family: Family, settings: Settings, folder: Path) -> bool:
    """Whether a run has been run to its end, and its results are written."""
    if settings.verb == "train":
        return (folder / RESULT).is_file() and (folder / "report.html").is_file()
    topology = family.search_space(str(settings.run.space)).topology(settings.model.num_steps)
    lines, last = read_metrics(folder), Schedule.of(settings.loop, topology).last_epoch
    ended = bool(lines) and lines[-1]["epoch"] == last and (folder / "report.html").is_file()
    return ended and all(
        is_run(folder / name)
        and _has_ended(family, dataclasses.replace(settings, loop=loop), folder / name)
        for name, loop in companions(settings.loop).items()
    )


def _differences(family: Family, settings: Settings, config: Mapping[str, Any]) -> str:
    """What a run was begun with that is not as in `settings`, in words; empty where nothing is."""
    run = dataclasses.asdict(with_absolute_paths(family, settings.run))
    asked: dict[str, Any] = {"family": family.name, "verb": settings.verb}
    asked["plugins"] = described(records())
    if settings.genotype is not None:
        asked["genotype"] = msgspec.to_builtins(settings.genotype)
    kept: dict[str, Any] = {name: config.get(name) for name in asked}
    kept["plugins"] = described(config.get("plugins", []))
    for section in SECTIONS:
        values = run if section == "run" else dataclasses.asdict(getattr(settings, section))
        kept_values = {**settings.before(section), **config[section]}
        for name, value in values.items():
            # A run keeps what `auto` found, and where it lies it tells by being there.
            found_there = value == "auto" and name in ("device", "kernels")
            if not found_there and name not in ("out", "preset", "data_root"):
                asked[name], kept[name] = value, kept_values[name]
    # Through JSON, as the run's: there, tuples are lists.
    asked = json.loads(json.dumps(asked))
    changes = [f"{n} was {kept[n]!r}, now {asked[n]!r}" for n in asked if asked[n] != kept[n]]
    places = [Path(str(of["dataset"])).parent for of in (asked, kept)]
    if asked["dataset"] != kept["dataset"] and places[0] == places[1] and places[0].name == OWN:
        changes.insert(
            0, "the data in memory are others, perhaps since items are drawn anew when read"
        )
    shown = changes[:SHOWN]
    return "; ".join(text if len(text) < LONGEST else text.split(" ")[0] for text in shown)
