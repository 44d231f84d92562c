"""The functions of `cuda_columns` as operators of torch: `torch.ops.sgas_gcn_cuda`.

They have the schemas and shapes of the compiled operators, and no gradients either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.library import register_fake
from torch.utils.flop_counter import register_flop_formula

from sgas.native.operators import define, first_tensors, is_looked_at
from sgas_gcn.kernels.cpu_operators import COLUMN_OPERATORS, FLOPS, by_name

_TRAINING = "bool training, float momentum, float eps"
_OUTPUT = "Tensor grad, Tensor y, Tensor coefficients, Tensor? scale, int edges, bool training, "
SCHEMAS = (
    "relu_norm_(Tensor(a!) h, float negative_slope, Tensor[] weight, Tensor[] bias, "
    f"Tensor(b!)[] running_mean, Tensor(c!)[] running_var, {_TRAINING}) -> Tensor",
    f"relu_norm_backward({_OUTPUT}float negative_slope, Tensor(a!)? out) "
    "-> (Tensor affine, Tensor of_scale)",
    "norm_coefficients(Tensor sums, int count, Tensor[] weight, Tensor[] bias, "
    f"Tensor(a!)[] running_mean, Tensor(b!)[] running_var, {_TRAINING}) -> Tensor",
    "column_sums(Tensor grad, Tensor y, Tensor? mask) -> Tensor",
    "norm_gradients(Tensor sums, Tensor coefficients, Tensor? scale, int count, bool training, "
    "Tensor like) -> (Tensor factors, Tensor affine, Tensor of_scale)",
    "head_dots(Tensor values, Tensor vectors, Tensor shifts, int heads) "
    "-> (Tensor first, Tensor second)",
    "head_dots_backward(Tensor values, Tensor first, Tensor second) -> Tensor",
    "linear_norm(Tensor[] inputs, Tensor weight, Tensor? bias, float negative_slope, "
    "Tensor[] norm_weight, Tensor[] norm_bias, Tensor(a!)[] running_mean, "
    f"Tensor(b!)[] running_var, {_TRAINING}) -> (Tensor y, Tensor coefficients)",
    f"linear_norm_backward({_OUTPUT}float negative_slope, Tensor[] inputs, Tensor weight, "
    "Tensor(a!)[] grad_inputs, bool of_weight, bool of_bias) "
    "-> (Tensor affine, Tensor of_scale, Tensor grad_weight, Tensor grad_bias)",
    "mixture(Tensor[] values, Tensor?[] coefficients, int[] kinds, int[] slots, int[] counts, "
    "Tensor? scale, Tensor? mask, Tensor?[] bases, int channels, float floor) "
    "-> (Tensor[] outs, Tensor inverse)",
    "skip_backward(Tensor grad, Tensor x, Tensor? scale, Tensor(a!)? grad_x) -> Tensor",
    "length_backward(Tensor grad, Tensor y, Tensor? coefficients, Tensor inverse, Tensor? scale, "
    "float floor, Tensor(a!)? out) -> Tensor",
)


def _run(name: str, *arguments: Any) -> Any:
    """The operator of a name, on the device of its tensors."""
    from sgas_gcn.kernels.cuda_columns import FUNCTIONS  # Triton may not be installed

    return on_device(FUNCTIONS[name], *arguments)


def on_device(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, on the device of its tensors."""
    with torch.cuda.device_of(next(first_tensors(arguments))):
        return function(*arguments)


def launch(function: Callable[..., Any], operator: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result or, where torch traces or counts, that of its operator.

    A call of an operator that Python computes takes longer than a launch.
    """
    return operator(*arguments) if is_looked_at(arguments) else on_device(function, *arguments)


define("sgas_gcn_cuda", SCHEMAS, lambda name: partial(_run, name))
OPERATORS = torch.ops.sgas_gcn_cuda
for name in (schema.partition("(")[0] for schema in SCHEMAS):
    shapes = by_name(getattr(OPERATORS, name), COLUMN_OPERATORS[name])
    register_fake(f"sgas_gcn_cuda::{name}", shapes)
for name in ("linear_norm", "linear_norm_backward"):
    operator = getattr(OPERATORS, name)
    register_flop_formula(operator)(by_name(operator, FLOPS[name]))
