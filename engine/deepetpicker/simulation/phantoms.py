"""The built-in particles: seven phantoms of different size and symmetry, 120 to 300 angstrom."""

from __future__ import annotations

import functools
import math
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from deepetpicker.errors import InputError, suggestion
from deepetpicker.simulation.shapes import Ellipsoid, Part, Phantom, Tube


def names() -> Tuple[str, ...]:
    """Return the names of the built-in phantoms, smallest first."""
    return tuple(_BUILDERS)


@functools.lru_cache(maxsize=None)
def phantom(name: str) -> Phantom:
    """Return a built-in phantom.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Raises
    ------
    InputError
        If there is no such phantom, with the nearest name.
    """
    if name not in _BUILDERS:
        raise InputError(f"phantoms must be among {', '.join(_BUILDERS)}, got {name!r}" + suggestion(name, names()))
    return _BUILDERS[name]().centred()


def _ball(centre_zyx_ang: ArrayLike, radii_ang: ArrayLike, weight: float = 1.0,
          outward: Optional[ArrayLike] = None) -> Ellipsoid:
    """Return an ellipsoid with half axes (3,) along z, y, x, or with the first along ``outward`` (3,) where given."""
    axes = np.eye(3) if outward is None else _frame_zyx(np.asarray(outward, float))
    return Ellipsoid(np.asarray(centre_zyx_ang, float), np.asarray(radii_ang, float), axes, weight)


def _frame_zyx(direction: np.ndarray) -> np.ndarray:
    """Return a (3, 3) rotation whose first column is along the direction (3,)."""
    first = direction / np.linalg.norm(direction)
    second = np.cross(first, np.eye(3)[int(np.argmin(np.abs(first)))])
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _repeated(parts: Sequence[Part], group: str) -> Tuple[Part, ...]:
    """Return the copies of the parts under a point group (C7, D7, O, I) whose main axis is z."""
    copies: List[Part] = []
    for matrix_xyz in Rotation.create_group(group).as_matrix():
        copies.extend(part.moved(matrix_xyz[::-1, ::-1]) for part in parts)
    return tuple(copies)


def _arc(radius_ang: float, start_deg: float, stop_deg: float, n: int) -> np.ndarray:
    """Return n points (n, 3) on a circle about the z axis."""
    angle = np.deg2rad(np.linspace(start_deg, stop_deg, n))
    return radius_ang * np.stack([np.zeros(n), np.sin(angle), np.cos(angle)], axis=1)


def _cage() -> Phantom:
    """Return a hollow octahedral shell of 24 subunits, like ferritin."""
    position = 48.0 * np.array([0.86, 0.40, 0.32])
    subunit = _ball(position, (12, 26, 15), 0.95, outward=position)
    wall, cavity = _ball((0, 0, 0), (55, 55, 55), 0.6), _ball((0, 0, 0), (38, 38, 38))
    return Phantom("cage", "hollow octahedral shell of 24 subunits", "O", 124.0,
                   (*_repeated([subunit], "O"), wall), (cavity,))


def _ring() -> Phantom:
    """Return a lumpy ring with a handle on one side."""
    circle = _arc(52, 0, 360, 19)
    beads = tuple(_ball(_arc(55, a, a, 1)[0], (24, 19, 19), 0.6) for a in (0, 72, 144, 216, 288))
    handle = Tube(np.array([[8, 0, 58], [40, 8, 64], [66, 28, 52], [70, 44, 26], [44, 56, 4], [8, 56, -6]], float), 13)
    return Phantom("ring", "five-bead ring with a handle", "C1", 168.0, (Tube(circle, 17, 0.8), *beads, handle))


def _barrel() -> Phantom:
    """Return a double-ring barrel of fourteen three-domain subunits, like a chaperonin."""
    domains = [_ball((22, 0, 46), (21, 21, 21), 0.9), _ball((44, 10, 53), (16, 14, 13), 0.8),
               _ball((63, -6, 47), (15, 19, 19), 0.85)]
    rings = [Tube(_arc(radius, 0, 360, 15) + np.array([height, 0, 0]), thickness, 0.6)
             for side in (-1, 1) for radius, height, thickness in ((46, 24 * side, 16), (49, 60 * side, 12))]
    return Phantom("barrel", "double ring of two times seven subunits", "D7", 195.0,
                   (*_repeated(domains, "D7"), *rings))


