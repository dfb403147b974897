"""Candidates of a tomogram with what they look like, in one file; numpy alone, since the windows read it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from typing import Any, Dict, Optional

import numpy as np

from deepetpicker.errors import FormatError
from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.plainfile import check_plain

SUFFIX = ".npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Places of one tomogram that may be particles.

    Attributes
    ----------
    positions_zyx_vox : (N, 3) float64
        In the tomogram's voxels, the most conspicuous first; N may be 0.
    scores : (N,) float64
        How conspicuous they are.
    features : (N, F) float32
        What they look like.
    """

    positions_zyx_vox: np.ndarray
    scores: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.positions_zyx_vox)


def made_from(path: str, voxel_size_ang: float, how: Dict[str, Any]) -> Dict[str, Any]:
    """Return what decides the candidates of a tomogram: the file, its voxel size in angstrom, and how they are made."""
    state = os.stat(path)
    return {**how, "voxel_size_angstrom": voxel_size_ang, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def write_candidates(path: pathlib.Path, found: Candidates, made: Dict[str, Any]) -> None:
    """Write candidates, complete or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    stream = io.BytesIO()
    np.savez(stream, positions=found.positions_zyx_vox, scores=found.scores, features=found.features,
             made=np.array(json.dumps(made, sort_keys=True)))
    with atomic_output(path) as part:
        part.write_bytes(stream.getvalue())


def read_candidates(path: pathlib.Path, made: Optional[Dict[str, Any]] = None) -> Optional[Candidates]:
    """Return the candidates in a file; None when there is none, or one that was made from or by something else.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    check_plain(path, "candidates")
    try:
        with np.load(path, allow_pickle=False) as content:
            if made is not None and json.loads(str(content["made"])) != json.loads(json.dumps(made)):
                return None
            found = Candidates(np.asarray(content["positions"], np.float64), np.asarray(content["scores"], np.float64),
                               np.asarray(content["features"], np.float32))
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive fails in as many ways as it has parts
        raise FormatError(f"{path} is damaged ({error}): remove it, it is made again") from error
    count = len(found.scores) if found.scores.ndim == 1 else -1
    if (found.positions_zyx_vox.shape != (count, 3) or found.features.ndim != 2 or len(found.features) != count
            or not all(np.isfinite(part).all() for part in (found.positions_zyx_vox, found.scores, found.features))):
        raise FormatError(f"{path} is damaged (expected positions (N, 3), scores (N,) and features (N, F), all "
                          "numbers): remove it, it is made again")
    return found
