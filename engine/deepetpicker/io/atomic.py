"""Complete or nothing: every output is written under a temporary name and renamed when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
from typing import Iterable, Iterator, List, Union

from deepetpicker.errors import DeepETPickerError, OutputError

PathLike = Union[str, "os.PathLike[str]"]

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EACCES: "no permission: choose a folder you can write to",
    errno.EPERM: "no permission: choose a folder you can write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EISDIR: "a folder of that name exists: choose another name",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
    errno.ENAMETOOLONG: "the file name is too long: choose a shorter one",
    errno.EFBIG: "the file is larger than allowed here: choose another folder or raise the limit",
}


@contextlib.contextmanager
def atomic_output(path: PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary name in the target's folder; rename it to the target when the block ends well.

    Parameters
    ----------
    path : path
        Final name. Missing parent folders are made. An existing file is replaced at the end, never before; a
        symbolic link of that name is replaced, not what it points to.

    Yields
    ------
    pathlib.Path
        A hidden name beside the target with the same suffix, unique per process. The block must create it.

    Raises
    ------
    OutputError
        If the folder or the file cannot be written (disk full, no permission). The temporary file is removed then,
        and after any other exception, KeyboardInterrupt included.
    """
    target = pathlib.Path(path)
    suffix = target.suffix
    stem = os.fsdecode(os.fsencode(target.stem)[:100]).encode("utf-8", "ignore").decode("utf-8")  # whole characters
    temporary = target.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}{suffix}")
    try:
        if target.is_dir():
            raise OSError(errno.EISDIR, "is a folder", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
    except DeepETPickerError:
        raise
    except OSError as error:
        if _is_foreign(error, target):
            raise
        raise OutputError(explain(target, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: PathLike, text: str) -> None:
    """Write a text file (UTF-8, line ends as given) complete or not at all.

    Raises
    ------
    OutputError
        As :func:`atomic_output`.
    """
    with atomic_output(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)


def whole(paths: Iterable[pathlib.Path]) -> List[pathlib.Path]:
    """Return files of a folder, sorted, without hidden ones, as writers that were killed leave them.

    Wherever a folder is looked through for tables or models: ``glob("*.csv")`` finds hidden files too.
    """
    return sorted(path for path in paths if not path.name.startswith("."))


def _sync(path: pathlib.Path) -> None:
    """Make sure the file's bytes are on disk before it gets its final name."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _is_foreign(error: OSError, target: pathlib.Path) -> bool:
    """Tell whether the error names a file outside the target's folder and its parents (an input, say)."""
    if error.filename is None or not isinstance(error.filename, (str, bytes, os.PathLike)):
        return False
    named = pathlib.Path(os.fsdecode(error.filename)).absolute()
    folder = target.absolute().parent
    return named.parent != folder and named != folder and named not in folder.parents


def explain(target: pathlib.Path, error: OSError) -> str:
    """Return one line: which file, what happened, what to do."""
    advice = _ADVICE.get(error.errno or 0, "check the folder and try again")
    return f"cannot write {target}: {error.strerror or error}; {advice}"
