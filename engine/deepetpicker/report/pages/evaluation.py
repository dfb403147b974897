"""An evaluation as one self-contained HTML page: tables, charts and pictures, for screen, phone and paper.

Here is what the page says; ``evaluation.html.jinja`` and ``report.css`` beside this file say how it looks.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import DeepETPickerError
from deepetpicker.evaluation.measures import distance_histogram
from deepetpicker.evaluation.pairing import PathLike
from deepetpicker.evaluation.reliability import Reliability
from deepetpicker.evaluation.results import EvaluationReport, TomogramResult
from deepetpicker.io.atomic import atomic_output, write_text
from deepetpicker.io.volumes import open_volume
from deepetpicker.report import (
    PictureStyle,
    charts,
    choose_planes,
    curve_figure,
    distance_figure,
    score_histogram,
    slices,
    slices_with_picks,
    z_profile_figure,
)
from deepetpicker.report.pages.markup import SLICE_DPI, Chart, chart, number, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_TOMOGRAMS = 3
PLANES = 4
SEEN = {"training": "trained on", "validation": "validation"}  # what a tomogram was to the model
COUNTS = ["particles", "picks", "hits", "false pos.", "missed"]
MARKS = (("hit", slices.HIT, "", ""), ("hit, other class", slices.OTHER_CLASS, "7 2 1 2", ""),
         ("false positive", slices.FALSE_POSITIVE, "", "M7 7l6 6M13 7l-6 6"), ("miss", slices.MISS, "4 2.5", ""))


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture of the report.

    Parameters
    ----------
    title : str
        Heading; pictures in a row with the same heading are grouped.
    caption : str
        Below the picture.
    figure : matplotlib.figure.Figure
        What to show; becomes a JPEG image.
    """

    title: str
    caption: str
    figure: Figure


