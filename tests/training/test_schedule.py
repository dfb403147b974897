"""The plan of a run: the learning rate, the clock, and the end when nothing is gained any more."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.config import TrainOptions
from deepetpicker.training.loop.schedule import Plateau, Schedule, cycle_rate
from deepetpicker.training.pace import Pace, minutes, plan


def options(**changes) -> TrainOptions:
    """Return options with the values that a recipe fills in."""
    return TrainOptions(**{"patch": 48, "batch": 4, "averaging": 0.9, "patience": 5, **changes})


def test_one_cycle_goes_up_in_a_tenth_and_down_to_the_end():
    schedule = Schedule(1, 101)
    rates = [schedule.rate(k) for k in range(101)]
    assert rates[0] == pytest.approx(1 / 30)
    assert int(np.argmax(rates)) == 10
    assert rates[10] == pytest.approx(1)
    assert rates[-1] == pytest.approx(1 / 3000)
    assert (np.diff(rates[10:]) < 0).all()
    assert Schedule(1, 1).rate(0) == pytest.approx(1)
    assert all(0 < Schedule(1, n).rate(k) <= 1 for n in (2, 3, 10) for k in range(n))


def test_a_slower_machine_makes_fewer_epochs_and_still_ends_at_the_lowest_rate():
    schedule = Schedule(20, 5, limit_s=100.0, most_epochs=40)
    schedule.keep_time([5.0] * 4, reserve_s=0.0)
    assert schedule.epochs == 20
    before = schedule.rate(20)
    schedule.keep_time([5.0] * 4 + [15.0] * 2)
    assert (schedule.epochs, schedule.start_step) == (6 + int(50 / (45 / 5)), 30)
    assert schedule.rate(schedule.epochs * 5 - 1) == pytest.approx(1 / 3000)
    assert abs(schedule.rate(30) - before) < 0.2
    assert schedule.history == [[0, 20], [30, schedule.epochs]]


def test_a_faster_machine_makes_more_epochs_up_to_the_most():
    schedule = Schedule(10, 5, limit_s=100.0, most_epochs=40)
    schedule.keep_time([4.0] * 2)
    assert schedule.epochs == 25
    schedule.keep_time([4.0] * 2 + [0.1] * 5)
    assert schedule.epochs == 40


def test_no_epoch_begins_that_would_end_too_late():
    schedule, spent = Schedule(50, 3, limit_s=60.0, most_epochs=500), []
    rng = np.random.default_rng(0)
    while not schedule.is_over(len(spent)):
        spent.append(float(rng.uniform(1.0, 3.0)))
        schedule.keep_time(spent, reserve_s=2.0)
    assert 50 < sum(spent) + 2.0 < 63
    assert schedule.rate(len(spent) * 3 - 1) < 0.05


def test_a_revision_makes_no_jump_in_the_learning_rate():
    schedule = Schedule(20, 10)
    before = schedule.rate(80)
    schedule.wind_down(8)
    assert schedule.epochs == 10
    assert schedule.rate(80) == pytest.approx(before)
    assert schedule.rate(99) == pytest.approx(1 / 3000)
    schedule.wind_down(9)
    assert schedule.epochs == 10


def test_the_plan_survives_an_interruption():
    schedule = Schedule(20, 10, limit_s=30.0)
    schedule.keep_time([2.0] * 5)
    again = Schedule(3, 7)
    again.load_state_dict(schedule.state_dict())
    assert again == schedule
    assert [again.rate(k) for k in range(150)] == [schedule.rate(k) for k in range(150)]


def test_validations_are_spread_over_the_run_and_the_last_epoch_has_one():
    schedule = Schedule(60, 4)
    after = [k for k in range(60) if schedule.looks_after(k)]
    assert after[-1] == 59
    assert len(after) == 9
    assert after[0] >= 11
    assert max(np.diff(after)) <= 7
    short = Schedule(3, 4)
    assert [short.looks_after(k) for k in range(3)] == [True, True, True]


def test_patience_ends_only_what_has_learnt_something():
    plateau = Plateau(2)
    assert not any(plateau.add(score) for score in (0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.4))
    assert [plateau.add(score) for score in (0.9, 0.903, 0.95, 0.951, 0.94)] == [False, False, False, False, True]
    assert not any(Plateau(0).add(1.0) for _ in range(9))


def test_the_time_given_is_filled_with_epochs_and_announced():
    pace = Pace(step_s=0.5, validation_s=4.0, spent_s=6.0)
    schedule = plan(options(minutes=10), 3, 16, pace)
    assert 540 < pace.seconds(schedule.epochs, 16, 0, schedule.looks) < 594
    assert pace.seconds(schedule.epochs + 1, 16, 0, schedule.looks) >= 594
    text = pace.in_words(schedule, options(minutes=10))
    assert f"{schedule.epochs} epochs of 16 steps with 4 patches of 48 voxels; about 10 min, at most 10 min" in text
    assert "0.5 s per step" in text


def test_looking_takes_a_small_part_of_a_short_time():
    schedule = plan(options(minutes=2), 1, 16, Pace(0.5, 8.0, 0.0))
    assert schedule.looks == 2
    assert plan(options(minutes=20), 1, 16, Pace(0.5, 8.0, 0.0)).looks == 10


def test_without_a_time_the_recipe_or_the_user_says_how_many_epochs():
    assert plan(options(epochs=7), 3, 16, Pace()).epochs == 7
    usual = plan(options(), 1, 16, Pace())
    assert (usual.limit_s, usual.epochs) == (0.0, 47)
    assert plan(options(), 3, 16, Pace()).epochs == 94
    assert plan(options(epochs=7, minutes=60), 3, 16, Pace(0.1, 1.0, 0.0)).epochs == 7


def test_times_in_words():
    assert [minutes(s) for s in (42.0, 600.0, 9000.0)] == ["42 s", "10 min", "2.5 h"]


def test_a_run_that_winds_down_is_not_taken_up_again_because_time_is_left():
    schedule = Schedule(40, 4, limit_s=1000.0, most_epochs=200)
    schedule.wind_down(10)
    for done in (11, 12):
        schedule.keep_time([1.0] * done)
        assert schedule.epochs == 12
    assert schedule.is_over(12)
    assert schedule.rate(12 * 4 - 1) == pytest.approx(cycle_rate(1.0))


def test_the_clock_still_shortens_a_run_that_winds_down():
    schedule = Schedule(40, 4, limit_s=33.0, most_epochs=200)
    schedule.wind_down(30)
    assert schedule.epochs == 36
    schedule.keep_time([1.0] * 31)
    assert schedule.epochs == 33
