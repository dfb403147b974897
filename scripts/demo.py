"""The main job from end to end: simulate, train, pick the held-out tomograms, score the picks, report.

Each step is the command that is shown before it runs, so that it can be repeated on other data. Results go to the
folder ``demo``; a training that was interrupted goes on from its last epoch. Run by ``make demo``.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import sys
import time
from typing import List, Sequence, Tuple

from deepetpicker.__main__ import main as deepetpicker

PARTICLES = "--phantoms ribosome,barrel --voxel-size 13.3 --shape 64,160,160 --particles 48 --snr 0.3 --gold 3"
TRAINING = "--patch 40 --batch 4 --epochs 16 --patches-per-epoch 64 --validate-every 4"


def steps(folder: pathlib.Path) -> List[Tuple[str, str]]:
    """Return (what it does, command line) of each step."""
    train, test, model, picks = (folder / name for name in ("train", "held_out", "model.safetensors", "picks"))
    tomograms = " ".join(str(test / f"held_out_{i:02d}.mrc") for i in range(2))
    return [
        ("Simulate three tomograms to train on", f"simulate {train} --n 3 --seed 1 --prefix train {PARTICLES}"),
        ("Simulate two tomograms the network never sees",
         f"simulate {test} --n 2 --seed 2 --prefix held_out {PARTICLES}"),
        ("Train on the labelled centres", f"train --data {train} --out {model} {TRAINING}"),
        ("Pick the held-out tomograms", f"pick {model} {tomograms} --out {picks}"),
        ("Score the picks against the truth",
         f"evaluate --truth {test} --picks {picks} --rule distance --out {folder / 'report'}"),
    ]


def main(argv: Sequence[str] = ()) -> int:
    """Run every step; return 0 if all went well and the scores are in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"), help="folder for the results")
    folder = parser.parse_args(list(argv) or None).out
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    for number, (what, command) in enumerate(steps(folder), 1):
        say(f"\n{number}. {what}\n   deepetpicker {command}")
        status = deepetpicker(shlex.split(command))
        if status:
            say(f"step {number} ended with status {status} after {time.monotonic() - begin:.0f} s")
            return status
    overall = json.loads((folder / "report" / "evaluation.json").read_text())["overall"]
    say(f"\nF1 {overall['F1']:.3f}, mean distance to the true centre {overall['AD_vox']:.2f} voxels "
        f"({overall['AD_ang']:.1f} angstrom), {time.monotonic() - begin:.0f} s in all")
    report = folder / "report"
    say(f"Pictures and curves: {report / 'report.html'}; slices with picks: {report / 'slices_1.png'}")
    return 0


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
