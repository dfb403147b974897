"""How much memory this process holds, and what the C library does with memory that is freed and taken again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from typing import Any, Iterator, Optional

MIB = 1 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # parameters of mallopt, from malloc.h
_MMAP_MAX_DEFAULT = 65536
_MMAP_THRESHOLD_HIGHEST, _TRIM_THRESHOLD_HIGHEST = 32 * MIB, 64 * MIB  # where glibc's own adjustment ends


def ask_for_large_pages() -> None:
    """Make PyTorch ask Linux for pages of 2 MB, which are cleared faster; only before its first array is made."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def resident_bytes(peak: bool = False) -> int:
    """Return the resident memory of this process in bytes, now or at most so far; 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="ignore") as status:
            found = re.search(r"VmHWM:\s+(\d+)" if peak else r"VmRSS:\s+(\d+)", status.read())
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0


@contextlib.contextmanager
def freed_memory(kept: bool = True) -> Iterator[bool]:
    """Keep freed memory in the process while the block runs, or give it back at once; yield whether this system can.

    The C library of Linux takes each array above 32 MB from the system and gives it back when it is freed. The system
    clears every page of it anew, which takes longer than most of what is computed in it.

    Parameters
    ----------
    kept : bool
        True: freed memory stays with the process, which so holds what it needed at most; after the block it is given
        back. False: every array above 1 MB goes back at once: slower, but the peak is low and can be foretold.
        Nothing changes where the C library is not glibc.
    """
    libc = _glibc()
    if libc is None:
        yield False
        return
    if kept:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
    else:
        libc.mallopt(_MMAP_THRESHOLD, MIB)
        libc.mallopt(_TRIM_THRESHOLD, MIB)
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
