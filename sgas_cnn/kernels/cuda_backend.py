"""The primitives by Triton kernels, on CUDA or interpreted; what they compute say torch_backend and
torch_norms.

Torch knows them as `torch.ops.sgas_cnn_cuda`, with schemas, shapes and FLOPs of the compiled
operators. Running moments follow by torch's own kernels, which take lists. Importing this module
imports Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from sgas.native.operators import define, first_tensors, is_looked_at
from sgas_cnn.kernels import torch_backend
from sgas_cnn.kernels.cpu_operators import described
from sgas_cnn.kernels.protocol import RECORDS, flat, packed
from sgas_cnn.kernels.torch_norms import follow
from sgas_cnn.kernels.triton import primitives

__all__ = [
    "fold",
    "follow",
    "mixture",
    "mixture_backward",
    "pool",
    "pool_backward",
    "projection",
    "projection_backward",
    "separable",
    "separable_backward",
    "separable_sum",
    "unfold",
]

NAMESPACE = "sgas_cnn_cuda"
_CONVOLUTIONS = (
    "Tensor[] inputs, Tensor? scales, Tensor? shifts, Tensor[] taps, int[] dilations, "
    "int[] offsets, Tensor[] pointwise, int[] first_rows, int stride"
)

Call = TypeVar("Call", bound=tuple[Any, ...])
Result = TypeVar("Result")


def _primitive(
    schema: str, launch: Callable[[Call], Result], plain: Callable[[Call], Result]
) -> Callable[[Call], Result]:
    """The primitive of a schema: by its operator where torch looks at it, else by its kernels.

    Images without pixels or channels are torch's, and dense convolutions with all beside them.
    """
    name = schema.partition("(")[0]

    def compute(call: Call, arguments: list[Any]) -> Result:
        tensors = list(first_tensors(arguments))
        like = next((x for x in tensors if x.dim() == 4), tensors[0])
        if not like.numel() or _has_dense(call):
            return plain(call)
        with torch.cuda.device_of(like):
            return launch(call)

    def of_operator(*arguments: Any) -> Any:
        return compute(packed(RECORDS[name], arguments), list(arguments))  # type: ignore[arg-type]

    define(NAMESPACE, [schema], lambda _: of_operator)
    operator = getattr(torch.ops.sgas_cnn_cuda, name)

    def run(call: Call) -> Result:
        arguments = flat(call)
        return operator(*arguments) if is_looked_at(arguments) else compute(call, arguments)

    run.__doc__ = f"As `torch_backend.{name}`."
    return run


def _has_dense(call: tuple[Any, ...]) -> bool:
    convolutions = getattr(call, "convolutions", None)
    return convolutions is not None and convolutions.has_dense


separable = _primitive(
    f"separable({_CONVOLUTIONS}, bool moments) -> (Tensor[], Tensor, Tensor)",
    primitives.separable,
    torch_backend.separable,
)
separable_sum = _primitive(
    f"separable_sum({_CONVOLUTIONS}, Tensor[] before, int[] before_slots, int[] slot_of, "
    "Tensor factors, Tensor bias) -> Tensor[]",
    primitives.separable_sum,
    torch_backend.separable_sum,
)
separable_backward = _primitive(
    "separable_backward(Tensor[] gradients, int[] gradient_of, Tensor factors, Tensor[] outputs, "
    f"Tensor? slopes, Tensor? constants, {_CONVOLUTIONS}, Tensor? centres, Tensor? added, "
    "bool wants_inputs, bool[] wants_taps, bool[] wants_pointwise) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor, Tensor)",
    primitives.separable_backward,
    torch_backend.separable_backward,
)
mixture = _primitive(
    "mixture(Tensor[] before, int[] before_slots, Tensor[] parts, int[] slot_of, Tensor factors, "
    "Tensor[] linear, Tensor coefficients, Tensor bias) -> Tensor[]",
    primitives.mixture,
    torch_backend.mixture,
)
mixture_backward = _primitive(
    "mixture_backward(Tensor[] gradients, Tensor[] parts, int[] slot_of, Tensor centres, "
    "Tensor[] linear, Tensor linear_centres, Tensor coefficients, bool wants_linear) "
    "-> (Tensor[], Tensor, Tensor, Tensor)",
    primitives.mixture_backward,
    torch_backend.mixture_backward,
)
projection = _primitive(
    "projection(Tensor x, Tensor weight, Tensor? bias, bool moments) -> (Tensor, Tensor, Tensor)",
    primitives.projection,
    torch_backend.projection,
)
projection_backward = _primitive(
    "projection_backward(Tensor gradient, Tensor factors, Tensor output, Tensor? slopes, "
    "Tensor? constants, Tensor x, Tensor weight, bool wants_x, bool wants_weight) "
    "-> (Tensor, Tensor)",
    primitives.projection_backward,
    torch_backend.projection_backward,
)
pool = _primitive(
    "pool(Tensor x, int stride, bool moments, bool wants_largest) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    primitives.pool,
    torch_backend.pool,
)
pool_backward = _primitive(
    "pool_backward(Tensor x, Tensor largest, Tensor average, Tensor largest_gradient, "
    "Tensor average_gradient, Tensor slopes, Tensor constants, Tensor? added, int stride) "
    "-> Tensor",
    primitives.pool_backward,
    torch_backend.pool_backward,
)
fold = _primitive(
    "fold(Tensor mean, Tensor var, int[] row_of, Tensor? gamma, Tensor? beta, Tensor? weights, "
    "int[] places, int[] slot_of, int slots, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    primitives.fold,
    torch_backend.fold,
)
unfold = _primitive(
    "unfold(Tensor factors, Tensor centres, Tensor inverse, int[] row_of, Tensor? gamma, "
    "Tensor? beta, Tensor? weights, int[] places, int[] slot_of, Tensor crossed, Tensor sums, "
    "int pixels) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    primitives.unfold,
    torch_backend.unfold,
)
OPERATORS = described(NAMESPACE)
