"""What is shown in a terminal: lines without control characters of others, and progress bars.

Names of classes and tomograms, notes of model files and metadata of Zarr folders are whatever somebody wrote there. A
newline in one would forge a line of a log, and an escape sequence would recolour, rename or clear a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from typing import Any, Iterator, Optional

# control characters, line separators, what turns the direction of writing round, and halves of surrogate pairs
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(value: Any) -> str:
    r"""Return the text of a value on one line, with characters that steer a terminal as escapes: ``\n``, ``\x1b``."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), str(value))


def show(*lines: Any) -> None:
    """Write lines to standard output, each made :func:`printable`, and what its encoding has not as escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "".join(f"{printable(line)}\n" for line in lines)
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


class OneLine(logging.Formatter):
    """Formats a message as one line that is safe to show; a traceback behind it keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Return the message on one line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """Return a traceback, each of its lines safe to show."""
        return printable_lines(super().formatException(ei))


def printable_lines(text: str) -> str:
    """Return a text of several lines, such as a traceback, with each of them made :func:`printable`."""
    return "\n".join(printable(line) for line in text.split("\n"))


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
    with tqdm(total=total, desc=printable(what), unit=unit, disable=quiet, mininterval=10.0 if slow else 0.2,
              leave=not slow, ncols=100 if slow else None, dynamic_ncols=not slow, file=sys.stderr) as bar:
        yield bar
