"""The window with picks over slices of their tomograms, a filter by score and the histogram of the scores."""

from __future__ import annotations

import dataclasses
import functools
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import DeepETPickerError
from deepetpicker.windows.gallery import GalleryWindow, OverviewWindow, Pick
from deepetpicker.windows.keyboard import Keys, bind_table, brief_help, yields_keys
from deepetpicker.windows.keyboard.slices import MOUSE_OF_SLICES, slice_keys
from deepetpicker.windows.scene import AXIS_NAMES, Scene
from deepetpicker.windows.slices import Point, SlicePanel
from deepetpicker.windows.viewport import STEP
from deepetpicker.windows.window import (
    INK,
    FigureWindow,
    ScrolledColumn,
    button_row,
    canvas_of,
    heading,
    shortened,
    slider,
)

ALL = "all classes"
SCORE_STEP = 0.001
NAME_LETTERS = 17  # of a class in the legend, whose numbers are to be seen


class SliceControls:
    """The list of tomograms and the sliders of position and look, which all windows with slices share.

    A window that has them sets ``scene`` and ``panel`` before it builds them.
    """

    scene: Scene
    panel: SlicePanel
    status: tk.StringVar
    tomograms: tk.Listbox

    def _build_tomograms(self, parent: tk.Misc, title: str) -> None:
        """Add the list of tomograms."""
        heading(parent, title)
        frame = ttk.Frame(parent)
        frame.pack(fill=tk.BOTH, expand=True, padx=6)
        self.tomograms = tk.Listbox(frame, height=3, exportselection=False)
        bar = ttk.Scrollbar(frame, command=self.tomograms.yview)
        self.tomograms.configure(yscrollcommand=bar.set)
        bar.pack(side=tk.RIGHT, fill=tk.Y)
        self.tomograms.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.tomograms.insert(tk.END, *self.scene.names)
        self.tomograms.bind("<<ListboxSelect>>", lambda event: self._chosen())
        yields_keys(self.tomograms, self.panel.canvas.get_tk_widget())

    def _build_slices(self, parent: tk.Misc) -> None:
        """Add the sliders of position and look, and the buttons of the zoom."""
        heading(parent, "Slices")
        self.sliders = [slider(parent, f"{name} (voxels)", (0, 1), functools.partial(self._slid, name))
                        for name in AXIS_NAMES]
        look = self.panel.look
        self.average = slider(parent, "average (± planes; t)", (0, 10), lambda v: self.set_look(average=int(v)))
        self.average.set(look.average)
        self.smooth = slider(parent, "low-pass (voxels; l)", (0, 5), lambda v: self.set_look(smooth_vox=v), 0.25)
        self.clipped = slider(parent, "contrast (%; , and .)", (0, 10), lambda v: self.set_look(clipped_percent=v),
                              0.1)
        self.clipped.set(look.clipped_percent)
        self.inverted = tk.BooleanVar(parent, value=False)
        ttk.Checkbutton(parent, text="high values dark (i)", variable=self.inverted, takefocus=False,
                        command=self._inverts).pack(anchor=tk.W, padx=6)
        self.zoom_buttons = button_row(parent, ("Zoom in", lambda: self.panel.zoom(STEP ** 2)),
                                       ("Zoom out", lambda: self.panel.zoom(STEP ** -2)),
                                       ("Everything", lambda: self.panel.zoom(0)))

    def _inverts(self) -> None:
        """Show high values dark, or bright."""
        self.set_look(inverted=self.inverted.get())

    def set_look(self, **changes: Any) -> None:
        """Change how slices are shown."""
        new = dataclasses.replace(self.panel.look, **changes)
        if new != self.panel.look:
            self.panel.look = new
            if self.panel.tomogram:
                self.panel.changed()

    def _chosen(self) -> None:
        """Show the chosen tomogram."""
        for number in self.tomograms.curselection():
            try:
                self.panel.show_tomogram(self.scene.names[number])
            except (DeepETPickerError, OSError) as error:
                self.status.set(str(error))
                return
            for scale, size in zip(self.sliders, self.scene.shape_zyx(self.panel.tomogram)):
                scale.configure(to=size - 1)
            self._refresh()

    def _slid(self, name: str, value: float) -> None:
        """Move one cut, unless the slider only follows."""
        if self.panel.tomogram and self.panel.position[AXIS_NAMES.index(name)] != int(value):
            self.panel.move_to(**{name: value})

    def _moved(self) -> None:
        """Let the sliders follow the position, and say where it is."""
        for scale, plane in zip(self.sliders, self.panel.position):
            if int(scale.get()) != plane:
                scale.set(plane)
        self.status.set(self.describe(self.panel.position))

    def _pointed(self, point: Optional[Point]) -> None:
        """Say what is under the mouse."""
        if point is not None:
            self.status.set(self.describe(np.round(point[1]).tolist()))

    def _refresh(self) -> None:
        """Draw everything anew."""
        self.panel.changed()

    def describe(self, position_zyx: Sequence[float], what: str = "") -> str:
        """Return what the line of the status says of a position."""
        name = self.panel.tomogram
        rate, factor = self.scene.voxel_size_ang(name), self.scene.factor_zyx(name)
        volume = self.scene.volume(name)
        z, y, x = position_zyx
        at = tuple(int(np.clip(round((p + 0.5) * f - 0.5), 0, n - 1))
                   for p, f, n in zip(position_zyx, factor, volume.shape))
        return (f"{what}x {x:g}, y {y:g}, z {z:g} voxels: {float(volume[at]):.4g}\n{x * rate:.0f}, {y * rate:.0f}, "
                f"{z * rate:.0f} Å; {rate:.4g} Å per voxel")


