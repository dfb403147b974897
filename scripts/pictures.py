"""Make the pictures of windows and pages that the documents show, from tomograms simulated for them.

``python scripts/pictures.py --work FOLDER [--out docs/pictures] [review.png ...]`` simulates six tomograms, the last
with a third of the particles of the others, trains on some of the particles of three of them, picks all six, corrects
the picks by what is known, refines the model, and then opens the windows on a virtual screen (Xvfb) and the pages in
Chromium. What is in FOLDER already is not made again: the whole takes about ten minutes of one core, a picture some
seconds. The windows of Scipion have their pictures from its tests (docs/windows.rst says which).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIMULATION = "--phantoms ribosome,barrel --voxel-size 13.3 --shape 64,160,160 --snr 0.3 --gold 3"
MANY, FEW = 36, 12        # particles of a tomogram, and of the one that is unlike the others
LABELLED, TRAINED = 12, 3  # labels of each tomogram in the first training, and tomograms with labels
NEAR_VOX = 6.0            # a pick farther from all centres hits nothing
EPOCHS, REFINED = "12", "4"
PATIENCE_S = 600.0        # for the candidates of the first tomogram
PAGE_SIZE = (1100, 1500)


def engine(*words: str) -> None:
    """Run the engine's command line."""
    subprocess.run([sys.executable, "-m", "deepetpicker", *words, "--quiet"], check=True, cwd=os.getcwd())


def data(work: pathlib.Path) -> None:
    """Simulate, train, pick, correct and refine; what is there is kept."""
    tomograms, labels, corrected = work / "tomograms", work / "labels", work / "corrected"
    if not tomograms.is_dir():
        for n, count, folder in ((5, MANY, "many"), (1, FEW, "few")):
            engine("simulate", str(work / folder), "--n", str(n), "--particles", str(count), "--seed", str(n),
                   *SIMULATION.split())
        tomograms.mkdir()
        found = [path for folder in ("many", "few") for path in sorted((work / folder).glob("tomo_[0-9][0-9].mrc"))]
        for number, path in enumerate(found, start=1):
            path.rename(tomograms / f"TS_{number:02d}.mrc")
            path.with_suffix(".csv").rename(work / f"TS_{number:02d}_truth.csv")
    if not labels.is_dir():
        labels.mkdir()
        shutil.copy(work / "many" / "classes.json", labels)
        for number in range(1, TRAINED + 1):
            lines = (work / f"TS_{number:02d}_truth.csv").read_text("utf-8").splitlines()
            step = (len(lines) - 1) // LABELLED
            (labels / f"TS_{number:02d}.csv").write_text("\n".join([lines[0], *lines[1::step]]) + "\n", "utf-8")
            os.link(tomograms / f"TS_{number:02d}.mrc", labels / f"TS_{number:02d}.mrc")
    if not (work / "first.safetensors").is_file():
        engine("train", "--data", str(labels), "--out", str(work / "first.safetensors"), "--epochs", EPOCHS,
               "--unannotated", "unknown")
    if not (work / "picks" / "manifest.json").is_file():
        engine("pick", str(work / "first.safetensors"), str(tomograms), "--out", str(work / "picks"))
    if not corrected.is_dir():
        correct(work, corrected)
    if not (work / "refined.safetensors").is_file():
        engine("refine", str(work / "first.safetensors"), "--data", str(corrected / "version_001"), "--out",
               str(work / "refined.safetensors"), "--epochs", REFINED)


def correct(work: pathlib.Path, folder: pathlib.Path) -> None:
    """Annotate what the first training was given in full: all particles, and what was picked in their place."""
    from deepetpicker.annotation.records import Negative, Particle
    from deepetpicker.annotation.session import Session
    from deepetpicker.annotation.versions import save_version
    from deepetpicker.io.classes import read_classes
    from deepetpicker.io.coordinates import read_coordinates
    from deepetpicker.windows.inputs import find_tomograms, prepare_session
    from deepetpicker.windows.scene import Scene

    paths = [str(work / "tomograms" / f"TS_{n:02d}.mrc") for n in range(1, TRAINED + 1)]
    scene, (classes, _) = Scene(find_tomograms(paths), []), read_classes(work / "labels")
    with Session(folder) as session:
        prepare_session(session, scene, {}, classes)
        for name in scene.names:
            truth, picks = (read_coordinates(path) for path in (work / f"{name}_truth.csv",
                                                                work / "picks" / f"{name}.csv"))
            for class_id, position in zip(truth.class_ids.tolist(), truth.positions_zyx_vox.tolist()):
                session.add(name, Particle(tuple(position), class_id))
            away = np.linalg.norm(picks.positions_zyx_vox[:, None] - truth.positions_zyx_vox, axis=2).min(axis=1)
            for position in picks.positions_zyx_vox[away > NEAR_VOX].tolist():
                session.add(name, Negative(tuple(position)))
        save_version(session)


