"""Picks against truth: hit rules, metrics, curves over the score threshold, set operations, ``evaluate``."""

from __future__ import annotations

from deepetpicker.evaluation.curves import ScoreCurve, curves
from deepetpicker.evaluation.matching import (
                                              Candidates,
                                              Comparison,
                                              Match,
                                              compare,
                                              distance_candidates,
                                              mask_candidates,
                                              match_by_distance,
                                              match_by_mask,
)
from deepetpicker.evaluation.measures import bootstrap_intervals, confusion_matrix, localisation_metrics
from deepetpicker.evaluation.pairing import EvaluationItem
from deepetpicker.evaluation.results import EvaluationReport, TomogramResult
from deepetpicker.evaluation.run import evaluate

__all__ = ["Candidates", "Comparison", "EvaluationItem", "EvaluationReport", "Match", "ScoreCurve", "TomogramResult",
           "bootstrap_intervals", "compare", "confusion_matrix", "curves", "distance_candidates", "evaluate",
           "localisation_metrics", "mask_candidates", "match_by_distance", "match_by_mask"]
