"""What came out of each variant with each seed: records that outlive a killed study, and tables made of them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.config import EvaluateOptions
from deepetpicker.evaluation import evaluate
from deepetpicker.io.atomic import write_text
from deepetpicker.io.jsonvalues import finite_json
from deepetpicker.studying.data import StudyData, evaluation_params
from deepetpicker.studying.variants import Variant

FIGURES = ("F1", "macro_F1", "precision", "recall", "best_F1", "average_precision", "distance_vox", "distance_ang")
COSTS = ("training_s", "picking_s", "cpu_s", "steps", "megavoxels")
NUMBER_FORMAT = "{:.6g}"


class Results:
    """The records of a study: a JSON file per variant and seed.

    Parameters
    ----------
    folder : path
        Where they are.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def find(self, name: str, made: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
        """Return the record of a task that was finished under the same conditions; None when there is none.

        Parameters
        ----------
        name : str
            Name of the task.
        made : mapping
            What decides its outcome.
        """
        try:
            record = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(record, dict) and record.get("made") == json.loads(json.dumps(made))
        return record if same else None

    def write(self, name: str, record: Mapping[str, Any]) -> Dict[str, Any]:
        """Write the record of a finished task, complete or not at all; return it as it will be read: NaN is None."""
        ready: Dict[str, Any] = finite_json(dict(record))
        write_text(self.folder / f"{name}.json", json.dumps(ready, indent=1, allow_nan=False) + "\n")
        return ready


def scores(data: StudyData, folder: pathlib.Path) -> Dict[str, Any]:
    """Return how good the picks in a folder are, by the same function as the command ``evaluate``.

    Parameters
    ----------
    data : StudyData
        Truth of the scored tomograms.
    folder : path
        NAME.csv: the picks; NAME_candidates.csv: those at any score, for the best threshold there is.
    """
    report = evaluate(options=EvaluateOptions(), params=evaluation_params(data, folder))
    everything = evaluate(options=EvaluateOptions(), params=evaluation_params(data, folder, "_candidates"))
    total = report.overall
    classes = [{name: row[name] for name in ("id", "name", "F1", "precision", "recall")} for row in report.per_class]
    return {**{name: total[name] for name in ("F1", "macro_F1", "precision", "recall")},
            "best_F1": everything.best_threshold["F1"]["value"] if len(everything.curve) else float("nan"),
            "average_precision": everything.overall["average_precision"], "distance_vox": total["AD_vox"],
            "distance_ang": total["AD_ang"], "n_truth": total["n_truth"], "n_picks": total["n_picks"],
            "classes": classes, "hit_rule": report.hit_rule}


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a row per variant and seed as CSV text; what is not known is empty.

    Parameters
    ----------
    records : sequence of mapping
        In the order of the rows.
    """
    classes = sorted({(c["id"], c["name"]) for record in records for c in record["classes"]})
    head = ["variant", "title", "seed", *FIGURES, *(f"F1_{name}" for _, name in classes), *COSTS, "n_labels",
            "labels_sha256", "n_truth", "n_picks", "verdict"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for record in records:
        of_class = {f"F1_{c['name']}": c["F1"] for c in record["classes"]}
        writer.writerow([_cell({**record, **of_class}.get(name)) for name in head])
    return stream.getvalue()


def _cell(value: Any) -> str:
    """Return a value as the text of a cell."""
    return "" if value is None else NUMBER_FORMAT.format(value) if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Summary:
    """One variant over all seeds that are finished.

    Attributes
    ----------
    variant : Variant
        Which.
    records : tuple of mapping
        Its records.
    """

    variant: Variant
    records: Tuple[Mapping[str, Any], ...]

    def values(self, name: str) -> np.ndarray:
        """Return a figure of every seed where it is known, (N,): a member of the records, or ``class ID``."""
        found = [self._value(record, name) for record in self.records]
        return np.array([v for v in found if v is not None and v == v], float)

    @staticmethod
    def _value(record: Mapping[str, Any], name: str) -> Optional[float]:
        """Return a figure of a record."""
        if name.startswith("class "):
            return next((c["F1"] for c in record["classes"] if f"class {c['id']}" == name), None)
        return record.get(name)

    def text(self, name: str, digits: int = 3) -> str:
        """Return mean and spread of a figure: ``0.912 (0.901 to 0.921)``; a dash when it is not known."""
        values = self.values(name)
        if not len(values):
            return "-"
        mean = f"{values.mean():.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def summaries(variants: Sequence[Variant], records: Sequence[Mapping[str, Any]]) -> List[Summary]:
    """Return the variants that have a finished seed, with their records, in order."""
    grouped = [Summary(v, tuple(r for r in records if r["variant"] == v.name)) for v in variants]
    return [one for one in grouped if one.records]
