"""The journal of a session: a line per change, on disk before anybody sees the change. A kill loses nothing.

A line that was being written when the process died, or when the disk was full, has no end and does not count; the next
line takes its place. A second process is kept away by a lock that dies with its owner; where locks are not seen (some
network file systems), it is told at its first change that the files are no longer those that it opened.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import pathlib
import platform
import time
import zlib
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from deepetpicker.errors import FormatError, InputError, OutputError
from deepetpicker.io.atomic import explain
from deepetpicker.io.jsonvalues import parse
from deepetpicker.io.plainfile import check_plain

logger = logging.getLogger(__name__)
LOCK_FILE = "session.lock"
_LOOKS = 40  # twenty a second, at who holds a lock, until it is said that nobody knows: a busy machine is slow to write
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Journal:
    """An append-only file of JSON lines.

    Parameters
    ----------
    path : Path
        The file; made when it is missing.
    snapshot : Path
        What the entries follow. Once another program has written it, nothing can be appended.

    Raises
    ------
    OutputError
        If it cannot be opened for writing.
    FormatError
        If a whole line is damaged.
    """

    def __init__(self, path: pathlib.Path, snapshot: pathlib.Path) -> None:
        self.path, self._snapshot = path, snapshot
        self._before = _identity(snapshot)
        self.entries, self._size = read_journal(path)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if os.fstat(self._file).st_size > self._size:
                os.ftruncate(self._file, self._size)
        except OSError as error:
            raise OutputError(_whose(path, error)) from error

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry; when this returns it is on disk, and when it raises nothing of it is.

        Raises
        ------
        OutputError
            If the disk is full, the folder has vanished, or another program has changed the file or the snapshot.
        """
        self._check()
        self.check_alone()
        line = json.dumps({**entry, "sum": check_sum(entry)}, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._size + written)
            os.fsync(self._file)
            self._size += len(line)
        except BaseException as error:  # Ctrl-C, too: what was not done must not be on disk
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            if isinstance(error, OSError):
                raise OutputError(f"not saved, and not done: {explain(self.path, error)}") from error
            raise

    def _check(self) -> None:
        """Raise OutputError unless the file is the one that was opened, and as long as it was left."""
        try:
            there, own = os.stat(self.path), os.fstat(self._file)
        except FileNotFoundError as error:
            raise OutputError(f"not saved, and not done: {self.path} has vanished; save a copy elsewhere") from error
        except OSError as error:
            raise OutputError(f"not saved, and not done: {explain(self.path, error)}") from error
        if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino) or own.st_size != self._size:
            raise OutputError(_changed(self.path))

    def check_alone(self) -> None:
        """Check that nobody else has changed the journal or the snapshot; that one is missing is no change.

        Raises
        ------
        OutputError
            If another program has.
        """
        if _identity(self._snapshot) not in (self._before, None):
            raise OutputError(_changed(self._snapshot))
        if self.path.exists():
            self._check()

    def take_over_snapshot(self) -> None:
        """Take the snapshot that is there now for the own one."""
        self._before = _identity(self._snapshot)

    def restart(self) -> None:
        """Begin anew with an empty file: all entries are part of a snapshot now.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._check()
        try:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
        except OSError as error:
            raise OutputError(explain(self.path, error)) from error
        self._size = 0

    @property
    def is_closed(self) -> bool:
        """Whether the file was closed."""
        return self._file < 0

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_sum(content: Mapping[str, Any]) -> int:
    """Return a number that differs when any of the JSON values does."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode("ascii"))


