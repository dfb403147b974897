"""Write one page about a training or about picks."""

from __future__ import annotations

import argparse
from typing import Dict, Sequence

from deepetpicker.config import ReportOptions, add_arguments as add_options, from_arguments
from deepetpicker.errors import InputError
from deepetpicker.terminal import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report`` to parser."""
    parser.add_argument("places", nargs="+", metavar="PLACE",
                        help="a model file, the folder of its training (MODEL_run, also while it runs), or one or "
                        "several folders of picks")
    parser.add_argument("--out", default=None, metavar="FILE.html", help="page to write (default: report.html in the "
                        "folder of the training or the picks)")
    parser.add_argument("--tomograms", nargs="+", default=[], metavar="TOMO",
                        help="tomograms, or folders with them, that are no longer where they were")
    parser.add_argument("--names", nargs="+", default=[], metavar="MODEL=NAME",
                        help="what model files are called on the page: the rounds of a model, the model of picks")
    add_options(parser, ReportOptions)


def _named(words: Sequence[str]) -> Dict[str, str]:
    """Return the names of model files by their paths.

    Raises
    ------
    InputError
        If a word is not MODEL=NAME.
    """
    found = {}
    for word in words:
        path, _, name = (part.strip() for part in word.partition("="))
        if not (path and name):
            raise InputError(f"--names expected a model file and its name, MODEL=NAME, got {word!r}")
        found[path] = name
    return found


def main(args: argparse.Namespace) -> int:
    """Write the page; return 0."""
    from deepetpicker.report.run import report

    path = report(args.places, args.out, from_arguments(ReportOptions, args), args.tomograms, _named(args.names))
    show(path)
    return 0
