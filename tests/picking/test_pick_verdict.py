"""What pick says of a tomogram that is not like those of the training, and of numbers that cannot be right."""

from __future__ import annotations

import dataclasses
import logging
from typing import Tuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_pick import options

from deepetpicker import pick
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import Volume, write_volume
from deepetpicker.network.modelfile import save_model
from deepetpicker.picking.verdict import Facts, judge
from deepetpicker.preparation.portrait import Portrait, portrait
from deepetpicker.preparation.prominence import prominence
from deepetpicker.preparation.resample import open_working_volume
from deepetpicker.verdict import of_run
from tests.detectors import blob_detector, detector_card

SHAPE, VOXEL, DIAMETER = (48, 96, 104), 10.0, 100.0
BLOB = ClassCard(1, "blob", DIAMETER, 7.0, 0.3)


def tomogram(seed: int, n: int = 24) -> np.ndarray:
    """Return a tomogram (Z, Y, X) with n bright blobs of 10 voxels on a jittered lattice, in noise with a grain."""
    return blobs(seed, n)[1]


def blobs(seed: int, n: int = 24) -> Tuple[np.ndarray, np.ndarray]:
    """Return where the blobs of a tomogram lie, (n, 3), and the tomogram (Z, Y, X)."""
    rng = np.random.default_rng(seed)
    volume = gaussian_filter(rng.normal(0, 0.3, SHAPE), 0.7)
    lattice = np.stack(np.meshgrid(*(np.arange(9, size - 8, 18) for size in SHAPE), indexing="ij"), -1).reshape(-1, 3)
    centres = rng.permutation(lattice)[:n] + rng.uniform(-2, 2, (n, 3))
    for centre in centres:
        square = sum((a - c) ** 2 for a, c in zip(np.indices(SHAPE), centre))
        volume += np.exp(-square / (2 * 2.5**2))
    return centres, volume.astype(np.float32)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    """Return the card of a model whose training saw two such tomograms."""
    seen = [portrait(open_working_volume(tomogram(seed), WorkingGrid(SHAPE, VOXEL, VOXEL)), 10.0) for seed in (1, 2)]
    density = 24 / (np.prod(SHAPE) / 1e6)
    return detector_card(BLOB, training={"seen": {"portraits": [one.to_dict() for one in seen],
                                                  "density": {"1": [density]}, "is_complete": True}})


def picked(tmp_path, card, volume, voxel_size=VOXEL):
    """Return the manifest of picking one tomogram."""
    save_model(tmp_path / "m.safetensors", blob_detector(), card)
    write_volume(tmp_path / "TS_1.mrc", volume, voxel_size)
    pick(tmp_path / "m.safetensors", [tmp_path / "TS_1.mrc"], tmp_path / "out", options(), quiet=True)
    return read_manifest(tmp_path / "out/manifest.json")


@pytest.mark.long
@pytest.mark.parametrize(("faint", "unannotated", "is_dropped"), [
    ("auto", "unknown", True), ("auto", "background", False), ("drop", "background", True), ("keep", "unknown", False)])
def test_what_stands_out_less_than_half_as_far_as_particles_is_dropped_where_labels_were_few(
        tmp_path, card, caplog, faint, unannotated, is_dropped):
    """Of 24 blobs half stand out less than half as far as what the model is said to have learnt from."""
    caplog.set_level(logging.INFO, "deepetpicker")
    places, volume = blobs(4)
    volume += gaussian_filter(np.random.default_rng(1).normal(0, 0.7, SHAPE), 0.7).astype(np.float32)
    bar = float(np.median(prominence(Volume("TS_1", tmp_path, volume, VOXEL), places, DIAMETER)[:, 0]))
    training = {**card.training, "options": {"unannotated": unannotated}}
    training["seen"] = {**card.training["seen"], "prominence": {"1": [1.0, 2 * bar, 0.0]}}
    save_model(tmp_path / "m.safetensors", blob_detector(), dataclasses.replace(card, training=training))
    write_volume(tmp_path / "TS_1.mrc", volume, VOXEL)
    pick(tmp_path / "m.safetensors", [tmp_path / "TS_1.mrc"], tmp_path / "out",
         dataclasses.replace(options(), faint=faint), quiet=True)
    item = read_manifest(tmp_path / "out/manifest.json")["items"][0]
    assert bool(item["n_faint"]) == is_dropped
    if is_dropped:
        assert 10 <= item["n_faint"]["1"] <= 14
        assert item["n_picks"] == 24 - item["n_faint"]["1"]
        assert f"{item['n_faint']['1']} too faint to be particles left out" in caplog.text
    assert ("faint picks" in [one["cause"] for one in item["verdict"]["reasons"]]) == is_dropped


def causes(manifest):
    """Return the causes in the verdict on the first tomogram."""
    return [one["cause"] for one in manifest["items"][0]["verdict"]["reasons"]]


def test_a_tomogram_like_those_of_the_training_is_silent(tmp_path, card, caplog):
    caplog.set_level(logging.INFO)
    manifest = picked(tmp_path, card, tomogram(3))
    assert manifest["warnings"] == []
    assert manifest["items"][0]["verdict"] == {"grade": "good", "text": "good: 24 picks", "reasons": []}
    assert manifest["outputs"]["verdict"]["text"] == "good: 1 tomogram picked"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert "verdict: good: 1 tomogram picked" in caplog.text


