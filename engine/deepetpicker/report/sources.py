"""What a page is about: the files of one training, or of one picking, wherever they are now."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.atomic import whole
from deepetpicker.io.classes import ParticleClass, read_classes
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.items import TOMOGRAM_SUFFIXES
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ModelCard, read_card
from deepetpicker.io.volumes import is_ngff, tomogram_name

MANIFEST, METRICS, PARAMS = "manifest.json", "metrics.csv", "params.json"
MODEL_SUFFIX, RUN_SUFFIX, TRUTH = ".safetensors", "_run", "_truth"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tomogram is: its path (empty when it is not there any more), shape (Z, Y, X) and voxel size in angstrom.

    What nobody knows is None, or 0.
    """

    path: str = ""
    shape_zyx: Optional[Tuple[int, ...]] = None
    voxel_size_ang: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What the kept epoch found in the held-out part of a tomogram, and what was to be found, in its voxels."""

    name: str
    found: CoordinateTable
    truth: CoordinateTable


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training: finished, running or ended before its time, or a model file alone.

    Parameters
    ----------
    name : str
        Of the model.
    folder : pathlib.Path
        Its run folder, which need not be there.
    card : ModelCard, optional
        Of the model; None before there is one.
    manifest : dict
        Of the run; empty when it has none.
    rows : list of dict
        The rows of metrics.csv as text, or those in the card.
    places : dict of str to Place
        The tomograms by name.
    held_out : list of HeldOut
        Empty for runs that did not keep it.
    model : pathlib.Path
        Where the model file is, or is to be.
    """

    name: str
    folder: pathlib.Path
    card: Optional[ModelCard]
    manifest: Dict[str, Any]
    rows: List[Dict[str, Any]]
    places: Dict[str, Place]
    held_out: List[HeldOut]
    model: pathlib.Path

    @property
    def is_partial(self) -> bool:
        """Whether many particles were not annotated, so that false picks may well be right."""
        return self.card is not None and self.card.is_partial


@dataclasses.dataclass(frozen=True, eq=False)
class PickedTomogram:
    """What became of one tomogram.

    Parameters
    ----------
    name, reason : str
        Its name; why it failed, empty when it did not.
    place : Place
        Where it is.
    picks, candidates : CoordinateTable
        At the threshold, and all that were kept, in its voxels.
    thresholds : dict of int to float
        Lowest score of a pick by class.
    seconds : float, optional
        How long it took.
    """

    name: str
    place: Place
    picks: CoordinateTable
    candidates: CoordinateTable
    thresholds: Dict[int, float]
    seconds: Optional[float] = None
    reason: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class PickRun:
    """A picking, into one folder or several.

    Parameters
    ----------
    folders : list of pathlib.Path
        Where the picks are.
    manifest : dict
        Of the last folder.
    tomograms : list of PickedTomogram
        In the order in which they were picked, those that failed included.
    classes : tuple of ParticleClass
        Ids, names and diameters.
    card : ModelCard, optional
        Of the model, None when it is not there any more.
    model : str
        Its path.
    warnings, missing : list of str
        What the runs said, and the names of tomograms that were not picked yet.
    """

    folders: List[pathlib.Path]
    manifest: Dict[str, Any]
    tomograms: List[PickedTomogram]
    classes: Tuple[ParticleClass, ...]
    card: Optional[ModelCard]
    model: str
    warnings: List[str]
    missing: List[str]


Run = Union[TrainingRun, PickRun]


