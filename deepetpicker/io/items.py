"""Which tomogram goes with which coordinates: data folders, parameter files and particle classes."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import pathlib
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from deepetpicker.config import suggestion
from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import write_text

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

TOMOGRAM_SUFFIXES = (".mrc", ".rec", ".map")
CLASSES_FILE = "classes.json"


@dataclasses.dataclass(frozen=True)
class DataItem:
    """One tomogram and what belongs to it; all names are opaque.

    Parameters
    ----------
    name : str
        Unique name of the tomogram.
    tomogram, coordinates, mask : str
        Paths; empty when there is none.
    voxel_size_ang : float
        Voxel size in angstrom; 0 reads the header.
    """

    name: str
    tomogram: str
    coordinates: str = ""
    voxel_size_ang: float = 0.0
    mask: str = ""


@dataclasses.dataclass(frozen=True)
class ParticleClass:
    """A kind of particle: id (>= 1), name and diameter in angstrom (0 when unknown)."""

    id: int
    name: str
    diameter_ang: float = 0.0
