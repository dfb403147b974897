"""Candidates by the model that comes with the package, in tomograms brought to the scale it knows."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Tuple

import numpy as np

from deepetpicker.config import PickOptions, ProposeOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume
from deepetpicker.network.generic import ACROSS_VOX, for_diameter, load_generic
from deepetpicker.picking.picker import Picker
from deepetpicker.preparation.scene import Scene

FLOOR = 0.02  # score below which a candidate is none
SMALLEST_VOX = 10.0  # diameter in voxels below which the model knows nothing of a particle


class GenericFinder:
    """Finds candidates for particles of one diameter, one tomogram after the other.

    Parameters
    ----------
    options : ProposeOptions
        Diameter and contrast.
    """

    def __init__(self, options: ProposeOptions) -> None:
        self.options = options
        self.warnings: List[str] = []
        self._pickers: Dict[Tuple[str, float], Picker] = {}

    def __call__(self, volume: Volume, scene: Scene, most: int) -> CoordinateTable:
        """Return at most so many candidates of class 1, best first, in the tomogram's voxels.

        Parameters
        ----------
        volume : Volume
            The tomogram.
        scene : Scene
            The same where blobs are looked for: whether particles are dark or bright is taken from it.
        most : int
            Largest number of candidates, >= 1.

        Raises
        ------
        InputError
            If a particle has fewer than 10 voxels across.
        """
        diameter_ang = self.options.diameter_angstrom
        if not self.knows(volume):
            raise InputError(f"{volume.name}: expected a particle of at least {SMALLEST_VOX:g} voxels across, got "
                             f"{diameter_ang:g} angstrom at {volume.voxel_size_ang:g} angstrom/voxel: check both, use "
                             "a less binned tomogram, or --method blob")
        contrast = self.options.contrast
        if contrast == "auto":
            contrast = scene.contrast
        picker = self._picker(contrast, max(diameter_ang / ACROSS_VOX, volume.voxel_size_ang))
        found = picker.candidates(volume)
        return found.select(np.arange(min(most, len(found))))

    def knows(self, volume: Volume) -> bool:
        """Tell whether a particle has enough voxels across in a tomogram."""
        return self.options.diameter_angstrom >= SMALLEST_VOX * volume.voxel_size_ang

    def _picker(self, contrast: str, voxel_size_ang: float) -> Picker:
        """Return the generic model as a picker for a contrast and a working voxel size."""
        key = (contrast, voxel_size_ang)
        if key not in self._pickers:
            network, card = load_generic(contrast == "bright")
            card = for_diameter(card, ParticleClass(1, "particle", self.options.diameter_angstrom))
            card = dataclasses.replace(card, voxel_size_ang=voxel_size_ang)
            self._pickers[key] = Picker((network, card), PickOptions(floor=FLOOR), quiet=True)
        return self._pickers[key]
