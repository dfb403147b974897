"""Score picks against known positions."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, List, Mapping, Sequence

from deepetpicker.config import EvaluateOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.io.classes import classes_to_json, parse_classes
from deepetpicker.terminal import printable, show

if TYPE_CHECKING:
    from deepetpicker.evaluation import EvaluationReport

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``evaluate`` to parser."""
    parser.add_argument("--truth", default="", metavar="DIR",
                        help="folder with the true particles, NAME.csv, and where known NAME.mrc, NAME_instances.mrc "
                        "and classes.json")
    parser.add_argument("--picks", default="", metavar="DIR", help="folder with the picks, NAME.csv")
    parser.add_argument("--out", default=None, metavar="DIR",
                        help="folder for report.html, slices_N.png, evaluation.json, curve.csv, reliability.csv and "
                        "manifest.json")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="the classes of the truth with their diameters in angstrom, such as "
                        "1:ribosome:250,2:proteasome:140; replaces classes.json")
    parser.add_argument("--class-map", default="", metavar="PICKS:TRUTH,...",
                        help="which class of the picks is which of the truth, by id or name, such as 1:0,2:1; default: "
                        "by name where both have classes.json with names, else by id")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    add_options(parser, EvaluateOptions)


def main(args: argparse.Namespace) -> int:
    """Evaluate; return 0 when every tomogram was evaluated, 1 when some failed."""
    from deepetpicker.report.run import evaluate

    params = read_params(args.params) if getattr(args, "params", None) else {}
    if args.classes:
        params["classes"] = classes_to_json(parse_classes(args.classes))
    if args.class_map:
        params["class_map"] = args.class_map
    report = evaluate(args.truth, args.picks, from_arguments(EvaluateOptions, args), args.out, params)
    if args.json:
        sys.stdout.write(json.dumps(report.to_dict(), allow_nan=False) + "\n")
    else:
        show(*report_text(report).rstrip("\n").split("\n"))
    if args.out:
        log.info("%s: report.html, slices_N.png, evaluation.json, curve.csv, reliability.csv, manifest.json", args.out)
    return 1 if report.failed else 0


def report_text(report: EvaluationReport) -> str:
    """Return the report as aligned tables for a terminal: localisation per tomogram, classes, best thresholds."""
    beta = f"F{report.overall['beta']:g}"
    head = ["particles", "picks", "TP", "FP", "FN", "precision", "recall", "F1", beta]
    rows = [[name, *_counts(row), *_ratios(row), _number(row["AD_vox"], 2), _number(row["AD_ang"], 1), row["rule"]]
            for name, row in report.per_tomogram.items()]
    total = report.overall
    rows.append(["all", *_counts(total), *_ratios(total), _number(total["AD_vox"], 2), _number(total["AD_ang"], 1), ""])
    parts = [aligned(["tomogram", *head, "AD [vox]", "AD [A]", "rule"], rows), _interval(report),
             report.hit_rule.replace("Å", "A"), ""]
    if report.per_class:
        rows = [[row["name"], *_counts(row), *_ratios(row), _number(row["average_precision"]),
                 _number(row["calibration_error"])] for row in report.per_class]
        parts += [aligned(["class", *head, "AP", "ECE"], rows),
                  f"macro F1 {_number(total['macro_F1'])}, average precision of all classes together "
                  f"{_number(total['average_precision'])}", ""]
    for metric, name in (("F1", "F1"), ("Fbeta", beta)):
        best = report.best_threshold[metric]
        if len(report.curve):
            parts.append(f"best threshold for {name}: {best['threshold']:.4g} ({name} {_number(best['value'])}, "
                         f"precision {_number(best['precision'])}, recall {_number(best['recall'])})")
    parts += [printable(f"failed: {name}: {reason}") for name, reason in report.failed.items()]
    return "\n".join(parts).rstrip("\n") + "\n"


def aligned(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table as text: the first column left, the others right, two blanks between."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * w for w in widths], *rows]:
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _counts(row: Mapping[str, Any]) -> List[str]:
    """Return particles, picks, TP, FP, FN as text."""
    tp, fp, fn = row["TP"], row["FP"], row["FN"]
    return [str(n) for n in (tp + fn, tp + fp, tp, fp, fn)]


def _ratios(row: Mapping[str, Any]) -> List[str]:
    """Return precision, recall, F1, Fbeta as text."""
    return [_number(row[name]) for name in ("precision", "recall", "F1", "Fbeta")]


def _number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed number of digits, a dash for NaN."""
    return "-" if value != value else f"{value:.{digits}f}"


def _interval(report: EvaluationReport) -> str:
    """Return the confidence intervals as a line."""
    ends = report.overall["confidence_95"]
    text = ", ".join(f"{n} {_number(ends[n][0])} to {_number(ends[n][1])}" for n in ("precision", "recall", "F1"))
    return f"95 % intervals (bootstrap over {report.overall['confidence_over']}): {text}"
