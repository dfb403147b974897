"""What the epochs of a training say, for the summaries of protocols and for windows."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from deepetpicker.io.modelcard import RECALL_COUNTS


def keptLines(rows: List[Dict[str, str]], outputs: Dict[str, Any]) -> List[str]:
    """Return which epoch is kept and how well its picks fit the validation part, each class by itself.

    Parameters
    ----------
    rows : list of dict
        The rows of metrics.csv so far.
    outputs : dict
        Of the manifest; empty as long as the training runs.
    """
    kept = [row for row in rows if row.get("kept") == "1"]
    if not kept:
        return []
    partial = RECALL_COUNTS in (outputs.get("verdict") or {}).get("text", "")  # most false picks are right then
    f1 = "" if partial or not kept[-1]["pick_f1"] else (
        f", F1 of its picks on the validation part *{float(kept[-1]['pick_f1']):.3f}*")
    by = {"voxels": " (chosen by voxels, not by picks)",
          "last": " (the last one: picks cannot choose)"}.get(outputs.get("chosen_by", ""), "")
    lines = [f"{'Kept epoch' if 'kept_epoch' in outputs else 'Best epoch so far'}: *{kept[-1]['epoch']}*{by}{f1}"]
    for one in (each for each in outputs.get("classes", []) if each["n_true"]):
        known = "" if partial else f"F1 {one['f1']:.2f}, precision {one['precision']:.2f}, "
        lines.append(f"Class {one['class_id']} ({one['name']}): {known}recall {one['recall']:.2f} on "
                     f"{one['n_true']} particles, threshold {one['threshold']:.2f}")
    if outputs.get("found"):
        lines.append(f"Labels that a first training found: *{sum(outputs['found'].values())}* "
                     "(of the rest of the particles, which were not annotated)")
    return lines


def readRows(path: str) -> List[Dict[str, str]]:
    """Return the rows of a CSV with a header as text; none when it is missing or still without a header."""
    import csv

    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values()]
