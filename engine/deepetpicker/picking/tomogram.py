"""One tomogram of a run of ``pick``: its tables and maps, and the record that says what became of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import time
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.items import DataItem
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.records import EARLIER, Records, is_same, made_from
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import folder_size, given_sizes, resolve_voxel_size
from deepetpicker.outliers import Spread
from deepetpicker.perclass import text_of
from deepetpicker.picking.discovery import expected_rate
from deepetpicker.picking.faint import Faint, is_looked_for, without_faint
from deepetpicker.picking.picker import Picker, ProbabilityMaps, mask_path
from deepetpicker.picking.verdict import Facts, best_scores, judge

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Task:
    """What whoever picks tomograms of a run has to know, in this process or in another one.

    Attributes
    ----------
    folder : pathlib.Path
        Output folder.
    model, model_sha256 : str
        Model file and its digest.
    options : PickOptions
        How to pick.
    """

    folder: pathlib.Path
    model: str
    model_sha256: str
    options: PickOptions

    @property
    def records(self) -> Records:
        """The records in the output folder."""
        return Records(self.folder)

    def made(self, item: DataItem) -> Dict[str, Any]:
        """Return what decides the picks of an item."""
        return made_from(item.tomogram, resolve_voxel_size(_sizes(item, self.options))[0],
                         mask_path(item.mask or self.options.mask, item.name), self.model_sha256,
                         self.options.to_dict())

    def check_unchanged(self, item: DataItem, made: Mapping[str, Any]) -> None:
        """Raise InputError when a tomogram or its mask is no longer the file that picking began with."""
        if not is_same(made, self.made(item)):
            raise InputError(f"{item.tomogram} (or its mask) was changed while it was picked: wait until it is "
                             "complete and pick it again")


def open_item(picker: Picker, item: DataItem, quiet: bool = False) -> Volume:
    """Return the tomogram of an item."""
    return open_volume(item.tomogram, _sizes(item, picker.options), item.name, quiet)


def _sizes(item: DataItem, options: PickOptions) -> Dict[str, float]:
    """Return what is said of the voxel size of an item besides its header."""
    return given_sizes(options.voxel_size, item.voxel_size_ang, folder_size(item.tomogram))


def pick_item(picker: Picker, item: DataItem, task: Task) -> None:
    """Pick one tomogram, write its tables and its record, as done or as failed."""
    start, made, part = time.perf_counter(), task.made(item), Manifest("pick", {})
    try:
        facts = _write_item(picker, item, task, part, made)
    except DeepETPickerError as error:
        fail_item(item, task, str(error), made, part, time.perf_counter() - start)
        return
    seconds = round(time.perf_counter() - start, 3)
    _record(item, task, part, made, status="done", reason="", seconds=seconds, **facts)
    faint = sum(facts["n_faint"].values())
    logger.info("%s: %d picks >= %s of %d candidates%s (%.1f s)", item.name, facts["n_picks"],
                text_of({int(c): t for c, t in facts["thresholds"].items()}), facts["n_candidates"],
                f"; {faint} too faint to be particles left out" if faint else "", seconds)


def fail_item(item: DataItem, task: Task, reason: str, made: Mapping[str, Any], part: Manifest, seconds: float = 0.0
              ) -> None:
    """Write that a tomogram failed, and take the tables of an earlier run away from it.

    Parameters
    ----------
    item, task : DataItem, Task
        The tomogram and its run.
    reason : str
        One line.
    made : mapping
        What would have decided its picks (:meth:`Task.made`).
    part : Manifest
        What is known of it so far: inputs and warnings.
    seconds : float
        What was spent on it.
    """
    logger.error("%s: failed: %s", item.name, reason)
    task.records.forget(item.name)
    moved = task.records.set_aside(item.name)
    if moved:
        text = f"{item.name}: failed this time; what an earlier run found is now in {EARLIER}/ ({', '.join(moved)})"
        logger.warning(text)
        part.warn(text)
    _record(item, task, part, made, status="failed", reason=reason, seconds=round(seconds, 3))


def _record(item: DataItem, task: Task, part: Manifest, made: Mapping[str, Any], status: str, reason: str,
            **facts: Any) -> None:
    """Write the record of a tomogram."""
    part.add_item(item.name, status, reason, tomogram=os.path.abspath(item.tomogram), **facts)
    content = part.to_dict()
    inputs = [{**one, "path": os.path.abspath(one["path"])} for one in content["inputs"]]
    task.records.write(item.name, {"made": made, "item": content["items"][0], "inputs": inputs,
                                   "warnings": content["warnings"]})


def _write_item(picker: Picker, item: DataItem, task: Task, part: Manifest, made: Mapping[str, Any]) -> Dict[str, Any]:
    """Pick one tomogram and write its tables and maps; return the facts for the manifest."""
    folder, volume = task.folder, open_item(picker, item)
    part.add_input(volume)
    if item.mask:
        part.add_mask(item.mask)
    folder.mkdir(parents=True, exist_ok=True)
    maps: Dict[str, str] = {}
    if picker.options.save_map:
        grid = picker.grid(volume)
        with ProbabilityMaps(folder, item.name, [r.class_id for r in picker.rules], grid) as writer:
            candidates = picker.candidates(volume, folder, writer, item.mask)
            task.check_unchanged(item, made)
            task.records.forget(item.name)  # from here on its tables are replaced
        maps = {str(c): str(p) for c, p in writer.paths.items()}
    else:
        candidates = picker.candidates(volume, folder, mask=item.mask)
        task.check_unchanged(item, made)
        task.records.forget(item.name)
    (limits, unheld), faint = picker.limits(candidates), Faint()
    if is_looked_for(picker.options, picker.card):
        candidates, faint = without_faint(candidates, volume, picker.card, limits)
        limits, unheld = picker.limits(candidates)
    picks = picker.picks(candidates, limits)
    facts = _facts(picker, volume, (candidates, picks), limits, item.mask)
    verdict = judge(dataclasses.replace(facts, unheld=unheld, faint=faint), picker.card)
    if verdict.reasons:
        logger.warning("%s: verdict: %s", item.name, verdict)
        part.warn(f"{item.name}: {verdict}")
    paths = {"picks": folder / f"{item.name}.csv", "candidates": folder / f"{item.name}_candidates.csv"}
    write_coordinates(paths["candidates"], candidates)
    write_coordinates(paths["picks"], picks)
    return {**{k: str(p) for k, p in paths.items()}, "maps": maps, "n_picks": len(picks),
            "n_candidates": len(candidates), "threshold": min(limits.values()),
            "thresholds": {str(c): t for c, t in limits.items()},
            "n_faint": {str(c): n for c, n in faint.counts.items()}, "expected_fdr": _expected(picks, picker),
            "spread": Spread.of(picks.scores, picks.positions_zyx_vox[:, 0], volume.shape_zyx[0],
                                picks.class_ids).to_dict(),
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
