"""The main job inside a real Scipion project, from tomograms without a label to what subtomogram averaging reads.

Simulates tomograms, imports them with Scipion's own protocols, proposes candidates, lets a simulated annotator click
ten of them, trains on these alone, picks tomograms that the network never saw, scores the picks against the known
centres, writes the pages of training and picks, moves the picks to tomograms of another binning with tomo's *extract 3D
coordinates*, and writes RELION's star file with the plugin reliontomo. Every protocol but the annotator's is a process
of its own, as in Scipion's window. The project stays in the folder ``demo``.

With ``--quick`` the tomograms are small and the training short: every step is tried, and the picks are worth nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import mrcfile
import numpy as np

PROJECT = "DeepETPickerDemo"
VOXEL_ANG = 13.3
SIMULATION = "--phantoms ribosome --voxel-size 13.3 --snr 0.3 --gold 3"
CLICKS = 10
HAND_VOX = 1.0  # how far from the centre the annotator clicks, a standard deviation along each axis
SEEN = 0.35     # diameters within which he takes a proposal for the particle
NEAR_VOX = 0.01


class Size(NamedTuple):
    """How large the demonstration is."""

    tomogram: str  # options of simulate
    training: Dict[str, Any]  # all else is the default; what was not clicked is taken for unknown by itself


FULL = Size("--shape 64,160,160 --particles 36", {"minutes": 3})
QUICK = Size("--shape 32,96,96 --particles 12", {"epochs": 2, "patchesPerEpoch": 40, "minutes": 0})


def main(argv: Sequence[str] = ()) -> int:
    """Run every step; return 0 if all went well and all positions agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="small tomograms and a short training")
    args = parser.parse_args(list(argv) or None)
    folder, size = args.out.resolve() / "scipion", QUICK if args.quick else FULL
    begin = time.monotonic()
    diameter = simulate(folder, size)
    prepare_scipion(folder)
    problems = run_project(folder, diameter, size)
    say(f"\n{time.monotonic() - begin:.0f} s in all")
    for text in problems:
        say(f"PROBLEM: {text}")
    say("\nOpen the project in Scipion's window with:\n  " + open_command(folder))
    return 1 if problems else 0


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# ---- data
def simulate(folder: pathlib.Path, size: Size) -> float:
    """Simulate tomograms to train on and to pick, and what the imports read; return the particle's diameter."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, number, seed in (("train", 3, 1), ("held_out", 2, 2)):
        target = folder / "data" / name
        say(f"simulate {number} tomograms into {target}")
        engine("simulate", str(target), "--n", str(number), "--seed", str(seed), "--prefix", name.replace("_", ""),
               *SIMULATION.split(), *size.tomogram.split())
        for table in target.glob("*.csv"):
            write_text_table(table)
    for path in sorted((folder / "data" / "held_out").glob("*_[0-9][0-9].mrc")):
        write_binned(path, folder / "data" / "held_out_bin2" / path.name)
    for path in (folder / "data" / "train").glob("*.txt"):
        path.unlink()  # nobody has labelled these
    classes = json.loads((folder / "data" / "train" / "classes.json").read_text("utf-8"))["classes"]
    return float(classes[0]["diameter_angstrom"])


def engine(*words: str) -> None:
    """Run the engine's command line."""
    subprocess.run([sys.executable, "-m", "deepetpicker", *words, "--quiet"], check=True)


def write_text_table(table: pathlib.Path) -> None:
    """Write the centres of a truth table as text, x y z in voxels, which tomo's import reads."""
    with open(table, newline="", encoding="utf-8") as stream:
        rows = [f"{row['x']} {row['y']} {row['z']}" for row in csv.DictReader(stream)]
    table.with_suffix(".txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_binned(source: pathlib.Path, target: pathlib.Path) -> None:
    """Write a tomogram of twice the voxel size by averaging."""
    target.parent.mkdir(parents=True, exist_ok=True)
    volume = mrcfile.read(source)
    z, y, x = (n // 2 for n in volume.shape)
    with mrcfile.new(target, overwrite=True) as mrc:
        mrc.set_data(volume.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5)).astype(np.float32))
        mrc.voxel_size = 2 * VOXEL_ANG


# ---- Scipion
def variables(folder: pathlib.Path) -> Dict[str, str]:
    """Return what must be set for Scipion to use the demonstration's own folders."""
    return {"SCIPION_HOME": str(folder / "home"), "SCIPION_USER_DATA": str(folder / "user")}


