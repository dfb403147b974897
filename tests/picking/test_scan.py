"""The scan is tested with trivial predictors instead of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepetpicker.picking.scan import RUN_VOXELS, ahead, behind, probability_map, read_reflected, runs_of, scan
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.tiling import TilePlan


class Array:
    """A volume in memory."""

    def __init__(self, volume_zyx):
        self.volume_zyx = volume_zyx

    @property
    def shape_zyx(self):
        return self.volume_zyx.shape

    def read(self, slices_zyx):
        return self.volume_zyx[slices_zyx]


def kept(function):
    """Return a predictor that applies a function of whole tiles and keeps what is wanted, as a Predictor does."""
    return lambda tiles, keep: function(tiles)[(..., *keep)]


def stitched(volume_zyx, function, tile=32, border=8, batch=3):
    """Return the stitched map (C, Z, Y, X) of a volume, NaN where nothing was written."""
    out, predict = None, kept(function)
    for z0, y0, strip in scan(Array(volume_zyx), predict, TilePlan.cover(volume_zyx.shape, tile, border), batch):
        out = np.full((len(strip), *volume_zyx.shape), np.nan, np.float32) if out is None else out
        target = out[:, z0:z0 + strip.shape[1], y0:y0 + strip.shape[2]]
        assert np.isnan(target).all()
        target[:] = strip.numpy()
    return out


SHAPES = [(24, 32, 40), (33, 71, 50), (5, 90, 61), (100, 40, 32), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_predictor_x_plus_one_gives_x_plus_one(shape):
    volume = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(stitched(volume, lambda t: t[:, None] + 1)[0], volume + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_in_constant_out(shape):
    out = stitched(np.full(shape, 3.5, np.float32), lambda t: torch.stack([t, -t], 1))
    assert (out[0] == 3.5).all()
    assert (out[1] == -3.5).all()


def test_batches_and_tiles_do_not_matter_for_a_local_filter():
    volume = np.random.default_rng(0).normal(size=(40, 70, 61)).astype(np.float32)

    def smooth(tiles):
        return sum(torch.roll(tiles, (i, j, k), (1, 2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1))[
            :, None]

    results = [stitched(volume, smooth, tile, 8, batch)[:, 1:-1, 1:-1, 1:-1] for tile, batch in
               ((32, 1), (32, 4), (40, 2), (56, 1))]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


@pytest.mark.parametrize(("starts", "stops"), [((-9, 2, -3), (7, 30, 44)), ((0, 0, 0), (24, 32, 40)),
                                               ((-40, -5, 30), (60, 40, 90)), ((20, 28, 38), (30, 40, 70))])
def test_reading_beyond_the_volume_reflects_it(starts, stops):
    volume = np.random.default_rng(1).random((24, 32, 40)).astype(np.float32)
    pads = [(max(0, -a), max(0, b - n)) for a, b, n in zip(starts, stops, volume.shape)]
    whole = np.pad(volume, pads, mode="reflect")
    box = whole[tuple(slice(a + p[0], b + p[0]) for a, b, p in zip(starts, stops, pads))]
    np.testing.assert_array_equal(read_reflected(Array(volume), starts, stops), box)


def test_the_map_is_stored_whole():
    volume = np.random.default_rng(2).random((40, 50, 61)).astype(np.float32)
    plan = TilePlan.cover(volume.shape, 32, 8)
    with ProbabilityStore((2, *volume.shape)) as store:
        probability_map(Array(volume), kept(lambda t: torch.stack([t, 1 - t], 1)), plan, store, 2)
        np.testing.assert_allclose(store.read(0, slice(0, 40), slice(0, 50)), volume, atol=3e-4)
        np.testing.assert_allclose(store.read(1, slice(3, 9), slice(10, 20)), 1 - volume[3:9, 10:20], atol=3e-4)


def test_long_rows_are_read_in_parts():
    volume = np.random.default_rng(3).random((20, 30, 13000)).astype(np.float32)
    plan = TilePlan.cover(volume.shape, 32, 8)
    runs = runs_of(plan)
    assert [t for run in runs for t in run] == list(plan)
    longest = RUN_VOXELS // (plan.tile_zyx[0] * plan.tile_zyx[1])
    assert 32 < max(run[-1].x.start + 32 - run[0].x.start for run in runs) <= longest < volume.shape[2]
    np.testing.assert_array_equal(stitched(volume, lambda t: t[:, None])[0], volume)


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_ahead_keeps_the_order_and_passes_errors_on(threads):
    assert list(ahead(((lambda i=i: i) for i in range(9)), threads)) == list(range(9))
    assert list(ahead([], threads)) == []

    def broken():
        raise OSError("disk gone")

    seen = []
    with pytest.raises(OSError, match="disk gone"):
        seen.extend(ahead([lambda: 1, broken], threads))
    assert seen in ([], [1])


def test_writing_behind_keeps_the_order_and_passes_errors_on():
    written = []
    behind(lambda a, b: written.append((a, b)), ((i, -i) for i in range(5)))
    assert written == [(i, -i) for i in range(5)]

    def full(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        behind(full, [(1,), (2,)])
