"""What a worker does: it picks the tomograms that it is handed, one at a time, with a model that it keeps."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from typing import Dict, Iterator, List, Tuple

from deepetpicker import __version__
from deepetpicker.errors import InputError
from deepetpicker.io.items import DataItem
from deepetpicker.memory import ask_for_large_pages
from deepetpicker.picking.picker import Picker
from deepetpicker.picking.tomogram import Task, pick_item

_one_at_a_time = threading.Lock()  # a model on its device serves one tomogram; workers may have several threads
_pickers: Dict[Task, Picker] = {}  # at most one
Said = List[Tuple[str, int, str]]  # of each message the logger's name, the level and the text


@dataclasses.dataclass(frozen=True)
class Terms:
    """What else whoever asks wants of a worker.

    Attributes
    ----------
    threads : int
        Processor cores to compute with.
    level : int
        Messages of this level and above are wanted.
    version : str
        Of the program that asks.
    """

    threads: int
    level: int
    version: str = __version__


def pick_there(task: Task, item: DataItem, terms: Terms) -> Tuple[str, Said]:
    """Pick one tomogram in this process; tables and record are written here.

    Parameters
    ----------
    task : Task
        The run.
    item : DataItem
        The tomogram, with absolute paths.
    terms : Terms
        How.

    Returns
    -------
    tuple of str and list
        What computed, ``cpu`` or ``cuda``, and the messages.

    Raises
    ------
    InputError
        If nothing can be picked here: another version, a model that cannot be read, a device that is not there.
    """
    if terms.version != __version__:
        raise InputError(f"expected deepetpicker {terms.version} on the workers, found {__version__}: install the same "
                         "version everywhere")
    with _one_at_a_time, _gathered(terms.level) as said:
        picker = _pickers.get(task)
        if picker is None:
            picker = _prepare(task, terms.threads)
        pick_item(picker, item, task)
        return picker.device.type, said


class _Gathering(logging.Handler):
    """Keeps the messages of the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: Said = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        if record.thread == self._thread:
            self.said.append((record.name, record.levelno, record.getMessage()))


@contextlib.contextmanager
def _gathered(level: int) -> Iterator[Said]:
    """Yield a list that fills with the engine's messages from a level on, while the block runs."""
    logger, handler = logging.getLogger("deepetpicker"), _Gathering()
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _prepare(task: Task, threads: int) -> Picker:
    """Return a model that is ready to pick; it is kept for the next tomogram."""
    import torch

    _pickers.clear()
    if not task.options.memory_limit:
        ask_for_large_pages()
    torch.set_num_threads(threads)
    _pickers[task] = picker = Picker(task.model, task.options, quiet=True)
    return picker