def read_journal(path: pathlib.Path) -> Tuple[List[Dict[str, Any]], int]:
    """Return the whole lines of a journal, and how many bytes they take; nothing when there is no file.

    Raises
    ------
    InputError
        If it cannot be read.
    FormatError
        If a whole line is damaged.
    """
    check_plain(path, "a journal")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    whole = content[:content.rfind(b"\n") + 1]
    entries = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = parse(line.decode("utf-8"))
            if not isinstance(entry, dict):
                raise ValueError("expected an object")
            if "sum" in entry and entry.pop("sum") != check_sum(entry):  # lines of before have none
                raise ValueError("its check sum differs")
        except ValueError as error:
            raise FormatError(f"{path}, line {number} is damaged ({error}): remove it by hand, the other lines are "
                              "whole") from error
        entries.append(entry)
    return entries, len(whole)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Iterator[None]:
    """Hold a folder for one process; the lock dies with the process, whatever kills it.

    Raises
    ------
    InputError
        If another process holds it.
    OutputError
        If the folder cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        _raise_if_held(path)
        raise OutputError(_whose(path, error)) from error
    try:
        _take(file, path)
        _mention(_owner(file), path)
        os.ftruncate(file, 0)
        owner = {"host": platform.node(), "pid": os.getpid(), "user": _user(os.getuid()),
                 "since": datetime.datetime.now().isoformat(timespec="seconds")}
        os.pwrite(file, json.dumps(owner).encode("utf-8"), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _take(file: int, path: pathlib.Path, shared: bool = False) -> None:
    """Lock an open file, alone or as one of several, or raise InputError that says who holds it."""
    import fcntl

    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    for left in reversed(range(_LOOKS)):
        before = _owner(file)
        try:
            fcntl.flock(file, how)
            return
        except OSError as error:
            if error.errno in NO_LOCKS:
                _check_note(before, path)
                return
            owner = _owner(file)
            if owner is not None or not left:
                raise InputError(f"{path.parent} is open in another window ({_words(owner)}): close that one first, or "
                                 "look at its tables with 'deepetpicker view'") from error
        time.sleep(0.05)  # who has only just taken it has not written who it is, and who gives it back no longer


def _check_note(owner: Optional[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Raise InputError if, where there are no locks, somebody who may still be there has left a note."""
    if owner is not None and (owner.get("host") != platform.node() or _runs(int(owner.get("pid") or 0))):
        raise InputError(f"{path.parent} seems to be open in another window ({_words(owner)}): close that one first; "
                         f"if there is none, remove {path}")


def _raise_if_held(path: pathlib.Path) -> None:
    """Raise InputError if a lock that may only be read is held."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        _take(file, path, shared=True)  # reading allows no other
    finally:
        os.close(file)


def _mention(owner: Optional[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Warn of a window of another machine that was not closed: it was killed, or its lock is not seen here."""
    if owner is not None and owner.get("host") != platform.node():
        logger.warning("%s was not closed by %s: if that window is still open, close it first, for its lock is not "
                       "seen on this machine", path.parent, _words(owner))


def _identity(path: pathlib.Path) -> Optional[Tuple[int, int, int, int]]:
    """Return what changes when a file is written anew; None where there is none."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _changed(path: pathlib.Path) -> str:
    """Return what is said when another program has written a file."""
    return (f"not saved, and not done: another program has changed {path}; save a copy elsewhere, close the window and "
            "open it again to go on with what is in the folder")


def _whose(path: pathlib.Path, error: OSError) -> str:
    """Return why a file of the folder cannot be opened for writing, and what to do when somebody else made it."""
    said = explain(path, error)
    if not isinstance(error, PermissionError) or not os.path.exists(path):
        return said
    last = max((one.name for one in path.parent.glob("version_*")), default="version_NNN")
    return (f"{said}, or ask for the right to write in this one: the file belongs to {_user(os.stat(path).st_uid)}. To "
            f"go on from it in a folder of your own: annotate --start {path.parent / last}")


def _user(number: int) -> str:
    """Return the name of an account, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _owner(file: int) -> Optional[Dict[str, Any]]:
    """Return what the holder of a lock has written, None when nobody has or it is not readable."""
    try:
        found = json.loads(os.pread(file, 4096, 0).decode("utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _words(owner: Optional[Mapping[str, Any]]) -> str:
    """Return who holds a lock, for a message."""
    if owner is None:
        return "of another process"
    user = f", of {owner['user']}" if owner.get("user") else ""
    return f"process {owner.get('pid')} on {owner.get('host')}{user}, since {owner.get('since')}"


def _runs(pid: int) -> bool:
    """Tell whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
