"""The scan is tested with trivial predictors instead of a network."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.scanning import RollingReader, scan
from deepetpicker.tiling import TilePlan


class Array:
    """A volume in memory that counts the planes read from it."""

    def __init__(self, volume_zyx):
        self.volume_zyx, self.read = volume_zyx, 0

    @property
    def shape_zyx(self):
        return self.volume_zyx.shape

    def planes(self, z0, z1):
        self.read += z1 - z0
        return self.volume_zyx[z0:z1]


def stitched(volume_zyx, predict, tile=32, border=8, batch=3):
    """Return the stitched map (C, Z, Y, X) of a volume."""
    plan = TilePlan.cover(volume_zyx.shape, tile, border)
    slabs = list(scan(Array(volume_zyx), predict, plan, batch))
    assert [z0 for z0, _ in slabs] == list(np.cumsum([0, *(s.shape[1] for _, s in slabs[:-1])]))
    return np.concatenate([s for _, s in slabs], 1)


SHAPES = [(24, 32, 40), (33, 71, 50), (5, 90, 61), (100, 40, 32), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_predictor_x_plus_one_gives_x_plus_one(shape):
    volume = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(stitched(volume, lambda t: t[:, None] + 1)[0], volume + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_in_constant_out(shape):
    out = stitched(np.full(shape, 3.5, np.float32), lambda t: np.stack([t, -t], 1))
    assert (out[0] == 3.5).all()
    assert (out[1] == -3.5).all()


def test_batches_and_tiles_do_not_matter_for_a_local_filter():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(40, 70, 61)).astype(np.float32)

    def smooth(tiles):
        return sum(np.roll(tiles, (i, j, k), (1, 2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1))[
            :, None]

    results = [stitched(volume, smooth, tile, 8, batch)[:, 1:-1, 1:-1, 1:-1] for tile, batch in
               ((32, 1), (32, 4), (40, 2), (56, 1))]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


def test_each_plane_is_read_once():
    source = Array(np.zeros((150, 40, 33), np.float32))
    reader = RollingReader(source, TilePlan.cover(source.shape_zyx, 32, 8))
    for z in TilePlan.cover(source.shape_zyx, 32, 8).z:
        reader.layer(z)
    assert source.read == 150
