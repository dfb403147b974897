"""What an evaluation found, and how it is written as JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from deepetpicker.evaluation.curves import ScoreCurve
from deepetpicker.evaluation.matching import Candidates, Match
from deepetpicker.evaluation.measures import distance_histogram, z_profile
from deepetpicker.evaluation.reliability import Reliability, reliability_csv
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.jsonvalues import finite_json
from deepetpicker.io.manifest import Manifest

CURVE_POINTS = 201


@dataclasses.dataclass(frozen=True, eq=False)
class TomogramResult:
    """One tomogram's picks against its truth.

    Parameters
    ----------
    name : str
        Name of the tomogram.
    rule : str
        ``"mask"`` or ``"distance"``: the hit rule that was used.
    truth, picks : CoordinateTable
        What was matched: the picks at or above the threshold, nothing within the margin; (N,) and (M,) rows.
    match : Match
        Pairs of the two.
    scored : CoordinateTable
        Picks at any score, for the curves, (K,) rows.
    candidates : Candidates
        Allowed pairs of ``truth`` and ``scored``.
    adds_hit : (K,) bool
        Whether each of ``scored`` adds a hit when they are taken best score first.
    tomogram : str
        Path of the tomogram, empty when unknown.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.
    shape_zyx : (3,) tuple of int, optional
        Shape of the tomogram in voxels.
    n_hollow : int
        Mask rule: true particles whose centre lies outside their own mask.
    seen : str
        What it was to the model that picked: ``"training"`` or ``"validation"``; empty when neither or unknown.
    """

    name: str
    rule: str
    truth: CoordinateTable
    picks: CoordinateTable
    match: Match
    scored: CoordinateTable
    candidates: Candidates
    adds_hit: np.ndarray
    tomogram: str = ""
    voxel_size_ang: float = 0.0
    shape_zyx: Optional[Tuple[int, int, int]] = None
    n_hollow: int = 0
    seen: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Everything ``evaluate`` found.

    Parameters
    ----------
    overall : dict
        Localisation over all tomograms, macro F1, average precision and confidence intervals.
    per_tomogram : dict of str to dict
        Localisation of each tomogram by name, with ``rule`` and, where it is known, ``seen``.
    per_class : tuple of dict
        Classification of each class: ``id``, ``name``, counts, ratios, ``average_precision``, ``best_threshold``,
        ``calibration_error`` (of the scores read as probabilities).
    confusion : (C + 1, C + 1) int64
        Rows: true class, last background; columns: picked class, last missed.
    class_ids : tuple of int
        Classes in the order of the confusion matrix.
    class_names : dict of int to str
        Name of each class.
    diameters_ang : dict of int to float
        Diameter of the classes for which it is known, in angstrom.
    curve : ScoreCurve
        All tomograms and classes together.
    best_threshold : dict of str to dict
        For ``F1`` and ``Fbeta`` what :meth:`ScoreCurve.best` says.
    tomograms : tuple of TomogramResult
        Tables and matches, for pictures.
    options : dict
        Options in force.
    warnings : tuple of str
        What the user should know.
    failed : dict of str to str
        Tomograms that could not be evaluated, with the reason.
    manifest : Manifest
        The record of the run.
    reliability : dict of str to Reliability
        By name of the class, how often its picks of a score are right.
    """

    overall: Dict[str, Any]
    per_tomogram: Dict[str, Dict[str, Any]]
    per_class: Tuple[Dict[str, Any], ...]
    confusion: np.ndarray
    class_ids: Tuple[int, ...]
    class_names: Dict[int, str]
    diameters_ang: Dict[int, float]
    curve: ScoreCurve
    best_threshold: Dict[str, Dict[str, float]]
    tomograms: Tuple[TomogramResult, ...]
    options: Dict[str, Any]
    warnings: Tuple[str, ...] = ()
    failed: Dict[str, str] = dataclasses.field(default_factory=dict)
    manifest: Manifest = dataclasses.field(default_factory=lambda: Manifest("evaluate", {}))
    reliability: Dict[str, Reliability] = dataclasses.field(default_factory=dict)

    @property
    def hit_rule(self) -> str:
        """One sentence that says which picks are hits, with the radius in angstrom where distance decides."""
        radius = float(self.options.get("radius_angstrom") or 0.0)
        radii = {self.class_names[c]: radius or self.diameters_ang[c] / 2
                 for c in self.class_ids if radius or c in self.diameters_ang}
        distance = "within half the diameter of the centre: " + ", ".join(f"{n} {r:g} Å" for n, r in radii.items())
        if len(set(radii.values())) == 1:
            why = "" if radius else ", half the diameter"
            distance = f"within {next(iter(radii.values())):g} Å of the centre{why}"
        rules = {t.rule for t in self.tomograms}
        texts = [text for rule, text in (("mask", "inside the particle's instance mask"), ("distance", distance))
                 if rule in rules]
        return f"A hit lies {', where there is one, else '.join(texts)}."

    @property
    def distances_vox(self) -> np.ndarray:
        """Distances of all hits to the true centres, (M,) in voxels."""
        return np.concatenate([np.zeros(0), *(t.match.distances_vox for t in self.tomograms)])

    def z_profile(self) -> Dict[str, np.ndarray]:
        """Return truth, picks and hits of all tomograms over depth in voxels, as in ``measures.z_profile``."""
        nothing = np.zeros(0)
        truth = np.concatenate([nothing, *(t.truth.positions_zyx_vox[:, 0] for t in self.tomograms)])
        picks = np.concatenate([nothing, *(t.picks.positions_zyx_vox[:, 0] for t in self.tomograms)])
        hits = np.concatenate([nothing.astype(bool), *(t.match.is_hit for t in self.tomograms)])
        depths = [t.shape_zyx[0] for t in self.tomograms if t.shape_zyx]
        return z_profile(truth, picks, hits, float(max(depths)) if depths else None)

    def to_dict(self) -> Dict[str, Any]:
        """Return the report as JSON-ready values: NaN becomes null, the curve is thinned to about 200 points."""
        labels = [self.class_names[c] for c in self.class_ids]
        distances = distance_histogram(self.distances_vox)
        content = {
            "overall": self.overall, "hit_rule": self.hit_rule, "per_tomogram": self.per_tomogram,
            "per_class": list(self.per_class),
            "confusion": {"rows": [*labels, "background"], "columns": [*labels, "missed"],
                          "counts": self.confusion.tolist()},
            "best_threshold": self.best_threshold, "average_precision": self.curve.average_precision,
            "curve": _columns(self.curve.rows(CURVE_POINTS)),
            "reliability": {name: one.to_dict() for name, one in self.reliability.items()},
            "distance_histogram": {name: values.tolist() for name, values in distances.items()},
            "z_profile": {name: values.tolist() for name, values in self.z_profile().items()},
            "options": self.options, "warnings": list(self.warnings), "failed": self.failed}
        ready: Dict[str, Any] = finite_json(content)
        return ready

    def curve_csv(self) -> str:
        """Return the whole curve as CSV text: a row per distinct score, highest first; undefined values are empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["threshold", "TP", "FP", "FN", "precision", "recall", "F1", "Fbeta"])
        for row in self.curve.rows():
            writer.writerow(["" if isinstance(v, float) and np.isnan(v) else v for v in row.values()])
        return stream.getvalue()

    def reliability_csv(self) -> str:
        """Return the bins of the scores of each class as CSV text."""
        return reliability_csv(self.reliability)


def _columns(rows: List[Dict[str, float]]) -> Dict[str, List[float]]:
    """Return a list of rows as a dict of columns."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