# ---- pictures
def hands() -> Any:
    """Return the module with the virtual screen and the camera, which the tests of windows use too."""
    path = ROOT / "deepetpicker_plugin" / "tests" / "screen.py"
    spec = importlib.util.spec_from_file_location("virtual_screen", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def review(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the review window in the middle of the work: rows accepted, false picks refused, some chosen."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.cli.review import thresholds
    from deepetpicker.io.classes import read_classes
    from deepetpicker.io.coordinates import read_coordinates
    from deepetpicker.windows.inputs import find_tomograms, prepare_session, read_tables
    from deepetpicker.windows.linked import review_window
    from deepetpicker.windows.scene import Scene

    scene, (classes, _) = Scene(find_tomograms([str(work / "tomograms")]), []), read_classes(work / "picks")
    picks = read_tables(list(scene.files.values()), [str(work / "picks")])
    shutil.rmtree(work / "review", ignore_errors=True)
    with Session(work / "review") as session:
        prepare_session(session, scene, picks, classes)
        lows = thresholds("", [str(work / "picks")], list(classes))
        window = review_window(session, scene, parent=root, thresholds=lows).open()
        window.smoothed.set(1.0)
        screen.pump(window.top, 0.5)
        window.top.focus_force()
        for number in range(3 * window.sheet.columns):  # the first rows
            pick = window.review.now(number)
            truth = read_coordinates(work / f"{window.review.entries[number].tomogram}_truth.csv")
            near = np.linalg.norm(truth.positions_zyx_vox - pick.position_zyx_vox, axis=1).min() <= NEAR_VOX
            window.top.event_generate("<space>" if near else "<Key-x>")
            screen.pump(window.top, 0.02)
        for key in ("Right", "Right", "Shift-Right", "Shift-Right"):
            window.top.event_generate(f"<{key}>")
            screen.pump(window.top, 0.05)
        screen.picture(window.top, "review")
        window.close()


def annotate(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the window with the particles of the first labels."""
    with annotating(work, "annotate", screen, root) as window:
        for key in ("n", "n", "n"):
            window.top.event_generate(f"<Key-{key}>")
            screen.pump(window.top, 0.3)
        screen.picture(window.top, "annotate")


def find_more(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the window when it asks about a candidate, some answers on."""
    with annotating(work, "find_more", screen, root) as window:
        window.top.event_generate("<Key-f>")
        screen.pumpUntil(window.top, window.more.ranked, PATIENCE_S)
        screen.pump(window.top, 2.0)
        for key in ("space", "space", "space"):
            window.top.event_generate(f"<{key}>")
            screen.pump(window.top, 1.0)
        screen.picture(window.top, "find_more")
        window.top.event_generate("<Key-f>")
        screen.pump(window.top, 0.5)


@contextlib.contextmanager
def annotating(work: pathlib.Path, name: str, screen: Any, root: Any) -> Iterator[Any]:
    """Yield the window of *annotate* on a new session with the first labels, as somebody marked them."""
    from deepetpicker.annotation.records import Particle
    from deepetpicker.annotation.session import Session
    from deepetpicker.io.classes import read_classes
    from deepetpicker.io.coordinates import read_coordinates
    from deepetpicker.windows.inputs import find_tomograms, prepare_session
    from deepetpicker.windows.linked import annotate_window
    from deepetpicker.windows.scene import Scene

    shutil.rmtree(work / name, ignore_errors=True)
    scene, (classes, _) = Scene(find_tomograms([str(work / "tomograms")]), []), read_classes(work / "labels")
    with Session(work / name) as session:
        prepare_session(session, scene, {}, classes)
        for table in sorted((work / "labels").glob("*.csv")):
            labels = read_coordinates(table)
            for class_id, position in zip(labels.class_ids.tolist(), labels.positions_zyx_vox.tolist()):
                session.add(table.stem, Particle(tuple(position), class_id))
        window = annotate_window(session, scene, parent=root).open()
        window.top.focus_force()
        screen.pump(window.top, 0.5)  # keys are lost until it has the focus
        yield window
        window.close()


def picked(work: pathlib.Path) -> Any:
    """Return the scene of the picks, with their classes."""
    from deepetpicker.io.classes import read_classes
    from deepetpicker.windows.inputs import find_tomograms, read_tables
    from deepetpicker.windows.scene import Scene, make_layer

    files = find_tomograms([str(work / "tomograms")])
    tables, (classes, _) = read_tables(files, [str(work / "picks")]), read_classes(work / "picks")
    layers = []
    for number, one in enumerate(classes):
        mine = {name: table.select(table.class_ids == one.id) for name, table in tables.items()}
        layers.append(make_layer(number, one.name, one.diameter_ang,
                                 {name: [(table.positions_zyx_vox, table.scores)] for name, table in mine.items()}))
    return Scene(files, layers)


def picks(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the window with picks, with the buttons that it has in Scipion, at the second best one."""
    from deepetpicker.windows.picks import PicksWindow

    extras = [("Review these", list), ("Annotate from these", list)]
    window = PicksWindow("Picks", picked(work), root, extras=extras, page=str).open()
    window.top.focus_force()
    screen.pump(window.top, 0.5)
    for _ in range(2):
        window.top.event_generate("<Key-n>")
        screen.pump(window.top, 0.3)
    screen.picture(window.top, "viewer_picks")
    window.close()


def threshold(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the wizard of the score threshold, for which the plugin must be installed."""
    from deepetpicker_plugin.wizards.threshold import ThresholdWindow

    scene = picked(work)
    window = ThresholdWindow(scene, [0.7, 0.45], True, str, root).open()
    screen.pump(window.top, 0.5)
    screen.picture(window.top, "wizard_threshold")
    window.close()


def training(work: pathlib.Path, screen: Any, root: Any) -> None:
    """Picture the window of a refined model: curves, and the rounds below them."""
    from deepetpicker.report.rounds import rounds_of_file
    from deepetpicker.report.sources import TrainingRun, find_run
    from deepetpicker.windows.charts import TrainingWindow

    run = find_run([str(work / "refined.safetensors")])
    assert isinstance(run, TrainingRun)
    window = TrainingWindow("Training", lambda: run.rows, lambda: False, root, page=str,
                            rounds=lambda: rounds_of_file(run.model), partial=lambda: run.is_partial).open()
    screen.pump(window.top, 0.5)
    screen.picture(window.top, "viewer_training")
    window.close()


def page(work: pathlib.Path, place: str, out: pathlib.Path) -> None:
    """Picture the page of a training or of picks in Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("pictures of pages need a browser: install chromium or google-chrome")
    html = work / "page.html"
    before = os.getcwd()
    os.chdir(work)  # the page says where things lie as seen from here
    try:
        engine("report", place, "--out", str(html))
    finally:
        os.chdir(before)
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    f"--user-data-dir={work / 'profile'}", f"--window-size={PAGE_SIZE[0]},{PAGE_SIZE[1]}",
                    f"--screenshot={out}", html.absolute().as_uri()], check=True, capture_output=True, timeout=120)
    from PIL import Image

    with Image.open(out) as image:
        image.convert("RGB").quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    """Make the pictures that are asked for, all by default."""
    windows: Dict[str, Callable[[pathlib.Path, Any, Any], None]] = {
        "annotate.png": annotate, "find_more.png": find_more, "review.png": review, "viewer_training.png": training,
        "viewer_picks.png": picks, "wizard_threshold.png": threshold}
    pages = {"page_training.png": "refined.safetensors", "page_picks.png": "picks"}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME.png", help=f"of {', '.join((*windows, *pages))}")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "pictures")
    args = parser.parse_args()
    wanted = args.names or [*windows, *pages]
    args.work, args.out = args.work.resolve(), args.out.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    data(args.work)
    if any(name in windows for name in wanted):
        screen = hands()
        os.environ.update(DISPLAY=screen.startScreen(), **{screen.PICTURES: str(args.out)})
        from deepetpicker.windows.window import open_screen

        root = open_screen()
        for name in wanted:
            if name in windows:
                windows[name](args.work, screen, root)
        root.destroy()
    for name in wanted:
        if name in pages:
            page(args.work, pages[name], args.out / name)


if __name__ == "__main__":
    main()
