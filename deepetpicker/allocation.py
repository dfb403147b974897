"""Memory that a long computation on the CPU frees and takes again and again, kept at hand."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any, Iterator, Optional

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # parameters of mallopt, from malloc.h
_MMAP_MAX_DEFAULT = 65536
_MMAP_THRESHOLD_HIGHEST, _TRIM_THRESHOLD_HIGHEST = 32 << 20, 64 << 20  # where glibc's own adjustment ends


@contextlib.contextmanager
def memory_kept() -> Iterator[bool]:
    """Keep freed memory in the process while the block runs; yield whether this system can.

    The C library of Linux takes each array above 32 MB from the system and gives it back when it is freed. The system
    clears every page of it anew, which takes longer than most of what is computed in it. In the block freed memory
    stays with the process, which so holds what it needed at most; after the block it is given back. Nothing changes
    where the C library is not glibc.
    """
    libc = _glibc()
    if libc is None:
        yield False
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield True
    finally:
        libc.mallopt(_MMAP_MAX, _MMAP_MAX_DEFAULT)
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_THRESHOLD_HIGHEST)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_THRESHOLD_HIGHEST)
        libc.malloc_trim(0)


def _glibc() -> Optional[Any]:
    """Return the C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
