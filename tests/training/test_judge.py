"""Ten ways in which a training goes wrong: the verdict names the cause and says what to do next."""

from __future__ import annotations

import json
import math

import mrcfile
import numpy as np
import pytest
from balls import small, write_set

from deepetpicker.evaluation.thresholds import ClassScore
from deepetpicker.io.modelcard import ClassCard, format_info, read_card
from deepetpicker.preparation.normalise import QUANTILES
from deepetpicker.training.run import train
from deepetpicker.training.verdict import Evidence, judge
from tests.detectors import write_detector

RING, ROD = ClassCard(1, "ring", 200.0, 9.0), ClassCard(4, "rod", 120.0, 7.0)
LEARNT = [0.9, 0.5, 0.3, 0.25, 0.22, 0.21, 0.205, 0.203, 0.202, 0.201]


def score(class_id: int, precision: float, recall: float, n_true: int = 12, n_like_true: int = 0) -> ClassScore:
    """Return the figures of a class."""
    total = precision + recall
    f1 = math.nan if not n_true else 2 * precision * recall / total if total else 0.0
    return ClassScore(class_id, 0.4, precision, recall, f1, 0.9, n_true, 10, n_like_true)


def verdict_on(first: ClassScore, second: ClassScore, losses=LEARNT, n_steps=800, particles=(40, 40), **more):
    """Return the verdict on figures of two classes."""
    curve = [{"train_loss": loss} for loss in losses]
    return judge(Evidence([first, second], [RING, ROD], {1: particles[0], 4: particles[1]}, curve, n_steps, **more))


GOOD = (score(1, 0.95, 0.95), score(4, 0.9, 0.95))
POOR = (score(1, 0.3, 0.2), score(4, 0.2, 0.3))


def test_a_good_training_is_called_good_with_its_figures():
    found = verdict_on(*GOOD)
    assert (found.grade, found.reasons) == ("good", ())
    assert str(found) == "good: mean F1 of its picks 0.94 on 24 held-out particles"


def test_what_is_good_by_recall_alone_says_that_false_picks_are_not_counted():
    found = verdict_on(*GOOD, is_unknown=True)
    assert found.grade == "good"
    assert "mean recall of its picks 0.95 on 24 held-out particles; how many of its picks are false" in str(found)
    assert "false" not in str(verdict_on(*GOOD))
    missed = verdict_on(GOOD[0], score(4, 0.2, 0.6), is_unknown=True).reasons
    assert [(one.cause, "false" in one.found) for one in missed] == [("particles missed", False)]


@pytest.mark.parametrize(("cause", "grade", "first", "second", "more"), [
    ("too few steps", "not usable", *POOR, {"losses": [0.9], "n_steps": 8}),
    ("too few steps", "not usable", *POOR, {"losses": np.linspace(0.9, 0.5, 10)}),
    ("loss not falling", "not usable", *POOR, {"losses": [0.9] * 10}),
    ("labels incomplete", "doubtful", score(1, 0.4, 0.9, n_like_true=9), GOOD[1], {}),
    ("labels incomplete", "doubtful", score(1, 0.1, 1, 3, 20), GOOD[1], {"losses": np.linspace(1, 0.5, 9)}),
    ("class without hits", "doubtful", GOOD[0], score(4, 0.0, 0.0), {}),
    ("class without particles", "doubtful", GOOD[0], score(4, 0.0, 0.0, n_true=0), {"particles": (40, 0)}),
    ("false picks", "doubtful", GOOD[0], score(4, 0.4, 0.9), {}),
    ("particles missed", "doubtful", GOOD[0], score(4, 0.9, 0.4), {}),
    ("held-out part too small", "doubtful", score(1, 1, 1, n_true=1), score(4, 1, 1, n_true=1), {}),
    ("coordinates or diameter", "not usable", *POOR, {"misfits": ["t0: they fit with y flipped"]}),
])
def test_the_cause_is_named(cause, grade, first, second, more):
    found = verdict_on(first, second, **more)
    assert (found.reasons[0].cause, found.grade) == (cause, grade)
    assert found.reasons[0].advice in str(found)


def test_false_picks_may_be_particles_nobody_marked():
    assert "if some of the false ones are particles, train with --unannotated unknown" in verdict_on(
        GOOD[0], score(4, 0.4, 0.9)).reasons[0].advice
    assert "unknown" not in verdict_on(GOOD[0], score(4, 0.9, 0.4)).reasons[0].advice


def outcome(folder, tmp_path, **options):
    """Return the verdict of a training in the manifest."""
    options = small(epochs=1, check=True, **options)
    made = train(folder, tmp_path / "m.safetensors", options, quiet=True)["outputs"]["verdict"]
    assert read_card(tmp_path / "m.safetensors").training["verdict"] == made
    assert made["text"] in format_info(read_card(tmp_path / "m.safetensors"))
    return made


