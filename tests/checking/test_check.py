"""Coordinates that do not fit their tomogram are found out, and what happened to them is named."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from deepetpicker import check
from deepetpicker.__main__ import main
from deepetpicker.checking.geometry import Fit, Transform, check_geometry, shift_of_all, transforms
from deepetpicker.config import CheckOptions
from deepetpicker.errors import InputError
from deepetpicker.io.volumes import Volume, open_volume, write_volume

SHAPE = (48, 80, 112)
DIAMETER, VOXEL = 120.0, 10.0


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A noisy tomogram with 24 dark hollow balls at known places between voxels, and these places."""
    rng = np.random.default_rng(3)
    spots = np.stack(np.meshgrid([13, 34], np.arange(12, 76, 18), np.arange(12, 106, 18), indexing="ij"), -1)
    centres = (spots.reshape(-1, 3) + rng.uniform(-3, 3, (spots.size // 3, 3)))[rng.permutation(spots.size // 3)[:24]]
    volume = rng.normal(0, 1, SHAPE)
    for centre in centres:  # 12 voxels away there is nothing of it
        box = tuple(slice(max(0, round(c) - 12), round(c) + 13) for c in centre)
        axes = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, SHAPE))]
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre)))
        volume[box] -= 1.5 * np.exp(-((distance - 4) / 1.5) ** 2)
    path = tmp_path_factory.mktemp("check") / "TS_1.mrc"
    write_volume(path, volume.astype(np.float32), VOXEL)
    return open_volume(path), centres


def undone(transform, centres):
    """Return the coordinates that a transform turns into the true ones: as somebody's wrong file has them."""
    size = np.array(SHAPE, float)
    wrong = np.where(transform.flips, size - 1 - centres, centres)
    wrong = wrong - size // 2 if transform.centred else wrong
    wrong = (wrong + 0.5) / transform.scale - 0.5
    return wrong[:, np.argsort(transform.order)]


def test_a_transform_turns_wrong_coordinates_into_true_ones(scene):
    for transform in transforms():
        np.testing.assert_allclose(transform.apply(undone(transform, scene[1]), SHAPE), scene[1], atol=1e-9)


def test_true_coordinates_fit_and_are_not_shifted(scene):
    fit = check_geometry(scene[0], scene[1], DIAMETER)
    assert fit.fits
    assert fit.evidence > 2 * fit.chance
    assert not fit.is_shifted
    assert np.abs(fit.shift_zyx_vox).max() < 0.2
    assert str(fit).startswith("the coordinates fit")


@pytest.mark.long
@pytest.mark.parametrize("transform", [
    Transform((2, 1, 0)), Transform((0, 2, 1)), Transform(flips=(True, False, False)),
    Transform(flips=(False, True, False)), Transform(flips=(False, False, True)), Transform(scale=2.0),
    Transform(scale=0.5), Transform(scale=4.0), Transform(centred=True), Transform((2, 1, 0), (False, True, False)),
    Transform((1, 2, 0))], ids=str)
def test_the_fault_is_named(scene, transform):
    fit = check_geometry(scene[0], undone(transform, scene[1]), DIAMETER)
    assert not fit.fits
    assert fit.best == transform
    assert f"times better {transform}" in str(fit)
    assert np.abs(fit.shift_zyx_vox).max() < 0.2


@pytest.mark.long
@pytest.mark.parametrize("off", [(0.5, 0.5, 0.5), (-0.5, -0.5, -0.5), (1.0, 0.0, 0.0), (0.0, -1.0, 1.0)])
def test_a_common_shift_is_measured(scene, off):
    fit = check_geometry(scene[0], scene[1] + off, DIAMETER)
    assert fit.fits
    assert fit.is_shifted
    np.testing.assert_allclose(fit.shift_zyx_vox, -np.array(off), atol=0.2)
    assert "all of them are off" in str(fit)


@pytest.mark.long
@pytest.mark.parametrize("grey", [np.inf, -1e30])
def test_voxels_that_are_no_numbers_or_beyond_all_others_do_not_hide_a_shift(scene, grey):
    voxels = np.array(scene[0].data_zyx, np.float32)
    voxels[tuple(np.rint(scene[1][3]).astype(int))] = grey
    spoilt = Volume("TS", pathlib.Path("TS.mrc"), voxels, VOXEL)
    fit = check_geometry(spoilt, scene[1] + (1.0, 0.0, 0.0), DIAMETER)
    np.testing.assert_allclose(fit.shift_zyx_vox, (-1.0, 0.0, 0.0), atol=0.2)


@pytest.mark.long
def test_random_places_and_empty_ice_fit_nothing(scene, tmp_path):
    rng = np.random.default_rng(0)
    assert not any(check_geometry(scene[0], rng.uniform(0, 1, (24, 3)) * (np.array(SHAPE) - 1), DIAMETER).fits
                   for _ in range(3))
    write_volume(tmp_path / "ice.mrc", rng.normal(0, 1, SHAPE).astype(np.float32), VOXEL)
    fit = check_geometry(open_volume(tmp_path / "ice.mrc"), scene[1], DIAMETER)
    assert (fit.fits, fit.best.faults, fit.is_shifted) == (False, 0, False)
    assert "nothing that differs" in str(fit)


def test_too_few_positions_are_refused(scene):
    with pytest.raises(InputError, match="at least 5 positions"):
        check_geometry(scene[0], scene[1][:4], DIAMETER)


@pytest.mark.long
def test_the_command_says_it_and_its_status_tells(scene, tmp_path, capsys):
    volume, centres = scene
    for name, table in (("TS_1", centres), ("TS_2", undone(Transform(flips=(False, True, False)), centres))):
        (tmp_path / f"{name}.mrc").symlink_to(volume.path)
        rows = "".join(f"{x},{y},{z}\n" for z, y, x in table)
        (tmp_path / f"{name}.csv").write_text("x,y,z\n" + rows)
    assert main(["check", "--data", str(tmp_path), "--diameter-angstrom", "120", "--out", str(tmp_path / "out")]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("TS_1: class_1: the coordinates fit")
    assert "y flipped" in second
    items = json.loads((tmp_path / "out/manifest.json").read_text())["items"]
    assert [item["fits"] for item in items] == [True, False]
    (tmp_path / "TS_2.csv").unlink()
    (tmp_path / "TS_2.mrc").unlink()
    assert main(["check", "--data", str(tmp_path), "--diameter-angstrom", "120"]) == 0


def test_what_it_needs_is_asked_for(scene, tmp_path):
    with pytest.raises(InputError, match="expected a data folder"):
        check()
    (tmp_path / "a.mrc").symlink_to(scene[0].path)
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n")
    assert "particle diameter" in check(tmp_path)["items"][0]["reason"]
    few = check(tmp_path, options=CheckOptions(diameter_angstrom=(120.0,)))["items"][0]
    assert "too few to judge" in few["text"]


def test_what_one_tomogram_leaves_open_several_decide():
    def fit(shift, error):
        return Fit(20, 10.0, 100.0, Transform(), 100.0, shift, error)

    off, centred = fit((0.5, 0.5, 0.5), 0.28), fit((0.1, -0.1, 0.05), 0.28)
    assert not off.is_shifted
    assert shift_of_all([off]) == ""
    assert "adding x +0.50, y +0.50, z +0.50 voxels (+- 0.14)" in shift_of_all([off] * 4)
    assert shift_of_all([centred] * 4) == ""
    assert shift_of_all([off] * 4 + [dataclasses.replace(off, evidence=1.0)]) == shift_of_all([off] * 4)
