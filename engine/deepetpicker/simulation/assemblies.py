"""Random assemblies of blobs, rods, rings, shells and helices: no protein, but what particles have in common."""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepetpicker.simulation.particles import extent_vox
from deepetpicker.simulation.shapes import MASK_LEVEL, Ellipsoid, Part, Phantom, Tube

SIZE_ANG = 200.0  # about the extent of an assembly before it is scaled
LARGEST_ASPECT = 3.0
SMALLEST_FILL = 0.06  # share of the ball about a particle that is not solvent
_MEASURED_AT_ANG = 8.0
_GROUPS = ("C2", "C3", "C4", "D2", "D3", "T", "O")
Solid = List[Part]
Hollow = Tuple[Solid, Solid]
Vector = np.ndarray


def random_phantom(rng: np.random.Generator, diameter_ang: float, name: str = "assembly") -> Phantom:
    """Return a random assembly.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    diameter_ang : float
        Its largest extent in angstrom.
    name : str
        Of the class.
    """
    shares = np.array([share for share, _ in FAMILIES.values()], float)
    while True:
        family = list(FAMILIES)[int(rng.choice(len(FAMILIES), p=shares / shares.sum()))]
        solid, cavities = FAMILIES[family][1](rng)
        if rng.random() < 0.25:
            other, _ = _cluster(rng)
            shift = 0.4 * SIZE_ANG * _direction(rng)
            solid = solid + [part.moved(np.eye(3), shift) for part in _scaled(other, rng.uniform(0.35, 0.6))]
        phantom = Phantom(name, family, "C1", SIZE_ANG, tuple(solid), tuple(cavities)).centred()
        mask = phantom.density(_MEASURED_AT_ANG) > MASK_LEVEL
        if not _is_particle(mask):
            continue
        factor = diameter_ang / (extent_vox(mask) * _MEASURED_AT_ANG)
        return dataclasses.replace(phantom, diameter_ang=diameter_ang, solid=tuple(_scaled(phantom.solid, factor)),
                                   cavities=tuple(_scaled(phantom.cavities, factor)))


def _is_particle(mask_zyx: np.ndarray) -> bool:
    """Tell whether a mask (Z, Y, X) is one piece, not too thin and not too long."""
    labels, count = ndimage.label(mask_zyx)
    if not count:
        return False
    largest = int(np.bincount(labels.ravel())[1:].max())
    fill = mask_zyx.sum() / (np.pi / 6 * extent_vox(mask_zyx) ** 3)
    return largest > 0.95 * mask_zyx.sum() and fill > SMALLEST_FILL and _aspect(mask_zyx) < LARGEST_ASPECT


def _aspect(mask_zyx: np.ndarray) -> float:
    """Return length over width of a mask (Z, Y, X): the ratio of its largest and smallest standard deviation."""
    spread = np.linalg.eigvalsh(np.cov(np.argwhere(mask_zyx).T))
    return float(np.sqrt(spread[-1] / max(spread[0], 1e-6)))


def _scaled(parts: Sequence[Part], factor: float) -> Solid:
    """Return the parts made larger about the origin."""
    out: Solid = []
    for part in parts:
        if isinstance(part, Tube):
            out.append(dataclasses.replace(part, points_zyx_ang=part.points_zyx_ang * factor,
                                           radius_ang=part.radius_ang * factor))
        else:
            out.append(dataclasses.replace(part, centre_zyx_ang=part.centre_zyx_ang * factor,
                                           radii_ang=part.radii_ang * factor))
    return out


