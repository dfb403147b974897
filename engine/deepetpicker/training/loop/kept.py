"""Which epoch of a training is kept: the held-out picks choose it, as far as their number can tell."""

from __future__ import annotations

import math
from typing import List, Mapping, Sequence


def key_of(epoch: int, voxels: Mapping[str, float], f1: float, by: str) -> List[float]:
    """Return by what epochs are compared; of each figure more is better.

    Parameters
    ----------
    epoch : int
        From 0.
    voxels : mapping
        ``f_alpha`` and ``val_loss`` on the held-out part.
    f1 : float
        Of the picks there, mean over the classes.
    by : str
        ``picks``, ``voxels`` or ``last``.
    """
    if by == "last":
        return [float(epoch)]
    return [f1 if by == "picks" else voxels["f_alpha"], -voxels["val_loss"]]


def is_better(key: Sequence[float], kept: Sequence[float], by: str, best_f1: float, n_particles: int) -> bool:
    """Tell whether an epoch takes the place of the one that is kept so far.

    Parameters
    ----------
    key, kept : sequence of float
        Of both, from :func:`key_of`.
    by : str
        As there. ``voxels`` compares F_alpha, then the loss, and ``last`` the numbers. ``picks`` keeps, of the epochs
        whose F1 is within a standard error of the best one's, that of the lowest loss.
    best_f1 : float
        The best of all epochs so far, this one among them.
    n_particles : int
        Held-out ones, which F1 rests on.

    Notes
    -----
    One of sixty particles more or less moves F1 by 0.015, and the best of ten validations is the luckiest. The loss of
    voxels counts every voxel of every particle, and tells better which of them has learnt more.
    """
    if by != "picks":
        return list(key) > list(kept)
    least = best_f1 - standard_error(best_f1, n_particles)
    return key[0] >= least and (key[1] > kept[1] or kept[0] < least)


def standard_error(share: float, n: int) -> float:
    """Return the standard error of a share of n, not 0 where all or none of them were hit (Agresti and Coull 1998)."""
    centre = (share * n + 1) / (n + 2)
    return math.sqrt(centre * (1 - centre) / (n + 2))
