"""The engine beside an open window: a process of its own that makes candidates and says what places look like.

Whatever the engine needs stays there; the window reads files and lines of JSON, and never waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Sequence

from deepetpicker.annotation.records import AnnotatedTomogram
from deepetpicker.errors import OutputError
from deepetpicker.io.atomic import explain, write_text

PARAMS_FILE, LOG_FILE = "params.json", "engine.log"
MOST = 500  # candidates per tomogram
END_S = 3.0
Start = Callable[[Sequence[str]], List[str]]  # command line of the engine -> that of the process


def this_python(words: Sequence[str]) -> List[str]:
    """Return the command line that runs the engine's in the Python of this process."""
    return [sys.executable, "-m", "deepetpicker", *words]


def _word(line: bytes) -> Dict[str, Any]:
    """Return the word on a line; none when it is not one, as what a library prints."""
    try:
        word = json.loads(line.decode("utf-8", "replace"))
    except ValueError:
        return {}
    return word if isinstance(word, dict) else {}


class Background:
    """``propose --follow`` for some tomograms, running in the background.

    Parameters
    ----------
    folder : Path
        Gets the candidates, ``NAME.npz``; what is there already is not made again.
    tomograms : sequence of AnnotatedTomogram
        In the order in which they are wanted.
    diameter_ang : float
        Particle diameter in angstrom.
    start : callable
        From the engine's words to the command line of a process; default: this Python.

    Raises
    ------
    OutputError
        If the folder cannot be written or the process cannot be started.
    """

    def __init__(self, folder: pathlib.Path, tomograms: Sequence[AnnotatedTomogram], diameter_ang: float,
                 start: Start = this_python) -> None:
        self.folder, self.diameter_ang = folder, diameter_ang
        self._said: queue.Queue[Dict[str, Any]] = queue.Queue()
        self._number = 0
        items = [{"name": one.name, "tomogram": one.path, "voxel_size": one.voxel_size_ang} for one in tomograms]
        words = ["propose", "--follow", "--params", str(folder / PARAMS_FILE), "--out", str(folder)]
        options = {"diameter_angstrom": diameter_ang, "most": MOST}
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / PARAMS_FILE, json.dumps({"options": options, "items": items}) + "\n")
            with (folder / LOG_FILE).open("wb") as log:
                self._process = subprocess.Popen(start(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                 stderr=log, env=environment)
        except OSError as error:
            raise OutputError(explain(folder, error)) from error
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Take over what the process says, until it says no more."""
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for word in filter(None, map(_word, stream)):
                self._said.put(word)
        self._said.put({"ended": self._process.wait()})

    def said(self) -> List[Dict[str, Any]]:
        """Return what was said since the last time; the last of all is ``{"ended": STATUS}``."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._said.get_nowait())
        return found

    def ask(self, tomogram: str, positions_zyx_vox: Sequence[Sequence[float]]) -> int:
        """Ask for the features of positions (N, 3) in a tomogram's voxels; return the number that the answer has."""
        self._number += 1
        line = json.dumps({"id": self._number, "tomogram": tomogram,
                           "positions_zyx_vox": [list(one) for one in positions_zyx_vox]})
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended: that is said, too
            stream.write(line.encode("utf-8") + b"\n")
            stream.flush()
        return self._number

    def last_words(self) -> str:
        """Return the last line that the process wrote as a message; empty when there is none."""
        try:
            lines = (self.folder / LOG_FILE).read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End the process, by itself if it can."""
        stream = self._process.stdin
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def folder_of(session_folder: pathlib.Path, diameter_ang: float) -> pathlib.Path:
    """Return where an annotation keeps the candidates of a diameter (angstrom)."""
    return session_folder / "candidates" / f"{diameter_ang:g}"


