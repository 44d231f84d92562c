"""Exports a network, checks what was written in a fresh process, and leaves files or nothing."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgas.errors import ConfigError, InputError, SgasError, option
from sgas.exporting.check import outputs_elsewhere
from sgas.exporting.forms import NetworkForm
from sgas.exporting.python_file import About, python_file
from sgas.files import write_atomically
from sgas.native.backend import backend_for
from sgas.native.library import Library

SAMPLES = (4, 7)  # of the batches that a file is tried on
MOMENTUM = 0.1  # of running statistics, in all families
CLOSE = 1e-5  # to which another compiler of the same operators may differ, in units of the largest


@dataclass(frozen=True)
class Exported:
    """Files that were written, and the largest differences of their logits, in a fresh process.

    `to_plain` is that to the network in plain torch, `to_kernels` that to the network as it runs
    here, by the kernels of this name; `largest` is the largest logit's size.
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
            f"{self.kernels} (logits up to {self.largest:.3g})"
        )


def export(
    network: Any, form: NetworkForm, about: About, path: Path, format: str, library: Library | None
) -> Exported:
    """Writes a network, on the CPU and in evaluation mode, to `path`, in one of `FORMATS`.

    InputError where it cannot be exported so or a file is there already; nothing is left then.
    """
    suffix, write = FORMATS[format]
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
        write(network, form, about, made)
        checked = _checked(network, form, made, targets if about.trained else [path], library)
        allowed = 0.0 if suffix == ".py" else CLOSE * checked.largest
        if not checked.to_plain <= allowed:  # nor where it is no number
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


@torch.no_grad()
def _checked(
    network: Any, form: NetworkForm, made: list[Path], targets: list[Path], library: Library | None
) -> Exported:
    """What the logits of a file are beside those of the network, in plain torch and as it runs."""
    inputs = [form.inputs(count) for count in SAMPLES]
    outputs = outputs_elsewhere(made[0], made[1] if len(made) > 1 else None, inputs)
    return Exported(
        tuple(targets),
        sum(SAMPLES),
        max(float(output.abs().max()) for output in outputs),
        _apart(outputs, [network.plain(*each) for each in inputs]),
        _apart(outputs, [form.run(network, *each) for each in inputs]),
        backend_for(torch.device("cpu"), library),
    )


def _apart(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def _write_python(network: Any, form: NetworkForm, about: About, files: list[Path]) -> None:
    """The source, and the weights beside it."""
    from safetensors.torch import save_file

    files[0].write_text(python_file(form, about), encoding="utf-8")
    save_file(form.weights(network), files[1])


def _write_torch(network: Any, form: NetworkForm, about: About, files: list[Path]) -> None:
    """A program of torch.export, for any batch; InputError names an operation that cannot be."""
    if not form.dynamic:
        raise InputError(f"{form.title} is no program of tensors alone: give --format python")
    (sample,) = form.inputs(SAMPLES[0])
    sizes = {
        axis: torch.export.Dim(name, min=least) for axis, (name, least) in form.dynamic.items()
    }
    # Where it fails, torch prints all that it had traced so far.
    with _entered(form) as place, contextlib.redirect_stderr(io.StringIO()):
        try:
            program = torch.export.export(network, (sample,), dynamic_shapes=(sizes,))
        except Exception as error:  # torch raises whatever a module leads it to
            reason = " ".join(str(error).split())[:300]
            where = f"operation {place[-1]!r}" if place else "the network"
            raise InputError(f"{where} cannot be exported by torch.export: {reason}") from None
    torch.export.save(program, files[0])


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


Write = Callable[[nn.Module, NetworkForm, About, list[Path]], None]
FORMATS: dict[str, tuple[str, Write]] = {
    "python": (".py", _write_python),
    "torch": (".pt2", _write_torch),
}
