"""Candidates from the particle's own density map: tomograms with it are simulated, a model is trained, and it picks."""

from __future__ import annotations

import pathlib
from typing import List, Optional

import numpy as np

from deepetpicker.config import PickOptions, ProposeOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import Volume, write_volume
from deepetpicker.network.generic import ACROSS_VOX
from deepetpicker.picking.picker import Picker
from deepetpicker.preparation.scene import Scene
from deepetpicker.simulation.particles import from_map
from deepetpicker.simulation.varied import random_kinds, varied_tomogram
from deepetpicker.terminal import progress
from deepetpicker.verdict import GOOD

N_TOMOGRAMS, N_HELD_OUT = 10, 2
DEPTH_VOX, WIDTH_VOX = 3.2, 8.0  # of the simulated tomograms, in particle diameters
MOST_PARTICLES = 20
ALIKE, SMALLER, LARGER = (0.6, 1.4), (0.2, 0.45), (1.7, 2.5)  # extents of the strangers, in particle diameters


class MapFinder:
    """Finds the particle of a density map.

    Parameters
    ----------
    options : ProposeOptions
        Diameter, map, minutes of training, contrast.
    folder : path
        Gets ``from_map.safetensors``, which picks other tomograms too, and in ``simulated`` what it was trained on.
    quiet : bool
        True shows no progress.

    Attributes
    ----------
    warnings : list of str
        What the training says against its model.

    Raises
    ------
    InputError
        If there is no map, or it cannot be used.
    """

    def __init__(self, options: ProposeOptions, folder: pathlib.Path, quiet: bool = False) -> None:
        if not options.map:
            raise InputError("expected the particle's density map (--map MAP.mrc) for the method 'map', got none")
        from_map(options.map, options.diameter_angstrom / ACROSS_VOX)  # a bad one is told before anything is simulated
        self.options, self.folder, self.quiet = options, folder, quiet
        self.warnings: List[str] = []
        self.model = folder / "from_map.safetensors"
        self._picker: Optional[Picker] = None

    def __call__(self, volume: Volume, scene: Scene, most: int) -> CoordinateTable:
        """Return at most so many candidates of class 1, best first, in the tomogram's voxels.

        Parameters
        ----------
        volume : Volume
            The tomogram; the first one gives the voxel size and, with contrast ``"auto"``, whether particles are dark.
        scene : Scene
            The same where blobs are looked for.
        most : int
            Largest number of candidates, >= 1.
        """
        if self._picker is None:
            contrast = self.options.contrast
            contrast = scene.contrast if contrast == "auto" else contrast
            voxel = max(self.options.diameter_angstrom / ACROSS_VOX, volume.voxel_size_ang)
            self._train(voxel, contrast == "bright")
            self._picker = Picker(self.model, PickOptions(), quiet=True)
        found = self._picker.candidates(volume)
        return found.select(np.arange(min(most, len(found))))

    def _train(self, voxel_size_ang: float, is_bright: bool) -> None:
        """Simulate tomograms with the particle at a voxel size in angstrom, and train on them."""
        from deepetpicker.training.run import train  # seconds that nobody else waits for: it brings Lightning

        data, name = self.folder / "simulated", pathlib.Path(self.options.map).stem
        data.mkdir(parents=True, exist_ok=True)
        write_classes(data, [ParticleClass(1, name, self.options.diameter_angstrom)], voxel_size_ang)
        with progress(N_TOMOGRAMS, "simulating the map's particle", "tomogram", self.quiet) as bar:
            for index in range(N_TOMOGRAMS):
                self._simulate(data, index, voxel_size_ang, is_bright)
                bar.update()
        held_out = tuple(f"simulated_{k}" for k in range(N_TOMOGRAMS - N_HELD_OUT, N_TOMOGRAMS))
        made = train(data, self.model, TrainOptions(minutes=self.options.minutes, validation=held_out, check=False,
                                                    seed=self.options.seed), self.quiet)
        verdict = made["outputs"]["verdict"]
        if verdict["grade"] != GOOD:
            self.warnings.append(f"the model made from {self.options.map} is {verdict['text']}")

    def _simulate(self, data: pathlib.Path, index: int, voxel_size_ang: float, is_bright: bool) -> None:
        """Write a simulated tomogram and its table."""
        rng = np.random.default_rng([self.options.seed, index])
        wanted, across = from_map(self.options.map, voxel_size_ang), self.options.diameter_angstrom
        strangers = [one for extents, n in ((ALIKE, int(rng.integers(1, 4))), (SMALLER, int(rng.integers(0, 3))),
                                            (LARGER, int(rng.random() < 0.4)))
                     for one in random_kinds(rng, extents, n, across, voxel_size_ang)]
        side, depth = (8 * round(n * max(across, wanted.diameter_ang) / voxel_size_ang / 8)
                       for n in (WIDTH_VOX, DEPTH_VOX))
        tomogram, centres = varied_tomogram(rng, (depth, side, side), voxel_size_ang, [wanted],
                                            [int(rng.integers(MOST_PARTICLES // 2, MOST_PARTICLES))], strangers)
        write_coordinates(data / f"simulated_{index}.csv", CoordinateTable.from_positions(centres))
        write_volume(data / f"simulated_{index}.mrc", -tomogram if is_bright else tomogram, voxel_size_ang)
