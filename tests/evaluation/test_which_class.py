"""Evaluation tells which class of the picks is which class of the truth, or says that it cannot."""

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.config import EvaluateOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation import evaluate
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates

OPTIONS = EvaluateOptions(voxel_size=10.0, radius_angstrom=30.0)
CENTRES_ZYX = np.array([[5.0, 9, 13], [5, 9, 30], [14, 22, 8], [14, 22, 30]])


def tables(tmp_path, truth, picks):
    """Write the same four centres as truth and picks with the given classes; return the folders."""
    for name, classes in (("truth", truth), ("picks", picks)):
        (tmp_path / name).mkdir()
        table = CoordinateTable(CENTRES_ZYX, np.array(classes), np.array([0.9, 0.8, 0.7, 0.6]))
        write_coordinates(tmp_path / name / "t.csv", table)
    return tmp_path / "truth", tmp_path / "picks"


def f1_by_class(report):
    """Return F1 by class id."""
    return {row["id"]: row["F1"] for row in report.per_class}


def test_classes_from_zero_count_like_any_other(tmp_path):
    report = evaluate(*tables(tmp_path, [0, 0, 1, 1], [0, 0, 1, 0]), OPTIONS)
    assert f1_by_class(report) == {0: pytest.approx(0.8), 1: pytest.approx(2 / 3)}
    assert report.overall["macro_F1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert report.warnings == ()


def test_shifted_numbers_are_not_compared_in_silence(tmp_path):
    truth, picks = tables(tmp_path, [0, 0, 1, 1], [1, 1, 2, 2])
    report = evaluate(truth, picks, OPTIONS)
    assert any("cannot tell which is which" in w and "--class-map" in w for w in report.warnings)
    assert report.overall["F1"] == 1.0
    given = evaluate(truth, picks, OPTIONS, {"class_map": "1:0,2:1"})
    assert f1_by_class(given) == {0: 1.0, 1: 1.0}
    assert given.warnings == ()
    with pytest.raises(InputError, match=r"--class-map: .*no class '9'"):
        evaluate(truth, picks, OPTIONS, {"class_map": "9:0"})


def test_names_on_both_sides_tell(tmp_path):
    truth, picks = tables(tmp_path, [0, 0, 1, 1], [2, 2, 1, 1])
    write_classes(truth, [ParticleClass(0, "ring", 100.0), ParticleClass(1, "rod", 200.0)])
    write_classes(picks, [ParticleClass(1, "rod", 200.0), ParticleClass(2, "ring", 100.0)])
    report = evaluate(truth, picks, OPTIONS)
    assert f1_by_class(report) == {0: 1.0, 1: 1.0}
    assert report.class_names == {0: "ring", 1: "rod"}
    assert report.diameters_ang == {0: 100.0, 1: 200.0}


def test_one_class_takes_its_name_from_the_side_that_has_one(tmp_path):
    truth, picks = tables(tmp_path, [0] * 4, [1] * 4)
    write_classes(picks, [ParticleClass(1, "ribosome", 60.0)])
    report = evaluate(truth, picks, EvaluateOptions(voxel_size=10.0))
    assert [(row["id"], row["name"], row["F1"]) for row in report.per_class] == [(0, "ribosome", 1.0)]


def test_candidates_are_matched_as_the_picks_are(tmp_path):
    truth, picks = tables(tmp_path, [0, 0, 1, 1], [1, 1, 2, 2])
    write_coordinates(tmp_path / "all.csv", CoordinateTable(CENTRES_ZYX, np.array([1, 1, 2, 3]), np.ones(4)))
    item = {"truth": str(truth / "t.csv"), "picks": str(picks / "t.csv"), "candidates": str(tmp_path / "all.csv")}
    report = evaluate(params={"items": [item], "class_map": "1:0,2:1"}, options=OPTIONS)
    assert report.class_ids == (0, 1, 3)


def test_the_command_takes_table_and_mapping(tmp_path, capsys):
    truth, picks = tables(tmp_path, [0, 0, 1, 1], [1, 1, 2, 2])
    words = ["evaluate", "--truth", str(truth), "--picks", str(picks), "--voxel-size", "10", "--classes",
             "0:ribosome:60,1:proteasome:80", "--class-map", "1:ribosome,2:proteasome"]
    assert main(words) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("ribosome", "proteasome"))}
    assert lines["ribosome"][1:6] == ["2", "2", "2", "0", "0"]
    assert lines["proteasome"][1:6] == ["2", "2", "2", "0", "0"]
    assert main([*words[:-1], "1:0,2:0"]) == 2
