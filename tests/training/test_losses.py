"""Properties of the training loss."""

from __future__ import annotations

import pytest
import torch

from deepetpicker.training.losses import WeakLabelLoss, cross_entropy_sums, dice_of_sums, dice_sums, one_hot

SHAPE = (2, 8, 10, 12)


def example(n_classes: int, seed: int = 0):
    """Return logits, label and weight for a batch of two."""
    generator = torch.Generator().manual_seed(seed)
    channels = 1 if n_classes == 1 else n_classes + 1
    logits = torch.randn(SHAPE[0], channels, *SHAPE[1:], generator=generator)
    return logits, torch.randint(0, n_classes + 1, SHAPE, generator=generator), torch.ones(SHAPE)


@pytest.mark.parametrize("n_classes", [1, 3])
def test_perfect_is_0_and_wrong_is_nearly_1(n_classes):
    _, label, weight = example(n_classes)
    channels = torch.nn.functional.one_hot(label, n_classes + 1).permute(0, 4, 1, 2, 3).float()
    right = 60 * (channels if n_classes > 1 else channels[:, 1:]) - 30
    loss = WeakLabelLoss(n_classes)
    assert float(loss(right, label, weight)[0]) == pytest.approx(0, abs=1e-5)
    assert float(loss(-right if n_classes == 1 else right.roll(1, 1), label, weight)[0]) > 0.98


def test_dice_of_one_class_by_hand():
    logits, label, weight = example(1)
    p, t = logits.sigmoid()[:, 0], label.float()
    expected = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert float(WeakLabelLoss(1)(logits, label, weight)[0]) == pytest.approx(float(expected), rel=1e-5)


def test_classes_count_alike():
    logits, label, weight = example(3)
    label[label == 3] = 0
    label[0, 0, 0, 0] = 3
    sums = dice_sums(logits.softmax(1)[:, 1:], one_hot(label, 3), weight)
    each = [float(dice_of_sums(sums[:, c:c + 1])) for c in range(3)]
    assert float(WeakLabelLoss(3)(logits, label, weight)[0]) == pytest.approx(sum(each) / 3, rel=1e-5)


def test_unknown_voxels_change_nothing():
    logits, label, weight = example(2)
    weight[:, :, :5] = 0
    changed = logits.clone()
    changed[:, :, :, :5] = 9
    for share in (0.0, 0.5):
        loss = WeakLabelLoss(2, share)
        assert float(loss(logits, label, weight)[0]) == pytest.approx(float(loss(changed, label, weight)[0]), rel=1e-5)
    logits.requires_grad_()
    WeakLabelLoss(2, 0.5)(logits, label, weight)[0].backward()
    assert not logits.grad[:, :, :, :5].any()
    assert logits.grad[:, :, :, 5:].any()


def test_sums_of_parts_are_the_sums_of_the_whole():
    logits, label, weight = example(1)
    p, t = logits.sigmoid(), one_hot(label, 1)
    parts = dice_sums(p[:1], t[:1], weight[:1]) + dice_sums(p[1:], t[1:], weight[1:])
    torch.testing.assert_close(parts, dice_sums(p, t, weight))


def test_empty_batch_of_background_is_finite_and_wants_nothing():
    logits, _, weight = example(1)
    logits.requires_grad_()
    loss = WeakLabelLoss(1)(logits, torch.zeros(SHAPE, dtype=torch.long), weight)[0]
    loss.backward()
    assert 0.98 < loss.item() < 1
    assert (logits.grad >= 0).all()


@pytest.mark.parametrize("n_classes", [1, 2])
def test_cross_entropy_is_the_usual_mean(n_classes):
    logits, label, weight = example(n_classes)
    total, count = cross_entropy_sums(logits, label, weight)
    expected = (torch.nn.functional.cross_entropy(logits, label) if n_classes > 1 else
                torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], label.float()))
    assert float(total / count) == pytest.approx(float(expected), rel=1e-5)
    both, dice = WeakLabelLoss(n_classes, 0.3)(logits, label, weight)
    assert float(both - dice) == pytest.approx(0.3 * float(expected), rel=1e-4)
