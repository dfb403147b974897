"""What a study works on: tomograms with all their particles, which of them are labelled, and which are scored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.config import SimulateOptions, StudyOptions, TrainOptions, suggestion
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, classes_to_json
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.records import identity
from deepetpicker.io.volumes import Volume, open_volume, write_volume
from deepetpicker.sampling.gather import gather
from deepetpicker.simulation import simulate

PathLike = Union[str, pathlib.Path]
Tables = Dict[str, CoordinateTable]

INSTANCES = "_instances"


@dataclasses.dataclass(frozen=True, eq=False)
class Tomogram:
    """A tomogram of a study.

    Attributes
    ----------
    volume : Volume
        Memory-mapped.
    table : CoordinateTable
        All its particles, in its voxels.
    truth, instances : str
        Path of its table, and of its instance mask; empty when there is none.
    """

    volume: Volume
    table: CoordinateTable
    truth: str
    instances: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return self.volume.name


@dataclasses.dataclass(frozen=True, eq=False)
class StudyData:
    """Tomograms that are labelled and tomograms that are scored.

    Attributes
    ----------
    labelled, scored : list of Tomogram
        No tomogram is in both.
    classes : tuple of ParticleClass
        With their diameters in angstrom.
    voxel_size_ang : float
        At which networks work.
    is_simulated : bool
        Whether the tomograms are the study's own, so that the classes are phantoms.
    """

    labelled: List[Tomogram]
    scored: List[Tomogram]
    classes: Tuple[ParticleClass, ...]
    voxel_size_ang: float
    is_simulated: bool = False

    @property
    def n_labels(self) -> int:
        """Particles of the tomograms that are labelled."""
        return sum(len(one.table) for one in self.labelled)

    def fingerprint(self) -> Dict[str, Any]:
        """Return what makes two sets of data the same, as JSON-ready values: names, contents and tables, not paths."""
        return {role: [[one.name, identity(one.volume.path)["size"], identity(one.volume.path)["sample"],
                        one.table.digest()] for one in tomograms]
                for role, tomograms in (("labelled", self.labelled), ("scored", self.scored))}

    def describe(self) -> str:
        """Return a sentence on the tomograms and classes."""
        shape = " x ".join(map(str, self.scored[0].volume.shape_zyx))
        classes = ", ".join(f"{c.name} ({c.diameter_ang:g} \u00c5)" for c in self.classes)
        return (f"Labelled: {', '.join(one.name for one in self.labelled)} with {self.n_labels} particles. Scored: "
                f"{', '.join(one.name for one in self.scored)} with {sum(len(one.table) for one in self.scored)} "
                f"particles. Tomograms of {shape} voxels (z, y, x) of {self.scored[0].volume.voxel_size_ang:g} \u00c5; "
                f"classes: {classes}.")


def open_data(data: PathLike, folder: pathlib.Path, options: StudyOptions, params: Optional[Mapping[str, Any]] = None,
              quiet: bool = False) -> StudyData:
    """Return the tomograms of a study; simulates them where no folder is given.

    Parameters
    ----------
    data : path
        Folder of tomograms with tables of all their particles; empty simulates some.
    folder : path
        Where simulated tomograms go, or are from an earlier call.
    options : StudyOptions
        Diameters, voxel size and which tomograms are scored.
    params : mapping, optional
        Content of a params.json with ``items`` and ``classes`` instead of a folder.
    quiet : bool
        True shows no progress.

    Raises
    ------
    InputError
        If the data cannot be used, or there are too few tomograms.
    """
    is_simulated = not str(data) and not (params and params.get("items"))
    if is_simulated:
        data, params = folder, {}
        made_of = simulated(options)
        if not _is_made_of(folder, made_of):
            simulate(folder, made_of, quiet)
    gathered = gather(data, TrainOptions(diameter_angstrom=options.diameter_angstrom, voxel_size=options.voxel_size,
                                         check=False), params)
    tomograms = [Tomogram(volume, table, item.coordinates, _instances(item.tomogram)) for item, volume, table in
                 zip(gathered.items, gathered.volumes, gathered.tables)]
    scored = _scored([one.name for one in tomograms], options.test)
    classes = tuple(ParticleClass(c.id, c.name, c.diameter_ang) for c in gathered.classes)
    found = StudyData([one for one in tomograms if one.name not in scored],
                      [one for one in tomograms if one.name in scored], classes, gathered.voxel_size_ang, is_simulated)
    for what, some in (("labelled", found.labelled), ("scored", found.scored)):
        if not sum(len(one.table) for one in some):
            raise InputError(f"expected particles in the tomograms that are {what} "
                             f"({', '.join(one.name for one in some)}), got none: name others with --test")
    return found


def simulated(options: StudyOptions) -> SimulateOptions:
    """Return how the tomograms of a study are simulated where none are given."""
    if options.quick:
        return SimulateOptions(phantoms=("cage",), n=2, shape=(32, 64, 72), particles=8, gold=0, membranes=0, snr=1.0)
    return SimulateOptions(phantoms=("cage", "ribosome"), n=4, shape=(64, 160, 176), particles=30, maps=())


def _is_made_of(folder: pathlib.Path, options: SimulateOptions) -> bool:
    """Tell whether a folder holds all tomograms that these options make."""
    path = folder / "manifest.json"
    if not path.is_file():
        return False
    content = read_manifest(path)
    return (content.get("options") == options.to_dict() and len(content.get("items", [])) == options.n
            and bool(content.get("outputs")))


def _instances(tomogram: str) -> str:
    """Return the instance mask beside a tomogram; empty when there is none."""
    path = pathlib.Path(tomogram)
    mask = path.with_name(f"{path.stem}{INSTANCES}{path.suffix}")
    return str(mask) if mask.is_file() else ""


def _scored(names: Sequence[str], wanted: Sequence[str]) -> List[str]:
    """Return the names of the tomograms to be scored: those wanted, or the last half."""
    for name in wanted:
        if name not in names:
            raise InputError(f"test must name tomograms of the data ({', '.join(names[:10])}), got {name!r}"
                             + suggestion(name, names))
    scored = list(wanted) or list(names[(len(names) + 1) // 2:])
    if not scored or len(scored) == len(names):
        raise InputError(f"expected at least two tomograms, some to label and some to score, got {len(names)} of which "
                         f"{len(scored)} are scored: give more tomograms, or name fewer with --test")
    return scored


def drawn_labels(data: StudyData, number: int, seed: int) -> Tables:
    """Return labels drawn from the labelled tomograms: of all classes in turn; fewer are among the more.

    Parameters
    ----------
    data : StudyData
        Tomograms and classes.
    number : int
        Number of labels; 0, or as many as there are, takes all.
    seed : int
        Of the draw.

    Returns
    -------
    dict of str to CoordinateTable
        By the tomogram's name, in the order of its table; empty tables included.
    """
    tables = {one.name: one.table for one in data.labelled}
    if not number or number >= data.n_labels:
        return tables
    places = [(name, row) for name, table in tables.items() for row in range(len(table))]
    ids = np.concatenate([table.class_ids for table in tables.values()])
    order = np.random.default_rng([seed, 0]).permutation(len(places))
    turn = np.zeros(len(places), int)  # the how-manieth of its class a label is
    for class_id in np.unique(ids):
        mine = order[ids[order] == class_id]
        turn[mine] = np.arange(len(mine))
    taken = [places[k] for k in order[np.argsort(turn[order], kind="stable")][:number]]
    return {name: table.select(np.array(sorted(row for where, row in taken if where == name), int))
            for name, table in tables.items()}


def shifted(data: StudyData, tables: Tables, radii: float, seed: int) -> Tables:
    """Return labels that are moved by a share of their particle's radius, in directions that depend on the seed alone.

    Parameters
    ----------
    data : StudyData
        Tomograms and classes.
    tables : dict of str to CoordinateTable
        Labels by the tomogram's name.
    radii : float
        Length of the shift in particle radii. A label stays inside its tomogram.
    seed : int
        Of the directions.
    """
    radius_ang, rng, moved = {c.id: c.diameter_ang / 2 for c in data.classes}, np.random.default_rng([seed, 1]), {}
    for one in data.labelled:
        table = tables[one.name]
        directions = rng.normal(size=(len(table), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = radii * np.array([radius_ang[int(c)] for c in table.class_ids]) / one.volume.voxel_size_ang
        positions = table.positions_zyx_vox + lengths[:, None] * directions
        inside = np.clip(positions, 0, np.array(one.volume.shape_zyx) - 1.0)
        moved[one.name] = dataclasses.replace(table, positions_zyx_vox=inside)
    return moved


def with_noise(data: StudyData, share: float, seed: int, folder: pathlib.Path) -> StudyData:
    """Return the data with noise of the tomograms' own spectrum added to them.

    Parameters
    ----------
    data : StudyData
        Tomograms.
    share : float
        Standard deviation of the noise in that of each tomogram.
    seed : int
        Of the noise; another share scales the same noise.
    folder : path
        Where tomograms are written; those that are there already are used, so that a training can go on.
    """
    def noisy(one: Tomogram, number: int) -> Tomogram:
        """Return a tomogram with noise."""
        path = folder / f"{one.name}.mrc"
        if not path.is_file():
            write_volume(path, added_noise(np.asarray(one.volume.data_zyx, np.float32), share,
                                           np.random.default_rng([seed, 2, number])), one.volume.voxel_size_ang)
        return dataclasses.replace(one, volume=open_volume(path, one.volume.voxel_size_ang, one.name))

    every = [noisy(one, number) for number, one in enumerate((*data.labelled, *data.scored))]
    return dataclasses.replace(data, labelled=every[:len(data.labelled)], scored=every[len(data.labelled):])


def added_noise(volume_zyx: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return a tomogram (Z, Y, X) float32 plus noise with its own spectrum, of a share of its standard deviation."""
    from scipy import fft

    filled = np.nan_to_num(volume_zyx - np.nanmean(volume_zyx), posinf=0.0, neginf=0.0)
    spectrum = np.abs(fft.rfftn(filled))
    noise = fft.irfftn(spectrum * fft.rfftn(rng.normal(size=filled.shape).astype(np.float32)), s=filled.shape)
    return (volume_zyx + noise * (share * filled.std() / max(float(noise.std()), 1e-30))).astype(np.float32)


