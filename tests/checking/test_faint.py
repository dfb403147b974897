"""Annotated places where there is no particle are told one by one, and right ones are not."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deepetpicker.checking.faint import faint_places
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume

SHAPE, BALL = (40, 96, 100), ParticleClass(1, "ball", 100.0)
PLACES = np.array([[12.0, 16, 16], [14, 50, 20], [26, 20, 60], [25, 52, 58], [14, 80, 30], [27, 78, 80], [12, 44, 84]])
EMPTY = np.array([[26.0, 34, 38], [13, 26, 88]])


def tomogram(contrast: float, name: str = "TS_1") -> Volume:
    """Return a tomogram with balls at PLACES."""
    voxels = gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), 0.7)
    voxels /= voxels.std()
    for place in PLACES:
        square = sum((a - c) ** 2 for a, c in zip(np.indices(SHAPE), place))
        voxels += contrast * np.exp(-square / (2 * 3.0**2))
    return Volume(name, pathlib.Path(f"{name}.mrc"), voxels.astype(np.float32), 10.0)


def table(*positions: np.ndarray) -> CoordinateTable:
    """Return a table of class 1."""
    every = np.concatenate(positions)
    return CoordinateTable(every, np.ones(len(every), int), np.full(len(every), np.nan))


@pytest.mark.long
@pytest.mark.parametrize("contrast", [-2.5, 2.5])
def test_places_in_empty_ground_are_named_among_right_ones(contrast):
    volume = tomogram(contrast)
    assert faint_places([volume], [table(PLACES)], BALL) is None
    found = faint_places([volume], [table(PLACES, EMPTY[:1])], BALL)
    assert found.places == ["TS_1 at 38 34 26"]
    assert not found.are_many
    assert "1 of 8 particles stand out of the tomogram less than 0.4 times as far as the others" in str(found)
    assert faint_places([volume], [table(PLACES, EMPTY)], BALL).are_many


@pytest.mark.long
def test_a_tomogram_of_less_contrast_is_measured_by_its_own_particles():
    volumes = [tomogram(6.0), tomogram(1.5, "TS_2")]
    assert faint_places(volumes, [table(PLACES), table(PLACES)], BALL) is None


@pytest.mark.long
def test_too_few_particles_or_none_that_stand_out_tell_nothing():
    volume = tomogram(2.5)
    assert faint_places([volume], [table(PLACES[:3], EMPTY[:1])], BALL) is None
    assert faint_places([volume], [table(PLACES[:0])], BALL) is None
    assert faint_places([tomogram(0.0)], [table(PLACES, EMPTY)], BALL) is None
