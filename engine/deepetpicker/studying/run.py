"""The command ``study``: every variant with every seed, what was finished before left as it is."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shutil
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

from deepetpicker import __version__
from deepetpicker.config import StudyOptions, suggestion
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.atomic import atomic_output, write_text
from deepetpicker.io.manifest import Manifest
from deepetpicker.report.studies import study_figure, write_page
from deepetpicker.studying.data import StudyData, digest, drawn_labels, open_data, shifted, with_noise
from deepetpicker.studying.methods import Picked, Task, by_network
from deepetpicker.studying.peers import by_blobs, by_clusters, by_template
from deepetpicker.studying.results import Results, as_csv, scores, summaries
from deepetpicker.studying.tables import Studied, page_of, panels_of, points_of
from deepetpicker.studying.variants import BLOBS, CLUSTERS, KINDS, NETWORK, TEMPLATE, Facts, Variant

log = logging.getLogger(__name__)
PathLike = Union[str, pathlib.Path]

FIGURE_DPI = 150
METHODS: Dict[str, Callable[[Task], Picked]] = {NETWORK: by_network, BLOBS: by_blobs, TEMPLATE: by_template,
                                                CLUSTERS: by_clusters}
USUAL, QUICK = (3, 30.0), (1, 0.2)  # seeds and million voxels of a training where nothing is said
NOT_COMPARED = ("seeds", "seed", "values", "device")  # a finished variant stays finished when these change


def study(kind: str, out: PathLike, data: PathLike = "", options: StudyOptions = StudyOptions(),
          quiet: bool = False, params: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Compare the variants of a kind of study, each trained, picked and evaluated as the commands do.

    A variant that is finished with a seed is never computed again; a study that was interrupted goes on, a training in
    the middle of it included.

    Parameters
    ----------
    kind : str
        What to compare; one of ``variants.KINDS``.
    out : path
        Folder for study.csv, study.png, study.html and manifest.json, all of them replaced after each variant, and for
        labels, models, picks and a record of each variant in results/.
    data : path
        Folder of tomograms with tables of all their particles; empty simulates some.
    options : StudyOptions
        Seeds, budget, labels.
    quiet : bool
        True shows no progress.
    params : mapping, optional
        Content of a params.json with ``items`` and ``classes`` instead of the folder.

    Returns
    -------
    dict
        The manifest; an item per variant and seed.

    Raises
    ------
    InputError
        For bad options or data.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}{suggestion(kind, list(KINDS))}")
    folder, options = pathlib.Path(out), completed(options)
    run = _Study(kind, folder, options, open_data(data, folder / "data", options, params, quiet))
    todo = run.unfinished(quiet)
    run.write()
    for task in todo:
        run.do(task)
        run.write()
    return run.manifest.to_dict()


def completed(options: StudyOptions) -> StudyOptions:
    """Return the options with what they leave open."""
    seeds, megavoxels = QUICK if options.quick else USUAL
    return dataclasses.replace(options, seeds=options.seeds or seeds, megavoxels=options.megavoxels or megavoxels)


class _Study:
    """A study under way: what is finished and what is written of it."""

    def __init__(self, name: str, folder: pathlib.Path, options: StudyOptions, data: StudyData) -> None:
        self.name, self.kind, self.folder, self.options, self.data = name, KINDS[name], folder, options, data
        if 0 < options.labels < len(data.classes):
            raise InputError(f"labels must give each of {len(data.classes)} classes one, got {options.labels}")
        self.variants = self.kind.make(options.values, Facts(
            min(options.labels or data.n_labels, data.n_labels), len(data.classes),
            min(c.diameter_ang for c in data.classes) / data.voxel_size_ang))
        self.manifest = Manifest("study", {"kind": name, **options.to_dict()}, seed=options.seed)
        for one in (*data.labelled, *data.scored):
            self.manifest.add_input(one.volume)
        self.results = Results(folder / "results")
        self.records: Dict[str, Optional[Dict[str, Any]]] = {}  # of each task in order, None until it is finished
        self.failed: Dict[str, str] = {}
        classes = [dataclasses.asdict(c) for c in data.classes]
        chosen = {k: v for k, v in options.to_dict().items() if k not in NOT_COMPARED}
        self.conditions = {"kind": name, "version": __version__, "data": data.fingerprint(), "classes": classes,
                           **chosen}

    def unfinished(self, quiet: bool) -> List[Task]:
        """Return what is to be computed, all variants of a seed before the next; records of the rest are read."""
        first, has_draw = self.options.seed, 0 < self.options.labels < self.data.n_labels
        tasks = [self._task(variant, seed, quiet) for seed in range(first, first + self.options.seeds)
                 for variant in self.variants if seed == first or has_draw or not variant.is_untrained]
        self.records = {task.name: self.results.find(task.name, self._made(task)) for task in tasks}
        finished = [name for name, record in self.records.items() if record is not None]
        if finished:
            log.info("%s: %d of %d runs were finished before: %s", self.name, len(finished), len(tasks),
                     ", ".join(finished))
        return [task for task in tasks if self.records[task.name] is None]

    def _task(self, variant: Variant, seed: int, quiet: bool) -> Task:
        """Return a variant with a seed and its labels."""
        labels = drawn_labels(self.data, variant.labels or self.options.labels, seed)
        if variant.shift:
            labels = shifted(self.data, labels, variant.shift, seed)
        return Task(variant, seed, self.data, labels, self.options, self.folder, quiet)

    def _made(self, task: Task) -> Dict[str, Any]:
        """Return what decides the outcome of a task."""
        variant = {**dataclasses.asdict(task.variant), "value": None}  # NaN is not equal to itself
        return {**self.conditions, "variant": variant, "seed": task.seed, "labels": digest(task.labels)}

    def do(self, task: Task) -> None:
        """Compute a variant with a seed, or note why that failed."""
        log.info("%s: %s, seed %d", self.name, task.variant.title, task.seed)
        try:
            self.records[task.name] = self._compute(task, self._made(task))
        except DeepETPickerError as error:
            log.error("%s: %s", task.name, error)
            self.manifest.warn(f"{task.variant.title}, seed {task.seed}, failed: {error}")
            self.failed[task.name] = str(error)

    def _compute(self, task: Task, made: Mapping[str, Any]) -> Dict[str, Any]:
        """Do a task and write its record."""
        start, busy = time.monotonic(), time.process_time()
        scratch = self.folder / "noisy" / task.name
        if task.variant.noise:
            task = dataclasses.replace(task, data=with_noise(task.data, task.variant.noise, task.seed, scratch))
        picked = METHODS[task.variant.method](task)
        record = self.results.write(task.name, {
            "variant": task.variant.name, "title": task.variant.title, "seed": task.seed,
            "n_labels": sum(map(len, task.labels.values())), "labels_sha256": digest(task.labels),
            **scores(self.data, picked.folder), **picked.facts, "cpu_s": round(time.process_time() - busy, 2),
            "seconds": round(time.monotonic() - start, 2), "made": made})
        shutil.rmtree(scratch, ignore_errors=True)
        log.info("%s: F1 %s, training %.0f s, picking %.0f s", task.name, "not known" if record["F1"] is None else
                 f"{record['F1']:.3f}", record["training_s"], record["picking_s"])
        return record

    def write(self) -> None:
        """Write table, figure, page and manifest of what there is."""
        records = [record for record in self.records.values() if record is not None]
        found = Studied(self.name, self.kind, self.variants, self.data, self.options, len(self.records),
                        summaries(self.variants, records), self.manifest.warnings, self.manifest.to_dict()["argv"])
        paths = {what: self.folder / f"study.{what}" for what in ("csv", "png", "html")}
        if records:
            write_text(paths["csv"], as_csv(records))
            figure = study_figure(points_of(found), panels_of(found), self.kind.axis)
            with atomic_output(paths["png"]) as temporary:
                figure.savefig(temporary, dpi=FIGURE_DPI, format="png")
            write_page(page_of(found), figure, paths["html"])
            self.manifest.outputs.update({what: str(path) for what, path in paths.items()})
        self.manifest.items = []
        for name, record in self.records.items():
            if record is not None:
                self.manifest.add_item(name, "done", seconds=record["seconds"], F1=record["F1"],
                                       macro_F1=record["macro_F1"])
            elif name in self.failed:
                self.manifest.add_item(name, "failed", self.failed[name])
        self.manifest.write(self.folder / "manifest.json")
