"""The run folder of a training: what is in it, whether a run can go on, and how nothing in it gets lost."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np

from deepetpicker.calibration import calibrated
from deepetpicker.config import TrainOptions
from deepetpicker.errors import DeepETPickerError, InputError, OutputError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.sampling.gather import Gathered

log = logging.getLogger(__name__)
PathLike = Union[str, pathlib.Path]
HELD_OUT = "held_out"

NOT_COMPARED = ("resume", "device", "workers", "devices", "nodes", "validation_tiles")
METRICS = ("epoch", "train_loss", "learning_rate", "val_loss", "voxel_precision", "voxel_recall", "voxel_f1", "f_alpha",
           "pick_precision", "pick_recall", "pick_f1", "pick_average_precision", "pick_distance_vox", "kept", "seconds",
           "patches_per_second")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder ``MODEL_run/`` beside a model file.

    Attributes
    ----------
    model : pathlib.Path
        The model file that the run will write.
    """

    model: pathlib.Path

    @property
    def path(self) -> pathlib.Path:
        """The folder."""
        return self.model.with_name(f"{self.model.stem}_run")

    @property
    def checkpoint(self) -> pathlib.Path:
        """State after the last whole epoch."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> pathlib.Path:
        """One row per epoch."""
        return self.path / "metrics.csv"

    @property
    def held_out(self) -> pathlib.Path:
        """What the kept epoch found in the held-out part: NAME.csv, beside NAME_truth.csv with what was to be found."""
        return self.path / HELD_OUT

    @property
    def found(self) -> pathlib.Path:
        """What a first training has found and the second takes for labels: NAME.csv."""
        return self.path / "found"

    @property
    def manifest(self) -> pathlib.Path:
        """What the finished run was given and gave."""
        return self.path / "manifest.json"

    def finished(self, recipe: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
        """Return the manifest of a finished run of the same recipe whose model and metrics are as it left them."""
        if not self.model.is_file() or self._recipe() != recipe:
            return None
        try:
            manifest = read_manifest(self.manifest)
        except DeepETPickerError:
            return None
        left = manifest["outputs"].get("sha256")
        if left and left != self.digests():
            log.warning("%s or its metrics were changed since the training or are damaged: written again from what the "
                        "run folder has", self.model.name)
            return None
        return manifest

    def digests(self) -> Dict[str, str]:
        """Return the SHA-256 of the model and of the metrics, by their names; what is missing has none."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (self.model, self.metrics)
                if path.is_file()}

    def prepare(self, recipe: Mapping[str, Any], fresh: str = "") -> bool:
        """Make the folder ready; return True when an interrupted run of the same recipe can go on.

        A run of another recipe, or any when there is a reason to start afresh, is moved aside to ``MODEL_run_1`` and so
        on, together with a copy of its model.

        Parameters
        ----------
        recipe : dict
            What makes two runs the same, from :func:`recipe_of`.
        fresh : str
            Why not to go on with an interrupted run; empty when there is no reason.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        try:
            before = self._recipe()
            goes_on = not fresh and before == recipe and self.checkpoint.is_file()
            if self.path.exists() and not goes_on and (self.checkpoint.exists() or self.manifest.exists()):
                aside = self._move_aside()
                log.warning("%s: starting afresh, because %s; the earlier run is kept in %s", self.model.name,
                            fresh or _difference(before, recipe), aside.name)
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / "params.json", json.dumps(recipe, indent=1) + "\n")
        except OSError as error:
            raise error if isinstance(error, OutputError) else OutputError(
                f"cannot write the run folder {self.path}: {error.strerror or error}") from error
        return goes_on

    def _recipe(self) -> Dict[str, Any]:
        """Return the recipe of the run in the folder; empty when there is none."""
        try:
            content = json.loads((self.path / "params.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _move_aside(self) -> pathlib.Path:
        """Rename the folder to the first free number and put a copy of its model into it."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}_{number}")).exists():
            number += 1
        os.rename(self.path, aside)
        if self.model.is_file():
            shutil.copy2(self.model, aside / self.model.name)
        return aside

    def write_held_out(self, looked: Sequence[Mapping[str, Any]], gathered: Gathered, card: ModelCard) -> None:
        """Write the tables of the held-out part, in the voxels of the tomograms, with the scores that the model gives.

        Parameters
        ----------
        looked : sequence of mapping
            From ``callbacks.rows_of``, on the working grid.
        gathered : Gathered
            The tomograms.
        card : ModelCard
            Of the model.

        Raises
        ------
        OutputError
            If a table cannot be written.
        """
        shutil.rmtree(self.held_out, ignore_errors=True)
        volumes = {volume.name: volume for volume in gathered.volumes}
        maps = {c.id: c.calibration for c in card.classes}
        for one in looked:
            volume = volumes[one["name"]]
            grid = gathered.grid(volume)
            for key, end in (("found", ""), ("truth", "_truth")):
                rows = np.asarray(one[key], float)
                ids = rows[:, 0].astype(np.int64)
                scores = calibrated(rows[:, 4], ids, maps) if key == "found" else np.full(len(rows), np.nan)
                table = CoordinateTable(grid.to_input(rows[:, 1:4]), ids, scores)
                write_coordinates(self.held_out / f"{volume.name}{end}.csv", table)

    def clean(self) -> None:
        """Remove what only a running training needs: resampled tomograms."""
        shutil.rmtree(self.path / "cache", ignore_errors=True)


