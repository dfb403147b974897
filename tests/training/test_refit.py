"""The refit: what was held out is learnt, too, when it has served to judge; no worse network is ever kept."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import safetensors
import torch
from balls import small, write_set

from deepetpicker.config import RefineOptions
from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, format_info, info, read_card
from deepetpicker.network.modelfile import load_model, save_model
from deepetpicker.training.pace import Pace, plan
from deepetpicker.training.run import refine, train
from deepetpicker.training.run_folder import read_metrics
from deepetpicker.training.stages.budget import of_refit, without_refit
from deepetpicker.training.stages.refit import Refit, worth
from tests.detectors import write_detector
from tests.moments import steps_of_training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with two tomograms of ten balls each; beside it is a model that finds them."""
    folder = tmp_path_factory.mktemp("refit")
    write_detector(folder / "sure.safetensors", ClassCard(1, "ball_1", 80.0, 5.0), signs=(-1,), patch_vox=32,
                   border_vox=8)
    return write_set(folder / "data", [(40, 48, 56), (40, 48, 48)], [10, 10])


@pytest.fixture(scope="module")
def options(data):
    """Return what makes options for a training that starts with a network that finds the balls, and is refitted."""
    def make(**changes):
        return small(**{"epochs": 6, "patches_per_epoch": 8, "init": str(data.parent / "sure.safetensors"),
                        "widths": (), "refit": "yes", **changes})
    return make


