"""Properties of the training loss."""

from __future__ import annotations

import pytest
import torch

from deepetpicker.training.loop.losses import (
    WeakLabelLoss,
    class_weights,
    cross_entropy_sums,
    dice_of_sums,
    dice_sums,
    doubted,
    one_hot,
)

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


def test_a_rare_class_weighs_more_in_the_cross_entropy():
    label = torch.zeros(2, 10, 10, 10, dtype=torch.int64)
    label[0, :2, :, :5] = 1
    label[1, 0, 0, :4] = 2
    weight = torch.ones(label.shape)
    counts = [2000 - 104, 100, 4]
    for balance in (0.0, 0.5, 1.0):
        expected = [1.0, (counts[0] / counts[1])**balance, (counts[0] / counts[2])**balance]
        assert class_weights(label, weight, 2, balance).tolist() == pytest.approx(expected, rel=1e-5)
    weight[0, :2] = 0
    assert class_weights(label, weight, 2, 1.0)[1] == pytest.approx(1896 - 100)


def test_balance_changes_the_cross_entropy_by_the_weights_alone():
    logits, label, weight = example(2)
    label[label == 2] *= torch.rand(label[label == 2].shape, generator=torch.Generator().manual_seed(1)) < 0.2
    total, dice = WeakLabelLoss(2, 1.0, balance=0.5)(logits, label, weight)
    of_class = class_weights(label, weight, 2, 0.5)
    each = torch.nn.functional.cross_entropy(logits, label, reduction="none") * of_class[label]
    assert float(total - dice) == pytest.approx(float(each.mean()), rel=1e-5)


def test_what_the_network_takes_for_a_particle_is_left_out_where_nobody_annotated():
    probability = torch.zeros(1, 2, 1, 2, 3)
    probability[0, 1, 0, 0, :2] = 0.9
    weight = torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]])
    assert doubted(probability, weight).tolist() == [[[[1, 0, 1], [1, 1, 1]]]]


def test_an_incomplete_annotation_pushes_down_the_background_and_not_what_was_found():
    logits, label, weight = example(1)
    label[:], weight[:] = 0, 0
    logits[:, :, :4] = 2.0
    logits[:, :, 4:] = -4.0
    logits.requires_grad_()
    WeakLabelLoss(1, 1.0, is_incomplete=True)(logits, label, weight)[0].backward()
    assert not logits.grad[:, :, :4].any()
    assert (logits.grad[:, :, 4:] > 0).all()
