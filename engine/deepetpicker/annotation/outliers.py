"""Which tomograms' picks are not like those of the others: in their number, their scores, or their depth."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Mapping, Tuple

import numpy as np

from deepetpicker.io.coordinates import CoordinateTable

FEWEST = 4  # tomograms: among fewer none is unlike the others
LIMIT = 3.5  # robust standard deviations from the median
LEAST_FACTOR, LEAST_SCORE, LEAST_DEPTH = 1.25, 0.03, 0.25  # smaller differences do not count, however regular the rest
ENOUGH = 8  # picks, to speak of their scores and depth


@dataclasses.dataclass(frozen=True)
class Unlike:
    """How far a tomogram is from the others, in limits (1 and more is remarkable), and in words what is unlike."""

    distance: float = 0.0
    reasons: Tuple[str, ...] = ()


def unlike_others(tables: Mapping[str, CoordinateTable], planes: Mapping[str, int]) -> Dict[str, Unlike]:
    """Return for each tomogram how its picks differ from those of the others.

    Parameters
    ----------
    tables : mapping of str to CoordinateTable
        Picks by tomogram; empty tables count.
    planes : mapping of str to int
        Number of z planes of each tomogram.

    Notes
    -----
    Numbers are compared on a logarithmic scale and scores by their medians, in robust standard deviations from the
    median of all tomograms. The depth is compared by the largest distance between the cumulated shares of a tomogram
    and of all others along z (Kolmogorov and Smirnov), in units of what chance gives in one of a hundred cases.
    """
    names = list(tables)
    if len(names) < FEWEST:
        return {name: Unlike() for name in names}
    found: Dict[str, List[Tuple[float, str]]] = {name: [] for name in names}
    counts = np.array([len(tables[name]) for name in names])
    middle = int(np.median(counts))
    for name, count, away in zip(names, counts, _away(np.log(counts + 1.0), np.log(LEAST_FACTOR))):
        found[name].append((abs(away), f"{count} picks, others {middle}"))
    scored = [name for name in names if np.isfinite(tables[name].scores).sum() >= ENOUGH]
    if len(scored) >= FEWEST:
        medians = np.array([np.nanmedian(tables[name].scores) for name in scored])
        for name, own, away in zip(scored, medians, _away(medians, LEAST_SCORE)):
            found[name].append((abs(away), f"scores about {own:.2f}, others {np.median(medians):.2f}"))
    for name, (distance, text) in _depths(tables, planes).items():
        found[name].append((distance, text))
    return {name: Unlike(max(d for d, _ in found[name]), tuple(text for d, text in found[name] if d >= 1))
            for name in names}


def _away(values: np.ndarray, least: float) -> np.ndarray:
    """Return how far values (T,) lie from their median, in limits."""
    apart = values - np.median(values)
    return np.asarray(apart / (LIMIT * max(1.4826 * float(np.median(np.abs(apart))), least / LIMIT)))


def _depths(tables: Mapping[str, CoordinateTable], planes: Mapping[str, int]) -> Dict[str, Tuple[float, str]]:
    """Return how far the depth of the picks is from that of all others, in limits, and what to say of it."""
    shares = {name: np.sort((table.positions_zyx_vox[:, 0] + 0.5) / planes[name])
              for name, table in tables.items() if len(table) >= ENOUGH}
    out = {}
    for name, own in shares.items():
        others = np.sort(np.concatenate([np.zeros(0), *(s for other, s in shares.items() if other != name)]))
        if len(others) < ENOUGH:
            continue
        every = np.concatenate([own, others])
        apart = np.abs(np.searchsorted(own, every, "right") / len(own)
                       - np.searchsorted(others, every, "right") / len(others)).max()
        chance = 1.63 * np.sqrt((len(own) + len(others)) / (len(own) * len(others)))
        out[name] = (float(apart / max(chance, LEAST_DEPTH)),
                     f"at {np.median(own):.0%} of the depth, others at {np.median(others):.0%}"
                     if abs(np.median(own) - np.median(others)) > 0.05 else "spread otherwise along z")
    return out
