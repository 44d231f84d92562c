"""Whether Triton kernels can run here: compiled on a GPU, or interpreted on any device.

Triton comes with the CUDA builds of torch; its interpreter, for tests, is switched on by the
environment variable TRITON_INTERPRET=1. Neither torch nor Triton at this module's import.
"""

from __future__ import annotations

import logging
import os
import subprocess
from functools import cache

logger = logging.getLogger("sgas")

LOWEST_CAPABILITY = (7, 0)


def interpreted() -> bool:
    """Whether Triton kernels are interpreted, on whatever device their tensors are."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def why_not() -> str | None:
    """None where Triton kernels run; else why not, in one line. Looked up once and told once."""
    return _why_not(interpreted())


@cache
def _why_not(interpreted: bool) -> str | None:
    reason = _reason(interpreted)
    if reason is not None:
        logger.warning("Triton kernels are not used: %s", reason)
    return reason


def _reason(interpreted: bool) -> str | None:
    try:
        import triton
    except (ImportError, OSError) as error:
        return f"Triton cannot be imported ({error}): pip install triton"
    if interpreted:
        return None
    import torch

    try:
        # Builds Triton's link to the driver, which takes a C compiler.
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, ImportError, OSError, subprocess.SubprocessError) as error:
        first = str(error).strip().partition("\n")[0]
        return f"Triton {triton.__version__} does not reach the GPU ({first})"
    if torch.version.hip is None and torch.cuda.get_device_capability() < LOWEST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is older than the GPUs that Triton compiles for"
    return None
