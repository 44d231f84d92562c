"""Operators of torch that Python computes: what launches Triton kernels, registered as C++ is.

A function that launches is called as it is, unless torch looks (`is_looked_at`): then its operator
is, which fake tensors, torch.compile and the counting of FLOPs know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from threading import RLock
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

# torch forgets the operators of a library that is gone.
_LIBRARIES: list[torch.library.Library] = []
_LISTS = (list, tuple)
Function = TypeVar("Function", bound=Callable[..., Any])


def once(function: Function) -> Function:
    """`functools.cache` for what may run only once: threads that come first at a time wait."""
    lock, kept = RLock(), cache(function)

    def run(*arguments: Any) -> Any:
        with lock:
            return kept(*arguments)

    run.__doc__, run.__name__ = function.__doc__, function.__name__
    return cast("Function", cache(run))


def define(
    namespace: str, schemas: Sequence[str], function_of: Callable[[str], Callable[..., Any]]
) -> None:
    """Defines the operators of `schemas` in a namespace; `function_of` a name computes it.

    To be called at a module's import: torch.compile cannot trace it. Results that share memory, as
    slices of one buffer do, come apart: torch forbids an operator to return them.
    """
    library = torch.library.Library(namespace, "FRAGMENT")
    _LIBRARIES.append(library)
    for schema in schemas:
        library.define(schema)
        name = schema.partition("(")[0]
        library.impl(name, _apart(function_of(name)), "CompositeExplicitAutograd")


def is_looked_at(arguments: Sequence[Any]) -> bool:
    """Whether torch looks at a call with these arguments: traces, fakes or counts it."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return True
    return any(type(x) not in (Tensor, nn.Parameter) for x in first_tensors(arguments))


def first_tensors(arguments: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among the arguments, and the first of those in each list."""
    for value in arguments:
        x = value[0] if isinstance(value, _LISTS) and value else value
        if isinstance(x, Tensor):
            yield x


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, below autograd, but that no two of its results share memory."""

    def run(*arguments: Any) -> Any:
        taken = set[int]()

        def own(result: Any) -> Any:
            if isinstance(result, _LISTS):
                return type(result)(own(part) for part in result)
            if not isinstance(result, Tensor):
                return result
            place = result.untyped_storage().data_ptr()
            shared = place in taken and result.numel() > 0
            taken.add(place)
            return result.clone() if shared else result

        with torch._C._AutoDispatchBelowAutograd():
            return own(function(*arguments))

    return run
