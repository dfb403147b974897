"""Tiny tomograms with balls in noise, and options for a network that trains on them in seconds."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Sequence

import mrcfile
import numpy as np

from deepetpicker.config import TrainOptions

VOXEL, DIAMETER = 10.0, 8


def write_set(folder: pathlib.Path, shapes: Sequence[Any], counts: Sequence[int], seed: int = 0, n_classes: int = 1,
              voxel: float = VOXEL) -> pathlib.Path:
    """Write tomograms of noise with dark balls of 8 voxels (the second class has bright ones) and their tables."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for k, (shape, count) in enumerate(zip(shapes, counts)):
        volume = rng.normal(0, 1, shape).astype(np.float32)
        lines, centres = ["class_id,class_name,x,y,z"], []
        while len(centres) < count:
            centre = np.array([rng.uniform(min(4, n / 3), n - 1 - min(4, n / 3)) for n in shape])
            if all(np.linalg.norm(centre - c) > 9 for c in centres):
                centres.append(centre)
        for i, centre in enumerate(centres):
            kind = i % n_classes + 1
            square = sum((a - c) ** 2 for a, c in zip(np.indices(shape), centre))
            volume += (-4 if kind == 1 else 4) * (square < (DIAMETER / 2) ** 2)
            lines.append(f"{kind},ball_{kind}," + ",".join(f"{v:.3f}" for v in centre[::-1]))
        with mrcfile.new(folder / f"t{k}.mrc", volume, overwrite=True) as mrc:
            mrc.voxel_size = voxel
        (folder / f"t{k}.csv").write_text("\n".join(lines) + "\n")
    classes = [{"id": c, "name": f"ball_{c}", "diameter_angstrom": DIAMETER * voxel} for c in range(1, n_classes + 1)]
    (folder / "classes.json").write_text(json.dumps({"voxel_size_angstrom": voxel, "classes": classes}))
    return folder


def small(**changes: Any) -> TrainOptions:
    """Return options for a network that trains in seconds; its coordinates are not checked."""
    values = {"patch": 32, "widths": (4,), "epochs": 2, "batch": 2, "patches_per_epoch": 4, "precision": "float32",
              "device": "cpu", "validation_tiles": 4, "check": False, **changes}
    return TrainOptions(**values)
