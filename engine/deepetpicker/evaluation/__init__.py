"""Picks against truth: hit rules, metrics, curves over the score threshold, set operations, ``evaluate``."""

from __future__ import annotations

from deepetpicker.evaluation.comparison import compare
from deepetpicker.evaluation.curves import ScoreCurve, curve_of, hits_of
from deepetpicker.evaluation.matching import (
    Candidates,
    Match,
    distance_candidates,
    mask_candidates,
    match_by_distance,
    take_best_scores,
)
from deepetpicker.evaluation.measures import bootstrap_intervals, confusion_matrix, localisation_metrics
from deepetpicker.evaluation.pairing import EvaluationItem
from deepetpicker.evaluation.results import EvaluationReport, TomogramResult
from deepetpicker.evaluation.run import evaluate

__all__ = ["Candidates", "EvaluationItem", "EvaluationReport", "Match", "ScoreCurve", "TomogramResult",
           "bootstrap_intervals", "compare", "confusion_matrix", "curve_of", "distance_candidates", "evaluate",
           "hits_of", "localisation_metrics", "mask_candidates", "match_by_distance", "take_best_scores"]
