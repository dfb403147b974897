"""Charts: curves over the score threshold, histograms, training.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; lines differ in their dashes, too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepetpicker.evaluation.curves import ScoreCurve

INK = "#24292f"
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#7f7f7f"
CYCLE = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1, 1, 1, 1, 1))))
CHART_INCHES = (4.8, 3.4)
COUNTED = ("picks", "hits", "particles")
MOST_NAMES, MOST_LETTERS = 40, 100  # tomograms that are named below their bars, and letters that go side by side
DWARFED, FULL_HEIGHT = 4, 20  # so many times higher bars are cut off, and none that are lower than this
UNKNOWN_WHERE_PARTIAL = ("pick_f1", "pick_precision", "pick_average_precision")
WORDS = {"f_alpha": "F\u03b1", "f1": "F1", "val": "validation", "train": "training", "pick": "picking"}


def curve_figure(curve: ScoreCurve, parts: Sequence[str] = ("precision_recall", "threshold"),
                 threshold: float = float("nan")) -> Figure:
    """Return precision against recall and the metrics against the score threshold.

    Parameters
    ----------
    curve : ScoreCurve
        May be empty.
    parts : sequence of str
        Panels from left to right: ``"precision_recall"``, ``"threshold"``.
    threshold : float
        Threshold in force, marked where it is known.
    """
    figure, axes = chart(len(parts))
    draw = {"precision_recall": _draw_precision_recall, "threshold": _draw_threshold}
    for part, one in zip(parts, axes):
        if len(curve) and curve.n_truth:
            draw[part](one, curve, threshold)
        else:
            say_nothing(one, "no scores to draw")
    return figure


def score_histogram(hit_scores: np.ndarray, other_scores: np.ndarray, threshold: float = float("nan"),
                    names: Tuple[str, str] = ("hits", "false positives")) -> Figure:
    """Return the scores of hits and of false positives.

    Parameters
    ----------
    hit_scores, other_scores : (N,), (M,) float
        Scores; NaN are left out. With no hits and one colour, pass all scores as ``other_scores``.
    threshold : float
        Threshold in force, marked where it is known.
    names : tuple of str
        What the two are called.
    """
    figure, (axes,) = chart(1)
    sets = [s[~np.isnan(s)] for s in (np.asarray(hit_scores, float), np.asarray(other_scores, float))]
    everything = np.concatenate(sets)
    if not everything.size:
        say_nothing(axes, "no scores to draw")
        return figure
    low, high = min(0.0, float(everything.min())), max(1.0, float(everything.max()))
    edges = np.linspace(low, high, 31)
    shown = names if len(sets[0]) else ("", "picks" if names[0] == "hits" else names[1])
    counts = [np.histogram(values, edges)[0] for values in sets]
    _bars(axes, edges, counts[0], (BLUE, ""), shown[0])
    _bars(axes, edges, counts[1], (VERMILLION, "////") if shown[0] else (BLUE, ""), shown[1])
    _mark_threshold(axes, threshold)
    finish(axes, "score", "picks", legend=True)
    _cut_off(axes, int(counts[0].max()), int(counts[1].max()))
    return figure


def counts_figure(names: Sequence[str], counts: np.ndarray, labels: Sequence[str],
                  outliers: Sequence[int] = ()) -> Figure:
    """Return the picks per tomogram as stacked bars, the median as a line, outliers marked.

    Parameters
    ----------
    names : sequence of str
        The tomograms.
    counts : (N, C) int
        Picks of each class.
    labels : sequence of str
        Names of the classes.
    outliers : sequence of int
        Rows that are marked.
    """
    figure, (axes,) = chart(1)
    if not len(names):
        say_nothing(axes, "no tomogram was picked")
        return figure
    figure.set_size_inches(2 * CHART_INCHES[0], CHART_INCHES[1])
    at, base = np.arange(len(names)), np.zeros(len(names))
    for column, (label, (colour, _)) in enumerate(zip(labels, itertools.cycle(CYCLE))):
        axes.bar(at, counts[:, column], 0.8, base, facecolor=colour, alpha=0.75, label=plain(label))
        base = base + counts[:, column]
    if len(names) > 1:
        axes.axhline(float(np.median(base)), color=INK, linewidth=1, linestyle=(0, (2, 2)),
                     label=f"median {np.median(base):g}")
    if len(outliers):
        chosen = np.asarray(outliers, int)
        axes.plot(at[chosen], base[chosen] + 0.03 * max(base.max(), 1), "v", color=VERMILLION, markersize=7,
                  label="outlier")
    shown = at if len(names) <= MOST_NAMES else np.asarray(outliers, int)
    is_short = sum(len(names[i]) for i in shown) < MOST_LETTERS
    axes.set_xticks(shown, [plain(names[i]) for i in shown], rotation=0 if is_short else 60,
                    ha="center" if is_short else "right", rotation_mode=None if is_short else "anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    finish(axes, "", "picks", legend=True)
    axes.set_ylim(0, 1.25 * max(float(base.max()), 1.0))
    return figure


def depth_figure(edges: np.ndarray, counts: Mapping[str, np.ndarray], is_relative: bool = False) -> Figure:
    """Return the picks of each class over depth.

    Parameters
    ----------
    edges : (bins + 1,) float
        Voxels, or shares of the depth.
    counts : mapping of str to (bins,) int
        Picks by name of the class.
    is_relative : bool
        Whether the edges are shares.
    """
    figure, (axes,) = chart(1)
    for (name, values), (colour, dashes) in zip(counts.items(), itertools.cycle(CYCLE)):
        axes.stairs(values, edges, color=colour, linestyle=dashes, linewidth=1.8, label=plain(name))
    finish(axes, "depth, bottom 0 to top 1" if is_relative else "z [voxels]", "picks", legend=True)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0)
    return figure


def distance_figure(histogram: Mapping[str, np.ndarray], voxel_size_ang: float = 0.0) -> Figure:
    """Return the distances of hits to the true centres.

    Parameters
    ----------
    histogram : mapping
        ``edges_vox`` (bins + 1,) and ``hits`` (bins,), from ``evaluation.measures.distance_histogram``.
    voxel_size_ang : float
        Voxel size in angstrom, for a second scale; 0 leaves it out.
    """
    figure, (axes,) = chart(1)
    edges, counts = np.asarray(histogram["edges_vox"], float), np.asarray(histogram["hits"], float)
    if not counts.sum():
        say_nothing(axes, "no hits")
        return figure
    _bars(axes, edges, counts, (BLUE, ""), "")
    finish(axes, "distance to the true centre [voxels]", "hits")
    axes.set_xlim(0, edges[-1])
    if voxel_size_ang:
        second = axes.secondary_xaxis("top", functions=(lambda v: np.multiply(v, voxel_size_ang),
                                                        lambda a: np.divide(a, voxel_size_ang)))
        second.set_xlabel("[Å]", color=INK, fontsize=9)
        second.tick_params(colors=INK, labelsize=8)
        second.spines["top"].set_color(INK)
    return figure


def z_profile_figure(profile: Mapping[str, np.ndarray]) -> Figure:
    """Return truth, picks and hits over depth.

    Parameters
    ----------
    profile : mapping
        ``edges_vox`` (bins + 1,), ``truth``, ``picks`` and ``hits`` (bins,), from ``evaluation.measures.z_profile``.
    """
    figure, (axes,) = chart(1)
    edges = np.asarray(profile["edges_vox"], float)
    if not (np.sum(profile["truth"]) + np.sum(profile["picks"])):
        say_nothing(axes, "no particles")
        return figure
    _bars(axes, edges, np.asarray(profile["hits"]), (BLUE, ""), "hits")
    for name, label, (colour, dashes) in (("truth", "true particles", (GREEN, "-")),
                                          ("picks", "picks", (VERMILLION, "--"))):
        axes.stairs(profile[name], edges, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    finish(axes, "z [voxels]", "particles", legend=True)
    return figure


def training_figure(rows: Sequence[Mapping[str, Any]], partial: bool = False) -> Figure:
    """Return loss (left) and F-values, precision and recall (right) over epochs; the kept epoch is marked.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of a run's metrics.csv, text or numbers: ``epoch`` and any columns whose name holds "loss", "f1",
        "f_alpha", "precision" or "recall". Empty and unreadable cells are skipped. Of the rows with ``kept`` the last
        is the kept epoch; runs without that column are marked at their best picks, else at their best F alpha.
    partial : bool
        Many particles were not annotated: precision and F1 of the picks, which nobody knows then, are left out.
    """
    figure, (left, right) = chart(2)
    from matplotlib.ticker import MaxNLocator

    series = _series(rows)
    if partial:
        series = {name: values for name, values in series.items() if name not in UNKNOWN_WHERE_PARTIAL}
    groups: Tuple[Tuple[Axes, List[str], str], ...] = (
        (left, [n for n in series if "loss" in n.lower()], "loss"),
        (right, _ratio_names(series), "held-out part"))
    for axes, names, label in groups:
        for name, (colour, dashes) in zip(names, CYCLE):
            epochs, values = series[name]
            axes.plot(epochs, values, color=colour, linestyle=dashes, linewidth=1.8, label=_words(name),
                      marker="o" if len(epochs) == 1 else None, markersize=4)
        if not names:
            say_nothing(axes, "no epoch is finished yet")
            continue
        finish(axes, "epoch", label, legend=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epoch, title = _kept(series)
    if title:
        right.axvline(epoch, color=GREY, linewidth=1, linestyle=":")
        right.set_title(title, color=INK, fontsize=9)
    if groups[1][1]:
        right.set_ylim(0, 1.02)
    return figure


def _kept(series: Mapping[str, Tuple[List[float], List[float]]]) -> Tuple[float, str]:
    """Return the epoch whose weights the model has, and what to say of it; an empty text when nothing says which."""
    kept = [epoch for epoch, flag in zip(*series.get("kept", ((), ()))) if flag]
    if kept:
        name = "pick_f1" if "pick_f1" in series else "pick_recall"
        value = dict(zip(*series.get(name, ((), ())))).get(kept[-1])
        return kept[-1], f"kept: epoch {kept[-1]:g}" + (f", {_words(name)} {value:.3f}" if value is not None else "")
    name = next((n for n in ("pick_f1", "f_alpha") if n in series), "")
    if not name:
        return float("nan"), ""
    epochs, values = series[name]
    best = int(np.argmax(values))
    return epochs[best], f"best {_words(name)} {values[best]:.3f} in epoch {epochs[best]:g}"


def _draw_precision_recall(axes: Axes, curve: ScoreCurve, threshold: float) -> None:
    """Draw precision against recall over lines of equal F1, with the threshold of the best F1."""
    values = curve.metrics()
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(f1 / 2 + 1e-3, 1, 200)
        precision = f1 * recall / (2 * recall - f1)
        inside = precision <= 1
        axes.plot(recall[inside], precision[inside], color=GREY, linewidth=0.6, alpha=0.6)
        axes.annotate(f"F1 {f1:g}", (1, f1 / (2 - f1)), xytext=(-2, 2), textcoords="offset points", fontsize=7,
                      color=GREY, ha="right")
    axes.step(values["recall"], values["precision"], where="pre", color=BLUE, linewidth=2)
    best = curve.best("F1")
    axes.plot(best["recall"], best["precision"], "o", color=VERMILLION, markersize=7,
              label=f"best F1 {best['value']:.3f} at {best['threshold']:.3g}")
    kept = np.flatnonzero(curve.thresholds >= threshold)
    if len(kept):
        axes.plot(values["recall"][kept[-1]], values["precision"][kept[-1]], "D", color=INK, markersize=5.5,
                  markerfacecolor="none", label=f"threshold {threshold:.3g}")
    finish(axes, "recall", "precision", legend=True)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)


def _draw_threshold(axes: Axes, curve: ScoreCurve, threshold: float) -> None:
    """Draw F1, Fbeta, precision and recall against the score threshold."""
    values = curve.metrics()
    for name, label, (colour, dashes), width in (
            ("F1", "F1", (BLUE, "-"), 2.2), ("Fbeta", f"F{curve.beta:g}", (VERMILLION, "--"), 1.8),
            ("precision", "precision", (GREEN, "-."), 1.2), ("recall", "recall", (PURPLE, ":"), 1.6)):
        axes.step(curve.thresholds, values[name], where="post", color=colour, linestyle=dashes, linewidth=width,
                  label=label)
    best = curve.best("F1")
    axes.plot(best["threshold"], best["value"], "o", color=VERMILLION, markersize=7)
    _mark_threshold(axes, threshold)
    finish(axes, "score threshold", "", legend=True)
    axes.locator_params(axis="x", nbins=5)  # scores that are nearly the same have long numbers
    axes.set_ylim(0, 1.02)


def chart(panels: int, height: float = CHART_INCHES[1], share_y: bool = False) -> Tuple[Figure, List[Axes]]:
    """Return an empty figure with panels side by side, and the panels.

    Parameters
    ----------
    panels : int
        How many.
    height : float
        Of the figure, in inches.
    share_y : bool
        True gives all panels one axis upwards.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CHART_INCHES[0] * panels, height), layout="constrained", facecolor="white")
    cells: Any = figure.subplots(1, panels, squeeze=False, sharey=share_y)
    return figure, list(cells[0])


