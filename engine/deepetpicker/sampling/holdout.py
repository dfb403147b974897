"""Which tomograms, or which slabs of them, are held out for validation: of every class some, of none all."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.io.modelcard import ClassCard
from deepetpicker.preparation.resample import Slices
from deepetpicker.sampling.gather import Gathered
from deepetpicker.sampling.patches import Annotated

HELD_OUT_SHARE = 0.2
SLAB_SHARES = (0.15, 0.35)
OTHER_AXIS = 0.05  # what a slab across a shorter axis costs
Parts = Tuple[List[Annotated], List[Annotated]]


def split(tomograms: Sequence[Annotated], names: Sequence[str], classes: Sequence[ClassCard],
          warnings: List[str], earlier: Sequence[Mapping[str, Any]] = ()) -> Parts:
    """Return the parts to train on and the parts held out for validation.

    Parameters
    ----------
    tomograms : sequence of Annotated
        All of them.
    names : sequence of str
        Tomograms the user keeps for validation; empty lets :func:`choose` do it.
    classes : sequence of ClassCard
        In the order of the channels.
    warnings : list of str
        Gets what the user should know.
    earlier : sequence of mapping
        From :func:`uses` of the training that this one goes on from: what was held out then is held out again, where
        the user names nothing and particles allow it.
    """
    again = as_before(tomograms, earlier, len(classes)) if earlier and not names else None
    if again:
        train, held = again
    elif names:
        held = [t for t in tomograms if t.name in names]
        train = [t for t in tomograms if t.name not in names]
    else:
        train, held = choose(tomograms, len(classes), warnings)
    every, kept = _total(tomograms, len(classes)), _total(held, len(classes))
    for one, n_all, n_held in zip(classes, every, kept):
        if not n_all:
            warnings.append(no_particles(one))
        elif not n_held:
            warnings.append(not_judged(one, int(n_all)))
    if not kept.sum():
        warnings.append("the tomograms kept for validation have no particles: the last epoch is kept")
    return train, held


def uses(gathered: Gathered, train: Sequence[Annotated], held: Sequence[Annotated]) -> List[Dict[str, Any]]:
    """Return what each tomogram served for, as JSON-ready values.

    Parameters
    ----------
    gathered : Gathered
        Input of the run.
    train, held : sequence of Annotated
        From :func:`split`.

    Returns
    -------
    list of dict
        ``name``, ``role`` (training, validation or both), ``particles``, ``fingerprint`` (of their positions) and, of a
        slab, ``held_out_zyx_vox``: first voxel and end along each axis of the tomogram. ``negatives`` is the number of
        places without a particle, where there are any, ``regions`` that of boxes (1 for a mask).
    """
    trained, slabs = {t.name for t in train}, {t.name: t for t in held}
    found = []
    for volume, table, certain in zip(gathered.volumes, gathered.tables, gathered.certain):
        one = slabs.get(volume.name)
        role = "training" if one is None else "both" if volume.name in trained else "validation"
        facts = {"name": volume.name, "role": role, "particles": len(table), "fingerprint": table.fingerprint(),
                 **certain.counts()}
        if one is not None and _shape(one) != tuple(one.source.shape_zyx):
            scale = [whole / working for whole, working in zip(volume.shape_zyx, one.source.shape_zyx)]
            facts["held_out_zyx_vox"] = [[round(s.start * f), round(s.stop * f)] for s, f in zip(one.region_zyx, scale)]
        found.append(facts)
    return found


def as_before(tomograms: Sequence[Annotated], earlier: Sequence[Mapping[str, Any]], n_classes: int) -> Optional[Parts]:
    """Return the parts as an earlier training had them; None when that leaves a class untrained, or nothing held out.

    Tomograms are told by their names; new ones are trained on.

    Parameters
    ----------
    tomograms : sequence of Annotated
        All of them.
    earlier : sequence of mapping
        From :func:`uses`.
    n_classes : int
        Number of channels.
    """
    roles = {str(item.get("name")): item for item in earlier}
    train: List[Annotated] = []
    held: List[Annotated] = []
    for one in tomograms:
        item = roles.get(one.name, {})
        parts = _parted(one, item["held_out_zyx_vox"]) if item.get("held_out_zyx_vox") else None
        if parts:
            train.append(parts[0])
            held.append(parts[1])
        else:
            (held if item.get("role") == "validation" else train).append(one)
    lacks = (_total(tomograms, n_classes) > 0) & (_total(train, n_classes) == 0)
    return None if lacks.any() or not _total(held, n_classes).sum() else (train, held)


def _parted(tomogram: Annotated, slab_zyx_vox: Sequence[Sequence[int]]) -> Optional[Tuple[Annotated, Annotated]]:
    """Return a tomogram without, and with nothing but, a slab at one end of an axis, as :func:`uses` says it."""
    working, grid = tomogram.source.shape_zyx, tomogram.certain.grid
    whole = working if grid is None else grid.input_shape_zyx
    for axis, (start, stop) in enumerate(slab_zyx_vox):
        low, high = (round(edge * working[axis] / whole[axis]) for edge in (start, stop))
        parts = [_with_axis(tomogram, axis, slice(a, b)) for a, b in ((0, low), (low, high), (high, working[axis]))]
        if 0 < low < high == working[axis]:
            return parts[0], parts[1]
        if 0 == low < high < working[axis]:
            return parts[2], parts[1]
    return None


def _shape(tomogram: Annotated) -> Tuple[int, ...]:
    """Return the shape of a region."""
    return tuple(s.stop - s.start for s in tomogram.region_zyx)


def choose(tomograms: Sequence[Annotated], n_classes: int, warnings: List[str]) -> Parts:
    """Return the parts to train on and about a fifth of the particles of each class, held out; the same every time.

    Whole tomograms are held out where there are several with particles, at most a fifth of them and at least one. A
    class that is then missing, and every class when there is only one tomogram, is taken from a slab at one end of the
    tomogram with most of it. Never is all of a class held out. When nothing can be held out, all tomograms with
    particles serve as both, with a warning.

    Parameters
    ----------
    tomograms : sequence of Annotated
        All of them.
    n_classes : int
        Number of channels.
    warnings : list of str
        Gets what the user should know.
    """
    full = [t for t in tomograms if len(t.inside)]
    counts = np.array([count(t, n_classes) for t in full]).reshape(-1, n_classes)
    whole = choose_whole(counts) if len(full) > 1 else []
    held = [full[i] for i in whole]
    train = [t for t in tomograms if not any(t is h for h in held)]
    cut: List[int] = []
    for channel in np.flatnonzero(counts.sum(0)):
        of_train = np.array([count(t, n_classes) for t in train]).reshape(-1, n_classes)
        of_held = _total(held, n_classes)
        order = [i for i in np.argsort(of_train[:, channel], kind="stable")[::-1] if i not in cut]
        if of_held[channel] or not order or not of_train[order[0], channel]:
            continue
        source = int(order[0])
        parts = split_slab(train[source], of_train.sum(0) - of_train[source], of_held)
        if parts is not None:
            cut.append(source)
            train[source] = parts[0]
            held.append(parts[1])
    if not held and full:
        warnings.append(f"{', '.join(t.name for t in full[:8])}: too few particles to keep some for validation: the "
                        "same ones are used for training and validation, so that the validation scores are too good")
        held = full
    return train, held


def count(tomogram: Annotated, n_classes: int) -> np.ndarray:
    """Return the number of particles of each class in a region, (C,) int."""
    return np.bincount(tomogram.channels[tomogram.inside], minlength=n_classes + 1)[1:]


def _total(regions: Sequence[Annotated], n_classes: int) -> np.ndarray:
    """Return the number of particles of each class in some regions together, (C,) int."""
    return np.array([count(t, n_classes) for t in regions]).reshape(-1, n_classes).sum(0)


def choose_whole(counts: np.ndarray) -> List[int]:
    """Return which tomograms to hold out so that of each class about a fifth, some if possible, and never all is held.

    One after the other is taken, always the one that comes nearest to that, the last of equals.

    Parameters
    ----------
    counts : (T, C) int
        Particles by tomogram and class.

    Returns
    -------
    list of int
        Ascending; empty when each tomogram has all particles of some class.
    """
    counts = counts[:, counts.sum(0) > 0]
    total, held = counts.sum(0), np.zeros(counts.shape[1], int)
    chosen: List[int] = []
    before = np.inf
    while len(chosen) < max(1, round(HELD_OUT_SHARE * len(counts))):
        after = held + counts
        cost = _unlike_a_fifth(after, total)
        cost[(after == total).any(1)] = np.inf
        cost[chosen] = np.inf
        best = len(cost) - 1 - int(np.argmin(cost[::-1]))
        if not cost[best] < before - 1e-9:
            break
        before, held = cost[best], after[best]
        chosen.append(best)
    return sorted(chosen)


def _unlike_a_fifth(held: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return how far the held particles (K, C) are from a fifth of each class (C,), and how many classes lack, (K,)."""
    return (np.abs(held / total - HELD_OUT_SHARE) + (held == 0)).mean(1)