def recipe_of(options: TrainOptions, gathered: Gathered) -> Dict[str, Any]:
    """Return what makes two runs the same: options, tomograms, particles and classes, as JSON-ready values.

    Particles go in as a digest of positions and classes in their order, tomogram by tomogram, places without a particle
    and complete regions as another. Left out are options that change where and how fast, not what, is computed.
    """
    chosen = {k: v for k, v in options.to_dict().items() if k not in NOT_COMPARED}
    items = [{"name": i.name, "tomogram": i.tomogram, "coordinates": i.coordinates, "voxel_size": v.voxel_size_ang,
              "bytes": v.path.stat().st_size, "modified": round(v.path.stat().st_mtime, 3),
              "particles": len(t), "table_sha256": t.digest(),
              **({"certain_sha256": c.digest()} if c.digest() else {})}
             for i, v, t, c in zip(gathered.items, gathered.volumes, gathered.tables, gathered.certain)]
    classes = [{"id": c.id, "name": c.name, "diameter_angstrom": c.diameter_ang} for c in gathered.classes]
    content: Dict[str, Any] = json.loads(json.dumps({"options": chosen, "items": items, "classes": classes}))
    return content


def changed_since(recipe: Mapping[str, Any]) -> List[str]:
    """Return, in words, which tomograms of a recipe are no longer the files that they were when it was made."""
    changed = []
    for item in recipe["items"]:
        try:
            state = os.stat(item["tomogram"])
            is_same = (state.st_size, round(state.st_mtime, 3)) == (item["bytes"], item["modified"])
        except OSError:
            is_same = False
        if not is_same:
            changed.append(f"{item['name']}: {item['tomogram']} was changed while it was trained on: the model may "
                           "have seen both; train again")
    return changed


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words how two recipes differ."""
    if not before:
        return "the folder holds a run that cannot be read"
    old, new = before.get("options", {}), now.get("options", {})
    changed = [k for k in new if old.get(k) != new[k]]
    if changed:
        return "options changed: " + ", ".join(f"{k} {old.get(k)} -> {new[k]}" for k in changed[:4])
    for what in ("items", "classes"):
        if before.get(what) != now.get(what):
            return f"the {'tomograms or particles' if what == 'items' else 'classes'} changed" + (
                " (or the places without one, or the regions)" if what == "items" and _certain(before, now) else "")
    return "the earlier run cannot be continued"


def _certain(*recipes: Mapping[str, Any]) -> bool:
    """Tell whether a recipe has places without a particle or complete regions."""
    return any("certain_sha256" in item for recipe in recipes for item in recipe.get("items", []))


class MetricsFile:
    """The per-epoch CSV: plain header, a row per epoch, on disk as soon as the epoch ends.

    Parameters
    ----------
    path : path
        ``metrics.csv``; written anew.
    curve : sequence of mapping
        The rows of the epochs that are done, as the checkpoint has them: what the file says counts for nothing, it may
        hold an epoch that was not finished, or be damaged.
    """

    def __init__(self, path: PathLike, curve: Sequence[Mapping[str, float]] = ()) -> None:
        self.path = pathlib.Path(path)
        write_text(self.path, "".join(f"{line}\n" for line in (",".join(METRICS), *map(_line, curve))))

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; values that are missing or NaN stay empty."""
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            stream.write(_line(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _line(row: Mapping[str, float]) -> str:
    """Return a row as text."""
    return ",".join(_cell(row.get(name, float("nan"))) for name in METRICS)


def _cell(value: float) -> str:
    """Return a number as text; NaN as nothing."""
    if value != value:
        return ""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def read_metrics(path: PathLike) -> List[Dict[str, float]]:
    """Return the rows of a metrics.csv, NaN where a cell is empty; none when the file is missing.

    Raises
    ------
    InputError
        If the file is not a metrics.csv.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    if not rows or rows[0] != list(METRICS):
        raise InputError(f"{path} is not a metrics file: expected the header {','.join(METRICS)}")
    return [dict(zip(METRICS, _numbers(row))) for row in rows[1:] if len(row) == len(METRICS)]


def _numbers(row: Sequence[str]) -> List[float]:
    """Return the cells of a row as numbers, NaN where empty."""
    return [float(cell) if cell else float("nan") for cell in row]
