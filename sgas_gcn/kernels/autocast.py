"""The primitives in plain torch or C++ under autocast, which hands them numbers of 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sgas.precision import widened


class InFloat32:
    """The primitives of a `backend`, computed in float32 and without autocast.

    Results are of the first argument's type again; statistics, which are float64, stay so.
    """

    def __init__(self, backend: Any, device: torch.device) -> None:
        self._backend, self._device = backend, device

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._run, getattr(self._backend, name))

    def _run(self, primitive: Callable[..., Any], x: Tensor, *others: Any) -> Any:
        with torch.autocast(self._device.type, enabled=False):
            found = primitive(widened(x), *map(widened, others))
        if isinstance(found, tuple):
            return tuple(_narrowed(part, x.dtype) for part in found)
        return _narrowed(found, x.dtype)


def _narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.dtype == torch.float32 else x
