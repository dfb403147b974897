"""Self-training: a first network's sure finds are labels of the second; held-out parts get none."""

from __future__ import annotations

import logging
import pathlib
import types

import numpy as np
import pytest
import torch
from balls import small, write_set

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.network.modelfile import load_model
from deepetpicker.sampling.certain import Certain
from deepetpicker.training.recipe import filled_in, second_rate
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import read_metrics
from deepetpicker.training.stages import selftraining
from deepetpicker.training.stages.budget import with_first
from deepetpicker.training.validation import Looked
from tests.detectors import write_detector
from tests.moments import steps_of_training


def options(**changes):
    """Return options for a training where not everything is annotated."""
    return small(**{"epochs": 6, "patches_per_epoch": 8, "unannotated": "unknown", **changes})


def from_sure(data, **changes):
    """Return options for a training that starts with a network that is sure of the balls."""
    return options(init=str(data.parent / "sure.safetensors"), widths=(), validation=("t1",), **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with two tomograms of ten balls each; four of the first are annotated, five of the second.

    Beside it is a model that finds them.
    """
    above = tmp_path_factory.mktemp("selftraining")
    write_detector(above / "sure.safetensors", ClassCard(1, "ball_1", 80.0, 5.0), signs=(-1,), patch_vox=32,
                   border_vox=8)
    folder = write_set(above / "data", [(40, 48, 56), (40, 48, 48)], [10, 10])
    for name, n in (("t0", 4), ("t1", 5)):
        table = folder / f"{name}.csv"
        (folder / f"all_{name}.txt").write_text(table.read_text())
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:n + 1]))
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Return the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    train(data, folder / "m.safetensors", from_sure(data), quiet=True)
    return folder


@pytest.mark.long
def test_sure_finds_become_labels_and_are_there_to_be_seen(data, whole):
    manifest = read_manifest(whole / "m_run/manifest.json")
    found = read_coordinates(whole / "m_run/found/t0.csv").positions_zyx_vox
    assert manifest["outputs"]["found"] == {"t0": len(found)}
    every = np.loadtxt(data / "all_t0.txt", delimiter=",", skiprows=1, usecols=(4, 3, 2))
    apart = np.linalg.norm(found[:, None] - every[None], axis=2)
    hits = set(apart.argmin(1)[apart.min(1) < 4])
    assert len(hits - {0, 1, 2, 3}) >= 3  # of six that nobody annotated
    assert not hits & {0, 1, 2, 3}  # the annotated ones are labels already
    assert load_model(whole / "m.safetensors")[1].training["found"] == {"t0": len(found)}


@pytest.mark.long
def test_held_out_tomograms_get_no_labels(data, whole):
    assert not (whole / "m_run/found/t1.csv").exists()
    truth = read_coordinates(whole / "m_run/held_out/t1_truth.csv").positions_zyx_vox
    np.testing.assert_allclose(truth, read_coordinates(data / "t1.csv").positions_zyx_vox, atol=1e-3)


@pytest.mark.long
def test_the_trainings_divide_the_epochs(whole):
    first, second = (read_metrics(whole / part / "metrics.csv") for part in ("m_run/m_first_run", "m_run"))
    assert (len(first), len(second)) == (3, 3)


@pytest.mark.long
def test_a_run_interrupted_in_either_training_ends_as_an_undisturbed_one(data, whole, tmp_path):
    """In the first step behind the first of three epochs, of four steps each."""
    for folder, step in (("m_run/m_first_run", 5), ("m_run", 8 + 5)):
        with steps_of_training(interrupted_after=step), pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "m.safetensors", from_sure(data), quiet=True)
        assert len(read_metrics(tmp_path / folder / "metrics.csv")) == 1
        assert not (tmp_path / "m.safetensors").exists()
    train(data, tmp_path / "m.safetensors", from_sure(data), quiet=True)
    one, other = (load_model(folder / "m.safetensors")[0].state_dict() for folder in (whole, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("changes", "is_wanted"), [
    ({}, True), ({"unannotated": "background"}, False), ({"recipe": "published"}, False), ({"recipe": "refine"}, False),
    ({"self_training": "no"}, False), ({"unannotated": "background", "self_training": "yes"}, True),
    ({"devices": 2}, False)])
def test_when_it_is_done(changes, is_wanted):
    assert selftraining.is_wanted(options(**changes)) is is_wanted


def test_it_is_refused_where_it_is_not_done():
    with pytest.raises(InputError, match="several devices: expected one"):
        selftraining.is_wanted(options(self_training="yes", devices=2))


@pytest.mark.parametrize(("epochs", "minutes"), [(9, 0.0), (1, 0.0), (0, 0.0), (0, 6.0), (9, 6.0)])
def test_the_budget_is_divided(epochs, minutes):
    first, second = with_first(options(epochs=epochs, minutes=minutes), 1, 64)
    assert first.minutes + second.minutes == pytest.approx(minutes)
    assert first.minutes <= second.minutes
    if epochs > 1:
        assert first.epochs + second.epochs == epochs
    if minutes and not epochs:
        assert first.epochs == second.epochs == 0
    elif not epochs:
        assert first.epochs + second.epochs == 63  # of 2000 patches for the class, and as many more
    assert min(first.epochs, second.epochs) >= (0 if minutes and not epochs else 1)


def test_the_second_training_learns_faster_unless_the_user_says_how_fast():
    for given, rate in ((0.0, 2e-3), (1e-4, 1e-4)):
        asked = small(learning_rate=given)
        assert second_rate(asked, filled_in(asked, [20.0], starts_generic=True)) == rate
    cold = small()
    assert second_rate(cold, filled_in(cold, [20.0])) == 4e-3


def job(n_known=2, diameter=10.0):
    """Return what of a run tells which finds are sure."""
    classes = (types.SimpleNamespace(id=7, name="ball", diameter_ang=100.0),)
    tomogram = types.SimpleNamespace(
        name="t", positions_zyx_vox=np.array([[20.0, 20, 20], [20, 60, 20]][:n_known]).reshape(-1, 3),
        certain=Certain(negatives_zyx_vox=np.array([[60.0, 60, 60]])), inside=np.arange(n_known))
    return types.SimpleNamespace(
        rule=types.SimpleNamespace(diameters_vox={1: diameter}, negative_radius_vox=5.0), train=[tomogram],
        gathered=types.SimpleNamespace(classes=classes), run=types.SimpleNamespace(found=pathlib.Path("r")))


def looked(*rows):
    """Return candidates (z, y, x, score) of the class 7."""
    rows = np.array(rows, float).reshape(-1, 4)
    table = CoordinateTable(rows[:, :3], np.full(len(rows), 7), rows[:, 3])
    return Looked("t", table, table)


@pytest.mark.parametrize(("rows", "kept"), [
    ([(40, 40, 40, 0.7)], [(40, 40, 40)]),
    ([(40, 40, 40, 0.4)], []),  # in doubt
    ([(22, 20, 20, 0.7)], []),  # annotated
    ([(61, 60, 60, 0.7)], []),  # said to be none
    ([(40, 40, 40, 0.6), (43, 40, 40, 0.7)], [(43, 40, 40)]),  # one particle
    ([(40, 40, 40, 0.6), (48, 40, 40, 0.7)], [(48, 40, 40), (40, 40, 40)]),
    ([(40, 40, 40, 0.6), (46, 40, 40, 0.7)], []),  # one particle or two
    ([(40, 40, 40, 0.6), (46, 40, 40, 0.2)], [(40, 40, 40)]),  # the other is noise
    ([(26, 20, 20, 0.7)], []),  # a part of the annotated one, or a neighbour
    ([], [])])
def test_what_is_sure(rows, kept):
    run = job()
    table = selftraining.sure(run.train[0], looked(*rows), run)
    assert [tuple(p) for p in table.positions_zyx_vox.tolist()] == kept


def test_nothing_annotated_in_a_tomogram_is_no_hindrance():
    run = job(0)
    assert len(selftraining.sure(run.train[0], looked((1, 2, 3, 0.6)), run)) == 1


@pytest.mark.parametrize(("n_found", "says"), [(0, "no particle beside"), (30, ""), (101, "which is many")])
def test_odd_numbers_are_told(n_found, says):
    text = selftraining.odd(job(), {"t": n_found})
    assert says in text
    assert bool(text) == bool(says)


@pytest.mark.long
def test_a_run_that_finds_nothing_says_so(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(data, tmp_path / "m.safetensors",
              options(epochs=2, patches_per_epoch=4, learning_rate=1e-6, validation=("t1",)), quiet=True)
    assert "sure of no particle" in caplog.text
    assert any("sure of no particle" in text for text in read_manifest(tmp_path / "m_run/manifest.json")["warnings"])