def finish(axes: Axes, x_label: str, y_label: str, legend: bool = False) -> None:
    """Give the axes labels, a light grid and the ink of the page."""
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor("none")
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.set_ylabel(y_label, color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8)
    if y_label in COUNTED:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    if legend and axes.get_legend_handles_labels()[1]:
        box = axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        box.set_zorder(5)


def _cut_off(axes: Axes, low: int, high: int) -> None:
    """Let the larger of two histograms leave the chart where the smaller one would not be seen."""
    top = max(DWARFED * low, FULL_HEIGHT)
    if low > 0 and top < high:
        axes.set_ylim(0, top)
        axes.set_title(f"bars of up to {high} are cut off", color=INK, fontsize=8, loc="left")


def plain(text: str) -> str:
    """Return a text so that matplotlib shows it as it is: no formulas, no hidden labels."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def say_nothing(axes: Axes, text: str) -> None:
    """Say in the empty axes why they are empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=INK, fontsize=10)


def _bars(axes: Axes, edges: np.ndarray, counts: np.ndarray, look: Tuple[str, str], label: str) -> None:
    """Draw a histogram as filled steps in a colour, with a hatch over it where one is given."""
    colour, hatch = look
    axes.stairs(counts, edges, fill=True, facecolor=colour, alpha=0.35, linewidth=0.0,
                label=label if label and not hatch else None)
    if hatch:
        axes.stairs(counts, edges, fill=True, facecolor="none", edgecolor=colour, hatch=hatch, linewidth=0.0,
                    label=label or None)
    axes.stairs(counts, edges, color=colour, linewidth=1.4)