def split_slab(tomogram: Annotated, train_elsewhere: np.ndarray, held_elsewhere: np.ndarray
               ) -> Optional[Tuple[Annotated, Annotated]]:
    """Return a tomogram without, and with nothing but, a slab at one end of an axis; None when no plane can part it.

    The slab holds about a fifth of the particles of each class and is 15 to 35 % of the axis where the particles allow
    it. It lies across the longest axis, or another of at least half its length when that suits the classes better.

    Parameters
    ----------
    tomogram : Annotated
        With particles.
    train_elsewhere, held_elsewhere : (C,) int
        Particles of each class in other tomograms that are trained on, or held out.
    """
    shape, n_classes = tomogram.source.shape_zyx, len(train_elsewhere)
    here = count(tomogram, n_classes)
    best: Optional[Tuple[float, int, int, bool]] = None
    for axis in np.argsort([-n for n in shape], kind="stable"):
        length = shape[axis]
        if 2 * length < max(shape):
            continue
        low = _counts_below(tomogram, int(axis), n_classes)
        for is_high, held in ((True, here - low), (False, low)):
            cuts = np.arange(1, length)
            thickness = (length - cuts if is_high else cuts) / length
            off = np.maximum(np.maximum(SLAB_SHARES[0] - thickness, thickness - SLAB_SHARES[1]), 0.0)
            known = here > 0
            share = np.abs(held[:, known] / here[known] - HELD_OUT_SHARE)
            lacks = (held + held_elsewhere == 0)[:, known]
            cost = (share + lacks).mean(1) + 2 * off + 1e-3 * np.abs(thickness - HELD_OUT_SHARE)
            cost += OTHER_AXIS * (length < max(shape))
            cost[(held.sum(1) == 0) | (here - held + train_elsewhere == 0)[:, known].any(1)] = np.inf
            at = int(np.argmin(cost))
            if np.isfinite(cost[at]) and (best is None or cost[at] < best[0] - 1e-9):
                best = (float(cost[at]), int(axis), int(cuts[at]), is_high)
    if best is None:
        return None
    _, axis, cut, is_high = best
    parts = _with_axis(tomogram, axis, slice(0, cut)), _with_axis(tomogram, axis, slice(cut, shape[axis]))
    return parts if is_high else (parts[1], parts[0])


