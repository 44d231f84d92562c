"""What the fused form of an operation works with: the state it reads, and its own call.

A call is of one operation on all edges that leave a state and hold it. It adds a term to the sum of
the edges' outputs, keeps what its backward pass needs, and hands gradients back by name.
Dimensions: N nodes, m edges of a call, C channels, D = m·C columns of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.protocol import Backend, Lengths

Kept = tuple[Tensor | None, ...]


class Aggregate:
    """An aggregation of a state over its neighbours that several calls read: `[N, C]`."""

    @staticmethod
    def forward(x: Tensor, neighbors: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The aggregation, and what its backward pass needs."""
        raise NotImplementedError

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Any) -> Tensor:
        """The gradient of x; may overwrite `grad`."""
        raise NotImplementedError


@dataclass
class State:
    """One state in one pass: features `x` `[N, C]`, neighbours, and the gradients found so far.

    `full` says that something besides the edges' weights will need a gradient; where it is False
    only what those need is kept, and only they are computed. `needs_scale` says that those do.
    """

    x: Tensor
    neighbors: Any
    training: bool
    full: bool
    needs_scale: bool
    needs_x: bool = False
    needs_weights: bool = False
    grad_x: Tensor | None = None
    aggregates: dict[type[Aggregate], Tensor] = field(default_factory=dict)
    kept: dict[type[Aggregate], tuple[Tensor, ...]] = field(default_factory=dict)
    grads: dict[type[Aggregate], Tensor] = field(default_factory=dict)

    @cached_property
    def backend(self) -> Backend:
        """What computes on x."""
        return backend_of(self.x)

    def read(self, aggregate: type[Aggregate] | None = None) -> Tensor:
        """An aggregation of x, computed once for all calls, or x itself."""
        if aggregate is None:
            return self.x
        if aggregate not in self.aggregates:
            value, kept = aggregate.forward(self.x, self.neighbors)
            self.aggregates[aggregate], self.kept[aggregate] = value, kept
        return self.aggregates[aggregate]

    def grad_buffer(self, aggregate: type[Aggregate] | None = None) -> Tensor:
        """The gradient of an aggregation, or of x, so far, to add to."""
        if aggregate is None:
            if self.grad_x is None:
                self.grad_x = torch.zeros_like(self.x, memory_format=torch.contiguous_format)
            return self.grad_x
        if aggregate not in self.grads:
            like = self.aggregates[aggregate]
            self.grads[aggregate] = torch.zeros_like(like, memory_format=torch.contiguous_format)
        return self.grads[aggregate]

    def add_product(self, grad: Tensor, weight: Tensor) -> None:
        """Adds `grad` `[N, D]` · `weight` `[D, C]` to the gradient of x."""
        if self.grad_x is None:
            self.grad_x = grad @ weight
        else:
            self.grad_x.addmm_(grad, weight)

    def add(self, grad: Tensor) -> None:
        """Adds `[N, C]` to the gradient of x; takes the tensor over."""
        self.grad_x = grad if self.grad_x is None else self.grad_x.add_(grad)

    def add_shared(self, aggregate: type[Aggregate], grad: Tensor, weight: Tensor) -> None:
        """Adds `grad` `[N, D]` · `weight` `[D, C]` to the gradient of an aggregation."""
        if aggregate in self.grads:
            self.grads[aggregate].addmm_(grad, weight)
        else:
            self.grads[aggregate] = grad @ weight

    def finish(self) -> None:
        """Adds what came to the aggregations to the gradient of x."""
        for aggregate, grad in self.grads.items():
            self.add(aggregate.backward(grad, self.kept[aggregate], self.neighbors))


@dataclass
class Call:
    """One operation on its m edges in one pass.

    `weights` are its parameters by name, m tensors each; `modules` the operations themselves, whose
    running statistics move; `scale` `[m]` what multiplies the outputs (None: 1). The backward pass
    leaves in `gradients` the gradient of each parameter, of all edges one below the other, and in
    `grad_scale` float64 `[m]`.
    """

    state: State
    modules: Sequence[Any]
    weights: Mapping[str, Sequence[Tensor]]
    scale: Tensor | None
    inverse: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    grad_scale: Tensor | None = None

    @property
    def num_edges(self) -> int:
        """Number of edges (m)."""
        return len(self.modules)

    def stacked(self, name: str) -> Tensor:
        """A parameter of all edges, one below the other."""
        tensors = self.weights[name]
        return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))

    def per_edge(self, sums: Tensor) -> Tensor:
        """Sums `[m·C]` over the channels of each edge: `[m]`."""
        return sums.view(self.num_edges, -1).sum(1)

    def lengths(self, floor: float) -> Lengths:
        """The inverse lengths of the edges' vectors, and their scale."""
        assert self.inverse is not None
        return Lengths(self.inverse, self.scale, floor)

    def linear_backward(self, name: str, grad: Tensor, weight: Tensor) -> None:
        """Backward of `weight` `[D, C]` times x, from `grad` `[N, D]`."""
        if self.state.needs_x:
            self.state.add_product(grad, weight)
        if self.state.needs_weights:
            self.gradients[name] = grad.t() @ self.state.x


def products(grad: Tensor, *inputs: Tensor) -> Tensor:
    """gradᵀ · input `[D, C]` of each input, side by side: the gradient of a weight of them all."""
    width = inputs[0].shape[1]
    out = grad.new_empty(grad.shape[1], width * len(inputs))
    for number, x in enumerate(inputs):
        torch.mm(grad.t(), x, out=out[:, number * width : (number + 1) * width])
    return out