def _tripod() -> Phantom:
    """Return three unequal arms that meet off centre and end in different lobes."""
    arms = np.array([[18, 96, 12], [-26, -46, 84], [34, -62, -76]], float)
    parts: List[Part] = [_ball((0, 0, 0), (24, 26, 24), 0.9), _ball((16, 8, -6), (18, 14, 16), 0.9)]
    parts += [Tube(np.stack([np.zeros(3), 0.55 * arm + bend, arm]), 15.0, 0.85)
              for arm, bend in zip(arms, ([8, 0, 6], [0, -9, 4], [-9, 4, 0]))]
    parts += [_ball(arms[0], (25, 20, 19), 1.0), _ball(arms[1], (18, 27, 21), 1.0), _ball(arms[2], (20, 18, 18), 1.0)]
    return Phantom("tripod", "three unequal arms", "C1", 225.0, tuple(parts))


def _rod() -> Phantom:
    """Return a bent rod with a head at one end and a gap behind it."""
    curve = _arc(130, 5, 92, 12) - np.array([0, 90, 90])
    curve[:, 0] += np.linspace(-14, 14, 12)
    head = curve[-1]
    parts = (Tube(curve, 25, 0.85), _ball(head + [8, 2, -10], (35, 31, 33), 0.95),
             _ball(curve[3] + [16, 8, 8], (22, 20, 20), 0.9))
    return Phantom("rod", "bent rod with a head", "C1", 253.0, parts, (_ball(head + [26, 4, 18], (11, 15, 15), 0.9),))


def _ribosome() -> Phantom:
    """Return two unequal lobes with a groove between them, protuberances and a tunnel, like a ribosome."""
    large: List[Part] = [_ball((-28, 0, 0), (68, 92, 84), 0.9), _ball((-10, 70, 30), (38, 34, 32), 0.9),
             _ball((-2, -72, -26), (34, 36, 34), 0.9), _ball((18, 4, 84), (30, 28, 30), 0.95),
             _ball((-72, 30, -38), (32, 40, 36), 0.85), _ball((-58, -44, 40), (36, 36, 40), 0.85)]
    stalk = Tube(np.array([[0, -70, -60], [18, -96, -84], [26, -110, -104]], float), 12, 0.9)
    small: List[Part] = [_ball((68, 10, -12), (32, 52, 84), 0.85), _ball((78, -34, 54), (30, 38, 36), 0.9),
                         _ball((62, 58, -34), (28, 34, 38), 0.9), _ball((92, 4, -30), (22, 34, 44), 0.9)]
    groove: List[Part] = [_ball((40, -24, 30), (12, 66, 48), 0.9),
                          Tube(np.array([[34, 96, 66], [40, 30, 40]], float), 13, 0.9)]
    tunnel = Tube(np.array([[20, -6, 0], [-40, 6, -6], [-110, 20, -14]], float), 11, 0.9)
    return Phantom("ribosome", "two lobes with a groove", "C1", 276.0, (*large, stalk, *small), (*groove, tunnel))


def _capsid() -> Phantom:
    """Return an empty icosahedral shell of sixty subunits with twelve spikes, like a small virus."""
    position = np.array([108.0, 34.8, 24.4])
    parts = [_ball(position, (15, 33, 30), 0.85, outward=position)]
    spikes = [_ball(130 * axis, (17, 20, 20), 0.9, outward=axis) for axis in _five_fold_axes()]
    wall, cavity = _ball((0, 0, 0), (124, 124, 124), 0.55), _ball((0, 0, 0), (103, 103, 103))
    return Phantom("capsid", "empty icosahedral shell with spikes", "I", 297.0,
                   (*_repeated(parts, "I"), *spikes, wall), (cavity,))


def _five_fold_axes() -> List[np.ndarray]:
    """Return the twelve unit vectors (3,) from an icosahedron's centre to its vertices."""
    turns_xyz = Rotation.create_group("I").as_rotvec()
    angle = np.linalg.norm(turns_xyz, axis=1)
    return [turn[::-1] / np.linalg.norm(turn) for turn in turns_xyz[np.isclose(angle, 2 * math.pi / 5)]]


_BUILDERS: Dict[str, Callable[[], Phantom]] = {
    "cage": _cage, "ring": _ring, "barrel": _barrel, "tripod": _tripod, "rod": _rod, "ribosome": _ribosome,
    "capsid": _capsid}
