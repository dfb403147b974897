"""The model card as people and other programs read it."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Dict, Mapping, Union

from deepetpicker.calibration import scores_are
from deepetpicker.io.modelcard.card import ModelCard
from deepetpicker.io.modelcard.header import JUDGED, read_card, read_header
from deepetpicker.terminal import printable

PathLike = Union[str, "os.PathLike[str]"]


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
    content["parameters"] = sum(math.prod(map(int, t.get("shape", []))) for name, t in directory.items()
                                if not name.startswith(JUDGED))
    content["path"] = str(path)
    return content


def format_info(card: ModelCard) -> str:
    """Return the model card as text for people, lengths in angstrom and in working voxels; safe to show."""
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
        lines.append(f"       {scores_are(one.calibration)}; picks are at least {one.least_distance_ang:.4g} angstrom "
                     "apart")
    told = ("picks", "items", "seen", "verdict", "round", "started_from", "refit")
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
    if card.is_refitted:
        lines.append(f"refit               went on with these, too: {card.training['refit']['particles']} particles")
    origin = card.training.get("started_from")
    if origin:
        lines.append(f"round               {card.training.get('round')}, from {origin.get('file')} (round "
                     f"{origin.get('round')}, SHA-256 {str(origin.get('sha256'))[:16]})")
    if card.training.get("verdict"):
        lines.append(f"verdict             {card.training['verdict'].get('text', '')}")
    lines += [f"warning             {text}" for text in card.warnings]
    return "\n".join(map(printable, [*lines, f"seed                {card.seed}"])) + "\n"


def _short(value: Any) -> str:
    """Return a value on one line, numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_short(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(v) for v in value)
    return str(value)
