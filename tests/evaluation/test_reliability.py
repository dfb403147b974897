"""Scores as probabilities: how the error of a calibration is counted, and the maps that calibrate."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepetpicker.calibration import Calibration
from deepetpicker.config import EvaluateOptions
from deepetpicker.evaluation import evaluate
from deepetpicker.evaluation.reliability import calibrated, fit_calibration, reliability
from deepetpicker.evaluation.thresholds import score_picks
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates

FLOOR = 0.1


def candidates(n: int, seed: int = 0, share: float = 0.6):
    """Return peak heights (N,) that crowd about 0.75 for right candidates, and which are right, as a network's do."""
    rng = np.random.default_rng(seed)
    right = rng.random(n) < share
    scores = np.where(right, rng.normal(0.75, 0.04, n), rng.normal(0.5, 0.15, n))
    return np.clip(scores, FLOOR, 0.99).round(4), right


def table(x: np.ndarray, class_id: int, scores: np.ndarray) -> CoordinateTable:
    """Return particles in a row along x."""
    positions = np.column_stack([np.full(len(x), 9.0), np.full(len(x), 14.0), x])
    return CoordinateTable(positions, np.full(len(x), class_id), np.asarray(scores, float))


def test_the_error_is_the_mean_distance_of_bins():
    found = reliability(np.array([0.95, 0.95, 0.95, 0.95, 0.25, 1.0]), np.array([1, 1, 1, 0, 1, 1], bool))
    assert found.n_picks.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 5]
    assert found.observed[9] == pytest.approx(0.8)
    assert found.error == pytest.approx((5 * (0.96 - 0.8) + (1 - 0.25)) / 6)
    assert found.edges.tolist() == pytest.approx(np.arange(11) / 10)


def test_scores_that_are_no_probabilities_have_no_error():
    assert np.isnan(reliability(np.array([3.2, 0.5]), np.array([True, False])).error)
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).error)
    assert reliability(np.array([np.nan, 1.0]), np.array([False, True])).error == 0


@pytest.mark.parametrize(("n_particles", "method", "most"), [(40, "logistic", 0.1), (1200, "isotonic", 0.04)])
def test_calibrated_scores_are_right_as_often_as_they_say(n_particles, method, most):
    scores, right = candidates(round(n_particles / 0.6))
    scale = fit_calibration(scores, right, n_particles, FLOOR)
    others, truth = candidates(20000, seed=1)
    assert scale.method == method
    assert (scale.n_particles, scale.n_picks) == (n_particles, len(scores))
    assert reliability(scale(others), truth).error < min(most, reliability(others, truth).error)


@pytest.mark.parametrize("n_particles", [8, 40, 1200])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_order_of_scores_never_changes(n_particles, share):
    scale = fit_calibration(*candidates(max(n_particles, 40), share=share), n_particles, FLOOR)
    every = scale(np.arange(1, 10000) / 10000)
    assert (np.diff(every) > 0).all()
    assert 0 < every[0] < every[-1] < 1


def test_few_particles_give_no_certainty():
    """40 of 40 are right: the estimate is (40 + 1/2) / (40 + 1), and lower where none was seen."""
    scale = fit_calibration(np.linspace(0.7, 0.8, 40), np.ones(40, bool), 40, FLOOR)
    assert scale(np.linspace(0.7, 0.8, 40)).mean() == pytest.approx(40.5 / 41, abs=0.005)
    assert scale(np.array([0.2]))[0] < 0.7


def test_scores_that_say_nothing_become_the_share_that_is_right():
    scores = np.tile([0.7, 0.3], 30)
    right = np.tile([False, True], 30)
    scale = fit_calibration(scores, right, 30, FLOOR)
    assert scale(np.array([0.3, 0.7])) == pytest.approx([0.5, 0.5], abs=0.02)


def test_too_few_particles_or_hits_give_no_map():
    assert fit_calibration(np.full(4, 0.7), np.ones(4, bool), 4, FLOOR) is None
    assert fit_calibration(np.full(9, 0.7), np.zeros(9, bool), 9, FLOOR) is None


