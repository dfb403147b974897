"""Pick particles in one tomogram after the other with a trained model."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import tempfile
import time
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.data.resample import open_working_volume
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.items import DataItem
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.io.volumes import Volume, VolumeWriter, open_volume
from deepetpicker.models.modelfile import load_model
from deepetpicker.picking import PeakRule, find_peaks
from deepetpicker.predictor import Arithmetic, Predictor
from deepetpicker.progress import progress
from deepetpicker.scanning import probability_map
from deepetpicker.store import ProbabilityStore
from deepetpicker.tiling import PHASE, TilePlan, choose_tile

PathLike = Union[str, pathlib.Path]
logger = logging.getLogger(__name__)

COARSER_BY = 1.25
DECIMALS = 4  # of positions in voxels and of scores: far below what a pick is worth


def peak_rules(card: ModelCard) -> List[PeakRule]:
    """Return how each class of a model is picked, in the order of the network's channels."""
    return [PeakRule(c.id, c.diameter_ang / card.voxel_size_ang, c.label_diameter_vox, card.label)
            for c in card.classes]


def working_grid(volume: Volume, card: ModelCard) -> WorkingGrid:
    """Return the grid on which a model sees a tomogram.

    A finer tomogram is resampled to the model's voxel size; one that is coarser by up to a quarter is used as it is,
    with a warning.

    Raises
    ------
    InputError
        If the tomogram is coarser than that: its detail is lost and cannot be made up.
    """
    ratio = volume.voxel_size_ang / card.voxel_size_ang
    if ratio > COARSER_BY:
        raise InputError(f"{volume.path}: expected a voxel size of at most {card.voxel_size_ang * COARSER_BY:.4g} "
                         f"angstrom (the model works at {card.voxel_size_ang:.4g}), found {volume.voxel_size_ang:.4g}: "
                         "use a less binned tomogram, or check --voxel-size")
    if ratio > 1.02:
        logger.warning("%s: voxels of %.4g angstrom are coarser than the model's %.4g; expect fewer particles",
                       volume.name, volume.voxel_size_ang, card.voxel_size_ang)
    return WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, max(card.voxel_size_ang, volume.voxel_size_ang))


class Picker:
    """A model, ready to pick one tomogram after the other.

    Parameters
    ----------
    model : path
        Model file.
    options : PickOptions
        How to pick.
    quiet : bool
        True shows no progress.

    Attributes
    ----------
    tiles, tile : int
        Tiles of the tomogram picked last, and their edge in voxels.
    seconds : dict
        Where its time went: ``scan`` (of which ``network``) and ``post_processing``.
    """

    def __init__(self, model: PathLike, options: PickOptions, quiet: bool = False) -> None:
        network, self.card = load_model(model)
        self.options, self.quiet = options, quiet
        self.rules = peak_rules(self.card)
        self.tiles, self.tile = 0, 0
        self.seconds = {"scan": 0.0, "network": 0.0, "post_processing": 0.0}
        self.predictor = Predictor(network, Arithmetic.choose(options.device, options.precision, options.batch))
        if len(options.min_distance_angstrom) not in (0, 1, len(self.rules)):
            raise InputError(f"min_distance_angstrom must give 1 or {len(self.rules)} distances (one per class of the "
                             f"model), got {len(options.min_distance_angstrom)}")
        logger.info("%s: %d class(es), %.4g angstrom/voxel; %s", model, len(self.rules), self.card.voxel_size_ang,
                    self.predictor.arithmetic)

    @property
    def threshold(self) -> float:
        """The score below which candidates are not picks: the user's, else the model's."""
        return self.card.threshold if self.options.threshold < 0 else self.options.threshold

    def candidates(self, volume: Volume, scratch: Optional[pathlib.Path] = None,
                   maps: Optional[ProbabilityMaps] = None, mask: str = "") -> CoordinateTable:
        """Return all candidates above the floor, best first, in the tomogram's own voxels.

        Parameters
        ----------
        volume : Volume
            The tomogram.
        scratch : path, optional
            Folder for what does not fit into memory.
        maps : ProbabilityMaps, optional
            Gets the stitched probability.
        mask : str
            Mask of this tomogram; default: the one of the options.
        """
        grid = working_grid(volume, self.card)
        border = self.options.border
        tile = self.options.tile or choose_tile(grid.shape_zyx, self.card.patch_vox, border)
        plan = TilePlan.cover(grid.shape_zyx, tile, min(border, (tile - PHASE) // 2))
        with contextlib.ExitStack() as stack:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix=".working_", dir=scratch))
            source = open_working_volume(volume, grid, cache_dir=work, name=volume.name)
            store = stack.enter_context(ProbabilityStore((len(self.rules), *grid.shape_zyx), work))
            begin = time.perf_counter()
            with progress(len(plan), f"{volume.name}: scanning", "tile", self.quiet) as bar:
                probability_map(source, self.predictor, plan, store, self.predictor.batch, bar)
            scanned = time.perf_counter()
            found = find_peaks(store, self.rules, self.options.floor, self._distances(grid),
                               (self.options.slab or 48, 192))
            self.tiles, self.tile = len(plan), tile
            self.seconds = {"scan": scanned - begin, "network": self.predictor.take_seconds(),
                            "post_processing": time.perf_counter() - scanned}
            if maps is not None:
                maps.write(store)
        positions = np.clip(grid.to_input(found.positions_zyx_vox), 0, np.array(volume.shape_zyx) - 1.0)
        table = CoordinateTable(positions.round(DECIMALS), found.class_ids, found.scores.round(DECIMALS), {})
        return self._in_mask(table, volume, mask or self.options.mask)

    def _distances(self, grid: WorkingGrid) -> Dict[int, float]:
        """Return the least distance between picks per class, in working voxels."""
        given = self.options.min_distance_angstrom
        wanted = [c.diameter_ang / 2 for c in self.card.classes] if not given else (
            list(given) if len(given) > 1 else list(given) * len(self.rules))
        return {c.id: d / grid.working_voxel_ang for c, d in zip(self.card.classes, wanted)}

    def _in_mask(self, table: CoordinateTable, volume: Volume, given: str) -> CoordinateTable:
        """Return the picks inside the mask of this tomogram; all when none is given."""
        path = mask_path(given, volume.name)
        if path is None:
            return table
        mask = open_volume(path, volume.voxel_size_ang)
        scale = np.array(mask.shape_zyx) / np.array(volume.shape_zyx)
        if scale.max() / scale.min() > 1.05:
            raise InputError(f"{path}: expected a mask of the tomogram's proportions {volume.shape_zyx} (z, y, x), "
                             f"found {mask.shape_zyx}")
        at = np.round((table.positions_zyx_vox + 0.5) * scale - 0.5).astype(int)
        at = np.clip(at, 0, np.array(mask.shape_zyx) - 1)
        return table.select(np.asarray(mask.data_zyx[tuple(at.T)]) > 0)

    def picks(self, candidates: CoordinateTable) -> CoordinateTable:
        """Return the candidates at or above the threshold, at most max_picks per class, best first."""
        kept = candidates.select(candidates.scores >= self.threshold)
        if not self.options.max_picks:
            return kept
        rank = np.zeros(len(kept), int)
        for class_id in np.unique(kept.class_ids):
            mine = kept.class_ids == class_id
            rank[mine] = np.arange(mine.sum())
        return kept.select(rank < self.options.max_picks)


