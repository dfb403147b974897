"""Properties of the augmentation: one warp, one interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.sampling.augment import Augmentation, Warp, fold, random_warp, rotation_matrix, sample, smooth_field

NONE = (False, False, False)


def volume(shape=(40, 44, 52), centre=(20.0, 21.0, 25.0), sigma=3.0) -> np.ndarray:
    """Return a Gaussian blob."""
    square = sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre))
    return np.exp(-square / (2 * sigma**2)).astype(np.float32)


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    """Return the centre of mass."""
    return np.array([(axis * image).sum() for axis in np.indices(image.shape)]) / image.sum()


def warped(image: np.ndarray, warp: Warp, size: int, centre) -> np.ndarray:
    """Return a patch of an image about a centre."""
    at = warp.offsets(size) + np.reshape(np.asarray(centre, np.float32), (3, 1, 1, 1))
    return sample(image[None], at, nearest=False)[0]


def test_the_identity_is_a_cut():
    image = np.random.default_rng(0).normal(size=(40, 44, 52)).astype(np.float32)
    patch = warped(image, Warp(), 16, (19.5, 20.5, 22.5))
    np.testing.assert_allclose(patch, image[12:28, 13:29, 15:31], atol=1e-4)


def test_mirrors_flip_the_axes_they_name():
    image = np.random.default_rng(1).normal(size=(40, 44, 52)).astype(np.float32)
    plain = warped(image, Warp(), 16, (19.5, 20.5, 22.5))
    for axis in range(3):
        mirrored = tuple(a == axis for a in range(3))
        np.testing.assert_allclose(warped(image, Warp(mirrored), 16, (19.5, 20.5, 22.5)), np.flip(plain, axis),
                                   atol=1e-5)


def test_a_shift_in_is_a_shift_out():
    patch = warped(volume(centre=(22.25, 20.5, 24.75)), Warp(), 24, (20, 20, 25))
    np.testing.assert_allclose(centre_of_mass(patch), np.array([22.25, 20.5, 24.75]) - [20, 20, 25] + 11.5, atol=0.02)


@pytest.mark.parametrize("angles", [(0, 0, 15), (15, 0, 0), (10, -15, 5)])
def test_a_rotation_moves_a_blob_where_the_matrix_says(angles):
    matrix = rotation_matrix(np.deg2rad(angles))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    centre, blob = np.array([20.0, 21, 25]), np.array([22.0, 24, 21])
    patch = warped(volume(centre=blob, sigma=1.5), Warp(NONE, matrix), 24, centre)
    np.testing.assert_allclose(centre_of_mass(patch), matrix.T @ (blob - centre) + 11.5, atol=0.05)


def test_rotation_by_90_degrees_about_z_is_exact():
    image = np.random.default_rng(2).normal(size=(17, 17, 17)).astype(np.float32)
    patch = warped(image, Warp(NONE, rotation_matrix(np.deg2rad([90, 0, 0]))), 17, (8, 8, 8))
    np.testing.assert_allclose(patch, np.rot90(image, -1, (1, 2)), atol=1e-3)


def test_scaling_makes_a_blob_larger():
    plain = warped(volume(), Warp(), 24, (20, 21, 25))
    large = warped(volume(), Warp(NONE, np.eye(3) / 1.05), 24, (20, 21, 25))
    assert large.sum() / plain.sum() == pytest.approx(1.05**3, rel=0.03)


def test_elastic_field_is_smooth_bounded_and_keeps_constants():
    rng = np.random.default_rng(3)
    control = rng.uniform(-2, 2, (3, 5, 5, 5))
    field = smooth_field(control, 32)
    assert field.shape == (3, 32, 32, 32)
    assert np.abs(field).max() <= 2
    assert max(np.abs(np.diff(field, axis=a)).max() for a in (1, 2, 3)) < 0.6
    np.testing.assert_allclose(smooth_field(np.full((3, 5, 5, 5), 1.5), 9), 1.5, rtol=1e-5)


def test_field_axes_are_not_mixed():
    control = np.zeros((3, 5, 5, 5))
    control[2] = np.arange(5).reshape(-1, 1, 1)
    field = smooth_field(control, 20)
    assert (np.diff(field[2], axis=0) > 0)[4:-4].all()
    np.testing.assert_allclose(np.diff(field[2], axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.diff(field[2], axis=2), 0, atol=1e-5)
    assert not field[:2].any()


def test_fold_reflects_about_end_voxels_as_often_as_needed():
    assert fold(np.arange(-3, 9), 0, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert fold(np.arange(3, 8), 5, 6).tolist() == [5] * 5
    inner = np.array([5.0, 6.5, 7.0])
    assert fold(inner, 5, 8) is inner
    assert fold(np.array([4.5, 7.25]), 5, 8).tolist() == [5.5, 6.75]


def test_random_warps_stay_in_their_limits_and_repeat():
    options = Augmentation(probability=1.0)
    seen = [random_warp(np.random.default_rng(k), 40, options) for k in range(60)]
    again = [random_warp(np.random.default_rng(k), 40, options) for k in range(60)]
    for a, b in zip(seen, again):
        assert np.array_equal(a.offsets(8), b.offsets(8))
    for warp in seen:
        if warp.control_dzyx is not None:
            assert np.abs(warp.control_dzyx).max() <= 0.05 * 40
        if warp.matrix_zyx is not None:
            assert 1 / 1.05 <= np.cbrt(np.linalg.det(warp.matrix_zyx)) <= 1 / 0.95
    assert 5 < sum(w.control_dzyx is not None for w in seen) < 55
    assert 5 < sum(w.mirrored_zyx[0] for w in seen) < 55


def test_everything_off_is_the_identity():
    off = Augmentation(False, 0.0, 0.0, 0.0, 1.0)
    assert random_warp(np.random.default_rng(0), 32, off) == Warp()


def test_nearest_sampling_makes_no_new_labels():
    label = np.zeros((20, 20, 20), np.float32)
    label[6:14, 6:14, 6:14] = 3
    warp = Warp(NONE, rotation_matrix(np.deg2rad([15, 10, -5])))
    at = warp.offsets(16) + 9.5
    assert set(np.unique(sample(label[None], np.clip(at, 0, 19), nearest=True))) <= {0.0, 3.0}
