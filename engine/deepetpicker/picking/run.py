"""``pick``: which tomograms, in which order, what is done already, and what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.classes import write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.items import DataItem, items_from_files, items_from_params
from deepetpicker.io.manifest import Manifest, write_content
from deepetpicker.io.records import EARLIER, Records, is_same, located, made_from, with_records
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import folder_size, given_sizes, resolve_voxel_size
from deepetpicker.perclass import text_of
from deepetpicker.picking.discovery import expected_rate
from deepetpicker.picking.picker import Picker, ProbabilityMaps, mask_path, open_mask
from deepetpicker.picking.planning import duration, gigabytes
from deepetpicker.picking.sharding import Shard
from deepetpicker.picking.verdict import Facts, best_scores, judge
from deepetpicker.verdict import GOOD

PathLike = Union[str, pathlib.Path]
logger = logging.getLogger(__name__)


def pick(model: PathLike, tomograms: Sequence[PathLike] = (), out: PathLike = "picks",
         options: PickOptions = PickOptions(), params: Optional[Mapping[str, Any]] = None,
         quiet: bool = False) -> Dict[str, Any]:
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

    Returns
    -------
    dict
        The manifest, of its items those of this call (of this shard).

    Raises
    ------
    InputError
        For bad options, or when not one tomogram (of this shard) could be picked.
    """
    shard = Shard.parse(options.shard or "1/1")
    items = items_from_params(params) if params and params.get("items") else items_from_files(tomograms)
    run = _Run(pathlib.Path(out), model, options, [item.name for item in items])
    mine = shard.choose(items)
    done = run.done(mine) if options.resume else []
    todo = [item for item in mine if item.name not in done]
    if todo:
        picker = Picker(model, options, quiet)  # before anything of an earlier run is replaced
        run.computes_on(picker.device.type)
        _announce(picker, todo)
    content = run.write_manifest()
    if todo:
        write_classes(run.folder, picker.card.classes)  # ids, names and diameters go with the tables
    begin = time.perf_counter()
    try:
        for count, item in enumerate(todo, 1):
            _pick_item(picker, item, run)
            run.keep_manifest()
            _say_progress(count, len(todo), time.perf_counter() - begin)
    finally:
        content = run.write_manifest()
    if shard.count > 1:
        missing = content["outputs"]["missing"]
        logger.info("shard %s: %s; %s", shard, f"{len(mine)} of {len(items)} tomogram(s)" if mine else
                    f"no tomogram, there are only {len(items)}", f"still missing: {', '.join(missing)}" if missing else
                    "nothing is missing")
    run.conclude(content)
    own = {item.name for item in mine}
    content = located({**content, "items": [i for i in content["items"] if i["name"] in own]}, run.folder)
    failed = [i for i in content["items"] if i["status"] == "failed"]
    if failed and len(failed) == len(mine):
        raise InputError(f"none of {len(mine)} tomogram(s) could be picked; the first: {failed[0]['reason']}")
    return content


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
        self.folder, self.records, self._options = folder, Records(folder), options
        self._model_sha256, self._written, self._cost_s = _digest(model), 0.0, 0.0
        self._manifest = Manifest("pick", {**options.to_dict(), "shard": ""}, seed=0)
        self._manifest.outputs.update(model=os.path.abspath(model), model_sha256=self._model_sha256, names=names)

    def made(self, item: DataItem) -> Dict[str, Any]:
        """Return what decides the picks of an item."""
        return made_from(item.tomogram, resolve_voxel_size(_sizes(item, self._options))[0],
                         mask_path(item.mask or self._options.mask, item.name), self._model_sha256,
                         self._options.to_dict())

    def done(self, items: Sequence[DataItem]) -> List[str]:
        """Return the names of items picked before from the same files with the same model and options; say so."""
        records, done = self.records.read(), []
        for item in items:
            record = records.get(item.name)
            if record is None or record["item"]["status"] != "done":
                continue
            if is_same(record["made"], self.made(item)) and self.records.is_whole(record):
                done.append(item.name)
                logger.info("%s: done before, skipped", item.name)
            elif is_same(record["made"], self.made(item)):
                logger.warning("%s: done before, but its tables were changed since or are damaged: picked again",
                               item.name)
            else:
                logger.info("%s: done before from another file or with other options, picked again", item.name)
        return done

    def check_unchanged(self, item: DataItem, made: Mapping[str, Any]) -> None:
        """Raise InputError when a tomogram or its mask is no longer the file that picking began with."""
        if not is_same(made, self.made(item)):
            raise InputError(f"{item.tomogram} (or its mask) was changed while it was picked: wait until it is "
                             "complete and pick it again")

    def computes_on(self, device: str) -> None:
        """Note what computes, ``cpu`` or ``cuda``: whoever asked for a GPU can see whether there was one."""
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


def _open(picker: Picker, item: DataItem, quiet: bool = False) -> Volume:
    """Return the tomogram of an item."""
    return open_volume(item.tomogram, _sizes(item, picker.options), item.name, quiet)


def _sizes(item: DataItem, options: PickOptions) -> Dict[str, float]:
    """Return what is said of the voxel size of an item besides its header."""
    return given_sizes(options.voxel_size, item.voxel_size_ang, folder_size(item.tomogram))


