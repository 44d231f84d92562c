"""Tape: records a function's operators on the CPU and repeats them, as a CUDA graph does on a GPU.

Recording computes nothing in the end: what was written is put back, random numbers included. A
repetition runs the same operators on the same memory with the same numbers; what a function took
from Python stays what it was when it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sgas.capture import Outputs

# Each takes a number to the host, or brings one from there, while a graph is captured.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "lift_fresh", "equal")

UNDECLARED = {"native_batch_norm": (3, 4)}  # its schema does not say that it writes to these


@dataclass
class Called:
    """An operator, its arguments, and the tensors that it returned."""

    operator: Any
    args: Any
    kwargs: dict[str, Any]
    made: list[Tensor]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def written(operator: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operator writes to."""
    for place, argument in enumerate(operator._schema.arguments):
        undeclared = place in UNDECLARED.get(operator.overloadpacket.__name__, ())
        if argument.is_write or undeclared:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from tensors_in(given)


def makes_memory(operator: Any) -> bool:
    """Whether what an operator returns has memory of its own."""
    return not any(returned.alias_info for returned in operator._schema.returns)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Called] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in FORBIDDEN:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for tensor in written(func, args, kwargs):
            self.before.append((tensor, tensor.clone()))
        out = func(*args, **kwargs)
        made = list(tensors_in(out)) if makes_memory(func) else []
        self.calls.append(Called(func, args, kwargs, made))
        return out


class Tape:
    """A `Recorder` for the CPU; `recorded` counts the functions, `repeated` the repetitions."""

    recorded = repeated = 0

    def run(self, function: Callable[[], Outputs]) -> Outputs:
        """Calls a function."""
        return function()

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """As `CudaGraphs.record`."""
        state = torch.get_rng_state()
        with _Recording() as recording:
            outputs = function()
        with torch.no_grad():
            for tensor, value in reversed(recording.before):
                tensor.copy_(value)
        torch.set_rng_state(state)
        Tape.recorded += 1
        calls = recording.calls

        @torch.no_grad()
        def repeat() -> None:
            Tape.repeated += 1
            for call in calls:
                found = tensors_in(call.operator(*call.args, **call.kwargs))
                for ours, theirs in zip(call.made, found, strict=False):
                    ours.copy_(theirs)

        return repeat, outputs