def find_run(places: Sequence[str], tomograms: Sequence[str] = ()) -> Run:
    """Return the training or picking that lies somewhere.

    Parameters
    ----------
    places : sequence of str
        A model file or the folder of a training; or one or several folders of picks (or manifests in them).
    tomograms : sequence of str
        Tomograms, or folders with them, which are no longer where they were.

    Raises
    ------
    InputError
        If a place is neither, or several are not all picks.
    """
    if not places:
        raise InputError("give a model file, the folder of a training, or a folder of picks")
    given = _given(tomograms)
    kinds = {place: _kind(pathlib.Path(place)) for place in places}
    if set(kinds.values()) == {"pick"}:
        return _picks([_manifest_path(pathlib.Path(place)) for place in places], given)
    if len(places) > 1:
        raise InputError("a page is about one training, or about one or several folders of picks, got "
                         + ", ".join(f"{place} ({kind})" for place, kind in kinds.items()))
    if kinds[places[0]] == "evaluate":
        raise InputError(f"{places[0]} holds an evaluation, which has its page already: {places[0]}/report.html")
    return _training(pathlib.Path(places[0]), given)


def _kind(place: pathlib.Path) -> str:
    """Return what a place holds: train, pick or evaluate."""
    if place.is_file() and place.suffix == MODEL_SUFFIX:
        return "train"
    manifest = _manifest_path(place)
    if manifest.is_file():
        command = str(read_manifest(manifest).get("command"))
        if command in ("train", "pick", "evaluate"):
            return command
        raise InputError(f"{place} holds what {command} wrote: expected a training or picks")
    if (place / METRICS).is_file() and (place / PARAMS).is_file():
        return "train"
    model = next(iter(whole(place.glob(f"*{MODEL_SUFFIX}"))), None) if place.is_dir() else None
    advice = f"; there is a model in it: give {model}" if model else ""
    raise InputError(f"expected a model file, the folder of a training (MODEL_run) or a folder of picks with its "
                     f"{MANIFEST}, got {place}{'' if place.exists() else ', which does not exist'}{advice}")


def _manifest_path(place: pathlib.Path) -> pathlib.Path:
    """Return the manifest of a folder, or the one that was named."""
    return place if place.suffix == ".json" else place / MANIFEST


def _given(tomograms: Sequence[str]) -> Dict[str, str]:
    """Return the paths of tomograms by name."""
    found: Dict[str, str] = {}
    for one in map(pathlib.Path, tomograms):
        if not one.exists():
            raise InputError(f"--tomograms: no such file or folder: {one}")
        files = whole(one.iterdir()) if one.is_dir() and not is_ngff(one) else [one]
        found.update((tomogram_name(file), str(file)) for file in files if file.suffix.lower() in TOMOGRAM_SUFFIXES)
    return found


def _located(path: str, near: pathlib.Path) -> str:
    """Return where a file is: as written, or below a folder that holds the run, as in a project; else nothing."""
    if not path:
        return ""
    for base in (pathlib.Path(), *near.absolute().parents):
        if (base / path).is_file() or is_ngff(base / path):
            return str(base / path)
    return ""


def _placed(content: Mapping[str, Any], near: pathlib.Path, given: Mapping[str, str]) -> Dict[str, Place]:
    """Return where the tomograms of a manifest are."""
    inputs = {str(one["path"]): one for one in content.get("inputs", []) if isinstance(one, Mapping) and "path" in one}
    found = {}
    for item in content.get("items", []):
        path = str(item.get("tomogram") or "")
        facts = inputs.get(path, {})
        shape = facts.get("shape_zyx")
        found[str(item["name"])] = Place(given.get(str(item["name"])) or _located(path, near),
                                         tuple(int(n) for n in shape) if shape else None,
                                         float(facts.get("voxel_size_angstrom") or 0.0))
    return found


