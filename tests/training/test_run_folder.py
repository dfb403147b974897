"""The run folder: which runs are the same, and when corrected data are trained anew."""

from __future__ import annotations

import csv
import logging
import os
import pathlib
from typing import Callable, Dict, List

import pytest
import torch
from balls import small, write_set

from deepetpicker.errors import OutputError
from deepetpicker.io.manifest import Manifest, read_manifest
from deepetpicker.sampling.gather import gather
from deepetpicker.training.loop.callbacks import LastCheckpoint, is_readable
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import MetricsFile, RunFolder, changed_since, read_metrics, recipe_of

Rows = List[Dict[str, str]]


def rewrite(table: pathlib.Path, change: Callable[[Rows], None]) -> None:
    """Change the rows of a coordinate table in place."""
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with open(table, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def swap_classes(rows: Rows) -> None:
    """Exchange the classes 1 and 2."""
    for row in rows:
        row["class_id"] = {"1": "2", "2": "1"}[row["class_id"]]
        row["class_name"] = f"ball_{row['class_id']}"


def swap_axes(rows: Rows) -> None:
    """Exchange x and y."""
    for row in rows:
        row["x"], row["y"] = row["y"], row["x"]


def reverse(rows: Rows) -> None:
    """Turn the order of the rows round: other patches are drawn."""
    rows.reverse()


def nudge(rows: Rows) -> None:
    """Move one particle up and another down by the same amount."""
    rows[0]["x"], rows[1]["x"] = str(float(rows[0]["x"]) + 0.5), str(float(rows[1]["x"]) - 0.5)


@pytest.mark.parametrize("change", [swap_classes, swap_axes, reverse, nudge])
def test_corrected_tables_are_another_recipe(tmp_path, change):
    folder = write_set(tmp_path / "data", [(40, 48, 48)] * 2, [8, 8], n_classes=2)
    before = recipe_of(small(), gather(folder, small()))
    assert recipe_of(small(), gather(folder, small())) == before
    rewrite(folder / "t0.csv", change)
    after = recipe_of(small(), gather(folder, small()))
    assert after["items"][0] != before["items"][0]
    assert after["items"][1] == before["items"][1]


@pytest.mark.long
def test_swapped_classes_are_trained_anew(tmp_path, caplog):
    folder = write_set(tmp_path / "data", [(40, 48, 48)] * 2, [8, 8], n_classes=2)
    options = small(epochs=1)
    first = train(folder, tmp_path / "m.safetensors", options, quiet=True)
    for name in ("t0.csv", "t1.csv"):
        rewrite(folder / name, swap_classes)
    with caplog.at_level(logging.INFO, "deepetpicker"):
        again = train(folder, tmp_path / "m.safetensors", options, quiet=True)
    assert "nothing to do" not in caplog.text
    assert "the tomograms or particles changed" in caplog.text
    assert read_manifest(tmp_path / "m_run_1/manifest.json") == first
    assert again["started"] >= first["started"]


def test_a_checkpoint_with_one_bit_changed_is_not_gone_on_from(tmp_path):
    state = {"epoch": 1, "callbacks": {"EpochEnd": {"has_stopped": False, "best": {"weights": torch.ones(500)},
                                                    "curve": [], "schedule": {}}}}
    torch.save(state, tmp_path / "last.ckpt")
    assert is_readable(tmp_path / "last.ckpt")
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 400] ^= 1
    (tmp_path / "last.ckpt").write_bytes(bytes(content))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1  # torch does not notice
    assert not is_readable(tmp_path / "last.ckpt")


def test_metrics_are_written_from_the_checkpoint_whatever_the_file_says(tmp_path):
    curve = [{"epoch": 0.0, "train_loss": 0.5, "seconds": 1.25}, {"epoch": 1.0, "train_loss": 0.25, "kept": 1.0}]
    (tmp_path / "metrics.csv").write_bytes(b"\0" * 80)
    MetricsFile(tmp_path / "metrics.csv", curve[:1]).append(curve[1])
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["train_loss"]) for row in rows] == [(0.0, 0.5), (1.0, 0.25)]


@pytest.mark.parametrize("damage", ["", "m.safetensors", "metrics.csv", "manifest.json"])
def test_a_run_with_a_damaged_model_or_metrics_is_not_taken_for_finished(tmp_path, damage, caplog):
    run, recipe = RunFolder(tmp_path / "m.safetensors"), {"options": {}}
    run.prepare(recipe)
    run.model.write_bytes(b"model")
    run.metrics.write_text("epoch")
    manifest = Manifest("train", {}, argv=[])
    manifest.outputs["sha256"] = run.digests()
    manifest.write(run.manifest)
    for path in (run.model, run.metrics, run.manifest):
        if path.name == damage:
            path.write_bytes(path.read_bytes()[:-3])
    assert (run.finished(recipe) is None) == bool(damage)
    assert ("were changed since the training or are damaged" in caplog.text) == (damage not in ("", "manifest.json"))


def test_a_tomogram_that_is_changed_while_it_is_trained_on_is_named(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 48)] * 2, [8, 8])
    recipe = recipe_of(small(), gather(folder, small()))
    assert changed_since(recipe) == []
    os.utime(folder / "t1.mrc", ns=(1, 1))
    assert changed_since(recipe) == [f"t1: {folder / 't1.mrc'} was changed while it was trained on: the model may have "
                                     "seen both; train again"]


def test_a_checkpoint_that_was_not_written_without_a_word_is_an_error(tmp_path):
    class Trainer:  # as Lightning's, which passes over a PermissionError
        is_global_zero = True

        def save_checkpoint(self, path):
            pass

    with pytest.raises(OutputError, match=r"cannot write .*last.ckpt: Permission denied; no permission: choose"):
        LastCheckpoint(tmp_path / "last.ckpt").on_train_epoch_end(Trainer(), None)
