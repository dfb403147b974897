"""Compare variants of training or methods on the same labels and budget."""

from __future__ import annotations

import argparse

from deepetpicker.config import StudyOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.io.classes import classes_to_json, parse_classes
from deepetpicker.terminal import show

KINDS = {
    "labels": "shape and diameter of the weak label",
    "ablation": "a plain 3D U-Net; residual sums, coordinates, pyramid, augmentation, overlap, deduplication added",
    "number": "how many labels a model needs: 5 to all",
    "noise": "tomograms with more and more noise",
    "shift": "labels that are off by a part of the particle's radius",
    "peers": "difference of Gaussians, template matching, plain 3D U-Net with clustering, published recipe, ours",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``study`` to parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "\n".join([
        "Compare variants of training, or methods of picking, on the same labels and budget, each trained, picked and",
        "evaluated as the commands do. KIND is one of", "", *(f"  {kind:10s}{text}" for kind, text in KINDS.items())])
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder for study.csv, study.png, study.html, manifest.json and everything in between; "
                        "the same command goes on with what is there")
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of NAME.mrc with NAME.csv of all their particles, NAME_instances.mrc and "
                        "classes.json where there are; default: tomograms that are simulated")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="all classes with their diameters in angstrom, such as 1:ribosome:250,2:proteasome:140; "
                        "replaces classes.json (--diameter-angstrom goes before its diameters)")
    add_options(parser, StudyOptions)


def main(args: argparse.Namespace) -> int:
    """Study; return 0 when every variant is finished, 1 when some failed."""
    from deepetpicker.studying import study

    params = read_params(args.params) if getattr(args, "params", None) else {}
    if args.classes:
        params["classes"] = classes_to_json(parse_classes(args.classes))
    manifest = study(args.kind, args.out, args.data, from_arguments(StudyOptions, args), getattr(args, "quiet", False),
                     params)
    done = [item for item in manifest["items"] if item["status"] == "done"]
    show(f"{args.out}: {len(done)} of {len(manifest['items'])} runs finished; see study.html, study.csv "
         f"and study.png ({manifest['seconds']:.0f} s)")
    return 0 if len(done) == len(manifest["items"]) else 1
