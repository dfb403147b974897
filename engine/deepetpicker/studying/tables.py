"""What the figure and the page of a study say."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any, Dict, List, Mapping, Sequence

from deepetpicker.config import StudyOptions
from deepetpicker.io.classes import ParticleClass
from deepetpicker.report.studies import Panel, StudyPage, StudyPoint
from deepetpicker.studying.data import StudyData
from deepetpicker.studying.results import Summary
from deepetpicker.studying.variants import Kind, Variant

LEGEND = ("Mean over the seeds, lowest and highest in brackets. Best F1: at the threshold that is best on the scored "
          "tomograms, which nobody knows beforehand. Seconds are of this machine and what else it did.")
CAPTION = "A small mark for each seed, a large one for their mean."


@dataclasses.dataclass(frozen=True, eq=False)
class Studied:
    """A study as far as it is.

    Attributes
    ----------
    name : str
        Kind of study.
    kind : Kind
        What it asks.
    variants : list of Variant
        All of them.
    data : StudyData
        What it works on.
    options : StudyOptions
        Budget and seeds.
    total : int
        Runs that there will be.
    summaries : list of Summary
        The variants that have a finished seed.
    warnings : list of str
        What failed.
    argv : list of str
        Command line.
    """

    name: str
    kind: Kind
    variants: List[Variant]
    data: StudyData
    options: StudyOptions
    total: int
    summaries: List[Summary]
    warnings: List[str]
    argv: List[str]

    @property
    def classes(self) -> Sequence[ParticleClass]:
        """The classes, where there are several."""
        return self.data.classes if len(self.data.classes) > 1 else ()


def points_of(found: Studied) -> List[StudyPoint]:
    """Return the variants of the figure."""
    names = {"F1": "F1", "macro F1": "macro_F1", "distance": "distance_vox", "training": "training_s",
             "picking": "picking_s"}
    return [StudyPoint(s.variant.title, s.variant.value, {label: s.values(name).tolist()
                                                          for label, name in names.items()}) for s in found.summaries]


def panels_of(found: Studied) -> List[Panel]:
    """Return the panels of the figure."""
    return [Panel("F1", ("F1", "macro F1") if found.classes else ("F1",), 1.02),
            Panel("distance to the true centre [voxels]", ("distance",)), Panel("seconds", ("training", "picking"))]


def page_of(found: Studied) -> StudyPage:
    """Return what the page says."""
    figures = [("F1", "F1", 3), *([("macro_F1", "macro F1", 3)] if found.classes else []),
               *((f"class {c.id}", f"F1 {c.name}", 3) for c in found.classes), ("best_F1", "best F1", 3),
               ("distance_vox", "distance [voxels]", 2), ("training_s", "training [s]", 0),
               ("picking_s", "picking [s]", 0), ("steps", "steps", 0)]
    rows = [[s.variant.title, *(s.text(name, digits) for name, _, digits in figures)] for s in found.summaries]
    records = [record for s in found.summaries for record in s.records]
    return StudyPage(
        title=f"Study: {found.name}", question=found.kind.question,
        state=f"{len(records)} of {found.total} runs are finished.",
        head=["variant", *(label for _, label, _ in figures)], rows=rows, legend=LEGEND, caption=CAPTION,
        conditions=conditions(found), findings=findings(found), warnings=found.warnings,
        run_head=["run", "seed", "labels", "their digest", "F1", "precision", "recall", "particles", "picks",
                  "megavoxels", "training [s]", "picking [s]", "CPU [s]"],
        run_rows=[_run_row(record) for record in records], command=shlex.join(found.argv))


def conditions(found: Studied) -> List[str]:
    """Return how the study was done, in sentences."""
    options = found.options
    budget = (f"Every training had {options.minutes:g} minutes by the clock; how many steps that made is in the table."
              if options.minutes else
              f"Every training saw {options.megavoxels:g} million voxels (steps x patches x their voxels; rounded to "
              "whole steps), whatever time that took.")
    hits = sorted({record["hit_rule"] for s in found.summaries for record in s.records})
    labels = ("the same labels, moved as the variant says." if any(v.shift for v in found.variants) else
              "labels from the same draw, as many as the variant says." if any(v.labels for v in found.variants) else
              "the same labels.")
    parts = [found.data.describe(), f"Within a seed all variants have {labels}",
             budget + " No training ended before.", found.kind.notes, *hits,
        f"Seeds {options.seed} to {options.seed + options.seeds - 1}: of labels, training and noise."]
    if options.quick:
        parts.append("This was a trial run (--quick): its figures mean nothing.")
    return [text for text in parts if text]


def findings(found: Studied) -> List[str]:
    """Return what came out, in sentences, as far as numbers alone say it."""
    known = [(float(s.values("F1").mean()), s) for s in found.summaries if len(s.values("F1"))]
    if len(known) < 2:
        return []
    best, first = max(known, key=lambda pair: pair[0])
    within = [s.variant.title for _, s in known if s is not first and s.values("F1").max() >= first.values("F1").min()]
    text = f"Highest mean F1: {first.variant.title}, {best:.3f}."
    if within:
        text += f" The spread of {', '.join(within)} reaches its own: the seeds do not tell them apart."
    return [text]


def _run_row(record: Mapping[str, Any]) -> List[str]:
    """Return one run as cells."""
    facts: Dict[str, Any] = dict(record)
    ratios = [_cell(facts.get(name), 3) for name in ("F1", "precision", "recall")]
    return [facts["title"], str(facts["seed"]), str(facts["n_labels"]), facts["labels_sha256"][:8], *ratios,
            str(facts["n_truth"]), str(facts["n_picks"]), _cell(facts.get("megavoxels"), 1),
            *(_cell(facts.get(name), 0) for name in ("training_s", "picking_s", "cpu_s"))]


def _cell(value: Any, digits: int) -> str:
    """Return a number as text; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"
