"""What a plan promises: enough memory, the least work, and words that people understand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.memory import MIB
from deepetpicker.picking.planning import (
    BLOCK_VOXELS,
    SHORTEST_EDGE,
    USUAL_BYTES,
    PickPlan,
    Workplace,
    duration,
    gpu_bytes,
    make_plan,
)
from deepetpicker.preparation.tiling import TilePlan

PLACE = Workplace(classes=2, width=24, itemsize=4, patch=72, halo=16, batch=1, base_bytes=300 * MIB)
SHAPES = [(64, 64, 64), (128, 256, 256), (200, 512, 512), (400, 1024, 1024), (20, 3000, 90)]


def limited(limit_gb, **values):
    """Return the workplace with a limit in gigabytes."""
    return dataclasses.replace(PLACE, limit_bytes=round(limit_gb * 1e9), **values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [0.6, 0.8, 1.2, 4.0])
def test_a_plan_stays_below_the_limit(shape, limit):
    plan = make_plan(shape, PickOptions(), limited(limit))
    assert plan.memory_bytes <= limit * 1e9


def test_more_memory_never_means_more_work():
    work = [make_plan((200, 512, 512), PickOptions(), limited(gb)).tiles.voxels for gb in (0.55, 0.7, 0.9, 1.2, 3.0)]
    assert work == sorted(work, reverse=True)
    assert work[-1] == make_plan((200, 512, 512), PickOptions(), PLACE).tiles.voxels
    assert work[0] > work[-1]


def test_a_large_tomogram_needs_no_more_memory_than_a_small_one():
    small, large = (make_plan(shape, PickOptions(), PLACE).memory_bytes for shape in ((200, 512, 512),
                                                                                     (400, 1024, 1024)))
    assert large <= 1.1 * small


def test_what_takes_much_memory_gives_it_back_as_it_goes():
    plans = [make_plan((200, 512, 512), PickOptions(tile=edge), PLACE) for edge in (48, 96)]
    assert [p.is_lean for p in plans] == [False, True]
    assert plans[1].memory_bytes <= USUAL_BYTES
    assert make_plan((64, 64, 64), PickOptions(), limited(4.0)).is_lean


def test_a_tile_that_is_computed_twice_is_counted_twice():
    alone, twice, one = (make_plan((200, 512, 512), PickOptions(tile=72, batch=n), limited(4.0, least=least))
                         for n, least in ((1, 2), (2, 1), (1, 1)))
    assert alone.memory_bytes == twice.memory_bytes > one.memory_bytes
    assert make_plan((64, 88, 96), PickOptions(), limited(0.75, least=2)).memory_bytes <= 0.75e9


def test_a_limit_that_is_too_low_says_what_is_needed():
    with pytest.raises(InputError, match=r"needs 0\.\d GB, got 0\.4 GB"):
        make_plan((200, 512, 512), PickOptions(), limited(0.4))
    with pytest.raises(InputError, match="leave --tile out"):
        make_plan((200, 512, 512), PickOptions(tile=96), limited(0.7))


def test_what_the_user_gives_wins():
    plan = make_plan((200, 512, 512), PickOptions(tile=72, batch=3, slab=10), PLACE)
    assert (plan.tiles.tile_zyx, plan.batch, plan.block[0]) == ((72, 72, 72), 3, 10)


def test_a_gpu_takes_many_tiles_and_fewer_when_it_is_small():
    gpu = dataclasses.replace(PLACE, is_gpu=True, itemsize=2, batch=8, base_bytes=500 * MIB)
    plans = [make_plan((200, 512, 512), PickOptions(), dataclasses.replace(gpu, limit_bytes=size * 10**9))
             for size in (2, 4, 80)]
    assert [p.batch for p in plans] == sorted(p.batch for p in plans)
    assert plans[0].batch < plans[2].batch == 8
    assert plans[2].in_memory_bytes == 2 * 2 * 200 * 512 * 512
    assert plans[2].block == (200, 512)
    assert all(p.memory_bytes <= size * 1e9 for p, size in zip(plans, (2, 4, 80)))


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_bounded_whatever_the_shape(shape):
    plan = make_plan(shape, PickOptions(), PLACE)
    planes, rows = (min(n, b + 2 * PLACE.halo) for n, b in zip(shape, plan.block))
    whole = plan.block == shape[:2]
    assert (math.prod(shape) if whole else planes * rows * shape[2]) <= BLOCK_VOXELS


def test_a_map_that_does_not_fit_the_gpu_is_searched_in_small_blocks():
    gpu = dataclasses.replace(PLACE, is_gpu=True, batch=8, base_bytes=10**9, limit_bytes=30 * 10**9)
    plan = make_plan((2000, 3000, 3000), PickOptions(), gpu)
    planes, rows = plan.block
    assert plan.in_memory_bytes == 0
    assert (planes + 2 * gpu.halo) * (rows + 2 * gpu.halo) * 3000 <= BLOCK_VOXELS
    assert plan.memory_bytes < 10 * 10**9


def test_a_limit_on_a_gpu_counts_this_process_alone():
    total, others = 140 * 10**9, 100 * 10**9
    base, limit = gpu_bytes(total - others, total, 10**8, 20 * 10**9)
    assert base < 10**9
    assert limit == 20 * 10**9
    base, limit = gpu_bytes(total - others, total, 10**8, 60 * 10**9)
    assert limit - base == total - others
    assert gpu_bytes(total - others, total, 10**8) == (others, 126 * 10**9)


def test_a_deep_network_gets_tiles_and_starts_that_fit():
    deep = dataclasses.replace(PLACE, phase=16, patch=70)
    plan = make_plan((200, 333, 512), PickOptions(), deep)
    assert all(edge % 16 == 0 for edge in plan.tiles.tile_zyx)
    assert all(t.start % 16 == 0 for axis in (plan.tiles.z, plan.tiles.y, plan.tiles.x) for t in axis)
    with pytest.raises(InputError, match="multiple of 16"):
        make_plan((200, 333, 512), PickOptions(tile=72), deep)


def test_classes_and_resampling_are_counted():
    one, many = (make_plan((96, 96, 1000), PickOptions(), dataclasses.replace(PLACE, classes=n)).memory_bytes
                 for n in (1, 8))
    assert many > one + 8 * 2 * 84 * 96 * 1000
    assert make_plan((96, 96, 96), PickOptions(), PLACE, before_bytes=10**10).memory_bytes > 10**10


def test_blocks_lose_planes_when_rows_are_not_enough():
    plan = make_plan((300, 900, 4000), PickOptions(), dataclasses.replace(limited(1.0), halo=36))
    assert plan.block[0] < 48
    assert plan.memory_bytes <= 1e9


def test_the_shortest_edge_is_tried_last():
    tight = make_plan((200, 512, 512), PickOptions(), limited(0.56))
    assert SHORTEST_EDGE <= max(tight.tiles.tile_zyx) < 72


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (70, "70 s"), (700, "12 min"), (7200, "2.0 h")])
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_plan_in_words():
    tiles = TilePlan.cover((200, 512, 512), 72, 12)
    assert str(PickPlan(tiles, 1, (48, 512), 0, 1_100_000_000, 70.2)) == \
        f"{len(tiles)} tiles of 72 voxels, 1.1 GB, about 70 s"
    one = PickPlan(TilePlan.cover((20, 80, 90), (64, 88, 96), 12), 1, (20, 80), 0, 9e8, 0.0)
    assert str(one) == "1 tile of 64 x 88 x 96 voxels, 0.9 GB"
