"""``simulate``: write a data folder of simulated tomograms with their truth."""

from __future__ import annotations

import csv
import io
import logging
import os
import pathlib
import time
from typing import Any, Dict, List, Sequence, Set, Union

import numpy as np

from deepetpicker.config import SimulateOptions
from deepetpicker.errors import InputError
from deepetpicker.io.atomic import whole, write_text
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.items import check_name
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.volumes import VolumeWriter, write_volume
from deepetpicker.simulation import imaging, packing
from deepetpicker.simulation.particles import Particle, check_fit, load_particles
from deepetpicker.terminal import printable, progress

PathLike = Union[str, "os.PathLike[str]"]
TABLE_HEADER = ("class_id", "class_name", "x", "y", "z", "rot", "tilt", "psi")
_MOST_PARTICLES = 32767
_DEFAULTS = SimulateOptions()
log = logging.getLogger(__name__)


def simulate(out: PathLike, options: SimulateOptions = _DEFAULTS, quiet: bool = False) -> Dict[str, Any]:
    """Write simulated tomograms with their particle tables, instance masks and classes.

    Tomogram i depends on the seed and i alone, so that a larger ``n`` extends a set. Every file is complete or absent;
    files of the same name are replaced.

    Parameters
    ----------
    out : path
        Data folder: NAME.mrc (float32, particles dark), NAME.csv (x, y, z in voxels, rot, tilt, psi in degrees),
        NAME_instances.mrc (int16, 1-based row of the table), classes.json and manifest.json.
    options : SimulateOptions
        What to simulate.
    quiet : bool
        True shows no progress bar.

    Returns
    -------
    dict
        The manifest's content; its items carry ``tomogram``, ``coordinates``, ``instances``, ``n_particles``,
        ``n_per_class``, ``n_gold`` and ``n_membranes``.

    Raises
    ------
    InputError
        For an unknown phantom, an unusable map, a particle larger than the volume, or a name that is no file name.
    OutputError
        If a file cannot be written.
    """
    _check(options)
    folder = pathlib.Path(out)
    manifest = Manifest("simulate", options.to_dict(), seed=options.seed)
    particles = load_particles(options)
    if options.particles:
        check_fit(particles, options.shape, options.voxel_size, packing.GAP_VOX)
    classes = [ParticleClass(i + 1, p.name, p.diameter_ang) for i, p in enumerate(particles)]
    write_classes(folder, classes, options.voxel_size)
    with progress(options.n, "simulating", "tomogram", quiet) as bar:
        for index in range(options.n):
            bar.set_postfix_str(printable(_name(options, index)))
            _simulate_one(folder, index, particles, options, manifest)
            manifest.write(folder / "manifest.json")
            bar.update()
    _warn_of_strangers(folder, manifest)
    manifest.outputs.update(folder=str(folder), classes=str(folder / "classes.json"))
    manifest.write(folder / "manifest.json")
    return manifest.to_dict()


def _check(options: SimulateOptions) -> None:
    """Raise InputError for what the option checks cannot see."""
    if options.particles > _MOST_PARTICLES:
        raise InputError(f"particles must be at most {_MOST_PARTICLES} (instance masks are int16), got "
                         f"{options.particles}")
    if not options.prefix or pathlib.PurePath(options.prefix).name != options.prefix:
        raise InputError(f"prefix must be the start of a file name without folders, got {options.prefix!r}")
    check_name(_name(options, options.n))


def _name(options: SimulateOptions, index: int) -> str:
    """Return the name of tomogram ``index``."""
    return f"{options.prefix}_{index:02d}"


def _simulate_one(folder: pathlib.Path, index: int, particles: Sequence[Particle], options: SimulateOptions,
                  manifest: Manifest) -> None:
    """Simulate and write tomogram ``index`` and record it."""
    start, name = time.monotonic(), _name(options, index)
    counts = shared_counts(options.particles, len(particles))
    scene = packing.pack(options.shape, options.voxel_size, particles, counts,
                         np.random.default_rng([options.seed, index, 0]), options.gold, options.membranes)
    scope = imaging.Microscope(defocus_um=options.defocus, snr=options.snr)
    angles_deg = imaging.tilt_angles_deg(options.tilt_range, options.tilt_step)
    tomogram_zyx = imaging.reconstruct(scene.density_zyx, options.voxel_size, angles_deg, scope,
                                       np.random.default_rng([options.seed, index, 1]))
    paths = {"coordinates": folder / f"{name}.csv", "instances": folder / f"{name}_instances.mrc",
             "tomogram": folder / f"{name}.mrc"}
    write_text(paths["coordinates"], _table(scene.placements, particles))
    depth, height, width = scene.instances_zyx.shape
    with VolumeWriter(paths["instances"], (depth, height, width), np.int16, options.voxel_size) as writer:
        writer.write(0, scene.instances_zyx)
    write_volume(paths["tomogram"], tomogram_zyx, options.voxel_size)
    per_class = [sum(p.class_index == i for p in scene.placements) for i in range(len(particles))]
    seconds = round(time.monotonic() - start, 3)
    manifest.add_item(name, "done", seconds=seconds, n_particles=len(scene.placements),
                      n_per_class={p.name: n for p, n in zip(particles, per_class)}, n_gold=scene.n_gold,
                      n_membranes=scene.n_vesicles, **{key: str(path) for key, path in paths.items()})
    for what, placed, wanted in (("particles", len(scene.placements), options.particles),
                                 ("gold beads", scene.n_gold, options.gold),
                                 ("vesicles", scene.n_vesicles, options.membranes)):
        if placed < wanted:
            text = f"{name}: only {placed} of {wanted} {what} fit; use a larger shape or fewer of them"
            manifest.warn(text)
            log.warning(text)
    log.info("%s: %d particles (%.1f s)", name, len(scene.placements), seconds)


def shared_counts(total: int, n_classes: int) -> List[int]:
    """Return how many particles each class gets: as equal as can be, the first classes get the rest."""
    return [total // n_classes + (index < total % n_classes) for index in range(n_classes)]


def _table(placements: Sequence[packing.Placement], particles: Sequence[Particle]) -> str:
    """Return the CSV text of the placements; x, y, z are 0-based voxel indices of the centres."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_HEADER)
    for placement in placements:
        z, y, x = placement.position_zyx_vox
        numbers = [f"{value:.4f}" for value in (x, y, z, *placement.rot_tilt_psi_deg)]
        writer.writerow([placement.class_index + 1, particles[placement.class_index].name, *numbers])
    return text.getvalue()


def _warn_of_strangers(folder: pathlib.Path, manifest: Manifest) -> None:
    """Warn of tomograms in the folder that this run did not write: training on the folder would use them."""
    own: Set[str] = {pathlib.Path(item[key]).name for item in manifest.items for key in ("tomogram", "instances")}
    others = [p.name for p in whole(folder.glob("*.mrc"))
              if p.name not in own and not p.name.endswith("_instances.mrc")]
    if others:
        text = (f"{folder} also holds {len(others)} tomograms of another run ({', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}): remove them unless they belong to the set")
        manifest.warn(text)
        log.warning(text)
