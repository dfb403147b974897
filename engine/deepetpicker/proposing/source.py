"""Where candidates and their features come from: one small interface, so that another look can take its place."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, List, Optional, Protocol, Tuple

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.scene import Scene
from deepetpicker.proposing.blobs import BlobFinder
from deepetpicker.proposing.features import features_at, n_features
from deepetpicker.proposing.frommap import MapFinder
from deepetpicker.proposing.generic import GenericFinder


class Finder(Protocol):
    """What finds candidates.

    Attributes
    ----------
    warnings : list of str
        What speaks against all it has found.
    """

    warnings: List[str]

    def __call__(self, volume: Volume, scene: Scene, most: int) -> CoordinateTable:
        """Return at most so many candidates of class 1 of a tomogram, best first, in its voxels."""


class FeatureSource(Protocol):
    """What finds candidates in tomograms, and says of any place what it looks like."""

    def how(self) -> Dict[str, Any]:
        """Return what decides candidates and features beside the tomogram, JSON-ready: what is kept is told by it."""

    def candidates(self, tomogram: Volume) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) in the tomogram's voxels and scores (N,), the most conspicuous first."""

    def features(self, tomogram: Volume, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the features (N, F) float32 of positions (N, 3) in the tomogram's voxels."""


class SceneSource:
    """Candidates of a finder, described by shells about them.

    Parameters
    ----------
    options : ProposeOptions
        Method (``"generic"`` or ``"blob"``), diameter, number of candidates, contrast.
    """

    def __init__(self, options: ProposeOptions) -> None:
        self.options = options
        self._blobs, self._generic = BlobFinder(options), GenericFinder(options)
        self._scene: Optional[Tuple[str, Scene]] = None

    def how(self) -> Dict[str, Any]:
        """Return what decides candidates and features beside the tomogram."""
        return {"source": f"{self.options.method}, {n_features()} features of shells",
                "contrast": self.options.contrast, "diameter_angstrom": self.options.diameter_angstrom,
                "most": self.options.most}

    def candidates(self, tomogram: Volume) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) in the tomogram's voxels and scores (N,), the likeliest first.

        Where a particle is too small for the generic model they are blobs: a window has nobody to ask for the method.
        """
        is_generic = self.options.method == "generic" and self._generic.knows(tomogram)
        finder: Finder = self._generic if is_generic else self._blobs
        table = finder(tomogram, self._prepared(tomogram), self.options.most)
        return table.positions_zyx_vox, table.scores

    def features(self, tomogram: Volume, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the features (N, F) float32 of positions (N, 3) in the tomogram's voxels."""
        return features_at(self._prepared(tomogram), np.asarray(positions_zyx_vox, float).reshape(-1, 3))

    def _prepared(self, tomogram: Volume) -> Scene:
        """Return a tomogram prepared; the last one stays so."""
        if self._scene is None or self._scene[0] != tomogram.name:
            self._scene = None  # one at a time is in memory
            self._scene = (tomogram.name, Scene.open(tomogram, self.options.diameter_angstrom))
        return self._scene[1]


def finder_of(options: ProposeOptions, folder: pathlib.Path, quiet: bool) -> Finder:
    """Return what finds candidates by the method that options name; a model made from a map goes to the folder."""
    if options.method == "map":
        return MapFinder(options, folder, quiet)
    return GenericFinder(options) if options.method == "generic" else BlobFinder(options)