def mask_path(mask: str, name: str) -> Optional[pathlib.Path]:
    """Return the mask file of a tomogram: the file given, or NAME.mrc in the folder given; None without a mask.

    Raises
    ------
    InputError
        If the folder has no such file.
    """
    if not mask:
        return None
    path = pathlib.Path(mask)
    if path.is_dir():
        path = path / f"{name}.mrc"
        if not path.is_file():
            raise InputError(f"expected a mask {path.name} in {mask}, found none: add it or pick without --mask")
    return path


class ProbabilityMaps:
    """Writes the probability of each class of a tomogram, on the working grid.

    Parameters
    ----------
    folder : path
        Where NAME_probability_CLASS.mrc are written.
    name : str
        The tomogram's name.
    class_ids : sequence of int
        In the order of the map's channels.
    grid : WorkingGrid
        Gives shape and voxel size.
    """

    def __init__(self, folder: pathlib.Path, name: str, class_ids: Sequence[int], grid: WorkingGrid) -> None:
        self.paths = {c: folder / f"{name}_probability_{c}.mrc" for c in class_ids}
        self._writers = [VolumeWriter(p, grid.shape_zyx, np.float32, grid.working_voxel_ang)
                         for p in self.paths.values()]

    def __enter__(self) -> ProbabilityMaps:
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> Optional[bool]:
        return self._stack.__exit__(*error)

    def write(self, store: ProbabilityStore) -> None:
        """Write the maps of a store, a few planes at a time."""
        depth, height, _ = store.shape_zyx
        for channel, writer in enumerate(self._writers):
            for z0 in range(0, depth, 8):
                writer.write(z0, store.read(channel, slice(z0, min(z0 + 8, depth)), slice(0, height)))


def pick_item(picker: Picker, item: DataItem, folder: pathlib.Path, manifest: Manifest) -> None:
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
        logger.info("%s: %d picks >= %.2f of %d candidates (%.1f s)", item.name, facts["n_picks"], picker.threshold,
                    facts["n_candidates"], seconds)


def _write_item(picker: Picker, item: DataItem, folder: pathlib.Path, manifest: Manifest) -> Dict[str, Any]:
    """Pick one tomogram and write its tables and maps; return the facts for the manifest."""
    volume = open_volume(item.tomogram, item.voxel_size_ang or picker.options.voxel_size, item.name)
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
            "n_candidates": len(candidates), "threshold": picker.threshold,
            "best_score": float(candidates.scores.max()) if len(candidates) else None}
