"""Candidates without a model: blobs are found whatever their contrast, beads are not, and examples rank the rest."""

from __future__ import annotations

import dataclasses
import errno
import json
import tracemalloc

import numpy as np
import pytest

from deepetpicker import propose
from deepetpicker.__main__ import main
from deepetpicker.config import ProposeOptions
from deepetpicker.errors import InputError, OutputError
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.preparation.scene import Scene, scratch_array
from deepetpicker.proposing.blobs import find_blobs, separate_peaks
from deepetpicker.proposing.features import features_at, n_features
from deepetpicker.proposing.ranking import rank_like
from deepetpicker.proposing.source import SceneSource

SHAPE, VOXEL, DIAMETER = (40, 88, 104), 10.0, 120.0


def places(seed):
    """Return 24 places (N, 3) between voxels that are at least 16 voxels apart, in no order."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid([10, 29], np.arange(10, 80, 19), np.arange(10, 100, 19), indexing="ij"), -1)
    spots = grid.reshape(-1, 3) + rng.uniform(-1.5, 1.5, (grid.size // 3, 3))
    return spots[rng.permutation(len(spots))[:24]]


def scene_of(solid, hollow=(), beads=(), noise=0.5, seed=0, sign=-1.0):
    """Return grey values (Z, Y, X): balls, shells and beads in noise."""
    grey = np.random.default_rng(seed).normal(0, noise, SHAPE)
    for kinds, density in ((solid, lambda r: sign / (1 + np.exp(2 * (r - 5)))),
                           (hollow, lambda r: sign * 1.5 * np.exp(-((r - 5) / 1.2) ** 2)),
                           (beads, lambda r: -60.0 * (r < 2.5))):
        for centre in kinds:  # 12 voxels away there is a millionth of it
            box = tuple(slice(max(0, round(c) - 12), round(c) + 13) for c in centre)
            axes = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, SHAPE))]
            grey[box] += density(np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre))))
    return grey.astype(np.float32)


def opened(tmp_path, grey, name="TS_1"):
    """Write a tomogram and return it opened."""
    write_volume(tmp_path / f"{name}.mrc", grey, VOXEL)
    return open_volume(tmp_path / f"{name}.mrc")


def hits(found, true, radius=4.0):
    """Return how many true places have a found one within a radius."""
    return int((np.linalg.norm(found[:, None] - np.asarray(true)[None], axis=-1).min(0) <= radius).sum())


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["dark", "bright"])
def test_balls_come_first_whatever_their_contrast(tmp_path, sign):
    true = places(1)
    scene = Scene.open(opened(tmp_path, scene_of(true, sign=sign)), DIAMETER)
    assert scene.contrast == ("dark" if sign < 0 else "bright")
    assert not scene.is_ambiguous
    table = find_blobs(scene, 24)
    assert hits(table.positions_zyx_vox, true) >= 23
    assert np.all(np.diff(table.scores) <= 0)
    assert table.scores.min() > 0
    assert table.scores.max() <= 1
    off = np.linalg.norm(table.positions_zyx_vox[:, None] - true[None], axis=-1).min(1)
    assert np.median(off) < 0.7


def test_beads_are_left_out(tmp_path):
    true = places(2)
    balls, beads = true[:18], true[18:]
    scene = Scene.open(opened(tmp_path, scene_of(balls, beads=beads)), DIAMETER)
    found = find_blobs(scene, 18).positions_zyx_vox
    assert hits(found, balls) >= 17
    assert hits(found, beads) == 0


def test_candidates_are_apart_and_no_more_than_asked_for(tmp_path):
    scene = Scene.open(opened(tmp_path, scene_of([])), DIAMETER)
    found = find_blobs(scene, 30).positions_zyx_vox
    assert len(found) == 30
    distances = np.linalg.norm(found[:, None] - found[None], axis=-1) + 1e9 * np.eye(30)
    assert distances.min() > DIAMETER / VOXEL / 2 - 1
    assert ((found > -0.5) & (found < np.array(SHAPE) - 0.5)).all()


@pytest.mark.long
def test_noise_stands_out_no_more_at_the_border_than_inside(tmp_path):
    """Where a volume is continued by its mirror image, noise counts twice: candidates used to crowd in the corners."""
    at_border, scatter = 0, []
    for seed in range(6):
        scene = Scene.open(opened(tmp_path, scene_of([], seed=seed)), DIAMETER)
        scatter.append([scene.response_zyx[0].std(), scene.response_zyx[:, :, -1].std(),
                        scene.response_zyx[15:25, 30:60, 30:70].std()])
        found = find_blobs(scene, 20).positions_zyx_vox
        at_border += int(((found < 1) | (found > np.array(SHAPE) - 2)).any(1).sum())
    assert 6 * 20 * 0.1 < at_border < 6 * 20 * 0.35  # 2 of 40, 88 and 104 planes are the border, and a mirrored peak
    low, side, inside = np.mean(scatter, axis=0)  # has its top there when it is near
    assert 0.8 < low / inside < 1.25
    assert 0.8 < side / inside < 1.25


@pytest.mark.long
def test_a_large_tomogram_gives_what_a_small_one_gives_in_bounded_memory(tmp_path, monkeypatch):
    """What is larger than memory allows goes to a scratch file slab by slab, and the depth of the volume is free."""
    true = places(9)
    volume = opened(tmp_path, scene_of(true[:18], beads=true[18:]))
    whole = Scene.open(volume, DIAMETER)
    before, features = find_blobs(whole, 24), features_at(whole, true)
    monkeypatch.setattr("deepetpicker.preparation.scene.IN_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr("deepetpicker.preparation.scene.SLAB_BYTES", 1 << 18)
    scene = Scene.open(volume, DIAMETER)
    assert (scene.grey_zyx.dtype, isinstance(scene.response_zyx, np.memmap)) == (np.float16, True)
    after = find_blobs(scene, 24)
    assert hits(after.positions_zyx_vox, before.positions_zyx_vox[:20], radius=0.05) == 20  # the last may change places
    np.testing.assert_allclose(after.scores, before.scores, atol=0.01)
    np.testing.assert_allclose(features_at(scene, true), features, atol=0.02)

    monkeypatch.setattr("deepetpicker.preparation.scene.CONTRAST_VOXELS", 1 << 16)
    peaks = []
    for depth in (60, 180):
        deep = np.random.default_rng(0).normal(size=(depth, 64, 72)).astype(np.float32)
        scene = Scene.open(opened(tmp_path, deep, f"deep_{depth}"), DIAMETER)  # its sample of the grey values grows
        tracemalloc.start()
        try:
            features_at(scene, find_blobs(scene, 24).positions_zyx_vox)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_full_disk_is_said(monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deepetpicker.preparation.scene.os.posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"expected 0.8 GB of free space .* \(TMPDIR\)"):
        scratch_array((400, 1000, 1000))


@pytest.mark.long
def test_doubtful_contrast_is_said(tmp_path):
    true = places(10)
    both = scene_of(true[:12], sign=-1.0) + scene_of(true[12:], noise=0.0, sign=1.0)
    for name, grey in (("both", both), ("dark", scene_of(true[:12]))):
        write_volume(tmp_path / f"{name}.mrc", grey.astype(np.float32), VOXEL)
    options = ProposeOptions(diameter_angstrom=DIAMETER, method="blob", most=12)
    told = propose([tmp_path], tmp_path / "out", options)["warnings"]
    assert len(told) == 1
    assert told[0].startswith("both: dark and bright places of this size stand out about alike")
    assert propose([tmp_path], tmp_path / "out", dataclasses.replace(options, contrast="dark"))["warnings"] == []


def test_an_empty_map_has_no_peaks():
    tops, heights = separate_peaks(np.zeros((8, 9, 10), np.float32), 3.0, 5)
    assert (tops.shape, heights.shape) == ((0, 3), (0,))


@pytest.mark.long
def test_features_do_not_depend_on_a_turn_about_the_beam(tmp_path):
    grey = scene_of(places(3)[:6], noise=0.2)
    turned = np.ascontiguousarray(np.rot90(grey, 2, (1, 2)))
    at = np.array([[12.0, 30.0, 40.0], [25.0, 50.0, 60.0]])
    back = np.array(SHAPE) - 1 - at
    back[:, 0] = at[:, 0]
    one = features_at(Scene.open(opened(tmp_path, grey), DIAMETER), at)
    other = features_at(Scene.open(opened(tmp_path, turned, "b"), DIAMETER), back)
    assert one.shape == (2, n_features())
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert features_at(Scene.open(opened(tmp_path, grey), DIAMETER), np.empty((0, 3))).shape == (0, n_features())


def test_five_examples_bring_their_kind_to_the_top(tmp_path):
    true = places(4)
    balls, shells = true[:12], true[12:]
    scene = Scene.open(opened(tmp_path, scene_of(balls, shells, noise=0.3)), DIAMETER)
    table = find_blobs(scene, 100, "dark")
    positions = np.concatenate([table.positions_zyx_vox, shells])
    features = features_at(scene, positions)
    for wanted, other in ((shells, balls), (balls, shells)):
        scores = rank_like(features, features_at(scene, wanted[:5]), features_at(scene, other[:2]))
        assert ((scores > 0) & (scores < 1)).all()
        top = positions[np.argsort(-scores)[:2 * len(wanted)]]  # shells among blobs come twice
        assert hits(top, wanted) >= len(wanted) - 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_or_two_candidates_are_ranked_too(n):
    rng = np.random.default_rng(0)
    features, examples = rng.normal(size=(n, 22)), rng.normal(size=(3, 22)) + 3
    likeness = rank_like(features, examples, features[:1])
    assert ((likeness > 0) & (likeness < 0.5)).all()


def test_too_few_examples_are_refused_and_no_candidates_are_none():
    with pytest.raises(ValueError, match="at least 3"):
        rank_like(np.ones((5, 4)), np.ones((2, 4)))
    assert len(rank_like(np.empty((0, 4)), np.ones((3, 4)))) == 0


def test_the_command_writes_tables_features_and_classes(tmp_path, capsys):
    true = places(5)
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("TS_1", "b 2"):
        write_volume(data / f"{name}.mrc", scene_of(true), VOXEL)
    assert main(["propose", str(data), "--out", str(out), "--diameter-angstrom", "120", "--most", "30", "--method",
                 "blob", "--quiet"]) == 0
    assert "60 candidates in 2 tomogram(s)" in capsys.readouterr().out
    table = read_coordinates(out / "b 2.csv")
    assert hits(table.positions_zyx_vox, true) >= 23
    assert np.load(out / "b 2_features.npy").shape == (30, n_features())
    assert json.loads((out / "classes.json").read_text())["classes"][0]["diameter_angstrom"] == 120


@pytest.mark.long
def test_examples_of_one_tomogram_rank_another(tmp_path):
    true = places(6)
    balls, shells = true[:12], true[12:]
    data, like = tmp_path / "data", tmp_path / "like"
    data.mkdir()
    like.mkdir()
    for name, seed in (("TS_1", 0), ("TS_2", 1)):
        write_volume(data / f"{name}.mrc", scene_of(balls, shells, noise=0.3, seed=seed), VOXEL)
    write_coordinates(like / "TS_1.csv", CoordinateTable.from_positions(shells[:6]))
    options = ProposeOptions(diameter_angstrom=DIAMETER, most=16, method="blob")
    plain = propose([data], tmp_path / "plain", options)
    assert plain["outputs"].get("examples") is None
    propose([data], tmp_path / "out", options, like=like)
    ranked = read_coordinates(tmp_path / "out/TS_2.csv").positions_zyx_vox
    first = read_coordinates(tmp_path / "plain/TS_2.csv").positions_zyx_vox
    assert hits(ranked, shells) > hits(first, shells)
    assert hits(ranked, shells) >= 9


def test_bad_input_is_said_and_does_not_stop_the_others(tmp_path):
    write_volume(tmp_path / "good.mrc", scene_of(places(7)), VOXEL)
    (tmp_path / "bad.mrc").write_bytes(b"no tomogram")
    with pytest.raises(InputError, match="particle diameter in angstrom"):
        propose([tmp_path / "good.mrc"], tmp_path / "out")
    options = ProposeOptions(diameter_angstrom=DIAMETER, method="blob")
    manifest = propose([tmp_path], tmp_path / "out", options)
    assert {item["name"]: item["status"] for item in manifest["items"]} == {"good": "done", "bad": "failed"}
    with pytest.raises(InputError, match="at least 4 voxels across"):
        propose([tmp_path / "good.mrc"], tmp_path / "out", ProposeOptions(diameter_angstrom=30))
    (tmp_path / "like").mkdir()
    write_coordinates(tmp_path / "like/good.csv", CoordinateTable.from_positions(places(7)[:2]))
    with pytest.raises(InputError, match="at least 3 examples"):
        propose([tmp_path / "good.mrc"], tmp_path / "out", options, like=tmp_path / "like")


@pytest.mark.long
@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["dark", "bright"])
def test_the_generic_model_finds_balls_whatever_their_contrast(tmp_path, sign):
    true = places(1)
    manifest = propose([opened(tmp_path, scene_of(true, sign=sign)).path], tmp_path / "out",
                       ProposeOptions(diameter_angstrom=DIAMETER, most=30), quiet=True)
    assert manifest["options"]["method"] == "generic"
    table = read_coordinates(tmp_path / "out/TS_1.csv")
    assert hits(table.positions_zyx_vox, true) >= 22
    assert (np.diff(table.scores) <= 0).all()
    with pytest.raises(InputError, match="at least 10 voxels across"):
        propose([tmp_path / "TS_1.mrc"], tmp_path / "small", ProposeOptions(diameter_angstrom=90), quiet=True)


def test_a_map_is_wanted_for_the_method_that_learns_one(tmp_path):
    opened(tmp_path, scene_of(places(1)))
    with pytest.raises(InputError, match="density map"):
        propose([tmp_path / "TS_1.mrc"], tmp_path / "out", ProposeOptions(diameter_angstrom=DIAMETER, method="map"))


def test_a_map_that_cannot_be_used_is_told_before_anything_is_simulated(tmp_path):
    opened(tmp_path, scene_of(places(1)))
    write_volume(tmp_path / "empty.mrc", np.ones((20, 20, 20), np.float32), 10.0)
    options = ProposeOptions(diameter_angstrom=DIAMETER, method="map", map=str(tmp_path / "empty.mrc"))
    with pytest.raises(InputError, match="a map must hold density"):
        propose([tmp_path / "TS_1.mrc"], tmp_path / "out", options, quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_map_alone_finds_its_particle(tmp_path):
    true = places(8)
    axis = np.arange(-12, 13)
    ball = 1 / (1 + np.exp(2 * (np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2) - 5)))
    write_volume(tmp_path / "ball.mrc", ball.astype(np.float32), VOXEL)
    options = ProposeOptions(diameter_angstrom=DIAMETER, method="map", map=str(tmp_path / "ball.mrc"), minutes=1.0)
    found = propose([opened(tmp_path, scene_of(true)).path], tmp_path / "out", options, quiet=True)
    table = read_coordinates(tmp_path / "out/TS_1.csv")
    assert hits(table.positions_zyx_vox, true) >= 20
    assert len(table) <= 40
    assert any(str(one["path"]).endswith("ball.mrc") for one in found["inputs"])
    assert (tmp_path / "out/from_map.safetensors").is_file()


@pytest.mark.long
def test_beside_a_window_blobs_take_the_place_of_the_generic_model_where_particles_are_small_for_it(tmp_path):
    volume = opened(tmp_path, scene_of(places(1)))
    large, small = (ProposeOptions(diameter_angstrom=d, most=20) for d in (DIAMETER, 80.0))
    for options, same in ((small, True), (large, False)):
        ours, _ = SceneSource(options).candidates(volume)
        blobs = find_blobs(Scene.open(volume, options.diameter_angstrom), 20).positions_zyx_vox
        assert (ours.shape == blobs.shape and np.array_equal(ours, blobs)) == same
