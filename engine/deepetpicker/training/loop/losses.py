"""The training loss: soft Dice over particle classes, with weights for voxels that nobody knows."""

from __future__ import annotations

from typing import Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

from deepetpicker.network.resunet import probabilities

SMOOTHING = 1.0
RAREST = 1e4
DOUBT = 0.2
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


def class_weights(label_bzyx: Tensor, weight_bzyx: Tensor, n_classes: int, balance: float,
                  reduce: Reduce = lambda sums: sums) -> Tensor:
    """Return the weight of a voxel of the background (1) and of each class in the cross-entropy, (n_classes + 1,).

    Parameters
    ----------
    label_bzyx : (B, Z, Y, X) int
        0 for background.
    weight_bzyx : (B, Z, Y, X) float
        Voxels of weight 0 are not counted.
    n_classes : int
        Number of particle classes.
    balance : float
        Voxels of background over voxels of the class, to this power: 0 gives every voxel the same weight, 1 every class
        the same as the background.
    reduce : callable
        Adds counts over processes.
    """
    counts = reduce(torch.bincount(label_bzyx.flatten(), weight_bzyx.flatten().float(), minlength=n_classes + 1))
    weights: Tensor = (counts[:1] / counts.clamp(min=1)).clamp(1, RAREST)**balance
    return torch.cat([torch.ones_like(weights[:1]), weights[1:]])


def doubted(probability_bczyx: Tensor, weight_bzyx: Tensor) -> Tensor:
    """Return the weights (B, Z, Y, X) of voxels when many particles are not annotated.

    Far from any annotation (weight 0) a voxel is background as long as the network does not take it for a particle:
    then nobody knows what it is, and it is left out. So the network learns from all the background there is, and is
    not taught that the particles it finds by itself are none.

    Parameters
    ----------
    probability_bczyx : (B, C, Z, Y, X) float
        Of the classes, by the network in training.
    weight_bzyx : (B, Z, Y, X) float
        1 near annotations, 0 far from any.
    """
    seems_empty = (probability_bczyx.detach().sum(1) < DOUBT).to(weight_bzyx.dtype)
    return torch.maximum(weight_bzyx, seems_empty)


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
    balance : float
        How much more a voxel of a rare class weighs in the cross-entropy, see :func:`class_weights`.
    is_incomplete : bool
        True when many particles are not annotated: voxels of weight 0 are background as long as the network does not
        take them for a particle, see :func:`doubted`.

    Source: Liu et al. 2024, Nat. Commun. 15:2090. We differ: background is no class of its own, and voxels may have
    weights.
    """

    def __init__(self, n_classes: int, cross_entropy: float = 0.0, reduce: Reduce = lambda sums: sums,
                 balance: float = 0.0, is_incomplete: bool = False) -> None:
        super().__init__()
        self.n_classes, self.cross_entropy, self.reduce = n_classes, cross_entropy, reduce
        self.balance, self.is_incomplete = balance, is_incomplete

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
        weight = doubted(probability, weight_bzyx) if self.is_incomplete else weight_bzyx
        sums = dice_sums(probability, one_hot(label_bzyx, self.n_classes), weight)
        dice = dice_of_sums(self.reduce(sums))
        if not self.cross_entropy:
            return dice, dice
        n_voxels = self.reduce(weight.sum())
        if self.balance:
            of_class = class_weights(label_bzyx, weight, self.n_classes, self.balance, self.reduce)
            weight = weight * of_class[label_bzyx]
        entropy = self.reduce(cross_entropy_sums(logits, label_bzyx, weight))
        return dice + self.cross_entropy * entropy[0] / n_voxels.clamp(min=1), dice
