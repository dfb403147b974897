"""The loop with a simulated annotator: F1 on other tomograms against the number of answers.

``python benchmarks/loop.py DATA --classes 1:4v94:280 --voxel-size 10 --out DIR`` takes a data folder as for ``train``;
the last tomogram (``--test N``: the last N) is scored, all others are annotated. Ways to spend the same number of
answers, shared out evenly among the classes:

* ``similar``: three clicks of each class in the first tomogram, then *find more like these* as the window asks: the
  first of its list, until the answers are spent. A candidate within half a diameter of a particle (``--seen``) makes
  the annotator click that particle's centre, as the class that it is; any other becomes a place without a particle.
* ``random``: clicks on particles drawn at random from all annotated tomograms.
* ``all``: every particle, once, for comparison.

Clicks are ``--hand`` voxels off along each axis, a standard deviation. Then ``train`` for ``--minutes``, or for
``--epochs`` (the same whatever else the machine does), ``pick`` and ``evaluate`` with defaults. Each figure is a file
in DIR/figures: a run that was interrupted goes on, and the table is made from all that are there.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from corrections import known

from deepetpicker.annotation.records import AnnotatedTomogram, Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.similar import Similar
from deepetpicker.annotation.versions import save_version
from deepetpicker.config import EvaluateOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation.run import evaluate
from deepetpicker.io.atomic import write_text
from deepetpicker.io.classes import ParticleClass, parse_classes
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.items import DataItem, items_from_folder
from deepetpicker.io.volumes import open_volume
from deepetpicker.picking.run import pick
from deepetpicker.training.run import train

FIRST = 3  # clicks before anything can be ranked
WAYS, PATIENCE_S = ("similar", "random", "all"), 3600


class Annotator:
    """Knows the truth, and clicks a little beside it.

    Parameters
    ----------
    items : sequence of DataItem
        The tomograms to annotate.
    classes : sequence of ParticleClass
        What is looked for.
    args : Namespace
        Voxel size, how far a hand is off, and how far off its centre a particle is seen.
    seed : int
        Of the order and the hand.
    """

    def __init__(self, items: Sequence[DataItem], classes: Sequence[ParticleClass], args: argparse.Namespace,
                 seed: int) -> None:
        self.items, self.classes, self.hand, self.seen = items, classes, args.hand, args.seen
        self.truth: Dict[str, CoordinateTable] = {}
        self.voxel: Dict[str, float] = {}
        for item in items:
            self.truth[item.name], self.voxel[item.name] = known(item, args.voxel_size)
        self.rng = np.random.default_rng(seed)

    def click(self, session: Session, name: str, row: int) -> None:
        """Mark a particle of the truth."""
        table = self.truth[name]
        z, y, x = (table.positions_zyx_vox[row] + self.rng.normal(0, self.hand, 3)).tolist()
        session.add(name, Particle((z, y, x), int(table.class_ids[row])))

    def rows_of(self, class_id: int, names: Sequence[str]) -> List[Tuple[str, int]]:
        """Return the particles of a class in tomograms, in random order, as name and row."""
        found = [(name, int(row)) for name in names for row in np.flatnonzero(self.truth[name].class_ids == class_id)]
        return [found[k] for k in self.rng.permutation(len(found))]

    def answer(self, session: Session, name: str, position_zyx_vox: Sequence[float]) -> None:
        """Accept a candidate as the particle that it is, or refuse it."""
        table = self.truth[name]
        away = np.linalg.norm(table.positions_zyx_vox - position_zyx_vox, axis=1)
        reach = {c.id: self.seen * c.diameter_ang / self.voxel[name] for c in self.classes}
        hits = [k for k in np.argsort(away) if away[k] <= reach.get(int(table.class_ids[k]), 0)]
        if hits:
            self.click(session, name, int(hits[0]))
        else:
            z, y, x = position_zyx_vox
            session.add(name, Negative((z, y, x)))

    def begin(self, session: Session) -> None:
        """Let a session know tomograms and classes."""
        session.set_tomograms([AnnotatedTomogram(i.name, str(pathlib.Path(i.tomogram).absolute()), self.voxel[i.name],
                                                 open_volume(i.tomogram, self.voxel[i.name], i.name,
                                                             quiet=True).shape_zyx) for i in self.items])
        session.set_classes(self.classes)


class Few(NamedTuple):
    """A version of an annotation, and what it took."""

    folder: str
    particles: int
    negatives: int
    seconds: float


def labels(way: str, counts: Sequence[int], annotator: Annotator, folder: pathlib.Path) -> Iterator[Tuple[int, Few]]:
    """Yield, for each number of answers, ascending, the annotation that they make."""
    start, names, done = time.process_time(), [item.name for item in annotator.items], 0
    with Session(folder) as session:
        annotator.begin(session)
        similar = Similar(session)
        try:
            queues = {c.id: annotator.rows_of(c.id, names[:1] if way == "similar" else names)
                      for c in annotator.classes}
            for n in counts:
                while done < n and (way == "similar" or any(queues.values())):
                    one = annotator.classes[done % len(annotator.classes)]
                    if way == "similar" and done >= FIRST * len(annotator.classes):
                        ask(annotator, session, similar, one)
                    elif queues[one.id]:
                        annotator.click(session, *queues[one.id].pop(0))
                    done += 1
                version = save_version(session)
                if version is None:
                    raise InputError(f"{folder} has annotations of an earlier run that was interrupted: remove it")
                particles, negatives = (sum(len(getattr(session, what)(name)) for name in names)
                                        for what in ("particles", "negatives"))
                yield n, Few(str(version), particles, negatives, time.process_time() - start)
        finally:
            similar.close()


def ask(annotator: Annotator, session: Session, similar: Similar, one: ParticleClass) -> None:
    """Answer what *find more like these* asks first about a class."""
    similar.begin(one.id)
    end = time.monotonic() + PATIENCE_S
    while not (similar.is_complete and similar.ranked()):
        similar.poll()
        if similar.problem or time.monotonic() > end:
            raise InputError(f"no candidates of {one.name}: {similar.problem or 'waited in vain'}")
        time.sleep(0.1)
    first = similar.ranked()[0]
    annotator.answer(session, first.tomogram, first.position_zyx_vox)


def figure(data: str, way: str, args: argparse.Namespace, classes: Sequence[ParticleClass],
           work: pathlib.Path) -> Dict[str, Any]:
    """Train on a data folder, pick the held-out tomograms, and return how well."""
    options = TrainOptions(unannotated="background" if way == "all" else "unknown", minutes=args.minutes,
                           epochs=args.epochs, seed=args.seed)
    params = json.loads(pathlib.Path(data, "params.json").read_text("utf-8"))
    start = time.process_time()
    manifest = train("", work / "model.safetensors", options, params=params, quiet=True)
    trained = time.process_time() - start
    items = items_from_folder(args.data)[-args.test:]
    pick(str(work / "model.safetensors"), [], work / "picks", quiet=True, params={"items": [
        {"name": i.name, "tomogram": i.tomogram, "voxel_size": args.voxel_size} for i in items]})
    wanted = {c.id for c in classes}
    scored = []
    for item in items:
        truth, voxel = known(item, args.voxel_size)
        path = work / f"{item.name}_truth.csv"
        rows = truth.select(np.isin(truth.class_ids, list(wanted)))
        write_text(path, "class,x,y,z\n" + "".join(f"{c},{x},{y},{z}\n" for c, (z, y, x) in
                                                   zip(rows.class_ids, rows.positions_zyx_vox.tolist())))
        scored.append({"name": item.name, "truth": str(path), "picks": str(work / "picks" / f"{item.name}.csv"),
                       "tomogram": item.tomogram, "voxel_size": voxel})
    total = evaluate(options=EvaluateOptions(rule="distance"), params={"items": scored, "classes": [
        {"id": c.id, "name": c.name, "diameter_angstrom": c.diameter_ang} for c in classes]}).overall
    return {**{key: round(float(total[key]), 4) for key in ("F1", "precision", "recall")},
            "train_cpu_s": round(trained), "epochs": manifest["outputs"]["epochs"]}


def table(folder: pathlib.Path) -> str:
    """Return all figures of a folder as lines, means over the seeds."""
    rows: Dict[Tuple[int, str], List[Dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text("utf-8"))
        rows.setdefault((one["answers"], one["way"]), []).append(one)
    whole = [one["F1"] for (_, way), some in rows.items() for one in some if way == "all"]
    lines = []
    for (n, way), some in sorted(rows.items()):
        f1 = float(np.mean([one["F1"] for one in some]))
        share = f", {f1 / np.mean(whole):.2f} of that with all labels" if whole and np.mean(whole) else ""
        lines.append(f"{way:8s} {n:4d} answers ({some[0]['particles']} particles, {some[0]['negatives']} without one): "
                     f"F1 {f1:.3f} (lowest {min(one['F1'] for one in some):.3f}, {len(some)} seeds){share}, training "
                     f"{np.mean([one['train_cpu_s'] for one in some]):.0f} CPU s")
    return "\n".join(lines)


def main() -> None:
    """Make the figures that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--classes", required=True, metavar="ID:NAME:D[,...]")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--voxel-size", type=float, default=0.0)
    parser.add_argument("--answers", default="5,10,20,30")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", type=int, default=1)
    parser.add_argument("--hand", type=float, default=1.0)
    parser.add_argument("--seen", type=float, default=0.5,
                        help="diameters off a centre within which a candidate is seen to lie on the particle")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--epochs", type=int, default=0)
    args = parser.parse_args()
    classes, items = parse_classes(args.classes), items_from_folder(args.data)[:-args.test]
    figures = args.out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    if args.epochs:
        args.minutes = 0.0
    for seed in range(args.seeds):
        args.seed = seed
        for way in args.ways.split(","):
            counts = [10 ** 9] if way == "all" else sorted(map(int, args.answers.split(",")))
            annotator = Annotator(items, classes, args, args.seed)
            paths = {n: figures / f"{way}_{n if way != 'all' else 'labels'}_seed{args.seed}.json" for n in counts}
            if all(path.exists() for path in paths.values()):
                continue
            for n, few in labels(way, counts, annotator, fresh(args.out / "annotations" / f"{way}_seed{args.seed}")):
                if not paths[n].exists():
                    got = figure(few.folder, way, args, classes, args.out / "work" / paths[n].stem)
                    one = {"way": way, "answers": few.particles if way == "all" else n, "seed": args.seed,
                           **few._asdict(), **got}
                    write_text(paths[n], json.dumps(one, indent=1) + "\n")
                    print(json.dumps(one), flush=True)
    print(table(figures))


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """Return a folder beside those of earlier runs: the same seed makes the same annotation again, in seconds."""
    number = sum(1 for _ in folder.parent.glob(f"{folder.name}_run*")) if folder.parent.is_dir() else 0
    return folder.with_name(f"{folder.name}_run{number + 1}")


if __name__ == "__main__":
    main()