def test_inverted_contrast_is_the_cause_of_no_picks(tmp_path, card, caplog):
    manifest = picked(tmp_path, card, -tomogram(3))
    assert causes(manifest) == ["contrast", "no picks"]
    text = manifest["items"][0]["verdict"]["text"]
    assert "is dark, in the training it was bright; next: invert its contrast" in text
    assert manifest["warnings"] == [f"TS_1: {text}"]
    assert text in caplog.text
    assert manifest["outputs"]["verdict"]["text"] == "doubtful: 1 tomogram picked, 1 of them to look at"


def test_a_voxel_size_that_is_half_the_true_one_is_named(tmp_path, card):
    manifest = picked(tmp_path, card, tomogram(3), voxel_size=5.0)
    assert "voxel size or filter" in causes(manifest)
    assert "times finer at 10 angstrom" in str(manifest["items"][0]["verdict"])
    assert "5 angstrom is assumed" in manifest["warnings"][0] + str(manifest["items"][0]["verdict"])


def test_noise_alone_has_nothing_that_stands_out(tmp_path, card):
    manifest = picked(tmp_path, card, tomogram(3, n=0))
    assert "nothing stands out" in causes(manifest)
    assert manifest["items"][0]["status"] == "done"


def test_a_model_that_does_not_say_what_it_saw_judges_numbers_alone(tmp_path, card):
    old = dataclasses.replace(card, training={})
    assert picked(tmp_path, old, tomogram(3), voxel_size=5.0)["items"][0]["status"] == "done"
    inverted = picked(tmp_path, old, -tomogram(3))
    assert causes(inverted) == ["no picks"]


def facts(**changes) -> Facts:
    """Return what is known of an ordinary tomogram of four million voxels, with some of it changed."""
    values = {"n_picks": {1: 60}, "thresholds": {1: 0.4}, "best_scores": {1: 0.98}, "volume_vox": 4e6, "share": 0.001,
              "portrait": None, "voxel_size_ang": VOXEL, **changes}
    return Facts(**values)


@pytest.mark.parametrize(("changes", "cause"), [
    ({}, None), ({"n_picks": {1: 9}}, "few picks"), ({"n_picks": {1: 9}, "is_masked": True}, None),
    ({"n_picks": {1: 400}}, "many picks"), ({"n_picks": {1: 6000}}, "too many picks"),
    ({"share": 0.3}, "too many picks"),
    ({"n_picks": {1: 0}, "best_scores": {}}, "no picks"), ({"n_picks": {1: 0}, "best_scores": {1: 0.2}}, "no picks"),
    ({"portrait": Portrait((0.5, 0.2), (-5.5, -4.0, -2.5, 1.8, 2.5, 3.4))}, None),
    ({"portrait": Portrait((0.36, 0.12), (-5.5, -4.0, -2.5, 1.8, 2.5, 3.4))}, "voxel size or filter"),
    ({"portrait": Portrait((0.9, 0.55), (-5.5, -4.0, -2.5, 1.8, 2.5, 3.4))}, "voxel size or filter"),
    ({"portrait": Portrait((0.5, 0.2), (-3.4, -2.5, -1.8, 2.5, 4.0, 5.5))}, "contrast"),
    ({"portrait": Portrait((0.5, 0.2), (-3.2, -2.4, -1.7, 1.7, 2.4, 3.2))}, "nothing stands out")])
def test_the_cause_is_named(card, changes, cause):
    seen = {"portraits": [{"grain": [0.51, 0.19], "standing_out": [-5.2, -3.7, -2.4, 1.8, 2.5, 3.3]}],
            "density": {"1": [14.0, 17.0]}, "is_complete": True}
    found = judge(facts(**changes), dataclasses.replace(card, training={"seen": seen}))
    assert [one.cause for one in found.reasons] == ([cause] if cause else [])
    assert found.grade == ("doubtful" if cause else "good")
    assert not cause or found.reasons[0].advice in str(found)


def test_particles_that_nobody_annotated_make_no_number_suspicious(card):
    seen = {"density": {"1": [2.0]}, "is_complete": False}
    assert judge(facts(), dataclasses.replace(card, training={"seen": seen})).reasons == ()


def test_a_run_counts_what_is_to_be_looked_at_once():
    items = [{"name": n, "status": "done", "n_picks": 200, "verdict": {"grade": "good", "text": "good: 200 picks"}}
             for n in "abcde"]
    items.append({"name": "f", "status": "done", "n_picks": 0, "verdict": {"grade": "doubtful", "text": "doubtful: x"}})
    items.append({"name": "old", "status": "done"})
    found = of_run([*items, {"name": "g", "status": "failed"}])
    assert found["text"] == "doubtful: 7 tomograms picked, 1 of them to look at"
    assert found["doubts"] == ["f: doubtful: x"]
    assert found["unusual"] == ["f: few picks: 0, others about 200: look at it before its picks are used"]
