"""Windows with charts: training, scores, evaluation."""

from __future__ import annotations

import functools
import os
import pathlib
import tkinter as tk
import webbrowser
from tkinter import ttk
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.report import training_figure
from deepetpicker.report.rounds import MOST, Round, rounds_figure
from deepetpicker.windows.window import INK, FigureWindow, canvas_of

REFRESH_MS = 3000
CLASS_FIGURES = (("F1", "F1"), ("precision", "precision"), ("recall", "recall"), ("average_precision", "AP"))
LINES = (("F1", "#0072b2", "-"), ("precision", "#009e73", "-."), ("recall", "#cc79a7", ":"))


def without_empty(rows: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return the rows of metrics.csv without cells that are empty, and with numbers where there are numbers."""
    return [{name: cell for name, cell in row.items() if cell not in ("", None)} for row in rows]


def training_summary(rows: Sequence[Mapping[str, Any]], running: bool, partial: bool = False) -> str:
    """Return what the newest and the kept epoch reached, in one line; of older runs the best one.

    With ``partial``, where many particles were not annotated, by recall: nobody knows the F1.
    """
    key, name = ("pick_recall", "recall") if partial else ("pick_f1", "F1")
    if not rows:
        return "No epoch is finished yet." + (" The picture follows the training." if running else "")
    words = [f"{len(rows)} epoch{'' if len(rows) == 1 else 's'}"]
    if rows[-1].get("train_loss"):
        words.append(f"last training loss {float(rows[-1]['train_loss']):.4g}")
    scored = [row for row in rows if row.get(key)]
    kept = [row for row in scored if float(row.get("kept") or 0)]
    if kept:
        words.append(f"kept epoch {kept[-1].get('epoch')}, picking {name} {float(kept[-1][key]):.3f}")
    elif scored:
        best = max(scored, key=lambda row: float(row[key]))
        words.append(f"best picking {name} {float(best[key]):.3f} in epoch {best.get('epoch')}")
    return ", ".join(words) + (". Running: the picture follows." if running else ".")


class ChartWindow(FigureWindow):
    """A window with one picture, a line of text and buttons."""

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        bar = ttk.Frame(top)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        self.text = tk.StringVar(top)
        ttk.Label(bar, textvariable=self.text, justify=tk.LEFT).pack(side=tk.LEFT, padx=8, pady=6)
        self.buttons = bar
        self.canvas: Any = None

    def say(self, text: str) -> None:
        """Say something in the line of text."""
        self.text.set(text)

    def _button(self, text: str, command: Callable[[], Any]) -> ttk.Button:
        """Add a button to the lower edge."""
        button = ttk.Button(self.buttons, text=text, command=command)
        button.pack(side=tk.RIGHT, padx=6, pady=6)
        return button

    def _draw(self, figure: Any) -> None:
        """Show another picture."""
        old = self.canvas
        self.canvas = canvas_of(self.top, figure)
        self.canvas.get_tk_widget().pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        if old is not None:
            old.get_tk_widget().destroy()


class TrainingWindow(ChartWindow):
    """Loss and F-values over epochs; follows a training that runs, or that is run again while the window is open.

    Parameters
    ----------
    title : str
        Title of the window.
    rows : callable
        Returns the rows of metrics.csv as they are now.
    running : callable
        Tells whether more may come.
    parent : Tk widget, optional
        Window that opened it.
    page : callable, optional
        Makes the page of the training and returns its path; there is a button for it.
    rounds : callable, optional
        Returns the models that went on from each other up to this one, oldest first, as they are now; two or more are
        shown side by side below the curves.
    partial : callable, optional
        Tells whether many particles were not annotated: F1 and precision, which nobody knows then, are not shown.
    """

    def __init__(self, title: str, rows: Callable[[], List[Dict[str, Any]]], running: Callable[[], bool],
                 parent: Optional[tk.Misc] = None, page: Optional[Callable[[], str]] = None,
                 rounds: Callable[[], List[Round]] = list, partial: Callable[[], bool] = bool) -> None:
        self.first_rounds = rounds()
        super().__init__(title, parent, (1050, 860 if len(self.first_rounds) > 1 else 520))
        self.rows, self.running, self.page, self.rounds, self.partial = rows, running, page, rounds, partial
        self.shown: List[Dict[str, Any]] = []
        self.shown_rounds: List[Round] = []
        self.rounds_canvas: Any = None
        self.told: Any = None

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window and begin to follow."""
        super()._build(top)
        self._button("Refresh", self.refresh)
        if self.page is not None:
            self._button("Report in the browser", functools.partial(self.open_page, self.page))
        self._show(self.rows())
        self._show_rounds(self.first_rounds)
        self._follow()

    def refresh(self) -> None:
        """Read the metrics and the rounds again and draw what is new."""
        rows, rounds = self.rows(), self.rounds()
        if rows != self.shown:
            self._show(rows)
        if rounds != self.shown_rounds:
            self._show_rounds(rounds)
        self._tell(rows)

    def _tell(self, rows: List[Dict[str, Any]]) -> None:
        """Say what the epochs reached, and remember whether more may come."""
        self.was_running = self.running()
        self.text.set(training_summary(rows, self.was_running, self.partial()))

    def _show(self, rows: List[Dict[str, Any]]) -> None:
        """Draw rows."""
        self.shown = rows
        self._draw(training_figure(without_empty(rows), self.partial()))
        self._tell(rows)

    def _show_rounds(self, rounds: List[Round]) -> None:
        """Draw the rounds side by side and say each in a line, where there are several."""
        self.shown_rounds = rounds
        for old in (self.rounds_canvas and self.rounds_canvas.get_tk_widget(), self.told):
            if old is not None:
                old.destroy()
        if len(rounds) < 2:
            return
        self.told = ttk.Label(self.top, text="\n".join(map(str, rounds[-MOST:])), justify=tk.LEFT,
                              wraplength=1020)
        self.told.pack(side=tk.BOTTOM, fill=tk.X, padx=8)
        self.rounds_canvas = canvas_of(self.top, rounds_figure(rounds))
        self.rounds_canvas.get_tk_widget().pack(side=tk.BOTTOM, fill=tk.BOTH, expand=True)

    def _follow(self) -> None:
        """Look again in a while."""
        self.top.after(REFRESH_MS, self._tick)

    def _tick(self) -> None:
        """Refresh what runs, has run or runs again, unless the window was closed meanwhile."""
        if not self.top.winfo_exists():
            return
        if self.running() or self.was_running or self.rows() != self.shown:
            self.refresh()
        self._follow()


class HistogramWindow(ChartWindow):
    """The scores of picks, a line per class.

    Parameters
    ----------
    title : str
        Title of the window.
    scores : mapping
        Colour and scores (N,) by the name of the class.
    parent : Tk widget, optional
        Window that opened it.
    """

    def __init__(self, title: str, scores: Mapping[str, Tuple[str, np.ndarray]],
                 parent: Optional[tk.Misc] = None) -> None:
        super().__init__(title, parent, (760, 520))
        self.scores = scores

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        super()._build(top)
        self._draw(histogram_figure(self.scores))
        every = np.concatenate([np.zeros(0), *(s for _, s in self.scores.values())])
        self.text.set(f"{every.size} picks, median score {np.median(every):.3f}" if every.size else "no picks")


def histogram_figure(scores: Mapping[str, Tuple[str, np.ndarray]]) -> Any:
    """Return the picture of the scores of each class, on a dark ground as the colours of classes are light."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_facecolor("#3a3f45")
    every = np.concatenate([np.zeros(0), *(s for _, s in scores.values())])
    edges = np.linspace(min(0.0, float(every.min(initial=0))), max(1.0, float(every.max(initial=1))), 41)
    for name, (colour, values) in scores.items():
        axes.stairs(np.histogram(values, edges)[0], edges, color=colour, linewidth=1.8,
                    label=f"{name} ({len(values)})")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("score", fontsize=10, color=INK)
    axes.set_ylabel("picks per bin", fontsize=10, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=9, colors=INK)
    if scores:
        axes.legend(fontsize=9, facecolor="#3a3f45", labelcolor="white", edgecolor="none")
    return figure


class EvaluationWindow(ChartWindow):
    """The main figures of an evaluation, its curves, and a button that opens the report.

    Parameters
    ----------
    title : str
        Title of the window.
    figures : sequence of tuple
        Name and value of each figure, as text.
    curve : sequence of mapping
        Rows of curve.csv.
    report : str
        Path of the HTML report.
    parent : Tk widget, optional
        Window that opened it.
    classes : sequence of mapping
        ``name``, ``F1``, ``precision``, ``recall`` and ``average_precision`` of each class, as evaluation.json has
        them; several are shown as a table.
    lowest : float
        Score from which on picks count, for the figures though not for the curves; 0 for all.
    """

    def __init__(self, title: str, figures: Sequence[Tuple[str, str]], curve: Sequence[Mapping[str, str]],
                 report: str, parent: Optional[tk.Misc] = None, classes: Sequence[Mapping[str, Any]] = (),
                 lowest: float = 0.0) -> None:
        super().__init__(title, parent, (1240 if len(classes) > 1 else 1100, 600))
        self.figures, self.curve, self.classes, self.lowest = figures, curve, classes, lowest
        self.report = os.path.abspath(report)

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        super()._build(top)
        self._button("Open the report in the browser", self.open_report)
        self.text.set(f"Report: {os.path.relpath(self.report)}")
        table = ttk.Frame(top)
        table.pack(side=tk.LEFT, fill=tk.Y, padx=12, pady=12)
        for row, (name, value) in enumerate(self.figures):
            ttk.Label(table, text=name).grid(row=row, column=0, sticky=tk.W, pady=4)
            ttk.Label(table, text=value, font=("TkDefaultFont", 11, "bold")).grid(row=row, column=1, sticky=tk.E,
                                                                                  padx=(16, 0))
        if len(self.classes) > 1:
            self._build_classes(table)
        self._draw(curve_figure(self.curve, self.lowest))

    def _build_classes(self, parent: ttk.Frame) -> None:
        """Add a row for each class."""
        table = ttk.Frame(parent)
        table.grid(row=len(self.figures), column=0, columnspan=2, sticky=tk.W, pady=(16, 0))
        for column, (key, text) in enumerate((("name", "Class"), *CLASS_FIGURES)):
            ttk.Label(table, text=text, font=("TkDefaultFont", 9, "bold")).grid(
                row=0, column=column, sticky=tk.W if key == "name" else tk.E, padx=(0, 8))
            for row, one in enumerate(self.classes, start=1):
                value = one.get(key)
                words = "-" if value is None else value if isinstance(value, str) else f"{value:.3f}"
                ttk.Label(table, text=words, wraplength=150).grid(
                    row=row, column=column, sticky=tk.W if key == "name" else tk.E, padx=(0, 8), pady=2)

    def open_report(self) -> None:
        """Open the report in the user's browser."""
        if not os.path.exists(self.report):
            self.text.set(f"{self.report} is missing: run the protocol again")
            return
        webbrowser.open(pathlib.Path(self.report).as_uri())


def curve_figure(rows: Sequence[Mapping[str, str]], lowest: float = 0.0) -> Any:
    """Return F1, precision and recall over the threshold, and precision over recall, from the rows of curve.csv.

    A line marks the lowest score that counts, where there is one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained", facecolor="white")
    panels: Any = figure.subplots(1, 2)
    left, right = panels
    columns = {name: np.array([float(row.get(name) or "nan") for row in rows])
               for name in ("threshold", "F1", "precision", "recall")}
    for name, colour, dashes in LINES:
        left.step(columns["threshold"], columns[name], where="post", color=colour, linestyle=dashes, linewidth=1.8,
                  label=name, marker="o" if len(rows) < 3 else None)
    right.step(columns["recall"], columns["precision"], where="pre", color=LINES[0][1], linewidth=1.8,
               marker="o" if len(rows) < 3 else None)
    if lowest:
        left.axvline(lowest, color=INK, linewidth=1.0, linestyle=":", label="lowest score that counts")
    left.legend(fontsize=9, frameon=False)
    for axes, across, upwards in ((left, "score threshold", "value"), (right, "recall", "precision")):
        axes.set_xlabel(across, fontsize=10, color=INK)
        axes.set_ylabel(upwards, fontsize=10, color=INK)
        axes.set_ylim(0, 1.03)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=9, colors=INK)
    left.locator_params(axis="x", nbins=5)  # scores that are nearly the same have long numbers
    right.set_xlim(0, 1.03)
    return figure
