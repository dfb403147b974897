"""The window with picks over slices of their tomograms, a filter by score and the histogram of the scores."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Any, List, Optional, Sequence

import numpy as np

from deepetpicker.errors import DeepETPickerError
from deepetpicker_plugin.viewers.scene import AXIS_NAMES, Scene
from deepetpicker_plugin.viewers.window import INK, FigureWindow, SlicePanel, canvasOf, slider

ALL = "all classes"
STEP = 0.001


class PicksWindow(FigureWindow):
    """Picks over three orthogonal slices.

    Parameters
    ----------
    title : str
        Title of the window.
    scene : Scene
        What is shown.
    parent : Tk widget, optional
        Window that opened it.
    lows : sequence of float
        Lowest score shown at first, per layer; empty shows all.
    """

    def __init__(self, title: str, scene: Scene, parent: Optional[tk.Misc] = None, lows: Sequence[float] = ()) -> None:
        super().__init__(title, parent)
        self.scene = scene
        scores = np.concatenate([np.zeros(0), *(layer.allScores() for layer in scene.layers)])
        scores = scores[np.isfinite(scores)]
        self.hasScores = bool(scores.size) and float(np.ptp(scores)) > 0
        self.span = (min(0.0, float(scores.min(initial=0))), max(1.0, float(scores.max(initial=1))))
        self._expected: Optional[float] = None
        self.lows: List[float] = list(lows) or [self.span[0]] * len(scene.layers)

    # ---- the window
    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window: controls on the left, slices on the right."""
        controls = ttk.Frame(top, width=330)
        controls.pack(side=tk.LEFT, fill=tk.Y)
        controls.pack_propagate(False)
        self.panel = SlicePanel(top, self.scene, moved=self._moved)
        self.panel.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.status = tk.StringVar(top)
        self._buildFooter(controls)
        self._buildTomograms(controls)
        self._buildLayers(controls)
        self._buildScores(controls)
        self._buildSlices(controls)
        self.tomograms.selection_set(0)
        self._chosen()

    def _buildTomograms(self, parent: tk.Misc) -> None:
        """Add the list of tomograms, each with its number of particles."""
        self._heading(parent, "Tomograms (number of picks)")
        frame = ttk.Frame(parent)
        frame.pack(fill=tk.BOTH, expand=True, padx=6)
        self.tomograms = tk.Listbox(frame, height=4, exportselection=False)
        bar = ttk.Scrollbar(frame, command=self.tomograms.yview)
        self.tomograms.configure(yscrollcommand=bar.set)
        bar.pack(side=tk.RIGHT, fill=tk.Y)
        self.tomograms.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.tomograms.insert(tk.END, *self.scene.tsIds)
        self.tomograms.bind("<<ListboxSelect>>", lambda event: self._chosen())

    def _buildLayers(self, parent: tk.Misc) -> None:
        """Add the legend, whose entries switch their circles on and off."""
        self._heading(parent, "Shown")
        self.layerButtons: List[tk.Checkbutton] = []
        self.layerTexts = []
        for number, layer in enumerate(self.scene.layers):
            row = ttk.Frame(parent)
            row.pack(fill=tk.X, padx=6)
            tk.Label(row, bg=layer.colour, width=2, relief=tk.SOLID, bd=1).pack(side=tk.LEFT, padx=(0, 4))
            text, state = tk.StringVar(row), tk.BooleanVar(row, value=True)
            button = tk.Checkbutton(row, textvariable=text, variable=state, anchor=tk.W, highlightthickness=0,
                                    command=lambda number=number, state=state: self._toggle(number, state.get()))
            button.state = state  # keeps the variable alive
            button.pack(side=tk.LEFT, fill=tk.X)
            self.layerButtons.append(button)
            self.layerTexts.append(text)

    def _buildScores(self, parent: tk.Misc) -> None:
        """Add the filter by score and the histogram."""
        if not self.hasScores:
            ttk.Label(parent, text="These particles have no scores.").pack(anchor=tk.W, padx=6, pady=6)
            return
        from matplotlib.figure import Figure

        self._heading(parent, "Lowest score shown")
        self.which = tk.StringVar(parent, value=ALL)
        names = self._choices()
        if len(names) > 2:
            box = ttk.Combobox(parent, textvariable=self.which, values=names, state="readonly")
            box.pack(fill=tk.X, padx=6)
            box.bind("<<ComboboxSelected>>", lambda event: self._classChosen())
        self.score = slider(parent, "", self.span, self.setLow, STEP)
        self.histogram = Figure(figsize=(3.2, 1.75), layout="constrained", facecolor="white")
        self.histogramCanvas = canvasOf(parent, self.histogram)
        self.histogramCanvas.get_tk_widget().configure(height=175)
        self.histogramCanvas.get_tk_widget().pack(fill=tk.X, padx=6)
        for kind in ("button_press_event", "motion_notify_event"):
            self.histogramCanvas.mpl_connect(kind, self._dragged)
        self._drawHistogram()
        self._follow(self.lows[0] if self.lows else self.span[0])

    def _choices(self) -> List[str]:
        """Return what the slider of the score can belong to."""
        return [ALL, *(layer.name for layer in self.scene.layers)]

    def _buildSlices(self, parent: tk.Misc) -> None:
        """Add the sliders of position and contrast."""
        self._heading(parent, "Slices")
        self.sliders = [slider(parent, f"{name} (voxels)", (0, 1), lambda value, name=name: self._slid(name, value))
                        for name in AXIS_NAMES]
        self.average = slider(parent, "average (± planes)", (0, 10), self._setAverage)
        self.average.set(self.panel.average)
        self.clipped = slider(parent, "contrast (% cut)", (0, 10), self._setClipped, 0.1)
        self.clipped.set(self.panel.clipped)

    def _buildFooter(self, parent: tk.Misc) -> None:
        """Add the line that says what is shown; wizards add their buttons here."""
        ttk.Label(parent, textvariable=self.status, wraplength=310, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=6, pady=6)

    @staticmethod
    def _heading(parent: tk.Misc, text: str) -> None:
        """Add a heading."""
        ttk.Label(parent, text=text, font=("TkDefaultFont", 10, "bold")).pack(anchor=tk.W, padx=6, pady=(6, 1))

    # ---- what the user does
    def setLow(self, value: float) -> None:
        """Show scores at and above a value, of the chosen class or of all."""
        if self._expected is not None and abs(value - self._expected) < STEP:
            self._expected = None
            return
        self._expected = None
        chosen = self._class()
        for number in range(len(self.lows)):
            if chosen in (-1, number):
                self.lows[number] = value
        self._drawThresholds()
        self._refresh()

    def _classChosen(self) -> None:
        """Let the slider show the threshold of the chosen class; that of all classes is set when it is moved."""
        if self._class() >= 0:
            self._follow(self.lows[self._class()])

    def _follow(self, low: float) -> None:
        """Let the slider show a threshold without setting any: Tk reports that move too, a little later."""
        if abs(self.score.get() - low) >= STEP / 2:
            self._expected = low
            self.score.set(low)

    def _class(self) -> int:
        """Return the number of the layer that the slider belongs to, -1 for all."""
        names = [layer.name for layer in self.scene.layers]
        return names.index(self.which.get()) if self.which.get() in names else -1

    def _dragged(self, event: Any) -> None:
        """Move the threshold to where the mouse is in the histogram."""
        if event.inaxes is not None and event.button == 1:
            self.score.set(float(np.clip(event.xdata, *self.span)))

    def _chosen(self) -> None:
        """Show the chosen tomogram."""
        for number in self.tomograms.curselection():
            try:
                self.panel.showTomogram(self.scene.tsIds[number])
            except (DeepETPickerError, OSError) as error:
                self.status.set(str(error))
                return
            for scale, size in zip(self.sliders, self.scene.volume(self.panel.tsId).shape):
                scale.configure(to=size - 1)
            self._refresh()

    def _toggle(self, number: int, shown: bool) -> None:
        """Show or hide a layer."""
        self.panel.visible[number] = shown
        self._refresh()

    def _slid(self, name: str, value: float) -> None:
        """Move one cut, unless the slider only follows."""
        if self.panel.tsId and self.panel.position[AXIS_NAMES.index(name)] != int(value):
            self.panel.moveTo(**{name: value})

    def _setAverage(self, value: float) -> None:
        """Average more or fewer planes."""
        self.panel.average = int(value)
        self._refresh()

    def _setClipped(self, value: float) -> None:
        """Change the contrast."""
        self.panel.clipped = value
        self._refresh()

    # ---- what follows
    def _moved(self) -> None:
        """Let the sliders follow the position."""
        for scale, plane in zip(self.sliders, self.panel.position):
            if int(scale.get()) != plane:
                scale.set(plane)
        self._describe()

    def _refresh(self) -> None:
        """Draw the slices and the numbers anew."""
        self.panel.lows = list(self.lows) if self.hasScores else [-np.inf] * len(self.scene.layers)
        for text, layer, low in zip(self.layerTexts, self.scene.layers, self.panel.lows):
            text.set(f"{layer.name}: {layer.count(low)} of {layer.count()}, {layer.diameter_ang:g} Å")
        for number, tsId in enumerate(self.scene.tsIds):
            count = sum(len(layer.above(tsId, low)) for layer, low in zip(self.scene.layers, self.panel.lows))
            line = f"{tsId} ({count})"
            if self.tomograms.get(number) != line:
                selected = self.tomograms.selection_includes(number)
                self.tomograms.delete(number)
                self.tomograms.insert(number, line)
                if selected:
                    self.tomograms.selection_set(number)
        if self.panel.tsId:
            self.panel.changed()

    def _describe(self) -> None:
        """Say where the cut is."""
        rate = self.scene.places[self.panel.tsId].samplingRate
        z, y, x = self.panel.position
        self.status.set(f"x {x}, y {y}, z {z} voxels\n{x * rate:.0f}, {y * rate:.0f}, {z * rate:.0f} Å; "
                        f"{rate:.4g} Å per voxel")

    def _drawHistogram(self) -> None:
        """Draw the scores of all tomograms, a step line per class."""
        from matplotlib.ticker import MaxNLocator

        axes = self.histogram.add_subplot()
        axes.set_facecolor("#3a3f45")
        edges = np.linspace(*self.span, 31)
        for layer in self.scene.layers:
            scores = layer.allScores()
            axes.stairs(np.histogram(scores[np.isfinite(scores)], edges)[0], edges, color=layer.colour, linewidth=1.6)
        axes.set_xlim(*self.span)
        axes.set_xlabel("score", fontsize=8, color=INK)
        axes.set_ylabel("picks", fontsize=8, color=INK)
        axes.tick_params(labelsize=7, colors=INK)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        self.lines = [axes.axvline(low, color=layer.colour, linestyle="--", linewidth=1.2)
                      for layer, low in zip(self.scene.layers, self.lows)]

    def _drawThresholds(self) -> None:
        """Move the lines of the thresholds in the histogram."""
        for line, low in zip(self.lines, self.lows):
            line.set_xdata([low, low])
        self.histogramCanvas.draw_idle()
