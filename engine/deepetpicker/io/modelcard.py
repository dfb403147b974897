"""The model card: what a model file says about itself, readable without torch."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import pathlib
import struct
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from deepetpicker.calibration import Calibration, scores_are
from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.jsonvalues import number, objects, parse
from deepetpicker.io.plainfile import check_plain

FORMAT_VERSION = 1
METADATA_KEY = "deepetpicker"
RECALL_COUNTS = "mean recall of its picks"  # so a verdict says that precision is not known
MAX_HEADER_BYTES = 100_000_000

PathLike = Union[str, "os.PathLike[str]"]


@dataclasses.dataclass(frozen=True)
class ClassCard(ParticleClass):
    """One particle class of a model: id, name, diameter in angstrom, label diameter in working voxels, threshold.

    The threshold is None in models that have one for all classes, the calibration in those whose scores are peak
    heights and no probabilities. Threshold and scores are of one kind.
    """

    label_diameter_vox: float = 0.0
    threshold: Optional[float] = None
    calibration: Optional[Calibration] = None


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

    def use_of(self, name: str, fingerprint: str = "") -> str:
        """Return what a tomogram served for: ``training``, ``validation``, ``both``; empty when the model is new to it.

        Picks on a tomogram that was trained on say little about others. ``both`` is a tomogram of which a slab was held
        out, or one used twice for want of particles.

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
                return str(item.get("role", ""))
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


def read_card(path: PathLike) -> ModelCard:
    """Return the model card of a model file, reading its header only.

    Raises
    ------
    ModelFileError
        If the file is missing, empty, truncated, no safetensors file, holds no card, or a card of another version.
    """
    metadata, _ = read_header(path)
    if METADATA_KEY not in metadata:
        raise ModelFileError(f"{path} is a safetensors file without a DeepETPicker model card: expected one written "
                             "by 'deepetpicker train' or 'deepetpicker import-reference'")
    return ModelCard.from_json(metadata[METADATA_KEY], path)


def read_header(path: PathLike) -> Tuple[Dict[str, str], Dict[str, Any]]:
    """Return the metadata and the tensor directory of a safetensors file.

    Returns
    -------
    tuple of dict
        Metadata (names to text) and the directory (tensor name to dtype, shape and data_offsets).

    Raises
    ------
    ModelFileError
        If the file is missing, empty, truncated or no safetensors file.
    """
    file = pathlib.Path(path)
    try:
        check_plain(file, "a model file (.safetensors)")
    except InputError as error:
        raise ModelFileError(str(error)) from error
    if file.is_dir():
        raise ModelFileError(f"expected a model file (.safetensors), got a folder: {path}")
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            directory = _directory(stream.read(8), stream, size, path)
    except FileNotFoundError as error:
        raise ModelFileError(f"no such model file: {path}") from error
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror or error}") from error
    metadata = directory.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFileError(f"{path}: damaged safetensors header (metadata must map names to text)")
    return metadata, directory


def _directory(head: bytes, stream: Any, size: int, path: PathLike) -> Dict[str, Any]:
    """Return the parsed header; its length is checked against the file before anything is read."""
    if size == 0:
        raise ModelFileError(f"{path} is empty (0 bytes): copy the model again or train anew")
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if len(head) < 8 or length < 2 or length > MAX_HEADER_BYTES:
        raise ModelFileError(f"{path} is not a safetensors file: expected a model written by 'deepetpicker train'")
    start = stream.read(1)
    if start != b"{":
        raise ModelFileError(f"{path} is not a safetensors file: expected a model written by 'deepetpicker train'")
    if length > size - 8:
        raise ModelFileError(f"{path} is truncated: its header should have {length} bytes, {size - 8} are left; "
                             "copy the model again")
    try:
        directory = parse((start + stream.read(length - 1)).decode("utf-8"))
        if not isinstance(directory, dict):
            raise ValueError("header is no object")
        tensors = [t for n, t in directory.items() if n != "__metadata__"]
        ends = [int(t["data_offsets"][1]) for t in tensors]
        if min((int(edge) for t in tensors for edge in t["shape"]), default=0) < 0:
            raise ValueError("a shape below zero")
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ModelFileError(f"{path}: damaged safetensors header ({error}); copy the model again") from error
    if ends and 8 + length + max(ends) > size:
        raise ModelFileError(f"{path} is truncated: expected {8 + length + max(ends)} bytes, found {size}; copy the "
                             "model again")
    return directory


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
    """Return one class from parsed JSON; its threshold and its calibration may lack, as in older models."""
    if not isinstance(content, Mapping):
        raise TypeError(f"a class must be an object, got {content!r}")
    own, scale = content.get("threshold"), content.get("calibration")
    return ClassCard(int(content["id"]), str(content["name"]), float(content["diameter_ang"]),
                     float(content["label_diameter_vox"]), None if own is None else float(own),
                     None if scale is None else Calibration.from_dict(scale))


