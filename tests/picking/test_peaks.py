"""MP-NMS: sub-voxel peaks of the stitched map, the same however it is cut."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.picking.peaks import (
    PeakRule,
    candidates,
    deduplicate,
    find_peaks,
    local_maxima,
    pool,
    ratio_of_score,
    score_of_ratio,
)
from deepetpicker.picking.plateaus import merge_plateaus, runs_of
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.labels import draw_label

RULE = PeakRule(1, 12.0, 7.0)


def table(positions, scores=None, classes=None):
    """Return a table of positions zyx with scores and classes."""
    n = len(positions)
    return CoordinateTable(np.asarray(positions, float).reshape(n, 3),
                           np.ones(n, int) if classes is None else np.asarray(classes),
                           np.full(n, 0.5) if scores is None else np.asarray(scores, float), {})


def blobs(shape, centres, sigma=2.5):
    """Return a probability map (Z, Y, X) with a Gaussian at each centre."""
    grid = np.indices(shape).astype(np.float32)
    out = np.zeros(shape, np.float32)
    for centre in centres:
        squares = sum((g - c) ** 2 for g, c in zip(grid, centre))
        out = np.maximum(out, np.exp(-squares / (2 * sigma**2)))
    return out


def stored(volume, in_memory_bytes=1 << 30):
    """Return a store that holds a map (Z, Y, X) or (C, Z, Y, X)."""
    volume = np.asarray(volume, np.float32)
    volume = volume[None] if volume.ndim == 3 else volume
    store = ProbabilityStore(volume.shape, in_memory_bytes=in_memory_bytes)
    store.write(0, 0, torch.from_numpy(volume))
    return store


def peaks(volume, rules=(RULE,), **options):
    """Return the picks of a map (Z, Y, X) or (C, Z, Y, X)."""
    return find_peaks(stored(volume), rules, **options)


@pytest.mark.parametrize("centre", [(14.0, 17.0, 21.0), (14.3, 17.5, 20.8), (13.75, 18.2, 22.49)])
def test_a_blob_is_found_at_its_centre_between_voxels(centre):
    found = peaks(blobs((29, 36, 44), [centre]))
    assert len(found) == 1
    assert np.abs(found.positions_zyx_vox[0] - centre).max() < 0.03


@pytest.mark.parametrize("kind", ["tball", "ball", "cubic"])
def test_an_ideal_label_peaks_at_three_quarters(kind):
    label = draw_label((31, 35, 39), np.array([[15.0, 17.0, 19.0]]), np.array([1]), {1: 7.0}, kind)
    found = peaks((label > 0).astype(np.float32), (PeakRule(1, 12.0, 7.0, kind),))
    assert found.scores[0] == pytest.approx(0.75, abs=1e-3)
    np.testing.assert_allclose(found.positions_zyx_vox, [[15, 17, 19]], atol=1e-3)


@pytest.mark.parametrize(("diameter", "label"), [(9, 3), (13, 3), (23, 5), (23, 3), (30, 5), (40, 5), (40, 7)])
def test_small_labels_of_large_particles_are_pickable(diameter, label):
    """With a fixed floor of 0.1 and whole-voxel passes most of these gave no pick at all."""
    volume = draw_label((50, 55, 60), np.array([[25.0, 27.0, 30.0]]), np.array([1]), {1: float(label)}, "tball")
    found = peaks((volume > 0).astype(np.float32), (PeakRule(1, float(diameter), float(label)),))
    assert len(found) == 1
    assert found.scores[0] == pytest.approx(0.75, abs=1e-3)


def test_a_small_class_beside_a_large_one_keeps_its_own_passes():
    rules = (PeakRule(1, 9.0, 5.0), PeakRule(2, 40.0, 9.0))
    volume = np.stack([draw_label((40, 44, 80), np.array([c]), np.array([1]), {1: d}, "tball") > 0
                       for c, d in (((20.0, 20, 15), 5.0), ((20.0, 20, 55), 9.0))]).astype(np.float32)
    found = peaks(volume, rules)
    assert sorted(found.class_ids) == [1, 2]
    np.testing.assert_allclose(found.scores, 0.75, atol=1e-3)


@pytest.fixture(scope="module")
def scattered():
    """A map (60, 40, 50) with 25 blobs, and the picks in it when it is one block."""
    volume = blobs((60, 40, 50), np.random.default_rng(3).uniform(2, 38, (25, 3)))
    return volume, peaks(volume, block=(200, 200))


@pytest.mark.parametrize("block", [pytest.param((4, 5), marks=pytest.mark.long), (17, 200), (60, 7), (200, 200)])
@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 30])
def test_picks_do_not_depend_on_blocks_or_where_the_map_is(scattered, block, in_memory_bytes):
    volume, whole = scattered
    with stored(volume, in_memory_bytes) as store:
        assert store.on_disk == (in_memory_bytes == 0)
        found = find_peaks(store, (RULE,), block=block)
    assert len(whole) > 8
    np.testing.assert_allclose(found.positions_zyx_vox, whole.positions_zyx_vox, atol=1e-3)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)


def test_a_shifted_map_gives_shifted_picks():
    centres = np.array([[12.2, 14.1, 15.7], [25.0, 20.5, 30.2]])
    a = peaks(blobs((40, 44, 48), centres))
    b = peaks(blobs((40, 44, 48), centres + [3, 5, 7]))
    np.testing.assert_allclose(b.positions_zyx_vox, a.positions_zyx_vox + [3, 5, 7], atol=1e-3)


def test_peaks_on_opposite_faces_both_live():
    found = peaks(blobs((20, 24, 40), [(10, 12, 0), (10, 12, 39), (0, 5, 20), (19, 20, 20)], 2.0))
    assert len(found) == 4
    x = np.sort(found.positions_zyx_vox[:, 2])
    assert x[0] < 1.5
    assert x[-1] > 37.5


def test_a_particle_cut_by_the_border_keeps_a_fair_score():
    label = draw_label((30, 40, 40), np.array([[1.0, 20, 20]]), np.array([1]), {1: 7.0}, "tball")
    found = peaks((label > 0).astype(np.float32))
    assert len(found) == 1
    assert found.scores[0] > 0.65
    assert found.positions_zyx_vox[0, 0] < 2.6


def test_a_plateau_gives_one_pick():
    volume = np.zeros((40, 44, 60), np.float32)
    volume[12:28, 14:30, 16:40] = 1
    pooled = pool(torch.from_numpy(volume), PeakRule(1, 4.0, 3.0).kernel)
    assert len(local_maxima(pooled, 0.5)) > 50
    found = peaks(volume, (PeakRule(1, 4.0, 3.0),))
    assert len(found) == 1
    np.testing.assert_allclose(found.positions_zyx_vox, [[19.5, 21.5, 27.5]], atol=1e-3)


def test_a_saturated_map_takes_little_memory_and_gives_one_pick():
    """All pairs of all voxels of a plateau took 769 MB for 80^3 of ones."""
    store = stored(np.ones((48, 44, 52), np.float32))
    tracemalloc.start()
    found = candidates(store, (RULE,), block=(16, 40))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    np.testing.assert_allclose(found.positions_zyx_vox, [[23.5, 21.5, 25.5]], atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_what_comparing_all_pairs_gives(seed):
    rng = np.random.default_rng(seed)
    shape = (9, 14, 17)
    voxels = np.argwhere(rng.random(shape) < (0.03, 0.05, 0.1, 0.3, 1.0)[seed])
    level = rng.integers(1, 4, (3, 3, 3))[tuple((voxels // 6).T)]
    positions, values = voxels + rng.uniform(-0.5, 0.5, voxels.shape), level.astype(float)
    touch = np.abs(voxels[:, None] - voxels[None]).max(2) <= 2
    n, group = connected_components(touch & (values[:, None] == values[None]))
    expected = sorted((values[group == g][0], *positions[group == g].mean(0)) for g in range(n))
    runs = runs_of(positions, voxels, values)
    centres, merged = merge_plateaus(rng.permutation(runs))
    assert len(runs) < len(voxels)
    np.testing.assert_allclose(sorted((v, *c) for v, c in zip(merged, centres)), expected)


def test_an_empty_map_gives_an_empty_table():
    found = peaks(np.zeros((20, 24, 28), np.float32))
    assert len(found) == 0
    assert found.positions_zyx_vox.shape == (0, 3)


@pytest.mark.parametrize("shape", [(3, 40, 5), (2, 9, 70), (1, 12, 30)])
def test_volumes_smaller_than_the_kernel(shape):
    found = peaks(np.ones(shape, np.float32), block=(2, 7))
    assert len(found) == 1


def test_pooling_is_the_repeated_mean_with_zeros_outside():
    rng = np.random.default_rng(0)
    volume = rng.random((11, 70, 13)).astype(np.float32)
    expected = np.pad(volume, 20).astype(float)
    for _ in range(RULE.passes):
        for axis in range(3):
            expected = sum(np.roll(expected, s, axis) for s in range(-2, 3)) / 5
    np.testing.assert_allclose(pool(torch.from_numpy(volume), RULE.kernel), expected[20:-20, 20:-20, 20:-20], atol=1e-6)


def test_pooling_a_constant_keeps_it_inside():
    out = pool(torch.full((40, 41, 100), 0.5), RULE.kernel)
    np.testing.assert_allclose(out[10:-10, 10:-10, 10:-10], 0.5, atol=1e-6)


def test_local_maxima_agree_with_a_maximum_filter():
    from scipy import ndimage

    volume = np.random.default_rng(5).random((20, 23, 31)).astype(np.float32)
    expected = np.argwhere((ndimage.maximum_filter(volume, 5, mode="constant") * (1 - 1e-6) <= volume) & (volume > 0.3))
    np.testing.assert_array_equal(local_maxima(torch.from_numpy(volume), 0.3), expected)
    part = expected[(expected[:, 0] >= 5) & (expected[:, 0] < 9) & (expected[:, 1] >= 3) & (expected[:, 1] < 20)]
    np.testing.assert_array_equal(local_maxima(torch.from_numpy(volume), 0.3, (slice(5, 9), slice(3, 20))), part)


def test_score_and_ratio_are_inverse():
    for score in (0.0, 0.1, 0.5, 0.75, 0.99):
        assert score_of_ratio(np.array(ratio_of_score(score))) == pytest.approx(score)
    assert score_of_ratio(np.array([0.5, 1.0])) == pytest.approx([0.5, 0.75])


def test_deduplication_keeps_the_better_of_two_whatever_the_order():
    positions = np.array([[0, 0, 0], [0, 0, 4], [0, 0, 9], [30, 0, 0]], float)
    scores = np.array([0.5, 0.9, 0.7, 0.2])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        kept = deduplicate(table(positions[order], scores[order]), {1: 5.0})
        np.testing.assert_allclose(kept.scores, [0.9, 0.7, 0.2])


def test_a_suppressed_pick_suppresses_nothing():
    kept = deduplicate(table([[0, 0, 0], [0, 0, 4], [0, 0, 8]], [0.9, 0.8, 0.7]), {1: 5.0})
    np.testing.assert_allclose(kept.positions_zyx_vox[:, 2], [0, 8])


def test_deduplication_works_across_classes_with_the_mean_distance():
    pair = table([[0, 0, 0], [0, 0, 7]], [0.9, 0.8], [1, 2])
    assert len(deduplicate(pair, {1: 5.0, 2: 10.0})) == 1
    assert len(deduplicate(pair, {1: 5.0, 2: 8.0})) == 2


def test_ties_keep_the_order_of_z_y_x():
    kept = deduplicate(table([[0, 0, 3], [0, 0, 0]]), {1: 5.0})
    np.testing.assert_allclose(kept.positions_zyx_vox, [[0, 0, 0]])
