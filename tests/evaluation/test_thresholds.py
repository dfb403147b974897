"""The threshold of each class from its exact curve."""

from __future__ import annotations

import dataclasses
from typing import List, Tuple

import numpy as np
import pytest

from deepetpicker.evaluation.matching import match_by_distance
from deepetpicker.evaluation.thresholds import DEFAULT_THRESHOLD, score_picks
from deepetpicker.io.coordinates import CoordinateTable

Rows = List[Tuple[Tuple[float, float, float], int, float]]


def table(rows: Rows) -> CoordinateTable:
    """Return a table of rows (position, class, score)."""
    return CoordinateTable(np.array([r[0] for r in rows], float).reshape(-1, 3), np.array([r[1] for r in rows], int),
                           np.array([r[2] for r in rows], float))


def spaced(n: int, class_id: int, scores, far: bool = False) -> Rows:
    """Return n rows 30 voxels apart along x; far ones hit nothing."""
    scores = np.broadcast_to(scores, n)
    return [((500.0 if far else 10.0 * class_id, 20.0, 30.0 * i), class_id, float(scores[i])) for i in range(n)]


def test_ten_true_above_a_thousand_false_are_told_apart():
    """Sought among 64 ranks of the scores, the best threshold let seven false ones in: F1 0.74."""
    rng = np.random.default_rng(0)
    truth = table(spaced(10, 1, np.nan))
    found = table(spaced(10, 1, np.linspace(0.7, 0.95, 10)) + spaced(1000, 1, rng.uniform(0.1, 0.65, 1000), far=True))
    picks = score_picks([(truth, found)], {1: 5.0}, 0.1)
    assert picks.mean("f1") == 1.0
    assert picks.classes[0].average_precision == 1.0
    assert 0.65 < picks.classes[0].threshold < 0.7
    assert (picks.classes[0].n_true, picks.classes[0].n_picks) == (10, 10)


def test_each_class_gets_the_threshold_where_its_own_f1_is_best():
    truth = table(spaced(8, 1, np.nan) + spaced(8, 2, np.nan))
    high, low = np.linspace(0.8, 0.9, 8), np.linspace(0.3, 0.4, 8)
    found = table(spaced(8, 1, high) + spaced(20, 1, 0.6, far=True) + spaced(8, 2, low) + spaced(20, 2, 0.2, far=True))
    picks = score_picks([(truth, found)], {1: 5.0, 2: 5.0}, 0.1)
    assert [one.threshold for one in picks.classes] == pytest.approx([0.7, 0.25])
    assert [one.f1 for one in picks.classes] == [1.0, 1.0]
    assert picks.distance_vox == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    truth = CoordinateTable.from_positions(rng.uniform(0, 60, (40, 3)))
    near = truth.positions_zyx_vox[rng.random(40) < 0.8] + rng.normal(0, 2, 3)
    places = np.concatenate([near, rng.uniform(0, 60, (60, 3))])
    scores = np.clip(rng.normal(np.repeat([0.6, 0.4], [len(near), 60]), 0.15), 0.1, 1).round(4)
    found = CoordinateTable(places, np.ones(len(places), int), scores)
    one = score_picks([(truth, found)], {1: 5.0}, 0.1).classes[0]
    f1 = []
    for threshold in [one.threshold, *scores]:
        match = match_by_distance(truth, found.select(scores >= threshold), 5.0)
        f1.append(2 * match.tp / (match.n_truth + match.n_picks))
    assert one.f1 == pytest.approx(f1[0])
    assert f1[0] == pytest.approx(max(f1))


def test_a_rare_class_gets_the_threshold_of_all_together():
    truth = table(spaced(8, 1, np.nan) + spaced(2, 2, np.nan))
    found = table(spaced(8, 1, 0.8) + spaced(30, 1, 0.4, far=True) + spaced(2, 2, 0.5))
    picks = score_picks([(truth, found)], {1: 5.0, 2: 5.0}, 0.1)
    assert picks.classes[1].threshold == picks.threshold
    assert picks.classes[1].n_true == 2