@pytest.fixture(scope="module")
def whole(data, options, tmp_path_factory):
    """Return the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    train(data, folder / "m.safetensors", options(), quiet=True)
    return folder


def states(path):
    """Return the state of the network that picks, and of the judged one, of a model file."""
    return [load_model(path, is_judged)[0].state_dict() for is_judged in (False, True)]


def are_same(one, other):
    """Tell whether two states have the same numbers."""
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.long
def test_it_goes_on_with_all_particles_and_says_so(whole):
    manifest, card = read_manifest(whole / "m_run/manifest.json"), read_card(whole / "m.safetensors")
    facts = manifest["outputs"]["refit"]
    assert facts == card.training["refit"]
    assert (facts["kept"], facts["particles"], facts["new"], facts["epochs"]) == (True, 20, 10, 2)
    assert facts["after"] >= facts["before"] - 0.01
    assert "before it went on with them" in manifest["outputs"]["verdict"]["text"]
    assert "went on with these, too: 20 particles" in format_info(card)
    assert card.training["options"]["epochs"] == 6


@pytest.mark.long
def test_the_stages_divide_the_epochs_and_only_the_judged_one_is_validated(whole):
    judged, last = (read_metrics(whole / part / "metrics.csv") for part in ("m_run", "m_run/m_refit_run"))
    assert (len(judged), len(last)) == (4, 2)
    assert sum(row["pick_f1"] == row["pick_f1"] for row in last) == 1  # at the end, against what it has seen
    assert read_card(whole / "m.safetensors").validation[-1]["epoch"] == 3


@pytest.mark.long
def test_the_file_holds_the_judged_network_too(whole):
    picks, judged = states(whole / "m.safetensors")
    assert not are_same(picks, judged)
    assert info(whole / "m.safetensors")["parameters"] == sum(value.numel() for value in picks.values())


@pytest.mark.long
def test_scores_thresholds_and_held_out_picks_are_of_the_judged_network(data, options, whole, tmp_path):
    train(data, tmp_path / "m.safetensors", options(epochs=4, refit="no"), quiet=True)
    alone, refitted = (read_card(folder / "m.safetensors") for folder in (tmp_path, whole))
    assert alone.classes == refitted.classes
    assert alone.training["picks"] == refitted.training["picks"]
    assert are_same(states(tmp_path / "m.safetensors")[0], states(whole / "m.safetensors")[1])
    tables = [sorted((folder / "m_run/held_out").glob("*.csv")) for folder in (tmp_path, whole)]
    assert [one.read_text() for one in tables[0]] == [one.read_text() for one in tables[1]]


@pytest.mark.long
def test_what_was_held_out_is_no_longer_new_to_the_model(data, whole, tmp_path):
    card = read_card(whole / "m.safetensors")
    assert {card.use_of(name) for name in ("t0", "t1")} == {"training", "both"}
    assert sorted(card.training["tomograms"]) == ["t0", "t1"]  # what changed the weights that pick
    assert len(card.training["validation"]) == 1


@pytest.mark.long
def test_a_run_interrupted_in_either_stage_ends_as_an_undisturbed_one(data, options, whole, tmp_path):
    """In the first step behind the first of four epochs, and of two, of four steps each."""
    for folder, step in (("m_run", 5), ("m_run/m_refit_run", 12 + 5)):
        with steps_of_training(interrupted_after=step), pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "m.safetensors", options(), quiet=True)
        assert len(read_metrics(tmp_path / folder / "metrics.csv")) == 1
        assert not (tmp_path / "m.safetensors").exists()
    train(data, tmp_path / "m.safetensors", options(), quiet=True)
    assert all(map(are_same, states(whole / "m.safetensors"), states(tmp_path / "m.safetensors")))


@pytest.mark.long
def test_refining_goes_on_from_the_judged_network_which_has_not_seen_the_held_out_part(data, whole, tmp_path):
    judged = whole / "judged.safetensors"
    save_model(judged, load_model(whole / "m.safetensors", is_judged=True)[0], read_card(whole / "m.safetensors"))
    made = [refine(model, data, tmp_path / f"{model.stem}_2.safetensors",
                   RefineOptions(**{**small(epochs=1, refit="no").to_dict(), "recipe": "refine"}), quiet=True)
            for model in (whole / "m.safetensors", judged)]
    facts = [one["outputs"]["started_from"] for one in made]
    assert facts[0]["f1_before"] == facts[1]["f1_before"]
    assert are_same(*(states(tmp_path / f"{name}_2.safetensors")[0] for name in ("m", "judged")))


@pytest.mark.long
def test_a_refit_that_spoils_the_network_is_left_out_and_said(data, options, tmp_path, caplog, monkeypatch):
    from deepetpicker.training.stages import refit

    monkeypatch.setattr(refit, "RATE", 1e6)  # which no network stands
    with caplog.at_level(logging.WARNING):
        train(data, tmp_path / "m.safetensors", options(), quiet=True)
    manifest, card = read_manifest(tmp_path / "m_run/manifest.json"), read_card(tmp_path / "m.safetensors")
    assert "is worse: the network before it is kept" in caplog.text
    assert any(text.startswith("the refit is left out") for text in manifest["warnings"])
    assert card.training["refit"]["kept"] is False
    assert len(card.training["tomograms"]) == 1
    assert not card.is_refitted
    assert are_same(*states(tmp_path / "m.safetensors"))
    assert "before it went on" not in manifest["outputs"]["verdict"]["text"]


@pytest.mark.long
@pytest.mark.parametrize("changes", [{"epochs": 2}, {"epochs": 2, "recipe": "published", "refit": "auto"},
                                     {"epochs": 0, "minutes": 0.02, "validation": ("t1",)},
                                     {"epochs": 0, "minutes": 0.02, "unannotated": "unknown", "self_training": "no"},
                                     {"epochs": 2, "refit": "no"}])
def test_when_it_is_not_done(data, options, tmp_path, changes):
    train(data, tmp_path / "m.safetensors", options(**{"refit": "auto", "patches_per_epoch": 4, **changes}), quiet=True)
    assert not (tmp_path / "m_run/m_refit_run").exists()
    assert "refit" not in read_card(tmp_path / "m.safetensors").training


@pytest.mark.long
def test_what_a_training_by_the_clock_leaves_is_for_the_refit(data, options, tmp_path):
    """Its picks soon stop getting better, so that most of the time is left."""
    train(data, tmp_path / "m.safetensors", options(epochs=0, minutes=5.0, refit="auto", validate_every=1, patience=1),
          quiet=True)
    judged, last = (read_metrics(tmp_path / part / "metrics.csv") for part in ("m_run", "m_run/m_refit_run"))
    assert 0 < len(last) <= len(judged) < 94  # epochs of the recipe
    card = read_card(tmp_path / "m.safetensors")
    assert (card.training["options"]["minutes"], card.training["refit"]["epochs"]) == (5.0, len(last))


def rows_of(n, seconds):
    """Return the metrics of some epochs that took so long in all."""
    return [{"seconds": seconds / n} for _ in range(n)]


@pytest.mark.parametrize(("epochs", "minutes", "curve", "wanted"), [
    (0, 10.0, rows_of(20, 300), (20, 5.0)),  # what is left, and no more epochs than the judged training took
    (0, 10.0, rows_of(20, 480), (20, 2.0)),
    (0, 10.0, rows_of(20, 570), None),  # half a minute is nothing beside nine and a half
    (0, 10.0, rows_of(20, 660), None),  # it was late
    (0, 0.0, rows_of(20, 480), (10, 0.0)),
    (6, 0.0, rows_of(4, 480), (2, 0.0)),
    (6, 10.0, rows_of(4, 240), (2, 6.0)),
    (1, 0.0, rows_of(1, 10), (1, 0.0))])
def test_what_a_refit_takes(epochs, minutes, curve, wanted):
    made = of_refit(small(epochs=epochs, minutes=minutes), curve)
    assert (made and (made.epochs, pytest.approx(made.minutes))) == wanted


@pytest.mark.parametrize(("epochs", "kept"), [(0, 0), (1, 1), (2, 2), (3, 2), (6, 4), (60, 40)])
def test_epochs_that_are_given_are_shared(epochs, kept):
    assert without_refit(small(epochs=epochs)).epochs == kept


@pytest.mark.parametrize(("minutes", "epochs", "limit"), [
    (4.0, 24, 240),  # less than the recipe wants: all of it, nothing is left
    (12.0, 47, 720),  # the recipe's 47 epochs, and the rest for the refit
    (20.0, 60, 600)])  # more than twice as much: half of it
def test_the_judged_training_takes_what_the_recipe_asks_for_or_half(minutes, epochs, limit):
    made = plan(small(epochs=0, minutes=minutes, validate_every=1), 1, 32, Pace(step_s=9.9 / 32, spent_s=0.0), 0.5)
    assert (made.epochs, made.limit_s) == (epochs, limit)


def test_it_is_refused_on_several_devices(data, options, tmp_path):
    with pytest.raises(InputError, match="several devices: expected one"):
        train(data, tmp_path / "m.safetensors", options(devices=2), quiet=True)
    assert list(tmp_path.iterdir()) == []


def rows(truth, found, name="t"):
    """Return what was found in a part, as a checkpoint holds it."""
    return {"name": name, "truth": torch.tensor(truth, dtype=torch.float64).reshape(-1, 4),
            "found": torch.tensor(found, dtype=torch.float64).reshape(-1, 5)}


BALL = ClassCard(1, "ball", 80.0, 5.0, threshold=0.4)
ROD = ClassCard(2, "rod", 80.0, 5.0, threshold=0.6)


@pytest.mark.parametrize(("found", "f1", "recall"), [
    ([(1, 5, 5, 5, 0.9), (1, 9, 5, 5, 0.9)], 1.0, 1.0),
    ([(1, 5, 5, 5, 0.9), (1, 9, 5, 5, 0.3)], 2 / 3, 0.5),  # below its threshold
    ([(1, 5, 5, 5, 0.9), (1, 9, 5, 5, 0.9), (1, 50, 5, 5, 0.9), (1, 60, 5, 5, 0.9)], 2 / 3, 1.0),
    ([(2, 5, 5, 5, 0.9)], 0.0, 0.0),  # of another class
    ([], 0.0, 0.0)])
def test_picks_are_worth_their_mean_f1_or_recall_at_the_thresholds(found, f1, recall):
    part = rows([(1, 5, 5, 5), (1, 9, 5, 5)], found)
    radii = {1: 2.0, 2: 2.0}
    assert worth([part], [BALL, ROD], radii) == pytest.approx(f1)
    assert worth([part], [BALL, ROD], radii, is_unknown=True) == pytest.approx(recall)


def test_a_class_counts_once_however_many_particles_it_has():
    part = rows([(1, 5, 5, 5), (1, 9, 5, 5), (2, 30, 5, 5)], [(1, 5, 5, 5, 0.9), (1, 9, 5, 5, 0.9)])
    assert worth([part, rows([], [], "u")], [BALL, ROD], {1: 2.0, 2: 2.0}) == pytest.approx(0.5)


def test_nothing_held_out_is_worth_nothing_that_is_known_and_keeps_no_refit():
    assert np.isnan(worth([], [BALL], {1: 2.0}))
    assert not Refit({}, 3, 1, 2, float("nan"), float("nan")).is_kept


@pytest.mark.parametrize(("before", "after", "is_kept"), [(0.9, 0.95, True), (0.9, 0.895, True), (0.9, 0.85, False)])
def test_a_worse_one_is_not_kept(before, after, is_kept):
    refit = Refit({}, 20, 10, 4, before, after)
    assert refit.is_kept is is_kept
    assert ("which is worse" in str(refit)) is not is_kept


def test_a_file_whose_judged_weights_do_not_fit_is_refused(tmp_path):
    from deepetpicker.config import NetworkOptions
    from deepetpicker.io.modelcard import ModelCard
    from deepetpicker.network.resunet import ResUNet3D

    network = ResUNet3D(NetworkOptions(widths=(4, 6)))
    card = ModelCard(network=network.options.to_dict(), classes=(BALL,), voxel_size_ang=10.0, patch_vox=32,
                     border_vox=12, label="tball", normalisation="n", threshold=0.4, score_floor=0.1)
    judged = dict(network.state_dict())
    save_model(tmp_path / "good.safetensors", network, card, judged=judged)
    assert are_same(*states(tmp_path / "good.safetensors"))
    judged.popitem()
    save_model(tmp_path / "bad.safetensors", network, card, judged=judged)
    for is_judged in (False, True):
        with pytest.raises(ModelFileError, match="do not fit"):
            load_model(tmp_path / "bad.safetensors", is_judged)
    with safetensors.safe_open(tmp_path / "good.safetensors", "pt") as file:
        assert sum(name.startswith("judged.") for name in list(file.keys())) * 2 == len(list(file.keys()))
