"""Candidates for a window that is open: made one tomogram after the other, while questions are answered in between.

The window starts ``propose --follow`` in a process of its own, in whatever environment the engine has. On standard
output there is a line of JSON for each tomogram, ``{"tomogram": NAME, "candidates": N}`` or ``{"tomogram": NAME,
"error": TEXT}``; the candidates themselves lie in ``NAME.npz``, and are made once. On standard input there may come
questions, ``{"id": 3, "tomogram": NAME, "positions_zyx_vox": [[z, y, x], ...]}``; the answer is ``{"id": 3, "features":
[[...], ...]}`` or has an ``error``. The process ends when standard input does.
"""

from __future__ import annotations

import json
import logging
import pathlib
import queue
import threading
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.items import DataItem
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import folder_size, given_sizes
from deepetpicker.proposing.candidates import SUFFIX, Candidates, made_from, read_candidates, write_candidates
from deepetpicker.proposing.source import FeatureSource, SceneSource

log = logging.getLogger(__name__)


def follow(items: Sequence[DataItem], out: pathlib.Path, options: ProposeOptions, lines: Iterable[str],
           say: Callable[[Dict[str, Any]], Any]) -> int:
    """Make the candidates of tomograms and answer questions, until there are no more lines.

    Parameters
    ----------
    items : sequence of DataItem
        The tomograms, in the order in which they are wanted.
    out : Path
        Folder for ``NAME.npz``.
    options : ProposeOptions
        Diameter, number of candidates, contrast.
    lines : iterable of str
        Questions; read in a thread.
    say : callable
        Takes what is to be said.

    Returns
    -------
    int
        How many tomograms failed.

    Raises
    ------
    InputError
        If no diameter is given.
    """
    if not options.diameter_angstrom > 0:
        raise InputError("expected a particle diameter in angstrom, got none: give --diameter-angstrom")
    out.mkdir(parents=True, exist_ok=True)
    follower = _Follower({item.name: item for item in items}, SceneSource(options), options, out)
    questions: queue.Queue[Optional[str]] = queue.Queue()
    threading.Thread(target=_read, args=(lines, questions), daemon=True).start()
    failed, todo = 0, list(items)
    while True:
        try:
            line = questions.get(block=not todo)
        except queue.Empty:
            word = follower.candidates(todo.pop(0).name)
            failed += "error" in word
            say(word)
            continue
        if line is None:
            return failed
        say(follower.answer(line))


def _read(lines: Iterable[str], questions: queue.Queue[Optional[str]]) -> None:
    """Put lines into a queue, and None behind the last."""
    for line in lines:
        if line.strip():
            questions.put(line)
    questions.put(None)


class _Follower:
    """Makes what is asked for."""

    def __init__(self, items: Dict[str, DataItem], source: FeatureSource, options: ProposeOptions,
                 out: pathlib.Path) -> None:
        self.items, self.source, self.options, self.out = items, source, options, out
        self._volumes: Dict[str, Volume] = {}

    def candidates(self, name: str) -> Dict[str, Any]:
        """Return what became of a tomogram; its candidates are made unless they are there."""
        path = self.out / f"{name}{SUFFIX}"
        try:
            volume = self._volume(name)
            made = made_from(self.items[name].tomogram, volume.voxel_size_ang, self.source.how())
            found = _kept(path, made)
            if found is None:
                positions, scores = self.source.candidates(volume)
                found = Candidates(positions, scores, self.source.features(volume, positions))
                write_candidates(path, found, made)
            return {"tomogram": name, "candidates": len(found)}
        except (DeepETPickerError, OSError) as error:
            log.error("%s: %s", name, error)
            return {"tomogram": name, "error": str(error)}

    def answer(self, line: str) -> Dict[str, Any]:
        """Return the answer to a question."""
        number = -1
        try:
            question = json.loads(line)
            number, name = int(question["id"]), str(question["tomogram"])
            positions = np.asarray(question["positions_zyx_vox"], float).reshape(-1, 3)
            if not np.isfinite(positions).all():
                raise ValueError("positions must be numbers")
            return {"id": number, "features": self.source.features(self._volume(name), positions).tolist()}
        except (DeepETPickerError, OSError, ValueError, KeyError, TypeError) as error:
            return {"id": number, "error": str(error) or type(error).__name__}

    def _volume(self, name: str) -> Volume:
        """Return a tomogram, opened once."""
        if name not in self._volumes:
            item = self.items[name]
            sizes = given_sizes(self.options.voxel_size, item.voxel_size_ang, folder_size(item.tomogram))
            self._volumes[name] = open_volume(item.tomogram, sizes, item.name, quiet=True)
        return self._volumes[name]


def _kept(path: pathlib.Path, made: Dict[str, Any]) -> Optional[Candidates]:
    """Return candidates that were made before, None when they are to be made."""
    try:
        return read_candidates(path, made)
    except DeepETPickerError as error:
        log.warning("%s", error)
        return None