class PicksWindow(FigureWindow, SliceControls):
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
    extras : sequence of tuple
        More buttons: text, and what it does.
    page : callable, optional
        Makes the page of the picks and returns its path; there is a button for it.
    """

    def __init__(self, title: str, scene: Scene, parent: Optional[tk.Misc] = None, lows: Sequence[float] = (),
                 extras: Sequence[Tuple[str, Callable[[], Any]]] = (),
                 page: Optional[Callable[[], str]] = None) -> None:
        super().__init__(title, parent, (1240, 900))
        self.extras, self.page = list(extras), page
        self.scene = scene
        scores = np.concatenate([np.zeros(0), *(layer.all_scores() for layer in scene.layers)])
        scores = scores[np.isfinite(scores)]
        self.has_scores = bool(scores.size) and float(np.ptp(scores)) > 0
        self.span = (min(0.0, float(scores.min(initial=0))), max(1.0, float(scores.max(initial=1))))
        self._expected: Optional[float] = None
        self._current: Optional[Pick] = None
        self.gallery: Optional[GalleryWindow] = None
        self.lows: List[float] = list(lows) or [self.span[0]] * len(scene.layers)

    # ---- the window
    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window: controls on the left, slices on the right."""
        controls = ttk.Frame(top, width=344)
        controls.pack(side=tk.LEFT, fill=tk.Y)
        controls.pack_propagate(False)
        self.panel = SlicePanel(top, self.scene, moved=self._moved)
        self.panel.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.panel.pointed = self._pointed
        self.status, self.help = tk.StringVar(top), tk.StringVar(top)
        self._build_footer(controls)
        steps = ttk.Frame(controls)
        steps.pack(side=tk.BOTTOM, fill=tk.X)
        self._build_steps(steps)
        self.column = ScrolledColumn(controls)
        self.column.pack(fill=tk.BOTH, expand=True)
        self._build_tomograms(self.column.inside, "Tomograms (number of picks)")
        self._build_layers(self.column.inside)
        self._build_scores(self.column.inside)
        self._build_slices(self.column.inside)
        self._bind()
        self.tomograms.selection_set(0)
        self._chosen()

    def _bind(self) -> None:
        """Bind the keys, and F1 to the list of them."""
        mouse = [Keys("the other two views cut there", label="click, drag"), *MOUSE_OF_SLICES]
        walk = [Keys("the next pick, the one before; best score first",
                     (("<Key-n>", lambda: self.next_pick(1)), ("<Key-p>", lambda: self.next_pick(-1))),
                     brief="next, previous pick")]
        groups = [("Mouse", mouse), ("Picks", walk), *slice_keys(self)]
        self.show_keys = bind_table(self, groups)
        self.help.set(brief_help(groups))

    def _build_layers(self, parent: tk.Misc) -> None:
        """Add the legend, whose entries switch their circles on and off."""
        if self.scene.layers:
            heading(parent, "Shown")
        self.layer_buttons: List[tk.Checkbutton] = []
        self.layer_texts = []
        for number, layer in enumerate(self.scene.layers):
            row = ttk.Frame(parent)
            row.pack(fill=tk.X, padx=6)
            tk.Label(row, bg=layer.colour, width=2, relief=tk.SOLID, bd=1).pack(side=tk.LEFT, padx=(0, 4))
            text, state = tk.StringVar(row), tk.BooleanVar(row, value=True)
            button = tk.Checkbutton(row, textvariable=text, variable=state, anchor=tk.W, highlightthickness=0,
                                    takefocus=False,
                                    command=functools.partial(self._toggle, number, state))
            button.state = state  # type: ignore[attr-defined]  # keeps the variable alive
            button.pack(side=tk.LEFT, fill=tk.X)
            button.bind("<Enter>", lambda event, name=layer.name: self.status.set(name))  # type: ignore[misc]
            self.layer_buttons.append(button)
            self.layer_texts.append(text)

    def _build_scores(self, parent: tk.Misc) -> None:
        """Add the filter by score and the histogram."""
        if not self.has_scores:
            if self.scene.layers:
                ttk.Label(parent, text="These particles have no scores.").pack(anchor=tk.W, padx=6, pady=4)
            return
        from matplotlib.figure import Figure

        heading(parent, "Lowest score shown")
        self.which = tk.StringVar(parent, value=ALL)
        names = self._choices()
        if len(names) > 2:
            box = ttk.Combobox(parent, textvariable=self.which, values=names, state="readonly")
            box.pack(fill=tk.X, padx=6)
            box.bind("<<ComboboxSelected>>", lambda event: self._class_chosen())
        self.score = slider(parent, "", self.span, self.set_low, SCORE_STEP)
        self.histogram = Figure(figsize=(3.2, 1.5), layout="constrained", facecolor="white")
        self.histogram_canvas = canvas_of(parent, self.histogram)
        self.histogram_canvas.get_tk_widget().configure(height=112)
        self.histogram_canvas.get_tk_widget().pack(fill=tk.X, padx=6)
        for kind in ("button_press_event", "motion_notify_event"):
            self.histogram_canvas.mpl_connect(kind, self._dragged)
        self._draw_histogram()
        self._follow(self.lows[0] if self.lows else self.span[0])

    def _choices(self) -> List[str]:
        """Return what the slider of the score can belong to."""
        return [ALL, *(layer.name for layer in self.scene.layers)]

    def _build_steps(self, parent: tk.Misc) -> None:
        """Add the buttons that go from pick to pick."""
        heading(parent, "Picks")
        self.step_buttons = button_row(parent, ("Previous", lambda: self.next_pick(-1)),
                                       ("Next", lambda: self.next_pick(1)))
        self.more_buttons = button_row(parent, ("Gallery", self.open_gallery), ("Overview", self.open_overview),
                                       ("Keys (F1)", lambda: self.show_keys()))
        self.extra_buttons = button_row(parent, *self.extras) if self.extras else []
        if self.page is not None:
            button_row(parent, ("Report in the browser", functools.partial(self.open_page, self.page)))

    def say(self, text: str) -> None:
        """Say something in the line of the status."""
        self.status.set(text)

    def _build_footer(self, parent: tk.Misc) -> None:
        """Add the line that says what is shown; wizards add their buttons here."""
        ttk.Label(parent, textvariable=self.status, wraplength=310, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)
        ttk.Label(parent, textvariable=self.help, wraplength=318, justify=tk.LEFT, foreground="#57606a",
                  font=("TkDefaultFont", 8)).pack(side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)

    # ---- picks one by one
    def picks(self) -> List[Pick]:
        """Return the picks of the tomogram that are shown, best score first; without scores from low to high z."""
        name, found = self.panel.tomogram, []
        for number, layer in enumerate(self.scene.layers):
            if self.panel.visible[number]:
                scores = layer.scores.get(name, np.zeros(0))
                found += [Pick(number, tuple(position), float(score)) for position, score in
                          zip(layer.positions_zyx_vox.get(name, np.zeros((0, 3))).tolist(), scores)
                          if score >= self.panel.lows[number]]
        return sorted(found, key=lambda pick: (-pick.score if self.has_scores else 0.0, pick.position_zyx_vox))

    def next_pick(self, steps: int) -> None:
        """Go so many picks on."""
        picks = self.picks()
        if picks:
            number = picks.index(self._current) + steps if self._current in picks else (0 if steps > 0 else -1)
            self.go_to(picks[number % len(picks)])

    def go_to(self, pick: Pick) -> None:
        """Cut the tomogram through a pick, and bring it into the middle."""
        self._current = pick
        self.panel.centre_on(pick.position_zyx_vox)
        picks = self.picks()
        place = f"pick {picks.index(pick) + 1} of {len(picks)}" if pick in picks else "pick"
        score = f", score {pick.score:.3f}" if self.has_scores else ""
        self.status.set(self.describe(np.round(pick.position_zyx_vox, 1).tolist(), f"{place}{score}\n"))

    def open_gallery(self) -> None:
        """Open the window with crops of the picks."""
        self.gallery = GalleryWindow(self.panel, self.picks, self.go_to, self.top)
        self.gallery.open()

    def open_overview(self) -> None:
        """Open the window with all picks of the tomogram in three dimensions."""
        self.overview = OverviewWindow(self.panel, self.top)
        self.overview.open()

    # ---- what the user does
    def set_low(self, value: float) -> None:
        """Show scores at and above a value, of the chosen class or of all."""
        if self._expected is not None and abs(value - self._expected) < SCORE_STEP:
            self._expected = None
            return
        self._expected = None
        chosen = self._class()
        for number in range(len(self.lows)):
            if chosen in (-1, number):
                self.lows[number] = value
        self._draw_thresholds()
        self._refresh()

    def _class_chosen(self) -> None:
        """Let the slider show the threshold of the chosen class; that of all classes is set when it is moved."""
        if self._class() >= 0:
            self._follow(self.lows[self._class()])
        self.panel.canvas.get_tk_widget().focus_set()

    def _follow(self, low: float) -> None:
        """Let the slider show a threshold without setting any: Tk reports that move too, a little later."""
        if abs(self.score.get() - low) >= SCORE_STEP / 2:
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

    def _toggle(self, number: int, state: tk.BooleanVar) -> None:
        """Show or hide a layer."""
        self.panel.visible[number] = state.get()
        self._refresh()

    # ---- what follows
    def _refresh(self) -> None:
        """Draw the slices and the numbers anew."""
        self.panel.lows = list(self.lows) if self.has_scores else [-np.inf] * len(self.scene.layers)
        for text, layer, low in zip(self.layer_texts, self.scene.layers, self.panel.lows):
            text.set(f"{shortened(layer.name, NAME_LETTERS)}: {layer.count(low)} of {layer.count()}, "
                     f"{layer.diameter_ang:g} Å")
        for number, name in enumerate(self.scene.names):
            count = sum(len(layer.above(name, low)) for layer, low in zip(self.scene.layers, self.panel.lows))
            replace_line(self.tomograms, number, f"{name} ({count})")
        if self.panel.tomogram:
            self.panel.changed()

    def _draw_histogram(self) -> None:
        """Draw the scores of all tomograms, a step line per class."""
        from matplotlib.ticker import MaxNLocator

        axes = self.histogram.add_subplot()
        axes.set_facecolor("#3a3f45")
        edges = np.linspace(*self.span, 31)
        for layer in self.scene.layers:
            scores = layer.all_scores()
            axes.stairs(np.histogram(scores[np.isfinite(scores)], edges)[0], edges, color=layer.colour, linewidth=1.6)
        axes.set_xlim(*self.span)
        axes.set_xlabel("score", fontsize=8, color=INK)
        axes.set_ylabel("picks", fontsize=8, color=INK)
        axes.tick_params(labelsize=7, colors=INK)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        self.lines = [axes.axvline(low, color=layer.colour, linestyle="--", linewidth=1.2)
                      for layer, low in zip(self.scene.layers, self.lows)]

    def _draw_thresholds(self) -> None:
        """Move the lines of the thresholds in the histogram."""
        for line, low in zip(self.lines, self.lows):
            line.set_xdata([low, low])
        self.histogram_canvas.draw_idle()


def replace_line(box: tk.Listbox, number: int, line: str) -> None:
    """Change the text of a line in a list and keep it chosen."""
    if box.get(number) != line:
        selected = box.selection_includes(number)
        box.delete(number)
        box.insert(number, line)
        if selected:
            box.selection_set(number)