def _counts_below(tomogram: Annotated, axis: int, n_classes: int) -> np.ndarray:
    """Return the particles of each class in front of each plane 1, 2, ... of an axis, (length - 1, C) int."""
    rows = tomogram.inside
    along = np.round(tomogram.positions_zyx_vox[rows, axis]).astype(int)
    planes = np.zeros((tomogram.source.shape_zyx[axis], n_classes), int)
    np.add.at(planes, (along, tomogram.channels[rows] - 1), 1)
    return planes.cumsum(0)[:-1]


def _with_axis(tomogram: Annotated, axis: int, part: slice) -> Annotated:
    """Return the tomogram with its region cut to a part of one axis."""
    region: List[slice] = list(tomogram.region_zyx)
    region[axis] = part
    box: Slices = (region[0], region[1], region[2])
    return dataclasses.replace(tomogram, region_zyx=box)


def no_particles(one: ClassCard) -> str:
    """Return the warning for a class that is listed but has no particle at all."""
    return (f"{one.label}: no particles: the model will never find it; label some, or leave the class "
            "out")


def not_judged(one: ClassCard, n_known: int) -> str:
    """Return the warning for a class of which no particle is held out.

    Parameters
    ----------
    one : ClassCard
        The class.
    n_known : int
        Its particles, all of them trained on.
    """
    return (f"{one.label}: no particle is held out to judge its picks by ({n_known} trained on): label "
            "more, best in another tomogram, and look at its picks before you use them")
