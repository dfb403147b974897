"""Where candidates and their features come from: one small interface, so that another look can take its place."""

from __future__ import annotations

from typing import Any, Dict, Optional, Protocol, Tuple

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.io.volumes import Volume
from deepetpicker.proposing.blobs import Scene, find_blobs
from deepetpicker.proposing.features import features_at, n_features
from deepetpicker.proposing.generic import GenericFinder


class FeatureSource(Protocol):
    """What finds candidates in tomograms, and says of any place what it looks like."""

    def how(self) -> Dict[str, Any]:
        """Return what decides candidates and features beside the tomogram, JSON-ready: what is kept is told by it."""

    def candidates(self, tomogram: Volume) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) in the tomogram's voxels and scores (N,), the most conspicuous first."""

    def features(self, tomogram: Volume, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the features (N, F) float32 of positions (N, 3) in the tomogram's voxels."""


class BlobSource:
    """Blobs of the particle's size, described by shells about them.

    Parameters
    ----------
    options : ProposeOptions
        Diameter, number of candidates, contrast.
    """

    def __init__(self, options: ProposeOptions) -> None:
        self.options = options
        self._scene: Optional[Tuple[str, Scene]] = None

    def how(self) -> Dict[str, Any]:
        """Return what decides candidates and features beside the tomogram."""
        return {"source": f"blobs, {n_features()} features of shells", "contrast": self.options.contrast,
                "diameter_angstrom": self.options.diameter_angstrom, "most": self.options.most}

    def candidates(self, tomogram: Volume) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) in the tomogram's voxels and scores (N,), the most conspicuous first."""
        table = find_blobs(self._prepared(tomogram), self.options.most, self.options.contrast)
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


class GenericSource(BlobSource):
    """What the generic model takes for particles, described by shells about them.

    Parameters
    ----------
    options : ProposeOptions
        Diameter, number of candidates, contrast.
    """

    def __init__(self, options: ProposeOptions) -> None:
        super().__init__(options)
        self._finder = GenericFinder(options)

    def how(self) -> Dict[str, Any]:
        """Return what decides candidates and features beside the tomogram."""
        return {**super().how(), "source": f"generic model, {n_features()} features of shells"}

    def candidates(self, tomogram: Volume) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) in the tomogram's voxels and scores (N,), the most likely first."""
        table = self._finder(tomogram, self._prepared(tomogram), self.options.most)
        return table.positions_zyx_vox, table.scores


def source_of(options: ProposeOptions) -> FeatureSource:
    """Return the source of candidates and features that options name; a map is not learnt for it, blobs do."""
    return GenericSource(options) if options.method == "generic" else BlobSource(options)
