"""The commands ``evaluate``, picks scored on a page with pictures, and ``report``, the page of a training or picks."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Mapping, Optional, Sequence, Union

from deepetpicker import evaluation
from deepetpicker.config import EvaluateOptions, ReportOptions
from deepetpicker.evaluation.results import EvaluationReport
from deepetpicker.evaluation.run import Params
from deepetpicker.io.anonymous import Anonymous
from deepetpicker.io.atomic import write_text
from deepetpicker.report.pages.evaluation import write_report, write_slices
from deepetpicker.report.pages.picks import picks_page
from deepetpicker.report.pages.training import training_page
from deepetpicker.report.sources import TrainingRun, find_run

PathLike = Union[str, "os.PathLike[str]"]
REPORT_FILE = "report.html"


def evaluate(truth: PathLike = "", picks: PathLike = "", options: Optional[EvaluateOptions] = None,
             out: Optional[PathLike] = None, params: Params = None) -> EvaluationReport:
    """Score picks against known positions and, where asked to, write what came out.

    Parameters
    ----------
    truth, picks, options, params
        See :func:`deepetpicker.evaluation.evaluate`.
    out : path, optional
        Folder for report.html, evaluation.json, curve.csv, reliability.csv and manifest.json.

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
    """Write report.html, slices_N.png, evaluation.json, curve.csv, reliability.csv and manifest.json into a folder.

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
    write_text(folder / "reliability.csv", report.reliability_csv())
    write_report(report, folder / "report.html")
    manifest.outputs.update({"report": str(folder / "report.html"), "evaluation": str(folder / "evaluation.json"),
                             "curve": str(folder / "curve.csv"), "reliability": str(folder / "reliability.csv"),
                             "slices": write_slices(report, folder)})
    manifest.write(folder / "manifest.json")


def report(places: Sequence[PathLike], out: Optional[PathLike] = None, options: ReportOptions = ReportOptions(),
           tomograms: Sequence[PathLike] = (), names: Optional[Mapping[str, str]] = None) -> pathlib.Path:
    """Write the page of a training or a picking as one HTML file that needs no other file and no network.

    Parameters
    ----------
    places : sequence of path
        A model file or the folder of a training; or one or several folders of picks.
    out : path, optional
        File to write; default: report.html in the folder.
    options : ReportOptions
        How much to show.
    tomograms : sequence of path
        Tomograms, or folders with them, that are no longer where they were. One that cannot be read is noted on the
        page.
    names : mapping of str to str, optional
        What model files, by their paths, are called on the page; default: their files and folders.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        If there is nothing to report.
    OutputError
        If the page cannot be written.
    """
    run = find_run([os.fspath(place) for place in places], [os.fspath(one) for one in tomograms])
    if isinstance(run, TrainingRun):
        text, folder = training_page(run, options.crops, names), run.folder
    else:
        text, folder = picks_page(run, options.crops, names), run.folders[0]
    if options.anonymous:
        text = Anonymous(run.manifest, run.card and run.card.training, os.path.abspath(folder)).page(text)
    target = pathlib.Path(out) if out is not None else folder / REPORT_FILE
    write_text(target, text)
    return target