def rewrite(folder, change) -> None:
    """Change the positions (N, 3), x y z, of all tables of balls in 40 x 48 x 56 voxels."""
    for table in folder.glob("*.csv"):
        head, *lines = table.read_text().splitlines()
        cells = [line.split(",") for line in lines]
        places = change(np.array([[float(v) for v in row[2:]] for row in cells]))
        table.write_text("\n".join([head, *(",".join([*row[:2], *(f"{v:.2f}" for v in at)])
                                            for row, at in zip(cells, places))]) + "\n")


@pytest.mark.long
@pytest.mark.parametrize(("change", "said"), [
    (lambda xyz: np.column_stack([55 - xyz[:, 0], xyz[:, 1:]]), "x flipped"),
    (lambda xyz: np.random.default_rng(5).uniform(4, (51, 43, 35), xyz.shape), "mark nothing")])
def test_flipped_and_random_coordinates_are_the_cause(tmp_path, change, said):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [14, 14])
    rewrite(folder, change)
    first = outcome(folder, tmp_path)["reasons"][0]
    assert first["cause"] == "coordinates or diameter"
    assert said in first["found"]


@pytest.mark.long
def test_a_diameter_twice_too_large_is_the_cause(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [12, 12])
    content = json.loads((folder / "classes.json").read_text())
    content["classes"][0]["diameter_angstrom"] *= 2
    (folder / "classes.json").write_text(json.dumps(content))
    first = outcome(folder, tmp_path)["reasons"][0]
    assert first["cause"] == "coordinates or diameter"
    assert "angstrom across, 160 were given" in first["found"]


@pytest.mark.long
def test_inverted_contrast_of_a_warm_start_is_the_cause(tmp_path):
    """In tomograms that are made coarser, too, where noise hides in their own voxels what the network sees."""
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [14, 14])
    for seed, path in enumerate(sorted(folder.glob("*.mrc"))):
        with mrcfile.open(path, "r+") as mrc:
            mrc.data[:] += np.random.default_rng(seed).normal(0, 3, mrc.data.shape).astype(np.float32)
    options = small(epochs=1, check=True, working_diameter=4.0)
    first = train(folder, tmp_path / "first.safetensors", options, quiet=True)["outputs"]["verdict"]
    assert first["reasons"][0]["cause"] == "too few steps"  # nothing is wrong with the data
    for path in folder.glob("*.mrc"):
        with mrcfile.open(path, "r+") as mrc:
            mrc.set_data(-mrc.data)
            mrc.voxel_size = 10.0
    again = outcome(folder, tmp_path, init=str(tmp_path / "first.safetensors"), working_diameter=4.0)
    assert again["reasons"][0]["cause"] == "contrast"
    assert len(QUANTILES) == len(read_card(tmp_path / "first.safetensors").intensity)


def counts_of(*rows):
    """Return as what particles of two classes pass in a tomogram, (2, 3)."""
    return np.array(rows)


@pytest.mark.parametrize(("taken_for", "said"), [
    ({"a": counts_of([9, 0, 1], [1, 8, 1]), "b": counts_of([1, 9, 0], [7, 2, 1])},
     "9 of 10 held-out particles of class 1 (ring) pass for class 4 (rod), and 7 of 10 the other way round in b"),
    ({"a": counts_of([5, 5, 0], [5, 4, 1])},
     "5 of 10 held-out particles of class 1 (ring) pass for class 4 (rod), and 5 of 10 the other way round")])
def test_swapped_classes_are_the_cause(taken_for, said):
    first = verdict_on(*POOR, taken_for=taken_for, misfits=["b: rings look too small"]).reasons[0]
    assert (first.cause, first.found) == ("classes swapped", said)
    assert "--class-map" in first.advice


@pytest.mark.parametrize("taken_for", [
    {}, {"a": counts_of([9, 1, 0], [8, 2, 0])},  # one passes for the other, not the other way round
    {"a": counts_of([0, 3, 0], [4, 0, 0])},  # too few
    {"a": counts_of([9, 1, 0], [0, 9, 1]), "b": counts_of([0, 1, 0], [1, 0, 0])},  # too few in b, right in a
    {"a": counts_of([0, 0, 9], [0, 0, 9])}, {"a": counts_of([8, 2, 0], [3, 7, 0])}])
def test_classes_are_not_called_swapped_without_a_reason(taken_for):
    assert verdict_on(*GOOD, taken_for=taken_for).grade == "good"


@pytest.mark.long
def test_ids_that_mean_another_class_in_one_tomogram_are_the_cause(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [14, 14], n_classes=2)
    head, *lines = (folder / "t1.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    (folder / "t1.csv").write_text("\n".join([head, *(",".join([str(3 - int(r[0])), f"ball_{3 - int(r[0])}", *r[2:]])
                                                      for r in rows)]) + "\n")
    model = write_detector(tmp_path / "both.safetensors", *(ClassCard(c, f"ball_{c}", 80.0, 5.0) for c in (1, 2)),
                           signs=(-1, 1), patch_vox=32, border_vox=8)
    options = small(epochs=1, validation=("t1",), init=str(model), widths=(), learning_rate=1e-6)
    made = train(folder, tmp_path / "m.safetensors", options, quiet=True)
    first = made["outputs"]["verdict"]["reasons"][0]
    assert first["cause"] == "classes swapped"
    assert "ball_1" in first["found"]
