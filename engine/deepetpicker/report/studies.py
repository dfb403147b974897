"""A study as a figure and as one self-contained HTML page; what they show is given as numbers and words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, List, Mapping, Sequence, Tuple

import numpy as np

from deepetpicker.evaluation.pairing import PathLike
from deepetpicker.io.atomic import write_text
from deepetpicker.report.charts import CYCLE, INK, chart, finish, plain
from deepetpicker.report.pages.markup import render, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_INCHES, FRAME_INCHES = 0.42, 1.3  # height of the figure for each category, and beside them
MARKERS = ("o", "s", "D", "^", "v")
WIDE = 8  # times the lowest value from which on the axis is logarithmic


@dataclasses.dataclass(frozen=True)
class StudyPoint:
    """One variant in the figure.

    Attributes
    ----------
    title : str
        What it is called.
    value : float
        Where it stands on the axis; NaN for a category.
    figures : mapping of str to sequence of float
        Name of a figure to its values, one per seed; may be empty.
    """

    title: str
    value: float
    figures: Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel of the figure.

    Attributes
    ----------
    label : str
        Of its axis.
    names : tuple of str
        The figures it shows.
    top : float
        End of the axis; 0 leaves it open.
    """

    label: str
    names: Tuple[str, ...]
    top: float = 0.0


@dataclasses.dataclass(frozen=True)
class StudyPage:
    """What the page of a study says; every text is escaped.

    Attributes
    ----------
    title, question, state, legend, caption, command : str
        Heading, what is asked, how far the study is, what stands below table and figure, how it was started.
    head, rows, run_head, run_rows : lists of str
        The table of the variants and that of every run.
    conditions, findings, warnings : list of str
        Sentences: how it was done, what came out, what to know.
    """

    title: str
    question: str
    state: str
    head: List[str]
    rows: List[List[str]]
    legend: str
    caption: str
    conditions: List[str]
    findings: List[str]
    warnings: List[str]
    run_head: List[str]
    run_rows: List[List[str]]
    command: str


def write_page(page: StudyPage, figure: Figure, out_html: PathLike) -> None:
    """Write a study as one HTML file that needs no other file and no network.

    Parameters
    ----------
    page : StudyPage
        What it says.
    figure : matplotlib.figure.Figure
        From :func:`study_figure`.
    out_html : path
        File to write.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_text(out_html, render("study.html.jinja", {"page": page, "figure": svg(figure, page.title)}))


def study_figure(points: Sequence[StudyPoint], panels: Sequence[Panel], axis: str = "") -> Figure:
    """Return the variants of a study side by side: a dot for each seed, a larger mark for their mean.

    Parameters
    ----------
    points : sequence of StudyPoint
        The variants, in the order in which they are shown; at least one.
    panels : sequence of Panel
        From left to right.
    axis : str
        What the points' values are; empty for categories, which then stand below one another.
    """
    if not axis:
        figure, axes = chart(len(panels), FRAME_INCHES + LINE_INCHES * len(points), share_y=True)
        for one, panel in zip(axes, panels):
            _draw_categories(one, points, panel)
        return figure
    figure, axes = chart(len(panels))
    for one, panel in zip(axes, panels):
        _draw_values(one, points, panel, axis)
    return figure


def _draw_categories(axes: Axes, points: Sequence[StudyPoint], panel: Panel) -> None:
    """Draw a line for each variant, the first on top, with its seeds and their mean."""
    shift = 0.18 if len(panel.names) > 1 else 0.0
    for k, name in enumerate(panel.names):
        colour = CYCLE[k][0]
        for row, point in enumerate(points):
            at, found = row + shift * (2 * k - len(panel.names) + 1), np.asarray(point.figures.get(name, ()), float)
            if not len(found):
                continue
            axes.plot([found.min(), found.max()], [at, at], color=colour, linewidth=1.4, alpha=0.6)
            axes.plot(found, np.full(len(found), at), MARKERS[k], color=colour, markersize=3.5, alpha=0.6)
            axes.plot(found.mean(), at, MARKERS[k], color=colour, markersize=7.5)
        axes.plot([], [], MARKERS[k], color=colour, label=name)
    finish(axes, panel.label, "")
    axes.set_yticks(range(len(points)), [plain(point.title) for point in points], fontsize=9, color=INK)
    axes.set_ylim(len(points) - 0.4, -0.6)
    _end(axes, panel, upwards=False)


def _draw_values(axes: Axes, points: Sequence[StudyPoint], panel: Panel, axis: str) -> None:
    """Draw the mean of each figure over the variants' values, with the range of its seeds and a dot for each."""
    for k, name in enumerate(panel.names):
        colour, dashes = CYCLE[k]
        known = [(p.value, np.asarray(p.figures[name], float)) for p in points if len(p.figures.get(name, ()))]
        if not known:
            continue
        at, found = [v for v, _ in known], [f for _, f in known]
        axes.fill_between(at, [f.min() for f in found], [f.max() for f in found], color=colour, alpha=0.15, linewidth=0)
        axes.plot(at, [f.mean() for f in found], color=colour, linestyle=dashes, linewidth=1.8, marker=MARKERS[k],
                  markersize=5.5, label=name)
        for value, one in known:
            axes.plot(np.full(len(one), value), one, MARKERS[k], color=colour, markersize=3, alpha=0.5)
    finish(axes, axis, panel.label)
    values = [point.value for point in points]
    if min(values) > 0 and max(values) / min(values) >= WIDE:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(values, [f"{value:g}" for value in values])
    _end(axes, panel, upwards=True)


def _end(axes: Axes, panel: Panel, upwards: bool) -> None:
    """Set where the axis of the figures ends, and name them where there are several."""
    top = panel.top or max(1.04 * (axes.get_ylim if upwards else axes.get_xlim)()[1], 1e-3)
    limits = (-0.02 * top, top)
    if upwards:
        axes.set_ylim(*limits)
    else:
        axes.set_xlim(*limits)
    if len(panel.names) > 1:
        axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=2,
                    borderaxespad=0.2)