def test_too_few_or_no_hits_leave_the_default():
    few = score_picks([(table(spaced(3, 1, np.nan)), table(spaced(3, 1, 0.8)))], {1: 5.0}, 0.1)
    assert few.classes[0].threshold == few.threshold == DEFAULT_THRESHOLD
    assert few.classes[0].f1 == 1.0
    missed = score_picks([(table(spaced(9, 1, np.nan)), table(spaced(9, 1, 0.8, far=True)))], {1: 5.0}, 0.1)
    assert missed.classes[0].threshold == DEFAULT_THRESHOLD
    assert missed.classes[0].f1 == 0.0
    assert np.isnan(missed.distance_vox)


def test_means_are_of_the_classes_that_have_particles():
    found = table(spaced(6, 1, 0.8) + spaced(5, 3, 0.7))
    picks = score_picks([(table(spaced(6, 1, np.nan) + spaced(6, 2, np.nan)), found)], {1: 5.0, 2: 5.0, 3: 5.0}, 0.1)
    assert [one.n_true for one in picks.classes] == [6, 6, 0]
    assert picks.mean("f1") == pytest.approx(0.5)
    assert np.isnan(picks.classes[2].f1)
    nothing = score_picks([(CoordinateTable.empty(), CoordinateTable.empty())], {1: 5.0}, 0.1)
    assert np.isnan(nothing.mean("f1"))
    assert nothing.n_true == 0


def incomplete_truth(n_known: int, n_all: int) -> Tuple[CoordinateTable, CoordinateTable]:
    """Return some of many particles, and candidates: all of them from 0.6 up and many false ones below 0.4."""
    rows = spaced(n_all, 1, np.linspace(0.9, 0.6, n_all))
    rng = np.random.default_rng(1)
    known = sorted(rng.permutation(n_all)[:n_known].tolist())
    return table([rows[k] for k in known]), table(rows + spaced(60, 1, rng.uniform(0.1, 0.4, 60), far=True))


@pytest.mark.parametrize("n_known", [20, 30])
def test_an_incomplete_truth_does_not_push_the_threshold_above_the_particles(n_known):
    truth, found = incomplete_truth(n_known, 40)
    one = score_picks([(truth, found)], {1: 5.0}, 0.1, is_complete=False).classes[0]
    assert 28 <= one.n_picks <= 40
    assert one.threshold > 0.35
    assert one.recall >= 0.8


@pytest.mark.parametrize("n_known", [5, 10, 19])
def test_few_particles_of_many_raise_no_threshold(n_known):
    truth, found = incomplete_truth(n_known, 40)
    for radii in ({1: 5.0}, {1: 5.0, 2: 5.0}):
        picks = score_picks([(truth, found)], radii, 0.1, is_complete=False)
        assert {one.threshold for one in picks.classes} == {picks.threshold} == {0.5}
    assert score_picks([(truth, found)], {1: 5.0}, 0.1, is_complete=False, otherwise=0.4).threshold == 0.4
    lower = dataclasses.replace(found, scores=found.scores / 2)  # a network that is not yet sure of any
    one = score_picks([(truth, lower)], {1: 5.0}, 0.01, is_complete=False).classes[0]
    assert 0.2 <= one.threshold < 0.46
    assert one.recall >= 0.8


def test_candidates_that_score_like_the_true_ones_are_counted():
    truth, found = incomplete_truth(10, 40)
    assert 5 <= score_picks([(truth, found)], {1: 5.0}, 0.1).classes[0].n_like_true <= 30
    every, found = incomplete_truth(40, 40)
    assert score_picks([(every, found)], {1: 5.0}, 0.1).classes[0].n_like_true == 0
    nothing = table(spaced(9, 1, 0.5, far=True))
    assert score_picks([(truth, nothing)], {1: 5.0}, 0.1).classes[0].n_like_true == 0
