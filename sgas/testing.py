"""What every operation, strategy, data set, space and backend keeps, as checks for one's own.

A check raises AssertionError with what is wrong. Our own tables pass the same. Additions have to be
in the tables:

    with plugged(FAMILY, ["mine.py"]):
        check_operation(FAMILY, "point", "mine")

Dimensions: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sgas.cells.decisions import CellDecisions, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cells.space import NONE, SearchSpace
from sgas.data import Source
from sgas.deciding.records import EpochRecord
from sgas.deciding.replay import empty_history, extend_history, replay, score_epoch
from sgas.deciding.schedule import Schedule, shown_epoch
from sgas.deciding.strategies import EpochView, strategy_named
from sgas.family import Family, OperationCase, Supernet, Task
from sgas.native.backend import use_kernels
from sgas.protocols import CLEAN, SearchParts, search_parts
from sgas.running.paths import paths
from sgas.running.settings import Settings, resolve

CPU = torch.device("cpu")
FRACTION = 0.2  # of the training set, for validation
SAMPLES = 8  # of a batch
SPACES = (  # that strategies are tried in
    SearchSpace("two inputs", (NONE, "a", "b", "c", "d")),
    SearchSpace("all edges", (NONE, "a", "b"), num_inputs=1, in_degree=None, num_outputs=1),
    SearchSpace("one operation", (NONE, "a"), num_inputs=2, in_degree=1),
)


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _finite(tensors: Iterable[Tensor | None], what: str) -> None:
    _hold(all(torch.isfinite(t).all() for t in tensors if t is not None), f"{what} is not finite")


def _same(first: Tensor, second: Tensor, what: str, tolerance: float = 1e-9) -> None:
    close = torch.allclose(first, second, rtol=tolerance, atol=tolerance)
    _hold(close, f"{what}: they differ by up to {(first - second).abs().max():.2e}")


def check_operation(family: Family, space: str, name: str) -> None:
    """An operation of a space: shapes, types, gradients, evaluation, and no order of nodes."""
    operations = family.spaces[space].operations()
    cases = operations.cases()
    _hold(bool(cases), f"space {space} has no cases to try operations on")
    for case in cases:
        operation = operations.table[name](*case.arguments)
        what = f"operation {name!r} of space {space}, made of {case.arguments}"
        _hold(isinstance(operation, operations.base), f"{what}, is no {operations.base.__name__}")
        _check_training(operation.double(), case, what)
        _check_evaluation(operation.eval(), case, what)
        out = operation.float()(case.x.float(), *case.rest)
        _hold(out.dtype == torch.float32, f"{what}, makes {out.dtype} of float32")


def _check_training(operation: nn.Module, case: OperationCase, what: str) -> None:
    x = case.x.clone().requires_grad_()
    before = case.x.clone()
    out = operation(x, *case.rest)
    shape = tuple(out.shape)
    _hold(shape == tuple(case.shape), f"{what}, gives {shape}, not {tuple(case.shape)}")
    _hold(out.dtype == x.dtype, f"{what}, makes {out.dtype} of {x.dtype}")
    _hold(torch.equal(x, before), f"{what}, changes its input")
    _finite([out], f"{what}: its output")
    if out.requires_grad:
        inputs = [x, *operation.parameters()]
        _finite(
            torch.autograd.grad(out.square().sum(), inputs, allow_unused=True),
            f"{what}: its gradient",
        )


def _check_evaluation(operation: nn.Module, case: OperationCase, what: str) -> None:
    before = [buffer.clone() for buffer in operation.buffers()]
    out = operation(case.x, *case.rest)
    pairs = zip(before, operation.buffers(), strict=True)
    _hold(all(torch.equal(old, new) for old, new in pairs), f"{what}, changes in evaluation")
    _hold(torch.equal(out, operation(case.x, *case.rest)), f"{what}, draws lots in evaluation")
    if case.order is not None:
        moved = operation(case.x[case.order], *case.reordered)
        _same(moved, out[case.order], f"{what}, in another order of its nodes")


def check_strategy(name: str) -> None:
    """A strategy: each cell is decided, when it says, by the alphas or the seed alone."""
    for space in SPACES:
        for num_steps in (1, 3):
            for patience in (0, 1, 9):
                _check_decisions(name, space, num_steps, patience)


def _check_decisions(
    name: str, space: SearchSpace, num_steps: int, patience: int, seed: int = 3
) -> None:
    strategy, topology = strategy_named(name), space.topology(num_steps)
    what = f"strategy {name!r}, {space.name}, {num_steps} steps"
    schedule = Schedule(topology.num_decisions, 3, 2, 2, patience=patience)
    costs = tuple(range(len(space.operations))) if patience else None
    shape = topology.num_edges, len(space.operations)
    generator = torch.Generator().manual_seed(seed)
    drift = torch.randn(schedule.num_epochs, *shape, generator=generator, dtype=torch.float64)
    cell, history = CellDecisions.none_yet(topology), empty_history(*shape)
    records: list[EpochRecord] = []
    epochs: list[int] = []
    for epoch, alphas in enumerate((0.05 * drift).cumsum(0)):
        known = space.operations, schedule, seed, None, costs
        view = EpochView(epoch, "normal", alphas, history, cell, *known)
        score = strategy.score(view)
        _hold(tuple(score.shape) == shape[:1], f"{what}: scores are no [{shape[0]}]")
        _finite([score], f"{what}: a score")
        _hold(strategy.complete(view).complete, f"{what}: what would be cut now has open edges")
        made, cell = score_epoch(view, strategy)
        records.extend(made)
        epochs += [record.epoch for record in made if record.edge is not None]
        for one in (record.evidence for record in made if record.evidence is not None):
            _hold(one.error >= 0 and abs(one.margin) < torch.inf, f"{what}: evidence is {one}")
        history = extend_history(history, alphas, 4)
    _hold(cell.complete, f"{what}: edges are open in the end")
    _hold(cell.num_decided == topology.num_decisions, f"{what}: a wrong number of decisions")
    operations = {state.op for state in cell.states} - {None}
    _hold(operations <= set(space.operations[1:]), f"{what}: decided for {operations}")
    first = strategy.first_decision(schedule)
    began = f"{what}: first decides after epoch {shown_epoch(min(epochs))}"
    _hold(first is None or patience > 0 or min(epochs) == first, began)
    early = (
        patience > 0 or min(epochs) < schedule.last_epoch or len(set(epochs)) == len(epochs) == 1
    )
    _hold(early or not strategy.frees_edges, f"{what}: frees no edge before the end")
    again = replay(records, strategy, space, schedule, num_steps, 4, seed)
    _hold(list(again.records) == records, f"{what}: decides otherwise when replayed")


def check_dataset(family: Family, name: str, space: str | None = None, root: str = "data") -> None:
    """A data set: parts that are disjoint and the same again, batches that a supernet can take."""
    task = _task(family, name, space, root)
    what, parts = f"data set {name!r}", _parts(task)
    batches = [_batch(part) for part in (parts.weights, parts.alphas, parts.validation)]
    for (inputs, targets), (again, same_targets) in zip(
        batches, [_batch(p) for p in _of(_parts(_task(family, name, space, root)))], strict=True
    ):
        _hold(torch.equal(targets, same_targets), f"{what}: other parts for the same seed")
        if isinstance(inputs, Tensor):
            _hold(torch.equal(inputs, again), f"{what}: other inputs for the same seed")
    supernet = task.build_supernet().eval()
    for inputs, targets in [*batches, _batch(task.test_part(CPU))]:
        loss = task.labels.loss(supernet(inputs), targets)
        _finite([loss], f"{what}: a loss")


def check_space(family: Family, name: str, dataset: str | None = None, root: str = "data") -> None:
    """A space: a supernet over its candidates, decisions that free them, networks of the cells."""
    task, settings = _opened(family, dataset or _dataset_of(family, name), name, root)
    space, what = family.search_space(name), f"space {name!r}"
    table = family.spaces[name].operations().table
    missing = [op for op in (*space.operations, *space.published_only) if op not in table]
    _hold(not missing, f"{what}: no operation is called {', '.join(missing)}")
    _hold(space.operations[0] == NONE, f"{what}: its first candidate is not {NONE}")
    _hold(task.space == space, f"{what}: its tasks search another space")
    topology, supernet = space.topology(task.num_steps), task.build_supernet()
    shapes = {kind: tuple(alphas.shape) for kind, alphas in supernet.alphas.items()}
    wanted = dict.fromkeys(space.cell_kinds, (topology.num_edges, len(space.operations)))
    _hold(shapes == wanted, f"{what}: alphas are {shapes}, not {wanted}")
    inputs, targets = _batch(_parts(task).weights)
    before = len(supernet.weights())
    _check_step(task, supernet, inputs, targets, what, is_open=True)
    _check_path(task, supernet, inputs, targets, what)
    genotype = _decide_all(space, task, supernet)
    _hold(len(supernet.weights()) < before, f"{what}: decisions free no weights")
    _check_step(task, supernet, inputs, targets, what, is_open=False)
    text = genotype.to_text()
    _hold(Genotype.from_text(text, name).cells == genotype.cells, f"{what}: text loses the cell")
    models = family.spaces[name].models(settings.model, task.dimensions)
    network = models.build_network(genotype, False)
    network.eval()
    logits = network(inputs)
    _finite([task.labels.loss(logits, targets)], f"{what}: the loss of a network")
    _hold(network(models.example_input()).ndim == 2, f"{what}: logits are no table")


def _check_step(
    task: Task, supernet: Supernet, inputs: Any, targets: Tensor, what: str, is_open: bool
) -> None:
    loss = task.labels.loss(supernet(inputs), targets)
    alphas = list(supernet.alphas.values())
    weights = supernet.weights()
    grads = torch.autograd.grad(loss, [*weights, *alphas], allow_unused=True)
    _finite([loss, *grads], f"{what}: the loss of the supernet or its gradient")
    told = [grad is not None and bool(grad.any()) for grad in grads[len(weights) :]]
    if is_open:
        _hold(all(told), f"{what}: the loss does not depend on the alphas of open edges")


def _check_path(task: Task, supernet: Supernet, inputs: Any, targets: Tensor, what: str) -> None:
    """A path runs what it selects and nothing else, and nothing is gone after it."""
    topology = task.space.topology(task.num_steps)
    nothing = dict.fromkeys(task.space.cell_kinds, CellDecisions.none_yet(topology))
    before = [id(weight) for weight in supernet.weights()]
    supernet.select(next(paths(nothing, task.space.operations, 0)))
    loss = task.labels.loss(supernet(inputs), targets)
    several = [*supernet.weights(), *supernet.alphas.values()]
    grads = torch.autograd.grad(loss, several, allow_unused=True)
    supernet.select(None)
    _finite([loss, *grads], f"{what}: the loss of a path or its gradient")
    unused = sum(grad is None for grad in grads)
    _hold(unused > len(task.space.cell_kinds), f"{what}: a path runs operations that it has not")
    _hold(before == [id(w) for w in supernet.weights()], f"{what}: a path frees weights")


def _decide_all(space: SearchSpace, task: Task, supernet: Supernet) -> Genotype:
    """The genotype of decisions that take another operation on each edge; they are applied."""
    topology = space.topology(task.num_steps)
    shape = topology.num_edges, len(space.operations)
    schedule = Schedule(topology.num_decisions, 0, 1, 0)
    cells = {}
    for number, kind in enumerate(space.cell_kinds):
        columns = torch.arange(shape[0]).add(number).remainder(shape[1] - 1).add(1)
        alphas = torch.eye(shape[1], dtype=torch.float64)[columns]
        view = EpochView(
            0,
            kind,
            alphas,
            empty_history(*shape),
            CellDecisions.none_yet(topology),
            space.operations,
            schedule,
            0,
        )
        cells[kind] = strategy_named("cri1").complete(view)
    supernet.apply_decisions(cells)
    return genotype_of(space, cells)


def check_backend(
    family: Family, space: str, kernels: str, dataset: str | None = None, root: str = "data"
) -> None:
    """Kernels of a family: loss and gradients of a supernet are those of plain torch, in float64.

    DeviceError where they do not run here.
    """
    task = _task(family, dataset or _dataset_of(family, space), space, root)
    inputs, targets = _batch(_parts(task).weights)
    if not isinstance(inputs, Tensor):
        inputs = inputs.with_features(inputs.x.double())
    supernet: Any = task.build_supernet()
    supernet.double()
    state = {name: value.clone() for name, value in supernet.state_dict().items()}
    results = []
    try:
        for choice in ("torch", kernels):
            use_kernels(choice)
            supernet.load_state_dict(state)
            torch.manual_seed(0)
            batch = inputs.double() if isinstance(inputs, Tensor) else inputs
            loss = task.labels.loss(supernet(batch), targets)
            parameters = list(supernet.parameters())
            results.append([loss, *torch.autograd.grad(loss, parameters, allow_unused=True)])
    finally:
        use_kernels("auto")
    for plain, fast in zip(*results, strict=True):
        if plain is not None and fast is not None:
            _same(fast, plain, f"kernels {kernels} of {family.command}, space {space}")
        _hold((plain is None) == (fast is None), f"kernels {kernels}: a gradient is missing")


def _task(family: Family, dataset: str, space: str | None, root: str) -> Task:
    return _opened(family, dataset, space, root)[0]


def _opened(family: Family, dataset: str, space: str | None, root: str) -> tuple[Task, Settings]:
    """The task of a search by the default preset, and its settings."""
    options = {"dataset": dataset, "data_root": root, **({"space": space} if space else {})}
    settings = resolve(family, "search", options)
    torch.manual_seed(0)
    return family.open_task(settings.run, settings.model, settings.data), settings


def _dataset_of(family: Family, space: str) -> str:
    """The first data set that a space can take."""
    place = family.spaces[space]
    own = place.datasets or family.spaces[place.like or space].datasets
    return family.default_dataset if family.default_dataset in own else next(iter(own))


def _parts(task: Task) -> SearchParts:
    return search_parts(task, CLEAN, 0, FRACTION, CPU)


def _of(parts: SearchParts) -> tuple[Source, Source, Source]:
    return parts.weights, parts.alphas, parts.validation


def _batch(part: Source) -> tuple[Any, Tensor]:
    """The first samples of a part, as in evaluation."""
    index = torch.arange(min(SAMPLES, len(part)), device=part.index_device)
    return part.batch(index, None)
