"""A model that picks one tomogram after the other: planning, scan, peaks, mask."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
import tempfile
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from deepetpicker.calibration import calibrated
from deepetpicker.config import PickOptions
from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.geometry import WorkingGrid, check_resampling
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import Volume, VolumeWriter, open_volume
from deepetpicker.memory import freed_memory, resident_bytes, room_bytes
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.predictor import Arithmetic, Predictor, is_out_of_memory
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.perclass import resolve
from deepetpicker.picking.discovery import check_calibrated, hold_rate
from deepetpicker.picking.peaks import PeakRule, find_peaks
from deepetpicker.picking.planning import SHORTEST_EDGE, PickPlan, Workplace, gpu_bytes, make_plan
from deepetpicker.picking.scan import TimedVoxels, probability_map
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.portrait import Portrait, portrait
from deepetpicker.preparation.resample import open_working_volume, resample_bytes
from deepetpicker.terminal import progress
from deepetpicker.verdict import Reason

PathLike = Union[str, pathlib.Path]
logger = logging.getLogger(__name__)

COARSER_BY = 1.25
LOOKS_IN_DOUBT = 4  # what few labels taught, and which class a particle is, is surer in mirrors (docs/studies.rst)
MUCH_BYTES = 4 << 30  # of room: picking needs less by itself
DECIMALS = 4  # of positions in voxels and of scores: far below what a pick is worth


def peak_rules(card: ModelCard) -> List[PeakRule]:
    """Return how each class of a model is picked, in the order of the network's channels."""
    return [peak_rule(c, card.voxel_size_ang, card.label) for c in card.classes]


def peak_rule(one: ClassCard, voxel_size_ang: float, label: str) -> PeakRule:
    """Return how a class is picked on working voxels of a size."""
    return PeakRule(one.id, one.diameter_ang / voxel_size_ang, one.label_diameter_vox, label,
                    one.least_distance_ang / voxel_size_ang)


def default_looks(card: ModelCard) -> int:
    """Return how often a model looks at each place: several times where it has several classes or few labels."""
    return LOOKS_IN_DOUBT if len(card.classes) > 1 or card.is_partial else 1


def working_grid(volume: Volume, card: ModelCard, quiet: bool = False, most: float = PickOptions.max_resampling
                 ) -> WorkingGrid:
    """Return the grid on which a model sees a tomogram.

    A finer tomogram is resampled to the model's voxel size; one that is coarser by up to a quarter is used as it is,
    with a warning (kept back when quiet).

    Raises
    ------
    InputError
        If the tomogram is coarser than that: its detail is lost and cannot be made up; or finer than the model by more
        than ``most`` times.
    """
    check_resampling(volume.level(card.voxel_size_ang).voxel_size_ang, card.voxel_size_ang, most, volume.name)
    ratio = volume.voxel_size_ang / card.voxel_size_ang
    if ratio > COARSER_BY:
        raise InputError(f"{volume.path}: expected a voxel size of at most {card.voxel_size_ang * COARSER_BY:.4g} "
                         f"angstrom (the model works at {card.voxel_size_ang:.4g}), found {volume.voxel_size_ang:.4g}: "
                         "use a less binned tomogram, or check --voxel-size")
    if ratio > 1.02 and not quiet:
        logger.warning("%s: voxels of %.4g angstrom are coarser than the model's %.4g; expect fewer particles",
                       volume.name, volume.voxel_size_ang, card.voxel_size_ang)
    return WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, max(card.voxel_size_ang, volume.voxel_size_ang))


