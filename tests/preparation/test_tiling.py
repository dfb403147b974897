"""Overlap-tile: the kept parts tile any volume exactly once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepetpicker.errors import InputError
from deepetpicker.preparation.tiling import PHASE, TilePlan, axis_tiles, choose_tile, reflect_indices


@pytest.mark.parametrize("length", [1, 7, 20, 47, 48, 61, 71, 72, 73, 96, 119, 120, 200, 511, 512])
@pytest.mark.parametrize(("tile", "border"), [(72, 12), (64, 12), (96, 12), (48, 8), (56, 12), (32, 12)])
def test_kept_parts_cover_an_axis_exactly_once(length, tile, border):
    count = np.zeros(length, int)
    for t in axis_tiles(length, tile, border):
        count[t.kept] += 1
        assert t.start % PHASE == 0
        assert 0 <= t.inside.start <= t.inside.stop <= tile
    assert (count == 1).all()


@pytest.mark.parametrize("length", [1, 31, 80, 81, 200, 333])
def test_a_deeper_network_has_another_phase(length):
    tiles = axis_tiles(length, 80, 12, 16)
    assert all(t.start % 16 == 0 for t in tiles)
    assert [t.keep_from for t in tiles[1:]] == [t.keep_to for t in tiles[:-1]]
    assert (tiles[0].keep_from, tiles[-1].keep_to) == (0, length)


@pytest.mark.parametrize("length", [73, 96, 200, 512])
def test_inner_sides_discard_at_least_the_border(length):
    tiles = axis_tiles(length, 72, 12)
    for t in tiles[1:]:
        assert t.keep_from - t.start >= 12
    for t in tiles[:-1]:
        assert t.start + 72 - t.keep_to >= 12


def test_a_thin_volume_is_centred_in_its_only_tile():
    (tile,) = axis_tiles(20, 72, 12)
    assert tile.start == -24
    assert (tile.keep_from, tile.keep_to) == (0, 20)


def test_no_more_tiles_than_the_border_asks_for():
    assert len(TilePlan.cover((200, 512, 512), 72, 12)) <= 605


@pytest.mark.parametrize("tile", [56, (64, 40, 72), (32, 48, 96)])
@pytest.mark.parametrize("shape", [(20, 200, 150), (61, 67, 71), (48, 100, 96), (96, 80, 130)])
def test_every_voxel_of_a_volume_is_kept_once(shape, tile):
    count = np.zeros(shape, int)
    for t in TilePlan.cover(shape, tile, 12):
        count[t.z.kept, t.y.kept, t.x.kept] += 1
    assert (count == 1).all()


def test_a_border_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="at most 20"):
        axis_tiles(100, 48, 21)


@pytest.mark.parametrize(("start", "stop", "length"), [(-5, 9, 4), (-30, 40, 7), (0, 5, 5), (-3, 3, 1)])
def test_reflection_agrees_with_numpy(start, stop, length):
    axis = np.arange(length)
    padded = np.pad(axis, (max(0, -start), max(0, stop - length)), mode="reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(axis[reflect_indices(start, stop, length)], padded)


@pytest.mark.parametrize(("shape", "patch", "edges"), [
    ((64, 160, 160), 40, (64, 96, 96)), ((20, 60, 50), 40, (64, 64, 64)), ((200, 512, 512), 72, (88, 96, 96)),
    ((128, 128, 128), 72, (80, 80, 80)), ((96, 192, 192), 104, (104, 104, 104))])
def test_the_chosen_tile_costs_least_and_is_no_smaller_than_the_patch(shape, patch, edges):
    assert choose_tile(shape, patch, 12) == edges


@pytest.mark.parametrize("shape", [(61, 67, 71), (128, 256, 256), (400, 1024, 1024)])
def test_no_other_tile_costs_less(shape):
    edges = (72, 80, 88, 96)
    costs = [TilePlan.cover(shape, edge, 12).voxels for edge in itertools.product(edges, edges, edges)]
    assert TilePlan.cover(shape, choose_tile(shape, 72, 12), 12).voxels == min(costs)


def test_tiles_may_have_to_be_shorter_than_the_patch():
    assert max(choose_tile((128, 256, 256), 72, 12, largest=48)) == 48