def digest(tables: Tables) -> str:
    """Return the SHA-256 of labels by tomogram."""
    return hashlib.sha256(json.dumps([[name, table.digest()] for name, table in sorted(tables.items())]).encode()
                          ).hexdigest()


def training_params(data: StudyData, tables: Tables, folder: pathlib.Path) -> Dict[str, Any]:
    """Write labels as tables and return the params of a training on them.

    Parameters
    ----------
    data : StudyData
        Tomograms and classes.
    tables : dict of str to CoordinateTable
        Labels by the tomogram's name.
    folder : path
        Where NAME.csv are written.
    """
    items = []
    for one in data.labelled:
        path = folder / f"{one.name}.csv"
        write_coordinates(path, dataclasses.replace(tables[one.name], class_names={}))
        items.append({"name": one.name, "tomogram": str(one.volume.path), "coordinates": str(path),
                      "voxel_size": one.volume.voxel_size_ang})
    return {"items": items, "classes": classes_to_json(data.classes)}


def picking_params(tomograms: Sequence[Tomogram]) -> Dict[str, Any]:
    """Return the params of picking tomograms."""
    return {"items": [{"name": one.name, "tomogram": str(one.volume.path), "voxel_size": one.volume.voxel_size_ang}
                      for one in tomograms]}


def evaluation_params(data: StudyData, folder: pathlib.Path, suffix: str = "") -> Dict[str, Any]:
    """Return the params of an evaluation of the tables NAME + suffix + .csv in a folder."""
    items = [{"name": one.name, "truth": one.truth, "picks": str(folder / f"{one.name}{suffix}.csv"),
              "tomogram": str(one.volume.path), "instances": one.instances, "voxel_size": one.volume.voxel_size_ang}
             for one in data.scored]
    return {"items": items, "classes": classes_to_json(data.classes)}
