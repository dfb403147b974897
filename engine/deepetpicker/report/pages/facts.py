"""What went into a run, as the pages of trainings and picks say it."""

from __future__ import annotations

import os
from typing import Any, List, Mapping, Optional, Tuple

from deepetpicker.calibration import scores_are
from deepetpicker.config import Options
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.report.pages.crops import Tomograms
from deepetpicker.report.pages.markup import duration
from deepetpicker.report.sources import Place

Facts = List[Tuple[str, str, bool]]


def place_cells(place: Place, path: str) -> List[str]:
    """Return size, voxel size and path of a tomogram as cells."""
    size = " x ".join(str(n) for n in place.shape_zyx[::-1]) if place.shape_zyx else "-"
    return [size, f"{place.voxel_size_ang:.4g}" if place.voxel_size_ang else "-",
            short_path(place.path) or (f"{path} (not there)" if path else "-")]


def short_path(path: str) -> str:
    """Return a path as it is from here, where it lies below: in a project all paths are so."""
    here = os.path.join(os.getcwd(), "")
    return path[len(here):] if path.startswith(here) else path


def said_of_missing(opener: Tomograms) -> str:
    """Return what the page says of tomograms whose crops cannot be shown; empty when there are none."""
    if not opener.missing:
        return ""
    names = list(opener.missing)
    some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"Not shown: {some}, which cannot be read ({opener.missing[names[0]]}); --tomograms says where they are."


def model_facts(card: Optional[ModelCard]) -> Facts:
    """Return what a model says about itself as name, value and whether it stands out."""
    if card is None:
        return []
    training = card.training
    made = card.created.replace("T", " ") or "at an unknown time"
    rows = [("made", f"{made} by version {card.version or 'unknown'}"),
            ("works at", f"{card.voxel_size_ang:.4g} Å per voxel, on patches of {card.patch_vox} voxels"),
            ("network", ", ".join(f"{key} {_short(value)}" for key, value in card.network.items())),
            ("label", card.label), ("normalisation", card.normalisation), ("seed", str(card.seed))]
    rows += [(f"scores of {one.name}", scores_are(one.calibration)) for one in card.classes]
    if training.get("tomograms"):
        rows.append(("trained on", ", ".join(map(str, training["tomograms"]))))
    if training.get("validation"):
        rows.append(("validated on", ", ".join(map(str, training["validation"]))))
    if training.get("refit"):
        refit = training["refit"]
        rows.append(("then went on with" if card.is_refitted else "not kept: went on with",
                     f"all {refit.get('particles')} particles, {refit.get('new')} of them held out until then"))
    if training.get("verdict"):
        rows.append(("verdict", str(training["verdict"].get("text", ""))))
    rows += [(str(key), _short(value)) for key, value in card.notes.items()]
    return [(name, value, False) for name, value in rows if value]


def option_facts(defaults: Options, options: Mapping[str, Any]) -> Facts:
    """Return the options of a run, those that are not the default marked."""
    usual = defaults.to_dict()
    return [(name.replace("_", " "), _short(value) or "-", _short(value) != _short(usual.get(name)))
            for name, value in options.items()]


def run_facts(manifest: Mapping[str, Any]) -> Facts:
    """Return when, where and how a command ran."""
    if not manifest:
        return []
    machine = manifest.get("machine") or {}
    rows = [("version", manifest.get("version")), ("started", str(manifest.get("started", "")).replace("T", " ")),
            ("time", duration(manifest.get("seconds"))),
            ("device", (manifest.get("outputs") or {}).get("device")), ("platform", machine.get("platform")),
            ("processors", machine.get("cpu_count")), ("Python", machine.get("python")),
            ("torch", machine.get("torch")),
            ("command", " ".join(["deepetpicker", *map(str, manifest.get("argv", [])[1:])]))]
    return [(name, str(value), False) for name, value in rows if value]


def _short(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_short, value))
    return str(value)
