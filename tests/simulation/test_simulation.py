"""Simulated tomograms: phantoms, packing, imaging and the data folder they end in."""

from __future__ import annotations

import argparse
import csv
import json
import math

import mrcfile
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepetpicker.cli import simulate as command
from deepetpicker.config import SimulateOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import read_classes
from deepetpicker.io.items import items_from_folder
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.simulation import imaging, packing, particles, phantoms, simulate
from deepetpicker.simulation.shapes import MASK_LEVEL, Ellipsoid, Tube

SHAPE = (24, 32, 40)
SMALL = SimulateOptions(phantoms=("cage", "barrel"), n=2, shape=(26, 40, 48), voxel_size=10.0, particles=6, snr=0.5,
                        gold=1, membranes=0, tilt_step=6.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, simulate(folder, SMALL, quiet=True)


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def blob(shape_zyx, centre_zyx_vox, sigma_vox=1.5):
    grid = np.indices(shape_zyx) - np.asarray(centre_zyx_vox)[:, None, None, None]
    return np.exp(-0.5 * (grid ** 2).sum(0) / sigma_vox ** 2).astype(np.float32)


def centre_of_peak(volume_zyx):
    """Place of the highest value of the cubic spline through the voxels, to 0.02 voxel."""
    peak = np.array(np.unravel_index(volume_zyx.argmax(), volume_zyx.shape), float)
    spline_zyx = ndimage.spline_filter(volume_zyx, order=3)
    for step in (0.2, 0.02):
        offsets = step * (np.indices((11, 11, 11)).reshape(3, -1) - 5)
        values = ndimage.map_coordinates(spline_zyx, peak[:, None] + offsets, order=3, prefilter=False)
        peak = peak + offsets[:, values.argmax()]
    return peak


# Phantoms


@pytest.mark.parametrize("name", phantoms.names())
def test_a_phantom_is_as_large_as_it_says_and_centred(name):
    phantom = phantoms.phantom(name)
    for voxel_size_ang in (5.0, 10.0):
        density_zyx = phantom.density(voxel_size_ang)
        size = density_zyx.shape[0]
        assert density_zyx.dtype == np.float32
        assert density_zyx.shape == (size, size, size)
        assert size % 2 == 1
        extent_ang = particles.extent_vox(density_zyx > MASK_LEVEL) * voxel_size_ang
        assert extent_ang == pytest.approx(phantom.diameter_ang, abs=1.2 * voxel_size_ang)
        middle = (size - 1) / 2
        off_vox = np.array(ndimage.center_of_mass(density_zyx)) - middle
        assert np.abs(off_vox).max() * voxel_size_ang < 0.3
        assert 0.9 < density_zyx.max() <= 1
        distance = np.sqrt((np.indices(density_zyx.shape) - middle).astype(float) ** 2).max(0)
        assert density_zyx[distance >= middle].max() < 1e-3


def test_phantoms_differ_in_size_and_symmetry():
    known = [phantoms.phantom(name) for name in phantoms.names()]
    diameters_ang = [p.diameter_ang for p in known]
    assert len(known) >= 5
    assert diameters_ang == sorted(diameters_ang)
    assert diameters_ang[0] < 130
    assert 250 < diameters_ang[-1] <= 300
    assert {p.symmetry for p in known} >= {"C1", "D7", "O", "I"}


@pytest.mark.parametrize("name", [n for n in phantoms.names() if phantoms.phantom(n).symmetry != "C1"])
def test_a_phantom_has_the_symmetry_it_claims_and_no_other(name):
    phantom = phantoms.phantom(name)
    density_zyx = phantom.density(5.0)
    centre = (np.array(density_zyx.shape) - 1) / 2

    def likeness(rotation):
        matrix = rotation.as_matrix()[::-1, ::-1]
        turned = ndimage.affine_transform(density_zyx, matrix, offset=centre - matrix @ centre, order=3)
        return np.corrcoef(turned.ravel(), density_zyx.ravel())[0, 1]

    group = Rotation.create_group(phantom.symmetry)
    assert min(likeness(group[i]) for i in (1, len(group) // 2, len(group) - 1)) > 0.995
    assert likeness(Rotation.from_rotvec([0.5, 0.3, 0.2])) < 0.985


@pytest.mark.parametrize("name", phantoms.names())
def test_a_phantom_is_one_piece(name):
    assert ndimage.label(phantoms.phantom(name).density(4.0) > MASK_LEVEL)[1] == 1


def test_mass_does_not_depend_on_the_voxel_size():
    phantom = phantoms.phantom("tripod")
    fine, coarse = (phantom.density(v).sum() * v ** 3 for v in (4.0, 12.0))
    assert coarse == pytest.approx(fine, rel=0.02)


def test_distances_to_parts():
    ball = Ellipsoid(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0]), np.eye(3))
    np.testing.assert_allclose(ball.distance_ang(np.array([[1, 2, 3], [1, 2, 8], [1, 9, 3.0]])), [-5, 0, 2])
    tube = Tube(np.array([[0.0, 0, 0], [0, 0, 10]]), 2.0)
    np.testing.assert_allclose(tube.distance_ang(np.array([[0, 0, 5], [0, 3, 5], [0, 0, 14.0]])), [-2, 1, 2])
    low, high = tube.bounds_zyx_ang()
    np.testing.assert_allclose([low, high], [[-2, -2, -2], [2, 2, 12]])


def test_unknown_phantoms_and_voxel_sizes_are_refused():
    with pytest.raises(InputError, match="did you mean 'capsid'"):
        phantoms.phantom("capsids")
    with pytest.raises(InputError, match="> 0 angstrom"):
        phantoms.phantom("cage").density(0.0)


# Particles from maps


def test_a_map_becomes_a_particle_at_the_simulations_voxel_size(tmp_path):
    volume_zyx = np.zeros((40, 44, 50), np.float32)
    volume_zyx[10:26, 12:24, 20:30] = 3.0
    volume_zyx[2, 2, 2] = 3.0  # dust
    volume_zyx += np.random.default_rng(0).normal(0, 0.05, volume_zyx.shape).astype(np.float32)
    write_volume(tmp_path / "brick.mrc", volume_zyx, 5.0)
    particle = particles.from_map(tmp_path / "brick.mrc", 10.0)
    corner_to_corner_ang = 5.0 * (math.sqrt(15 ** 2 + 11 ** 2 + 9 ** 2) + 1)
    assert particle.name == "brick"
    assert particle.diameter_ang == pytest.approx(corner_to_corner_ang, abs=8)
    size = particle.density_zyx.shape[0]
    np.testing.assert_allclose(ndimage.center_of_mass(particle.density_zyx), (size - 1) / 2, atol=0.05)
    assert particle.density_zyx.sum() == pytest.approx(16 * 12 * 10 / 8, rel=0.05)
    assert 16 * 12 * 10 / 8 <= particle.mask_zyx.sum() <= 18 * 14 * 12 / 8  # the low level takes in the soft edge


def test_unusable_maps_say_why(tmp_path):
    dark = 1 - blob(SHAPE, (12, 16, 20), 3)
    write_volume(tmp_path / "dark.mrc", dark, 5.0)
    write_volume(tmp_path / "flat.mrc", np.ones(SHAPE, np.float32), 5.0)
    write_volume(tmp_path / "bare.mrc", 1 - dark, 0.0)
    for name, reason in (("dark", "invert its contrast"), ("flat", "constant"), ("bare", "voxel size in the header")):
        with pytest.raises(InputError, match=reason):
            particles.from_map(tmp_path / f"{name}.mrc", 10.0)


@pytest.mark.long
def test_masks_hold_the_centre_of_shells_and_rings():
    for name in phantoms.names():
        particle = particles.from_phantom(phantoms.phantom(name), 10.0)
        middle = tuple(slice(n // 2 - 1, n // 2 + 2) for n in particle.mask_zyx.shape)
        assert particle.mask_zyx[middle].all()
        assert not ((particle.density_zyx > MASK_LEVEL) & ~particle.mask_zyx).any()
        inside_ang = particles.extent_vox(particle.mask_zyx) * 10.0
        assert inside_ang <= particle.diameter_ang + 15


def test_a_solid_mask_is_left_alone():
    mask_zyx = blob((15, 15, 15), (7, 7, 7), 3) > 0.5
    np.testing.assert_array_equal(particles.filled_mask(mask_zyx), mask_zyx)


def test_extent_of_small_and_flat_masks():
    mask_zyx = np.zeros(SHAPE, bool)
    assert particles.extent_vox(mask_zyx) == 0
    mask_zyx[3, 4, 5] = True
    assert particles.extent_vox(mask_zyx) == 1
    mask_zyx[3, 4, 5:12] = True
    assert particles.extent_vox(mask_zyx) == 7


# Packing


def test_rotations_are_uniform():
    rng = np.random.default_rng(0)
    turned = np.stack([packing.random_rotation(rng).apply([0.0, 0.0, 1.0]) for _ in range(4000)])
    np.testing.assert_allclose(turned.mean(0), 0, atol=0.03)
    np.testing.assert_allclose((turned ** 2).mean(0), 1 / 3, atol=0.03)


def test_particles_sit_where_the_table_says():
    shape, voxel_size_ang = (40, 56, 64), 10.0
    made = [particles.from_phantom(phantoms.phantom(n), voxel_size_ang) for n in ("tripod", "cage")]
    scene = packing.pack(shape, voxel_size_ang, made, [2, 4], np.random.default_rng(3))
    assert len(scene.placements) >= 5
    for number, placement in enumerate(scene.placements, start=1):
        particle, half = made[placement.class_index], made[placement.class_index].density_zyx.shape[0] // 2
        position = np.array(placement.position_zyx_vox)
        assert scene.instances_zyx[tuple(np.rint(position).astype(int))] == number
        own = np.argwhere(scene.instances_zyx == number)
        matrix = Rotation.from_euler("ZYZ", placement.rot_tilt_psi_deg, degrees=True).as_matrix()[::-1, ::-1]
        source = (own - position) @ matrix + half  # rows times R equal R^-1 times columns
        expected = ndimage.map_coordinates(particle.density_zyx, source.T, order=3)
        found = scene.density_zyx[tuple(own.T)]
        assert np.corrcoef(expected, found)[0, 1] > 0.995
        np.testing.assert_allclose(found.sum(), expected.sum(), rtol=0.02)


def test_particles_do_not_touch():
    made = [particles.from_phantom(phantoms.phantom(n), 13.3) for n in ("rod", "cage", "ring")]
    scene = packing.pack((40, 72, 80), 13.3, made, [8, 20, 8], np.random.default_rng(1), n_gold=2, n_vesicles=1)
    count = len(scene.placements)
    assert count >= 20
    assert scene.n_gold == 2
    assert sorted(np.unique(scene.instances_zyx)) == list(range(count + 1))
    for number in range(1, count + 1):
        own = scene.instances_zyx == number
        grown = ndimage.binary_dilation(own, iterations=2)
        assert not np.isin(scene.instances_zyx[grown], [0, number], invert=True).any()
    edges = np.concatenate([np.take(scene.instances_zyx, i, a).ravel() for a in range(3) for i in (0, 1, -2, -1)])
    assert not edges.any()
    gold = scene.density_zyx > 0.6 * packing.GOLD_DENSITY
    assert gold.any()
    assert not scene.instances_zyx[gold].any()


def test_centres_are_half_a_diameter_apart():
    made = [particles.from_phantom(phantoms.phantom("rod"), 13.3)]
    scene = packing.pack((32, 64, 64), 13.3, made, [12], np.random.default_rng(2))
    positions = np.array([p.position_zyx_vox for p in scene.placements])
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 1e9 * np.eye(len(positions))
    assert len(positions) >= 6
    assert apart.min() * 13.3 > 0.5 * made[0].diameter_ang


def test_what_does_not_fit_is_left_out_quickly():
    made = [particles.from_phantom(phantoms.phantom("cage"), 10.0)]
    scene = packing.pack((20, 32, 36), 10.0, made, [30000], np.random.default_rng(0))
    assert 1 <= len(scene.placements) < 20


def test_an_empty_specimen():
    scene = packing.pack(SHAPE, 10.0, [], [], np.random.default_rng(0))
    assert scene.placements == []
    assert not scene.density_zyx.any()
    assert not scene.instances_zyx.any()


# Imaging


@pytest.mark.parametrize("centre", [(10.3, 17.6, 33.25), (12.0, 9.5, 20.75), (15.8, 20.1, 8.4)])
def test_a_bead_is_reconstructed_where_it_is(centre):
    volume_zyx = blob(SHAPE, centre)
    angles_deg = imaging.tilt_angles_deg(60, 3)
    tomogram_zyx = imaging.back_project(imaging.project(volume_zyx, angles_deg), angles_deg, SHAPE)
    assert np.abs(centre_of_peak(tomogram_zyx) - centre).max() < 0.1
    np.testing.assert_allclose(centre_of_peak(volume_zyx), centre, atol=0.03)


def test_a_bead_keeps_its_place_through_the_microscope_and_is_dark():
    centre = (10.3, 17.6, 30.25)
    scope = imaging.Microscope(snr=1e6)
    tomogram_zyx = imaging.reconstruct(blob(SHAPE, centre), 10.0, imaging.tilt_angles_deg(60, 3), scope,
                                       np.random.default_rng(0))
    assert np.abs(centre_of_peak(-tomogram_zyx) - centre).max() < 0.1


def test_all_tilts_without_noise_give_the_specimen_back():
    volume_zyx = blob(SHAPE, (11.3, 15, 22.6), 2.5) + 0.5 * blob(SHAPE, (14, 20, 14), 2)
    angles_deg = np.arange(-90, 90, 2.0)
    tomogram_zyx = imaging.back_project(imaging.project(volume_zyx, angles_deg), angles_deg, SHAPE)
    slope = (tomogram_zyx * volume_zyx).sum() / (volume_zyx ** 2).sum()
    assert slope == pytest.approx(1, abs=0.03)
    assert np.corrcoef(tomogram_zyx.ravel(), volume_zyx.ravel())[0, 1] > 0.97


def test_projection_keeps_the_mass_at_every_tilt():
    volume_zyx = blob(SHAPE, (12, 16, 20), 2)
    images_tuy = imaging.project(volume_zyx, [-60, -17, 0, 45, 80])
    assert images_tuy.dtype == np.float32
    width = imaging.detector_width_px(SHAPE)
    assert images_tuy.shape == (5, width, SHAPE[1])
    in_sight = images_tuy[:, width // 2 - 8: width // 2 + 9]  # periodic neighbours lie outside at these tilts
    np.testing.assert_allclose(in_sight.sum(axis=(1, 2))[:4], volume_zyx.sum(), rtol=0.01)
    lengthwise = imaging.project(volume_zyx, [0.0])[0]
    left = (width - 1) / 2 - (SHAPE[2] - 1) / 2
    rows = np.arange(SHAPE[2]) + left
    flat = ndimage.map_coordinates(lengthwise, np.stack(np.meshgrid(rows, np.arange(SHAPE[1]), indexing="ij")), order=3)
    np.testing.assert_allclose(flat.T, volume_zyx.sum(0), atol=0.02)


def test_the_specimen_goes_on_beyond_the_field_of_view():
    slab_zyx = np.ones(SHAPE, np.float32)
    images_tuy = imaging.project(slab_zyx, [0.0, 40.0, -60.0])
    inner = images_tuy[:, 8:-8]
    thickness = SHAPE[0] / np.cos(np.deg2rad([0, 40, 60]))
    np.testing.assert_allclose(inner.mean(axis=(1, 2)), thickness, rtol=0.01)
    assert (inner.std(axis=(1, 2)) < 0.03 * thickness).all()


def test_the_missing_wedge_is_empty_and_the_rest_is_not():
    rng = np.random.default_rng(0)
    volume_zyx = rng.normal(size=(32, 24, 32)).astype(np.float32)
    angles_deg = imaging.tilt_angles_deg(60, 2)
    tomogram_zyx = imaging.back_project(imaging.project(volume_zyx, angles_deg), angles_deg, volume_zyx.shape)
    window = np.hanning(32)[:, None, None] * np.hanning(32)[None, None, :]
    power = np.abs(np.fft.fftn(tomogram_zyx * window, axes=(0, 2))) ** 2
    kz, kx = np.abs(np.fft.fftfreq(32))[:, None, None], np.abs(np.fft.fftfreq(32))[None, None, :]
    ring = (np.hypot(kz, kx) > 0.1) & (np.hypot(kz, kx) < 0.3)
    beam = np.rad2deg(np.arctan2(kz, kx)) + 0 * power
    inside = power[(ring & (beam > 72)).nonzero()].mean()
    outside = power[(ring & (beam < 50)).nonzero()].mean()
    assert inside < 0.05 * outside


def test_tilt_angles():
    np.testing.assert_allclose(imaging.tilt_angles_deg(60, 3), np.arange(-60, 61, 3))
    np.testing.assert_allclose(imaging.tilt_angles_deg(10, 30), [0])
    np.testing.assert_allclose(imaging.tilt_angles_deg(50, 20), [-40, -20, 0, 20, 40])


def test_ctf_has_its_zero_where_theory_says():
    scope = imaging.Microscope(cs_mm=0.0, amplitude_contrast=0.0, b_factor_ang2=0.0)
    transfer = imaging.ctf((4096, 8), 5.0, 2.0, scope)[:2048, 0]
    assert transfer[1] < 0
    wavelength_ang = 0.019687  # 300 kV
    zero_per_ang = 1 / math.sqrt(wavelength_ang * 2e4)
    crossing = np.flatnonzero(np.diff(np.sign(transfer[1:])))[0] + 1.5
    assert crossing / (4096 * 5.0) == pytest.approx(zero_per_ang, rel=2e-3)
    flat = imaging.ctf((16, 8), 5.0, 2.0, imaging.Microscope())
    assert flat[0, 0] == pytest.approx(-0.07)


def test_the_noise_has_the_wanted_ratio_whatever_the_gold():
    volume_zyx = blob((24, 48, 56), (12, 20, 30), 5)
    scope, angles_deg = imaging.Microscope(snr=0.2, defocus_spread_um=0.0), [0.0]
    noise_sd = imaging.noise_for(volume_zyx, 10.0, scope)
    images_tuy = imaging.project(volume_zyx, angles_deg)
    clean, noisy = (imaging.expose(images_tuy, angles_deg, 10.0, scope, 240.0, sd, np.random.default_rng(1))
                    for sd in (0.0, noise_sd))
    assert clean.var() / (noisy - clean).var() == pytest.approx(0.2, rel=0.05)
    gold_zyx = volume_zyx + packing.GOLD_DENSITY * (blob(volume_zyx.shape, (12, 40, 10), 1) > 0.3)
    assert imaging.noise_for(gold_zyx, 10.0, scope) < 1.5 * noise_sd
    assert imaging.noise_for(np.zeros(SHAPE, np.float32), 10.0, scope) == 1.0


def test_the_signal_is_weaker_at_high_tilt():
    images_tuy = np.repeat(imaging.project(blob(SHAPE, (12, 16, 20), 3), [0.0]), 2, axis=0)
    scope = imaging.Microscope(defocus_spread_um=0.0)
    seen = imaging.expose(images_tuy, [0.0, 60.0], 10.0, scope, 1500.0, 0.0, np.random.default_rng(0))
    assert seen[1].std() / seen[0].std() == pytest.approx(math.exp(-0.5), rel=1e-3)


# The data folder


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("12,2", 12), ("1", 1)])
def test_simulation_uses_the_threads_it_is_given(given, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert imaging.n_threads() == threads
    for unset in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unset)
        assert 1 <= imaging.n_threads() <= 8


def test_the_folder_is_one_that_training_reads(small):
    folder, manifest = small
    items = items_from_folder(folder)
    assert [item.name for item in items] == ["tomo_00", "tomo_01"]
    classes, voxel_size_ang = read_classes(folder)
    assert voxel_size_ang == 10.0
    assert [(c.id, c.name, c.diameter_ang) for c in classes] == [(1, "cage", 124.0), (2, "barrel", 195.0)]
    volume = open_volume(folder / "tomo_00.mrc")
    assert volume.shape_zyx == SMALL.shape
    assert volume.voxel_size_ang == pytest.approx(10.0)
    assert volume.data_zyx.dtype == np.float32
    with mrcfile.open(folder / "tomo_00_instances.mrc") as mrc:
        assert mrc.data.dtype == np.int16
        assert mrc.voxel_size.x == pytest.approx(10.0)
    assert json.loads((folder / "manifest.json").read_text())["items"] == manifest["items"]
    assert [item["status"] for item in manifest["items"]] == ["done", "done"]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_rows_and_instances_agree_and_particles_are_dark(small):
    for item in small[1]["items"]:
        rows = rows_of(item["coordinates"])
        assert list(rows[0]) == ["class_id", "class_name", "x", "y", "z", "rot", "tilt", "psi"]
        assert len(rows) == item["n_particles"] > 2
        instances_zyx = open_volume(item["instances"]).data_zyx
        tomogram_zyx = open_volume(item["tomogram"]).data_zyx
        for number, row in enumerate(rows, start=1):
            position = tuple(round(float(row[axis])) for axis in "zyx")
            assert instances_zyx[position] == number
            assert len(row["x"].partition(".")[2]) >= 3
            assert row["class_name"] == {"1": "cage", "2": "barrel"}[row["class_id"]]
        assert tomogram_zyx[instances_zyx > 0].mean() < tomogram_zyx[instances_zyx == 0].mean()
        assert item["n_per_class"]["cage"] + item["n_per_class"]["barrel"] == len(rows)


def test_a_tomogram_depends_on_its_seed_and_number_alone(small, tmp_path):
    folder, _ = small
    simulate(tmp_path / "longer", SimulateOptions(**{**SMALL.to_dict(), "n": 3, "shape": SMALL.shape}), quiet=True)
    for name in ("tomo_00", "tomo_01"):
        for suffix in (".mrc", ".csv", "_instances.mrc"):
            assert (tmp_path / "longer" / (name + suffix)).read_bytes() == (folder / (name + suffix)).read_bytes()
    other = SimulateOptions(**{**SMALL.to_dict(), "n": 1, "shape": SMALL.shape, "seed": 1})
    simulate(tmp_path / "other", other, quiet=True)
    assert (tmp_path / "other" / "tomo_00.csv").read_text() != (folder / "tomo_00.csv").read_text()


def test_noise_does_not_move_the_particles(small, tmp_path):
    folder, _ = small
    simulate(tmp_path, SimulateOptions(**{**SMALL.to_dict(), "n": 1, "shape": SMALL.shape, "snr": 0.01}), quiet=True)
    assert (tmp_path / "tomo_00.csv").read_text() == (folder / "tomo_00.csv").read_text()
    assert (tmp_path / "tomo_00.mrc").read_bytes() != (folder / "tomo_00.mrc").read_bytes()


def test_too_many_particles_are_placed_as_far_as_they_fit(tmp_path):
    options = SimulateOptions(phantoms=("cage",), n=1, shape=(20, 32, 36), particles=500, gold=0, membranes=0,
                              tilt_step=20.0)
    manifest = simulate(tmp_path, options, quiet=True)
    placed = manifest["items"][0]["n_particles"]
    assert 1 <= placed < 30
    assert f"only {placed} of 500 particles fit" in manifest["warnings"][0]


@pytest.mark.long
def test_a_tomogram_without_particles(tmp_path):
    options = SimulateOptions(n=1, shape=SHAPE, particles=0, gold=0, membranes=0, tilt_step=20.0)
    manifest = simulate(tmp_path, options, quiet=True)
    assert manifest["items"][0]["n_particles"] == 0
    assert rows_of(tmp_path / "tomo_00.csv") == []
    assert open_volume(tmp_path / "tomo_00.mrc").data_zyx.std() > 0
    assert not open_volume(tmp_path / "tomo_00_instances.mrc").data_zyx.any()


@pytest.mark.long
def test_tomograms_of_another_run_are_pointed_out(small, tmp_path):
    options = SimulateOptions(n=1, shape=SHAPE, particles=0, gold=0, membranes=0, tilt_step=30.0)
    write_volume(tmp_path / "old.mrc", np.zeros(SHAPE, np.float32), 10.0)
    manifest = simulate(tmp_path, options, quiet=True)
    assert ["old.mrc" in text for text in manifest["warnings"]] == [True]


@pytest.mark.parametrize(("options", "reason"), [
    (SimulateOptions(phantoms=("ribosom",)), "did you mean 'ribosome'"),
    (SimulateOptions(phantoms=("capsid",), shape=SHAPE), "capsid is 297 angstrom across, but the volume leaves 200"),
    (SimulateOptions(phantoms=("cage", "cage")), "more than once"),
    (SimulateOptions(particles=40000), "at most 32767"),
    (SimulateOptions(prefix="a/b"), "without folders"),
    (SimulateOptions(maps=("absent.mrc",)), "absent.mrc"),
])
def test_bad_input_is_refused_and_nothing_is_written(options, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        simulate(tmp_path / "out", options, quiet=True)
    assert not (tmp_path / "out").exists()


def parse(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_maps_can_be_given_in_every_way():
    for words in (("--maps", "a.mrc", "b.mrc"), ("--maps", "a.mrc,b.mrc"), ("--maps", "a.mrc", "--maps", "b.mrc")):
        assert command.split_maps(parse("out", *words).maps) == ["a.mrc", "b.mrc"]


def test_the_command_simulates_from_a_map(tmp_path, capsys):
    write_volume(tmp_path / "ball.mrc", blob((17, 17, 17), (8, 8, 8), 3), 10.0)
    args = parse(str(tmp_path / "out"), "--maps", str(tmp_path / "ball.mrc"), "--n", "1", "--shape", "32,48,56",
                 "--particles", "3", "--gold", "0", "--membranes", "1", "--tilt-step", "20", "--prefix", "t")
    args.quiet = True
    assert command.main(args) == 0
    assert "1 tomograms, 3 particles" in capsys.readouterr().out
    assert [row["class_name"] for row in rows_of(tmp_path / "out" / "t_00.csv")] == ["ball"] * 3
