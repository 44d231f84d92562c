"""Candidate operations on points and graphs for tests: fresh ones, and how they run fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.fused.state import FusedEdges, FusedGroup
from sgas_gcn.ops.operation import BatchNorm, Operation, runs_fused


def randomised(operation: type[Operation], channels: int, count: int = 1) -> list[Operation]:
    """Operations in float64 whose norms have weights of both signs."""
    ops = [operation(channels).double() for _ in range(count)]
    for op in ops:
        for module in op.modules():
            if isinstance(module, BatchNorm):
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return ops


def fused(
    ops: Sequence[Operation], x: Tensor, neighbors: Any, scale: Tensor | None = None
) -> Tensor:
    """The outputs `[N, m, C]` of m operations of a class by its fused form, times `scale` `[m]`."""
    operation = type(ops[0])
    assert runs_fused(operation)
    edges = FusedEdges((FusedGroup(operation, tuple(ops), tuple(range(len(ops)))),), len(ops))
    return torch.stack(edges.outputs(x, neighbors, scale, ops[0].training), dim=1)


def one_by_one(
    ops: Sequence[Operation], x: Tensor, neighbors: Any, scale: Tensor | None = None
) -> Tensor:
    """The same by what defines them."""
    outputs = torch.stack([op(x, neighbors) for op in ops], dim=1)
    return outputs if scale is None else outputs * scale.view(-1, 1)


def without_fused_forms(table: Mapping[str, type[Operation]]) -> dict[str, type[Operation]]:
    """The operations as they are where nothing but their `forward` is given."""
    return {
        name: type(cls.__name__, (cls,), {"forward": cls.forward}) for name, cls in table.items()
    }


def gradients(out: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the inputs for a random one of `out`; zeros where there is none."""
    torch.manual_seed(99)
    if not out.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    by = torch.randn(out.shape, dtype=out.dtype)  # randn_like would follow the layout in memory
    grads = torch.autograd.grad(out, inputs, by, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]


def assert_fused_form_is_the_definition(
    operation: type[Operation], x: Tensor, neighbors: Any, training: bool
) -> None:
    """Outputs, gradients and statistics of three edges, by the fused form and one by one."""
    ops = randomised(operation, x.shape[1], 3)
    for op in ops:
        op.train(training)
    scale = torch.tensor([0.3, 1.0, 0.05], dtype=x.dtype, requires_grad=True)
    inputs = [x, scale, *[p for op in ops for p in op.parameters()]]
    buffers = [buffer for op in ops for buffer in op.buffers()]
    fresh, results = [buffer.clone() for buffer in buffers], []
    for way in (fused, one_by_one):
        for buffer, value in zip(buffers, fresh, strict=True):
            buffer.copy_(value)
        out = way(ops, x, neighbors, scale)
        results.append([out, *gradients(out, inputs), *[buffer.clone() for buffer in buffers]])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-9)
