"""Random assemblies: as large as asked, in one piece, centred, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepetpicker.simulation.assemblies import FAMILIES, random_phantom
from deepetpicker.simulation.particles import extent_vox
from deepetpicker.simulation.shapes import MASK_LEVEL

VOXEL_ANG = 10.0


@pytest.mark.parametrize("diameter_ang", [110.0, 200.0, 380.0])
def test_is_as_large_as_asked_and_centred(diameter_ang: float) -> None:
    """The largest extent is the diameter to a voxel or two, and the centre of mass the centre of the cube."""
    for seed in range(2):
        density = random_phantom(np.random.default_rng(seed), diameter_ang).density(VOXEL_ANG)
        assert extent_vox(density > MASK_LEVEL) * VOXEL_ANG == pytest.approx(diameter_ang, abs=3 * VOXEL_ANG)
        centre = np.array(ndimage.center_of_mass(density))
        assert np.abs(centre - (density.shape[0] - 1) / 2).max() < 0.6


def test_same_seed_same_assembly_other_seed_another() -> None:
    """The generator decides everything."""
    first, again, other = (random_phantom(np.random.default_rng(s), 200.0).density(VOXEL_ANG) for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.long
def test_every_family_is_drawn() -> None:
    """Blobs, rods, rings, shells and helices all occur."""
    rng = np.random.default_rng(1)
    seen = {random_phantom(rng, 200.0).description for _ in range(25)}
    assert len(seen) >= len(FAMILIES) - 3
