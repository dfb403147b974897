"""A run of ``pick`` on a cluster: a task per tomogram, handed to the next free worker, again when a worker dies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import pathlib
import time
from typing import Any, Dict, Iterator, List, Sequence, Union

from deepetpicker import __version__
from deepetpicker.config import ClusterOptions
from deepetpicker.errors import InputError
from deepetpicker.io.items import DataItem
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.network.modelfile import load_model
from deepetpicker.perclass import resolve
from deepetpicker.picking.cluster.tasks import Terms, pick_there
from deepetpicker.picking.cluster.workers import Workers, open_workers
from deepetpicker.picking.discovery import check_calibrated
from deepetpicker.picking.tomogram import Task, fail_item

logger = logging.getLogger(__name__)

POLL_S, COUNT_S, REMIND_S = 0.1, 2.0, 60.0
AGAIN = ("lost", "pending")  # of what had ended: its worker died before the answer was fetched, and dask does it anew
GONE = ("the scheduler of the cluster is gone: tomograms that were finished are kept, and the same command with "
        "--resume picks the others")
DIED = ("each worker that picked it died: no memory left (set --memory-limit, or allow more), cut off by the queue "
        "(allow more --hours), or its file was cut or its disk failed")


@dataclasses.dataclass(frozen=True)
class Crew:
    """Whoever picks the tomograms of a run.

    Attributes
    ----------
    card : ModelCard
        Card of the model.
    device : str
        What computes; empty while nobody knows.
    picked : iterator of str
        Picks a tomogram with each step and gives what computed it.
    """

    card: ModelCard
    device: str
    picked: Iterator[str]


@contextlib.contextmanager
def crew_of(task: Task, items: Sequence[DataItem], options: ClusterOptions) -> Iterator[Crew]:
    """Yield the workers of a cluster as those that pick.

    Raises
    ------
    InputError
        For a model or options that no worker could use, or when the cluster cannot be had.
    """
    card = load_model(task.model)[1]
    resolve(task.options.threshold, card.classes, card.thresholds, "threshold")
    resolve(task.options.min_distance_angstrom, card.classes, card.thresholds, "min_distance_angstrom")
    if task.options.fdr:
        check_calibrated(card.classes)
    task = dataclasses.replace(task, folder=pathlib.Path(_absolute(task.folder)), model=_absolute(task.model),
                               options=dataclasses.replace(task.options, mask=_absolute(task.options.mask)))
    items = [dataclasses.replace(item, tomogram=_absolute(item.tomogram), mask=_absolute(item.mask)) for item in items]
    with open_workers(options, task.options.device, len(items), task.folder) as workers:
        terms = Terms(options.threads, logging.getLogger("deepetpicker").getEffectiveLevel())
        yield Crew(card, "", _picked(task, items, workers, terms))


def _absolute(path: Union[str, pathlib.Path]) -> str:
    """Return a path that means the same in any working directory; an empty one stays empty."""
    return os.path.abspath(path) if path else ""


def _picked(task: Task, items: Sequence[DataItem], workers: Workers, terms: Terms) -> Iterator[str]:
    """Have all tomograms picked; give what computed each, as they end.

    dask gives up a tomogram when workers died that had it, though it may only have waited there. Then it is picked
    once more with nothing beside it, so that none is blamed for another one.
    """
    given_up: List[DataItem] = []
    yield from _handed_out(task, items, workers, terms, given_up)
    for item in sorted(given_up, key=items.index):
        logger.warning("%s: the workers that had it died: picked once more, alone", item.name)
        again: List[DataItem] = []
        yield from _handed_out(task, [item], workers, terms, again)
        if again:
            fail_item(item, task, DIED, task.made(item), Manifest("pick", {}))
            yield ""


def _handed_out(task: Task, items: Sequence[DataItem], workers: Workers, terms: Terms, given_up: List[DataItem]
                ) -> Iterator[str]:
    """Hand out tomograms; give what computed each, as they end; note those whose workers died."""
    from distributed import KilledWorker, as_completed

    waiting: Dict[Any, DataItem] = {
        workers.client.submit(pick_there, task, item, terms, pure=False): item for item in items}
    ended, watch = as_completed(list(waiting), raise_errors=False), _Watch(workers)
    while waiting:
        watch.look()
        batch = ended.next_batch(block=False)
        if not batch:
            time.sleep(POLL_S)
        for future in batch:
            if future.status in AGAIN:
                ended.add(future)
                continue
            item = waiting.pop(future)
            if future.status == "error" and isinstance(future.exception(), KilledWorker):
                given_up.append(item)
                continue
            if future.status != "finished":
                raise _error_of(future)
            device, said = future.result()
            for name, level, text in said:
                logging.getLogger(name).log(level, "%s", text)
            future.release()
            yield str(device)


def _error_of(future: Any) -> BaseException:
    """Return why a task could not be done, apart from what is wrong with its tomogram."""
    if future.status != "error":
        return InputError(GONE)
    error: BaseException = future.exception()
    if isinstance(error, (ModuleNotFoundError, AttributeError)) or "serializ" in str(error):
        return InputError(f"the workers cannot load deepetpicker {__version__} ({error}): install it where they run, "
                          "the same version everywhere")
    return error


class _Watch:
    """Says how many workers there are, what is amiss while there are none, and ends what cannot go on.

    Parameters
    ----------
    workers : Workers
        The cluster.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers, self._count = workers, -1
        self._next, self._came, self._told = 0.0, time.monotonic(), 0

    def look(self) -> None:
        """Look at the workers, at most every two seconds.

        Raises
        ------
        InputError
            If the queue refused all jobs, or the scheduler is gone.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + COUNT_S
        try:
            count = len(self._workers.client.nthreads())
        except (OSError, RuntimeError, ValueError, asyncio.TimeoutError) as error:
            raise InputError(GONE) from error
        if count != self._count and (count or self._count > 0):
            logger.info("%d worker%s", count, "" if count == 1 else "s")
        if count or self._count > 0:
            self._came = now
        self._count = count
        answers = self._workers.answers
        if answers.refused and not answers.accepted:
            raise InputError(f"the queue refused the jobs: {answers.refused[-1]}")
        for text in answers.refused[self._told:]:
            logger.warning("the queue refused a job: %s", text)
        self._told = len(answers.refused)
        if now - self._came > REMIND_S:
            self._came = now
            logger.warning("no worker has come for %d s: %s", REMIND_S, self._workers.advice)


