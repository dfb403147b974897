"""``pick``: which tomograms, in which order, what is done already, and what is written."""

from __future__ import annotations

import hashlib
import logging
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from deepetpicker.config import PickOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.classes import write_classes
from deepetpicker.io.coordinates import write_coordinates
from deepetpicker.io.items import DataItem, items_from_params
from deepetpicker.io.manifest import Manifest, read_manifest
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.perclass import text_of
from deepetpicker.picking.picker import Picker, ProbabilityMaps, open_mask, working_grid
from deepetpicker.picking.planning import duration, gigabytes
from deepetpicker.picking.sharding import RunRecord, Shard

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
        Folder for NAME.csv (the picks), NAME_candidates.csv (all candidates above the floor), classes.json,
        manifest.json and, with shards, shards/manifest_I_of_N.json.
    options : PickOptions
        How to pick, and which shard.
    params : mapping, optional
        Content of a params.json; its ``items`` name the tomograms.
    quiet : bool
        True shows no progress.

    Returns
    -------
    dict
        The manifest; that of the shard when this is one of several.

    Raises
    ------
    InputError
        For bad options, or when not one tomogram (of this shard) could be picked.
    """
    shard = Shard.parse(options.shard or "1/1")
    items = items_from_params(params) if params and params.get("items") else _items(tomograms, options)
    folder = pathlib.Path(out)
    manifest = Manifest("pick", options.to_dict(), seed=0)
    manifest.outputs.update(folder=str(folder), model=str(model), model_sha256=_digest(model))
    record = RunRecord(folder, manifest, [item.name for item in items], shard)
    done = record.resume() if options.resume else []
    for name in done:
        logger.info("%s: done before, skipped", name)
    mine = shard.choose(items)
    todo = [item for item in mine if item.name not in done]
    if todo:
        picker = Picker(model, options, quiet)  # before anything of an earlier run is replaced
        _announce(picker, todo)
    record.begin(options.resume)
    if todo:
        write_classes(folder, picker.card.classes)  # ids, names and diameters go with the tables
    for item in todo:
        _pick_item(picker, item, folder, manifest)
        record.write()
    complete = record.end()
    if shard.count > 1:
        share = f"{len(mine)} of {len(items)} tomogram(s)" if mine else f"no tomogram, there are only {len(items)}"
        logger.info("shard %s: %s; done so far: %d of %d shards (%s)", shard, share, len(complete), shard.count,
                    ", ".join(map(str, complete)))
    result = read_manifest(record.path)
    failed = [i for i in result["items"] if i["status"] == "failed"]
    if failed and len(failed) == len(mine):
        raise InputError(f"none of {len(mine)} tomogram(s) could be picked; the first: {failed[0]['reason']}")
    return result


def _items(tomograms: Sequence[PathLike], options: PickOptions) -> List[DataItem]:
    """Return an item per tomogram file, or raise InputError when two have the same name."""
    if not tomograms:
        raise InputError("expected at least one tomogram (.mrc, .rec or .map), got none")
    names = [pathlib.Path(t).stem for t in tomograms]
    double = sorted({n for n in names if names.count(n) > 1})
    if double:
        raise InputError(f"expected tomograms of different names, got {', '.join(double)} twice: their pick tables "
                         "would overwrite each other; rename one or pick into two folders")
    return [DataItem(name, str(t), voxel_size_ang=options.voxel_size) for name, t in zip(names, tomograms)]


def _digest(path: PathLike) -> str:
    """Return the SHA-256 of a file, or an empty string when it cannot be read (loading it will say why)."""
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _open(picker: Picker, item: DataItem, quiet: bool = False) -> Volume:
    """Return the tomogram of an item."""
    return open_volume(item.tomogram, item.voxel_size_ang or picker.options.voxel_size, item.name, quiet)


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


def _pick_item(picker: Picker, item: DataItem, folder: pathlib.Path, manifest: Manifest) -> None:
    """Pick one tomogram, write its tables and add it to the manifest, as done or as failed."""
    start = time.perf_counter()
    try:
        facts = _write_item(picker, item, folder, manifest)
        status, reason = "done", ""
    except DeepETPickerError as error:
        facts, status, reason = {}, "failed", str(error)
        logger.error("%s: failed: %s", item.name, error)
    seconds = round(time.perf_counter() - start, 3)
    manifest.add_item(item.name, status, reason, tomogram=item.tomogram, seconds=seconds, **facts)
    if status == "done":
        logger.info("%s: %d picks >= %s of %d candidates (%.1f s)", item.name, facts["n_picks"],
                    text_of(picker.thresholds), facts["n_candidates"], seconds)


def _write_item(picker: Picker, item: DataItem, folder: pathlib.Path, manifest: Manifest) -> Dict[str, Any]:
    """Pick one tomogram and write its tables and maps; return the facts for the manifest."""
    volume = _open(picker, item)
    manifest.add_input(volume)
    folder.mkdir(parents=True, exist_ok=True)
    maps: Dict[str, str] = {}
    if picker.options.save_map:
        grid = working_grid(volume, picker.card)
        with ProbabilityMaps(folder, item.name, [r.class_id for r in picker.rules], grid) as writer:
            candidates = picker.candidates(volume, folder, writer, item.mask)
        maps = {str(c): str(p) for c, p in writer.paths.items()}
    else:
        candidates = picker.candidates(volume, folder, mask=item.mask)
    picks = picker.picks(candidates)
    paths = {"picks": folder / f"{item.name}.csv", "candidates": folder / f"{item.name}_candidates.csv"}
    write_coordinates(paths["candidates"], candidates)
    write_coordinates(paths["picks"], picks)
    return {**{k: str(p) for k, p in paths.items()}, "maps": maps, "n_picks": len(picks),
            "n_candidates": len(candidates), "threshold": min(picker.thresholds.values()),
            "thresholds": {str(c): t for c, t in picker.thresholds.items()},
            "best_score": float(candidates.scores.max()) if len(candidates) else None}
