"""Properties of the resampling to the working grid."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import OutputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.preparation.normalise import robust_intensity
from deepetpicker.preparation.resample import Crop, Resampler, open_working_volume, whole

SHAPE = (31, 44, 57)
FACTORS = [1.13, 1.5, 2.0, 3.7]


def grid(factor: float, shape=SHAPE) -> WorkingGrid:
    """Return the working grid of a volume at 5 angstrom per voxel."""
    return WorkingGrid(shape, 5.0, 5.0 * factor)


def resampled(volume: np.ndarray, factor: float, fill: float = 0.0) -> np.ndarray:
    """Return the whole volume on its working grid."""
    on = grid(factor, volume.shape)
    return Resampler(on).slab(volume, 0, on.shape_zyx[0], fill)


def blob(centre, sigma, shape=SHAPE) -> np.ndarray:
    """Return a Gaussian about centre (z, y, x)."""
    square = sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre))
    return np.exp(-square / (2 * sigma**2)).astype(np.float32)


def centre_of_mass(volume: np.ndarray) -> np.ndarray:
    """Return the centre of mass (z, y, x)."""
    return np.array([(axis * volume).sum() for axis in np.indices(volume.shape)]) / volume.sum()


@pytest.mark.parametrize("factor", FACTORS)
def test_constant_in_constant_out(factor):
    out = resampled(np.full(SHAPE, 3.5, np.float32), factor)
    assert out.shape == grid(factor).shape_zyx
    np.testing.assert_allclose(out, 3.5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 40), (2, 3, 5), (20, 41, 33)])
def test_tiny_and_thin_volumes(shape):
    out = resampled(np.full(shape, 2.0, np.float32), 2.0)
    assert out.shape == grid(2.0, shape).shape_zyx
    np.testing.assert_allclose(out, 2.0, rtol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_blob_keeps_its_place(factor):
    shape, centre = (61, 67, 71), np.array([30.3, 28.1, 40.7])
    out = resampled(blob(centre, 1.2 * factor, shape), factor)
    np.testing.assert_allclose(centre_of_mass(out), grid(factor, shape).to_working(centre), atol=0.02)


def test_a_shift_by_the_factor_is_a_shift_by_one():
    volume = np.random.default_rng(0).normal(size=(40, 48, 56)).astype(np.float32)
    moved = np.roll(volume, (2, 2, 2), (0, 1, 2))
    a, b = resampled(volume, 2.0), resampled(moved, 2.0)
    np.testing.assert_allclose(a[4:-6, 4:-6, 4:-6], b[5:-5, 5:-5, 5:-5], atol=1e-5)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_slabs_give_what_the_whole_gives(step):
    volume = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    on = grid(1.7)
    resampler, depth = Resampler(on), on.shape_zyx[0]
    slabs = [resampler.slab(volume, z, min(z + step, depth)) for z in range(0, depth, step)]
    np.testing.assert_allclose(np.concatenate(slabs), resampled(volume, 1.7), atol=1e-6)
    np.testing.assert_allclose(resampler.slab(volume, 2, 5), resampled(volume, 1.7)[2:5], atol=1e-6)


def test_one_resampler_on_two_volumes_does_not_mix_them():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    resampler = Resampler(grid(2.0))
    resampler.slab(a, 0, 4)
    np.testing.assert_allclose(resampler.slab(b, 2, 6), resampled(b, 2.0)[2:6], atol=1e-6)


def test_only_the_planes_needed_are_read():
    seen = []

    class Watched(np.ndarray):
        """An array that remembers the planes it was asked for."""

        def __getitem__(self, key):
            if isinstance(key, slice):
                seen.append((key.start, key.stop))
            return super().__getitem__(key)

    volume = np.zeros((200, 8, 8), np.float32).view(Watched)
    Resampler(grid(2.0, volume.shape)).slab(volume, 50, 54)
    assert min(a for a, _ in seen) >= 100 - 6
    assert max(b for _, b in seen) <= 108 + 6


def test_detail_finer_than_the_working_grid_is_filtered_away():
    z, y, x = np.indices((32, 32, 32))
    checker = ((z + y + x) % 2).astype(np.float32)
    out = resampled(checker, 2.0)
    assert np.abs(out[4:-4, 4:-4, 4:-4] - 0.5).max() < 0.02


def test_nan_does_not_poison_its_neighbours():
    volume = np.full(SHAPE, 7.0, np.float32)
    volume[10, 20, 30], volume[3, 4, 5] = np.nan, np.inf
    np.testing.assert_allclose(resampled(volume, 2.0, fill=7.0), 7.0, rtol=1e-5)


def test_factor_one_passes_planes_through():
    volume = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    out = Resampler(grid(1.0)).slab(volume, 3, 9)
    assert np.array_equal(out, volume[3:9])


@pytest.mark.parametrize("factor", [1.0, 2.3])
def test_working_volume_is_normalised_and_every_way_of_reading_agrees(factor, tmp_path):
    volume = np.random.default_rng(4).normal(50, 4, (40, 44, 57)).astype(np.float32)
    on = grid(factor, volume.shape)
    live, cached = open_working_volume(volume, on), open_working_volume(volume, on, cache_dir=tmp_path)
    planes = live.planes(0, on.shape_zyx[0])
    assert live.shape_zyx == planes.shape == on.shape_zyx
    assert planes.std() == pytest.approx(1, abs=0.05)
    assert planes.mean() == pytest.approx(0, abs=0.05)
    box = (slice(2, 9), slice(1, 8), slice(3, 20))
    np.testing.assert_allclose(live.read(box), planes[box], atol=5e-5)
    np.testing.assert_allclose(cached.read(box), planes[box], atol=3e-3)
    np.testing.assert_allclose(Crop(live, box).planes(1, 4), planes[box][1:4], atol=5e-5)
    assert Crop(live, box).shape_zyx == (7, 7, 17)
    assert whole(on.shape_zyx)[2] == slice(0, on.shape_zyx[2])


def test_large_volumes_are_cached_in_a_file_and_reused(tmp_path):
    volume = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    first = open_working_volume(volume, grid(2.0), cache_dir=tmp_path, name="TS_01", in_memory_bytes=0)
    files = list(tmp_path.glob("*.npy"))
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    again = open_working_volume(volume, grid(2.0), cache_dir=tmp_path, name="TS_01", in_memory_bytes=0)
    assert files[0].stat().st_mtime_ns == stamp
    assert np.array_equal(first.planes(0, 3), again.planes(0, 3))


class Watched(np.ndarray):
    """A tomogram that notes, whenever it is read, the place on the disk and the size of each file in a folder."""

    folder, found = None, ()

    def __getitem__(self, index):
        if self.folder is not None:
            self.found.extend((path.stat().st_blocks * 512, path.stat().st_size) for path in self.folder.iterdir())
        return np.asarray(self)[index]


def test_the_cache_has_its_place_on_the_disk_before_it_is_filled(tmp_path):
    """A sparse file that is mapped kills the process without a word when the disk is full."""
    volume = np.random.default_rng(5).normal(size=(60, 62, 71)).view(Watched)
    volume.folder, volume.found = tmp_path, []
    open_working_volume(volume, grid(1.5), cache_dir=tmp_path, in_memory_bytes=0)
    assert volume.found
    assert all(place >= size > 40_000 for place, size in volume.found)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device; the disk is full: free some space"):
        open_working_volume(np.random.default_rng(5).normal(size=SHAPE), grid(2.0), cache_dir=tmp_path,
                            in_memory_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_given_intensity_is_used():
    volume = np.random.default_rng(6).normal(5, 2, SHAPE).astype(np.float32)
    intensity = robust_intensity(volume)
    source = open_working_volume(volume, grid(1.0), intensity)
    assert source.intensity is intensity
