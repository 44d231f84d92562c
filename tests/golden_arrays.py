"""Arrays that the authors' published method gave, and how near to them our results have to be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = Mapping[str, np.ndarray]


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def close(ours: Tensor | None, wanted: Any) -> None:
    """Passes where both are equal to 1e-9, or to 1e-10 of the largest."""
    known = torch.as_tensor(wanted, dtype=torch.float64)
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), known.view_as(ours), rtol=1e-9, atol=1e-10 * known.abs().max().item()
    )


def our_name(name: str) -> str:
    """`cell0.edge3.gat.att` as `cells.0.edges.3.gat.att`."""
    return re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))


def check_step(
    arrays: Arrays,
    state: str,
    logits: Tensor,
    loss: Tensor,
    of_alphas: Mapping[str, Tensor | None],
    of_weight: Callable[[str], Tensor | None],
) -> None:
    """A supernet's logits, its loss, and the gradients of alphas by kind and of weights by name.

    A weight that takes no part has none.
    """
    close(logits, arrays[f"{state}.logits"])
    close(loss, arrays[f"{state}.loss"])
    for kind, gradient in of_alphas.items():
        key = f"{state}.grad_alpha"
        close(gradient, arrays[key if key in arrays else f"{key}_{kind}"])
    norms, used, compared = arrays[f"{state}.grad_norm"], arrays[f"{state}.grad_used"], 0
    for name, norm, takes_part in zip(arrays["grad_names"], norms, used, strict=True):
        gradient = of_weight(str(name))
        assert (gradient is not None) == takes_part, name
        if gradient is not None:
            close(gradient.norm(), norm)
            if (key := f"{state}.grad_w.{name}") in arrays:
                close(gradient, arrays[key])
                compared += 1
    assert compared > 10
