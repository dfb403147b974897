"""What is said of a class that the held-out particles speak against, or say nothing about."""

from __future__ import annotations

import dataclasses
import logging
import math

import pytest
from balls import small, write_set

from deepetpicker.evaluation.thresholds import ClassScore, PickScores
from deepetpicker.io.modelcard import ClassCard, read_card
from deepetpicker.training import validation
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import read_metrics
from deepetpicker.training.verdict import doubts

CLASSES = (ClassCard(1, "ring", 200.0, 9.0), ClassCard(4, "rod", 120.0, 7.0), ClassCard(5, "disc", 90.0, 5.0))


def score(class_id: int, precision: float, recall: float, n_true: int = 12, ap: float = 0.9) -> ClassScore:
    """Return the figures of a class."""
    f1 = 2 * precision * recall / (precision + recall) if n_true else math.nan
    return ClassScore(class_id, 0.4, precision, recall, f1, ap, n_true, 10)


def test_a_poor_class_is_named_with_its_figure_and_what_to_do():
    found = doubts([score(1, 0.9, 0.9), score(4, 0.8, 0.3), score(5, 0.5, 0.9)], CLASSES, {1: 40, 4: 40, 5: 40})
    assert len(found) == 2
    assert found[0].startswith("class 4 (rod): pick F1 0.44 on 12 held-out particles is below 0.7, 70% of its "
                               "particles were missed: check")
    assert "label more" in found[0]
    assert "class 5 (disc): pick F1 0.64" in found[1]
    assert "50% of its picks were false" in found[1]


def test_a_class_without_held_out_particles_or_any_is_named():
    found = doubts([score(1, 0.9, 0.9), score(4, 0, 0, n_true=0), score(5, 0, 0, n_true=0)], CLASSES, {1: 9, 4: 2})
    assert "class 4 (rod): no particle is held out to judge its picks by (2 trained on)" in found[0]
    assert "class 5 (disc): no particles" in found[1]


def test_picks_that_look_like_particles_nobody_annotated_are_reported():
    hidden = dataclasses.replace(score(1, 0.4, 0.9), n_like_true=9)
    found = doubts([hidden, score(4, 0.9, 0.9), score(5, 0.9, 0.9)], CLASSES, {1: 40, 4: 40, 5: 40})
    assert found[0].startswith("class 1 (ring): 9 held-out picks where no particle is annotated score as well as the ")
    assert "--unannotated unknown" in found[0]
    assert len(found) == 1
    assert doubts([hidden], CLASSES[:1], {1: 40}, is_unknown=True) == []
    few = dataclasses.replace(score(1, 0.9, 0.9), n_like_true=2)
    assert doubts([few], CLASSES[:1], {1: 40}) == []


def test_precision_does_not_count_when_many_are_not_annotated():
    scores = [score(1, 0.2, 0.9), score(4, 0.9, 0.9), score(5, 0.9, 0.5)]
    assert [text[:7] for text in doubts(scores, CLASSES, {1: 9, 4: 9, 5: 9}, is_unknown=True)] == ["class 5"]


def test_nothing_is_called_false_where_many_are_not_annotated():
    [text] = doubts([score(1, 0.2, 0.6)], CLASSES[:1], {1: 9}, is_unknown=True)
    assert text.startswith("class 1 (ring): recall 0.60 on 12 held-out particles is below 0.7, 40% of its particles "
                           "were missed: check")
    assert not {"F1", "false"} & set(text.split())


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Return a folder of two tomograms with six balls of each of two classes."""
    return write_set(tmp_path_factory.mktemp("data"), [(40, 48, 56)] * 2, [12, 12], n_classes=2)


def poor(*given) -> PickScores:
    """Return figures as if class 2 were picked poorly, the better the later the epoch."""
    poor.calls += 1
    return PickScores((score(1, 1.0, 1.0), score(2, 0.5, 0.1 * poor.calls)), 0.35, 1.0)


@pytest.mark.long
def test_log_manifest_and_card_agree_on_the_kept_epoch_and_warn(two_classes, tmp_path, monkeypatch, caplog):
    poor.calls = 0
    monkeypatch.setattr(validation, "score_picks", poor)
    with caplog.at_level(logging.INFO, "deepetpicker"):
        manifest = train(two_classes, tmp_path / "m.safetensors", small(epochs=3), quiet=True)
    card, rows = read_card(tmp_path / "m.safetensors"), read_metrics(tmp_path / "m_run/metrics.csv")
    outputs, kept = manifest["outputs"], card.validation[2]
    f1 = (1.0 + 2 * 0.5 * 0.3 / 0.8) / 2
    assert outputs["kept_epoch"] == card.training["kept_epoch"] == 2
    assert outputs["chosen_by"] == card.training["chosen_by"] == "picks"
    assert [row["kept"] for row in rows] == [1, 1, 1]
    assert outputs["pick_f1"] == kept["pick_f1"] == pytest.approx(f1)
    assert rows[2]["pick_f1"] == pytest.approx(f1, abs=1e-5)
    assert f"kept epoch 2 of 0 to 2, chosen by picks (pick F1 {f1:.3f}" in caplog.text
    assert outputs["classes"] == card.training["picks"]
    assert outputs["classes"][1]["name"] == "ball_2"
    text = "class 2 (ball_2): pick F1 0.38 on 12 held-out particles is below 0.7"
    for place in (manifest["warnings"], card.warnings, caplog.messages):
        assert sum(text in line for line in place) == 1


@pytest.mark.long
def test_thresholds_per_class_are_in_the_card(two_classes, tmp_path):
    manifest = train(two_classes, tmp_path / "m.safetensors", small(epochs=1, validation_tiles=64), quiet=True)
    card = read_card(tmp_path / "m.safetensors")
    assert card.thresholds == {one["class_id"]: one["threshold"] for one in manifest["outputs"]["classes"]}
    assert sorted(card.thresholds) == [1, 2]
    assert sum(one["n_true"] for one in card.training["picks"]) == 12


@pytest.mark.long
def test_too_few_to_choose_by_picks_is_said(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [6, 3])
    manifest = train(folder, tmp_path / "m.safetensors", small(epochs=3, validate_every=1), quiet=True)
    assert (manifest["outputs"]["chosen_by"], manifest["outputs"]["kept_epoch"]) == ("last", 2)
    assert any("only 3 particle(s) held out" in w and "not chosen by the picks" in w for w in manifest["warnings"])
    manifest = train(folder, tmp_path / "n.safetensors", small(epochs=1, select="voxels"), quiet=True)
    assert manifest["outputs"]["chosen_by"] == "voxels"
    assert not any("only 3 particle(s)" in w for w in manifest["warnings"])


@pytest.mark.long
def test_unannotated_particles_do_not_choose(two_classes, tmp_path):
    manifest = train(two_classes, tmp_path / "m.safetensors", small(epochs=1, unannotated="unknown"), quiet=True)
    assert manifest["outputs"]["chosen_by"] == "last"
    assert any("nobody annotated count as false" in w for w in manifest["warnings"])
