"""Tomograms whose imaging conditions and surroundings are drawn at random, to train on what they have in common."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np
from scipy import ndimage

from deepetpicker.simulation import imaging, packing
from deepetpicker.simulation.assemblies import random_phantom
from deepetpicker.simulation.particles import Particle, from_phantom

FEW, MANY, LARGE_VOX = (1, 6), (10, 80), 25.0  # strangers of a kind, large ones and small ones
FILTERED = 0.4  # share of the tomograms that are smoothed, as many people's are
Share = Tuple[float, float]


def varied_tomogram(rng: np.random.Generator, shape_zyx: Sequence[int], voxel_size_ang: float,
                    wanted: Sequence[Particle], counts: Sequence[int], strangers: Sequence[Particle]
                    ) -> Tuple[np.ndarray, np.ndarray]:
    """Return a tomogram of particles among strangers, and where the particles are.

    Defocus, noise, envelope, tilt range and step, a smoothing, gold and vesicles are drawn.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    shape_zyx : (3,) int
        Shape of the tomogram.
    voxel_size_ang : float
        Voxel size in angstrom, that of the particles.
    wanted : sequence of Particle
        Kinds of particles that are told.
    counts : sequence of int
        How many to place of each.
    strangers : sequence of Particle
        Kinds that are there too, in numbers that are drawn.

    Returns
    -------
    tuple
        (Z, Y, X) float32, dense matter dark; centres (N, 3) zyx in voxels of the wanted particles.
    """
    more = [int(rng.integers(*(FEW if one.diameter_ang > LARGE_VOX * voxel_size_ang else MANY))) for one in strangers]
    gold = int(rng.integers(0, 6)) * int(rng.random() < 0.5)
    vesicles = int(rng.integers(1, 4)) * int(rng.random() < 0.5)
    scene = packing.pack(shape_zyx, voxel_size_ang, [*wanted, *strangers], [*counts, *more], rng, gold, vesicles)
    scope = imaging.Microscope(defocus_um=rng.uniform(1.5, 6), snr=float(np.exp(rng.uniform(math.log(0.03), 0))) / 2,
                               b_factor_ang2=rng.uniform(100, 1500), defocus_spread_um=rng.uniform(0, 0.2))
    angles_deg = imaging.tilt_angles_deg(rng.uniform(40, 66), rng.uniform(2, 5))
    tomogram_zyx = imaging.reconstruct(scene.density_zyx, voxel_size_ang, angles_deg, scope, rng)
    if rng.random() < FILTERED:
        tomogram_zyx = ndimage.gaussian_filter(tomogram_zyx, rng.uniform(0.5, 1.5))
    centres = [p.position_zyx_vox for p in scene.placements if p.class_index < len(wanted)]
    return tomogram_zyx, np.array(centres, float).reshape(-1, 3)


def random_kinds(rng: np.random.Generator, extents: Share, n: int, across_ang: float, voxel_size_ang: float
                 ) -> List[Particle]:
    """Return n random particles.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    extents : (2,) float
        Their smallest and largest extent, in units of ``across_ang``.
    n : int
        How many.
    across_ang : float
        In angstrom.
    voxel_size_ang : float
        Voxel size in angstrom at which they are sampled.
    """
    diameters_ang = across_ang * rng.uniform(*extents, n)
    return [from_phantom(random_phantom(rng, float(d)), voxel_size_ang) for d in diameters_ang]
