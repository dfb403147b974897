"""``deepetpicker review``: look through picks on contact sheets; keep what is right, refuse what is not."""

from __future__ import annotations

import argparse
import contextlib
import logging
import pathlib
from typing import TYPE_CHECKING, Any, Dict, List, Sequence

from deepetpicker.cli.annotate import opened_and_written
from deepetpicker.cli.view import add_classes, add_only_reviewed
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.options import read_params

if TYPE_CHECKING:
    from deepetpicker.io.classes import ParticleClass
    from deepetpicker.io.coordinates import CoordinateTable
    from deepetpicker.io.volumes import Volume

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``review`` to a parser."""
    parser.description = ("Review picks on contact sheets: by score, by doubt, or tomogram by tomogram, those unlike "
                          "the others first. Every answer is on disk at once; the same command, also without picks, "
                          "goes on where it ended. Tables are written when the window is closed, each time in a new "
                          "folder.")
    parser.add_argument("picks", nargs="*", metavar="PICKS",
                        help="coordinate files named like the tomograms, or folders with them")
    parser.add_argument("--tomograms", nargs="+", default=[], metavar="TOMO",
                        help="tomograms (.mrc, .rec, .map, .zarr), or folders of them")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder of the review: a new one, or one to go on with; 'annotate' opens the same")
    parser.add_argument("--threshold", default="", metavar="T",
                        help="score from which doubt counts: one, or per class as 1:0.4,2:0.6 (default: what the "
                        "manifest beside the picks says, else the lowest score)")
    parser.add_argument("--candidates", action="store_true",
                        help="offer what lies below the threshold, too: the candidates that the manifest beside the "
                        "picks names; they become particles only when they are accepted")
    parser.add_argument("--show", nargs="+", default=[], metavar="T",
                        help="other versions of the same tomograms, denoised or binned otherwise, to show in their "
                        "place: files of the same names, or a folder with them; coordinates stay those of TOMO")
    parser.add_argument("--voxel-size", type=float, default=0.0, metavar="V",
                        help="voxel size of TOMO [angstrom], where the header is wrong")
    add_classes(parser)
    add_only_reviewed(parser)
    parser.add_argument("--tables-only", action="store_true",
                        help="open no window, only write the tables of what was reviewed")


def main(args: argparse.Namespace) -> int:
    """Review until the window is closed, then write the tables; return 0."""
    return opened_and_written(args, review, "reviewed")


def review(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Open the window on the review in a folder and wait until it is closed."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.io.classes import parse_classes
    from deepetpicker.windows.inputs import find_classes, find_tomograms, prepare_session, read_tables
    from deepetpicker.windows.linked import review_window
    from deepetpicker.windows.scene import Scene

    params = read_params(args.params) if getattr(args, "params", None) else None
    tomograms = find_tomograms(args.tomograms, args.voxel_size, args.show, params)
    picks = read_tables(tomograms, args.picks, "PICKS")
    if not picks and not folder.is_dir():
        raise InputError(f"expected picks, or a folder in which some are being reviewed: got no PICKS, and there is no "
                         f"{folder}")
    classes = find_classes(picks, [*args.picks, *args.tomograms], parse_classes(args.classes), args.diameter_angstrom)
    scene = Scene(tomograms, [])
    for name in scene.names:
        scene.volume(name)
    with Session(folder) as session:
        for name in prepare_session(session, scene, picks, classes):
            log.warning("%s: is being reviewed already, its PICKS are passed over", name)
        lows = thresholds(args.threshold, args.picks, [one.kind for one in session.classes])
        offered = scene.names if args.candidates else []
        below = {name: candidates(args.picks, scene.header(name)) for name in offered}
        review_window(session, scene, f"DeepETPicker: review, {folder}", thresholds=lows, below=below).show()


def candidates(places: Sequence[str], tomogram: Volume) -> CoordinateTable:
    """Return the candidates of a tomogram that a manifest beside the picks names.

    Raises
    ------
    InputError
        If no manifest names any.
    """
    from deepetpicker.io.coordinates import Frame, read_coordinates

    for item in manifest_items(places):
        if item.get("name") == tomogram.name and item.get("candidates"):
            return read_coordinates(str(item["candidates"]), Frame(tomogram.voxel_size_ang, tomogram.shape_zyx))
    raise InputError(f"--candidates: no manifest.json beside the picks names candidates of {tomogram.name}: give the "
                     "output folder of 'deepetpicker pick' as PICKS, or leave the option out")


def manifest_items(places: Sequence[str]) -> List[Dict[str, Any]]:
    """Return the items of the manifests in folders, or beside files."""
    from deepetpicker.io.manifest import read_manifest

    found: List[Dict[str, Any]] = []
    for place in map(pathlib.Path, places):
        with contextlib.suppress(DeepETPickerError):
            found += read_manifest((place if place.is_dir() else place.parent) / "manifest.json")["items"]
    return found


def thresholds(text: str, places: Sequence[str], classes: Sequence[ParticleClass]) -> Dict[int, float]:
    """Return the score thresholds by class id: those given, else those of a manifest beside the picks.

    Raises
    ------
    InputError
        If the text does not fit the classes.
    """
    from deepetpicker.io.classes import numbers_by_class

    if text:
        return numbers_by_class(text, classes, "--threshold")
    told = [item["thresholds"] for item in manifest_items(places) if isinstance(item.get("thresholds"), dict)]
    return {int(one): float(value) for some in told for one, value in some.items()}
