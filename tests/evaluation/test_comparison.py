"""The command ``compare``: files in, parts out."""

from __future__ import annotations

import csv
import json
import pathlib

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.config import CompareOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation.comparison import compare, compare_files
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates, write_coordinates

A = np.array([[3.0, 7.5, 11.0], [20.0, 4.0, 30.0], [9.0, 9.0, 9.0]])
B = np.array([[9.0, 9.0, 10.0], [3.5, 7.5, 11.0], [1.0, 1.0, 1.0], [22.0, 30.0, 2.0]])


def table(positions, classes=None):
    classes = np.ones(len(positions), int) if classes is None else np.array(classes)
    return CoordinateTable(positions, classes, np.linspace(1, 0.5, len(positions)))


def rows(match):
    """Return the rows of a and b that are the same particle."""
    return list(zip(match.truth_index.tolist(), match.pick_index.tolist()))


@pytest.fixture
def files(tmp_path: pathlib.Path):
    write_coordinates(tmp_path / "a.csv", table(A))
    write_coordinates(tmp_path / "b.csv", table(B))
    return tmp_path


def test_parts_make_the_wholes(files):
    manifest = compare_files(files / "a.csv", files / "b.csv", files / "out", CompareOptions(20.0, 10.0))
    item = manifest["items"][0]
    assert (item["n_both"], item["n_only_a"], item["n_only_b"]) == (2, 1, 2)
    assert item["jaccard"] == pytest.approx(2 / 5)
    np.testing.assert_allclose(read_coordinates(item["both"]).positions_zyx_vox, A[[0, 2]])
    np.testing.assert_allclose(read_coordinates(item["only_a"]).positions_zyx_vox, A[[1]])
    np.testing.assert_allclose(read_coordinates(item["only_b"]).positions_zyx_vox, B[[2, 3]])
    with open(item["pairs"], newline="", encoding="utf-8") as stream:
        rows = [(int(r["row_a"]), int(r["row_b"]), float(r["distance_voxels"])) for r in csv.DictReader(stream)]
    assert rows == [(0, 1, 0.5), (2, 0, 1.0)]


def test_relion_5_files_are_compared_with_the_shape(files, capsys):
    frame = Frame(10.0, (24, 32, 40), tomogram="TS_1")
    write_coordinates(files / "a.star", table(A), frame, "relion5")
    words = ["compare", str(files / "a.star"), str(files / "b.csv"), "--out", str(files / "out"), "--voxel-size", "10",
             "--radius-angstrom", "20"]
    assert main(words) == 2
    assert "--shape" in capsys.readouterr().err
    assert main([*words, "--shape", "24,32,40", "--tomogram", "TS_1"]) == 0
    item = json.loads((files / "out/manifest.json").read_text())["items"][0]
    assert (item["n_both"], item["n_only_a"], item["n_only_b"]) == (2, 1, 2)


def test_classes_may_have_to_agree():
    a, b = table(A, [1, 1, 2]), table(B, [1, 1, 2, 2])
    assert rows(compare(a, b, 2.0, same_class=False)) == [(0, 1), (2, 0)]
    found = compare(a, b, 2.0, same_class=True)
    assert rows(found) == [(0, 1)]
    assert (found.only_a.tolist(), found.only_b.tolist()) == ([1, 2], [0, 2, 3])
    nothing = compare(a, CoordinateTable.empty(), 2.0, same_class=True)
    assert (nothing.tp, nothing.only_a.tolist()) == (0, [0, 1, 2])


def test_command_line_and_params(files, capsys):
    params = {"options": {"radius_angstrom": 20.0}, "items": [
        {"name": "x", "a": str(files / "a.csv"), "b": str(files / "b.csv"), "voxel_size": 10.0},
        {"name": "y", "a": str(files / "a.csv"), "voxel_size": 10.0}]}
    (files / "params.json").write_text(json.dumps(params), encoding="utf-8")
    assert main(["compare", "--params", str(files / "params.json"), "--out", str(files / "out")]) == 0
    assert capsys.readouterr().out == "2 in both, 4 only in A, 2 only in B\n"


def test_what_is_missing_is_named(files):
    with pytest.raises(InputError, match="radius_angstrom must be > 0"):
        compare_files(files / "a.csv", files / "b.csv", files / "out")
    with pytest.raises(InputError, match="two coordinate files"):
        compare_files(files / "a.csv", "", files / "out", CompareOptions(20.0))
    with pytest.raises(InputError, match="voxel size"):
        compare_files(files / "a.csv", files / "b.csv", files / "out", CompareOptions(20.0))
    with pytest.raises(InputError, match="unknown member 'aa'"):
        compare_files("", "", files / "out", CompareOptions(20.0), {"items": [{"aa": "a.csv"}]})
    with pytest.raises(InputError, match="own name"):
        compare_files("", "", files / "out", CompareOptions(20.0), {"items": [{"name": "x"}, {"name": "x"}]})
