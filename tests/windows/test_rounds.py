"""Models that went on from each other, side by side in the window of a training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import pytest
from virtual_screen import picture, pump, pumpUntil

from deepetpicker.config import NetworkOptions
from deepetpicker.io.modelcard import METADATA_KEY, ClassCard, ModelCard
from deepetpicker.report.rounds import MOST, Round, origin_of, rounds_figure, rounds_of_file, told_apart
from deepetpicker.windows import charts
from tests.windows.hands import window_named, xdotool

pytestmark = pytest.mark.gui


def card_of(thresholds=(0.4, 0.6), **training):
    """Return the card of a model of two classes."""
    classes = tuple(ClassCard(i, name, 200.0, 9.0, t) for i, name, t in zip((0, 3), ("ring", "rod"), thresholds))
    return ModelCard(NetworkOptions(n_classes=2).to_dict(), classes, 10.0, 32, 8, "tball", "robust", 0.3, 0.1,
                     training=training)


def picks(*f1s, n_true=6):
    return [{"class_id": i, "name": name, "f1": f1, "precision": f1, "recall": f1, "average_precision": f1,
             "threshold": 0.4, "n_true": n_true, "n_picks": n_true}
            for i, name, f1 in zip((0, 3), ("ring", "rod"), f1s)]


def three():
    """Return a first model, one refined with corrections, and one that is being made."""
    first = card_of(picks=picks(0.6, 0.8), items=[{"name": "a", "particles": 20}, {"name": "b", "particles": 12}])
    second = card_of((0.5, 0.7), picks=picks(0.9, 0.9), round=2,
                     items=[{"name": "a", "particles": 41, "negatives": 9, "regions": 1}],
                     started_from={"file": "model.safetensors", "round": 1, "f1_before": 0.7, "f1_after": 0.85,
                                   "n_true": 12})
    return [Round.of(first, "train"), Round.of(second, "refine model, after the first look at the picks"),
            Round(3, "refine model 2", is_running=True)]


def test_a_round_says_what_its_card_says():
    first, second, running = three()
    assert (first.number, first.f1, first.before, first.n_true) == (1, pytest.approx(0.7), None, 12)
    assert (first.particles, first.negatives, first.thresholds) == (32, 0, {"ring": 0.4, "rod": 0.6})
    assert (second.number, second.before, second.after, second.n_true) == (2, 0.7, 0.85, 12)
    assert (second.particles, second.negatives, second.boxes) == (41, 9, 1)
    assert str(second).endswith("41 particles, 9 without one, 1 complete box, F1 0.70 -> 0.85 on the same 12 "
                                "held-out particles")
    assert str(running) == "round 3 (refine model 2): running"


def test_precision_that_nobody_knows_is_not_shown():
    partial = Round.of(card_of(picks=picks(0.2, 0.3), options={"unannotated": "unknown"}), "train")
    assert partial.f1 is None
    assert "F1" not in str(partial)
    assert str(Round.of(card_of(picks=picks(0.5, n_true=1)), "train")).endswith("F1 0.50 on 1 held-out particle")
    assert str(Round.of(card_of(), "import")) == "round 1 (import): nothing more is known"


def test_recall_and_f1_of_a_partial_annotation_say_which_picks_they_count():
    origin = {"file": "m.safetensors", "round": 1, "f1_before": 1.0, "f1_after": 1.0, "n_true": 12}
    one = Round.of(card_of(picks=picks(0.2, 0.3), options={"unannotated": "unknown"}, round=2, started_from=origin),
                   "refine")
    assert str(one) == ("round 2 (refine): recall 0.25 on 12 held-out particles, F1 of what is certain 1.00 -> 1.00 on "
                        "the same 12 held-out particles")
    assert rounds_figure([one]).axes[0].get_ylabel() == "F1 on held-out particles, of what is certain"


def test_a_model_from_elsewhere_knows_its_parent():
    assert origin_of(card_of()) is None
    origin = origin_of(card_of(started_from={"file": "older.safetensors", "round": 4}))
    assert (origin.number, origin.name, origin.particles) == (4, "older.safetensors", None)


def write(path, card):
    """Write a model file without weights; return its digest."""
    header = json.dumps({"__metadata__": {METADATA_KEY: card.to_json()}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def chain(folder):
    """Write three models that went on from each other, the second under another name; return the last."""
    first = write(folder / "first.safetensors", card_of(picks=picks(0.6, 0.8)))
    origin = {"file": "first.safetensors", "sha256": first, "round": 1}
    second = write(folder / "renamed.safetensors", card_of(picks=picks(0.7, 0.9), round=2, started_from=origin))
    (folder / "second.safetensors").write_text("another file of that name")
    last = card_of(picks=picks(0.9, 0.9), round=3, started_from={"file": "second.safetensors", "sha256": second,
                                                                  "round": 2, "f1_before": 0.8, "f1_after": 0.9})
    last = dataclasses.replace(last, validation=[{"epoch": e, "train_loss": 1 - e / 4, "pick_f1": e / 4}
                                                 for e in range(4)])
    write(folder / "last.safetensors", last)
    return folder / "last.safetensors"


def test_the_rounds_of_a_file_are_found_beside_it(tmp_path):
    last = chain(tmp_path)
    assert [(one.number, one.name) for one in rounds_of_file(last)] == [(1, "first"), (2, "renamed"), (3, "last")]
    (tmp_path / "renamed.safetensors").rename(tmp_path / ".second.123-0a1b2c3d.safetensors")  # a killed writer's
    assert [(one.number, one.name) for one in rounds_of_file(last)] == [(2, "second.safetensors"), (3, "last")]
    assert rounds_of_file(tmp_path / "nothing.safetensors") == []


def test_models_of_the_same_name_are_told_apart_by_their_folders():
    def named(*paths):
        return told_apart([pathlib.Path(path) for path in paths])

    assert named("a/one.x", "b/two.x") == ["one", "two"]
    assert named("p/Runs/12_train/extra/model.x", "p/Runs/15_refine/extra/model.x") == ["12_train", "15_refine"]
    assert named("p/a/model.x", "p/a/b/model.x", "p/model.x") == ["a/model", "a/b/model", "model"]
    assert named("p/m.x", "p/m/a/m.x") == ["m", "m/a/m"]


@pytest.mark.parametrize("name", ["a/b.safetensors", "../first.safetensors", "..", ".", "/", "a\0b", ""])
def test_a_card_that_names_no_file_of_the_folder_leads_to_nothing_else(tmp_path, name):
    (tmp_path / "in").mkdir()
    digest = write(tmp_path / "first.safetensors", card_of(picks=picks(0.6, 0.8)))
    write(tmp_path / "in" / "last.safetensors", card_of(round=2, started_from={"file": name, "sha256": digest}))
    assert [one.number for one in rounds_of_file(tmp_path / "in" / "last.safetensors")] == [1, 2]
    write(tmp_path / "in" / "first.safetensors", card_of(picks=picks(0.6, 0.8)))
    assert [one.name for one in rounds_of_file(tmp_path / "in" / "last.safetensors")] == ["first", "last"]


@pytest.mark.long
def test_the_command_shows_curves_and_rounds_of_a_model_file(tmp_path, display):
    if shutil.which("xdotool") is None:
        pytest.skip("needs xdotool")
    words = [sys.executable, "-m", "deepetpicker", "view", str(chain(tmp_path))]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    window = window_named("DeepETPicker training: last")
    assert "1050x860" in xdotool("getwindowgeometry", window)  # with room for the rounds
    xdotool("windowfocus", "--sync", window, "key", "ctrl+w")
    assert process.wait(timeout=40) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_the_picture_has_a_place_for_each_round():
    left, middle, right = rounds_figure(three()).axes
    labels = [text.get_text() for text in left.get_xticklabels()]
    assert labels == ["1: train", "2: refine model,\nafter the first\u2026", "3: refine model 2\n(running)"]
    shown = {line.get_label(): list(zip(*line.get_data())) for line in left.lines}
    assert shown["this round"] == [(0, pytest.approx(0.7)), (1, 0.85)]
    assert shown["the model it started from,\nsame particles"] == [(1, 0.7)]
    assert {line.get_label(): list(line.get_ydata()) for line in middle.lines} == {"ring": [0.4, 0.5],
                                                                                   "rod": [0.6, 0.7]}
    assert [bar.get_height() for bar in right.patches] == [32, 41, 0, 0, 9, 0]
    many = rounds_figure([Round(n, f"round {n}", particles=n) for n in range(1, 12)])
    assert len(many.axes[2].patches) == MOST
    bare = rounds_figure([Round(1, "a"), Round(2, "b")])
    assert [axes.texts[0].get_text() for axes in bare.axes[1:]] == ["not known", "not known"]


@pytest.mark.long
def test_the_window_shows_rounds_below_the_curves_and_follows(root):
    rows = [{"epoch": str(n), "train_loss": f"{0.6 - 0.05 * n}", "pick_f1": f"{0.1 * n}", "kept": "1"}
            for n in range(9)]
    rounds, running = three(), [True]
    window = charts.TrainingWindow("Training: refine model 2", lambda: list(rows), lambda: running[0], root,
                                   rounds=lambda: list(rounds)).open()
    pump(window.top, 0.3)
    assert "round 2" in window.told.cget("text")
    assert window.rounds_canvas.get_tk_widget().winfo_height() > 150
    assert window.canvas.get_tk_widget().winfo_height() > 150
    picture(window.top, "viewer_rounds")
    charts.REFRESH_MS, before = 50, charts.REFRESH_MS
    try:
        window._follow()
        rounds[2] = Round(3, "refine model 2", before=0.85, after=0.91, n_true=12, thresholds={"ring": 0.5},
                          particles=60)
        pumpUntil(window.top, lambda: "0.85 -> 0.91" in window.told.cget("text"))
        running[0] = False
        pumpUntil(window.top, lambda: "Running" not in window.text.get())
        rows[:], running[0] = rows[:2], True  # the training is run again while the window is open
        pumpUntil(window.top, lambda: window.text.get().startswith("2 epochs"))
        assert "Running" in window.text.get()
    finally:
        charts.REFRESH_MS = before
        window.close()
    alone = charts.TrainingWindow("Training", lambda: rows, lambda: False, root, rounds=lambda: rounds[:1]).open()
    pump(alone.top)
    assert alone.rounds_canvas is None  # one model has nothing beside it
    alone.close()
