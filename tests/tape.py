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
from torch.utils._pytree import tree_leaves

from sgas.running.capture import Outputs, Recorder

# On a GPU each of them makes the host wait until all that was launched before is done.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
FROM_PYTHON = "lift_fresh"  # begins a tensor of numbers from Python, which are moved then
CAN_BE_CAPTURED = ("linalg_vector_norm",)  # other functions of linalg call solvers, which cannot

UNDECLARED = {"native_batch_norm": (3, 4)}  # its schema does not say that it writes to these


class Calls(TorchDispatchMode):
    """Lists the operators that run inside by name, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))


@dataclass
class Called:
    """An operator, its arguments, and the tensors that it returned in memory of their own."""

    operator: Any
    args: Any
    kwargs: dict[str, Any]
    made: list[Tensor]


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


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


def is_refused(name: str) -> bool:
    """Whether a capture refuses an operator of this name."""
    solver = name.lstrip("_").startswith("linalg_") and name not in CAN_BE_CAPTURED
    return solver or name in (*WAITING, FROM_PYTHON)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Called] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_refused(func.overloadpacket.__name__):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for tensor in written(func, args, kwargs):
            self.before.append((tensor, tensor.clone()))
        out = func(*args, **kwargs)
        made = tensors_in(out) if makes_memory(func) else []
        self.calls.append(Called(func, args, kwargs, made))
        return out


class Tape:
    """A `Recorder` for the CPU."""

    def renewed(self) -> Tape:
        """Another."""
        return Tape()

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

        @torch.no_grad()
        def repeat() -> None:
            for call in recording.calls:
                found = tensors_in(call.operator(*call.args, **call.kwargs))
                if call.made:
                    for ours, theirs in zip(call.made, found, strict=True):
                        ours.copy_(theirs)

        return repeat, outputs


class Counted:
    """A recorder that counts: `counts` has how many functions were recorded, and repetitions."""

    def __init__(self, recorder: Recorder, counts: dict[str, int] | None = None) -> None:
        self.recorder = recorder
        self.counts = {"recorded": 0, "repeated": 0} if counts is None else counts

    def renewed(self) -> Counted:
        """One that counts on."""
        return Counted(self.recorder.renewed(), self.counts)

    def run(self, function: Callable[[], Outputs]) -> Outputs:
        """Calls a function."""
        return self.recorder.run(function)

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Records a function whose repetitions are counted."""
        replay, outputs = self.recorder.record(function)
        self.counts["recorded"] += 1

        def repeat() -> None:
            self.counts["repeated"] += 1
            replay()

        return repeat, outputs
