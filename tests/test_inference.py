"""Picking as a whole, with a network that is a plain blob detector, so that every pick is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepetpicker import inference, pick
from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import open_volume, write_volume

CENTRES = np.array([[12.3, 20.0, 15.5], [30.0, 44.7, 60.2], [33.0, 80.4, 33.8], [20.0, 61.0, 90.1]])
SHAPE = (45, 100, 110)


class BlobDetector(torch.nn.Module):
    """Logits that are high where the density is; no memory of where in the patch it is."""

    def forward(self, x):
        return 12 * (torch.nn.functional.avg_pool3d(x, 3, 1, 1) / 4 - 0.5)


def density(centres, shape=SHAPE, sigma=2.5, scale=1.0):
    """Return a tomogram (Z, Y, X) with bright blobs in weak noise."""
    grid = np.indices(shape).astype(np.float32)
    out = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    for centre in centres:
        out += np.exp(-sum((g - c) ** 2 for g, c in zip(grid, np.asarray(centre) * scale)) / (2 * (sigma * scale) ** 2))
    return out


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model file that loads as the blob detector; particles of 100 angstrom at 10 angstrom per voxel."""
    card = ModelCard(network={}, classes=(ClassCard(1, "blob", 100.0, 7.0),), voxel_size_ang=10.0, patch_vox=48,
                     border_vox=12, label="tball", normalisation="robust", threshold=0.3, score_floor=0.1)
    monkeypatch.setattr(inference, "load_model", lambda path: (BlobDetector(), card))
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"stands for a model")
    return path


@pytest.fixture
def tomogram(tmp_path):
    """A tomogram of non-cubic shape with four blobs."""
    path = tmp_path / "TS_1.mrc"
    write_volume(path, density(CENTRES), 10.0)
    return path


def nearest(picks, centres):
    """Return the distance from each true centre to the nearest pick, in voxels."""
    return np.linalg.norm(picks.positions_zyx_vox[:, None] - np.asarray(centres)[None], axis=2).min(0)


def options(**values):
    """Return float32 CPU options."""
    return PickOptions(**{"device": "cpu", "precision": "float32", **values})


def run(model, tomogram, out, **values):
    """Pick one tomogram and return the picks."""
    pick(model, [tomogram], out, options(**values), quiet=True)
    return read_coordinates(out / f"{tomogram.stem}.csv")


def test_blobs_are_picked_at_their_centres(model, tomogram, tmp_path):
    picks = run(model, tomogram, tmp_path / "out")
    assert len(picks) == 4
    assert nearest(picks, CENTRES).max() < 0.15
    assert (picks.scores > 0.3).all()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["items"][0]["n_picks"] == 4
    assert manifest["items"][0]["status"] == "done"


@pytest.mark.parametrize("values", [{"tile": 64}, {"tile": 72}, {"tile": 96}, {"batch": 4}, {"slab": 5},
                                    {"slab": 200}, {"border": 8}])
