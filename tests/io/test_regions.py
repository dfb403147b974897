"""Regions and negatives in files."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.regions import Region, read_negatives, read_regions, write_negatives, write_regions


def test_regions_come_back(tmp_path):
    boxes = [Region((0, 1, 2), (10, 20, 30)), Region((5, 5, 5), (5, 5, 5))]
    write_regions(tmp_path / "a_regions.csv", boxes)
    assert (tmp_path / "a_regions.csv").read_text().splitlines()[:2] == ["x_min,y_min,z_min,x_max,y_max,z_max",
                                                                         "2,1,0,30,20,10"]
    assert read_regions(tmp_path / "a_regions.csv") == boxes


def test_negatives_come_back_to_the_bit(tmp_path):
    places = np.random.default_rng(0).random((7, 3)) * 100
    write_negatives(tmp_path / "n.csv", places)
    np.testing.assert_array_equal(read_negatives(tmp_path / "n.csv"), places)
    write_negatives(tmp_path / "n.csv", np.zeros((0, 3)))
    assert read_negatives(tmp_path / "n.csv").shape == (0, 3)


def test_a_region_contains_its_border_voxels():
    box = Region((0, 1, 2), (10, 20, 30))
    inside = box.contains(np.array([[0, 1, 2], [10, 20, 30], [10.5, 20, 30], [10.6, 20, 30], [5, 0, 10]]))
    assert inside.tolist() == [True, True, True, False, False]
    assert box.clipped((8, 64, 16)) == Region((0, 1, 2), (7, 20, 15))
    with pytest.raises(InputError, match="must not lie beyond"):
        box.clipped((8, 64, 2))


@pytest.mark.parametrize(("text", "words"), [
    ("x_min,y_min\n1,2\n", "z_min is missing"),
    ("x_min,y_min,z_min,x_max,y_max,z_max\n1,2,3,4,5,six\n", "line 2: expected a number"),
    ("x_min,y_min,z_min,x_max,y_max,z_max\n1,2,3.5,4,5,6\n", "line 2: expected whole voxels"),
    ("x_min,y_min,z_min,x_max,y_max,z_max\n9,2,3,4,5,6\n", "line 2: a region's first voxel"),
    ("x_min,y_min,z_min,x_max,y_max,z_max\n1,2,3,4,5,nan\n", "line 2: expected finite"),
])
def test_damaged_regions_are_named(tmp_path, text, words):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(FormatError, match=words):
        read_regions(tmp_path / "r.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_regions(tmp_path / "r.csv")
