"""Freed memory is kept for the next step instead of going back to the system. No torch here.

glibc maps every tensor above its threshold anew (32 MiB at most) and trims the top of the heap, so
that each training step pays again for the pages of its gradients. Measured on searches of point
clouds and graphs: 10^5 page faults a step become none, 0 to 8 % of the CPU time.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Numbers of <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = 2**31 - 1  # bytes at the top of the heap before they are given back


def keep_freed_memory() -> bool:
    """True where the allocator was told to keep what is freed: glibc, and nobody chose otherwise.

    Memory then only grows, up to what the largest step needs. A user's own settings, as `MALLOC_*`
    or `GLIBC_TUNABLES` in the environment, stay in force.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