def finite_json(value: Any) -> Any:
    """Return value as JSON can hold it: NaN and infinities become None, tuples lists, paths text, numpy numbers."""
    if isinstance(value, Mapping):
        return {str(k): finite_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(v) for v in value]
    if hasattr(value, "tolist"):
        return finite_json(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def info(path: PathLike) -> Dict[str, Any]:
    """Return the model card of a model file as a dictionary (what ``deepetpicker info --json`` shows).

    Raises
    ------
    ModelFileError
        As :func:`read_card`.
    """
    card = read_card(path)
    content: Dict[str, Any] = json.loads(card.to_json())
    _, directory = read_header(path)
    content["parameters"] = sum(math.prod(map(int, t.get("shape", []))) for t in directory.values())
    content["path"] = str(path)
    return content


def format_info(card: ModelCard) -> str:
    """Return the model card as text for people, lengths in angstrom and in working voxels."""
    voxel = card.voxel_size_ang
    lines = [f"DeepETPicker model (format {card.format_version}, version {card.version or 'unknown'}, "
             f"made {card.created or 'at an unknown time'})",
             f"working voxel size  {voxel:.4g} angstrom",
             f"training patch      {card.patch_vox} voxels ({card.patch_vox * voxel:.4g} angstrom), border "
             f"{card.border_vox} voxels",
             f"label               {card.label}; normalisation {card.normalisation}",
             f"threshold           {card.threshold:.3g} (candidates above {card.score_floor:.3g} are kept)",
             f"classes             {len(card.classes)}"]
    for one in card.classes:
        lines.append(f"  {one.id:>3}  {one.name:<16} diameter {one.diameter_ang:.4g} angstrom "
                     f"({one.diameter_ang / voxel:.1f} voxels), label {one.label_diameter_vox:.3g} voxels "
                     f"({one.label_diameter_vox * voxel:.4g} angstrom), threshold {card.thresholds[one.id]:.3g}")
        lines.append(f"       {scores_are(one.calibration)}")
    told = ("picks", "items", "seen", "verdict", "round", "started_from")
    training = {key: value for key, value in card.training.items() if key not in told}
    for title, content in (("network", card.network), ("training", training), ("intensity", card.intensity),
                           ("notes", card.notes)):
        lines += [f"{title}"] + [f"  {key}: {_short(value)}" for key, value in content.items()] if content else []
    if card.validation:
        lines.append(f"validation          {len(card.validation)} epochs, last: {_short(card.validation[-1])}")
    for one in card.training.get("picks") or []:
        if one.get("n_true"):
            lines.append(f"held-out particles  class {one['class_id']} ({one.get('name', '')}): F1 {one['f1']:.3f}, "
                         f"precision {one['precision']:.3f}, recall {one['recall']:.3f} on {one['n_true']}")
    origin = card.training.get("started_from")
    if origin:
        lines.append(f"round               {card.training.get('round')}, from {origin.get('file')} (round "
                     f"{origin.get('round')}, SHA-256 {str(origin.get('sha256'))[:16]})")
    if card.training.get("verdict"):
        lines.append(f"verdict             {card.training['verdict'].get('text', '')}")
    lines += [f"warning             {text}" for text in card.warnings]
    return "\n".join([*lines, f"seed                {card.seed}"]) + "\n"


def _short(value: Any) -> str:
    """Return a value on one line, numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_short(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(v) for v in value)
    return str(value)
