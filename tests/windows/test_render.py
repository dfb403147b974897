"""Slices as pictures: the right voxel at the right pixel, whatever zoom, type and slab."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.windows.render import (
    KEPT_BYTES,
    OUTSIDE,
    TOUCHED_BYTES,
    Look,
    crop_greys,
    grey_limits,
    read_plane,
    view_picture,
)
from deepetpicker.windows.viewport import Viewport

PLAIN = Look(average=0, clipped_percent=0.0)
VOLUME = np.arange(24 * 40 * 56, dtype=np.float32).reshape(24, 40, 56)
ALL = (slice(None), slice(None))


@pytest.mark.parametrize(("axis", "shape"), [(0, (40, 56)), (1, (24, 56)), (2, (40, 24))])
def test_planes_have_right_and_up_as_documented(axis, shape):
    image = read_plane(VOLUME, (axis, 3), ALL)
    assert image.shape == shape
    at = {0: VOLUME[3, 5, 7], 1: VOLUME[5, 3, 7], 2: VOLUME[7, 5, 3]}[axis]
    assert image[5, 7] == at


def test_a_slab_is_the_mean_of_its_planes_and_shorter_at_the_border():
    np.testing.assert_allclose(read_plane(VOLUME, (0, 3), ALL, 2), VOLUME[1:6].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(read_plane(VOLUME, (2, 0), ALL, 1), VOLUME[:, :, :2].mean(axis=2).T, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 3])
def test_a_large_tomogram_is_read_in_parts(tmp_path, axis, step):
    part = (slice(2, 20, step), slice(1, 19, step))
    large = np.memmap(tmp_path / "large", np.float32, "w+", shape=(24, 2000, 2000))  # nearly all of it is a hole
    large[:, :40, :56] = VOLUME
    assert large.nbytes > KEPT_BYTES
    assert 18 * large[0].nbytes > TOUCHED_BYTES, "more than is read at once"
    np.testing.assert_array_equal(read_plane(large, (axis, 3), part, 1), read_plane(VOLUME, (axis, 3), part, 1))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.float16, np.float32])
def test_every_type_of_voxels_gives_the_same_picture(tmp_path, kind):
    values = np.random.default_rng(0).integers(-100, 100, (6, 20, 30))
    write_volume(tmp_path / "a.mrc", values.astype(kind), 10.0)
    picture = view_picture(open_volume(tmp_path / "a.mrc").data_zyx, (0, 2), (-0.5, 29.5, -0.5, 19.5), (30, 20), PLAIN)
    wanted = view_picture(values.astype(np.float32), (0, 2), (-0.5, 29.5, -0.5, 19.5), (30, 20), PLAIN)
    np.testing.assert_array_equal(picture, wanted)
    assert picture[..., 0].min() == 0
    assert picture[..., 0].max() == 255
    assert (picture[..., 3] == 255).all()


@pytest.mark.parametrize("zoom", [1, 3, 8])
def test_a_voxel_is_where_it_belongs_at_any_zoom(zoom):
    volume = np.zeros((24, 40, 56), np.float32)
    volume[3, 30, 10] = 1.0
    picture = view_picture(volume, (0, 3), (-0.5, 55.5, -0.5, 39.5), (56 * zoom, 40 * zoom), PLAIN)[..., 0]
    rows, columns = np.nonzero(picture == picture.max())
    assert (columns.mean() + 0.5) / zoom - 0.5 == pytest.approx(10, abs=0.01)
    assert 40 - (rows.mean() + 0.5) / zoom - 0.5 == pytest.approx(30, abs=0.01)  # y grows upwards


def test_beside_the_tomogram_the_view_is_light_grey():
    picture = view_picture(VOLUME, (0, 3), (-20.5, 55.5, -0.5, 39.5), (76, 40), PLAIN)[..., 0]
    assert (picture[:, :20] == OUTSIDE).all()
    assert (view_picture(VOLUME, (0, 3), (100, 120, 0, 20), (20, 20), PLAIN)[..., 0] == OUTSIDE).all()


def test_beside_the_tomogram_a_crop_is_dark():
    """Crops lie on a dark ground, and half of a bright square passes for density."""
    crop = crop_greys(VOLUME, (3, 1, 10), 8.0, 64, PLAIN)
    assert len(np.unique(crop[-20:])) == 1
    assert crop[-1, 0] < 80 < OUTSIDE


def test_low_pass_and_inversion_change_the_view_and_not_the_data():
    volume = np.random.default_rng(1).normal(size=(8, 64, 48)).astype(np.float32)
    before = volume.copy()
    window, size = (-0.5, 47.5, -0.5, 63.5), (48, 64)
    plain = view_picture(volume, (0, 3), window, size, PLAIN)[..., 0].astype(float)
    smooth = view_picture(volume, (0, 3), window, size, Look(0, 2.0, 0.0))[..., 0].astype(float)
    dark = view_picture(volume, (0, 3), window, size, Look(0, 0.0, 0.0, True))[..., 0]
    assert np.abs(np.diff(smooth)).mean() < 0.3 * np.abs(np.diff(plain)).mean()
    np.testing.assert_array_equal(255 - dark, plain.astype(np.uint8))
    np.testing.assert_array_equal(volume, before)


def test_unknown_voxels_do_no_harm():
    volume = np.full((4, 20, 30), np.nan, np.float32)
    assert view_picture(volume, (0, 1), (-0.5, 29.5, -0.5, 19.5), (30, 20), PLAIN).shape == (20, 30, 4)


def test_grey_limits():
    assert grey_limits(np.arange(101.0)[None], 10) == (10.0, 90.0)
    assert grey_limits(np.full((3, 3), 2.0), 1) == (2.0, 3.0)
    assert grey_limits(np.full((3, 3), np.nan), 1) == (0.0, 1.0)


def test_crops_are_centred():
    volume = np.zeros((24, 40, 56), np.float32)
    volume[3, 30, 10] = 1.0
    crop = crop_greys(volume, (3.2, 30, 10), 8.0, 64, PLAIN)
    rows, columns = np.nonzero(crop == crop.max())
    assert rows.mean() == pytest.approx(31.5, abs=0.6)
    assert columns.mean() == pytest.approx(31.5, abs=0.6)


def viewport():
    return Viewport((24, 40, 56), (900, 800))


def test_at_first_everything_is_seen():
    port = viewport()
    for axis, sides in ((0, (56, 40)), (1, (56, 24)), (2, (24, 40))):
        left, right, low, high = port.window(axis)
        assert left <= -0.5
        assert right >= sides[0] - 0.5
        assert low <= -0.5
        assert high >= sides[1] - 0.5


def test_zooming_keeps_the_point_under_the_mouse():
    port = viewport()
    left, right, low, high = port.window(0)
    share = ((40 - left) / (right - left), (12 - low) / (high - low))
    port.zoom(4.0, (10, 12, 40))
    left, right, low, high = port.window(0)
    assert (40 - left) / (right - left) == pytest.approx(share[0])
    assert (12 - low) / (high - low) == pytest.approx(share[1])
    port.zoom(1e-9, (0, 0, 0))
    assert port.scale_px == pytest.approx(port.fitting_px)  # never smaller than everything


def test_a_band_becomes_the_view():
    port = viewport()
    port.show_band(0, (20, 8), (44, 24))
    left, right, low, high = port.window(0)
    assert (left + right) / 2 == pytest.approx(32)
    assert (low + high) / 2 == pytest.approx(16)
    assert left <= 20.01
    assert right >= 43.99
    assert right - left == pytest.approx(24) or high - low == pytest.approx(16)


def test_the_centre_stays_inside_and_follows_a_pick():
    port = viewport()
    port.zoom(6.0, (12, 20, 28))
    port.pan(0, (1e6, 1e6))
    assert port.window(0)[0] == pytest.approx(-0.5)
    port.follow((3, 30, 50), centred=True)
    left, right, low, high = port.window(0)
    assert left < 50 < right
    assert low < 30 < high


def test_a_960_tomogram_shows_particles_large():
    port = Viewport((200, 960, 960), (900, 800))
    assert port.scale_px * 12 < 15  # a particle of 12 voxels, everything seen
    port.show_band(0, (400, 400), (480, 480))
    assert port.scale_px * 12 > 80
