"""Write one page about a training or about picks."""

from __future__ import annotations

import argparse

from deepetpicker.config import ReportOptions, add_arguments as add_options, from_arguments
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
    add_options(parser, ReportOptions)


def main(args: argparse.Namespace) -> int:
    """Write the page; return 0."""
    from deepetpicker.report.run import report

    path = report(args.places, args.out, from_arguments(ReportOptions, args), args.tomograms)
    show(path)
    return 0
