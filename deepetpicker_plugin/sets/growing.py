"""Looking at a set that another process fills: what is new in it, and whether more may come."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import urllib.request
from typing import Any, List, Set, Tuple

from pyworkflow.object import Set as ScipionSet

from deepetpicker.errors import InputError

logger = logging.getLogger(__name__)

PATIENCE_S = 1800.0  # longer than the restart of a file server takes
LOCKED_S = 5.0
STATE, TS_ID = "_streamState", "_tsId"


class GrowingSet:
    """A set of tomograms in its file, read through connections of its own.

    Scipion's own functions take a set that cannot be read at the moment, or whose first item is just being written, for
    a closed one, and share one connection with everything that uses the set. Here an error means "look again later",
    and neither that connection nor a lock is needed.

    Parameters
    ----------
    tomograms : SetOfTomograms
        The set; what it says of its state counts as long as its file says nothing.
    patienceS : float
        Seconds for which it may be impossible to read the file.
    """

    def __init__(self, tomograms: Any, patienceS: float = PATIENCE_S) -> None:
        self._path = os.path.abspath(tomograms.getFileName())
        prefix = (tomograms.getPrefix() or "").strip()
        self._prefix = prefix + "_" if prefix and not prefix.endswith("_") else prefix  # as Scipion names its tables
        self._patienceS = patienceS
        self._wasOpen = bool(tomograms.isStreamOpen())
        self._seen: Set[str] = set()
        self._count, self._readAt = -1, time.monotonic()

    def look(self) -> Tuple[List[str], bool]:
        """Return the tsIds that were not there at the last look, in the set's order, and whether more may come.

        As long as the file cannot be read, there is nothing new and more may come.

        Raises
        ------
        InputError
            If it could not be read for too long.
        """
        try:
            with contextlib.closing(self._connect()) as database:
                found = self._read(database)
        except sqlite3.Error as error:
            waitedS = time.monotonic() - self._readAt
            if waitedS > self._patienceS:
                raise InputError(f"{self._path} could not be read for {waitedS:.0f} s ({error}), so that it is unknown "
                                 "whether tomograms are still to come: when it is there again, choose *Continue*"
                                 ) from error
            logger.warning("%s cannot be read now (%s): looking again later", self._path, error)
            return [], True
        self._readAt = time.monotonic()
        return found

    def _connect(self) -> sqlite3.Connection:
        """Return a connection that can only read, and makes no file where there is none."""
        address = f"file:{urllib.request.pathname2url(self._path)}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=LOCKED_S)

    def _read(self, database: sqlite3.Connection) -> Tuple[List[str], bool]:
        """Return what is new, and whether more may come; items are listed only when their number has changed."""
        isOpen = self._isOpen(database)  # before the items, else the last ones could be missed
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{self._prefix}Objects",)).fetchone():
            return [], isOpen  # a set has no tables before its first item
        count = database.execute(f"SELECT COUNT(*) FROM {self._prefix}Objects").fetchone()[0]
        if count == self._count and isOpen:
            return [], True
        column = database.execute(f"SELECT column_name FROM {self._prefix}Classes WHERE label_property = ?",
                                  (TS_ID,)).fetchone()
        if column is None:
            raise InputError(f"{self._path}: expected tomograms with tsIds, found items without: import them anew")
        rows = database.execute(f"SELECT {column[0]} FROM {self._prefix}Objects ORDER BY id").fetchall()
        new = [row[0] for row in rows if row[0] not in self._seen]
        self._seen.update(new)
        self._count = count
        return new, isOpen

    def _isOpen(self, database: sqlite3.Connection) -> bool:
        """Return whether the file says that more may come; what was known before where it says nothing."""
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Properties'").fetchone():
            return self._wasOpen
        row = database.execute("SELECT value FROM Properties WHERE key = ?", (STATE,)).fetchone()
        return self._wasOpen if row is None or row[0] is None else int(row[0]) == ScipionSet.STREAM_OPEN
