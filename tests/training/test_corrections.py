"""What a training makes of corrections: places without a particle, and regions in which everything was annotated."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from balls import small, write_set

from deepetpicker.config import TrainOptions, from_mapping
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.modelcard import read_card
from deepetpicker.io.regions import Region, write_negatives, write_regions
from deepetpicker.picking.peaks import PeakRule
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.sampling.patches import PatchRule
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import RunFolder, recipe_of
from deepetpicker.training.validation import Validator

SHAPE = (40, 48, 56)


@pytest.fixture
def data(tmp_path):
    """Return a folder of two tomograms with ten balls each; half of the second is annotated completely."""
    folder = write_set(tmp_path / "data", [SHAPE] * 2, [10, 10])
    write_regions(folder / "t1_regions.csv", [Region((0, 0, 0), (39, 47, 27))])
    write_negatives(folder / "t0_negatives.csv", np.array([[3.0, 3, 3], [35, 40, 50]]))
    return folder


def validator(folder, unannotated: str = "unknown") -> Validator:
    """Return the validator of the second tomogram."""
    tomograms = annotate(gather(folder, small()), folder / "cache")
    rule = PatchRule(32, 0.2, 0.1, "tball", {1: 5.0}, {1: 8.0}, unannotated == "unknown")
    return Validator(tomograms[1:], rule, [PeakRule(1, 8.0, 5.0, "tball")], 64, 3.0)


@pytest.mark.long
def test_a_training_says_what_it_used_and_notices_when_that_changes(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "deepetpicker"):
        manifest = train(data, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    assert "outside of them, what is not annotated is taken for unknown" in caplog.text
    card = read_card(tmp_path / "m.safetensors")
    assert card.training["options"]["unannotated"] == manifest["options"]["unannotated"] == "unknown"
    facts = {item["name"]: item for item in card.training["items"]}
    assert (facts["t0"]["negatives"], facts["t1"]["regions"]) == (2, 1)
    assert {item["name"]: item.get("negatives", 0) for item in manifest["items"]} == {"t0": 2, "t1": 0}
    caplog.clear()
    with caplog.at_level(logging.INFO, "deepetpicker"):
        train(data, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
        assert "nothing to do" in caplog.text
        write_negatives(data / "t0_negatives.csv", np.array([[3.0, 3, 3]]))
        options, run = from_mapping(TrainOptions, manifest["options"]), RunFolder(tmp_path / "m.safetensors")
        changed = {**recipe_of(options, gather(data, options)), "init_sha256": ""}
        assert run.finished(changed) is None
        assert not run.prepare(changed)
    assert "starting afresh, because the tomograms or particles changed (or the places without one" in caplog.text
    assert run.path.with_name("m_run_1").is_dir()


@pytest.mark.parametrize("change", ["moved negative", "region", "no regions"])
def test_other_negatives_or_regions_are_another_recipe(data, change):
    before = recipe_of(small(), gather(data, small()))
    if change == "moved negative":
        write_negatives(data / "t0_negatives.csv", np.array([[3.0, 3, 3], [35, 40, 49]]))
    elif change == "region":
        write_regions(data / "t1_regions.csv", [Region((0, 0, 0), (39, 47, 28))])
    else:
        (data / "t1_regions.csv").unlink()
    after = recipe_of(small(), gather(data, small()))
    assert [a == b for a, b in zip(before["items"], after["items"])] == [change != "moved negative",
                                                                         change == "moved negative"]


def test_without_corrections_a_recipe_is_as_it_was(data):
    """Runs that were finished before there were any stay finished."""
    for path in (data / "t1_regions.csv", data / "t0_negatives.csv"):
        path.unlink()
    assert "certain_sha256" not in str(recipe_of(small(), gather(data, small())))


def test_held_out_picks_are_judged_where_everything_is_annotated(data):
    """Outside of a complete box nobody knows which picks are false; inside, precision and threshold are known."""
    judge = validator(data)
    truth = read_coordinates(data / "t1.csv").positions_zyx_vox
    n = int((truth[:, 2] <= 27.5).sum())
    assert n >= 5
    assert (judge.in_boxes, judge.is_unknown, judge.n_particles) == (True, False, n)
    assert judge.chooses_by("picks") == "picks"
    region = judge.regions[0]
    inside, outside = judge._truth(region)
    assert (len(inside), len(outside)) == (n, 10 - n)
    found = judge._judged(region, CoordinateTable.from_positions(np.array([[5, 5, 27.0], [5, 5, 29.0]])))
    assert found.positions_zyx_vox.tolist() == [[5, 5, 27]]


def test_too_few_particles_in_boxes_say_nothing(data):
    write_regions(data / "t1_regions.csv", [Region((0, 0, 0), (39, 47, 3))])
    judge = validator(data)
    assert (judge.in_boxes, judge.is_unknown, judge.n_particles) == (False, True, 10)
    assert judge.chooses_by("picks") == "last"
    everywhere = validator(data, "background")
    assert (everywhere.in_boxes, everywhere.is_unknown, everywhere.n_particles) == (False, False, 10)
