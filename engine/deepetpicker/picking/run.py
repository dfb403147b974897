"""``pick``: which tomograms, in which order, what is done already, and what is written."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from deepetpicker.config import ClusterOptions, PickOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.classes import write_classes
from deepetpicker.io.items import DataItem, items_from_files, items_from_params
from deepetpicker.io.manifest import Manifest, write_content
from deepetpicker.io.records import is_same, located, with_records
from deepetpicker.picking.cluster.run import Crew, crew_of
from deepetpicker.picking.picker import Picker, open_mask
from deepetpicker.picking.planning import duration, gigabytes
from deepetpicker.picking.tomogram import Task, open_item, pick_item
from deepetpicker.verdict import GOOD

PathLike = Union[str, pathlib.Path]
logger = logging.getLogger(__name__)


def pick(model: PathLike, tomograms: Sequence[PathLike] = (), out: PathLike = "picks",
         options: PickOptions = PickOptions(), params: Optional[Mapping[str, Any]] = None,
         quiet: bool = False, cluster: ClusterOptions = ClusterOptions()) -> Dict[str, Any]:
    """Pick particles in tomograms; one that fails does not stop the others.

    Parameters
    ----------
    model : path
        Model file.
    tomograms : sequence of path
        Tomograms; their file stems name the outputs. Left out when params has ``items``.
    out : path
        Folder for NAME.csv (the picks), NAME_candidates.csv (all candidates above the floor), records/NAME.json,
        classes.json and manifest.json. What it holds of other tomograms stays.
    options : PickOptions
        How to pick, and which shard.
    params : mapping, optional
        Content of a params.json; its ``items`` name the tomograms.
    quiet : bool
        True shows no progress.
    cluster : ClusterOptions
        Which workers pick; by default this process.

    Returns
    -------
    dict
        The manifest, of its items those of this call (of this shard).

    Raises
    ------
    InputError
        For bad options, or when not one tomogram (of this shard) could be picked.
    """
    shard_of((), options.shard)  # refuses a wrong one before anything else
    if not cluster.cluster and cluster != ClusterOptions():
        raise InputError("options of a cluster were given, but no --cluster: say which, such as --cluster local")
    if options.shard and cluster.cluster:
        raise InputError("--shard and --cluster both share out the tomograms: use one of them")
    items = items_from_params(params) if params and params.get("items") else items_from_files(tomograms)
    run = _Run(pathlib.Path(out), model, options, [item.name for item in items])
    mine = shard_of(items, options.shard)
    done = run.done(mine) if options.resume else []
    todo = [item for item in mine if item.name not in done]
    content = _pick_all(run, todo, cluster, quiet) if todo else run.write_manifest()
    if options.shard:
        missing = content["outputs"]["missing"]
        logger.info("shard %s: %s; %s", options.shard, f"{len(mine)} of {len(items)} tomogram(s)" if mine else
                    f"no tomogram, there are only {len(items)}", f"still missing: {', '.join(missing)}" if missing else
                    "nothing is missing")
    run.conclude(content)
    own = {item.name for item in mine}
    content = located({**content, "items": [i for i in content["items"] if i["name"] in own]}, run.folder)
    failed = [i for i in content["items"] if i["status"] == "failed"]
    if failed and len(failed) == len(mine):
        raise InputError(f"none of {len(mine)} tomogram(s) could be picked; the first: {failed[0]['reason']}")
    return content


def shard_of(items: Sequence[DataItem], text: str) -> List[DataItem]:
    """Return the items of a shard: for "i/n" every n-th from the i-th on, counted from 1; all for an empty text.

    Raises
    ------
    InputError
        If the text is not of this form with 1 <= i <= n.
    """
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text or "1/1", re.ASCII)
    index, count = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= index <= count:
        raise InputError(f"shard must be i/n with 1 <= i <= n, such as 2/4 for the second of four, got {text!r}: "
                         "give each of the n processes another i, counted from 1")
    return list(items[index - 1::count])


def _pick_all(run: _Run, todo: Sequence[DataItem], cluster: ClusterOptions, quiet: bool) -> Dict[str, Any]:
    """Pick some tomograms, here or on a cluster; return the manifest."""
    opened = crew_of(run.task, todo, cluster) if cluster.cluster else _alone(run.task, todo, quiet)
    with opened as crew:  # before anything of an earlier run is replaced
        run.computes_on(crew.device)
        run.write_manifest()
        write_classes(run.folder, crew.card.classes)  # ids, names and diameters go with the tables
        begin = time.perf_counter()
        try:
            for count, device in enumerate(crew.picked, 1):
                run.computes_on(device)
                run.keep_manifest()
                _say_progress(count, len(todo), time.perf_counter() - begin)
        finally:
            content = run.write_manifest()
    return content


@contextlib.contextmanager
def _alone(task: Task, todo: Sequence[DataItem], quiet: bool) -> Iterator[Crew]:
    """Yield this process as the one that picks."""
    picker = Picker(task.model, task.options, quiet)
    _announce(picker, todo)

    def picked() -> Iterator[str]:
        for item in todo:
            pick_item(picker, item, task)
            yield picker.device.type

    yield Crew(picker.card, picker.device.type, picked())


class _Run:
    """What was done in an output folder, and the manifest that says so.

    Parameters
    ----------
    folder : path
        Output folder.
    model : path
        Model file.
    options : PickOptions
        How to pick.
    names : list of str
        Names of all tomograms of the run, those of other shards included.
    """

    def __init__(self, folder: pathlib.Path, model: PathLike, options: PickOptions, names: List[str]) -> None:
        self.folder, self.task = folder, Task(folder, str(model), _digest(model), options)
        self.records, self._written, self._cost_s = self.task.records, 0.0, 0.0
        self._manifest = Manifest("pick", {**options.to_dict(), "shard": ""}, seed=0)
        self._manifest.outputs.update(model=os.path.abspath(model), model_sha256=self.task.model_sha256, names=names)

    def done(self, items: Sequence[DataItem]) -> List[str]:
        """Return the names of items picked before from the same files with the same model and options; say so."""
        records, done = self.records.read(), []
        for item in items:
            record = records.get(item.name)
            if record is None or record["item"]["status"] != "done":
                continue
            if is_same(record["made"], self.task.made(item)) and self.records.is_whole(record):
                done.append(item.name)
                logger.info("%s: done before, skipped", item.name)
            elif is_same(record["made"], self.task.made(item)):
                logger.warning("%s: done before, but its tables were changed since or are damaged: picked again",
                               item.name)
            else:
                logger.info("%s: done before from another file or with other options, picked again", item.name)
        return done

    def computes_on(self, device: str) -> None:
        """Note what computes, ``cpu`` or ``cuda``: whoever asked for a GPU can see whether there was one."""
        if device:  # else it is not known yet
            self._manifest.outputs["device"] = device

    def conclude(self, content: Mapping[str, Any]) -> None:
        """Say what to think of the whole run."""
        verdict = content["outputs"]["verdict"]
        for text in verdict["unusual"]:
            logger.warning("%s", text)
        level = logging.INFO if verdict["grade"] == GOOD else logging.WARNING
        logger.log(level, "%s: verdict: %s", self.folder, verdict["text"])

    def write_manifest(self) -> Dict[str, Any]:
        """Write manifest.json from all records in the folder; return its content."""
        begin = time.perf_counter()
        content = with_records(self._manifest.to_dict(), self.records.read())
        write_content(self.folder / "manifest.json", content)
        self._written = time.perf_counter()
        self._cost_s = self._written - begin
        return content

    def keep_manifest(self) -> None:
        """Write manifest.json unless that would take more than a tenth of the time; who reads has the records anyway.

        It grows with every tomogram: written after each of thousands it would take longer than the picking.
        """
        if time.perf_counter() - self._written >= 9 * self._cost_s:
            self.write_manifest()


def _say_progress(count: int, total: int, seconds: float) -> None:
    """Say after each tomogram but the last how many are done and what the others will take at this pace."""
    if count < total:
        logger.info("%d of %d tomograms done, about %s left", count, total, duration(seconds / count * (total - count)))


def _digest(path: PathLike) -> str:
    """Return the SHA-256 of a file, or an empty string when it cannot be read (loading it will say why)."""
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _announce(picker: Picker, items: Sequence[DataItem]) -> None:
    """Say what several tomograms will take together, and which of them cannot be picked as it is."""
    plans = []
    for item in items if len(items) > 1 else ():
        try:
            volume = open_item(picker, item, quiet=True)
            open_mask(item.mask or picker.options.mask, volume)
            plans.append(picker.plan(volume, quiet=True))
        except DeepETPickerError as error:
            logger.warning("%s: cannot be picked: %s", item.name, error)
    if plans:
        logger.info("%d tomograms: %d tiles, %s, about %s", len(plans), sum(len(p.tiles) for p in plans),
                    gigabytes(max(p.memory_bytes for p in plans)), duration(sum(p.seconds for p in plans)))
