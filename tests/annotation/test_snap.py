"""A click snaps to the particle's centre: dark or bright, full or hollow, small or large, between the voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deepetpicker.annotation.snap import snap
from deepetpicker.errors import InputError

CENTRE = np.array([20.3, 31.6, 38.2])
SHAPE = (44, 60, 72)


def distances(shape=SHAPE, centre=CENTRE):
    """Return the distance of every voxel to a point."""
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape))], centre)))


def soft_ball(diameter, shape=SHAPE, centre=CENTRE):
    """Return a ball with a soft edge."""
    return 1 / (1 + np.exp(2 * (distances(shape, centre) - diameter / 2)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("diameter", [6.0, 11.0, 18.0])
def test_a_click_beside_the_centre_finds_it(diameter, sign):
    noise = np.random.default_rng(0).normal(0, 0.3, SHAPE)
    volume = (50 + sign * soft_ball(diameter) + noise).astype(np.float32)
    found = snap(volume, CENTRE + np.array([-1, 1, 1]) * diameter * 0.12, diameter)
    assert np.abs(found - CENTRE).max() < 0.06 * diameter + 0.3


def test_a_hollow_particle_is_centred_too():
    volume = (soft_ball(18.0) - soft_ball(10.0)).astype(np.float32)
    found = snap(volume, CENTRE + [2, -3, 2], 18.0)
    assert np.abs(found - CENTRE).max() < 0.5


def test_a_large_particle_is_centred_in_a_coarser_copy():
    shape, centre = (80, 100, 112), np.array([40.3, 51.6, 58.2])
    found = snap(soft_ball(40.0, shape, centre).astype(np.float32), centre + [4, -5, 5], 40.0)
    assert np.abs(found - centre).max() < 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("high_pass", [False, True])
def test_a_particle_of_two_balls_is_not_taken_for_one_of_them(high_pass, sign):
    apart = np.array([3.0, 4.0, 6.0])
    volume = soft_ball(14.0, centre=CENTRE - apart) + soft_ball(14.0, centre=CENTRE + apart)
    if high_pass:  # as a microscope shows it: what lies between the balls is no brighter than their surroundings
        volume = volume - gaussian_filter(volume, 6.0)
    click = CENTRE + [1, -1, 1]
    found = snap((sign * volume).astype(np.float32), click, 30.0)
    assert np.linalg.norm(found - CENTRE) <= np.linalg.norm(click - CENTRE)


def test_a_click_that_is_far_from_any_centre_stays():
    click = CENTRE + [0, 0, 5.0]
    np.testing.assert_array_equal(snap(soft_ball(14.0).astype(np.float32), click, 14.0), click)


def test_a_neighbour_is_not_jumped_to():
    volume = soft_ball(10.0) + 3 * soft_ball(10.0, centre=CENTRE + [0, 0, 14.0])
    assert np.abs(snap(volume.astype(np.float32), CENTRE + [0, 1, -1], 10.0) - CENTRE).max() < 1.5


def test_at_the_border_and_in_nothing_the_click_stays_near():
    flat = np.full(SHAPE, 3.0, np.float32)
    np.testing.assert_array_equal(snap(flat, (1, 2, 3), 10.0), (1, 2, 3))
    half_outside = soft_ball(12.0, centre=np.array([0.0, 30, 30])).astype(np.float32)
    found = snap(half_outside, (1, 31, 29), 12.0)
    assert np.abs(found[1:] - [30, 30]).max() < 0.5
    assert -0.5 <= found[0] < 3


def test_unknown_voxels_and_integers_do_no_harm():
    volume = soft_ball(10.0)
    volume[:4] = np.nan
    assert np.abs(snap(volume.astype(np.float32), CENTRE + 1, 10.0) - CENTRE).max() < 0.3
    assert np.abs(snap((100 * soft_ball(10.0)).astype(np.int8), CENTRE + 1, 10.0) - CENTRE).max() < 0.3


def test_a_diameter_is_needed():
    with pytest.raises(InputError, match="needs a diameter > 0"):
        snap(np.zeros(SHAPE), (1, 2, 3), 0.0)
