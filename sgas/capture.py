"""Training steps as CUDA graphs: one launch for each step in the place of thousands.

A graph repeats the kernels of one step on the same memory with the same numbers. So what a step
takes from Python has to stay as it is: open edges, batch size, learning rate, drop path. Those
change between epochs alone, and a `Captured` lives for one: its first steps run as ever (they make
what is made once), the next is captured, it and the rest are replayed.

A replay computes what the step would have: the same kernels in the same order, random numbers
included, whose generator a graph moves on. Source: PyTorch, "CUDA semantics", CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from sgas.errors import SgasError

AS_EVER = 2  # steps of an epoch before one is captured

Outputs = tuple[Tensor, ...]
Step = Callable[[Any, Tensor], Outputs]


class Recorder(Protocol):
    """How functions without arguments are recorded on a device."""

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

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], Outputs]) -> Outputs:
        """Calls a function on the stream that records."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = function()
        current.wait_stream(self.stream)
        return outputs

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Captures a graph; other threads, such as those that read images, go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs


class Captured:
    """A step `(inputs, targets)` that returns tensors, for batches of one size.

    Batches of another size, and inputs that are no tensor, such as graphs, run as ever.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self.step, self.recorder = step, recorder
        self.steps_as_ever = 0
        self.given: tuple[Tensor, Tensor] | None = None
        self.replay: Callable[[], None] | None = None
        self.outputs: Outputs = ()

    def __call__(self, inputs: Any, targets: Tensor) -> Outputs:
        """What the step returns, in memory of its own."""
        if not self._fits(inputs, targets):
            return self.recorder.run(lambda: self.step(inputs, targets))
        if self.steps_as_ever < AS_EVER:
            self.steps_as_ever += 1
            return self.recorder.run(lambda: self.step(inputs, targets))
        if self.given is None:
            self._record(inputs, targets)
        assert self.given is not None and self.replay is not None
        self.given[0].copy_(inputs)
        self.given[1].copy_(targets)
        self.replay()
        return tuple(output.clone() for output in self.outputs)

    def _fits(self, inputs: Any, targets: Tensor) -> bool:
        if not can_repeat(inputs) or self.given is None:
            return can_repeat(inputs)
        return all(a.shape == b.shape for a, b in zip(self.given, (inputs, targets), strict=True))

    def _record(self, inputs: Tensor, targets: Tensor) -> None:
        given = inputs.clone(), targets.clone()
        try:
            self.replay, self.outputs = self.recorder.record(lambda: self.step(*given))
        except RuntimeError as error:
            raise SgasError(
                f"this step cannot be captured as a CUDA graph ({error}): start again without "
                "cuda_graphs, which changes speed alone"
            ) from error
        self.given = given


def can_repeat(inputs: Any) -> bool:
    """Whether a batch is one tensor, whose memory another batch of its size can take."""
    return isinstance(inputs, Tensor)


def captured(make: Callable[[], Recorder] | None, *steps: Step) -> tuple[Step, ...]:
    """Steps that are taken in turn, for one epoch; as they are where nothing `make`s a recorder."""
    if make is None:
        return steps
    recorder = make()
    return tuple(Captured(step, recorder) for step in steps)
