"""Reviewing picks, without a window: orders, answers, rows at once, what is kept, and tomograms unlike the others."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from deepetpicker.annotation.records import AnnotatedTomogram, Negative, Particle
from deepetpicker.annotation.review import (
    ALL,
    DOUBT,
    GONE,
    OFFER,
    OPEN,
    REFUSED,
    REFUSED_ONLY,
    RIGHT,
    SCORE,
    TOMOGRAM,
    Review,
)
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.errors import OutputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.regions import read_negatives

NAMES = ["a", "b"]
SCORES = {"a": [0.9, 0.35, 0.6, 0.5], "b": [0.55, 0.95, 0.4]}
PLACES = {name: np.arange(3.0 * len(s)).reshape(-1, 3) + 1 for name, s in SCORES.items()}


@pytest.fixture
def session(tmp_path):
    """Yield a session with seven picks of two classes in two tomograms, and one that was clicked."""
    with Session(tmp_path / "out") as opened:
        opened.set_tomograms([AnnotatedTomogram(name, f"/data/{name}.mrc", 10.0, (24, 40, 56)) for name in NAMES])
        opened.set_classes([ParticleClass(1, "ring", 60.0), ParticleClass(2, "rod", 90.0)])
        opened.set_start({n: CoordinateTable(PLACES[n], np.arange(len(s)) % 2 + 1, np.array(s))
                          for n, s in SCORES.items()})
        opened.add("b", Particle((9.0, 9.0, 9.0), 1))
        yield opened


def scores(review):
    """Return the scores in the order of the list."""
    return [one.given.score for one in review.entries]


def content(session):
    """Return everything that is annotated."""
    return {name: (session.particles(name), session.negatives(name)) for name in NAMES}


def test_orders(session):
    review = Review(session, {1: 0.5})
    review.arrange(SCORE)
    assert scores(review) == [0.95, 0.9, 0.6, 0.55, 0.5, 0.4, 0.35]
    review.arrange(DOUBT)  # class 1: from 0.5 on; class 2 (0.35, 0.5, 0.95): its lowest score counts
    assert review.thresholds() == {1: 0.5, 2: 0.35}
    assert scores(review)[:5] == [0.35, 0.55, 0.6, 0.4, 0.5]
    review.arrange(TOMOGRAM)
    assert scores(review) == [0.9, 0.6, 0.5, 0.35, 0.95, 0.55, 0.4]
    review.arrange(SCORE, tomogram="b", show=ALL)
    assert scores(review)[:3] == [0.95, 0.55, 0.4]
    assert np.isnan(scores(review)[3])  # what was clicked comes last
    assert [review.state(n) for n in range(4)] == [OPEN, OPEN, OPEN, RIGHT]
    assert review.looked_at() == (1, 8, 0)


def test_rows_are_answered_and_undone_together(session):
    review = Review(session)
    review.arrange(SCORE)
    start = content(session)
    review.accept([0, 1, 2])
    assert [review.state(n) for n in range(4)] == [RIGHT] * 3 + [OPEN]
    middle = content(session)
    review.refuse([2, 3, 4])
    assert [review.state(n) for n in range(7)] == [RIGHT, RIGHT, REFUSED, REFUSED, REFUSED, OPEN, OPEN]
    assert review.looked_at() == (3, 5, 3)
    changes = session.undo()
    assert sorted(review.find(changes)) == [2, 3, 4]
    assert content(session) == middle
    session.redo()
    assert review.state(4) == REFUSED
    session.undo()
    session.undo()
    assert content(session) == start


def test_a_refused_pick_comes_back_with_its_score_where_it_was(session):
    review = Review(session)
    review.arrange(SCORE)
    review.move({0: (2.5, 3.5, 4.5)})
    review.refuse([0])
    assert [n.position_zyx_vox for n in session.negatives("b").values()] == [(2.5, 3.5, 4.5)]
    review.accept([0])
    assert session.negatives("b") == {}
    assert review.now(0) == Particle((2.5, 3.5, 4.5), 2, 0.95, True)
    session.remove("particle", "b", review.entries[0].key)
    assert review.state(0) == GONE
    review.accept([0])  # nothing to accept
    assert review.state(0) == GONE


def test_classes_are_given_and_refused_ones_are_listed_and_taken_back_after_a_restart(session):
    review = Review(session)
    review.arrange(SCORE)
    review.give_class([0, 1], 1)
    assert [review.now(n).class_id for n in (0, 1)] == [1, 1]
    review.refuse([5, 6])
    other = Review(session)  # as a window opened later
    other.arrange(show=REFUSED_ONLY)
    assert [other.state(n) for n in range(2)] == [REFUSED, REFUSED]
    other.accept([0, 1])
    assert [other.state(n) for n in range(2)] == [RIGHT, RIGHT]
    assert sum(len(session.particles(name)) for name in NAMES) == 8
    session.undo()
    assert [other.state(n) for n in range(2)] == [REFUSED, REFUSED]


def test_candidates_below_the_threshold_are_offered_and_count_only_when_accepted(session):
    table = CoordinateTable(np.array([[15.0, 30, 40], [20, 30, 50], [5, 35, 9], PLACES["a"][0] + 0.5]),
                            np.array([1, 2, 1, 1]), np.array([0.3, 0.25, 0.2, 0.88]))
    review = Review(session, {1: 0.32}, below={"a": table})
    review.arrange(DOUBT, tomogram="a")
    assert scores(review)[:2] == [0.35, 0.3]  # of class 2 the lowest score counts
    at = {one.given.score: number for number, one in enumerate(review.entries)}
    assert 0.88 not in at  # it is a pick already
    before = content(session)
    assert [review.state(at[score]) for score in (0.3, 0.25, 0.2)] == [OFFER] * 3
    assert sum(len(session.particles(name)) for name in NAMES) == 8
    review.refuse([at[0.25]])
    review.accept([at[0.3], at[0.25]])
    assert [review.state(at[score]) for score in (0.3, 0.25, 0.2)] == [RIGHT, RIGHT, OFFER]
    assert review.now(at[0.25]) == Particle((20.0, 30.0, 50.0), 2, 0.25, True)
    review.refuse([at[0.3], at[0.2]])
    other = Review(session, below={"a": table})
    other.arrange(tomogram="a")
    assert {0.3, 0.25, 0.2}.isdisjoint(scores(other))  # all are answered
    for _ in range(3):
        assert set(review.find(session.undo())) <= set(at.values())
    assert [review.state(at[score]) for score in (0.3, 0.25, 0.2)] == [OFFER] * 3
    assert content(session) == before


def test_only_the_tomograms_that_are_open_are_reviewed(session):
    review = Review(session, within=["b"])
    review.arrange(show=ALL)
    assert {one.tomogram for one in review.entries} == {"b"}
    assert review.looked_at() == (1, 4, 0)
    assert review.tomograms() == ["b"]


def test_what_is_on_disk_is_what_was_answered(session, tmp_path, monkeypatch):
    review = Review(session)
    review.arrange(SCORE)
    review.accept([0, 1])
    review.refuse([6])
    folder = save_version(session)
    assert len(read_coordinates(folder / "a.csv")) == 3
    np.testing.assert_allclose(read_negatives(folder / "a_negatives.csv"), PLACES["a"][[1]])
    assert len(read_coordinates(folder / "b.csv")) == 4  # not looked at: they stay
    before = content(session)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for action in (review.accept, review.refuse):
        with pytest.raises(OutputError, match="not saved, and not done"):
            action([2, 3])
    assert content(session) == before
    assert [review.state(n) for n in (2, 3)] == [OPEN, OPEN]
    monkeypatch.undo()
    session._stack.close()  # killed
    with Session(tmp_path / "out") as again:
        assert content(again) == before


def test_thousands_of_picks_are_arranged_and_answered(tmp_path):
    rng = np.random.default_rng(0)
    with Session(tmp_path / "many") as session:
        names = [f"TS_{n:02d}" for n in range(20)]
        session.set_tomograms([AnnotatedTomogram(n, f"/data/{n}.mrc", 10.0, (200, 500, 600)) for n in names])
        session.set_classes([ParticleClass(1, "ring", 60.0)])
        session.set_start({n: CoordinateTable(rng.uniform(0, 200, (400, 3)), np.ones(400, int), rng.random(400))
                           for n in names})
        review = Review(session)
        review.arrange(DOUBT)
        review.accept(range(100))
        assert len({review.state(n) for n in range(100)}) == 1
        assert review.state(0) != review.state(100)
        assert len(review.entries) == 8000


def test_outlying_tomograms_come_first(session):
    review = Review(session)
    assert review.tomograms() == ["a", "b"]
    session.set_tomograms([AnnotatedTomogram(n, f"/data/{n}.mrc", 10.0, (24, 40, 56)) for n in "abcde"])
    session.set_start({n: CoordinateTable(np.ones((40, 3)), np.ones(40, int), np.full(40, 0.5)) for n in "bcde"})
    session.add("a", Negative((1.0, 1.0, 1.0)))
    review.arrange(TOMOGRAM, show=ALL)
    assert review.entries[0].tomogram == "a"
    assert review.unlike()["a"].reasons == ("few picks: 4, others about 40",)
