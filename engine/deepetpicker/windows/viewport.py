"""Which part of a tomogram the linked views show: one centre and one scale for all of them, and where they stand."""

from __future__ import annotations

import dataclasses
from typing import Dict, Sequence, Tuple

import numpy as np

from deepetpicker.windows.scene import AXES

Rectangle = Tuple[int, int, int, int]  # left, bottom, width, height in pixels
GAP_PX = 6
LEAST_SIDE = 0.22
MOST_PX_PER_VOXEL = 40.0
STEP = 1.25


@dataclasses.dataclass
class Viewport:
    """What is seen of a tomogram.

    Parameters
    ----------
    shape_zyx : tuple of int
        Shape of the tomogram in voxels.
    size_px : tuple of int
        Width and height of the canvas.
    cuts : tuple of int
        Axes that are cut: ``(0,)`` for one view, ``(0, 1, 2)`` for three.
    """

    shape_zyx: Tuple[int, int, int]
    size_px: Tuple[int, int] = (100, 100)
    cuts: Tuple[int, ...] = (0, 1, 2)
    scale_px: float = 1.0

    def __post_init__(self) -> None:
        self.centre_zyx = (np.array(self.shape_zyx, float) - 1) / 2
        self.fit()

    def rectangles(self) -> Dict[int, Rectangle]:
        """Return where the view of each cut axis stands; 3 is the corner that no view needs."""
        width, height = self.size_px
        if len(self.cuts) == 1:
            return {self.cuts[0]: (0, 0, width, height)}
        z, y, x = self.shape_zyx
        side = max(z, LEAST_SIDE * max(x, y))
        scale = min((width - GAP_PX) / (x + side), (height - GAP_PX) / (y + side))
        aside = max(int(side * scale), 20)
        left, bottom = max(width - aside - GAP_PX, 20), aside + GAP_PX
        return {0: (0, bottom, left, max(height - bottom, 20)), 1: (0, 0, left, aside),
                2: (left + GAP_PX, bottom, aside, max(height - bottom, 20)), 3: (left + GAP_PX, 0, aside, aside)}

    @property
    def fitting_px(self) -> float:
        """Pixels per voxel at which everything is seen."""
        found = [1e9]
        for axis, (_, _, width, height) in self.rectangles().items():
            if axis in AXES:
                right, up = AXES[axis]
                found += [width / self.shape_zyx[right], height / self.shape_zyx[up]]
        return min(found)

    def resize(self, size_px: Tuple[int, int]) -> None:
        """Take another size of the canvas; what fitted before fits again."""
        fitted = self.scale_px <= self.fitting_px * 1.001
        self.size_px = size_px
        if fitted:
            self.fit()
        self._clamp()

    def fit(self) -> None:
        """Show everything."""
        self.scale_px = self.fitting_px
        self.centre_zyx = (np.array(self.shape_zyx, float) - 1) / 2

    def window(self, axis: int) -> Tuple[float, float, float, float]:
        """Return left, right, lower and upper edge of a view, in voxels."""
        _, _, width, height = self.rectangles()[axis]
        right, up = AXES[axis]
        a, b = width / self.scale_px / 2, height / self.scale_px / 2
        x, y = self.centre_zyx[right], self.centre_zyx[up]
        return float(x - a), float(x + a), float(y - b), float(y + b)

    def zoom(self, factor: float, at_zyx: Sequence[float]) -> None:
        """Enlarge by a factor and keep a point (z, y, x in voxels) where it is."""
        old = self.scale_px
        self.scale_px = float(np.clip(old * factor, self.fitting_px, max(MOST_PX_PER_VOXEL, self.fitting_px)))
        at = np.asarray(at_zyx, float)
        self.centre_zyx = at + (self.centre_zyx - at) * old / self.scale_px
        self._clamp()

    def show_band(self, axis: int, first: Tuple[float, float], second: Tuple[float, float]) -> None:
        """Show the rectangle between two points (right, up) of a view as large as it goes."""
        right, up = AXES[axis]
        _, _, width, height = self.rectangles()[axis]
        wide, high = (max(abs(a - b), 1.0) for a, b in zip(first, second))
        self.scale_px = float(np.clip(min(width / wide, height / high), self.fitting_px, MOST_PX_PER_VOXEL))
        self.centre_zyx[right], self.centre_zyx[up] = (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
        self._clamp()

    def pan(self, axis: int, shift_vox: Tuple[float, float]) -> None:
        """Move what a view shows by voxels to the right and upwards."""
        right, up = AXES[axis]
        self.centre_zyx[right] -= shift_vox[0]
        self.centre_zyx[up] -= shift_vox[1]
        self._clamp()

    def follow(self, position_zyx: Sequence[float], centred: bool = False) -> None:
        """Bring a point into view: only as far as needed, or into the middle."""
        if self.scale_px <= self.fitting_px * 1.001:
            return
        for axis in self.cuts:
            edges = self.window(axis)
            for place, (low, high) in zip(AXES[axis], (edges[:2], edges[2:])):
                if centred or not low <= position_zyx[place] <= high:
                    self.centre_zyx[place] = position_zyx[place]
        self._clamp()

    def _clamp(self) -> None:
        """Keep the centre inside the tomogram; what fits along an axis stays in the middle."""
        self.scale_px = max(self.scale_px, self.fitting_px)
        rectangles = self.rectangles()
        for axis in self.cuts:
            for place, pixels in zip(AXES[axis], rectangles[axis][2:]):
                if axis and place in (1, 2) and 0 in self.cuts:
                    continue  # the view of z says where y and x are
                half, count = pixels / self.scale_px / 2, self.shape_zyx[place]
                low, high = half - 0.5, count - 0.5 - half
                middle = (count - 1) / 2
                self.centre_zyx[place] = np.clip(self.centre_zyx[place], low, high) if low < high else middle
