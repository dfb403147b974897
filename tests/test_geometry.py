"""The two grids and the working scale."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import InputError
from deepetpicker.geometry import WorkingGrid, check_working_diameter, working_voxel_size


def test_working_voxel_gives_the_smallest_class_the_wanted_voxels():
    assert working_voxel_size([200.0, 300.0], 5.0, 20.0) == pytest.approx(10.0)


def test_coarse_tomograms_are_never_upsampled():
    assert working_voxel_size([100.0], 13.3, 20.0) == 13.3


def test_a_small_change_of_scale_is_not_worth_an_interpolation():
    assert working_voxel_size([210.0], 10.0, 20.0) == 10.0


@pytest.mark.parametrize(("diameter", "voxel"), [(20.0, 10.0), (30.0, 10.0), (2000.0, 10.0)])
def test_diameter_in_the_wrong_unit_is_an_error_that_says_so(diameter, voxel):
    with pytest.raises(InputError, match="must be in angstrom"):
        check_working_diameter(diameter, voxel)


def test_no_diameter_is_an_error():
    with pytest.raises(InputError, match="--diameter-angstrom"):
        working_voxel_size([], 10.0, 20.0)


@pytest.mark.parametrize("working", [5.0, 7.3, 20.0])
def test_mapping_there_and_back_is_exact(working):
    grid = WorkingGrid((24, 33, 41), 5.0, working)
    positions = np.random.default_rng(0).uniform(0, 24, (50, 3))
    np.testing.assert_allclose(grid.to_input(grid.to_working(positions)), positions, atol=1e-12)


def test_grids_share_their_outer_edge():
    grid = WorkingGrid((24, 33, 40), 5.0, 10.0)
    assert grid.shape_zyx == (12, 17, 20)
    np.testing.assert_allclose(grid.to_input(np.array([[0.0, 0.0, 19.0]])), [[0.5, 0.5, 38.5]])


def test_equal_voxel_sizes_give_the_identity():
    grid = WorkingGrid((24, 33, 40), 5.0, 5.0004)
    assert grid.factor == 1.0
    assert grid.shape_zyx == (24, 33, 40)
