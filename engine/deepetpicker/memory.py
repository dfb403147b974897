"""How much memory this process holds, what the C library does with freed memory, and when a mapped file vanishes."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import resource
import signal
import sys
from typing import Any, Callable, Iterator, Optional

MIB = 1 << 20
BLAS_BYTES, MOST_BLAS_THREADS = 32 * MIB, 64  # what OpenBLAS takes for a thread, and how many numpy's has
# of addresses: numpy with its libraries, PyTorch with its own (of its build for the CPU), the stack of a thread
NUMPY_BYTES, TORCH_BYTES, STACK_BYTES = 64 * MIB, 576 * MIB, 8 * MIB
# how libraries say it, PyTorch as a plain RuntimeError; the last: oneDNN, cuDNN or cuBLAS without workspace, and the
# system when it loads one
NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "not enough memory", "could not create a memory",
             "could not create a primitive", "STATUS_ALLOC_FAILED", "unable to find an engine", "failed to map segment",
             "cannot allocate memory", "cannot apply additional memory protection", "Cannot create TLS",
             "can't start new thread")
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


def room_bytes() -> int:
    """Return how much more memory a limit of the shell or the queue (``ulimit -v``) leaves; 0 without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return 0
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
    return max(1, limit - used)


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


class _SigAction(ctypes.Structure):
    """What glibc calls ``struct sigaction``."""

    _fields_ = (("action", ctypes.c_void_p), ("mask", ctypes.c_ubyte * 128), ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p))


_SA_SIGINFO, _ADDRESS_AT = 4, 16  # from signal.h: the flag, and where siginfo_t has the address
_kept: Any = None  # the function that the signal calls must live as long as the process


def take_blas_memory(with_torch: bool = False) -> None:
    """Let numpy's matrix products take the memory they work in, which they keep.

    OpenBLAS, which numpy comes with, asks for it when it is loaded and at the first product, for each of its threads,
    and where there is none asks again without end. So every verb calls this before it starts (``__main__``).

    Parameters
    ----------
    with_torch : bool
        True: there must be room for PyTorch, too, which crashes where it cannot be loaded whole.

    Raises
    ------
    OSError
        ENOMEM, if there is too little.
    """
    threads = blas_threads()
    own, torch = (1 + threads) * BLAS_BYTES, TORCH_BYTES if with_torch and "torch" not in sys.modules else 0
    if "numpy" not in sys.modules:  # its threads start when it is loaded, and are waited for when the process ends
        mmap.mmap(-1, own + NUMPY_BYTES + torch + threads * STACK_BYTES).close()
    import numpy as np

    mmap.mmap(-1, own).close()
    np.matmul(*[np.ones((256, 256), np.float32)] * 2)


def blas_threads() -> int:
    """Return the number of threads that OpenBLAS starts, as it decides it."""
    given = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    cores = os.cpu_count() or 1
    return min(int(given) if given.isdecimal() and int(given) else cores, cores, MOST_BLAS_THREADS)


def on_lost_file(end: Callable[[str], None]) -> None:
    """Call a function with a path when a file that is mapped into memory can be read no more.

    Where a tomogram is cut while it is used, or its disk fails, the system sends SIGBUS, which ends a process without
    a word. The first call in a process counts; nothing is done where the C library is not glibc.

    Parameters
    ----------
    end : callable
        Says what has happened and ends the process; it cannot return. The path is empty where it is not known.
    """
    global _kept
    libc = _glibc()
    if libc is None or _kept is not None:
        return

    def lost(number: int, info: int, context: int) -> None:
        address = ctypes.c_size_t.from_address(info + _ADDRESS_AT).value
        try:
            end(mapped_file(address))
        finally:
            os._exit(128 + number)

    _kept = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lost)
    action = _SigAction(ctypes.cast(_kept, ctypes.c_void_p), flags=_SA_SIGINFO)
    libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), None)


def mapped_file(address: int) -> str:
    """Return the path of the file that is mapped at an address of this process; empty when there is none."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(None, 5)
            low, high = (int(word, 16) for word in fields[0].split("-"))
            if low <= address < high:
                return fields[5] if len(fields) > 5 else ""
    return ""


def _glibc() -> Optional[Any]:
    """Return the C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
