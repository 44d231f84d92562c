"""Exports a network, checks what was written in a fresh process, and leaves files or nothing."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgas.cells.edges import PLACE
from sgas.errors import ConfigError, InputError, SgasError, option
from sgas.exporting.check import outputs_elsewhere
from sgas.exporting.forms import NetworkForm
from sgas.exporting.python_file import About, python_file
from sgas.files import write_atomically
from sgas.labels import Numbers
from sgas.native.backend import backend_for
from sgas.native.library import Library

logger = logging.getLogger("sgas")

SAMPLES = (4, 7)  # of the batches that a file is tried on
MOMENTUM = 0.1  # of running statistics, in all families


@dataclass(frozen=True)
class Exported:
    """Files that were written, and the largest differences of their outputs, in a fresh process.

    `to_plain` is that to the network in plain torch, `to_kernels` that to the network as it runs
    here, by the kernels of this name; `largest` is the largest output's size.
    """

    files: tuple[Path, ...]
    samples: int
    largest: float
    to_plain: float
    to_kernels: float
    kernels: str

    def __str__(self) -> str:
        names = ", ".join(map(str, self.files))
        return (
            f"wrote    {names}\nchecked  in a fresh process without sgas, {self.samples} samples: "
            f"largest difference {self.to_plain} to plain torch, {self.to_kernels:.2g} to kernels "
            f"{self.kernels} (outputs up to {self.largest:.3g})"
        )


def export(
    network: Any, form: NetworkForm, about: About, path: Path, format: str, library: Library | None
) -> Exported:
    """Writes a network, on the CPU and in evaluation mode, to `path`, in one of `FORMATS`.

    InputError where it cannot be exported so or a file is there already; nothing is left then.
    """
    suffix, write, close = FORMATS[format]
    targets = [path, *([path.with_suffix(".safetensors")] if suffix == ".py" else [])]
    if path.suffix != suffix or not path.stem.isidentifier():
        raise ConfigError(f"{option('out')} is {path}; give a name such as my_net{suffix}")
    for target in targets:
        if target.exists():
            raise InputError(f"{target} exists already: give another {option('out')}")
    with tempfile.TemporaryDirectory() as folder:
        made = [Path(folder) / target.name for target in targets]
        if not about.trained:
            _settle(network, form)
        logger.info("writing %s", targets[0].name)
        write(network, form, about, made)
        logger.info("trying it in a fresh process without sgas")
        finish = _finish(about) if suffix != ".py" else lambda logits: logits
        outputs = outputs_elsewhere(made[0], made[1] if len(made) > 1 else None, _tried(form))
        written = targets if about.trained else [path]
        checked = _checked(network, form, outputs, finish, written, library)
        if not checked.to_plain <= close * checked.largest:  # nor where it is no number
            raise SgasError(
                "the exported file gives other logits than the network, by up to "
                f"{checked.to_plain}: nothing was written; please report it"
            )
        for target, source in zip(checked.files, made, strict=False):
            _put(source.read_bytes(), target)
    return checked


@torch.no_grad()
def _settle(network: Any, form: NetworkForm) -> None:
    """Gives the norms of a network that is not trained the statistics of a batch.

    With those of a fresh one its logits would be next to 0, and agree whatever a file computes.
    """
    buffers = [b for name, b in network.named_buffers() if name.endswith(("_mean", "_var"))]
    for buffer in buffers:
        buffer.zero_()
    network.train()
    form.run(network, *form.inputs(SAMPLES[0]))
    network.eval()
    for buffer in buffers:
        buffer.div_(MOMENTUM)


def _put(content: bytes, target: Path) -> None:
    write_atomically(target, lambda file: file.write(content))


def _finish(about: About) -> Callable[[Tensor], Tensor]:
    """What a program gives of logits: these, or the numbers that they stand for."""
    if not isinstance(about.labels, Numbers):
        return lambda logits: logits
    mean, std = torch.tensor(about.labels.mean), torch.tensor(about.labels.std)
    return lambda logits: logits * std + mean


def _tried(form: NetworkForm) -> list[tuple[Tensor, ...]]:
    return [form.inputs(count) for count in SAMPLES]


@torch.no_grad()
def _checked(
    network: Any,
    form: NetworkForm,
    outputs: list[Tensor],
    finish: Callable[[Tensor], Tensor],
    written: list[Path],
    library: Library | None,
) -> Exported:
    """How outputs of a file are beside those of the network, in plain torch and as it runs."""
    inputs, plain = _tried(form), getattr(network, form.definition)
    return Exported(
        tuple(written),
        sum(SAMPLES),
        max(float(output.abs().max()) for output in outputs),
        _apart(outputs, [finish(plain(*each)) for each in inputs]),
        _apart(outputs, [finish(form.run(network, *each)) for each in inputs]),
        backend_for(torch.device("cpu"), library),
    )


def _apart(first: list[Tensor], second: list[Tensor]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def _write_python(network: Any, form: NetworkForm, about: About, files: list[Path]) -> None:
    """The source, and the weights beside it."""
    from safetensors.torch import save_file

    files[0].write_text(python_file(form, about), encoding="utf-8")
    save_file(form.weights(network), files[1])


def _write_torch(network: Any, form: NetworkForm, about: About, files: list[Path]) -> None:
    """A program of torch.export, for any batch."""
    torch.export.save(_program(network, form, about), files[0])


def _write_onnx(network: Any, form: NetworkForm, about: About, files: list[Path]) -> None:
    """A model of ONNX, for any batch, with its genotype and classes as metadata."""
    try:
        import onnxruntime  # noqa: F401 - the check in a fresh process needs it
        import onnxscript  # noqa: F401 - torch needs it
    except (ImportError, OSError) as error:
        raise InputError(f"format onnx needs more ({error}): pip install 'sgas[onnx]'") from None
    program = _program(network, form, about)
    parameters = inspect.signature(getattr(network, form.definition)).parameters
    names = tuple({axis: name for axis, (name, _) in axes.items()} for axes in form.dynamic)
    with _quiet():
        try:
            model = torch.onnx.export(
                program,
                (),
                dynamo=True,
                dynamic_shapes=names,
                input_names=[*parameters][: len(form.dynamic)],
                output_names=["numbers" if isinstance(about.labels, Numbers) else "logits"],
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever a translation led it to
            raise _refusal(_operation_of(error), "ONNX", _first_cause(error)) from None
        assert model is not None, "it was not told to write a file"
        facts = {"genotype": about.genotype.to_text(), "origin": about.origin}
        if about.classes is not None:
            facts["classes"] = json.dumps(about.classes)
        model.model.metadata_props.update(facts)
        model.save(files[0], external_data=False)


def _program(network: Any, form: NetworkForm, about: About) -> torch.export.ExportedProgram:
    """The program of a network for any batch; InputError names an operation that cannot be."""
    if not form.dynamic:
        raise InputError(f"{form.title} is no program for any number of them: give --format python")
    dims = {
        name: torch.export.Dim(name, min=least)
        for axes in form.dynamic
        for name, least in axes.values()
    }
    sizes = tuple({axis: dims[name] for axis, (name, _) in axes.items()} for axes in form.dynamic)
    finish = _finish(about)
    last = network.register_forward_hook(lambda module, inputs, logits: finish(logits))
    # Where it fails, torch prints all that it had traced so far.
    with _entered(form) as place, contextlib.redirect_stderr(io.StringIO()):
        try:
            return torch.export.export(network, form.inputs(SAMPLES[0]), dynamic_shapes=sizes)
        except Exception as error:  # torch raises whatever a module leads it to
            raise _refusal(place[-1] if place else None, "torch.export", error) from None
        finally:
            last.remove()


def _refusal(operation: str | None, exporter: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:300]
    where = "the network" if operation is None else f"operation {operation!r}"
    return InputError(f"{where} cannot be exported by {exporter}: {reason}")


@contextlib.contextmanager
def _entered(form: NetworkForm) -> Iterator[list[str]]:
    """The name of the operation that is running, last in a list; it stays where that fails."""
    place: list[str] = []
    hooks = []
    for cell in form.cells:
        for edge, held in zip(cell.layout.edges, cell.edges, strict=True):
            (operation,) = held.values()
            name = edge.ops[0]
            hooks.append(
                operation.register_forward_pre_hook(lambda *_, name=name: place.append(name))
            )
            hooks.append(operation.register_forward_hook(lambda *_: place.clear()))
    try:
        yield place
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter logs and warns of: libraries that are not there, empty lists."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _operation_of(error: BaseException | None) -> str | None:
    """The operation of the node that the exporter was at; None where it was at none of these."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node):
                for path, _ in node.meta.get("nn_module_stack", {}).values():
                    if found := PLACE.search(f"{path}."):
                        return found["op"]
        error = error.__cause__
    return None


Write = Callable[[nn.Module, NetworkForm, About, list[Path]], None]

# The suffix of a format, its writer, and how far its logits may be from plain torch's, in units of
# the largest. Another compiler of the same operators rounds differently; onnxruntime has operators
# of its own, by which points that are next to equally near can change places.
FORMATS: dict[str, tuple[str, Write, float]] = {
    "python": (".py", _write_python, 0.0),
    "torch": (".pt2", _write_torch, 1e-5),
    "onnx": (".onnx", _write_onnx, 1e-3),
}
