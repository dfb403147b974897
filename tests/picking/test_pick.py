"""Picking as a whole, with a network that is a plain blob detector, so that every pick is known."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepetpicker import pick
from deepetpicker.calibration import Calibration
from deepetpicker.config import NetworkOptions, PickOptions
from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.io.classes import ParticleClass, read_classes
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.io.volumes import Volume, open_volume, write_volume
from deepetpicker.memory import MIB
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.picker import Picker, working_folder
from deepetpicker.picking.planning import Workplace, make_plan
from tests.detectors import BLOB, blob_detector, detector_card, write_detector
from tests.moments import SCANS, heard, interrupted_at

CENTRES = np.array([[12.3, 14.0, 12.5], [24.0, 30.7, 44.2], [22.0, 52.4, 22.8], [14.0, 41.0, 58.1]])
SHAPE = (36, 64, 72)


def density(centres, shape=SHAPE, sigma=2.5, scale=1.0):
    """Return a tomogram (Z, Y, X) with bright blobs in weak noise."""
    grid = np.indices(shape).astype(np.float32)
    out = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    for centre in centres:
        out += np.exp(-sum((g - c) ** 2 for g, c in zip(grid, np.asarray(centre) * scale)) / (2 * (sigma * scale) ** 2))
    return out


@pytest.fixture
def model(tmp_path):
    """A model file of the blob detector; particles of 100 angstrom at 10 angstrom per voxel."""
    return write_detector(tmp_path / "m.safetensors")


@pytest.fixture
def tomogram(tmp_path):
    """A tomogram of non-cubic shape with four blobs."""
    path = tmp_path / "TS_1.mrc"
    write_volume(path, density(CENTRES), 10.0)
    return path


def test_a_folder_that_loses_its_permissions_under_way_hides_no_error(tmp_path, monkeypatch):
    def refused(*args, **named):
        raise PermissionError(13, "Permission denied")

    def work():
        with working_folder(tmp_path):
            for name in ("rmdir", "unlink"):
                monkeypatch.setattr(os, name, refused)
            raise OSError("cannot write")

    with pytest.raises(OSError, match="cannot write"):
        work()


def test_tables_carry_the_ids_of_the_model_and_classes_json_its_table(tmp_path, tomogram):
    model = write_detector(tmp_path / "m.safetensors", ClassCard(0, "blob", 100.0, 7.0))
    manifest = pick(model, [tomogram], tmp_path / "out", options(save_map=True), quiet=True)
    assert read_coordinates(tmp_path / "out/TS_1.csv").class_ids.tolist() == [0] * len(CENTRES)
    assert read_classes(tmp_path / "out")[0] == (ParticleClass(0, "blob", 100.0),)
    assert list(manifest["items"][0]["maps"]) == ["0"]


def test_scores_are_probabilities_where_the_model_is_calibrated(tmp_path, tomogram):
    """In the tables, for thresholds and for the limit on the number alike; positions and order do not change."""
    tables = []
    for scale in (None, Calibration((0.0, 0.4, 1.0), (0.0, 0.01, 0.03), 40, 60, "logistic")):
        blob = ClassCard(1, "blob", 100.0, 7.0, 0.3 if scale is None else float(scale(np.array([0.3]))[0]), scale)
        pick(write_detector(tmp_path / "m.safetensors", blob), [tomogram], tmp_path / "out", options(), quiet=True)
        tables.append([read_coordinates(tmp_path / f"out/TS_1{end}.csv") for end in ("", "_candidates")])
    for plain, probable in zip(*tables):
        np.testing.assert_array_equal(plain.positions_zyx_vox, probable.positions_zyx_vox)
        np.testing.assert_allclose(probable.scores, scale(plain.scores))
        assert probable.scores.max() < 0.03
    assert len(tables[1][0]) == len(CENTRES)


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


@pytest.mark.long
@pytest.mark.parametrize("values", [{"tile": 48}, {"tile": 64}, {"tile": 80}, {"batch": 4}, {"slab": 5},
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
    write_volume(path, density(CENTRES[:2] + 0.25, (56, 72, 96), scale=2.0 * 0.8), 6.25)
    picks = run(model, path, tmp_path / "out")
    assert len(picks) == 2
    assert nearest(picks, (CENTRES[:2] + 0.25) * 1.6).max() < 0.3


def test_a_header_without_a_size_takes_that_of_the_data_folder(model, tmp_path):
    (tmp_path / "data").mkdir()
    write_volume(tmp_path / "data" / "TS_1.mrc", density(CENTRES), 1.0)
    (tmp_path / "data" / "classes.json").write_text('{"voxel_size_angstrom": 10.0, "classes": []}')
    assert len(run(model, tmp_path / "data" / "TS_1.mrc", tmp_path / "out")) == 4
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    assert manifest["inputs"][0]["voxel_size_angstrom"] == 10.0
    assert manifest["warnings"] == []


def test_a_tomogram_that_seems_much_finer_is_refused_unless_asked(model, tmp_path):
    write_volume(tmp_path / "fine.mrc", density(CENTRES), 2.0)
    with pytest.raises(InputError, match=r"fine: 2 angstrom per voxel would be resampled to 10, 5 times coarser, "
                                         r"expected at most 4 times.*--max-resampling"):
        run(model, tmp_path / "fine.mrc", tmp_path / "out")
    run(model, tmp_path / "fine.mrc", tmp_path / "out", max_resampling=5.0)
    assert read_manifest(tmp_path / "out" / "manifest.json")["items"][0]["status"] == "done"


def test_the_option_wins_over_the_item_as_in_training(model, tomogram, tmp_path):
    params = {"items": [{"name": "a", "tomogram": str(tomogram), "voxel_size": 5.0}]}
    manifest = pick(model, out=tmp_path / "out", options=options(voxel_size=10.0), params=params, quiet=True)
    assert manifest["inputs"][0]["voxel_size_angstrom"] == 10.0
    assert manifest["warnings"] == ["a: params.json says 5 angstrom per voxel, 10 (--voxel-size) is used"]


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


@pytest.fixture
def two_classes(tmp_path):
    """A model of bright blobs (class 1) and dark ones (class 3), whose thresholds are 0.3 and 0.99."""
    classes = (ClassCard(1, "bright", 100.0, 7.0, 0.3), ClassCard(3, "dark", 100.0, 7.0, 0.99))
    write_detector(tmp_path / "m.safetensors", *classes, signs=(1, -1), threshold=0.5)
    write_volume(tmp_path / "TS_1.mrc", density(CENTRES[:2]) - density(CENTRES[2:]), 10.0)
    return tmp_path


@pytest.mark.parametrize(("threshold", "applied", "n_bright", "n_dark"), [
    (-1.0, {"1": 0.3, "3": 0.99}, 2, 0), ("3:0.3", {"1": 0.3, "3": 0.3}, 2, 2), (0.3, {"1": 0.3, "3": 0.3}, 2, 2),
    ("1:0.99,3:0.3", {"1": 0.99, "3": 0.3}, 0, 2), ("0.3, 3:-1", {"1": 0.3, "3": 0.99}, 2, 0)])
def test_each_class_has_its_threshold(two_classes, caplog, threshold, applied, n_bright, n_dark):
    with caplog.at_level("INFO"):
        picks = run(two_classes / "m.safetensors", two_classes / "TS_1.mrc", two_classes / "out", threshold=threshold)
    assert [int((picks.class_ids == c).sum()) for c in (1, 3)] == [n_bright, n_dark]
    item = read_manifest(two_classes / "out" / "manifest.json")["items"][0]
    assert item["thresholds"] == applied
    assert item["threshold"] == min(applied.values())
    assert ("picks >= 0.30 of" in caplog.text) == (len(set(applied.values())) == 1)


def test_a_threshold_of_a_class_that_the_model_does_not_know(two_classes):
    with pytest.raises(InputError, match=r"threshold: there is no class '2', but class 1 \(bright\), class 3"):
        run(two_classes / "m.safetensors", two_classes / "TS_1.mrc", two_classes / "out", threshold="2:0.4")


def test_maps_are_written_with_the_voxel_size(model, tomogram, tmp_path):
    run(model, tomogram, tmp_path / "out", save_map=True)
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    volume = open_volume(manifest["items"][0]["maps"]["1"])
    assert volume.shape_zyx == SHAPE
    assert volume.voxel_size_ang == pytest.approx(10.0)
    z, y, x = CENTRES[1].round().astype(int)
    assert volume.data_zyx[z, y, x] > 0.5
    assert volume.data_zyx[5, 5, 5] < 0.1


def test_a_mask_keeps_the_picks_inside_it(model, tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.int8)
    mask[:, :36] = 1
    write_volume(tmp_path / "mask.mrc", mask, 10.0)
    picks = run(model, tomogram, tmp_path / "out", mask=str(tmp_path / "mask.mrc"))
    assert len(picks) == 2
    assert (picks.positions_zyx_vox[:, 1] < 36).all()


def test_each_item_may_have_its_own_mask(model, tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.int8)
    mask[:, 36:] = 1
    write_volume(tmp_path / "mask.mrc", mask, 10.0)
    params = {"items": [{"name": "a", "tomogram": str(tomogram), "mask": str(tmp_path / "mask.mrc")},
                        {"name": "b", "tomogram": str(tomogram)}]}
    manifest = pick(model, (), tmp_path / "out", options(), params, quiet=True)
    assert [item["n_picks"] for item in manifest["items"]] == [2, 4]


@pytest.mark.parametrize("kind", ["missing", "ill-shaped", "not in the folder"])
def test_a_mask_that_cannot_be_used_is_told_before_the_scan(model, tomogram, tmp_path, caplog, kind):
    mask = tmp_path / "mask.mrc"
    if kind == "ill-shaped":
        write_volume(mask, np.ones((36, 64, 50), np.int8), 10.0)
    elif kind == "not in the folder":
        mask = tmp_path / "masks"
        mask.mkdir()
    caplog.set_level("INFO", "deepetpicker")
    params = {"items": [{"name": "good", "tomogram": str(tomogram)},
                        {"name": "bad", "tomogram": str(tomogram), "mask": str(mask)}]}
    manifest = pick(model, out=tmp_path / "out", options=options(), params=params, quiet=True)
    assert [text.partition(": ")[0] for text in caplog.messages if SCANS in text] == ["good"], "what is scanned"
    assert [item["status"] for item in manifest["items"]] == ["done", "failed"]
    said = [text for text in caplog.messages if text.startswith("bad: cannot be picked: ")]
    assert len(said) == 1
    before = caplog.messages[:caplog.messages.index(said[0])]
    assert not any(text.startswith(("good: ", "bad: ")) for text in before), "before anything is picked"


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


def scanned(caplog):
    """Return the names of the tomograms that were scanned since this was last asked, or since the test began."""
    names = [text.partition(": ")[0] for text in caplog.messages if SCANS in text]
    caplog.clear()
    return names


def test_resume_skips_what_is_done_and_only_that(model, tomogram, tmp_path, caplog):
    caplog.set_level("INFO", "deepetpicker")
    other = tmp_path / "TS_2.mrc"
    write_volume(other, density(CENTRES[:1]), 10.0)
    pick(model, [tomogram], tmp_path / "out", options(resume=True), quiet=True)
    before = (tmp_path / "out" / "TS_1.csv").stat().st_mtime_ns
    assert scanned(caplog) == ["TS_1"]
    manifest = pick(model, [tomogram, other], tmp_path / "out", options(resume=True), quiet=True)
    assert scanned(caplog) == ["TS_2"]
    assert (tmp_path / "out" / "TS_1.csv").stat().st_mtime_ns == before
    assert [i["status"] for i in manifest["items"]] == ["done", "done"]
    pick(model, [tomogram], tmp_path / "out", options(resume=True, threshold=0.9), quiet=True)
    assert scanned(caplog) == ["TS_1"]


def test_resume_goes_on_from_a_run_that_was_not_started_with_it(model, tomogram, tmp_path, caplog):
    first = pick(model, [tomogram], tmp_path / "out", options(), quiet=True)
    caplog.set_level("INFO", "deepetpicker")
    again = pick(model, [tomogram], tmp_path / "out", options(resume=True), quiet=True)
    assert (scanned(caplog), again["items"]) == ([], first["items"])
    assert again["inputs"] == first["inputs"]


@pytest.mark.long
def test_an_interrupted_resume_forgets_nothing(model, tomogram, tmp_path):
    paths = [tmp_path / f"TS_{n}.mrc" for n in (2, 1, 3)]
    write_volume(paths[0], density(CENTRES[:1]), 10.0)
    write_volume(paths[2], density(CENTRES[1:]), 10.0)
    whole = pick(model, paths, tmp_path / "whole", options(), quiet=True)
    pick(model, paths[1:2], tmp_path / "out", options(), quiet=True)
    with interrupted_at("TS_3: ", SCANS), pytest.raises(KeyboardInterrupt):
        pick(model, paths, tmp_path / "out", options(resume=True), quiet=True)
    found = read_manifest(tmp_path / "out" / "manifest.json")
    assert [i["name"] for i in found["items"]] == ["TS_2", "TS_1"]
    assert found["inputs"] == whole["inputs"][:2]


def test_names_that_would_overwrite_each_other_are_refused(model, tomogram, tmp_path):
    with pytest.raises(InputError, match="two tomograms are named 'TS_1'"):
        pick(model, [tomogram, tmp_path / "x" / "TS_1.rec"], tmp_path / "out", options(), quiet=True)


def test_params_name_the_items(model, tomogram, tmp_path):
    params = {"items": [{"name": "any name", "tomogram": str(tomogram), "voxel_size": 10.0}]}
    manifest = pick(model, (), tmp_path / "out", options(), params, quiet=True)
    assert manifest["items"][0]["name"] == "any name"
    assert len(read_coordinates(manifest["items"][0]["picks"])) == 4


@pytest.mark.parametrize("shape", [(20, 110, 80), (61, 67, 71), (8, 30, 40)])
def test_shapes_smaller_than_a_tile_and_odd_ones(model, tmp_path, shape):
    centre = (np.array(shape) - 1) / 2 + 0.3
    write_volume(tmp_path / "odd.mrc", density([centre], shape), 10.0)
    picks = run(model, tmp_path / "odd.mrc", tmp_path / "out", tile=48)
    assert len(picks) == 1
    assert nearest(picks, [centre])[0] < 0.5


def test_a_tomogram_inside_a_larger_one_gives_the_same_picks(model, tmp_path):
    small = density(CENTRES)
    large = np.random.default_rng(1).normal(0, 0.02, (52, 90, 104)).astype(np.float32)
    large[9:45, 17:81, 21:93] = small
    write_volume(tmp_path / "small.mrc", small, 10.0)
    write_volume(tmp_path / "large.mrc", large, 10.0)
    a, b = (run(model, tmp_path / f"{n}.mrc", tmp_path / n) for n in ("small", "large"))
    assert len(a) == len(b) == 4
    assert nearest(b, a.positions_zyx_vox + [9, 17, 21]).max() < 0.05


class Hungry(torch.nn.Module):
    """The detector, out of memory for tiles above an edge."""

    def __init__(self, largest):
        super().__init__()
        self.network, self.largest = blob_detector(), largest

    def forward(self, x):
        if max(x.shape) > self.largest:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate many bytes")
        return self.network(x)


class TooLarge(TorchDispatchMode):
    """PyTorch as it is where there is no memory for what some operations make, by their name, above some elements."""

    def __init__(self, error, largest, *names):
        super().__init__()
        self.error, self.largest, self.names, self.refused = error, largest, names, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.names and made.numel() > self.largest:
            self.refused += 1
            raise self.error
        return made


def picker_of(largest=10**9, **values):
    """Return the detector as a picker; above an edge of its tiles it runs out of memory (``.network.largest``)."""
    network = Hungry(largest)
    picker = Picker((network, detector_card()), options(**values), quiet=True)
    picker.network = network
    return picker


def volume_of(name="TS_1", kind=np.ndarray):
    """Return the tomogram of four blobs, in memory."""
    return Volume(name, pathlib.Path(f"{name}.mrc"), density(CENTRES).view(kind), 10.0)


@pytest.mark.long
@pytest.mark.parametrize(("n_classes", "unannotated", "looks"),
                         [(2, "background", 4), (1, "background", 1), (1, "unknown", 4)])
def test_several_classes_and_few_labels_are_looked_at_four_times_else_once(n_classes, unannotated, looks):
    """A network whose answer depends on where x points: the default is what the number of looks says."""
    two = (dataclasses.replace(BLOB, id=1), dataclasses.replace(BLOB, id=2, name="other"))
    card = dataclasses.replace(detector_card(*two[:n_classes]), training={"options": {"unannotated": unannotated}})
    network = blob_detector((1,) * n_classes)
    with torch.no_grad():
        network.encoders[0].unit1.conv.weight[..., 2] *= 1.5
    tables = [Picker((network, card), options(mirrors=n), quiet=True).candidates(volume_of()) for n in (0, 1, 4)]
    assert not np.array_equal(tables[1].scores, tables[2].scores)
    np.testing.assert_array_equal(tables[0].scores, tables[1 if looks == 1 else 2].scores)


def test_without_memory_the_tile_shrinks_and_the_run_goes_on(caplog):
    expected = picker_of().candidates(volume_of())
    found = picker_of(56).candidates(volume_of())
    assert len(found) >= 4
    np.testing.assert_allclose(found.positions_zyx_vox, expected.positions_zyx_vox, atol=1e-3)
    assert "starting it again with at most 48" in caplog.text


def test_what_was_learnt_of_memory_holds_for_the_next_tomogram(caplog):
    picker = picker_of(56)
    for name in ("TS_1", "TS_2"):
        assert len(picker.candidates(volume_of(name))) >= 4
    assert caplog.text.count("starting it again") == 1
    assert "TS_2: out of memory" not in caplog.text


def test_without_memory_for_the_smallest_tile_the_tomogram_fails_with_advice():
    picker = picker_of(border=0)
    picker.network.largest = 24
    with pytest.raises(DeviceMemoryError, match="too little free memory for one tile"):
        picker.candidates(volume_of())
    with pytest.raises(DeviceMemoryError, match="smaller --tile"):
        picker_of(56, tile=64).candidates(volume_of())


def test_a_tomogram_that_fails_for_memory_does_not_shrink_the_tiles_of_the_next(caplog):
    caplog.set_level("INFO", "deepetpicker")
    picker = picker_of()
    picker.network.largest = 24
    for name in ("TS_1", "TS_2"):
        with pytest.raises(DeviceMemoryError):
            picker.candidates(volume_of(name))
    plans = [m for m in caplog.messages if m.startswith("TS_2: ") and SCANS in m]
    assert [m for m in plans if "of 32 voxels" in m]
    assert not [m for m in plans if "of 24 voxels" in m]


def test_a_tomogram_without_memory_fails_and_says_so_in_the_manifest(model, tomogram, tmp_path):
    memory = TooLarge(RuntimeError("CUDA out of memory"), 10**9, "sigmoid")

    def fill(text):
        memory.largest = 8 if SCANS in text else memory.largest  # once it scans

    with memory, heard(fill), pytest.raises(InputError, match=r"none of 1.*too little free memory.*smaller --tile"):
        run(model, tomogram, tmp_path / "out")
    assert read_manifest(tmp_path / "out/manifest.json")["items"][0]["status"] == "failed"


@pytest.mark.long
@pytest.mark.parametrize("error", [MemoryError("much"), RuntimeError("CUDA out of memory")])
def test_without_memory_for_the_peaks_blocks_shrink(model, tomogram, tmp_path, caplog, error):
    expected = run(model, tomogram, tmp_path / "a")
    with TooLarge(error, 100_000, "empty_like") as memory:
        found = run(model, tomogram, tmp_path / "b")
    np.testing.assert_allclose(found.positions_zyx_vox, expected.positions_zyx_vox, atol=1e-3)
    assert memory.refused >= 1
    assert "looking for peaks in blocks" in caplog.text


def test_without_memory_for_the_map_it_goes_to_a_file(model, tmp_path):
    shape = (44, 72, 80)  # larger than the tiles that are timed before
    write_volume(tmp_path / "TS_1.mrc", density(CENTRES, shape), 10.0)
    expected = run(model, tmp_path / "TS_1.mrc", tmp_path / "a")
    with TooLarge(MemoryError(), np.prod(shape) - 1, "zeros") as memory:
        found = run(model, tmp_path / "TS_1.mrc", tmp_path / "b")
    assert memory.refused == 1
    np.testing.assert_array_equal(found.positions_zyx_vox, expected.positions_zyx_vox)


class Unreadable(np.ndarray):
    """Voxels that there is no memory to read."""

    def __getitem__(self, index):
        raise MemoryError("planes")


def test_a_lack_of_memory_elsewhere_fails_that_tomogram_with_advice():
    with pytest.raises(InputError, match=r"TS_1: no memory left \(planes\): use --memory-limit"):
        picker_of().candidates(volume_of(kind=Unreadable))


def test_the_plan_is_told_before_the_start(model, tomogram, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run(model, tomogram, tmp_path / "out")
    plan, picked = (next(i for i, m in enumerate(caplog.messages) if text in m) for text in (" GB, about ", "picks >="))
    assert plan < picked
    assert caplog.messages[plan].startswith("TS_1: ")


def test_a_memory_limit_changes_no_pick_and_one_too_low_is_refused(model, tomogram, tmp_path):
    expected = run(model, tomogram, tmp_path / "a", tile=48)
    found = run(model, tomogram, tmp_path / "b", memory_limit=8.0)
    np.testing.assert_allclose(found.positions_zyx_vox, expected.positions_zyx_vox, atol=1e-3)
    with pytest.raises(InputError, match="allow more"):
        run(model, tomogram, tmp_path / "c", memory_limit=0.05)


@pytest.mark.long
def test_a_memory_limit_holds_in_a_process_of_its_own(tmp_path):
    """The full network on a volume whose fastest plan takes more than the limit; one thread computes two tiles."""
    shape, limit = (64, 88, 96), 0.7
    usual = Workplace(classes=1, width=NetworkOptions().widths[0], itemsize=4, patch=72, halo=12, batch=1,
                      base_bytes=300 * MIB)  # of a process that has loaded nothing but the network
    assert make_plan(shape, PickOptions(), usual).memory_bytes > limit * 1e9
    card = detector_card(network=NetworkOptions().to_dict(), patch_vox=72)
    save_model(tmp_path / "m.safetensors", ResUNet3D(NetworkOptions()), card)
    write_volume(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=shape).astype(np.float32), 10.0)
    code = ("import sys; from deepetpicker.__main__ import main; from deepetpicker.memory import resident_bytes; "
            "status = main(sys.argv[1:]); print(resident_bytes(peak=True)); sys.exit(status)")
    command = [sys.executable, "-c", code, "pick", str(tmp_path / "m.safetensors"), str(tmp_path / "a.mrc"), "--out",
               str(tmp_path / "out"), "--device", "cpu", "--precision", "float32", "--quiet", "--memory-limit"]
    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}  # that earlier tests have set
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([*command, str(limit)], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout.split()[-1]) <= limit * 1e9  # ru_maxrss would begin with this process's


def test_several_tomograms_are_planned_together_and_a_broken_one_is_told_in_its_turn(model, tomogram, tmp_path, caplog):
    broken = tmp_path / "broken.mrc"
    broken.write_bytes(b"not a tomogram")
    other = tmp_path / "TS_2.mrc"
    other.write_bytes(tomogram.read_bytes())
    with caplog.at_level("INFO"):
        manifest = pick(model, [tomogram, broken, other], tmp_path / "out", options(), quiet=True)
    assert [i["status"] for i in manifest["items"]] == ["done", "failed", "done"]
    together = next(m for m in caplog.messages if m.startswith("2 tomograms: "))
    assert "tiles, " in together
    assert " GB, about " in together


def test_least_distances_are_given_by_class(model, tomogram, tmp_path):
    apart = np.linalg.norm(CENTRES[1] - CENTRES[3]) * 10.0  # the nearest two blobs
    assert len(run(model, tomogram, tmp_path / "own")) == 4
    assert len(run(model, tomogram, tmp_path / "id", min_distance_angstrom=f"1:{apart + 20:.0f}")) == 3
    assert len(run(model, tomogram, tmp_path / "name", min_distance_angstrom=f"blob:{apart + 20:.0f}")) == 3
    with pytest.raises(InputError, match="min_distance_angstrom: there is no class '7'"):
        run(model, tomogram, tmp_path / "none", min_distance_angstrom="7:50")
