"""Steps of training and evaluation as CUDA graphs: one launch in the place of thousands.

A graph repeats the kernels of one step on the same memory with the same numbers. So what a step
takes from Python has to stay as it is: open edges, batch size, drop path. A `Captured` lives for as
long as those do, in a search from decision to decision: its first steps run as ever (they make what
is made once), the next is captured, it and the rest are replayed. The learning rate, which changes
with every epoch, is a tensor.

A replay computes what the step would have: the same kernels in the same order, random numbers
included, whose generator a graph moves on. Source: PyTorch, "CUDA semantics", CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sgas.errors import SgasError, option

AS_EVER = 2  # steps before one is captured

Outputs = tuple[Tensor, ...]
Step = Callable[[Any, Tensor], Outputs]


class Recorder(Protocol):
    """How functions without arguments are recorded on a device."""

    def renewed(self) -> Recorder:
        """The recorder of other steps, when nothing that this one recorded is replayed again."""
        ...

    def run(self, function: Callable[[], Outputs]) -> Outputs:
        """Calls a function where it will be recorded: what that takes is made."""
        ...

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """A function that repeats `function`, and the tensors that it leaves its outputs in.

        Nothing is computed yet. RuntimeError where the function does what cannot be repeated.
        """
        ...


class CudaGraphs:
    """Records CUDA graphs, whose memory they share: they have to be replayed in turn."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()
        # One for a run: libraries keep memory for each stream that they have seen.
        self.stream = stream or torch.cuda.Stream(device)

    def renewed(self) -> CudaGraphs:
        """One with memory of its own, since a pool ends with its graphs."""
        return CudaGraphs(self.device, self.stream)

    def run(self, function: Callable[[], Outputs]) -> Outputs:
        """Calls a function on the stream that records."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = function()
        current.wait_stream(self.stream)
        return outputs

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Captures a graph; other threads, such as those that read images, go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),  # a capture waits for the current one, not the stream's
            torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"),
        ):
            outputs = function()
        return graph.replay, outputs


@dataclass(frozen=True)
class _Recorded:
    """A recorded step: what it reads, how it is repeated, where it leaves its outputs."""

    inputs: Tensor
    targets: Tensor
    replay: Callable[[], None]
    outputs: Outputs

    def takes(self, inputs: Tensor, targets: Tensor) -> bool:
        """Whether a batch is like the one that was recorded."""
        pairs = (self.inputs, inputs), (self.targets, targets)
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)

    def run(self, inputs: Tensor, targets: Tensor) -> Outputs:
        """What the step returns for a batch, in memory of its own."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.replay()
        return tuple(output.clone() for output in self.outputs)


class Captured:
    """A step `(inputs, targets)` that returns tensors, for batches of one size.

    Batches of another size, and inputs that are no tensor, such as graphs, run as ever.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self.step, self.recorder = step, recorder
        self.steps_as_ever = 0
        self.recorded: _Recorded | None = None

    def __call__(self, inputs: Any, targets: Tensor) -> Outputs:
        """What the step returns, in memory of its own."""
        if can_repeat(inputs):
            if self.recorded is None and self.steps_as_ever == AS_EVER:
                self.recorded = self._record(inputs, targets)
            if self.recorded is not None and self.recorded.takes(inputs, targets):
                return self.recorded.run(inputs, targets)
            self.steps_as_ever += self.recorded is None
        return self.recorder.run(lambda: self.step(inputs, targets))

    def _record(self, inputs: Tensor, targets: Tensor) -> _Recorded:
        kept = inputs.clone(), targets.clone()
        try:
            return _Recorded(*kept, *self.recorder.record(lambda: self.step(*kept)))
        except RuntimeError as error:
            # A capture that was broken off says that it was; why, says what came before.
            for cause in (error, error.__context__):
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
            why = str(error.__context__ or error).strip().split("\n")[0]
            raise SgasError(
                f"this step cannot be captured as a CUDA graph ({why}): start again with "
                f"{option('cuda_graphs', 'false')}, which changes speed alone"
            ) from error


def can_repeat(inputs: Any) -> bool:
    """Whether a batch is one tensor, whose memory another batch of its size can take."""
    return isinstance(inputs, Tensor)


def captured(recorder: Recorder | None, *steps: Step) -> tuple[Step, ...]:
    """Steps that are taken in turn; as they are without a recorder."""
    if recorder is None:
        return steps
    renewed = recorder.renewed()
    return tuple(Captured(step, renewed) for step in steps)
