"""The model card itself, and its form as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from deepetpicker.calibration import Calibration
from deepetpicker.errors import ModelFileError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.jsonvalues import finite_json, number, objects, parse

FORMAT_VERSION = 1
RECALL_COUNTS = "mean recall of its picks"  # so a verdict says that precision is not known

PathLike = Union[str, "os.PathLike[str]"]


@dataclasses.dataclass(frozen=True)
class ClassCard(ParticleClass):
    """One particle class of a model: id, name, diameter in angstrom, label diameter in working voxels, threshold.

    The threshold is None in models that have one for all classes, the calibration in those whose scores are peak
    heights and no probabilities. Threshold and scores are of one kind. Picks nearer to each other than ``apart_ang``
    (angstrom) are one particle; None, where the annotation did not tell, is half the diameter.
    """

    label_diameter_vox: float = 0.0
    threshold: Optional[float] = None
    calibration: Optional[Calibration] = None
    apart_ang: Optional[float] = None

    @property
    def least_distance_ang(self) -> float:
        """Distance in angstrom below which two picks are one particle."""
        return self.diameter_ang / 2 if self.apart_ang is None else self.apart_ang


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Everything picking needs to know about a model, and where the model comes from.

    Parameters
    ----------
    network : dict
        Options of the network, as ``config.NetworkOptions.to_dict()``.
    classes : tuple of ClassCard
        Particle classes in the order of the network's channels.
    voxel_size_ang : float
        Working voxel size in angstrom: what the network sees.
    patch_vox, border_vox : int
        Edge of the training patch and the border discarded at inner tile sides, in working voxels.
    label, normalisation : str
        Shape of the weak label; name of the normalisation.
    threshold, score_floor : float
        Score at and above which candidates become picks by default, in classes without a threshold of their own; score
        below which none is kept.
    intensity : dict
        Quantiles of the normalised training voxels.
    training : dict
        Tomogram names, options, epochs, kept epoch and what chose it, particles per class, ``picks`` (how well each
        class was picked on the held-out part) and ``items`` (what each tomogram served for, see :meth:`use_of`); of a
        model that goes on from another one ``round`` and ``started_from`` (``file``, ``sha256``, ``round``).
    validation : list of dict
        One entry per epoch.
    seed : int
        Seed of the training.
    version, created : str
        Version of the program; ISO date and time.
    format_version : int
        Version of this card's layout.
    notes : dict
        Anything else, such as the origin of an imported checkpoint.
    warnings : list of str
        What a user of the model should know: all that was warned of in its training.
    """

    network: Dict[str, Any]
    classes: Tuple[ClassCard, ...]
    voxel_size_ang: float
    patch_vox: int
    border_vox: int
    label: str
    normalisation: str
    threshold: float
    score_floor: float
    intensity: Dict[str, Any] = dataclasses.field(default_factory=dict)
    training: Dict[str, Any] = dataclasses.field(default_factory=dict)
    validation: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    seed: int = 0
    version: str = ""
    created: str = ""
    format_version: int = FORMAT_VERSION
    notes: Dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: List[str] = dataclasses.field(default_factory=list)

    @property
    def thresholds(self) -> Dict[int, float]:
        """Class id to the score at and above which its candidates become picks by default."""
        return {c.id: self.threshold if c.threshold is None else c.threshold for c in self.classes}

    @property
    def is_partial(self) -> bool:
        """Whether it was trained with many particles not annotated: precision and F1 of the training say little."""
        verdict = str((self.training.get("verdict") or {}).get("text", ""))
        return (self.training.get("options") or {}).get("unannotated") == "unknown" or RECALL_COUNTS in verdict

    @property
    def is_refitted(self) -> bool:
        """Whether it went on with what was held out, after it was judged: its picks there say little about others."""
        return bool((self.training.get("refit") or {}).get("kept"))

    def use_of(self, name: str, fingerprint: str = "") -> str:
        """Return what a tomogram served for: ``training``, ``validation``, ``both``; empty when the model is new to it.

        Picks on a tomogram that was trained on say little about others. ``both`` is a tomogram of which a slab was held
        out, or one used twice, for want of particles or by a refit.

        Parameters
        ----------
        name : str
            Name of the tomogram.
        fingerprint : str
            ``CoordinateTable.fingerprint()`` of its known particles, in its own voxels, which finds it under another
            name too.
        """
        for item in self.training.get("items") or []:
            if item.get("name") == name or (fingerprint and item.get("fingerprint") == fingerprint):
                role = str(item.get("role", ""))
                return "both" if role == "validation" and self.is_refitted else role
        trained, held = (name in (self.training.get(key) or []) for key in ("tomograms", "validation"))
        return "both" if trained and held else "training" if trained else "validation" if held else ""

    def to_json(self) -> str:
        """Return the card as JSON text; NaN and infinite numbers become null."""
        return json.dumps(finite_json(dataclasses.asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, path: PathLike = "") -> ModelCard:
        """Return the card that :meth:`to_json` wrote.

        Parameters
        ----------
        text : str
            JSON text.
        path : path
            File it comes from, for messages.

        Raises
        ------
        ModelFileError
            If the text is no JSON, has another format version, or lacks a member.
        """
        try:
            content = parse(text)
        except ValueError as error:
            raise ModelFileError(f"{path}: the model card is damaged ({error}); copy the file again or train anew"
                                 ) from error
        if not isinstance(content, dict):
            raise ModelFileError(f"{path}: the model card must be a JSON object, got {type(content).__name__}")
        _check_version(content.get("format_version"), path)
        return _card(content, path)


def _check_version(version: Any, path: PathLike) -> None:
    """Refuse every format version but ours, saying which way to go."""
    number = version if isinstance(version, int) and not isinstance(version, bool) else None
    if number == FORMAT_VERSION:
        return
    if number is not None and number > FORMAT_VERSION:
        raise ModelFileError(f"{path} was made by a newer version of DeepETPicker (model format {version}, this one "
                             f"reads {FORMAT_VERSION}): update DeepETPicker")
    if number is not None:
        raise ModelFileError(f"{path} was made by an older version of DeepETPicker (model format {version}, this one "
                             f"reads {FORMAT_VERSION}): train it anew or use the older version")
    raise ModelFileError(f"{path}: the model card has no valid format_version (found {version!r}, expected "
                         f"{FORMAT_VERSION})")


def _card(content: Mapping[str, Any], path: PathLike) -> ModelCard:
    """Return the card from parsed JSON, checking members and their types."""
    fields = {f.name: f for f in dataclasses.fields(ModelCard)}
    missing = [n for n, f in fields.items() if n not in content and f.default is dataclasses.MISSING
               and f.default_factory is dataclasses.MISSING]
    if missing:
        raise ModelFileError(f"{path}: the model card lacks {', '.join(missing)}; train the model anew")
    values = {n: content[n] for n in fields if n in content}
    try:
        values["classes"] = tuple(_class_card(c) for c in content["classes"])
        for name in ("voxel_size_ang", "threshold", "score_floor"):
            values[name] = float(content[name])
        values["warnings"] = [str(text) for text in content.get("warnings") or []]
        for name in ("patch_vox", "border_vox"):
            values[name] = int(content[name])
            if not 0 <= values[name] < 10 ** 6:
                raise ValueError(f"{name} must be a number of voxels, got {content[name]!r:.40}")
        if not (isinstance(content["network"], dict) and values["classes"] and values["voxel_size_ang"] > 0):
            raise ValueError("network options, at least one class and a voxel size > 0 are needed")
        _check_story(values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path}: the model card is damaged ({type(error).__name__}: {error}); copy the file "
                             "again or train anew") from error
    return ModelCard(**values)