def _direction(rng: np.random.Generator) -> Vector:
    """Return a random unit vector (3,)."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _lump(rng: np.random.Generator, centre_zyx_ang: Vector, radius_ang: float) -> Ellipsoid:
    """Return an ellipsoid about as large as a ball of the radius, in a random orientation."""
    radii = radius_ang * rng.uniform(0.7, 1.3, 3)
    return Ellipsoid(np.asarray(centre_zyx_ang, float), radii, Rotation.random(random_state=_state(rng)).as_matrix(),
                     float(rng.uniform(0.7, 1.0)))


def _state(rng: np.random.Generator) -> int:
    """Return a seed for what does not take a generator."""
    return int(rng.integers(2**31))


def _repeated(parts: Sequence[Part], group: str) -> Solid:
    """Return the copies of the parts under a point group whose main axis is z."""
    return [part.moved(matrix_xyz[::-1, ::-1]) for matrix_xyz in Rotation.create_group(group).as_matrix()
            for part in parts]


def _cluster(rng: np.random.Generator) -> Hollow:
    """Return lumps that touch each other, from compact to branched."""
    lumps = [_lump(rng, np.zeros(3), rng.uniform(25, 60))]
    for _ in range(int(rng.integers(2, 13))):
        at, radius = lumps[int(rng.integers(len(lumps)))], rng.uniform(15, 45)
        reach = 0.8 * (float(np.mean(at.radii_ang)) + radius)
        lumps.append(_lump(rng, at.centre_zyx_ang + reach * _direction(rng), radius))
    return list(lumps), []


def _symmetric(rng: np.random.Generator) -> Hollow:
    """Return a few lumps, repeated by a point group, with or without a core."""
    group = _GROUPS[int(rng.integers(len(_GROUPS)))]
    lumps = [_lump(rng, rng.uniform(30, 85) * _direction(rng), rng.uniform(18, 40))
             for _ in range(int(rng.integers(1, 4)))]
    core = [_lump(rng, np.zeros(3), rng.uniform(25, 50))] if rng.random() < 0.6 else []
    return _repeated(lumps, group) + list(core), []


def _rings(rng: np.random.Generator) -> Hollow:
    """Return one to four stacked rings of subunits with a hole through them."""
    n, layers = int(rng.integers(4, 13)), int(rng.integers(1, 5))
    radius = rng.uniform(40, 90)
    thick = max(rng.uniform(15, 35), 0.9 * np.pi * radius / n)
    subunit = [_lump(rng, np.array([0.0, 0.0, radius]), thick)]
    if rng.random() < 0.5:
        subunit.append(_lump(rng, np.array([rng.uniform(0, 25), rng.uniform(-20, 20), radius]), 0.6 * thick))
    ring, twist, solid = _repeated(subunit, f"C{n}"), rng.uniform(0, 2 * np.pi / n), []  # type: ignore[var-annotated]
    for layer in range(layers):
        turn = Rotation.from_rotvec([0, 0, layer * twist]).as_matrix()[::-1, ::-1]
        solid += [part.moved(turn, (1.6 * thick * layer, 0, 0)) for part in ring]
    return solid, []


def _shell(rng: np.random.Generator) -> Hollow:
    """Return a hollow ellipsoid, smooth or lumpy, sometimes with something inside."""
    radii = 100 * rng.uniform(0.7, 1.0, 3)
    wall = rng.uniform(14, 35)
    axes = Rotation.random(random_state=_state(rng)).as_matrix()
    solid: Solid = [Ellipsoid(np.zeros(3), radii, axes, float(rng.uniform(0.5, 0.9)))]
    if rng.random() < 0.6:
        spot = _direction(rng)
        solid += _repeated([_lump(rng, float(np.mean(radii)) * spot, rng.uniform(14, 30))], "O")
    cavity = Ellipsoid(np.zeros(3), radii - wall, axes)
    if rng.random() < 0.3:
        hole = Tube(np.stack([np.zeros(3), 140 * _direction(rng)]), float(rng.uniform(12, 30)))
        return solid, [cavity, hole]
    return solid, [cavity]


def _rod(rng: np.random.Generator) -> Hollow:
    """Return a straight or bent rod with lumps at its ends or along it."""
    start = np.zeros(3)
    points, along = [start], _direction(rng)
    for _ in range(int(rng.integers(2, 6))):
        along = along + 0.5 * rng.uniform(0, 1) * _direction(rng)
        along /= np.linalg.norm(along)
        points.append(points[-1] + rng.uniform(35, 60) * along)
    solid: Solid = [Tube(np.stack(points), float(rng.uniform(16, 35)), float(rng.uniform(0.7, 1.0)))]
    chosen = rng.choice(len(points), int(rng.integers(0, 3)), replace=False)
    return solid + [_lump(rng, points[int(k)], rng.uniform(25, 50)) for k in chosen], []


def _helix(rng: np.random.Generator) -> Hollow:
    """Return a tube wound about an axis, like a spring."""
    turns, radius, pitch = rng.uniform(1, 3), rng.uniform(30, 70), rng.uniform(40, 75)
    angle = np.linspace(0, 2 * np.pi * turns, int(10 * turns) + 2)
    points = np.stack([pitch * angle / (2 * np.pi), radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return [Tube(points, float(rng.uniform(13, 24)), float(rng.uniform(0.8, 1.0)))], []


def _star(rng: np.random.Generator) -> Hollow:
    """Return two to five arms that meet in a lump and end in others."""
    solid: Solid = [_lump(rng, np.zeros(3), rng.uniform(22, 45))]
    for _ in range(int(rng.integers(2, 6))):
        tip = rng.uniform(55, 105) * _direction(rng)
        solid += [Tube(np.stack([np.zeros(3), 0.5 * tip + 12 * _direction(rng), tip]), float(rng.uniform(10, 22))),
                  _lump(rng, tip, rng.uniform(14, 32))]
    return solid, []


def _solid(rng: np.random.Generator) -> Hollow:
    """Return one flat, round or long body with grooves cut into it."""
    body = Ellipsoid(np.zeros(3), 100 * rng.uniform(0.45, 1.0, 3), np.eye(3), float(rng.uniform(0.6, 1.0)))
    grooves: Solid = [Tube(np.stack([60 * _direction(rng), 110 * _direction(rng)]), float(rng.uniform(12, 28)))
                      for _ in range(int(rng.integers(0, 4)))]
    return [body], grooves


FAMILIES: Dict[str, Tuple[float, Callable[[np.random.Generator], Hollow]]] = {
    "cluster": (3, _cluster), "symmetric": (2, _symmetric), "star": (2, _star), "solid": (1, _solid),
    "rings": (1, _rings), "shell": (1, _shell), "rod": (1, _rod), "helix": (0.5, _helix)}
"""How often each kind is drawn, and how it is made."""