class Picker:
    """A model, ready to pick one tomogram after the other.

    Parameters
    ----------
    model : path, or tuple of ResUNet3D and ModelCard
        Model file, or what is in one.
    options : PickOptions
        How to pick.
    quiet : bool
        True shows no progress.

    Attributes
    ----------
    thresholds : dict
        Class id to the score below which its candidates are not picks: the user's, else the model's.
    given : dict
        Class id to the user's threshold, 0 without one.
    last : PickPlan or None
        How the last tomogram was picked.
    share, portrait : float, Portrait or None
        Share of its volume with a probability above 1/2, and what it looks like.
    seconds : dict
        Where its time went: ``scan`` (of which ``network``; ``read`` and ``write`` run beside it) and
        ``post_processing``.
    """

    def __init__(self, model: Union[PathLike, Tuple[ResUNet3D, ModelCard]], options: PickOptions, quiet: bool = False
                 ) -> None:
        network, self.card = model if isinstance(model, tuple) else load_model(model)
        self.options, self.quiet = options, quiet
        self.rules = peak_rules(self.card)
        self.thresholds = resolve(options.threshold, self.card.classes, self.card.thresholds, "threshold")
        self.given = resolve(options.threshold, self.card.classes, {c.id: 0.0 for c in self.card.classes}, "threshold")
        if options.fdr:
            check_calibrated(self.card.classes)
        self.last: Optional[PickPlan] = None
        self.seconds: Dict[str, float] = {}
        self.share = 0.0
        self.portrait: Optional[Portrait] = None
        self.distances_ang = resolve(options.min_distance_angstrom, self.card.classes,
                                     {c.id: c.least_distance_ang for c in self.card.classes}, "min_distance_angstrom")
        looks = options.mirrors or default_looks(self.card)
        self.predictor = Predictor(network, Arithmetic.choose(options.device, options.precision, options.batch), looks)
        self._largest = 0
        self._place = self._workplace()
        logger.info("%s: %d class(es), %.4g angstrom/voxel; %s%s", "a model" if isinstance(model, tuple) else model,
                    len(self.rules), self.card.voxel_size_ang, self.predictor.arithmetic,
                    f"; {looks} looks at each place (--mirrors 1 is faster)" if looks > 1 else "")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.predictor.arithmetic.device

    def _workplace(self) -> Workplace:
        """Return what plans have to know; times the network on a few small tiles."""
        limit, is_gpu = round(self.options.memory_limit * 1e9), self.device.type == "cuda"
        base, room = resident_bytes(), room_bytes()
        if room and not is_gpu and room < MUCH_BYTES:  # of addresses, of which libraries take some more than memory
            limit = min(limit or base + room, base + room)
        if is_gpu:
            base, limit = gpu_bytes(*torch.cuda.mem_get_info(self.device), torch.cuda.memory_reserved(self.device),
                                    limit)
        arithmetic = self.predictor.arithmetic
        width = self.predictor.options.widths[0] if self.predictor.options else 1
        with freed_memory(kept=not limit):
            seconds = self.predictor.warm_up()
        return Workplace(len(self.rules), width, arithmetic.dtype.itemsize, self.card.patch_vox,
                         max(rule.halo for rule in self.rules), arithmetic.batch, base, limit, is_gpu, seconds,
                         self.predictor.stride, self.predictor.least)

    def grid(self, volume: Volume, quiet: bool = False) -> WorkingGrid:
        """Return the grid on which the model sees a tomogram (:func:`working_grid`)."""
        return working_grid(volume, self.card, quiet, self.options.max_resampling)

    def plan(self, volume: Volume, quiet: bool = False) -> PickPlan:
        """Return how a tomogram will be picked: tiles, memory, time; quiet keeps a warning about it back."""
        grid = self.grid(volume, quiet)
        before = 0 if self._place.is_gpu else resample_bytes(grid)
        return make_plan(grid.shape_zyx, self.options, self._place, self._largest, before)

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
        grid, region = self.grid(volume), open_mask(mask or self.options.mask, volume)
        while True:
            plan = self.plan(volume, quiet=True)
            logger.info("%s: %s", volume.name, plan)
            try:
                found = self._candidates(volume, grid, plan, scratch, maps)
                return found if region is None else in_mask(found, region, volume.shape_zyx)
            except DeviceMemoryError:  # not even one tile fitted
                edge = max(plan.tiles.tile_zyx)
                smaller = edge * 3 // 4 // self.predictor.stride * self.predictor.stride
                if self.options.tile or smaller < SHORTEST_EDGE:
                    raise
                self._largest = smaller
                logger.warning("%s: out of memory with tiles of %d voxels, starting it again with at most %d",
                               volume.name, edge, smaller)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(f"{volume.name}: no memory left ({error}): use --memory-limit, close other programs, "
                                 "or pick fewer tomograms at once") from error

    def _candidates(self, volume: Volume, grid: WorkingGrid, plan: PickPlan, scratch: Optional[pathlib.Path],
                    maps: Optional[ProbabilityMaps]) -> CoordinateTable:
        """Return all candidates of a tomogram by a plan."""
        with contextlib.ExitStack() as stack:
            work = stack.enter_context(working_folder(scratch))
            stack.enter_context(freed_memory(kept=not plan.is_lean))
            whole = open_working_volume(volume, grid, cache_dir=work, name=volume.name)
            source = TimedVoxels(whole)
            store = stack.enter_context(self._store(grid, work, plan))
            begin = time.perf_counter()
            with progress(len(plan.tiles), f"{volume.name}: scanning", "tile", self.quiet) as bar:
                probability_map(source, self.predictor, plan.tiles, store, min(plan.batch, self.predictor.batch), bar,
                                self.device)
            network, scanned = self.predictor.take_seconds(), time.perf_counter()
            self.share = _share_above_half(store)
            self.portrait = portrait(whole, max(rule.diameter_vox for rule in self.rules))
            found = self._peaks(store, grid, plan)
            self.last = plan
            self.seconds = {"scan": scanned - begin, "read": source.seconds, "network": network,
                            "write": store.write_seconds, "post_processing": time.perf_counter() - scanned}
            if maps is not None:
                maps.write(store)
        positions = np.clip(grid.to_input(found.positions_zyx_vox), 0, np.array(volume.shape_zyx) - 1.0)
        scores = calibrated(found.scores.round(DECIMALS), found.class_ids, {c.id: c.calibration for c in
                                                                            self.card.classes})
        return CoordinateTable(positions.round(DECIMALS), found.class_ids, scores, {}).sorted_by_score()

    def _store(self, grid: WorkingGrid, work: str, plan: PickPlan) -> ProbabilityStore:
        """Return the store of the map, in a scratch file when there is no memory for it after all."""
        shape = (len(self.rules), *grid.shape_zyx)
        try:
            return ProbabilityStore(shape, work, plan.in_memory_bytes, self.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return ProbabilityStore(shape, work, 0)

    def _peaks(self, store: ProbabilityStore, grid: WorkingGrid, plan: PickPlan) -> CoordinateTable:
        """Return the peaks of the map, looked for in smaller blocks when there is no memory for the planned ones."""
        planes, rows = plan.block
        while True:
            try:
                return find_peaks(store, self.rules, self.options.floor, self._distances(grid), (planes, rows))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or planes * rows <= 64:
                    raise
                planes, rows = max(1, planes // 2), max(1, rows // 2)
                logger.warning("out of memory, looking for peaks in blocks of %d planes and %d rows", planes, rows)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _distances(self, grid: WorkingGrid) -> Dict[int, float]:
        """Return the least distance between picks per class, in working voxels."""
        return {c: d / grid.working_voxel_ang for c, d in self.distances_ang.items()}

    def limits(self, candidates: CoordinateTable) -> Tuple[Dict[int, float], List[Reason]]:
        """Return the threshold of each class in one tomogram, and of which classes it leaves nothing.

        With a false-discovery rate to hold it follows from all candidates of the tomogram, and is the user's where that
        is higher.
        """
        if not self.options.fdr:
            return self.thresholds, []
        held, unheld = hold_rate(candidates, self.card.classes, self.options.fdr)
        return {c: max(limit, self.given[c]) for c, limit in held.items()}, unheld

    def picks(self, candidates: CoordinateTable, limits: Optional[Mapping[int, float]] = None) -> CoordinateTable:
        """Return the candidates at or above the threshold of their class, at most max_picks of each, best first.

        Parameters
        ----------
        candidates : CoordinateTable
            Of one tomogram, best first.
        limits : mapping, optional
            Threshold by class id; default: those of :meth:`limits`.
        """
        limits = self.limits(candidates)[0] if limits is None else limits
        kept = candidates.select(candidates.scores >= np.array([limits[int(c)] for c in candidates.class_ids]))
        if not self.options.max_picks:
            return kept
        rank = np.zeros(len(kept), int)
        for class_id in np.unique(kept.class_ids):
            mine = kept.class_ids == class_id
            rank[mine] = np.arange(mine.sum())
        return kept.select(rank < self.options.max_picks)


def _share_above_half(store: ProbabilityStore, step: int = 8) -> float:
    """Return the share of every eighth plane of a map where the probability of some class is above 1/2."""
    depth, height, _ = store.shape_zyx
    planes = range(0, depth, step)
    count = sum(int((store.read(channel, slice(z, z + 1), slice(0, height)) > 0.5).count_nonzero())
                for channel in range(store.shape_czyx[0]) for z in planes)
    return count / (len(planes) * store.shape_zyx[1] * store.shape_zyx[2])


def mask_path(mask: str, name: str) -> Optional[pathlib.Path]:
    """Return the mask file of a tomogram: the file given, or NAME.mrc in the folder given; None without a mask."""
    if not mask:
        return None
    path = pathlib.Path(mask)
    return path / f"{name}.mrc" if path.is_dir() else path


def open_mask(given: str, volume: Volume) -> Optional[Volume]:
    """Return the mask of a tomogram, from a mask file or a folder of them; None without a mask.

    Raises
    ------
    InputError
        If it is missing, unreadable or not of the tomogram's proportions.
    """
    path = mask_path(given, volume.name)
    if path is None:
        return None
    if path.parent == pathlib.Path(given) and not path.is_file():
        raise InputError(f"expected a mask {path.name} in {given}, found none: add it or pick without --mask")
    mask = open_volume(path, volume.voxel_size_ang, quiet=True)
    scale = np.array(mask.shape_zyx) / np.array(volume.shape_zyx)
    if scale.max() / scale.min() > 1.05:
        raise InputError(f"{path}: expected a mask of the tomogram's proportions {volume.shape_zyx} (z, y, x), found "
                         f"{mask.shape_zyx}: use the mask that belongs to {volume.name}")
    return mask


def in_mask(table: CoordinateTable, mask: Volume, shape_zyx: Sequence[int]) -> CoordinateTable:
    """Return the picks of a tomogram of shape_zyx (3,) inside a mask, which may be coarser or finer."""
    scale = np.array(mask.shape_zyx) / np.array(shape_zyx)
    at = np.round((table.positions_zyx_vox + 0.5) * scale - 0.5).astype(int)
    at = np.clip(at, 0, np.array(mask.shape_zyx) - 1)
    return table.select(np.asarray(mask.data_zyx[tuple(at.T)]) > 0)


@contextlib.contextmanager
def working_folder(scratch: Optional[pathlib.Path]) -> Iterator[str]:
    """Yield a folder for temporary files; what cannot be removed afterwards, for want of permission, stays.

    ``tempfile.TemporaryDirectory`` would call itself without end then.
    """
    work = tempfile.mkdtemp(prefix=".working_", dir=scratch)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
                writer.write(z0, store.read(channel, slice(z0, min(z0 + 8, depth)), slice(0, height)).cpu().numpy())