def open_command(folder: pathlib.Path) -> str:
    """Return the shell command that opens the project."""
    words = [f"{name}={value}" for name, value in variables(folder).items()]
    return " ".join([*words, f"PATH={pathlib.Path(sys.executable).parent}:$PATH", f"{sys.executable} -m scipion "
                                                                                  "project",
                     PROJECT])


def prepare_scipion(folder: pathlib.Path) -> None:
    """Configure a Scipion in the demonstration's folder; must be done before pyworkflow is imported."""
    for path in variables(folder).values():
        os.makedirs(path, exist_ok=True)
    os.environ.update(variables(folder), SCIPION_DOMAIN="pwem", SCIPION_PRIORITY_PACKAGE_LIST="pwem tomo",
                      SCIPION_NOTIFY="False",
                      PATH=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run([sys.executable, "-m", "scipion", "config", "--unattended"], check=True, stdout=subprocess.DEVNULL)
    config = folder / "home" / "config" / "scipion.conf"
    text = config.read_text("utf-8")
    config.write_text(text.replace("SCIPION_NOTIFY = True", "SCIPION_NOTIFY = False"), encoding="utf-8")


class Runner:
    """Launches protocols of a project as real processes and says how long they took."""

    def __init__(self) -> None:
        import pyworkflow as pw

        pw.Config.setDomain("pwem")
        from pwem import Domain
        from pyworkflow.project import Manager

        self.protocols = Domain.getProtocols()
        self.project = Manager().createProject(PROJECT)
        self.project.getSettings().setProtocolView("Tomography")  # of the window, which begins with single particles
        self.project.saveSettings()
        os.chdir(self.project.path)  # paths in a project are relative to it

    def __call__(self, name: str, label: str, **settings: Any) -> Any:
        """Run a protocol and return it; stop with its message when it fails."""
        protocol = self.project.newProtocol(self.protocols[name], **settings)
        protocol.setObjLabel(label)
        errors = protocol.validate()
        if errors:
            raise SystemExit(f"{label}: " + "; ".join(errors))
        start = time.monotonic()
        self._launch(protocol, label)
        if not protocol.isFinished():
            raise SystemExit(f"{label} {protocol.getStatus()}: {protocol.getErrorMessage()}\n"
                             + pathlib.Path(protocol.getStderrLog()).read_text("utf-8")[-2000:])
        say(f"\n{label}: {time.monotonic() - start:.0f} s")
        for line in protocol.summary():
            say(f"  {line}")
        return protocol

    def _launch(self, protocol: Any, label: str) -> None:
        """Start a protocol as a process of its own and show how it goes until it ends."""
        from deepetpicker.terminal import progress

        self.project.launchProtocol(protocol, wait=False)
        with progress(None, label, "s") as bar:
            while protocol.isActive() or protocol.isSaved():
                time.sleep(1)
                self.project._updateProtocol(protocol)
                bar.set_postfix_str(last_epoch(protocol))
                bar.update()


def annotate(run: Runner, tomograms: Any, proposals: Any, truth: Dict[str, np.ndarray], diameter_ang: float) -> Any:
    """Mark ten particles as somebody does who walks down the proposals in the window; return the finished protocol.

    What a click does is done here by the code behind the window: a particle that is seen is clicked, beside its centre;
    what is none is refused. Both go to the protocol's own session, version and outputs.

    Parameters
    ----------
    run : Runner
        Of the project.
    tomograms, proposals : SetOfTomograms, SetOfCoordinates3D
        What is annotated, and the candidates.
    truth : dict of str to (N, 3) float
        The true centres x, y, z in voxels by tomogram: the annotator's eyes.
    diameter_ang : float
        Diameter of the particle in angstrom.
    """
    from tomo.constants import BOTTOM_LEFT_CORNER

    from deepetpicker.annotation.records import Negative, Particle
    from deepetpicker.annotation.session import Session
    from deepetpicker.annotation.versions import save_version

    start, label = time.monotonic(), f"annotate: {CLICKS} clicks"
    protocol = run.project.newProtocol(run.protocols["ProtDeepETPickerAnnotate"], inputTomograms=tomograms,
                                       classNames="ribosome", diameterAngstrom=f"{diameter_ang:g}")
    protocol.setObjLabel(label)
    run.project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    seen, random, missed = diameter_ang / VOXEL_ANG, np.random.default_rng(0), []
    ordered = sorted((p.clone() for p in proposals.iterCoordinates()), key=lambda p: -p.getScore())
    with Session(protocol.getFolder()) as session:
        protocol._prepare(session)
        for one in ordered:
            name, place = one.getTomoId(), np.array(one.getPosition(BOTTOM_LEFT_CORNER))
            found = truth[name][np.linalg.norm(truth[name] - place, axis=1).argmin()]
            if np.linalg.norm(found - place) > SEEN * seen:
                session.add(name, Negative(tuple(place[::-1].tolist())))
                continue
            click = found + random.normal(0, HAND_VOX, 3)
            missed.append(float(np.linalg.norm(click - found)))
            session.add(name, Particle(tuple(click[::-1].tolist()), 1))
            if len(missed) == CLICKS:
                break
        refused = sum(len(session.negatives(t.name)) for t in session.tomograms)
        save_version(session)
    protocol.createOutputs()
    protocol.setStatus("finished")
    run.project._storeProtocol(protocol)
    say(f"\n{label}: {time.monotonic() - start:.0f} s\n  {len(missed)} particles clicked, {np.mean(missed):.1f} voxels "
        f"from their centres, {refused} proposals refused")
    return protocol


def last_epoch(protocol: Any) -> str:
    """Return the last epoch and loss of a training that runs; an empty text for other protocols."""
    path = getattr(protocol, "getMetricsFile", str)()
    if not path or not pathlib.Path(path).is_file():
        return ""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return f"epoch {int(rows[-1]['epoch']) + 1}, loss {float(rows[-1]['train_loss']):.3f}" if rows else ""


def show_scores(evaluate: Any, folder: pathlib.Path) -> None:
    """Print the scores and copy report and pictures to where they are found without knowing Scipion."""
    source = pathlib.Path(evaluate.getReport()).parent
    target = folder.parent / "report"
    target.mkdir(parents=True, exist_ok=True)
    for path in [source / "report.html", *source.glob("slices_*.png")]:
        shutil.copy2(path, target / path.name)
    overall = json.loads((source / "evaluation.json").read_text("utf-8"))["overall"]
    names = ("n_truth", "n_picks", "TP", "FP", "FN", "precision", "recall", "F1")
    say("  " + "".join(f"{name.replace('n_', ''):>11s}" for name in names))
    say("  " + "".join(f"{overall[name]:11.3f}" if isinstance(overall[name], float) else f"{overall[name]:11d}"
                       for name in names))
    say(f"  mean distance to the true centre {overall['AD_vox']:.2f} voxels ({overall['AD_ang']:.1f} angstrom)\n"
        f"  report: {target / 'report.html'}, slices with picks: {target / 'slices_1.png'}")


def show_pages(train: Any, pick: Any, folder: pathlib.Path) -> None:
    """Write the pages that the windows of training and picks open."""
    from deepetpicker_plugin.engine import pages

    for name, make in (("training", pages.pageOfTraining(train)),
                       ("picks", pages.pageOfPicks(pick, pick._getExtraPath("picks")))):
        target = folder.parent / "report" / f"{name}.html"
        shutil.copy2(make(), target)
        say(f"  page of the {name}: {target}")


def choices(run: Runner, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Return settings of *train* as its form takes them: words as their place in the list of choices."""
    form = run.project.newProtocol(run.protocols["ProtDeepETPickerTrain"]).getDefinition()
    return {name: form.getParam(name).choices.index(value) if isinstance(value, str) else value
            for name, value in settings.items()}


def read_truth(table: pathlib.Path) -> np.ndarray:
    """Return the true centres of a tomogram, (N, 3) x, y, z in voxels."""
    with open(table, newline="", encoding="utf-8") as stream:
        return np.array([[float(row[axis]) for axis in "xyz"] for row in csv.DictReader(stream)])


def run_project(folder: pathlib.Path, diameter_ang: float, size: Size) -> List[str]:
    """Run the workflow; return what does not agree."""
    run, data = Runner(), folder / "data"
    box = round(diameter_ang / VOXEL_ANG)
    sets = {}
    truth_file = {path.stem: read_truth(path) for path in sorted((data / "train").glob("*.csv"))}
    for name, rate in (("train", VOXEL_ANG), ("held_out", VOXEL_ANG), ("held_out_bin2", 2 * VOXEL_ANG)):
        sets[name] = run("ProtImportTomograms", f"import tomograms: {name}", filesPath=str(data / name),
                         filesPattern="{TS}.mrc", samplingRate=rate, exclusionWords="instances").Tomograms
    proposals = run("ProtDeepETPickerPropose", "propose particles", inputTomograms=sets["train"],
                    diameterAngstrom=diameter_ang).coordinates
    clicked = annotate(run, sets["train"], proposals, truth_file, diameter_ang).coordinates
    train = run("ProtDeepETPickerTrain", f"train on {CLICKS} clicks", inputCoordinates=clicked, numberOfThreads=2,
                **choices(run, size.training))
    start = time.time()
    pick = run("ProtDeepETPickerPick", "pick", inputTomograms=sets["held_out"], inputModel=train.model, binThreads=2)
    say_costs(pick, start)
    truth = run("ProtImportCoordinates3D", "import the true centres", filesPath=str(data / "held_out"),
                filesPattern="*.txt", importFrom=1, importTomograms=sets["held_out"], boxSize=box,
                samplingRate=VOXEL_ANG).outputCoordinates
    show_scores(run("ProtDeepETPickerEvaluate", "evaluate picks", inputCoordinates=pick.coordinates,
                    inputReference=truth), folder)
    show_pages(train, pick, folder)
    binned = run("ProtTomoExtractCoords", "extract 3D coordinates (other binning)", inputSubTomos=pick.coordinates,
                 inputTomos=sets["held_out_bin2"])
    picks = positions(pick.coordinates)
    coarse = positions(binned.coordinates3d)
    return [*compare("the coordinates on tomograms of twice the voxel size", coarse, picks, 0.5),
            *compare("RELION 5's star file", star_positions(pick.coordinates, folder / "relion5"), picks, 1.0)]


def say_costs(pick: Any, launched: float) -> None:
    """Say what Scipion's start, the engine's start and picking cost."""
    from deepetpicker_plugin.sets import picked

    for batch in picked.batches(pick._getExtraPath("picks"))[:1]:
        lines = pathlib.Path(batch, "engine.log").read_text("utf-8").splitlines()
        begin, end = (float(next(w for w in lines if f" {what} " in w).split()[0]) for what in ("start", "end"))
        scanning = sum(item["seconds"] for item in picked.itemsOf(batch).values())
        say(f"  from Execute to the engine's start {begin - launched:.1f} s, its start-up until the first tile "
            f"{end - begin - scanning:.1f} s, picking {len(picked.itemsOf(batch))} tomograms {scanning:.1f} s")


# ---- positions
def positions(coordinates: Any) -> Dict[str, np.ndarray]:
    """Return the positions of a set by tomogram, (N, 3) x, y, z in voxels from the corner, sorted."""
    from tomo.constants import BOTTOM_LEFT_CORNER

    found: Dict[str, List[Tuple[float, float, float]]] = {}
    for item in coordinates.iterCoordinates():
        found.setdefault(item.getTomoId(), []).append(item.getPosition(BOTTOM_LEFT_CORNER))
    return {name: np.array(sorted(rows)) for name, rows in found.items()}


def star_positions(coordinates: Any, folder: pathlib.Path) -> Dict[str, np.ndarray]:
    """Return the positions in the star file that reliontomo writes of a set, as :func:`positions`."""
    import starfile
    from reliontomo.convert.convert50_tomo import Writer

    folder.mkdir(parents=True, exist_ok=True)
    tomograms = {t.getTsId(): t.clone() for t in coordinates.getPrecedents()}
    Writer().coords2Star(coordinates, tomograms, str(folder), coordsScale=1.0)
    path = folder / "inParticles.star"
    say(f"\nRELION 5 star file by reliontomo: {path}")
    table = starfile.read(path)
    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    return {str(name): np.array(sorted(map(tuple, rows[columns].to_numpy(float))))
            for name, rows in table.groupby("rlnTomoName")}


def compare(what: str, found: Dict[str, np.ndarray], picks: Dict[str, np.ndarray], scale: float) -> List[str]:
    """Say how far positions are from the picks; return the problem, if there is one."""
    if {n: len(r) for n, r in found.items()} != {n: len(r) for n, r in picks.items()}:
        return [f"{what}: not the picks' tomograms or numbers"]
    largest = max(float(np.abs(found[name] - rows * scale).max()) for name, rows in picks.items())
    say(f"  {what}: {sum(map(len, picks.values()))} positions equal the picks (largest difference {largest:.1g} "
        "voxels)")
    return [f"{what}: {largest:.3g} voxels away from the picks"] if largest > NEAR_VOX else []


if __name__ == "__main__":
    sys.exit(main())