def write_report(report: EvaluationReport, out_html: PathLike, pictures: Optional[Sequence[Picture]] = None) -> None:
    """Write an evaluation as one HTML file that needs no other file and no network.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    out_html : path
        File to write.
    pictures : sequence of Picture, optional
        Pictures at the end; default: :func:`report_pictures`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    shown = report_pictures(report) if pictures is None else pictures
    write_text(out_html, page(report, shown))


def report_pictures(report: EvaluationReport, limit: int = SHOWN_TOMOGRAMS) -> List[Picture]:
    """Return slices with hits, false positives and misses of some tomograms whose volume can be read.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    limit : int
        At most so many tomograms: evenly chosen from the poorest to the best F1, both included.
    """
    return [picture for one in _shown(report, limit) for picture in _slices(one, report)]


def write_slices(report: EvaluationReport, folder: PathLike, limit: int = SHOWN_TOMOGRAMS) -> Dict[str, str]:
    """Write one PNG picture per tomogram with its picks, hits and misses on a few slices.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    folder : path
        Where ``slices_1.png`` and so on are written.
    limit : int
        At most so many tomograms, chosen as for :func:`report_pictures`.

    Returns
    -------
    dict
        Tomogram name to the picture's path.
    """
    paths = {}
    for place, one in enumerate(_shown(report, limit), 1):
        try:
            volume = open_volume(one.tomogram, one.voxel_size_ang, one.name)
        except DeepETPickerError:
            continue
        style = PictureStyle(voxel_size_ang=one.voxel_size_ang, diameters_ang=report.diameters_ang,
                             planes=tuple(choose_planes(volume.shape_zyx[0], [one.truth, one.picks], PLANES)))
        figure = slices_with_picks(volume.data_zyx, one.picks, one.truth, one.match, style)
        target = pathlib.Path(folder) / f"slices_{place}.png"
        with atomic_output(target) as temporary:
            figure.savefig(temporary, dpi=SLICE_DPI, format="png")
        paths[one.name] = str(target)
    return paths


def _shown(report: EvaluationReport, limit: int) -> List[TomogramResult]:
    """Return at most limit tomograms that can be read, from the poorest to the best F1."""
    usable = [t for t in report.tomograms if t.tomogram]
    usable.sort(key=lambda t: (np.nan_to_num(report.per_tomogram[t.name]["F1"]), t.name))
    if len(usable) > limit:
        usable = [usable[i] for i in np.linspace(0, len(usable) - 1, limit).round().astype(int)]
    return usable


def page(report: EvaluationReport, pictures: Sequence[Picture] = ()) -> str:
    """Return the HTML text of the report."""
    beta = f"F{report.overall['beta']:g}"
    groups = [(title, list(group)) for title, group in itertools.groupby(pictures, lambda one: one.title)]
    return render("evaluation.html.jinja", {
        "report": report, "total": report.overall, "options": report.options, "counts": COUNTS, "marks": MARKS,
        "measures": ["F1", "precision", "recall", beta], "tiles": _tiles(report, beta), "charts": _charts(report),
        "tomograms": [_tomogram_row(name, row) for name, row in report.per_tomogram.items()],
        "all": _tomogram_row("all", report.overall), "classes": [_class_row(row) for row in report.per_class],
        "labels": [report.class_names[c] for c in report.class_ids], "pictures": groups,
        "shares": report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1),
        "thresholds": _threshold_rows(report, beta)})


def _slices(one: TomogramResult, report: EvaluationReport) -> List[Picture]:
    """Return pictures of a few planes of one tomogram; none when it cannot be read any more."""
    try:
        volume = open_volume(one.tomogram, one.voxel_size_ang, one.name)
    except DeepETPickerError:
        return []
    style = PictureStyle(voxel_size_ang=one.voxel_size_ang, diameters_ang=report.diameters_ang, bare=True)
    planes = choose_planes(volume.shape_zyx[0], [one.truth, one.picks], PLANES)
    title = f"{one.name}: {one.match.tp} hits, {one.match.fp} false positives, {one.match.fn} misses"
    return [Picture(title, f"z = {plane}", slices_with_picks(volume.data_zyx, one.picks, one.truth, one.match,
                                                             dataclasses.replace(style, planes=(plane,))))
            for plane in planes]


def _tiles(report: EvaluationReport, beta: str) -> List[Tuple[str, str, str]]:
    """Return the headline numbers: name, value, what stands below it."""
    total, ends = report.overall, report.overall["confidence_95"]
    tiles = [(name, number(total[key]), " to ".join(map(number, ends[key])))
             for key, name in (("F1", "F1"), ("precision", "precision"), ("recall", "recall"), ("Fbeta", beta))]
    angstrom = "voxels" if np.isnan(total["AD_ang"]) else f"voxels, {number(total['AD_ang'], 1)} Å"
    tiles.append(("distance to centre", number(total["AD_vox"], 2), angstrom))
    if len(report.per_class) > 1:
        tiles.append(("macro F1", number(total["macro_F1"]), f"{len(report.per_class)} classes"))
    return tiles


def _tomogram_row(name: str, row: Mapping[str, Any]) -> List[str]:
    """Return the localisation of a tomogram, or of all, as cells."""
    role = SEEN.get(row.get("seen", ""), "")
    return [f"{name} ({role})" if role else name, *_ratios(row), number(row["AD_vox"], 2), number(row["AD_ang"], 1),
            *_counts(row)]


def _class_row(row: Mapping[str, Any]) -> List[str]:
    """Return the metrics of a class as cells."""
    scores = ("average_precision", "calibration_error", "best_threshold", "best_F1")
    return [row["name"], *_ratios(row), *(number(row[n]) for n in scores), *_counts(row)]


def _threshold_rows(report: EvaluationReport, beta: str) -> List[List[str]]:
    """Return the best thresholds as cells."""
    if not len(report.curve):
        return []
    return [[f"best {beta if metric == 'Fbeta' else metric}", f"{best['threshold']:.4g}",
             *(number(best[n]) for n in ("value", "precision", "recall"))]
            for metric, best in report.best_threshold.items()]


def reliability_figure(classes: Mapping[str, Reliability]) -> Figure:
    """Return how often picks are right against what their scores promise, with their numbers below.

    Parameters
    ----------
    classes : mapping
        Class name to its bins; classes without picks are left out. On the diagonal a score is a probability.
    """
    from matplotlib.figure import Figure

    filled = {name: one for name, one in classes.items() if one.n_picks.sum()}
    if not filled:
        figure, (axes,) = charts.chart(1)
        charts.say_nothing(axes, "no scores that could be probabilities")
        return figure
    figure = Figure(figsize=charts.CHART_INCHES, layout="constrained", facecolor="white")
    cells: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes, below = cells
    axes.plot([0, 1], [0, 1], color=charts.GREY, linewidth=1, linestyle=":")
    for (name, one), (colour, dashes) in zip(filled.items(), itertools.cycle(charts.CYCLE)):
        shown = one.n_picks > 0
        axes.plot(one.predicted[shown], one.observed[shown], color=colour, linestyle=dashes, linewidth=1.6, marker="o",
                  markersize=4, label=f"{_escaped(name)}, ECE {one.error:.3f}")
        below.stairs(one.n_picks, one.edges, color=colour, linestyle=dashes, linewidth=1.4)
    charts.finish(axes, "", "share of them that is right", legend=True)
    charts.finish(below, "score", "picks")
    axes.set_ylim(-0.02, 1.02)
    below.set_xlim(0, 1)
    return figure


def _escaped(name: str) -> str:
    """Return a name as a legend can show it: no mathematics, and a first character that does not hide it."""
    return (" " + name if name.startswith("_") else name).replace("$", r"\$")


def _charts(report: EvaluationReport) -> List[Chart]:
    """Return the charts."""
    scores = np.concatenate([t.scored.scores for t in report.tomograms])
    hits = np.concatenate([t.adds_hit for t in report.tomograms])
    threshold = report.options.get("threshold") or float("nan")
    voxels = {t.voxel_size_ang for t in report.tomograms}
    voxel_size_ang = voxels.pop() if len(voxels) == 1 else 0.0
    drawn = (("Precision and recall", "Grey lines: equal F1.",
              curve_figure(report.curve, ("precision_recall",), threshold)),
             ("Over the score threshold", "Picks at the threshold are kept.",
              curve_figure(report.curve, ("threshold",), threshold)),
             ("Scores", "Picks at any score; of several hits on a particle the best counts.",
              score_histogram(scores[hits], scores[~hits], threshold)),
             ("Reliability", "On the dotted line a score is the probability of being right; ECE is the mean distance.",
              reliability_figure(report.reliability)),
             ("Distance of hits", "To the true centre.",
              distance_figure(distance_histogram(report.distances_vox), voxel_size_ang)),
             ("Depth", "Missing wedge, ice and borders show here.", z_profile_figure(report.z_profile())))
    return [chart(title, caption, figure) for title, caption, figure in drawn]


def _counts(row: Mapping[str, Any]) -> List[str]:
    """Return the numbers of particles, picks, hits, false positives and misses of a row as text."""
    tp, fp, fn = row["TP"], row["FP"], row["FN"]
    return [str(n) for n in (tp + fn, tp + fp, tp, fp, fn)]


def _ratios(row: Mapping[str, Any]) -> List[str]:
    """Return F1, precision, recall and Fbeta of a row as text."""
    return [number(row[name]) for name in ("F1", "precision", "recall", "Fbeta")]
