"""DeepETPicker: pick particles in cryo-electron tomograms with a 3D-ResUNet trained on a few labelled centres.

The functions named like the commands (``simulate``, ``propose``, ``check``, ``train``, ``refine``, ``pick``,
``evaluate``, ``info``, ``import_reference``, ``convert``) are loaded when first used, so that ``import deepetpicker``
loads neither torch nor scipy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "simulate": "deepetpicker.simulation",
    "propose": "deepetpicker.proposing.run",
    "check": "deepetpicker.checking.run",
    "train": "deepetpicker.training.run",
    "refine": "deepetpicker.training.run",
    "pick": "deepetpicker.picking.run",
    "evaluate": "deepetpicker.report.run",
    "info": "deepetpicker.io.modelcard",
    "import_reference": "deepetpicker.network.reference",
    "convert": "deepetpicker.io.coordinates",
    "study": "deepetpicker.studying",
    "benchmark": "deepetpicker.benchmarking",
}

__all__ = [*_VERBS]


def __getattr__(name: str) -> Any:
    """Return the function of a command, importing its module at first use."""
    if name in _VERBS:
        return getattr(importlib.import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'deepetpicker' has no attribute {name!r}")
