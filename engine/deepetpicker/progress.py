"""Progress bars for long work: one function, so that every command shows progress the same way."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Iterator, Optional


@contextlib.contextmanager
def progress(total: Optional[int], what: str, unit: str = "it", quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar on standard error while the block runs.

    Parameters
    ----------
    total : int or None
        Number of steps; None when unknown.
    what : str
        What is being done, with the item in front: ``"tomo_07: scanning"``.
    unit : str
        What a step is, for the rate: ``"tile"``.
    quiet : bool
        True shows nothing.

    Yields
    ------
    An object with ``update(n=1)`` and ``set_postfix_str(text)``. In a log file (no terminal) a line appears at
    most every 10 seconds.
    """
    from tqdm import tqdm

    slow = not sys.stderr.isatty()
    with tqdm(total=total, desc=what, unit=unit, disable=quiet, mininterval=10.0 if slow else 0.2, leave=not slow,
              ncols=100 if slow else None, dynamic_ncols=not slow, file=sys.stderr) as bar:
        yield bar
