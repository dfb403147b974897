"""``deepetpicker view``: tomograms with their picks in a window, or the curves and rounds of a training."""

from __future__ import annotations

import argparse
import functools
import pathlib
from typing import TYPE_CHECKING, Any, Sequence

from deepetpicker.errors import InputError
from deepetpicker.options import read_params

if TYPE_CHECKING:
    from deepetpicker.windows.picks import PicksWindow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``view`` to a parser."""
    parser.description = ("See tomograms with their picks: linked slices, zoom, scores, a gallery. Or give a model "
                          "file or the folder of a training, to see its curves, also while it runs, and the models "
                          "that it went on from. Nothing is changed.")
    add_tomograms(parser)
    parser.add_argument("--picks", nargs="+", default=[], metavar="P",
                        help="coordinate files named like the tomograms, or folders with them")
    add_classes(parser)


def add_tomograms(parser: argparse.ArgumentParser) -> None:
    """Add what names the tomograms of a window."""
    parser.add_argument("tomograms", nargs="*", metavar="TOMO",
                        help="tomograms (.mrc, .rec, .map, .zarr), or folders of them")
    parser.add_argument("--show", nargs="+", default=[], metavar="T",
                        help="other versions of the same tomograms, denoised or binned otherwise, to show in their "
                        "place: files of the same names, or a folder with them; coordinates stay those of TOMO")
    parser.add_argument("--voxel-size", type=float, default=0.0, metavar="V",
                        help="voxel size of TOMO [angstrom], where the header is wrong")


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add what says names and diameters of classes."""
    parser.add_argument("--classes", default="", metavar="ID:NAME:D[,...]",
                        help="names and diameters [angstrom] of classes, as 1:ribosome:250,2:proteasome:140 (default: "
                        "those of a classes.json beside the coordinates or the tomograms)")
    parser.add_argument("--diameter-angstrom", type=float, default=0.0, metavar="D",
                        help="particle diameter [angstrom] of classes of which nothing else says it (default: 20 "
                        "voxels)")


def add_only_reviewed(parser: argparse.ArgumentParser) -> None:
    """Add what leaves out particles that nobody has looked at."""
    parser.add_argument("--only-reviewed", action="store_true",
                        help="write only particles that somebody has looked at: for candidates of 'propose', most of "
                        "which are none")


def need_screen() -> None:
    """Raise InputError where no window can be opened, before anything is read.

    Raises
    ------
    InputError
        If Python lacks tkinter, or there is no display.
    """
    try:
        import tkinter  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise InputError("windows need tkinter, which this Python has not: install it (Debian and Ubuntu: apt install "
                         "python3-tk; conda: conda install tk)") from error
    from deepetpicker.windows.window import open_screen

    open_screen().destroy()


def is_training(places: Sequence[str]) -> bool:
    """Tell whether what is given is a model file or the folder of a training."""
    return len(places) == 1 and (places[0].endswith(".safetensors") or pathlib.Path(places[0], "metrics.csv").is_file())


def view_training(place: str) -> None:
    """Show the curves of a training and the rounds that led to its model until the window is closed.

    Raises
    ------
    DeepETPickerError
        If the file is no model, or the model says nothing about its training.
    """
    from deepetpicker.report.rounds import rounds_of_file
    from deepetpicker.report.run import report
    from deepetpicker.report.sources import TrainingRun, find_run
    from deepetpicker.windows.charts import TrainingWindow

    def run() -> TrainingRun:
        found = find_run([place])
        assert isinstance(found, TrainingRun)
        return found

    first = run()
    if not first.rows:
        raise InputError(f"{place} says nothing about its training: there are no curves to show")
    TrainingWindow(f"DeepETPicker training: {first.name}", lambda: run().rows, lambda: run().card is None,
                   page=lambda: str(report([place])), rounds=lambda: rounds_of_file(first.model),
                   partial=lambda: run().is_partial).show()


def main(args: argparse.Namespace) -> int:
    """Show the window until it is closed; return 0."""
    need_screen()
    if is_training(args.tomograms):
        view_training(args.tomograms[0])
        return 0
    picks_window(args).show()
    return 0


def picks_window(args: argparse.Namespace) -> PicksWindow:
    """Return the window on what the arguments name, which says when a table of picks has changed."""
    from deepetpicker.io.classes import parse_classes
    from deepetpicker.windows.inputs import find_classes, find_tomograms, picks_scene, read_tables, table_files
    from deepetpicker.windows.picks import PicksWindow
    from deepetpicker.windows.window import state_of

    params = read_params(args.params) if getattr(args, "params", None) else None
    tomograms = find_tomograms(args.tomograms, args.voxel_size, args.show, params)

    def state() -> Any:
        files = table_files(tomograms, args.picks)
        return files, state_of(files)

    tables = read_tables(tomograms, args.picks)
    classes = find_classes(tables, [*args.picks, *args.tomograms], parse_classes(args.classes),
                           args.diameter_angstrom)
    scene = picks_scene(tomograms, tables, classes)
    scene.volume(scene.names[0])
    title = tomograms[0].name if len(tomograms) == 1 else f"{len(tomograms)} tomograms"
    window = PicksWindow(f"DeepETPicker: {title}", scene)
    return window.notice(state, functools.partial(picks_window, args)) if args.picks else window
