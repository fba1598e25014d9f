"""One setting of glibc's allocator that makes packing a sixth faster."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
TRIM_BYTES = 256 << 20
MMAP_BYTES = 32 << 20
"""The most that glibc takes (``DEFAULT_MMAP_THRESHOLD_MAX``)."""


def keep_freed_memory() -> None:
    """Have the C allocator keep up to 256 MiB of freed memory instead of giving it back to the system.

    A packer frees and takes the same tens of megabytes for every chunk; given back each time, every page of them is
    faulted in anew (packing noisy frames: 760 MB/s with it given back, 890 MB/s with it kept). For processes that do
    nothing else; nothing happens where the C library is not glibc. Safe to repeat.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
