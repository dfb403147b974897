"""A training that is given minutes: the plan follows the clock, here one that is made up."""

from __future__ import annotations

import itertools
import logging
import types

import pytest
from balls import small, write_set

from deepetpicker.io.modelcard import read_card
from deepetpicker.training.loop import callbacks
from deepetpicker.training.loop.callbacks import read_checkpoint
from deepetpicker.training.pace import Pace
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import read_metrics
from deepetpicker.training.stages import epochs
from tests.moments import steps_of_training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of two tomograms with six balls each."""
    return write_set(tmp_path_factory.mktemp("data"), [(40, 48, 56)] * 2, [6, 6])


@pytest.fixture
def clock(monkeypatch):
    """Make every look at the clock of an epoch's end find a second passed, and a step look like half of one."""
    ticks = itertools.count()
    monkeypatch.setattr(callbacks, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    monkeypatch.setattr(epochs, "measure", lambda *_: Pace(step_s=0.5, validation_s=1.0, spent_s=0.0))


@pytest.mark.long
def test_a_training_ends_within_its_minutes_at_the_lowest_rate(data, tmp_path, clock, caplog):
    with caplog.at_level(logging.INFO, "deepetpicker"):
        manifest = train(data, tmp_path / "m.safetensors", small(epochs=0, minutes=0.5, validate_every=4, refit="no"),
                         quiet=True)
    rows = read_metrics(tmp_path / "m_run/metrics.csv")
    planned = "23 epochs of 2 steps with 2 patches of 32 voxels; about 29 s, at most 0.5 min"
    assert planned in caplog.text
    assert 6 < len(rows) < 23
    assert sum(row["seconds"] for row in rows) <= 30
    assert rows[-1]["learning_rate"] < 1e-5
    assert rows[-1]["pick_f1"] == rows[-1]["pick_f1"]
    assert manifest["outputs"]["epochs"] == len(rows)
    assert read_card(tmp_path / "m.safetensors").training["options"]["minutes"] == 0.5


@pytest.mark.long
def test_an_interrupted_one_goes_on_with_its_plan(data, tmp_path, clock):
    options = small(epochs=0, minutes=0.5, validate_every=4, refit="no")
    with steps_of_training(interrupted_after=11), pytest.raises(KeyboardInterrupt):  # two an epoch
        train(data, tmp_path / "m.safetensors", options, quiet=True)
    plan = read_checkpoint(tmp_path / "m_run/last.ckpt").schedule
    assert len(plan["history"]) > 1
    train(data, tmp_path / "m.safetensors", options, quiet=True)
    rows = read_metrics(tmp_path / "m_run/metrics.csv")
    assert [row["epoch"] for row in rows] == list(range(len(rows)))
    assert sum(row["seconds"] for row in rows) <= 30
    assert read_checkpoint(tmp_path / "m_run/last.ckpt").schedule["history"][:len(plan["history"])] == plan["history"]