def _announce(picker: Picker, items: Sequence[DataItem]) -> None:
    """Say what several tomograms will take together, and which of them cannot be picked as it is."""
    plans = []
    for item in items if len(items) > 1 else ():
        try:
            volume = _open(picker, item, quiet=True)
            open_mask(item.mask or picker.options.mask, volume)
            plans.append(picker.plan(volume, quiet=True))
        except DeepETPickerError as error:
            logger.warning("%s: cannot be picked: %s", item.name, error)
    if plans:
        logger.info("%d tomograms: %d tiles, %s, about %s", len(plans), sum(len(p.tiles) for p in plans),
                    gigabytes(max(p.memory_bytes for p in plans)), duration(sum(p.seconds for p in plans)))


def _pick_item(picker: Picker, item: DataItem, run: _Run) -> None:
    """Pick one tomogram, write its tables and its record, as done or as failed."""
    start, made, part = time.perf_counter(), run.made(item), Manifest("pick", {})
    try:
        facts = _write_item(picker, item, run, part, made)
        status, reason = "done", ""
    except DeepETPickerError as error:
        facts, status, reason = {}, "failed", str(error)
        logger.error("%s: failed: %s", item.name, error)
        _set_aside(item.name, run, part)
    seconds = round(time.perf_counter() - start, 3)
    part.add_item(item.name, status, reason, tomogram=os.path.abspath(item.tomogram), seconds=seconds, **facts)
    content = part.to_dict()
    inputs = [{**one, "path": os.path.abspath(one["path"])} for one in content["inputs"]]
    run.records.write(item.name, {"made": made, "item": content["items"][0], "inputs": inputs,
                                  "warnings": content["warnings"]})
    if status == "done":
        logger.info("%s: %d picks >= %s of %d candidates (%.1f s)", item.name, facts["n_picks"],
                    text_of({int(c): t for c, t in facts["thresholds"].items()}), facts["n_candidates"], seconds)


def _set_aside(name: str, run: _Run, part: Manifest) -> None:
    """Take the tables of an earlier run away from a tomogram that failed, and say so."""
    run.records.forget(name)
    moved = run.records.set_aside(name)
    if moved:
        text = f"{name}: failed this time; what an earlier run found is now in {EARLIER}/ ({', '.join(moved)})"
        logger.warning(text)
        part.warn(text)


def _write_item(picker: Picker, item: DataItem, run: _Run, part: Manifest, made: Mapping[str, Any]) -> Dict[str, Any]:
    """Pick one tomogram and write its tables and maps; return the facts for the manifest."""
    folder, volume = run.folder, _open(picker, item)
    part.add_input(volume)
    folder.mkdir(parents=True, exist_ok=True)
    maps: Dict[str, str] = {}
    if picker.options.save_map:
        grid = picker.grid(volume)
        with ProbabilityMaps(folder, item.name, [r.class_id for r in picker.rules], grid) as writer:
            candidates = picker.candidates(volume, folder, writer, item.mask)
            run.check_unchanged(item, made)
            run.records.forget(item.name)  # from here on its tables are replaced
        maps = {str(c): str(p) for c, p in writer.paths.items()}
    else:
        candidates = picker.candidates(volume, folder, mask=item.mask)
        run.check_unchanged(item, made)
        run.records.forget(item.name)
    limits, unheld = picker.limits(candidates)
    picks = picker.picks(candidates, limits)
    facts = _facts(picker, volume, (candidates, picks), limits, item.mask)
    verdict = judge(dataclasses.replace(facts, unheld=unheld), picker.card)
    if verdict.reasons:
        logger.warning("%s: verdict: %s", item.name, verdict)
        part.warn(f"{item.name}: {verdict}")
    paths = {"picks": folder / f"{item.name}.csv", "candidates": folder / f"{item.name}_candidates.csv"}
    write_coordinates(paths["candidates"], candidates)
    write_coordinates(paths["picks"], picks)
    return {**{k: str(p) for k, p in paths.items()}, "maps": maps, "n_picks": len(picks),
            "n_candidates": len(candidates), "threshold": min(limits.values()),
            "thresholds": {str(c): t for c, t in limits.items()}, "expected_fdr": _expected(picks, picker),
            "verdict": verdict.to_dict(), "share_above_half": round(picker.share, 6),
            "best_score": float(candidates.scores.max()) if len(candidates) else None}


def _expected(picks: CoordinateTable, picker: Picker) -> Dict[str, Optional[float]]:
    """Return the share of the picks of each class that is expected to be false; None where nobody knows."""
    rates = {c.id: expected_rate(picks.scores[picks.class_ids == c.id]) if c.calibration else float("nan")
             for c in picker.card.classes}
    return {str(c): round(rate, 4) if rate == rate else None for c, rate in rates.items()}


def _facts(picker: Picker, volume: Volume, tables: Tuple[CoordinateTable, CoordinateTable],
           limits: Mapping[int, float], mask: str) -> Facts:
    """Return what the verdict on a tomogram rests on, from its candidates and picks."""
    candidates, picks = tables
    counts = {c.id: int((picks.class_ids == c.id).sum()) for c in picker.card.classes}
    size = float(np.prod([float(n) for n in picker.grid(volume, quiet=True).shape_zyx]))
    return Facts(counts, limits, best_scores(candidates.scores, candidates.class_ids), size, picker.share,
                 picker.portrait, volume.voxel_size_ang, bool(mask or picker.options.mask))
