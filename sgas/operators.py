"""Operators of torch that Python computes: what launches Triton kernels, registered as C++ is.

A function that launches is called as it is, unless torch looks (`is_looked_at`): then its operator
is, which autograd, fake tensors, torch.compile and the counting of FLOPs know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

# torch forgets the operators of a library that is gone.
_LIBRARIES: list[torch.library.Library] = []


def define(
    namespace: str, schemas: Sequence[str], function_of: Callable[[str], Callable[..., Any]]
) -> None:
    """Defines the operators of `schemas` in a namespace; `function_of` a name computes it.

    Results that share memory, as slices of one buffer do, come apart: torch forbids an operator
    to return them.
    """
    library = torch.library.Library(namespace, "FRAGMENT")
    _LIBRARIES.append(library)
    for schema in schemas:
        library.define(schema)
        name = schema.partition("(")[0]
        library.impl(name, _apart(function_of(name)), "CompositeExplicitAutograd")


def is_looked_at(*given: Any) -> bool:
    """Whether torch looks at a call with these arguments: traces, fakes, counts or derives it."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return True
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors_in(given)):
        return True
    first = next((x for x in given if isinstance(x, Tensor)), None)
    return type(tensors_in(given)[0] if first is None else first) not in (Tensor, nn.Parameter)


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among values, and in lists among them."""
    found = list[Tensor]()
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [x for x in value if isinstance(x, Tensor)]
    return found


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but that no two of its results share memory."""

    def run(*given: Any) -> Any:
        taken = set[int]()

        def own(result: Any) -> Any:
            if isinstance(result, list | tuple):
                return type(result)(own(part) for part in result)
            if not isinstance(result, Tensor):
                return result
            place = result.untyped_storage().data_ptr()
            shared = place in taken and result.numel() > 0
            taken.add(place)
            return result.clone() if shared else result

        return own(function(*given))

    return run
