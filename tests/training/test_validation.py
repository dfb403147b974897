"""The scores of a validation: voxels, with zero denominators, and picks, class by class."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from detectors import blob_detector

from deepetpicker.evaluation.thresholds import score_picks
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.picking.peaks import PeakRule
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.judged import crop_to_tiles
from deepetpicker.sampling.patches import Annotated, PatchRule
from deepetpicker.training.validation import (
    Validator,
    VoxelCounts,
    f1_score,
    f_alpha,
    precision_recall,
    without_neighbours,
)


def test_values_by_hand():
    assert precision_recall(3, 4, 6) == (0.75, 0.5)
    assert f1_score(0.75, 0.5) == pytest.approx(0.6)
    assert f_alpha(0.75, 0.5, 3) == pytest.approx(0.75 * 0.125 / 0.875)
    assert f_alpha(1, 1) == 0.5


def test_zero_denominators():
    assert precision_recall(0, 0, 5) == (0, 0)
    assert precision_recall(0, 5, 0) == (0, 0)
    assert precision_recall(0, 0, 0) == (1, 1)
    assert f1_score(0, 0) == f_alpha(0, 0) == f_alpha(1, 0) == f_alpha(0, 1) == 0


def test_recall_weighs_more():
    assert f_alpha(0.6, 0.9) > f_alpha(0.9, 0.6)


def random_maps(seed=0, shape=(12, 14, 16)):
    """Return probabilities of two classes and a label."""
    rng = np.random.default_rng(seed)
    return rng.random((2, *shape)).astype(np.float32), rng.integers(0, 3, shape)


def test_slabs_add_up_to_the_whole():
    probability, label = random_maps()
    whole, parts = VoxelCounts(2), VoxelCounts(2)
    whole.add(probability, label)
    for z in range(0, 12, 5):
        parts.add(probability[:, z:z + 5], label[z:z + 5])
    for name, value in whole.scores().items():
        assert parts.scores()[name] == pytest.approx(value, rel=1e-6)


def test_perfect_map():
    _, label = random_maps()
    counts = VoxelCounts(2)
    counts.add(np.stack([label == 1, label == 2]).astype(np.float32), label)
    scores = counts.scores()
    assert (scores["voxel_precision"], scores["voxel_recall"], scores["voxel_f1"]) == (1, 1, 1)
    assert scores["f_alpha"] == 0.5
    assert scores["val_loss"] == pytest.approx(0, abs=1e-9)


def test_unknown_voxels_are_not_counted_and_absent_classes_do_not_drag():
    probability, label = random_maps()
    label[label == 2] = 0
    known = np.zeros(label.shape, bool)
    known[:6] = True
    counts, half = VoxelCounts(2), VoxelCounts(2)
    counts.add(probability, label, known)
    half.add(probability[:, :6], label[:6])
    assert counts.scores() == pytest.approx(half.scores(), rel=1e-5)
    only = VoxelCounts(1)
    only.add(probability[:1, :6], label[:6])
    assert half.scores()["voxel_recall"] == only.scores()["voxel_recall"]


def test_nothing_to_find_and_nothing_found():
    counts = VoxelCounts(1)
    counts.add(np.zeros((1, 4, 5, 6), np.float32), np.zeros((4, 5, 6), int))
    assert counts.scores()["voxel_f1"] == 1


def test_a_crop_to_few_tiles_keeps_a_rare_class_where_it_can():
    """Of class 1 there are 18 at the low end and 14 in the middle, beside three of class 2."""
    shape = (32, 32, 160)
    source = open_working_volume(np.zeros(shape, np.float32) + np.arange(160, dtype=np.float32),
                                 WorkingGrid(shape, 10.0, 10.0))
    along = [*range(5, 23), *range(90, 104), 91, 95, 99, 158]
    region = Annotated("TS", source, np.array([[16, 16, float(x)] for x in along]), np.repeat([1, 2], [32, 4]),
                       whole(shape))
    kept = dataclasses.replace(region, region_zyx=crop_to_tiles(region, 32, 8, 2))
    assert kept.region_zyx[2].stop - kept.region_zyx[2].start == 48
    n_frequent, n_rare = np.bincount(kept.channels[kept.inside])[1:]
    assert n_rare == 3
    assert n_frequent >= 12


def test_a_pick_of_a_particle_beyond_the_cut_is_not_false():
    """One candidate hits a particle inside, one the particle just outside, one nothing, one of another class."""
    inside, outside = (CoordinateTable.from_positions(np.array([[8.0, 9.0, x]])) for x in (10.0, 41.0))
    found = CoordinateTable(np.array([[8, 9, 11.0], [8, 9, 39.0], [8, 9, 25.0], [8, 9, 39.0]]), np.array([1, 1, 1, 2]),
                            np.array([0.9, 0.8, 0.7, 0.6]))
    kept = without_neighbours(found, np.ones(4, bool), inside, outside, {1: 4.0, 2: 4.0})
    assert kept.scores.tolist() == [0.9, 0.7, 0.6]
    beyond = without_neighbours(found, np.array([False, False, False, True]), inside, outside, {1: 4.0, 2: 4.0})
    assert beyond.scores.tolist() == [0.9, 0.6]
    assert score_picks([(inside, kept)], {1: 4.0}, 0.1).classes[0].average_precision == 1.0


def test_particles_at_the_face_of_a_held_out_slab_are_seen_as_in_the_whole_tomogram():
    """Two lie on either side of the face, within half a particle; in the whole both are hit."""
    shape, centres = (40, 44, 96), np.array([[20.0, 22, x] for x in (12, 28, 45, 62, 83)])
    grid = np.indices(shape)
    density = sum(4 * np.exp(-sum((a - c) ** 2 for a, c in zip(grid, centre)) / 18) for centre in centres)
    density += np.random.default_rng(0).normal(0, 0.4, shape)
    source = open_working_volume(density.astype(np.float32), WorkingGrid(shape, 10.0, 10.0))
    every = Annotated("TS", source, centres, np.ones(len(centres), np.int64), whole(shape))
    slab = dataclasses.replace(every, region_zyx=(slice(0, 40), slice(0, 44), slice(44, 96)))
    rule = PatchRule(32, 0.0, 0.0, "tball", {1: 7.0}, {1: 12.0})
    seen = []
    for region in (every, slab):
        validator = Validator([region], rule, [PeakRule(1, 12.0, 7.0, "tball")], 64, 3.0)
        voxels, picks = validator(blob_detector(gain=1.5), Arithmetic.choose("cpu", "float32"))
        seen.append((validator.looked[0].found, picks.classes[0], voxels))
    (found_whole, _, _), (found_slab, score, voxels) = seen
    rows = found_whole.positions_zyx_vox[:, 2] >= 43.5
    assert rows.sum() == 3
    np.testing.assert_allclose(found_slab.positions_zyx_vox, found_whole.positions_zyx_vox[rows], atol=1e-3)
    np.testing.assert_allclose(found_slab.scores, found_whole.scores[rows], atol=1e-3)
    assert (score.f1, score.n_true) == (1.0, 3)
    assert voxels["voxel_recall"] > 0
