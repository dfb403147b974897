"""How large particles look: shapes of all kinds, with the right diameter and with wrong ones."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from deepetpicker.checking.density import look
from deepetpicker.io.volumes import Volume, open_volume, write_volume
from deepetpicker.simulation import imaging, packing
from deepetpicker.simulation.particles import from_phantom
from deepetpicker.simulation.phantoms import phantom

VOXEL_ANG = 18.0
SHAPE = (48, 100, 104)


@pytest.fixture(scope="module", params=["tripod", "rod", "capsid", "ribosome"])
def seen(request, tmp_path_factory):
    """Return a tomogram with particles of one shape, their positions and their largest extent in angstrom."""
    particle = from_phantom(phantom(request.param), VOXEL_ANG)
    scene = packing.pack(SHAPE, VOXEL_ANG, [particle], [20], np.random.default_rng(0), 2, 0)
    angles = imaging.tilt_angles_deg(60, 6)
    tomogram = imaging.reconstruct(scene.density_zyx, VOXEL_ANG, angles, imaging.Microscope(defocus_um=3.0, snr=0.3),
                                   np.random.default_rng(1))
    path = tmp_path_factory.mktemp("shape") / "tomo.mrc"
    write_volume(path, tomogram, VOXEL_ANG)
    return open_volume(path), np.array([one.position_zyx_vox for one in scene.placements]), particle.diameter_ang


@pytest.mark.long
def test_right_diameter_is_not_doubted_whatever_the_shape(seen):
    volume, positions, diameter = seen
    found = look(volume, positions, diameter)
    assert not found.is_misjudged
    assert found.diameter_ang == pytest.approx(diameter, rel=0.35)


@pytest.mark.long
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_half_and_twice_the_diameter_are_told(seen, factor):
    volume, positions, diameter = seen
    found = look(volume, positions, factor * diameter)
    assert found.is_misjudged
    assert f"{factor * diameter:.0f} were given" in str(found)


def test_grey_values_of_any_mean_and_scale_say_the_same():
    """In a tomogram of bytes about 127 particles of the right diameter looked less than half as large."""
    rng, shape = np.random.default_rng(5), (36, 60, 64)
    places, voxels = rng.uniform(8, [28, 52, 56], (20, 3)), rng.normal(size=shape)
    for place in places:  # shells around an inside of the other contrast
        radius = np.sqrt(sum((a - c) ** 2 for a, c in zip(np.indices(shape), place)))
        voxels += 1.5 * ((radius < 6) - 2.2 * (radius < 3))
    plain, bytes_ = (look(Volume("TS_1", pathlib.Path("TS_1.mrc"), values.astype(np.float32), 10.0), places, 120.0)
                     for values in (voxels, 20 * voxels + 127))
    assert plain.diameter_ang == pytest.approx(120, rel=0.2)
    assert (bytes_.contrast, bytes_.diameter_ang) == pytest.approx((plain.contrast, plain.diameter_ang), rel=0.01)


def test_places_without_particles_tell_nothing(tmp_path):
    noise = np.random.default_rng(3).normal(size=(40, 60, 64)).astype(np.float32)
    write_volume(tmp_path / "noise.mrc", noise, VOXEL_ANG)
    places = np.random.default_rng(4).uniform(5, 35, (20, 3))
    found = look(open_volume(tmp_path / "noise.mrc"), places, 200.0)
    assert (found.contrast, found.diameter_ang, found.is_misjudged) == (0.0, 0.0, False)
