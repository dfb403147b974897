"""Properties of the robust normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import InputError
from deepetpicker.preparation.normalise import LIMIT_SIGMA, SAMPLE_VOXELS, normalise, robust_intensity, strided_sample

SHAPE = (24, 32, 40)


def noise(seed: int = 0, mean: float = 12.0, std: float = 3.0) -> np.ndarray:
    """Return Gaussian noise (24, 32, 40) float32."""
    return np.random.default_rng(seed).normal(mean, std, SHAPE).astype(np.float32)


def test_gaussian_noise_gives_its_own_mean_and_deviation():
    found = robust_intensity(noise())
    assert found.mean == pytest.approx(12.0, abs=0.06)
    assert found.std == pytest.approx(3.0, rel=0.02)
    assert found.quantiles[4] == pytest.approx(0.0, abs=0.03)


def test_gold_beads_do_not_decide():
    volume = noise()
    volume[4:8, 10:14, 10:14] = -500.0
    found = robust_intensity(volume)
    assert found.mean == pytest.approx(12.0, abs=0.06)
    assert found.std == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_voxels_are_ignored_and_become_finite(bad):
    volume = noise()
    volume[::5, ::3, ::2] = bad
    found = robust_intensity(volume)
    assert found.std == pytest.approx(3.0, rel=0.03)
    out = normalise(volume, found)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= LIMIT_SIGMA
    if np.isnan(bad):
        assert out[0, 0, 0] == 0


def test_padding_of_more_than_half_does_not_decide():
    volume = np.zeros(SHAPE, np.float32)
    volume[:, 8:20] = noise()[:, 8:20]
    found = robust_intensity(volume)
    assert found.mean == pytest.approx(12.0, abs=0.1)
    assert found.std == pytest.approx(3.0, rel=0.03)


def test_normalised_volume_has_mean_0_deviation_1_and_input_is_kept():
    volume = noise()
    before = volume.copy()
    out = normalise(volume, robust_intensity(volume))
    assert out.dtype == np.float32
    assert out.mean() == pytest.approx(0, abs=0.01)
    assert out.std() == pytest.approx(1, abs=0.02)
    assert np.array_equal(volume, before)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, ">f4"])
def test_any_numeric_type(dtype):
    found = robust_intensity(noise(mean=60).astype(dtype))
    assert found.mean == pytest.approx(60, abs=0.6)
    assert found.std == pytest.approx(3.0, rel=0.05)


def test_affine_change_of_grey_values_gives_the_same_normalised_volume():
    volume = noise()
    other = (-7.0 * volume + 1000.0).astype(np.float32)
    a, b = normalise(volume, robust_intensity(volume)), normalise(other, robust_intensity(other))
    np.testing.assert_allclose(a, -b, atol=2e-3)


@pytest.mark.parametrize(("value", "word"), [(5.0, "constant 5"), (np.nan, "only NaN"), (np.inf, "only NaN")])
def test_nothing_to_see_is_an_error_naming_the_file(value, word):
    with pytest.raises(InputError, match=word) as error:
        robust_intensity(np.full(SHAPE, value, np.float32), "TS_01.mrc")
    assert "TS_01.mrc" in str(error.value)


def test_sample_is_bounded_and_the_same_every_time():
    volume = np.broadcast_to(np.arange(400, dtype=np.float32)[None, None, :], (300, 400, 400))
    sample = strided_sample(volume)
    assert 0.3 * SAMPLE_VOXELS < sample.size < 1.3 * SAMPLE_VOXELS
    assert np.array_equal(sample, strided_sample(volume))
    assert sample.mean() == pytest.approx(199.5)


def test_one_voxel_thin_volume():
    volume = noise()[:1]
    assert robust_intensity(volume).std == pytest.approx(3.0, rel=0.1)
