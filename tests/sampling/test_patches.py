"""Properties of the training patches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from deepetpicker.geometry import WorkingGrid
from deepetpicker.preparation.normalise import Intensity
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.augment import Augmentation, Warp, rotation_matrix
from deepetpicker.sampling.patches import Annotated, EpochSampler, ParticlePatches, PatchRule, cut, place

PLAIN = Intensity(0.0, 1.0)
OFF = Augmentation(False, 0.0, 0.0, 0.0, 0.0)


def tomogram(shape, positions, channels=None, volume=None, region=None, name="TS_01") -> Annotated:
    """Return a tomogram with particles; its voxels are noise unless given."""
    if volume is None:
        volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    positions = np.asarray(positions, float).reshape(-1, 3)
    channels = np.ones(len(positions), int) if channels is None else np.asarray(channels)
    source = open_working_volume(volume, WorkingGrid(shape, 10.0, 10.0), PLAIN)
    return Annotated(name, source, positions, channels, region or whole(shape))


def rule(size=32, jitter=0.2, background=0.0, augmentation=OFF, is_unknown=False) -> PatchRule:
    """Return a rule for up to three classes with labels of 7 voxels on particles of 14."""
    return PatchRule(size, jitter, background, "tball", dict.fromkeys((1, 2, 3), 7.0), dict.fromkeys((1, 2, 3), 14.0),
                     is_unknown, augmentation)


def coded(shape) -> np.ndarray:
    """Return a volume whose voxel value tells its place."""
    z, y, x = np.indices(shape)
    return ((z * 100 + y) * 100 + x).astype(np.float32) / 1e5


def test_a_patch_is_the_part_of_the_tomogram_it_says():
    shape = (48, 56, 64)
    one = tomogram(shape, [[20, 30, 40]], volume=coded(shape))
    image, label, weight = cut(one, rule(), np.array([5, 14, 23]), Warp())
    assert image.shape == (1, 32, 32, 32)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image[0].numpy(), coded(shape)[5:37, 14:46, 23:55])
    assert np.argwhere(label.numpy()).mean(0).tolist() == [15, 16, 17]
    assert (weight == 1).all()


@pytest.mark.parametrize("warp", [Warp((True, False, True)), Warp((False, True, False), rotation_matrix(
    np.deg2rad([12, -9, 14])))])
def test_image_and_label_move_together(warp):
    shape, centre = (48, 56, 64), np.array([22.0, 30, 33])
    blob = sum((a - c) ** 2 for a, c in zip(np.indices(shape), centre))
    one = tomogram(shape, [centre], volume=np.exp(-blob / 18).astype(np.float32))
    image, label, _ = cut(one, rule(), np.array([6, 12, 14]), warp)
    mark = np.argwhere(label.numpy()).mean(0)
    bright = image[0].numpy() > 0.5
    np.testing.assert_allclose(mark, np.argwhere(bright).mean(0), atol=0.5)
    assert label.sum() == pytest.approx(257, abs=40)


def test_every_particle_lies_in_its_patch():
    rng = np.random.default_rng(2)
    one = tomogram((40, 48, 56), rng.uniform(0, 39, (12, 3)))
    patches = ParticlePatches([one], rule(), 12, 0)
    assert all(patches[(e, i)][1].any() for e in range(3) for i in range(12))


def test_patches_depend_on_seed_epoch_and_index_alone():
    one = tomogram((40, 48, 56), np.random.default_rng(3).uniform(5, 35, (9, 3)))
    lively = rule(augmentation=Augmentation(probability=0.7), background=0.3)
    a, b = (ParticlePatches([one], lively, 16, 5) for _ in range(2))
    forwards = [a[(2, i)][0] for i in range(16)]
    backwards = [b[(2, i)][0] for i in reversed(range(16))][::-1]
    assert all(torch.equal(x, y) for x, y in zip(forwards, backwards))
    assert not torch.equal(a[(2, 0)][0], a[(3, 0)][0])
    assert not torch.equal(a[(2, 0)][0], ParticlePatches([one], lively, 16, 6)[(2, 0)][0])


def test_rare_classes_come_as_often_as_common_ones_and_all_particles_are_seen():
    positions = np.random.default_rng(4).uniform(8, 32, (21, 3))
    one = tomogram((40, 48, 56), positions, [1] * 18 + [2] * 2 + [3])
    patches = ParticlePatches([one], rule(), 60, 0)
    drawn = [patches._particle(0, k)[1] for k in range(60)]
    counts = np.bincount(one.channels[drawn])[1:]
    assert counts.tolist() == [20, 20, 20]
    assert set(drawn) == set(range(21))


def test_share_of_background():
    one = tomogram((200, 200, 200), [[20, 20, 20]], volume=np.zeros((200, 200, 200), np.float32))
    patches = ParticlePatches([one], rule(background=0.25, jitter=0.0), 40, 0)
    empty = sum(not patches[(0, i)][1].any() for i in range(40))
    assert empty == 10


def test_a_thin_tomogram_is_padded_by_reflection():
    shape = (20, 100, 90)
    one = tomogram(shape, [[10, 50, 45]], volume=coded(shape))
    start = place(np.array([10, 50, 45]), one.region_zyx, 72)
    image, label, _ = cut(one, rule(72), start, Warp())
    assert -52 <= start[0] <= 0
    index = np.abs(np.arange(start[0], start[0] + 72))
    index = 19 - np.abs(index % 38 - 19)
    np.testing.assert_array_equal(image[0].numpy(), coded(shape)[index][:, start[1]:start[1] + 72,
                                                                       start[2]:start[2] + 72])
    turned = Warp((False,) * 3, rotation_matrix(np.deg2rad([15, 15, 15])))
    bent, marks, _ = cut(one, rule(72), start, turned)
    assert torch.isfinite(bent).all()
    assert set(marks.unique().tolist()) == {0, 1}
    assert label.sum() > 257


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 5, 7), (20, 200, 150), (61, 67, 71)])
def test_any_shape_and_a_single_particle(shape):
    centre = [(n - 1) / 2 for n in shape]
    patches = ParticlePatches([tomogram(shape, [centre])], rule(augmentation=Augmentation(probability=1.0)), 4, 0)
    for i in range(4):
        image, label, _ = patches[(0, i)]
        assert image.shape == (1, 32, 32, 32)
        assert torch.isfinite(image).all()
        assert label.any()


def test_tomograms_without_particles_give_background_only():
    empty, full = tomogram((40, 40, 40), np.zeros((0, 3))), tomogram((40, 48, 56), [[20, 20, 20]])
    assert not ParticlePatches([empty], rule(), 4, 0)[(0, 1)][1].any()
    both = ParticlePatches([empty, full], rule(background=0.5), 16, 0)
    assert sum(bool(both[(0, i)][1].any()) for i in range(16)) >= 8


def test_no_patch_leaves_its_region():
    shape = (40, 48, 96)
    volume = np.zeros(shape, np.float32)
    volume[:, :, 70:] = 5.0
    region = (slice(0, 40), slice(0, 48), slice(0, 70))
    one = tomogram(shape, np.random.default_rng(5).uniform([0, 0, 0], [40, 48, 96], (40, 3)), volume=volume,
                   region=region)
    patches = ParticlePatches([one], rule(background=0.3, augmentation=Augmentation(probability=1.0)), 40, 0)
    assert max(float(patches[(0, i)][0].max()) for i in range(40)) == 0
    assert all(one.positions_zyx_vox[row, 2] < 70 for row in one.inside)


def test_unknown_voxels_have_no_weight():
    one = tomogram((64, 64, 64), [[32, 32, 32]])
    _, label, weight = cut(one, rule(is_unknown=True), np.array([16, 16, 16]), Warp())
    assert (weight[label > 0] == 1).all()
    assert weight[0, 0, 0] == 0
    assert 0 < weight.mean() < 0.5


def test_processes_share_each_global_batch():
    single = list(itertools.chain(*EpochSampler(22, 8)))
    parts = [list(EpochSampler(22, 8, r, 4)) for r in range(4)]
    assert all(len(part) == 2 for part in parts)
    together = [key for step in range(2) for key in sorted(itertools.chain(*(p[step] for p in parts)))]
    assert together == single == [(0, i) for i in range(16)]
    sampler = EpochSampler(8, 8)
    sampler.set_epoch(3)
    assert next(iter(sampler))[0] == (3, 0)
    assert len(EpochSampler(3, 8)) == 1
