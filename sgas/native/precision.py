"""What autocast means in functions whose forward and backward passes are written by hand.

Under autocast (`--precision bf16`) torch computes linear layers and convolutions in bfloat16 and
hands their results on in it. Functions over many edges and functions of statistics take float32
instead, since what they sum and subtract would be lost in eight bits; `product` is for the large
products inside them that bear it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Pass = TypeVar("Pass", bound=Callable[..., Any])


def narrow_type(x: Tensor) -> torch.dtype | None:
    """The type in which autocast has products of `x` computed; None where it is off or float64."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def narrowed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's type, as they are where it is off: the factors of one product."""
    dtype = narrow_type(tensors[0])
    return tensors if dtype is None else tuple(x.to(dtype) for x in tensors)


def product(a: Tensor, b: Tensor, narrow: torch.dtype | None) -> Tensor:
    """a · b of two matrices in the type of `a`, both rounded to `narrow` before (None: not)."""
    return a @ b if narrow is None else (a.to(narrow) @ b.to(narrow)).to(a.dtype)


def widened(value: Any) -> Any:
    """A tensor of 16 bits as float32; everything else as it is."""
    is_narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_narrow else value


def runs_plain(network: nn.Module, x: Tensor) -> bool:
    """Whether a network in evaluation mode runs by its definition, in plain torch alone.

    So it does in 16 bits, and while it is exported, traced or compiled: nothing of ours may be in
    what is exported, and a compiler makes its own kernels.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not network.training and (traced or x.element_size() < 4)


def without_autocast(function: Pass) -> Pass:
    """A forward or backward pass, `(context, *arguments)`, that gets float32 and no autocast.

    Gradients of 16-bit inputs are made 16-bit by autograd itself.
    """

    @wraps(function)
    def run(context: Any, *arguments: Any) -> Any:
        device = next(x.device.type for x in arguments if isinstance(x, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(context, *arguments)
        with torch.autocast(device, enabled=False):
            return function(context, *map(widened, arguments))

    return cast("Pass", run)
