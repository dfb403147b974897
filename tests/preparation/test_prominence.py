"""What stands out of a tomogram as the annotated particles do, and what does not."""

from __future__ import annotations

import errno
import os
import pathlib
import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.prominence import StandsOut, prominence

SHAPE, DIAMETER = (40, 72, 80), 100.0
PLACES = np.array([[12.0, 16.0, 16.0], [14, 50, 20], [26, 20, 60], [25, 52, 58]])
EMPTY = np.array([[20.0, 34.0, 40.0], [30, 36, 10], [8, 34, 70]])


def tomogram(contrast: float, shift: float = 0.0) -> Volume:
    """Return balls of 10 voxels at PLACES in noise, of a contrast in standard deviations of the noise."""
    voxels = gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 0.7)
    voxels /= voxels.std()
    for place in PLACES + shift:
        square = sum((a - c) ** 2 for a, c in zip(np.indices(SHAPE), place))
        voxels += contrast * np.exp(-square / (2 * 3.0**2))
    return Volume("TS_1", pathlib.Path("TS_1.mrc"), voxels.astype(np.float32), 10.0)


@pytest.mark.parametrize("contrast", [2.0, -2.0])
def test_empty_ground_is_faint_whether_particles_are_bright_or_dark(contrast):
    volume = tomogram(contrast)
    known = StandsOut.of(prominence(volume, PLACES, DIAMETER))
    assert known.is_dark == (contrast < 0)
    assert not known.are_faint(prominence(volume, PLACES, DIAMETER)).any()
    assert known.are_faint(prominence(volume, EMPTY, DIAMETER)).all()


def test_thousands_of_candidates_take_little_memory_and_are_what_they_are_alone():
    volume, places = tomogram(2.0), np.random.default_rng(0).uniform(0, 39, (20, 3))
    tracemalloc.start()
    values = prominence(volume, np.tile(places, (1000, 1)), DIAMETER)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    assert np.array_equal(values, np.tile(values[:20], (1000, 1)))


def test_a_pick_that_is_off_centre_is_not_faint():
    volume = tomogram(2.0)
    known = StandsOut.of(prominence(volume, PLACES, DIAMETER))
    assert not known.are_faint(prominence(volume, PLACES + [1.5, -1.5, 1.5], DIAMETER)).any()


def test_in_a_tomogram_of_less_contrast_particles_are_none_the_fainter():
    known, volume = StandsOut.of(prominence(tomogram(4.0), PLACES, DIAMETER)), tomogram(1.5)
    values, scores = prominence(volume, PLACES, DIAMETER), np.ones(len(PLACES))
    share = known.share_of(values, scores)
    assert 0.2 < share < 0.7
    assert not known.are_faint(values, share).any()


def test_one_misplaced_of_forty_does_not_lower_the_bar_and_too_few_tell_nothing():
    values = np.full((40, 2), [5.0, 1.0])
    values[7] = 0.1, 0.9
    assert StandsOut.of(values).least == 5.0
    assert StandsOut.of(values[:2]) is None
    assert StandsOut.of(np.full((9, 2), np.nan)) is None


def test_where_it_cannot_be_told_nothing_is_faint():
    flat = Volume("TS_1", pathlib.Path("TS_1.mrc"), np.zeros(SHAPE, np.float32), 10.0)
    for volume, diameter in ((tomogram(2.0), 30.0), (flat, DIAMETER)):
        values = prominence(volume, PLACES, diameter)
        assert values.shape == (4, 2)
        assert np.isnan(values).all()
        assert not StandsOut(False, 3.0, 4.0).are_faint(values).any()
    assert prominence(tomogram(2.0), np.empty((0, 3)), DIAMETER).shape == (0, 2)


def test_a_card_keeps_it_and_an_older_one_lacks_it():
    known = StandsOut(True, 2.34567, 4.0)
    assert StandsOut.from_list(known.to_list()) == StandsOut(True, 2.3457, 4.0)
    assert StandsOut.from_list(None) is None


def test_near_a_bead_nobody_knows():
    volume = tomogram(2.0)
    volume.data_zyx[11:14, 15:18, 18:21] = 90.0
    values = prominence(volume, PLACES, DIAMETER)
    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1:]).all()
    assert not StandsOut(False, 30.0, 40.0).are_faint(values)[0]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a scratch file is not reserved here")
def test_a_full_disk_is_said_and_is_no_reason_to_fail(monkeypatch, caplog):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("deepetpicker.preparation.scene.IN_MEMORY_BYTES", 0)
    assert np.isnan(prominence(tomogram(2.0), PLACES, DIAMETER)).all()
    assert "No space left" in caplog.text
