"""A model that goes on from another one: what it keeps, what it says of itself, and whether it is better."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from balls import small, write_set

from deepetpicker.__main__ import main
from deepetpicker.config import RefineOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation.thresholds import ClassScore
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.classes import ParticleClass, with_known
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, format_info, read_card
from deepetpicker.picking.peaks import PeakRule
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.certain import Certain
from deepetpicker.sampling.holdout import as_before
from deepetpicker.sampling.patches import Annotated, PatchRule
from deepetpicker.training.run import refine, train
from deepetpicker.training.validation import Looked, Validator
from deepetpicker.training.verdict import Change, Evidence, judge

SHAPE = (40, 48, 96)
BALL = ClassCard(1, "ball", 80.0, 5.0)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Return a folder with a model of two classes and one refined by the command with particles of the first alone."""
    folder = tmp_path_factory.mktemp("rounds")
    data = write_set(folder / "data", [(40, 48, 56)] * 2, [12, 12], n_classes=2)
    options = small(epochs=1)
    train(data, folder / "first.safetensors", options, quiet=True)
    corrected = folder / "corrected"
    shutil.copytree(data, corrected)
    (corrected / "classes.json").unlink()
    for name in ("t0", "t1"):
        with open(data / f"{name}.csv", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row[0] != "2"]
        (corrected / f"{name}.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    (corrected / "t0_negatives.csv").write_text("x,y,z\n3,3,3\n")
    before = hashlib.sha256((folder / "first.safetensors").read_bytes()).hexdigest()
    words = ["--epochs", "1", "--patch", "32", "--batch", "2", "--patches-per-epoch", "4", "--precision", "float32",
             "--device", "cpu", "--validation-tiles", "4", "--quiet"]
    assert main(["refine", str(folder / "first.safetensors"), "--data", str(corrected), "--out",
                 str(folder / "second.safetensors"), *words]) == 0
    assert hashlib.sha256((folder / "first.safetensors").read_bytes()).hexdigest() == before
    return folder


def test_the_card_says_which_model_it_comes_from(rounds):
    card, digest = read_card(rounds / "second.safetensors"), hashlib.sha256((rounds / "first.safetensors").read_bytes())
    assert card.training["round"] == 2
    origin = card.training["started_from"]
    assert (origin["file"], origin["sha256"], origin["round"]) == ("first.safetensors", digest.hexdigest(), 1)
    assert f"round               2, from first.safetensors (round 1, SHA-256 {digest.hexdigest()[:16]})" in format_info(
        card)
    assert "round" not in read_card(rounds / "first.safetensors").training
    assert read_manifest(rounds / "second_run/manifest.json")["outputs"]["started_from"] == origin


def test_classes_network_and_held_out_part_are_those_of_the_model(rounds):
    """Also of a class of which the corrections have no particle."""
    first, second = (read_card(rounds / f"{name}.safetensors") for name in ("first", "second"))
    assert [(c.id, c.name, c.diameter_ang) for c in second.classes] == [(c.id, c.name, c.diameter_ang)
                                                                        for c in first.classes]
    assert len(second.classes) == 2
    assert second.network == first.network
    assert {i["name"]: i["role"] for i in second.training["items"]} == {i["name"]: i["role"]
                                                                        for i in first.training["items"]}
    assert second.training["options"]["unannotated"] == "unknown"
    assert second.training["items"][0]["negatives"] == 1


def test_the_verdict_compares_on_the_same_held_out_part(rounds):
    verdict = read_card(rounds / "second.safetensors").training["verdict"]
    assert "of what is certain, known particles and places without one alone, each model at its best threshold, on " \
           "the same held-out part (6 particles): before F1 " in verdict["text"]
    assert ", after F1 " in verdict["text"]


def test_a_worse_model_is_called_that(rounds):
    score = ClassScore(1, 0.4, 0.9, 0.9, 0.9, 0.9, 12, 12)
    evidence = Evidence([score], [BALL], {1: 40}, [{"train_loss": 0.2}], 300)
    assert judge(evidence).grade == "good"
    worse = judge(dataclasses.replace(evidence, change=Change(0.95, 0.9, 12)))
    assert (worse.grade, worse.reasons[0].cause) == ("doubtful", "worse than before")
    assert "before F1 0.95, after F1 0.90; next: go on with the model it started from" in str(worse)
    assert str(worse).count("before F1") == 1
    assert judge(dataclasses.replace(evidence, change=Change(0.8, 0.9, 12))).grade == "good"
    few = judge(dataclasses.replace(evidence, change=Change(0.95, 0.9, 2, False)))
    assert few.grade == "good"
    assert "2 particles, too few to tell, on some of which the model before was trained" in str(few)


def test_what_makes_no_sense_is_refused(rounds):
    with pytest.raises(InputError, match="expected another file for the new model"):
        refine(rounds / "first.safetensors", rounds / "corrected", rounds / "first.safetensors")
    with pytest.raises(InputError, match="'refine' goes on from a model, got none"):
        train(rounds / "corrected", rounds / "third.safetensors", RefineOptions())
    (rounds / "corrected/classes.json").write_text(json.dumps({"classes": []}))
    with pytest.raises(InputError, match="no such model file"):
        refine(rounds / "none.safetensors", rounds / "corrected", rounds / "third.safetensors")


def test_classes_of_the_data_and_of_the_model_come_together():
    model = [ParticleClass(1, "ring", 200.0), ParticleClass(4, "rod", 120.0)]
    assert with_known([], model) == tuple(model)
    assert with_known([ParticleClass(4, "rod", 0.0)], model) == tuple(model)
    moved = with_known([ParticleClass(7, "ring", 205.0)], model)
    assert [(c.id, c.name, c.diameter_ang) for c in moved] == [(4, "rod", 120.0), (7, "ring", 205.0)]
    other = with_known([ParticleClass(1, "disc", 90.0)], model)
    assert [(c.id, c.name) for c in other] == [(1, "disc"), (4, "rod")]


def tomogram(name: str, places, negatives=()) -> Annotated:
    """Return a tomogram of noise with particles of one class, and places without one."""
    certain = Certain(np.array(negatives, float).reshape(-1, 3))
    positions = np.array(places, float).reshape(-1, 3)
    source = open_working_volume(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),
                                 WorkingGrid(SHAPE, 10.0, 10.0))
    return Annotated(name, source, positions, np.ones(len(positions), int), whole(SHAPE), certain)


