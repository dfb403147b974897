"""The frame, the two grids and the choice of the working scale.

Everywhere in the engine a position is (z, y, x), 0-based, and an integer is a voxel's centre. The *input grid* is the
tomogram's; the *working grid* is what the network sees. Both fill the same box, so voxel ``w`` of the working grid has
its centre at ``(w + 0.5) * factor - 0.5`` of the input grid, where ``factor`` is working over input voxel size.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError

Shape = Tuple[int, int, int]

SMALLEST_VOX, LARGEST_VOX = 4.0, 64.0
ADVISED_VOX = (7.0, 40.0)


def working_voxel_size(diameters_ang: Sequence[float], voxel_size_ang: float, working_diameter_vox: float) -> float:
    """Return the voxel size at which the network works, in angstrom.

    The smallest class gets ``working_diameter_vox`` voxels. A tomogram that is coarser than that is never up-sampled,
    and a change of less than a tenth is not worth an interpolation: then the tomogram's own voxel size is returned.

    Parameters
    ----------
    diameters_ang : sequence of float
        Particle diameters in angstrom, one or more.
    voxel_size_ang : float
        Voxel size of the tomogram in angstrom; of several tomograms the coarsest.
    working_diameter_vox : float
        Wanted diameter of the smallest class, in voxels.

    Raises
    ------
    InputError
        If the smallest particle would have fewer than 4 voxels, or the largest more than 64: a wrong unit.
    """
    if not diameters_ang:
        raise InputError("expected at least one particle diameter in angstrom, got none: give --diameter-angstrom")
    small, large = min(diameters_ang), max(diameters_ang)
    voxel_ang = small / working_diameter_vox
    if voxel_ang < voxel_size_ang * 1.1:
        voxel_ang = voxel_size_ang
    check_working_diameter(small, voxel_ang)
    check_working_diameter(large, voxel_ang)
    return voxel_ang


def check_working_diameter(diameter_ang: float, voxel_size_ang: float) -> float:
    """Return the diameter in working voxels; raise InputError outside 4 to 64 voxels.

    Parameters
    ----------
    diameter_ang : float
        Particle diameter in angstrom.
    voxel_size_ang : float
        Working voxel size in angstrom.
    """
    diameter_vox = diameter_ang / voxel_size_ang
    if not SMALLEST_VOX <= diameter_vox <= LARGEST_VOX:
        raise InputError(
            f"a particle of {diameter_ang:g} angstrom has {diameter_vox:.1f} voxels at {voxel_size_ang:g} "
            f"angstrom/voxel, expected {SMALLEST_VOX:g} to {LARGEST_VOX:g}: the diameter must be in angstrom (not "
            "voxels, not nm), and the voxel size that of the tomogram")
    return diameter_vox


def check_resampling(voxel_size_ang: float, working_voxel_ang: float, most: float, name: str) -> None:
    """Raise InputError when a tomogram would be made coarser by more than a factor: a wrong voxel size looks like that.

    Parameters
    ----------
    voxel_size_ang, working_voxel_ang : float
        Voxel sizes of the tomogram and of the working grid, in angstrom.
    most : float
        The largest factor.
    name : str
        Name of the tomogram.
    """
    factor = working_voxel_ang / voxel_size_ang
    if factor > most * 1.001:
        raise InputError(f"{name}: {voxel_size_ang:.4g} angstrom per voxel would be resampled to "
                         f"{working_voxel_ang:.4g}, {factor:.3g} times coarser, expected at most {most:g} times: check "
                         "the voxel size (--voxel-size), use a binned tomogram, or allow it with --max-resampling")


@dataclasses.dataclass(frozen=True)
class WorkingGrid:
    """The mapping between a tomogram's voxels and the voxels the network sees.

    Attributes
    ----------
    input_shape_zyx : (3,) int
        Shape of the tomogram.
    input_voxel_ang, working_voxel_ang : float
        Voxel sizes in angstrom; the working one is the larger or equal.
    """

    input_shape_zyx: Shape
    input_voxel_ang: float
    working_voxel_ang: float

    @property
    def factor(self) -> float:
        """Working over input voxel size; 1 within a thousandth is exactly 1."""
        factor = self.working_voxel_ang / self.input_voxel_ang
        return 1.0 if abs(factor - 1) < 1e-3 else factor

    @property
    def shape_zyx(self) -> Shape:
        """Shape of the working grid (3,): it covers the whole tomogram, the last voxel possibly beyond its edge."""
        z, y, x = (max(1, math.ceil(n / self.factor - 1e-6)) for n in self.input_shape_zyx)
        return z, y, x

    def to_working(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return input positions (N, 3) as working positions (N, 3), float64, not rounded."""
        return (np.asarray(positions_zyx_vox, float) + 0.5) / self.factor - 0.5

    def to_input(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return working positions (N, 3) as input positions (N, 3), float64, not rounded."""
        return (np.asarray(positions_zyx_vox, float) + 0.5) * self.factor - 0.5
