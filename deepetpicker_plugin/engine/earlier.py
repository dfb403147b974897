"""What an earlier run of a protocol has left: a process that still waits, and results that do not hold any more."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import sqlite3
import time
from typing import Any, List, Mapping, Optional

from deepetpicker.errors import DeepETPickerError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.records import identity
from deepetpicker_plugin.constants import PROCESS_FILE
from deepetpicker_plugin.engine.process import GRACE_S, EngineError, beginOf, readManifest, worksHere

ITS_OWN_END_S = 1.5  # for a process that has nothing to wait for, and writes how it ended


def noteProcess(folder: str) -> None:
    """Write down in a protocol's folder which process runs it: host, number, and when it began."""
    write_text(os.path.join(folder, PROCESS_FILE), f"{socket.gethostname()} {os.getpid()} {beginOf(os.getpid())}\n")


def endProcess(folder: str, grace_s: float = GRACE_S) -> bool:
    """End the process of an earlier run of a protocol, before the next one begins.

    One in which a step has failed still waits for the engines that run, though Scipion shows the protocol as failed and
    lets it be continued. When they have ended it would write its own state, failed, over that of the next one. There is
    nothing more for it to do: what its engines find is on disk.

    Parameters
    ----------
    folder : str
        The protocol's folder, where the process has noted itself.
    grace_s : float
        Seconds it gets to end.

    Returns
    -------
    bool
        Whether there was one on this machine.

    Raises
    ------
    EngineError
        If it cannot be ended.
    """
    try:
        host, number, begin = pathlib.Path(folder, PROCESS_FILE).read_text("utf-8").split()
        pid = int(number)
    except (OSError, ValueError):
        return False
    if host != socket.gethostname() or pid == os.getpid() or beginOf(pid) != begin or not worksHere(pid):
        return False
    for wanted, seconds in ((0, ITS_OWN_END_S), (signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, wanted)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if beginOf(pid) != begin:
                return True
            time.sleep(0.02)
    raise EngineError(f"process {pid} on {host}, an earlier run of this protocol, cannot be ended: end it, then "
                      "continue")


def rollBack(database: str) -> None:
    """Let SQLite undo what a killed process has left half done in a data base that another one is copied over.

    Scipion copies the project's over that of a run for each launch. The journal of the killed process would be taken
    for one of the copy and spoil it ("database disk image is malformed").
    """
    if os.path.exists(database):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def isExchanged(path: str, known: Mapping[str, Any]) -> bool:
    """Tell whether a file, that is there, holds something else than when it was read; no, where nothing is known.

    Parameters
    ----------
    path : str
        The file.
    known : mapping
        ``size`` and ``sample`` of what was read, as :func:`identity` gives them.
    """
    if not known.get("sample"):
        return False
    now = identity(path)
    return bool(now["size"] >= 0 and (now["size"], now["sample"]) != (known.get("size"), known["sample"]))


def toDoAgain(manifest: str) -> List[Any]:
    """Return what makes *Continue* do a run of the engine again that had ended; empty when its result holds.

    Scipion compares the arguments of steps alone, and takes a step in which a tomogram failed for finished.

    Parameters
    ----------
    manifest : str
        Path of the run's manifest.

    Returns
    -------
    list
        The tomograms that failed, the inputs whose files were exchanged since, the manifest or tables of picks that are
        there and damaged, and the time of the run.
    """
    if not os.path.isfile(manifest):
        return []
    content = readManifest(manifest)
    items, inputs = ((content or {}).get(key, []) for key in ("items", "inputs"))
    found = [] if content else [manifest]
    found += [item["name"] for item in items if item["status"] == "failed" or not isReadable(item.get("picks"))]
    found += [one["path"] for one in inputs if "sample_sha256" in one
              and isExchanged(one["path"], {"size": one.get("bytes"), "sample": one["sample_sha256"]})]
    return [*found, os.stat(manifest).st_mtime_ns] if found else []


def isReadable(table: Optional[str]) -> bool:
    """Tell whether a table can be read, where there is one."""
    if table and os.path.isfile(table):
        try:
            read_coordinates(table)
        except DeepETPickerError:
            return False
    return True