# ---- training
def _training(place: pathlib.Path, given: Mapping[str, str]) -> TrainingRun:
    """Return a training."""
    if place.is_dir():
        folder = place
        model = place.with_name(place.name[:-len(RUN_SUFFIX)] + MODEL_SUFFIX) if place.name.endswith(RUN_SUFFIX) else \
            next(iter(whole(place.glob(f"*{MODEL_SUFFIX}"))), place / f"model{MODEL_SUFFIX}")
    else:
        folder, model = place.with_name(place.stem + RUN_SUFFIX), place
    card = read_card(model) if model.is_file() else None
    manifest = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    rows = _rows(folder / METRICS) or ([dict(row) for row in card.validation] if card else [])
    held = []
    for path in whole(folder.glob(f"held_out/*{TRUTH}.csv")):
        name = path.stem[:-len(TRUTH)]
        held.append(HeldOut(name, read_coordinates(path.with_name(f"{name}.csv")), read_coordinates(path)))
    return TrainingRun(model.stem, folder, card, manifest, rows, _placed(manifest, folder, given), held, model)


def _rows(path: pathlib.Path) -> List[Dict[str, Any]]:
    """Return the whole rows of a metrics.csv as text; none when there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values()]
    except OSError:
        return []


# ---- picks
def _picks(manifests: Sequence[pathlib.Path], given: Mapping[str, str]) -> PickRun:
    """Return a picking; of a tomogram in several folders, the last counts, and a result before a failure."""
    found: Dict[str, PickedTomogram] = {}
    warnings: List[str] = []
    missing: List[str] = []
    main: Dict[str, Any] = {}
    for path in manifests:
        content = read_manifest(path)
        places = _placed(content, path.parent, given)
        for item in content.get("items", []):
            one = _picked(item, places[str(item["name"])])
            if not one.reason or one.name not in found or found[one.name].reason:
                found[one.name] = one
        outputs = content.get("outputs") or {}
        main = content if outputs.get("model") or not main else main
        warnings += [text for text in content.get("warnings", []) if text not in warnings]
        missing += outputs.get("missing") or []
    card, model = _card_of(main, manifests[0].parent)
    return PickRun([path.parent for path in manifests], main, list(found.values()),
                   _classes(manifests, card, found.values()), card, model, warnings,
                   [name for name in missing if name not in found])


def _picked(item: Mapping[str, Any], place: Place) -> PickedTomogram:
    """Return what became of the tomogram of an item."""
    name, empty = str(item["name"]), CoordinateTable.empty()
    if item.get("status") != "done":
        return PickedTomogram(name, place, empty, empty, {}, item.get("seconds"), str(item.get("reason") or "failed"))
    try:
        picks = read_coordinates(item["picks"])
        candidates = read_coordinates(item["candidates"]) if item.get("candidates") else picks
    except DeepETPickerError as error:
        return PickedTomogram(name, place, empty, empty, {}, item.get("seconds"), str(error))
    thresholds = {int(key): float(value) for key, value in (item.get("thresholds") or {}).items()}
    if not thresholds and item.get("threshold") is not None:
        thresholds = dict.fromkeys({int(c) for c in candidates.class_ids}, float(item["threshold"]))
    return PickedTomogram(name, place, picks, candidates, thresholds, item.get("seconds"))


def _card_of(manifest: Mapping[str, Any], near: pathlib.Path) -> Tuple[Optional[ModelCard], str]:
    """Return the card of the model of a picking, and the path that the manifest says."""
    path = str((manifest.get("outputs") or {}).get("model") or "")
    here = _located(path, near)
    try:
        return (read_card(here) if here else None), path
    except DeepETPickerError:
        return None, path


def _classes(manifests: Sequence[pathlib.Path], card: Optional[ModelCard],
             tomograms: Any) -> Tuple[ParticleClass, ...]:
    """Return what is known of the classes: by the folders, by the model, by what occurs."""
    known: Dict[int, ParticleClass] = {c.id: c for c in card.classes} if card else {}
    for path in manifests:
        known.update((one.id, one) for one in read_classes(path.parent)[0])
    for one in tomograms:
        for class_id in sorted({int(c) for c in one.candidates.class_ids}):
            known.setdefault(class_id, ParticleClass(class_id, one.candidates.class_names.get(class_id, "")
                                                     or f"class {class_id}"))
    return tuple(known[i] for i in sorted(known))
