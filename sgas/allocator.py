"""Freed memory is kept for the next step instead of going back to the system. No torch here.

glibc maps every tensor above its threshold anew (32 MiB at most) and trims the top of the heap, so
that each training step pays again for the pages of its gradients. Measured on search steps with one
thread of a shared machine, three a setting: 15,000 to 350,000 page faults a step became 0 to 35,000
and mostly none; system time fell from 0.03 to 0.75 s to less than 0.08 s; of all CPU time that was
7 % for 6 graphs, 2 % for 16 clouds, and between a gain of 5 % and a loss of 2 % for 28 clouds. Peak
memory moved by -2 to +3 %.
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