def _mark_threshold(axes: Axes, threshold: float) -> None:
    """Draw a thin line at the threshold in force, where there is one."""
    if threshold == threshold:
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (2, 2)), label=f"threshold {threshold:.3g}")


def _ratio_names(series: Mapping[str, Any]) -> List[str]:
    """Return the columns for the right panel, the most important first, as many as there are line styles."""
    order = ("pick_f1", "pick_precision", "pick_recall", "f_alpha", "f1", "precision", "recall")
    ranked = [(next((i for i, word in enumerate(order) if word in name.lower()), len(order)), name) for name in series]
    return [name for rank, name in sorted(ranked, key=lambda pair: pair[0]) if rank < len(order)][:len(CYCLE)]


def _words(column: str) -> str:
    """Return a column's name as words for a legend: "val_loss" becomes "validation loss"."""
    marked = column.replace("f_alpha", "f\0alpha")
    return " ".join(WORDS.get(word.replace("\0", "_"), word) for word in marked.split("_")).replace("$", r"\$")


def _series(rows: Sequence[Mapping[str, Any]]) -> Dict[str, Tuple[List[float], List[float]]]:
    """Return epochs and values of each column that holds finite numbers, rows in order of epochs."""
    series: Dict[str, Tuple[List[float], List[float]]] = {}
    for index, row in enumerate(rows):
        epoch = _finite(row.get("epoch", index))
        for name, cell in row.items():
            value = _finite(cell)
            if name != "epoch" and value == value and epoch == epoch:
                epochs, values = series.setdefault(name, ([], []))
                epochs.append(epoch)
                values.append(value)
    return series


def _finite(cell: Any) -> float:
    """Return a cell as a finite number, else NaN."""
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return float("nan")
    return number if np.isfinite(number) else float("nan")
