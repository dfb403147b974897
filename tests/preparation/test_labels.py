"""Properties of the weak labels."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import InputError
from deepetpicker.preparation.labels import KINDS, default_label_diameter, draw_label, known_mask

SHAPE = (24, 32, 40)


def one(centre, diameter, kind, shape=SHAPE, origin=(0, 0, 0)) -> np.ndarray:
    """Return the label of a single particle of class 1."""
    return draw_label(shape, np.array([centre], float), np.array([1]), {1: diameter}, kind, origin)


def radius_squared(centre, shape=SHAPE) -> np.ndarray:
    """Return the squared distance of each voxel to the centre."""
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre))


@pytest.mark.parametrize("d", [5, 7, 9, 11])
def test_shapes_at_a_voxel_centre_are_those_of_the_definition(d):
    centre = (12, 15, 20)
    r2, s = radius_squared(centre), (d - 1) / 2
    cube = np.max(np.abs(np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))), axis=0) <= s
    assert np.array_equal(one(centre, d, "cubic") > 0, cube)
    assert np.array_equal(one(centre, d, "ball") > 0, r2 <= (d / 2) ** 2)
    tball = cube & (np.exp(-r2 / (2 * s * s)) > np.exp(-1) - 1e-12)
    assert np.array_equal(one(centre, d, "tball") > 0, tball)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fractional_centre_is_honoured(kind):
    rng = np.random.default_rng(0)
    for centre in rng.uniform(8, 15, (5, 3)):
        label = one(centre, 9, kind)
        found = np.argwhere(label).mean(0)
        assert np.abs(found - centre).max() <= 0.5
        assert np.array_equal(one(centre + [2, 3, 4], 9, kind)[2:, 3:, 4:], label[:-2, :-3, :-4])


def test_the_cube_is_as_wide_as_it_says_wherever_its_centre_lies():
    for shift in (0.0, 0.3, 0.5, 0.77):
        label = one((12 + shift, 15 - shift, 20 + shift), 7, "cubic")
        assert label.sum() == 343
        assert [int(label.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))] == [7, 7, 7]


def test_where_labels_overlap_the_nearer_centre_wins_whatever_the_order():
    centres, ids = np.array([[12, 16, 15.0], [12, 16, 20.0]]), np.array([1, 2])
    sizes = {1: 9.0, 2: 9.0}
    label = draw_label(SHAPE, centres, ids, sizes, "cubic")
    assert np.array_equal(label, draw_label(SHAPE, centres[::-1], ids[::-1], sizes, "cubic"))
    assert label[12, 16, 17] == 1
    assert label[12, 16, 18] == 2
    r = [radius_squared(c) for c in centres]
    assert (label[(label > 0) & (r[0] < r[1])] == 1).all()
    assert (label[(label > 0) & (r[1] < r[0])] == 2).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_particles_at_one_place_the_first_has_the_whole_label(kind):
    centres = np.array([[10.3, 11.7, 12.1]] * 2)
    label = draw_label(SHAPE, centres, np.array([1, 2]), {1: 7.0, 2: 7.0}, kind)
    assert np.array_equal(label, one(centres[0], 7.0, kind))


def test_particles_are_cut_at_the_border():
    label = one((0, 31, 39), 7, "cubic")
    assert label.sum() == 4 * 4 * 4
    assert one((-20, 5, 5), 7, "cubic").sum() == 0


def test_a_box_with_an_origin_is_a_part_of_the_whole():
    rng = np.random.default_rng(1)
    centres, ids = rng.uniform(-3, 43, (30, 3)), rng.integers(1, 4, 30)
    sizes = {1: 5.0, 2: 7.0, 3: 11.0}
    whole = draw_label(SHAPE, centres, ids, sizes)
    part = draw_label((9, 11, 13), centres, ids, sizes, origin_zyx=(7, 10, 20))
    assert np.array_equal(part, whole[7:16, 10:21, 20:33])
    assert set(np.unique(whole)) == {0, 1, 2, 3}


def test_no_particle_gives_background():
    label = draw_label(SHAPE, np.zeros((0, 3)), np.zeros(0, int), {})
    assert label.dtype == np.uint8
    assert not label.any()


def test_default_diameter_is_odd_smaller_than_the_particle_and_bounded():
    for particle in np.arange(4, 64, 0.7):
        d = default_label_diameter(particle)
        assert d <= particle
        assert d % 2 == 1
        assert d <= 13
    assert default_label_diameter(20) == 9
    assert default_label_diameter(10) == 5
    assert default_label_diameter(40) == 13


def test_known_voxels_hold_the_label_and_a_shell_but_not_a_neighbours_label():
    d = 20.0
    known = known_mask((40, 40, 60), np.array([[20, 20, 20.0]]), np.array([d]))
    label = draw_label((40, 40, 60), np.array([[20, 20, 20], [20, 20, 40.0]]), np.array([1, 2]), {1: 9, 2: 9})
    assert known[label == 1].all()
    assert not known[label == 2].any()
    assert known.sum() > 4 * (label == 1).sum()


def test_bad_requests_say_what_is_wrong():
    with pytest.raises(InputError, match="tball"):
        one((5, 5, 5), 7, "sphere")
    with pytest.raises(InputError, match="class 2"):
        draw_label(SHAPE, np.ones((1, 3)), np.array([2]), {1: 5})
