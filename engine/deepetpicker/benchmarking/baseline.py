"""The published algorithm as it is, to be timed against: nothing here serves picking itself.

Written from the description in Liu et al. 2024, Nat. Commun. 15:2090 and the observed behaviour of its implementation:
the network in float32, tiles of 72 with a border of 12 on a padded volume, and post-processing tile by tile in whole
voxels, with the number of pooling passes set by the largest class and duplicates removed in list order.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepetpicker.network.resunet import ResUNet3D, coordinate_channels, probabilities

TILE, BORDER = 72, 12
FLOOR = 0.1


def tile_starts(length: int) -> List[int]:
    """Return where tiles start along an axis of length voxels that is padded by the border on each side."""
    step = TILE - 2 * BORDER
    return list(range(-BORDER, max(length - BORDER, -BORDER + 1), step))


def plain_logits(network: ResUNet3D, patch_bczyx: Tensor) -> Tensor:
    """Return the network's logits (B, C, Z, Y, X) layer by layer: coordinates concatenated, nothing merged or left out.

    Parameters
    ----------
    network : ResUNet3D
        Gives the layers; evaluation mode.
    patch_bczyx : (B, 1, Z, Y, X)
        Normalised density.
    """
    image, x, skips = patch_bczyx, patch_bczyx, []
    for level, encoder in enumerate(network.encoders):
        if level:
            x, image = functional.avg_pool3d(x, 2), functional.avg_pool3d(image, 2)
            x = torch.cat([x, image], 1) if network.options.pyramid else x
        x = _plain_block(encoder, x)
        skips.append(x)
    for upsampler, decoder, skip in zip(network.upsamplers, network.decoders, skips[-2::-1]):
        x = _plain_block(decoder, upsampler(x, output_size=skip.shape[2:]) + skip)
    return network.head(x)


def _plain_block(block: Any, x_bczyx: Tensor) -> Tensor:
    """Return the features of a ResidualBlock."""
    if block.coordinates:
        x_bczyx = torch.cat([x_bczyx, coordinate_channels(x_bczyx)], 1)
    outputs = []
    for unit in (block.unit1, block.unit2, block.unit3):
        x_bczyx = functional.relu(unit.norm(unit.conv(x_bczyx)))
        outputs.append(x_bczyx)
    return block.activation(outputs[0] + outputs[2] if block.residual else outputs[2])


def tile_peaks(probability_czyx: Tensor, passes: int) -> List[Tuple[int, Tensor, Tensor]]:
    """Return (channel, voxels (N, 3), values (N,)) of the peaks inside a tile's border.

    Parameters
    ----------
    probability_czyx : (C, N, N, N)
        Network output of one tile.
    passes : int
        Number of 5^3 mean poolings.
    """
    pooled = (probability_czyx > 0.5).float()[None]
    for _ in range(passes):
        pooled = functional.avg_pool3d(pooled, 5, 1, 2)
    peaks = (pooled == functional.max_pool3d(pooled, 5, 1, 2)) & (pooled > FLOOR)
    found = []
    for channel in range(pooled.shape[1]):
        voxels = peaks[0, channel].nonzero()
        inside = ((voxels >= BORDER) & (voxels <= TILE - BORDER)).all(1)
        voxels = voxels[inside]
        found.append((channel, voxels, pooled[0, channel][tuple(voxels.T)]))
    return found


def pick_as_published(network: ResUNet3D, volume_zyx: np.ndarray, diameters_vox: List[float],
                      device: torch.device) -> np.ndarray:
    """Return picks (N, 5) as class, z, y, x, score in whole voxels, best first.

    Parameters
    ----------
    network : ResUNet3D
        Evaluation mode.
    volume_zyx : (Z, Y, X) float32
        Normalised tomogram.
    diameters_vox : list of float
        Particle diameter of each class in voxels.
    device : torch.device
        Where to compute.
    """
    network = network.float().to(device)
    padded = np.pad(volume_zyx, [(BORDER, TILE)] * 3, mode="reflect")
    passes = int(max(diameters_vox)) // 4 + 1
    rows: List[Tuple[float, ...]] = []
    with torch.inference_mode():
        for corner in np.array(np.meshgrid(*map(tile_starts, volume_zyx.shape), indexing="ij")).reshape(3, -1).T:
            z, y, x = (int(v) + BORDER for v in corner)
            tile = np.ascontiguousarray(padded[z:z + TILE, y:y + TILE, x:x + TILE], np.float32)
            output = probabilities(plain_logits(network, torch.from_numpy(tile)[None, None].to(device)))[0]
            for channel, voxels, values in tile_peaks(output, passes):
                rows += [(channel + 1, *(v + corner), s) for v, s in zip(voxels.cpu().numpy(), values.tolist())]
    return remove_duplicates(np.array(rows, float).reshape(-1, 5), volume_zyx.shape, min(diameters_vox) / 2)


def remove_duplicates(rows: np.ndarray, shape_zyx: Tuple[int, ...], distance_vox: float) -> np.ndarray:
    """Return the rows (N, 5) inside the volume without those too close to an earlier one, best first."""
    rows = rows[((rows[:, 1:4] >= 0) & (rows[:, 1:4] < shape_zyx)).all(1)]
    kept: List[np.ndarray] = []
    for row in rows:
        if all(np.linalg.norm(row[1:4] - other[1:4]) >= distance_vox for other in kept):
            kept.append(row)
    out = np.array(kept, float).reshape(-1, 5)
    return out[np.argsort(-out[:, 4], kind="stable")]
