"""Voxel metrics of probability maps against weak labels."""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional

import numpy as np

THRESHOLD = 0.5


def precision_recall(hits: float, predicted: float, wanted: float) -> tuple[float, float]:
    """Return precision and recall in [0, 1] from counts; 0 where nothing was predicted or wanted.

    With nothing predicted and nothing wanted both are 1: an empty answer to an empty question is right.
    """
    if predicted == 0 and wanted == 0:
        return 1.0, 1.0
    return hits / predicted if predicted else 0.0, hits / wanted if wanted else 0.0


def f1_score(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 when both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def f_alpha(precision: float, recall: float, alpha: float = 3.0) -> float:
    """Return P * R^alpha / (P + R^alpha), 0 when both are 0; 0.5 at best.

    Parameters
    ----------
    precision, recall : float
        In [0, 1].
    alpha : float
        > 0; above 1 a lost particle weighs more than a false one.

    Source: Liu et al. 2024, Nat. Commun. 15:2090.
    """
    weighted = recall**alpha
    return precision * weighted / (precision + weighted) if precision + weighted else 0.0


@dataclasses.dataclass
class VoxelCounts:
    """Voxels of each class that were hit, predicted and wanted, added up slab by slab.

    Attributes
    ----------
    n_classes : int
        Number of particle classes.
    """

    n_classes: int

    def __post_init__(self) -> None:
        self.hits, self.predicted, self.wanted = (np.zeros(self.n_classes, np.int64) for _ in range(3))
        self.dice_sums = np.zeros((3, self.n_classes))

    def add(self, probability_czyx: np.ndarray, label_zyx: np.ndarray, known_zyx: Optional[np.ndarray] = None) -> None:
        """Count a slab.

        Parameters
        ----------
        probability_czyx : (C, Z, Y, X) float32
            Probability of each class; above 0.5 a voxel is predicted to belong to it.
        label_zyx : (Z, Y, X) int
            0 for background, c + 1 for channel c.
        known_zyx : (Z, Y, X) bool, optional
            Other voxels are not counted.
        """
        for c in range(self.n_classes):
            wanted, probability = label_zyx == c + 1, probability_czyx[c]
            if known_zyx is not None:
                wanted, probability = wanted & known_zyx, probability * known_zyx
            predicted = probability > THRESHOLD
            self.hits[c] += np.count_nonzero(wanted & predicted)
            self.predicted[c] += np.count_nonzero(predicted)
            self.wanted[c] += np.count_nonzero(wanted)
            self.dice_sums[:, c] += (float(probability[wanted].sum(dtype=np.float64)),
                                     float(probability.sum(dtype=np.float64)), float(wanted.sum()))

    def scores(self, alpha: float = 3.0, smoothing: float = 1.0) -> Dict[str, float]:
        """Return ``val_loss`` (soft Dice), ``voxel_precision``, ``voxel_recall``, ``voxel_f1`` and ``f_alpha``.

        Means over the classes that have voxels in the label; over all classes if none has.

        Parameters
        ----------
        alpha : float
            Weight of recall in F_alpha.
        smoothing : float
            Of the Dice loss.
        """
        present = self.wanted > 0
        chosen = np.flatnonzero(present if present.any() else np.ones(self.n_classes, bool))
        rows = []
        for c in chosen:
            p, r = precision_recall(float(self.hits[c]), float(self.predicted[c]), float(self.wanted[c]))
            overlap, predicted, wanted = self.dice_sums[:, c]
            loss = 1 - (2 * overlap + smoothing) / (predicted + wanted + smoothing)
            rows.append((loss, p, r, f1_score(p, r), f_alpha(p, r, alpha)))
        names = ("val_loss", "voxel_precision", "voxel_recall", "voxel_f1", "f_alpha")
        return dict(zip(names, np.mean(rows, axis=0).tolist()))
