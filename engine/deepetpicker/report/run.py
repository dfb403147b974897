"""The command ``evaluate``: the score of picks, and the page and pictures that show it."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Optional, Union

from deepetpicker import evaluation
from deepetpicker.config import EvaluateOptions
from deepetpicker.evaluation.results import EvaluationReport
from deepetpicker.evaluation.run import Params
from deepetpicker.io.atomic import write_text
from deepetpicker.report.page import write_report, write_slices

PathLike = Union[str, "os.PathLike[str]"]


def evaluate(truth: PathLike = "", picks: PathLike = "", options: Optional[EvaluateOptions] = None,
             out: Optional[PathLike] = None, params: Params = None) -> EvaluationReport:
    """Score picks against known positions and, where asked to, write what came out.

    Parameters
    ----------
    truth, picks, options, params
        See :func:`deepetpicker.evaluation.evaluate`.
    out : path, optional
        Folder for report.html, evaluation.json, curve.csv and manifest.json.

    Returns
    -------
    EvaluationReport
        A tomogram whose files cannot be used is in ``failed``; the others are evaluated.

    Raises
    ------
    InputError
        If nothing can be evaluated.
    OutputError
        If ``out`` cannot be written.
    """
    report = evaluation.evaluate(truth, picks, options, params)
    if out is not None:
        write_results(report, out)
    return report


def write_results(report: EvaluationReport, out: PathLike) -> None:
    """Write report.html, slices_N.png, evaluation.json, curve.csv and manifest.json into a folder.

    Parameters
    ----------
    report : EvaluationReport
        What to write; its manifest gets the paths.
    out : path
        Folder; made when missing.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    folder, manifest = pathlib.Path(out), report.manifest
    write_text(folder / "evaluation.json", json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "curve.csv", report.curve_csv())
    write_report(report, folder / "report.html")
    manifest.outputs.update({"report": str(folder / "report.html"), "evaluation": str(folder / "evaluation.json"),
                             "curve": str(folder / "curve.csv"), "slices": write_slices(report, folder)})
    manifest.write(folder / "manifest.json")
