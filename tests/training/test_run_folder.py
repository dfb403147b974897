"""The run folder: which runs are the same, and when corrected data are trained anew."""

from __future__ import annotations

import csv
import logging
import pathlib
from typing import Callable, Dict, List

import pytest
from balls import small, write_set

from deepetpicker.io.manifest import read_manifest
from deepetpicker.sampling.gather import gather
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import recipe_of

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
