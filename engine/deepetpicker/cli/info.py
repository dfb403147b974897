"""``deepetpicker info``: what a model file, or a tomogram, says about itself."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import TYPE_CHECKING, Any, Dict

from deepetpicker.terminal import printable, show

if TYPE_CHECKING:
    from deepetpicker.io.modelcard import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``info`` to a parser."""
    parser.description = "Show the model card of a model file, or what a tomogram says about itself."
    parser.add_argument("model", metavar="FILE",
                        help="model file (.safetensors), or tomogram (.mrc, .rec, .map, .zarr)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--anonymous", action="store_true", help="take folders, user and host names out of what is "
                        "shown, and of the copy that --out writes")
    parser.add_argument("--out", default="", metavar="COPY.safetensors",
                        help="with --anonymous: write a copy of the model whose card is what is shown, to be shared")


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import json

    from deepetpicker.io.anonymous import Anonymous
    from deepetpicker.io.items import TOMOGRAM_SUFFIXES
    from deepetpicker.io.modelcard import ModelCard, format_info, info, read_card

    if pathlib.Path(args.model).suffix.lower() in TOMOGRAM_SUFFIXES:
        facts = of_tomogram(args.model)
        facts = Anonymous(facts).value(facts) if args.anonymous else facts
        show(*(json.dumps(facts, indent=1) if args.json else in_words(facts)).split("\n"))
        return 0
    card, facts = read_card(args.model), info(args.model)
    if args.anonymous:
        clean = Anonymous(facts)
        facts, card = clean.value(facts), ModelCard.from_json(json.dumps(clean.value(json.loads(card.to_json()))))
    if args.out:
        write_copy(args.model, args.out, card, args.anonymous)
    show(*(json.dumps(facts, indent=1) if args.json else format_info(card).rstrip("\n")).split("\n"))
    return 0


def write_copy(model: str, out: str, card: ModelCard, is_anonymous: bool) -> None:
    """Write a model file with the weights of another and a card.

    Raises
    ------
    InputError
        If the card is the same, or the copy would replace the model.
    """
    from deepetpicker.errors import InputError
    from deepetpicker.network.modelfile import load_model, save_model

    if not is_anonymous:
        raise InputError("expected --anonymous with --out, got --out alone: a plain copy is made with cp")
    if os.path.exists(out):
        raise InputError(f"{out} is there already: expected the name of a new file for the copy")
    judged = load_model(model, is_judged=True)[0].state_dict() if card.is_refitted else None
    save_model(out, load_model(model)[0], card, judged=judged)


def of_tomogram(path: str) -> Dict[str, Any]:
    """Return what a tomogram says about itself, and each coarser version that its folder holds."""
    from deepetpicker.io.volumes import open_volume

    volume = open_volume(path, quiet=True)
    versions = [{"voxel_size_angstrom": round(one.voxel_size_ang, 4), "shape_zyx": [int(n) for n in one.data_zyx.shape]}
                for one in (volume.level(volume.voxel_size_ang), *volume.coarser)]
    return {"name": volume.name, "type": str(volume.data_zyx.dtype), **versions[0], "coarser": versions[1:],
            "warnings": list(volume.warnings)}


def in_words(facts: Dict[str, Any]) -> str:
    """Return the facts of a tomogram as lines, safe to show."""
    lines = [facts["name"], f"  type       {facts['type']}"]
    for label, one in [("voxels", facts), *(("coarser", one) for one in facts["coarser"])]:
        size = " x ".join(str(n) for n in reversed(one["shape_zyx"]))
        lines.append(f"  {label:<10} {size} (x, y, z) of {one['voxel_size_angstrom']:g} angstrom")
    return "\n".join(map(printable, [*lines, *(f"  note       {text}" for text in facts["warnings"])]))