def test_a_rare_class_shares_the_map_of_all_and_thresholds_stay_between_the_same_picks():
    scores, right = candidates(30)
    x = np.arange(30.0) * 20
    truth = CoordinateTable.concatenate([table(x[right], 1, np.full(right.sum(), np.nan)),
                                         table(x[:2] + 5000, 2, np.full(2, np.nan))])
    found = CoordinateTable.concatenate([table(x, 1, scores), table(x[:2] + 5000, 2, np.array([0.7, 0.6]))])
    radii = {1: 5.0, 2: 5.0}
    before = score_picks([(truth, found)], radii, FLOOR)
    after = calibrated(before, [(truth, found)], radii, FLOOR)
    assert [one.is_shared for one in after.calibrations] == [False, True]
    for old, new, scale in zip(before.classes, after.classes, after.calibrations):
        mine = found.scores[found.class_ids == old.class_id]
        assert (scale(mine) >= new.threshold).tolist() == (mine >= old.threshold).tolist()
        assert new.f1 == old.f1
    assert after.threshold != before.threshold


@pytest.mark.parametrize("n_particles", [40, 1200])
def test_heights_that_are_rounded_up_to_one_leave_a_map_that_can_be_read_again(n_particles):
    scores, right = candidates(n_particles)
    scores, right = np.concatenate([scores, [0.9995], np.ones(60)]), np.concatenate([right, [False], np.ones(60, bool)])
    scale = fit_calibration(scores, right, n_particles, FLOOR)
    assert Calibration.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
    assert scale(np.array([1.0]))[0] > scale(np.array([0.9]))[0] > 0.5


def test_without_hits_nothing_is_calibrated():
    x = np.arange(9.0) * 20
    truth, found = table(x, 1, np.full(9, np.nan)), table(x + 10, 1, np.full(9, 0.7))
    picks = score_picks([(truth, found)], {1: 5.0}, FLOOR)
    assert calibrated(picks, [(truth, found)], {1: 5.0}, FLOOR) == picks


def test_a_map_survives_json_and_a_damaged_one_is_refused():
    scale = fit_calibration(*candidates(50), 30, FLOOR)
    content = json.loads(json.dumps(scale.to_dict()))
    assert Calibration.from_dict(content) == scale
    for change in ({"peaks": content["peaks"][::-1]}, {"probabilities": [0.2]}, {"method": "magic"}, {"peaks": None}):
        with pytest.raises(ValueError, match="calibration"):
            Calibration.from_dict({**content, **change})


def test_evaluate_says_how_far_scores_are_from_probabilities(tmp_path):
    """Scores of 0.9 that are right nine times of ten in one class and six times in the other."""
    truth, picks = tmp_path / "truth", tmp_path / "picks"
    for folder in (truth, picks):
        folder.mkdir()
    x = np.arange(10.0) * 20
    for folder, counts, score in ((truth, (9, 6), np.nan), (picks, (10, 10), 0.9)):
        tables = [table(x[:n] + 1000 * c, c, np.full(n, score)) for c, n in enumerate(counts, 1)]
        write_coordinates(folder / "t.csv", CoordinateTable.concatenate(tables))
    report = evaluate(truth, picks, EvaluateOptions(radius_angstrom=30, voxel_size=10))
    assert [row["calibration_error"] for row in report.per_class] == pytest.approx([0.0, 0.3])
    assert report.overall["calibration_error"] == pytest.approx(0.15)
    name = report.per_class[1]["name"]
    content = report.to_dict()["reliability"][name]
    assert (content["picks"][9], content["observed"][9], content["observed"][0]) == (10, pytest.approx(0.6), None)
    lines = report.reliability_csv().splitlines()
    assert lines[0] == "class,score_from,score_to,picks,predicted,observed,calibration_error"
    assert lines[-1] == f"{name},0.9,1,10,0.9,0.6,0.3"
    assert len(lines) == 1 + 2 * 10
