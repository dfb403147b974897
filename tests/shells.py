"""Tomograms with balls and shells of one size, for tests of what tells them from each other."""

from __future__ import annotations

import numpy as np

SHAPE, VOXEL, DIAMETER = (40, 88, 104), 10.0, 120.0
GRID = np.stack(np.meshgrid([10.0, 29], np.arange(12.0, 80, 20), np.arange(12.0, 100, 20), indexing="ij"), -1)
SPOTS = GRID.reshape(-1, 3)


def grey(seed, hollow):
    """Return grey values (Z, Y, X) with a ball or a shell at each spot, and which are shells."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(map(slice, SHAPE))]
    out = rng.normal(0, 0.4, SHAPE)
    for spot, is_hollow in zip(SPOTS, hollow):
        r = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, spot)))
        out -= 1.6 * np.exp(-((r - 4.5) / 1.3) ** 2) if is_hollow else 1 / (1 + np.exp(2 * (r - 5)))
    return out.astype(np.float32)


HOLLOW = {name: np.random.default_rng(seed).permutation(len(SPOTS)) < len(SPOTS) // 2
          for seed, name in enumerate(("TS_1", "TS_2"))}


def is_hollow(proposal):
    """Tell whether a proposal lies on a shell."""
    distances = np.linalg.norm(SPOTS - proposal.position_zyx_vox, axis=1)
    return bool(distances.min() < 4 and HOLLOW[proposal.tomogram][distances.argmin()])