def _check_story(values: Mapping[str, Any]) -> None:
    """Raise ValueError unless what the card says of its training has the form in which cards are written."""
    for name in ("intensity", "training", "notes"):
        if not isinstance(values.get(name, {}), Mapping):
            raise ValueError(f"{name} must be an object")
    if not isinstance(values.get("validation", []), list):
        raise ValueError("validation must be a list")
    training = values.get("training", {})
    objects(training, "items")
    _check_seen(training.get("seen") or {})
    if not all(isinstance(training.get(key) or [], list) for key in ("tomograms", "validation")):
        raise ValueError("the tomograms of the training must be a list")
    judged = [one for one in objects(training, "picks") if one.get("n_true")]
    for one, key in itertools.product(judged, ("class_id", "f1", "precision", "recall", "n_true")):
        if not isinstance(one.get(key), (int, float)):
            raise ValueError(f"{key} of the picks must be a number")
        number(one[key], key)
    if not isinstance(training.get("started_from", {}), Mapping) or not isinstance(training.get("round", 1), int):
        raise ValueError("the origin must be an object and the round a whole number")
    for key in ("seed", "format_version"):
        if not isinstance(values.get(key, 0), int):
            raise ValueError(f"{key} must be a whole number")


def _check_seen(seen: Any) -> None:
    """Raise ValueError unless what the training has seen are lists of numbers."""
    if not isinstance(seen, Mapping) or not isinstance(seen.get("density") or {}, Mapping):
        raise ValueError("what the training has seen must be an object")
    rows = [one.get(key) for one in objects(seen, "portraits") for key in ("grain", "standing_out")]
    for row in [*rows, *(seen.get("density") or {}).values()]:
        if not isinstance(row, list) or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in row):
            raise ValueError("what the training has seen must be lists of numbers")


def _class_card(content: Mapping[str, Any]) -> ClassCard:
    """Return one class from parsed JSON; threshold, calibration and least distance may lack, as in older models."""
    if not isinstance(content, Mapping):
        raise TypeError(f"a class must be an object, got {content!r}")
    own, scale, apart = (content.get(key) for key in ("threshold", "calibration", "apart_ang"))
    if apart is not None and not 0 < float(apart) <= 2 * float(content["diameter_ang"]):
        raise ValueError(f"the least distance of picks must be above 0 and near the diameter, got {apart!r:.40}")
    return ClassCard(int(content["id"]), str(content["name"]), float(content["diameter_ang"]),
                     float(content["label_diameter_vox"]), None if own is None else float(own),
                     None if scale is None else Calibration.from_dict(scale), None if apart is None else float(apart))
