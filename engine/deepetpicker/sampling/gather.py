"""What a training run is made of: tomograms, particles and classes, checked together before anything starts."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.checking.density import look
from deepetpicker.checking.faint import FaintPlaces, faint_places
from deepetpicker.checking.geometry import shift_of_all
from deepetpicker.checking.run import check_table
from deepetpicker.config import TrainOptions, suggestion
from deepetpicker.errors import InputError
from deepetpicker.geometry import ADVISED_VOX, WorkingGrid, check_resampling, check_working_diameter, working_voxel_size
from deepetpicker.io.classes import (
    ParticleClass,
    check_diameters,
    classes_from_params,
    default_class,
    described,
    read_classes,
    with_diameters,
    with_known,
)
from deepetpicker.io.coordinates import CoordinateTable, Frame, check_against_volume, read_coordinates
from deepetpicker.io.items import DataItem, items_from_folder, items_from_params
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import given_sizes
from deepetpicker.preparation.labels import default_label_diameter
from deepetpicker.preparation.normalise import Intensity, robust_intensity
from deepetpicker.preparation.prominence import prominence
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.apart import with_distances
from deepetpicker.sampling.certain import Certain, read_certain
from deepetpicker.sampling.patches import Annotated

log = logging.getLogger(__name__)
PathLike = Union[str, pathlib.Path]

MOST_CHECKED = 3  # tomograms whose coordinates are held against them before the training
MOST_LOOKED_INTO, TELLING = 8, 20  # tomograms at most, and particles that tell how far all stand out
COARSER_BY = 1.25


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
    """Checked input of a training run.

    Attributes
    ----------
    items : list of DataItem
        One per tomogram.
    volumes : list of Volume
        The tomograms, memory-mapped.
    tables : list of CoordinateTable
        Their particles, in input voxels, inside the volumes.
    intensities : list of Intensity
        Statistics of the tomograms on their input grids.
    classes : tuple of ClassCard
        In the order of the network's channels.
    voxel_size_ang : float
        Working voxel size.
    warnings : list of str
        What the user should know.
    certain : list of Certain
        Of each tomogram, places without a particle and where everything is annotated, in input voxels.
    """

    items: List[DataItem]
    volumes: List[Volume]
    tables: List[CoordinateTable]
    intensities: List[Intensity]
    classes: Tuple[ClassCard, ...]
    voxel_size_ang: float
    warnings: List[str]
    certain: List[Certain] = dataclasses.field(default_factory=list)

    @property
    def unannotated(self) -> str:
        """What far from any annotation is unless the user says so: ``unknown`` where it is said what is complete."""
        return "unknown" if any(one.is_partial for one in self.certain) else "background"

    def grid(self, volume: Volume) -> WorkingGrid:
        """Return the grid on which a tomogram is seen: the working voxels, or its own where these are larger."""
        return WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, max(self.voxel_size_ang, volume.voxel_size_ang))

    @functools.cached_property
    def prominences(self) -> Dict[int, List[np.ndarray]]:
        """Class id to how far its particles stand out of each tomogram, (N, 2) as :func:`prominence` returns it.

        Only some tomograms are looked into, see :func:`telling`; in the others it is not known (NaN).
        """
        found = {}
        for one in self.classes:
            places = [table.positions_zyx_vox[table.class_ids == one.id] for table in self.tables]
            chosen = telling([len(at) for at in places])
            found[one.id] = [prominence(volume, at, one.diameter_ang) if k in chosen else np.full((len(at), 2), np.nan)
                             for k, (volume, at) in enumerate(zip(self.volumes, places))]
        return found

    @property
    def n_particles(self) -> Dict[int, int]:
        """Class id to the number of its particles in all tomograms."""
        return {c.id: sum(int((t.class_ids == c.id).sum()) for t in self.tables) for c in self.classes}


def gather(data: PathLike, options: TrainOptions, params: Optional[Mapping[str, Any]] = None,
           card: Optional[ModelCard] = None) -> Gathered:
    """Return the tomograms, particles and classes of a run; every problem is found before the first is reported.

    Parameters
    ----------
    data : path
        Data folder; left empty when params has ``items``.
    options : TrainOptions
        Diameters, voxel size, working diameter, label diameter.
    params : mapping, optional
        Content of a params.json.
    card : ModelCard, optional
        Of the model to start from, which sets the working voxel size.

    Raises
    ------
    InputError
        Listing every problem.
    """
    params = params or {}
    if params.get("items"):
        items, listed, folder_voxel = items_from_params(params), classes_from_params(params), 0.0
    elif str(data):
        items = items_from_folder(data)
        listed, folder_voxel = read_classes(data)
        listed = classes_from_params(params) or listed
    else:
        raise InputError("expected a data folder (--data DIR) or a --params file with items, got neither")
    problems: List[str] = []
    warnings: List[str] = []
    volumes, tables, intensities, certain = [], [], [], []
    for item in items:
        try:
            sizes = given_sizes(options.voxel_size, item.voxel_size_ang, folder_voxel)
            volume = open_volume(item.tomogram, sizes, item.name)
            table, more = _table(item, volume)
            known, others = read_certain(item, volume)
            intensities.append(robust_intensity(volume.overview_zyx, str(volume.path)))
        except InputError as error:
            problems.append(str(error))
            continue
        warnings += [*(f"{volume.name}: {w}" for w in volume.warnings), *more, *others]
        volumes.append(volume)
        tables.append(table)
        certain.append(known)
    if not problems:
        problems += _lacking(items, tables, options.validation)
    if card and options.recipe == "refine":
        listed = with_known(listed, card.classes)
    classes = _classes(tables, listed, options, problems)
    if problems:
        raise InputError(problems[0] if len(problems) == 1 else f"{len(problems)} problems: " + "; ".join(
            f"({k}) {p}" for k, p in enumerate(problems, 1)))
    voxel, cards = _working(classes, volumes, options, card, warnings)
    log.info("%s", described(cards))
    certain = [_consistent(*parts, cards, warnings) for parts in zip(certain, tables, volumes)]
    found = Gathered(items, volumes, tables, intensities, cards, voxel, warnings, certain)
    is_complete = (found.unannotated if options.unannotated == "auto" else options.unannotated) == "background"
    return dataclasses.replace(found, classes=with_distances(
        cards, tables, [volume.voxel_size_ang for volume in volumes], is_complete, card.classes if card else ()))


def _consistent(certain: Certain, table: CoordinateTable, volume: Volume, classes: Sequence[ClassCard],
                warnings: List[str]) -> Certain:
    """Return what is certain of a tomogram without places at which it has a particle; they are warned of."""
    kept, n = certain.without(table, min(c.diameter_ang for c in classes) / volume.voxel_size_ang)
    if n:
        warnings.append(f"{volume.name}: {n} of {len(certain.negatives_zyx_vox)} places without a particle are those "
                        "of particles: the particles count; remove what is wrong")
    return kept


def _table(item: DataItem, volume: Volume) -> Tuple[CoordinateTable, List[str]]:
    """Return the particles of an item that lie inside its tomogram, and warnings."""
    if not item.coordinates:
        return CoordinateTable.empty(), [f"{item.name}: no coordinates, used as background only"]
    frame = Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name)
    table, warnings = check_against_volume(read_coordinates(item.coordinates, frame), volume.shape_zyx,
                                           volume.voxel_size_ang, item.name)
    if not len(table):
        warnings.append(f"{item.name}: no particles, used as background only")
    return table, warnings


def _lacking(items: Sequence[DataItem], tables: Sequence[CoordinateTable], validation: Sequence[str]) -> List[str]:
    """Return what is wrong with the choice of tomograms: no particles, or none left to train on."""
    known = [item.name for item in items]
    if not sum(map(len, tables)):
        return [f"expected at least one particle, got none in {len(items)} tomogram(s): check the coordinate files"]
    unknown = [name for name in validation if name not in known]
    if unknown:
        return [f"validation must name tomograms of the data ({', '.join(known[:10])}), got {unknown[0]!r}"
                + suggestion(unknown[0], known)]
    if not any(len(t) for item, t in zip(items, tables) if item.name not in validation):
        return ["expected particles in the tomograms to train on, got none: every tomogram with particles is kept for "
                "validation; name fewer in --validation"]
    return _never_trained(items, tables, validation)


def _never_trained(items: Sequence[DataItem], tables: Sequence[CoordinateTable],
                   validation: Sequence[str]) -> List[str]:
    """Return for each class that occurs only in the tomograms the user keeps for validation what to do about it."""
    where: Dict[int, List[str]] = {}
    for item, table in zip(items, tables):
        for class_id in sorted(set(table.class_ids.tolist())):
            where.setdefault(class_id, []).append(item.name)
    return [f"expected particles of class {class_id} in the tomograms to train on, got none: they are all in "
            f"{', '.join(names[:8])}, kept for validation; name other tomograms in --validation"
            for class_id, names in sorted(where.items()) if set(names) <= set(validation)]


def _classes(tables: Sequence[CoordinateTable], listed: Sequence[ParticleClass], options: TrainOptions,
             problems: List[str]) -> List[ParticleClass]:
    """Return the classes with their diameters; what is wrong with them goes to problems."""
    seen = sorted({int(c) for t in tables for c in t.class_ids})
    names: Dict[int, str] = {}
    for table in tables:
        names.update(table.class_names)
    if listed:
        unknown = [c for c in seen if c not in {one.id for one in listed}]
        if unknown:
            problems.append(f"expected particles of {', '.join(c.label for c in listed)}, got also class "
                            f"{', '.join(map(str, unknown))}: add it to the classes or correct the tables")
    classes = list(listed) or [ParticleClass(c, names.get(c) or default_class(c).name) for c in seen]
    try:
        classes = with_diameters(classes, options.diameter_angstrom)
        check_diameters(classes)
    except InputError as error:
        problems.append(str(error))
    if len(classes) > 255:
        problems.append(f"expected at most 255 classes, got {len(classes)}")
    return classes


def _working(classes: Sequence[ParticleClass], volumes: Sequence[Volume], options: TrainOptions,
             card: Optional[ModelCard], warnings: List[str]) -> Tuple[float, Tuple[ClassCard, ...]]:
    """Return the working voxel size and the classes with their label diameters."""
    coarsest = max(v.voxel_size_ang for v in volumes)
    diameters = [c.diameter_ang for c in classes]
    voxel = card.voxel_size_ang if card else working_voxel_size(diameters, coarsest, options.working_diameter)
    if coarsest > voxel * COARSER_BY:
        raise InputError(f"expected tomograms of at most {voxel * COARSER_BY:.4g} angstrom/voxel (the model to start "
                         f"from works at {voxel:.4g}), found {coarsest:.4g}: use less binned tomograms or train "
                         "without --init")
    for volume in volumes:
        check_resampling(volume.level(voxel).voxel_size_ang, voxel, options.max_resampling, volume.name)
    cards = []
    for c in classes:
        size = check_working_diameter(c.diameter_ang, voxel)
        if not ADVISED_VOX[0] <= size <= ADVISED_VOX[1]:
            warnings.append(f"{c.label} has {size:.1f} voxels across at the working voxel size of {voxel:.4g} "
                            f"angstrom; {ADVISED_VOX[0]:g} to {ADVISED_VOX[1]:g} work best: "
                            "check the diameter, use another binning, or change --working-diameter")
        label = options.label_diameter or default_label_diameter(size)
        if label > size:
            raise InputError(f"label_diameter must be at most the particle's diameter, got {label:g} voxels for "
                             f"{c.label} of {size:.1f} voxels: give a smaller one, or 0 to let it be chosen")
        cards.append(ClassCard(c.id, c.name, c.diameter_ang, label))
    return voxel, tuple(cards)


def misfits(gathered: Gathered) -> List[str]:
    """Return what is odd about where the particles lie: places like any other, or all of them off in the same way.

    Parameters
    ----------
    gathered : Gathered
        Checked input. The three tomograms with the most particles are looked at.
    """
    found, by_class = [], {}  # type: ignore[var-annotated]
    order = sorted(range(len(gathered.tables)), key=lambda k: -len(gathered.tables[k]))
    for volume, table in ((gathered.volumes[k], gathered.tables[k]) for k in order[:MOST_CHECKED]):
        for one, fit in check_table(volume, table, gathered.classes, thorough=False):
            if fit is not None:
                by_class.setdefault(one.label, []).append(fit)
            if fit is not None and (fit.is_shifted or not fit.fits):
                found.append(f"{volume.name}: {one.label}: {fit}")
            if fit is not None and fit.fits:
                seen = look(volume, table.positions_zyx_vox[table.class_ids == one.id], one.diameter_ang)
                found += [f"{volume.name}: {one.label}: {seen}"] if seen.is_misjudged else []
    return found + [f"{label}, over {len(fits)} tomograms: {shift_of_all(fits)}" for label, fits in by_class.items()
                    if shift_of_all(fits)]


def telling(counts: Sequence[int]) -> List[int]:
    """Return which tomograms are looked into for how far particles stand out, by their numbers of particles.

    The three with the most, and more, up to eight, while they have fewer than twenty together: each takes seconds.
    """
    chosen: List[int] = []
    for k in sorted((k for k, n in enumerate(counts) if n), key=lambda k: -counts[k]):
        have = sum(counts[c] for c in chosen)
        if len(chosen) >= (MOST_CHECKED if have >= TELLING else MOST_LOOKED_INTO):
            break
        chosen.append(k)
    return chosen


def faint_labels(gathered: Gathered) -> List[FaintPlaces]:
    """Return for each class that has some the annotated particles that stand out much less than the others."""
    found = [faint_places(gathered.volumes, gathered.tables, one, gathered.prominences[one.id])
             for one in gathered.classes]
    return [one for one in found if one is not None]


def annotate(gathered: Gathered, cache_dir: pathlib.Path) -> List[Annotated]:
    """Return the tomograms on the working grid with their particles, each with its whole volume as the region.

    Parameters
    ----------
    gathered : Gathered
        Checked input.
    cache_dir : path
        Folder for resampled volumes.
    """
    channel = {c.id: k for k, c in enumerate(gathered.classes, 1)}
    out = []
    for volume, table, intensity, certain in zip(gathered.volumes, gathered.tables, gathered.intensities,
                                                 gathered.certain):
        grid = gathered.grid(volume)
        is_known = grid.factor == 1 and not volume.coarser
        source = open_working_volume(volume, grid, intensity if is_known else None, cache_dir)
        channels = np.array([channel[int(c)] for c in table.class_ids], np.int64)
        out.append(Annotated(volume.name, source, grid.to_working(table.positions_zyx_vox), channels,
                             whole(grid.shape_zyx), certain.on(grid)))
    return out
