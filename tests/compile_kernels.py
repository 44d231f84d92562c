"""Compiles Triton kernels for GPUs that are not here: the launches of a program, not run.

`TRITON_INTERPRET` unset, `recorded(program)` calls a program on CPU tensors; each kernel that it
launches is translated to machine code instead, for every compute capability given. It finds what
the interpreter forgives: types that change in a loop, names that only Python knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
}


def compiled(program: Callable[[], Any], capabilities: tuple[int, ...]) -> dict[str, int]:
    """How often `program` launched each kernel by name; all of them compile, or this raises."""
    launched: dict[str, int] = {}

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        values = dict(zip(kernel.arg_names, args, strict=False))
        values.update({name: named.pop(name) for name in kernel.arg_names if name in named})
        constants = {p.name: values[p.name] for p in kernel.params if p.is_constexpr}
        types = {
            name: f"*{TYPES[value.dtype]}" if isinstance(value, torch.Tensor) else "i32"
            for name, value in values.items()
            if name not in constants
        }
        signature = {n: "constexpr" if n in constants else types[n] for n in kernel.arg_names}
        for capability in capabilities:
            source = ASTSource(kernel, signature, constants)
            target = GPUTarget("cuda", capability, 32)
            assert triton.compile(source, target=target, options=named).asm["cubin"]
        launched[kernel.fn.__name__] = launched.get(kernel.fn.__name__, 0) + 1

    before = JITFunction.run
    JITFunction.run = compile_only  # type: ignore[method-assign]
    try:
        program()
    finally:
        JITFunction.run = before  # type: ignore[method-assign]
    return launched
