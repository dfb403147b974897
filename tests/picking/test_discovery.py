"""A false-discovery rate that is asked for is held, said to be out of reach, or refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from test_pick import CENTRES, density, options

from deepetpicker import pick
from deepetpicker.calibration import Calibration
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.picking.discovery import UNREACHED, expected_rate, hold_rate, threshold_for
from tests.detectors import write_detector

SCALE = Calibration((0.0, 1.0), (0.001, 0.999), 40, 90, "logistic")
BLOB = ClassCard(1, "blob", 100.0, 7.0, 0.3, SCALE)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
def test_with_true_probabilities_the_rate_is_held_and_no_lower_threshold_holds_it(rate):
    rng = np.random.default_rng(0)
    scores = rng.beta(4, 1, 20000)
    right = rng.random(20000) < scores
    threshold = threshold_for(scores, rate)
    taken = scores >= threshold
    assert expected_rate(scores[taken]) <= rate
    assert (~right[taken]).mean() == pytest.approx(rate, abs=0.01 if taken.sum() > 2000 else 0.02)
    lower = scores >= np.sort(scores[~taken])[-1]
    assert expected_rate(scores[lower]) > rate


def test_all_candidates_are_taken_where_they_hold_the_rate_and_none_where_none_does():
    assert threshold_for(np.array([0.99, 0.98]), 0.05) == pytest.approx(0.49)
    assert threshold_for(np.array([0.9, 0.8]), 0.05) == UNREACHED
    assert threshold_for(np.zeros(0), 0.05) == UNREACHED
    assert np.isnan(expected_rate(np.zeros(0)))


def test_of_equal_scores_all_are_taken_or_none_and_the_rate_is_held():
    scores = np.array([0.99] + [0.9] * 10)
    assert threshold_for(scores, 0.06) == pytest.approx(0.945)  # the first of the ten alone would hold it
    assert threshold_for(scores, 0.1) == pytest.approx(0.45)
    assert threshold_for(np.array([0.9, 0.9]), 0.05) == UNREACHED


def test_each_class_has_its_own_threshold_and_an_unreachable_rate_is_said():
    table = CoordinateTable(np.zeros((6, 3)), np.array([1, 1, 1, 4, 4, 4]), np.array([0.99, 0.97, 0.5, 0.93, 0.9, 0.2]))
    rod = dataclasses.replace(BLOB, id=4, name="rod")
    limits, unheld = hold_rate(table, (BLOB, rod, dataclasses.replace(BLOB, id=5)), 0.05)
    assert limits == {1: pytest.approx(0.735), 4: UNREACHED, 5: UNREACHED}
    assert len(unheld) == 1
    assert "no threshold of class 4 (rod) holds 0.05" in unheld[0].found
    assert "0.930 (it was calibrated on 40 particles)" in unheld[0].found
    assert unheld[0].advice.startswith("ask for 0.07 or more")


@pytest.fixture
def tomogram(tmp_path):
    """A tomogram of non-cubic shape with four blobs."""
    write_volume(tmp_path / "TS_1.mrc", density(CENTRES), 10.0)
    return tmp_path / "TS_1.mrc"


def model(tmp_path, scale):
    """Return a model file of the blob detector with a map from heights to probabilities."""
    return write_detector(tmp_path / "m.safetensors", dataclasses.replace(BLOB, calibration=scale))


def test_pick_holds_the_rate_in_each_tomogram(tmp_path, tomogram):
    sure = Calibration((0.0, 0.3, 0.5, 1.0), (0.001, 0.01, 0.98, 0.99), 40, 90, "logistic")
    path = model(tmp_path, sure)
    item = pick(path, [tomogram], tmp_path / "out", options(fdr=0.05), quiet=True)["items"][0]
    scores = read_coordinates(tmp_path / "out/TS_1.csv").scores
    assert item["n_picks"] == len(scores) == len(CENTRES)
    assert item["expected_fdr"] == {"1": pytest.approx(1 - scores.mean(), abs=1e-4)}
    assert item["expected_fdr"]["1"] <= 0.05
    given = pick(path, [tomogram], tmp_path / "out", options(fdr=0.05, threshold=0.999), quiet=True)["items"][0]
    assert (given["n_picks"], given["thresholds"]) == (0, {"1": 0.999})


def test_pick_says_when_the_rate_cannot_be_held(tmp_path, tomogram, caplog):
    manifest = pick(model(tmp_path, SCALE), [tomogram], tmp_path / "out", options(fdr=0.01), quiet=True)
    assert manifest["items"][0]["n_picks"] == 0
    assert manifest["items"][0]["expected_fdr"] == {"1": None}
    assert [one["cause"] for one in manifest["items"][0]["verdict"]["reasons"]] == ["false-discovery rate"]
    text = manifest["items"][0]["verdict"]["text"]
    assert text.startswith("doubtful: false-discovery rate: no threshold of class 1 (blob) holds 0.01, so that none is")
    assert manifest["warnings"] == [f"TS_1: {text}"]
    assert text in caplog.text
    assert len(read_coordinates(tmp_path / "out/TS_1_candidates.csv")) >= len(CENTRES)


def test_a_model_without_probabilities_is_refused(tmp_path, tomogram):
    with pytest.raises(InputError, match=r"--fdr needs scores that are probabilities.*class 1 \(blob\).*--threshold"):
        pick(model(tmp_path, None), [tomogram], tmp_path / "out", options(fdr=0.05), quiet=True)
    assert not (tmp_path / "out").exists()


def test_records_from_before_the_option_count_as_without_it(tmp_path, tomogram, caplog):
    path = model(tmp_path, SCALE)
    pick(path, [tomogram], tmp_path / "out", options(), quiet=True)
    record = tmp_path / "out/records/TS_1.json"
    content = json.loads(record.read_text())
    del content["made"]["options"]["fdr"], content["digest"], content["files"]
    record.write_text(json.dumps(content))
    caplog.set_level("INFO")
    assert pick(path, [tomogram], tmp_path / "out", options(resume=True), quiet=True)["warnings"] == []
    assert "TS_1: done before, skipped" in caplog.text
    assert pick(path, [tomogram], tmp_path / "out", options(resume=True, fdr=0.3), quiet=True)["items"][0]["n_picks"]
    assert "with other options, picked again" in caplog.text
