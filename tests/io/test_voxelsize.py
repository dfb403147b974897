"""One rule for the voxel size, in every command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.io.voxelsize import folder_size, given_sizes, resolve_voxel_size
from deepetpicker.sampling.gather import gather

SHAPE = (24, 32, 40)


@pytest.mark.parametrize(("option", "item", "folder", "header", "expected", "n_warnings"), [
    (5, 6, 7, 8, 5, 3), (0, 6, 7, 8, 6, 2), (0, 0, 7, 8, 7, 1), (0, 0, 0, 8, 8, 0),
    (0, 0, 10, 10.05, 10, 0), (0, 0, 10, 10.2, 10, 1), (0, 0, 10, 1, 10, 0), (0, 0, 10, 0, 10, 0),
    (0, 0, 0, 1, 1, 1), (0, 1, 0, 0, 1, 0), (10, 0, 10, 1, 10, 0)])
def test_the_first_that_is_known_counts_and_others_may_disagree(option, item, folder, header, expected, n_warnings):
    size, warnings = resolve_voxel_size(given_sizes(option, item, folder), [header] * 3)
    assert size == expected
    assert len(warnings) == n_warnings, warnings


def test_warnings_name_both_sources():
    _, warnings = resolve_voxel_size(given_sizes(folder_ang=10), (5, 5, 5.2))
    assert warnings == ["the header says 5, 5, 5.2 angstrom per voxel, 10 (classes.json) is used"]
    _, warnings = resolve_voxel_size(given_sizes(13.48, 10.0))
    assert warnings == ["params.json says 10 angstrom per voxel, 13.48 (--voxel-size) is used"]
    _, warnings = resolve_voxel_size(0.0, (1, 1, 1))
    assert warnings[0].endswith("nothing else is known: give the true one with --voxel-size")


def test_nothing_known_is_an_error_only_where_there_is_a_header():
    assert resolve_voxel_size(given_sizes()) == (0.0, [])
    with pytest.raises(InputError, match=r"a\.mrc does not say its voxel size.*--voxel-size"):
        resolve_voxel_size(given_sizes(), (0, 0, 0), "a.mrc")
    with pytest.raises(InputError, match="not cubes"):
        resolve_voxel_size(0.0, (10, 10, 11))
    with pytest.raises(InputError, match=r"got -1\.0 \(--voxel-size\)"):
        resolve_voxel_size(given_sizes(-1.0))


def test_a_file_is_opened_by_the_same_rule(tmp_path):
    write_volume(tmp_path / "a.mrc", np.zeros(SHAPE, np.float32), 1.0)
    (tmp_path / "classes.json").write_text(json.dumps({"voxel_size_angstrom": 10.0, "classes": []}))
    volume = open_volume(tmp_path / "a.mrc", given_sizes(folder_ang=folder_size(tmp_path / "a.mrc")))
    assert (volume.voxel_size_ang, volume.warnings) == (10.0, ())
    assert folder_size(tmp_path / "none" / "a.mrc") == 0.0


@pytest.fixture
def data(tmp_path):
    """Return a function that writes a data folder with one tomogram of some header and classes.json of another size."""
    def make(header_ang, listed_ang, diameter_ang=100.0):
        rng = np.random.default_rng(0)
        write_volume(tmp_path / "a.mrc", rng.normal(size=SHAPE).astype(np.float32), header_ang)
        (tmp_path / "a.csv").write_text("x,y,z\n12.5,11,10\n20,21.5,9\n")
        content = {"voxel_size_angstrom": listed_ang,
                   "classes": [{"id": 1, "name": "ball", "diameter_angstrom": diameter_ang}]}
        (tmp_path / "classes.json").write_text(json.dumps(content))
        return tmp_path
    return make


@pytest.mark.parametrize(("header", "warnings"), [
    (1.0, []), (5.0, ["a: the header says 5 angstrom per voxel, 10 (classes.json) is used"]), (10.0, [])])
def test_training_takes_what_the_folder_says_before_the_header(data, header, warnings):
    gathered = gather(data(header, 10.0), TrainOptions())
    assert gathered.volumes[0].voxel_size_ang == 10.0
    assert gathered.voxel_size_ang == 10.0
    assert [text for text in gathered.warnings if "angstrom per voxel" in text] == warnings


def test_training_refuses_to_make_a_tomogram_much_coarser_unless_asked(data):
    folder = data(2.0, 0.0, 200.0)
    with pytest.raises(InputError, match=r"a: 2 angstrom per voxel would be resampled to 10, 5 times coarser.*"
                                         r"--max-resampling"):
        gather(folder, TrainOptions())
    assert gather(folder, TrainOptions(max_resampling=5.0)).voxel_size_ang == 10.0
