"""Training patches, drawn on the fly from memory-mapped tomograms and particle centres.

What a patch shows depends on (seed, epoch, index) alone: not on the process that draws it, nor on what was drawn
before. So a resumed run, a run with worker processes and a run on several devices see the same patches.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from deepetpicker.preparation.labels import draw_label, known_mask
from deepetpicker.preparation.resample import Slices, WorkingVolume
from deepetpicker.sampling.augment import Augmentation, Warp, fold, random_warp, sample
from deepetpicker.sampling.certain import Certain

NEGATIVE = 0  # in the place of a channel: channels count from 1
Patch = Tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A region of a tomogram with the particles known in it.

    Attributes
    ----------
    name : str
        The tomogram's name.
    source : WorkingVolume
        Normalised voxels on the working grid.
    positions_zyx_vox : (N, 3) float
        All annotated centres of the tomogram, on the working grid; also those outside the region, whose labels may
        reach into it.
    channels : (N,) int
        Class of each particle as its place in the list of classes, from 1.
    region_zyx : three slices
        Where patches may lie; their content is reflected at its border.
    certain : Certain
        Places without a particle, and where everything is annotated, on the working grid.
    """

    name: str
    source: WorkingVolume
    positions_zyx_vox: np.ndarray
    channels: np.ndarray
    region_zyx: Slices
    certain: Certain = dataclasses.field(default_factory=Certain)

    @property
    def inside(self) -> np.ndarray:
        """Rows of the particles whose centre's voxel lies in the region, (M,) int."""
        return self._rows_inside(self.positions_zyx_vox)

    @property
    def negatives_inside(self) -> np.ndarray:
        """Rows of the places without a particle whose voxel lies in the region, (M,) int."""
        return self._rows_inside(self.certain.negatives_zyx_vox)

    def _rows_inside(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the rows of positions (N, 3) whose voxel lies in the region, (M,) int."""
        voxel = np.round(positions_zyx_vox).reshape(-1, 3)
        lo = np.array([s.start for s in self.region_zyx])
        hi = np.array([s.stop for s in self.region_zyx])
        return np.flatnonzero(((voxel >= lo) & (voxel < hi)).all(1))


@dataclasses.dataclass(frozen=True)
class PatchRule:
    """How patches are drawn.

    Attributes
    ----------
    size : int
        Edge N of a patch in voxels.
    jitter : float
        Largest shift of a patch against its particle, as a share of N.
    background_fraction : float
        Share of the patches that are placed anywhere.
    label : str
        Shape of the label.
    label_diameters_vox, diameters_vox : mapping
        Channel to label and particle diameter, in working voxels.
    is_unknown : bool
        True gives voxels far from any annotation the weight 0.
    augmentation : Augmentation
        Limits of the random changes.
    negative_fraction : float
        Largest share of the patches that are placed about places without a particle.
    """

    size: int
    jitter: float
    background_fraction: float
    label: str
    label_diameters_vox: Mapping[int, float]
    diameters_vox: Mapping[int, float]
    is_unknown: bool = False
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    negative_fraction: float = 0.0

    @property
    def negative_radius_vox(self) -> float:
        """So far about a place without a particle there is none: half of the smallest class, and the largest label."""
        return max(min(self.diameters_vox.values()), max(self.label_diameters_vox.values())) / 2


class ParticlePatches(Dataset):
    """Patches around particles, classes in equal numbers, some around places without one, and some background.

    Parameters
    ----------
    tomograms : sequence of Annotated
        Where patches come from; some may have no particles.
    rule : PatchRule
        How they are drawn.
    length : int
        Patches in an epoch.
    seed : int
        Seed of everything random.

    Notes
    -----
    A key is (epoch, index). An item is image (1, N, N, N) float32, label (N, N, N) int64 with the channel of each
    voxel (0 background), and weight (N, N, N) float32.
    """

    def __init__(self, tomograms: Sequence[Annotated], rule: PatchRule, length: int, seed: int) -> None:
        self.tomograms, self.rule, self.length, self.seed = list(tomograms), rule, length, seed
        self._members: Dict[int, List[Tuple[int, int]]] = {}
        for t, tomogram in enumerate(self.tomograms):
            for row in tomogram.inside:
                self._members.setdefault(int(tomogram.channels[row]), []).append((t, int(row)))
        self._order = sorted(self._members)
        self._negatives = [(t, int(row)) for t, one in enumerate(self.tomograms) for row in one.negatives_inside]
        particles = sum(map(len, self._members.values()))
        share = len(self._negatives) / max(1, len(self._negatives) + particles)
        self._n_negative = round(min(share, rule.negative_fraction) * length)
        fraction = rule.background_fraction if self._members else 1.0
        self._n_background = min(round(fraction * length), length - self._n_negative)
        voxels = [float(np.prod([s.stop - s.start for s in t.region_zyx])) for t in self.tomograms]
        self._share = np.array(voxels) / sum(voxels)

    def __len__(self) -> int:
        """Return the number of patches in an epoch."""
        return self.length

    def __getitem__(self, key: Tuple[int, int]) -> Patch:
        """Return the patch of (epoch, index)."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        before, after = (k * self._n_background // self.length for k in (index, index + 1))
        if after > before:
            tomogram = self.tomograms[int(rng.choice(len(self.tomograms), p=self._share))]
            centre = np.array([rng.uniform(s.start, s.stop) for s in tomogram.region_zyx])
        else:
            tomogram, place_zyx_vox = self._place(epoch, index - before)
            reach = self.rule.jitter * self.rule.size
            centre = place_zyx_vox + rng.uniform(-reach, reach, 3)
        warp = random_warp(rng, self.rule.size, self.rule.augmentation)
        start = place(centre, tomogram.region_zyx, self.rule.size)
        return cut(tomogram, self.rule, start, warp)

    def _place(self, epoch: int, rank: int) -> Tuple[Annotated, np.ndarray]:
        """Return tomogram and place (3,) of the rank-th patch of an epoch that is not background: particle or none."""
        others = max(1, self.length - self._n_background)
        before, after = (k * self._n_negative // others for k in (rank, rank + 1))
        if after > before:
            t, row = self._in_turn(self._negatives, NEGATIVE, epoch, before)
            return self.tomograms[t], self.tomograms[t].certain.negatives_zyx_vox[row]
        t, row = self._particle(epoch, rank - before)
        return self.tomograms[t], self.tomograms[t].positions_zyx_vox[row]

    def _particle(self, epoch: int, rank: int) -> Tuple[int, int]:
        """Return (tomogram, row) of the rank-th particle patch of an epoch: classes in turn, each in random order."""
        channel = self._order[rank % len(self._order)]
        return self._in_turn(self._members[channel], channel, epoch, rank // len(self._order))

    def _in_turn(self, members: Sequence[Tuple[int, int]], channel: int, epoch: int, turn: int) -> Tuple[int, int]:
        """Return the member of a turn: all of them in a random order, then in another one."""
        lap, at = divmod(turn, len(members))
        order = np.random.default_rng([self.seed, epoch, lap, channel]).permutation(len(members))
        return members[int(order[at])]


def place(centre_zyx: np.ndarray, region_zyx: Slices, size: int) -> np.ndarray:
    """Return the first voxel (3,) int of a patch about a centre, kept inside the region.

    Parameters
    ----------
    centre_zyx : (3,) float
        Wanted centre.
    region_zyx : three slices
        Along an axis that is thinner than the patch, the patch covers the whole region instead.
    size : int
        Edge of the patch in voxels.
    """
    start = np.round(np.asarray(centre_zyx) - (size - 1) / 2).astype(int)
    lo = np.array([s.start for s in region_zyx])
    hi = np.array([s.stop for s in region_zyx]) - size
    return np.clip(start, np.minimum(lo, hi), np.maximum(lo, hi))


def cut(tomogram: Annotated, rule: PatchRule, start_zyx: np.ndarray, warp: Warp) -> Patch:
    """Return image, label and weight of one patch.

    Parameters
    ----------
    tomogram : Annotated
        Where the patch comes from; what lies outside its region is its reflection.
    rule : PatchRule
        Size and labels.
    start_zyx : (3,) int
        First voxel of the patch before the warp.
    warp : Warp
        How it is changed.

    Returns
    -------
    tuple of torch.Tensor
        (1, N, N, N) float32, (N, N, N) int64, (N, N, N) float32.
    """
    size = rule.size
    if warp.is_exact:
        lines = [fold(np.arange(s, s + size), r.start, r.stop) for s, r in zip(start_zyx, tomogram.region_zyx)]
        places = [line[::-1] if m else line for line, m in zip(lines, warp.mirrored_zyx)]
    else:
        offsets = warp.offsets(size)
        places = [fold(o + np.float32(s + (size - 1) / 2), r.start, r.stop)
                  for o, s, r in zip(offsets, start_zyx, tomogram.region_zyx)]
    low = [int(np.floor(p.min())) for p in places]
    high = [min(int(np.ceil(p.max())) + 1, r.stop) for p, r in zip(places, tomogram.region_zyx)]
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    image, label, weight = tomogram.source.read(box), *drawn(tomogram, rule, box)
    if warp.is_exact:
        index = np.ix_(*(p - a for p, a in zip(places, low)))
        out = [np.ascontiguousarray(a[index]) for a in (image, label, weight)]
    else:
        at = np.stack([p - np.float32(a) for p, a in zip(places, low)])
        marks = sample(np.stack([label, weight]), at, nearest=True)
        out = [sample(image[None], at, nearest=False)[0], marks[0], marks[1]]
    return (torch.from_numpy(out[0])[None], torch.from_numpy(out[1].astype(np.int64)),
            torch.from_numpy(out[2].astype(np.float32)))


def drawn(tomogram: Annotated, rule: PatchRule, box_zyx: Slices) -> Tuple[np.ndarray, np.ndarray]:
    """Return label (Z, Y, X) uint8 and weight (Z, Y, X) bool of a box of a tomogram."""
    origin = [s.start for s in box_zyx]
    shape = [s.stop - s.start for s in box_zyx]
    positions, channels = tomogram.positions_zyx_vox, tomogram.channels
    label = draw_label(shape, positions, channels, rule.label_diameters_vox, rule.label, origin)
    if not rule.is_unknown:
        return label, np.ones(label.shape, bool)
    diameters = np.array([rule.diameters_vox[int(c)] for c in channels])
    known = known_mask(shape, positions, diameters, origin)
    return label, known | tomogram.certain.background(shape, rule.negative_radius_vox, origin)


class EpochSampler(Sampler):
    """Keys (epoch, index) of the patches that one process draws of each global batch.

    Parameters
    ----------
    length : int
        Patches in an epoch.
    batch : int
        Patches in a batch, over all processes.
    rank, world : int
        This process and how many there are. With one process its batches are the global ones.
    """

    def __init__(self, length: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self.length, self.batch, self.rank, self.world = length, batch, rank, world
        self.epoch = 0

    @property
    def sampler(self) -> EpochSampler:
        """Itself: where Lightning looks for ``set_epoch`` in a sampler of batches."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose keys come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches in an epoch; what does not fill a batch is left out."""
        return max(1, self.length // self.batch)

    def __iter__(self) -> Iterator[List[Tuple[int, int]]]:
        """Yield the keys of one batch at a time."""
        for k in range(len(self)):
            keys = [(self.epoch, i % self.length) for i in range(k * self.batch, (k + 1) * self.batch)]
            yield keys[self.rank::self.world]