@pytest.mark.parametrize(("slab", "held"), [((0, 20), (0, 20)), ((70, 96), (70, 96))])
def test_the_same_slab_is_held_out_again(slab, held):
    one = tomogram("a", [[10, 10, 10], [10, 10, 50], [10, 10, 80]])
    earlier = [{"name": "a", "role": "both", "held_out_zyx_vox": [[0, 40], [0, 48], list(slab)]}]
    kept, out = as_before([one, tomogram("new", [[5, 5, 5]])], earlier, 1)
    assert (out[0].region_zyx[2].start, out[0].region_zyx[2].stop) == held
    assert [t.name for t in kept] == ["a", "new"]
    assert len(kept[0].inside) + len(out[0].inside) == 3


def test_the_slab_is_that_of_the_tomogram_also_on_a_coarser_grid():
    one = tomogram("a", [[10, 10, 10], [10, 10, 80]])
    coarse = dataclasses.replace(one, certain=Certain().on(WorkingGrid((80, 96, 192), 5.0, 10.0)))
    earlier = [{"name": "a", "role": "both", "held_out_zyx_vox": [[0, 80], [0, 96], [140, 192]]}]
    _, out = as_before([coarse], earlier, 1)
    assert (out[0].region_zyx[2].start, out[0].region_zyx[2].stop) == (70, 96)


def test_what_would_leave_nothing_to_train_on_or_to_judge_by_is_held_out_anew():
    one, two = tomogram("a", [[10, 10, 10]]), tomogram("b", [])
    assert as_before([one, two], [{"name": "a", "role": "validation"}, {"name": "b", "role": "training"}], 1) is None
    assert as_before([one, two], [{"name": "b", "role": "validation"}], 1) is None
    assert as_before([one], [{"name": "other", "role": "validation"}], 1) is None


def test_a_false_pick_counts_where_somebody_said_so():
    """Elsewhere it may be a particle that nobody annotated."""
    one = tomogram("a", [[10, 10, 10], [10, 30, 30]], [[30, 30, 60]])
    rule = PatchRule(32, 0.2, 0.1, "tball", {1: 5.0}, {1: 8.0}, True)
    judge_of = Validator([one], rule, [PeakRule(1, 8.0, 5.0)], 64, 3.0)
    truth = CoordinateTable.from_positions(one.positions_zyx_vox)
    places = np.array([[10.0, 10, 11], [10, 30, 30], [31, 30, 60], [20, 5, 90]])
    found = dataclasses.replace(CoordinateTable.from_positions(places), scores=np.array([0.9, 0.5, 0.7, 0.95]))
    scores = judge_of.on_certain([Looked("a", truth, found)])
    assert scores.classes[0].average_precision == pytest.approx((1 + 2 / 3) / 2)
    everything = Validator([one], dataclasses.replace(rule, is_unknown=False), [PeakRule(1, 8.0, 5.0)], 64, 3.0)
    assert everything.on_certain([Looked("a", truth, found)]).classes[0].average_precision < 0.6
