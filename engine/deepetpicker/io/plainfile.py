"""Input files are plain files: a pipe would be waited for without end, and a device has no end."""

from __future__ import annotations

import errno
import os
import stat
from typing import Union

from deepetpicker.errors import InputError

PathLike = Union[str, "os.PathLike[str]"]
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))


LARGEST_JSON = 128 << 20  # bytes: what was read of it takes many times as much memory


def check_plain(path: PathLike, what: str, largest: int = 0) -> None:
    """Refuse what is there and is neither a file nor a folder, and names that no file can have.

    Parameters
    ----------
    path : path
        What is to be opened; links are followed. Nothing there is no error here: opening it will say so.
    what : str
        What is expected, for the message: "a tomogram".
    largest : int
        Bytes that it can have; 0 for any number.

    Raises
    ------
    InputError
        For a pipe, a socket, a device, what is too large, or a name that is too long or has a NUL character.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"expected {what}, got a name longer than file names can be: {path}") from error
        return
    except ValueError as error:
        raise InputError(f"expected {what}, got {os.fspath(path)!r}: no file name holds a NUL character") from error
    kind = next((name for is_kind, name in _KINDS if is_kind(state.st_mode)), "")
    if kind:
        raise InputError(f"expected {what}, got {kind}: {path}; write its content to a file first")
    if largest and state.st_size > largest:
        raise InputError(f"expected {what} of at most {largest >> 20} MiB, got {state.st_size >> 20} MiB: {path}")
