"""``deepetpicker annotate``: mark particles, places without one, and boxes that are complete."""

from __future__ import annotations

import argparse
import logging
import pathlib
from typing import Callable

from deepetpicker.cli.view import add_classes, add_only_reviewed, add_tomograms, need_screen
from deepetpicker.errors import InputError
from deepetpicker.options import read_params

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``annotate`` to a parser."""
    parser.description = ("Annotate particles in tomograms. Every click is on disk at once; the same command goes on "
                          "where it ended. Tables are written when the window is closed, each time in a new folder.")
    add_tomograms(parser)
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder of the annotation: a new one, or one to go on with")
    parser.add_argument("--start", nargs="+", default=[], metavar="P",
                        help="coordinates to start from: files named like the tomograms, or folders with them")
    add_classes(parser)
    add_only_reviewed(parser)
    parser.add_argument("--tables-only", action="store_true",
                        help="open no window, only write the tables of what was annotated")


def main(args: argparse.Namespace) -> int:
    """Annotate until the window is closed, then write the tables; return 0."""
    return opened_and_written(args, annotate, "annotated")


def opened_and_written(args: argparse.Namespace, opened: Callable[[pathlib.Path, argparse.Namespace], None],
                       done: str) -> int:
    """Open a window on a folder, unless only its tables are wanted, then write them; return 0.

    Parameters
    ----------
    args : Namespace
        ``out``, ``tables_only``, ``only_reviewed`` and what the window needs.
    opened : callable
        Opens the window and waits until it is closed.
    done : str
        What is done in it: "annotated".
    """
    folder = pathlib.Path(args.out)
    if not args.tables_only:
        need_screen()
        opened(folder, args)
    elif not folder.is_dir():
        raise InputError(f"nothing was {done} in {folder} yet: run the command without --tables-only first")
    write_version(folder, args.only_reviewed)
    return 0


def write_version(folder: pathlib.Path, only_reviewed: bool) -> None:
    """Write the tables of an annotation, or of what somebody has looked at, and say where they are."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.annotation.versions import save_version, training_words, versions

    with Session(folder) as session:
        written = save_version(session, only_reviewed)
        if written is not None:
            total = sum(len(session.table(one.name, only_reviewed)) for one in session.tomograms)
            log.info("%s: %d particles; train on them with: deepetpicker train %s --out MODEL", written, total,
                     training_words(written))
        elif versions(folder):
            log.info("%s says everything already", versions(folder)[-1])
        else:
            log.info("nothing was annotated, no tables were written")


def annotate(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Open the window on the annotation in a folder and wait until it is closed."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.io.classes import parse_classes
    from deepetpicker.windows.inputs import find_classes, find_tomograms, prepare_session, read_tables
    from deepetpicker.windows.linked import annotate_window
    from deepetpicker.windows.scene import Scene

    params = read_params(args.params) if getattr(args, "params", None) else None
    tomograms = find_tomograms(args.tomograms, args.voxel_size, args.show, params)
    start = read_tables(tomograms, args.start, "--start")
    classes = find_classes(start, [*args.start, *args.tomograms], parse_classes(args.classes), args.diameter_angstrom)
    scene = Scene(tomograms, [])
    for name in scene.names:
        scene.volume(name)
    with Session(folder) as session:
        for name in prepare_session(session, scene, start, classes):
            log.warning("%s: was annotated already, its --start is passed over", name)
        annotate_window(session, scene, f"DeepETPicker: annotate, {folder}").show()
