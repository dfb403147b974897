"""The false-discovery rate of picks, estimated without truth, and the thresholds that hold one that is asked for.

A calibrated score is the probability that a pick is right, so that the mean of 1 - score over the picks is the share of
them that is expected to be false (Efron 2007, Ann. Stat. 35:1351). Copies of the tomogram with inverted contrast or
random phases as decoys need a second scan and say less: they have none of the false picks that other particles,
membranes and carbon cause (studies.rst).
"""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.verdict import Reason

UNREACHED = 1.0  # no score is as high


def check_calibrated(classes: Sequence[ClassCard]) -> None:
    """Raise InputError unless the scores of all classes are probabilities."""
    bare = [one.label for one in classes if one.calibration is None]
    if bare:
        raise InputError(f"--fdr needs scores that are probabilities, but this model gives the heights of peaks "
                         f"({', '.join(bare)}): choose by --threshold, or train it anew with at least five particles "
                         "held out and all particles annotated")


def expected_rate(scores: np.ndarray) -> float:
    """Return the share of picks with these scores (N,), probabilities, that is expected to be false; NaN for none."""
    return float(1 - np.mean(scores)) if len(scores) else float("nan")


def threshold_for(scores: np.ndarray, rate: float) -> float:
    """Return the lowest threshold whose picks have at most an expected false-discovery rate.

    Parameters
    ----------
    scores : (N,) float
        Probabilities of the candidates of one class.
    rate : float
        In (0, 1).

    Returns
    -------
    float
        Halfway to the next candidate below; 1 when not even the best candidates hold the rate.
    """
    rising, counts = np.unique(np.asarray(scores, float), return_counts=True)  # equal ones are taken together
    falling, counts = rising[::-1], counts[::-1]
    rates = np.cumsum((1 - falling) * counts) / np.cumsum(counts)
    held = int((rates <= rate).sum())  # they rise
    if not held:
        return UNREACHED
    below = falling[held] if held < len(falling) else 0.0
    return float(falling[held - 1] + below) / 2


def hold_rate(candidates: CoordinateTable, classes: Sequence[ClassCard],
              rate: float) -> Tuple[Dict[int, float], List[Reason]]:
    """Return the threshold of each class that holds a false-discovery rate in one tomogram, and where none does.

    Parameters
    ----------
    candidates : CoordinateTable
        All candidates of the tomogram, with probabilities as scores.
    classes : sequence of ClassCard
        Of the model.
    rate : float
        In (0, 1).

    Returns
    -------
    dict, list of Reason
        Thresholds by class id; and what to say of each class of which nothing can be picked at this rate.
    """
    limits, unheld = {}, []
    for one in classes:
        scores = candidates.scores[candidates.class_ids == one.id]
        limits[one.id] = threshold_for(scores, rate)
        if len(scores) and limits[one.id] == UNREACHED:
            rests = f" (it was calibrated on {one.calibration.n_particles} particles)" if one.calibration else ""
            unheld.append(Reason(
                "false-discovery rate", f"no threshold of {one.label} holds {rate:.3g}, so that none is picked: its "
                f"best candidate is right with probability {scores.max():.3f}{rests}",
                f"ask for {1 - scores.max():.2g} or more, or train with more labels"))
    return limits, unheld
