"""The training loss: soft Dice over particle classes, with weights for voxels that nobody knows."""

from __future__ import annotations

from typing import Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

from deepetpicker.network.resunet import probabilities

SMOOTHING = 1.0
Reduce = Callable[[Tensor], Tensor]


def one_hot(label_bzyx: Tensor, n_classes: int) -> Tensor:
    """Return the label as one mask per class, (B, n_classes, Z, Y, X) float32; background has none.

    Parameters
    ----------
    label_bzyx : (B, Z, Y, X) int
        0 for background, 1 to n_classes for particles.
    n_classes : int
        Number of particle classes.
    """
    classes = torch.arange(1, n_classes + 1, device=label_bzyx.device).view(1, -1, 1, 1, 1)
    return (label_bzyx[:, None] == classes).float()


def dice_sums(probability_bczyx: Tensor, target_bczyx: Tensor, weight_bzyx: Optional[Tensor] = None) -> Tensor:
    """Return what the Dice loss is made of, (3, C): overlap, sum of probabilities, sum of targets.

    Sums run over batch and voxels, so they can be added up over slabs or processes.

    Parameters
    ----------
    probability_bczyx, target_bczyx : (B, C, Z, Y, X) float
        Probability and 0/1 target of each class.
    weight_bzyx : (B, Z, Y, X) float, optional
        Weight of each voxel; 0 leaves it out.
    """
    axes = (0, 2, 3, 4)
    weight = torch.ones_like(target_bczyx[:, :1]) if weight_bzyx is None else weight_bzyx[:, None].float()
    weighted, target = probability_bczyx * weight, target_bczyx * weight
    return torch.stack([(weighted * target_bczyx).sum(axes), weighted.sum(axes), target.sum(axes)])


def dice_of_sums(sums: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """Return 1 - Dice averaged over classes, a scalar in [0, 1), from the sums (3, C) of :func:`dice_sums`."""
    overlap, predicted, wanted = sums
    return (1 - (2 * overlap + smoothing) / (predicted + wanted + smoothing)).mean()


def cross_entropy_sums(logits_bczyx: Tensor, label_bzyx: Tensor, weight_bzyx: Tensor) -> Tensor:
    """Return weighted cross-entropy and weight, (2,), summed over batch and voxels.

    Parameters
    ----------
    logits_bczyx : (B, C, Z, Y, X) float
        C is 1 (sigmoid) or background and classes (softmax).
    label_bzyx : (B, Z, Y, X) int
        0 for background.
    weight_bzyx : (B, Z, Y, X) float
        Weight of each voxel.
    """
    if logits_bczyx.shape[1] == 1:
        loss = functional.binary_cross_entropy_with_logits(logits_bczyx[:, 0], (label_bzyx > 0).float(),
                                                           reduction="none")
    else:
        loss = functional.cross_entropy(logits_bczyx, label_bzyx, reduction="none")
    return torch.stack([(loss * weight_bzyx).sum(), weight_bzyx.sum()])


class WeakLabelLoss(torch.nn.Module):
    """Soft Dice averaged over classes, optionally with a share of cross-entropy.

    Parameters
    ----------
    n_classes : int
        Number of particle classes.
    cross_entropy : float
        Weight of the mean cross-entropy that is added; 0 is the published loss.
    reduce : callable
        Adds sums over processes; the identity in a single one.

    Source: Liu et al. 2024, Nat. Commun. 15:2090. We differ: background is no class of its own, and voxels may have
    weights.
    """

    def __init__(self, n_classes: int, cross_entropy: float = 0.0, reduce: Reduce = lambda sums: sums) -> None:
        super().__init__()
        self.n_classes, self.cross_entropy, self.reduce = n_classes, cross_entropy, reduce

    def forward(self, logits_bczyx: Tensor, label_bzyx: Tensor, weight_bzyx: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and the Dice part of it.

        Parameters
        ----------
        logits_bczyx : (B, C, Z, Y, X) float
            The network's output; computed with in float32.
        label_bzyx : (B, Z, Y, X) int
            0 for background.
        weight_bzyx : (B, Z, Y, X) float
            0 for unknown voxels.
        """
        logits = logits_bczyx.float()
        probability = probabilities(logits)
        sums = dice_sums(probability, one_hot(label_bzyx, self.n_classes), weight_bzyx)
        dice = dice_of_sums(self.reduce(sums))
        if not self.cross_entropy:
            return dice, dice
        entropy = self.reduce(cross_entropy_sums(logits, label_bzyx, weight_bzyx))
        return dice + self.cross_entropy * entropy[0] / entropy[1].clamp(min=1), dice