def test_picks_do_not_depend_on_tile_batch_or_slab(model, tomogram, tmp_path, values):
    expected = run(model, tomogram, tmp_path / "a")
    found = run(model, tomogram, tmp_path / "b", **values)
    np.testing.assert_allclose(found.positions_zyx_vox, expected.positions_zyx_vox, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_two_runs_give_the_same_bytes(model, tomogram, tmp_path):
    for folder in "ab":
        run(model, tomogram, tmp_path / folder)
    assert (tmp_path / "a" / "TS_1.csv").read_bytes() == (tmp_path / "b" / "TS_1.csv").read_bytes()


def test_a_finer_tomogram_is_resampled_and_picks_come_back_in_its_own_voxels(model, tmp_path):
    path = tmp_path / "fine.mrc"
    write_volume(path, density(CENTRES[:2] + 0.25, (60, 90, 120), scale=2.0 * 0.8), 6.25)
    picks = run(model, path, tmp_path / "out")
    assert len(picks) == 2
    assert nearest(picks, (CENTRES[:2] + 0.25) * 1.6).max() < 0.3


def test_a_tomogram_much_coarser_than_the_model_is_refused(model, tmp_path):
    write_volume(tmp_path / "coarse.mrc", density(CENTRES), 20.0)
    with pytest.raises(InputError, match="less binned"):
        run(model, tmp_path / "coarse.mrc", tmp_path / "out")


def test_a_new_threshold_needs_no_new_run(model, tomogram, tmp_path):
    run(model, tomogram, tmp_path / "a", threshold=0.99)
    candidates = read_coordinates(tmp_path / "a" / "TS_1_candidates.csv")
    assert len(read_coordinates(tmp_path / "a" / "TS_1.csv")) == 0
    low = run(model, tomogram, tmp_path / "b", threshold=0.3)
    kept = candidates.select(candidates.scores >= 0.3)
    np.testing.assert_array_equal(kept.positions_zyx_vox, low.positions_zyx_vox)


def test_maps_are_written_with_the_voxel_size(model, tomogram, tmp_path):
    run(model, tomogram, tmp_path / "out", save_map=True)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    volume = open_volume(manifest["items"][0]["maps"]["1"])
    assert volume.shape_zyx == SHAPE
    assert volume.voxel_size_ang == pytest.approx(10.0)
    z, y, x = CENTRES[1].round().astype(int)
    assert volume.data_zyx[z, y, x] > 0.5
    assert volume.data_zyx[5, 5, 5] < 0.1


def test_a_mask_keeps_the_picks_inside_it(model, tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.int8)
    mask[:, :50] = 1
    write_volume(tmp_path / "mask.mrc", mask, 10.0)
    picks = run(model, tomogram, tmp_path / "out", mask=str(tmp_path / "mask.mrc"))
    assert len(picks) == 2
    assert (picks.positions_zyx_vox[:, 1] < 50).all()


def test_each_item_may_have_its_own_mask(model, tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.int8)
    mask[:, 50:] = 1
    write_volume(tmp_path / "mask.mrc", mask, 10.0)
    params = {"items": [{"name": "a", "tomogram": str(tomogram), "mask": str(tmp_path / "mask.mrc")},
                        {"name": "b", "tomogram": str(tomogram)}]}
    manifest = pick(model, (), tmp_path / "out", options(), params, quiet=True)
    assert [item["n_picks"] for item in manifest["items"]] == [2, 4]


def test_a_mask_folder_needs_a_mask_for_each_tomogram(model, tomogram, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"TS_1\.mrc"):
        run(model, tomogram, tmp_path / "out", mask=str(tmp_path / "masks"))


def test_max_picks_keeps_the_best(model, tomogram, tmp_path):
    every = run(model, tomogram, tmp_path / "a")
    two = run(model, tomogram, tmp_path / "b", max_picks=2)
    np.testing.assert_array_equal(two.scores, every.scores[:2])


def test_a_failed_tomogram_does_not_stop_the_others(model, tomogram, tmp_path):
    bad = tmp_path / "bad.mrc"
    bad.write_bytes(b"")
    manifest = pick(model, [bad, tomogram], tmp_path / "out", options(), quiet=True)
    assert [(i["name"], i["status"]) for i in manifest["items"]] == [("bad", "failed"), ("TS_1", "done")]
    assert "bad.mrc" in manifest["items"][0]["reason"]
    assert not (tmp_path / "out" / "bad.csv").exists()


@pytest.mark.parametrize("fill", [np.nan, 3.0])
def test_a_tomogram_without_contrast_fails_with_its_name(model, tmp_path, fill):
    write_volume(tmp_path / "flat.mrc", np.full((24, 32, 40), fill, np.float32), 10.0)
    with pytest.raises(InputError, match="flat"):
        run(model, tmp_path / "flat.mrc", tmp_path / "out")


def test_resume_skips_what_is_done_and_only_that(model, tomogram, tmp_path, monkeypatch):
    other = tmp_path / "TS_2.mrc"
    write_volume(other, density(CENTRES[:1]), 10.0)
    pick(model, [tomogram], tmp_path / "out", options(resume=True), quiet=True)
    before = (tmp_path / "out" / "TS_1.csv").stat().st_mtime_ns
    seen = []
    original = inference.open_volume
    monkeypatch.setattr(inference, "open_volume", lambda path, *a: seen.append(str(path)) or original(path, *a))
    manifest = pick(model, [tomogram, other], tmp_path / "out", options(resume=True), quiet=True)
    assert seen == [str(other)]
    assert (tmp_path / "out" / "TS_1.csv").stat().st_mtime_ns == before
    assert [i["status"] for i in manifest["items"]] == ["done", "done"]
    pick(model, [tomogram], tmp_path / "out", options(resume=True, threshold=0.9), quiet=True)
    assert seen[-1] == str(tomogram)


def test_resume_goes_on_from_a_run_that_was_not_started_with_it(model, tomogram, tmp_path, monkeypatch):
    first = pick(model, [tomogram], tmp_path / "out", options(), quiet=True)
    monkeypatch.setattr(inference, "open_volume", None)  # calling it would fail
    again = pick(model, [tomogram], tmp_path / "out", options(resume=True), quiet=True)
    assert again["items"] == first["items"]
    assert again["inputs"] == first["inputs"]


def test_an_interrupted_resume_forgets_nothing(model, tomogram, tmp_path, monkeypatch):
    paths = [tmp_path / f"TS_{n}.mrc" for n in (2, 1, 3)]
    write_volume(paths[0], density(CENTRES[:1]), 10.0)
    write_volume(paths[2], density(CENTRES[1:]), 10.0)
    whole = pick(model, paths, tmp_path / "whole", options(), quiet=True)
    pick(model, paths[1:2], tmp_path / "out", options(), quiet=True)
    original = inference.open_volume

    def interrupted(path, *more):
        if path == str(paths[2]):
            raise KeyboardInterrupt
        return original(path, *more)

    monkeypatch.setattr(inference, "open_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pick(model, paths, tmp_path / "out", options(resume=True), quiet=True)
    found = read_manifest(tmp_path / "out" / "manifest.json")
    assert [i["name"] for i in found["items"]] == ["TS_2", "TS_1"]
    assert found["inputs"] == whole["inputs"][:2]


def test_names_that_would_overwrite_each_other_are_refused(model, tomogram, tmp_path):
    with pytest.raises(InputError, match="TS_1 twice"):
        pick(model, [tomogram, tmp_path / "x" / "TS_1.rec"], tmp_path / "out", options(), quiet=True)


def test_params_name_the_items(model, tomogram, tmp_path):
    params = {"items": [{"name": "any name", "tomogram": str(tomogram), "voxel_size": 10.0}]}
    manifest = pick(model, (), tmp_path / "out", options(), params, quiet=True)
    assert manifest["items"][0]["name"] == "any name"
    assert len(read_coordinates(manifest["items"][0]["picks"])) == 4


@pytest.mark.parametrize("shape", [(20, 200, 150), (61, 67, 71), (8, 30, 40)])
def test_shapes_smaller_than_a_tile_and_odd_ones(model, tmp_path, shape):
    centre = (np.array(shape) - 1) / 2 + 0.3
    write_volume(tmp_path / "odd.mrc", density([centre], shape), 10.0)
    picks = run(model, tmp_path / "odd.mrc", tmp_path / "out", tile=48)
    assert len(picks) == 1
    assert nearest(picks, [centre])[0] < 0.5


def test_a_tomogram_inside_a_larger_one_gives_the_same_picks(model, tmp_path):
    small = density(CENTRES)
    large = np.random.default_rng(1).normal(0, 0.02, (70, 140, 150)).astype(np.float32)
    large[9:54, 17:117, 21:131] = small
    write_volume(tmp_path / "small.mrc", small, 10.0)
    write_volume(tmp_path / "large.mrc", large, 10.0)
    a, b = (run(model, tmp_path / f"{n}.mrc", tmp_path / n) for n in ("small", "large"))
    assert len(a) == len(b) == 4
    assert nearest(b, a.positions_zyx_vox + [9, 17, 21]).max() < 0.05
