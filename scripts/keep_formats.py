"""Keep small files of every kind, as this version writes them, so that later versions can be held to reading them.

``python scripts/keep_formats.py LABEL`` writes ``tests/fixtures/formats/LABEL``: a model with its run folder, picks, an
annotation folder, and what is to be read from them. Run it for each release, and when a format changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import lzma
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict

import numpy as np

import deepetpicker

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "fixtures" / "formats"
SHAPE, VOXEL_ANG, DIAMETER_ANG = (40, 48, 56), 10.0, 80.0
KEPT = ("last.ckpt", "metrics.csv", "params.json", "manifest.json")
TRAIN = ["--patch", "32", "--widths", "2,3", "--epochs", "6", "--batch", "4", "--patches-per-epoch", "32",
         "--precision", "float32", "--device", "cpu", "--validation-tiles", "4", "--seed", "1"]


def write_data(folder: pathlib.Path) -> None:
    """Write two tomograms with twelve dark balls each and their tables."""
    from deepetpicker.io.volumes import write_volume

    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("t0", "t1"):
        volume, lines = rng.normal(0, 1, SHAPE).astype(np.float32), ["class,x,y,z"]
        for centre in (np.array([z, y, x]) for z in (9, 28) for y in (9, 37) for x in (8, 28, 48)):
            volume -= 4 * (sum((a - c) ** 2 for a, c in zip(np.indices(SHAPE), centre)) < 16)
            lines.append(f"1,{centre[2]},{centre[1]},{centre[0]}")
        write_volume(folder / f"{name}.mrc", volume, VOXEL_ANG)
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    classes = [{"id": 1, "name": "ball", "diameter_angstrom": DIAMETER_ANG}]
    (folder / "classes.json").write_text(json.dumps({"voxel_size_angstrom": VOXEL_ANG, "classes": classes}))


def run(work: pathlib.Path, *words: str) -> None:
    """Run a command of the package in a folder."""
    subprocess.run([sys.executable, "-m", "deepetpicker", *words], cwd=work, check=True)


def output_of(network: Any) -> Dict[str, float]:
    """Return a few numbers that a network makes of an input that is always the same."""
    import torch

    z, y, x = np.indices((16, 24, 32))
    volume = torch.from_numpy(np.sin(0.7 * z + 0.4 * y * x / 7).astype(np.float32))[None, None]
    with torch.no_grad():
        out = network.eval()(volume)
    return {"mean": float(out.mean()), "std": float(out.std()), "middle": float(out[0, 0, 8, 12, 16])}


def annotate(folder: pathlib.Path) -> Dict[str, int]:
    """Write an annotation folder with a version, and changes after it; return how much is in it."""
    try:
        records = importlib.import_module("deepetpicker.annotation.records")
    except ImportError:  # versions before there was one
        return {}
    from deepetpicker.annotation.session import Session
    from deepetpicker.annotation.versions import save_version
    from deepetpicker.io.classes import ParticleClass
    from deepetpicker.io.regions import Region

    with Session(folder / "closed") as session:
        session.set_tomograms([records.AnnotatedTomogram("t0", "/data/t0.mrc", VOXEL_ANG, SHAPE)])
        session.set_classes([ParticleClass(1, "ball", DIAMETER_ANG), ParticleClass(4, "rod", 120.0)])
        for place in range(5):
            session.add("t0", records.Particle((9.5, 10.25, 8.0 + 9 * place), 1 if place < 3 else 4))
        session.add("t0", records.Negative((30.0, 31.5, 32.0)))
        session.add("t0", Region((0, 0, 0), (39, 47, 27)))
        save_version(session)
        session.add("t0", records.Particle((33.0, 34.0, 35.0), 1))
        session.undo()
        session.add("t0", records.Particle((20.0, 34.0, 35.0), 4))
        (folder / "killed").mkdir()  # as a window leaves it that was killed
        for path in (folder / "closed").iterdir():
            if path.is_file():
                shutil.copy(path, folder / "killed")
    for path in folder.rglob("*"):
        if path.is_symlink() or path.name == "session.lock":
            path.unlink()
    return {"particles": 6, "negatives": 1, "regions": 1}


def load_model(path: pathlib.Path) -> Any:
    """Return network and card of a model file, wherever this version keeps what reads it."""
    for name in ("deepetpicker.network.modelfile", "deepetpicker.models.modelfile", "deepetpicker.models"):
        try:
            return importlib.import_module(name).load_model(path)
        except (ImportError, AttributeError):
            continue
    raise SystemExit("no reader of model files found")


def calibrate(model: pathlib.Path, card: Any, network: Any) -> None:
    """Give the class of a model a calibration; versions before there was one have none."""
    if not any(field.name == "calibration" for field in dataclasses.fields(card.classes[0])):
        return
    from deepetpicker.calibration import Calibration
    from deepetpicker.network.modelfile import save_model

    scale = Calibration((0.0, 0.4, 1.0), (0.0, 0.3, 0.9), 40, 60, "isotonic")
    classes = tuple(dataclasses.replace(one, calibration=scale) for one in card.classes)
    save_model(model, network, dataclasses.replace(card, classes=classes))


def keep(label: str, target: pathlib.Path) -> None:
    """Write the files of this version into a folder that is not there yet."""
    with tempfile.TemporaryDirectory(prefix="formats_") as name:
        work = pathlib.Path(name)
        write_data(work / "data")
        package = pathlib.Path(deepetpicker.__file__).parent
        fresh = ["--init", "none"] if (package / "network" / "generic.py").exists() else []
        run(work, "train", "--data", "data", "--out", "model.safetensors", *TRAIN, *fresh)
        calibrate(work / "model.safetensors", *reversed(load_model(work / "model.safetensors")))
        run(work, "pick", "model.safetensors", "data/t0.mrc", "--out", "picks", "--threshold", "0.02", "--device",
            "cpu")
        network, card = load_model(work / "model.safetensors")
        (target / "annotation").mkdir(parents=True)
        shutil.copy(work / "model.safetensors", target)
        (target / "model_run").mkdir()
        for kept in KEPT:
            if (work / "model_run" / kept).exists():
                shutil.copy(work / "model_run" / kept, target / "model_run")
        checkpoint = target / "model_run" / "last.ckpt"  # most of it is padding
        checkpoint.with_suffix(".ckpt.xz").write_bytes(lzma.compress(checkpoint.read_bytes()))
        checkpoint.unlink()
        shutil.copytree(work / "picks", target / "picks")
        shutil.copy(work / "data" / "classes.json", target)
        table = target / "picks" / "t0.csv"
        expected = {"label": label, "goes_on": True, "output": output_of(network),
                    "annotation": annotate(target / "annotation"),
                    "threshold": card.threshold, "diameters_angstrom": [one.diameter_ang for one in card.classes],
                    "calibrated": [None if getattr(one, "calibration", None) is None
                                   else float(one.calibration(np.array([0.2]))[0]) for one in card.classes],
                    "picks": len(table.read_text("utf-8").splitlines()) - 1}
        blank(target, work)
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {math.ceil(size / 1000)} kB")


def blank(target: pathlib.Path, work: pathlib.Path) -> None:
    """Put neutral words in the place of what says where and on what machine; records have a digest and stay."""
    import platform

    python, code = str(pathlib.Path(sys.executable).parent), str(pathlib.Path(deepetpicker.__file__).parent.parent)
    for path in target.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv") and path.is_file() and path.parent.name != "records":
            text = path.read_text("utf-8")
            for word, neutral in ((str(work), "/project"), (code, "/code"), (python, "/bin"),
                                  (platform.platform(), "Linux")):
                text = text.replace(word, neutral)
            path.write_text(text, "utf-8")


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label", help="name of the folder, such as the version")
    args = parser.parse_args()
    target = FOLDER / args.label
    if target.exists():
        parser.error(f"{target} is there already: kept files are never changed")
    keep(args.label, target)


if __name__ == "__main__":
    main()
