"""Picks against truth: hit rules, metrics, curves over the score threshold, set operations, the command ``evaluate``."""

from __future__ import annotations

from deepetpicker.evaluation.matching import Comparison, Match, compare, match_by_distance, match_by_mask

__all__ = ["Comparison", "Match", "compare", "match_by_distance", "match_by_mask"]
