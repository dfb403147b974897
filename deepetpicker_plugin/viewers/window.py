"""Windows with pictures: what all of them share, and the panel that shows slices of a tomogram."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
from pyworkflow.viewer import View

from deepetpicker_plugin.viewers.scene import AXES, AXIS_NAMES, Scene, greyLimits, scaleBar

INK = "#24292f"


class FigureWindow(View):
    """A window of its own, which Scipion's viewers return.

    Parameters
    ----------
    title : str
        Title of the window.
    parent : Tk widget, optional
        Window that opened it, and that ends it.
    size : tuple of int
        Width and height in pixels.
    """

    def __init__(self, title: str, parent: Optional[tk.Misc] = None, size: Sequence[int] = (1180, 820)) -> None:
        super().__init__()
        self.title, self.parent, self.size = title, parent, size
        self.top: Any = None

    def show(self) -> None:
        """Open the window; without a window of Scipion around it, wait until it is closed."""
        if self.parent is None and tk._default_root is None:  # type: ignore[attr-defined]
            root = tk.Tk()
            root.withdraw()
            self.parent = root
            self.open()
            root.wait_window(self.top)
            root.destroy()
        else:
            self.open()

    def open(self) -> FigureWindow:
        """Open the window and return at once. The keyboard never closes it."""
        self.top = tk.Toplevel(self.parent)
        self.top.title(self.title)
        width, height = (min(a, b - 60) for a, b in zip(self.size, (self.top.winfo_screenwidth(),
                                                                    self.top.winfo_screenheight())))
        self.top.geometry(f"{width}x{height}")
        self.top.protocol("WM_DELETE_WINDOW", self.close)
        self._build(self.top)
        return self

    def close(self) -> None:
        """Close the window."""
        if self.top is not None and self.top.winfo_exists():
            self.top.destroy()

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        raise NotImplementedError


def canvasOf(parent: tk.Misc, figure: Any) -> Any:
    """Return the canvas of a matplotlib figure in a Tk widget, not yet placed."""
    from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg

    return FigureCanvasTkAgg(figure, master=parent)


def slider(parent: tk.Misc, label: str, span: Sequence[float], command: Callable[[float], Any],
           resolution: float = 1) -> tk.Scale:
    """Return a slider in a line of its own, after its label if it has one."""
    row = ttk.Frame(parent)
    row.pack(fill=tk.X, padx=6)
    if label:
        ttk.Label(row, text=label, width=max(18, len(label))).pack(side=tk.LEFT, anchor=tk.S)
    scale = tk.Scale(row, from_=span[0], to=span[1], resolution=resolution, orient=tk.HORIZONTAL,
                     command=lambda value: command(float(value)), bd=0, highlightthickness=0, width=12)
    scale.pack(side=tk.LEFT, fill=tk.X, expand=True)
    return scale


class SlicePanel(ttk.Frame):
    """Slices of a tomogram with the circles of its particles.

    Parameters
    ----------
    parent : Tk widget
        Holds the panel.
    scene : Scene
        What is shown.
    axes : sequence of int
        Axes that are cut: ``(0,)`` for z only, ``(0, 1, 2)`` for three orthogonal views.
    moved : callable, optional
        Called after each change of the position.
    """

    def __init__(self, parent: tk.Misc, scene: Scene, axes: Sequence[int] = (0, 1, 2),
                 moved: Optional[Callable[[], Any]] = None) -> None:
        from matplotlib.figure import Figure

        super().__init__(parent)
        self.scene, self.moved, self.tsId = scene, moved, ""
        self.position: List[int] = [0, 0, 0]
        self.average, self.clipped = 1, 0.5
        self.lows = [-np.inf] * len(scene.layers)
        self.visible = [True] * len(scene.layers)
        self.figure = Figure(figsize=(7, 7), layout="constrained", facecolor="white")
        self.canvas = canvasOf(self, self.figure)
        self.canvas.get_tk_widget().pack(fill=tk.BOTH, expand=True)
        self.cuts = tuple(axes)
        self.axes: Dict[int, Any] = {}
        self.circles: Dict[int, int] = {}
        self.extra: Optional[Callable[[Any], Any]] = None
        self._due: Optional[str] = None
        self.canvas.mpl_connect("scroll_event", self._scrolled)
        if len(self.cuts) > 1:
            self.canvas.mpl_connect("button_press_event", self._pressed)
            self.canvas.mpl_connect("motion_notify_event", lambda e: self._pressed(e) if e.button == 1 else None)

    def showTomogram(self, tsId: str) -> None:
        """Show another tomogram, at its busiest voxel."""
        self.tsId = tsId
        self.position = list(self.scene.busiest(tsId))
        self.figure.clear()
        z, y, x = self.scene.volume(tsId).shape
        if len(self.cuts) == 1:
            self.axes = {0: self.figure.add_subplot()}
        else:
            side = max(z, 0.22 * max(x, y))
            grid = self.figure.add_gridspec(2, 2, width_ratios=(x, side), height_ratios=(y, side))
            main = self.figure.add_subplot(grid[0, 0])
            self.axes = {0: main, 1: self.figure.add_subplot(grid[1, 0]), 2: self.figure.add_subplot(grid[0, 1])}
        self.changed()

    def moveTo(self, **planes: float) -> None:
        """Move the cut along some axes (``z=12``), to the nearest plane inside the tomogram."""
        shape = self.scene.volume(self.tsId).shape
        for name, plane in planes.items():
            axis = AXIS_NAMES.index(name)
            self.position[axis] = int(np.clip(round(plane), 0, shape[axis] - 1))
        self.changed()

    def changed(self) -> None:
        """Draw anew as soon as Tk is idle, once for many changes."""
        if self.moved is not None:
            self.moved()
        if self._due is None:
            self._due = self.after_idle(self.draw)

    def draw(self) -> None:
        """Draw all views now."""
        self._due = None
        for axis, axes in self.axes.items():
            self._drawCut(axis, axes)
        if self.extra is not None:
            self.extra(self.axes[0])
        self.canvas.draw_idle()

    def _drawCut(self, axis: int, axes: Any) -> None:
        """Draw one view."""
        from matplotlib.collections import EllipseCollection

        right, up = AXES[axis]
        shape = self.scene.volume(self.tsId).shape
        image = self.scene.image(self.tsId, axis, self.position[axis], self.average)
        low, high = greyLimits(image, self.clipped)
        axes.clear()
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bilinear",
                    extent=(-0.5, shape[right] - 0.5, -0.5, shape[up] - 0.5))
        self.circles[axis] = 0
        for number, layer in enumerate(self.scene.layers):
            if not self.visible[number]:
                continue
            found = layer.circles(self.tsId, (axis, self.position[axis]), self.scene.radius_vox(layer, self.tsId),
                                  self.lows[number])
            self.circles[axis] += len(found)
            axes.add_collection(EllipseCollection(
                2 * found[:, 2], 2 * found[:, 2], np.zeros(len(found)), units="xy", offsets=found[:, :2],
                offset_transform=axes.transData, facecolors="none", edgecolors=layer.colour, linewidths=2.0))
        self._decorate(axis, axes, shape)

    def _decorate(self, axis: int, axes: Any, shape: Sequence[int]) -> None:
        """Add labels, the lines of the other cuts and a scale bar."""
        right, up = AXES[axis]
        if len(self.cuts) > 1:
            axes.axvline(self.position[right], color="#ffd33d", linewidth=0.7, alpha=0.7)
            axes.axhline(self.position[up], color="#ffd33d", linewidth=0.7, alpha=0.7)
        axes.set_xlim(-0.5, shape[right] - 0.5)
        axes.set_ylim(-0.5, shape[up] - 0.5)
        axes.set_xlabel(f"{AXIS_NAMES[right]} (voxels)", color=INK, fontsize=9)
        axes.set_ylabel(f"{AXIS_NAMES[up]} (voxels)", color=INK, fontsize=9)
        axes.tick_params(labelsize=8, colors=INK)
        axes.locator_params(nbins=6 if axis == 0 else 4, integer=True)
        axes.set_title(f"{self.tsId}, z = {self.position[0]}" if axis == 0 else
                       f"{AXIS_NAMES[axis]} = {self.position[axis]}", fontsize=10, color=INK)
        if axis == 0:
            length, label = scaleBar(shape[right], self.scene.places[self.tsId].samplingRate)
            x, y = 0.97 * shape[right] - 0.5, 0.03 * shape[up]
            axes.plot([x - length, x], [y, y], color="black", linewidth=6, solid_capstyle="butt", alpha=0.6)
            axes.plot([x - length, x], [y, y], color="white", linewidth=3, solid_capstyle="butt")
            axes.annotate(label, (x - length / 2, y), xytext=(0, 5), textcoords="offset points", ha="center",
                          color="white", fontsize=10, bbox={"facecolor": "black", "alpha": 0.45, "lw": 0, "pad": 1})

    def _axisOf(self, event: Any) -> Optional[int]:
        """Return the axis that the view under the mouse cuts."""
        return next((axis for axis, axes in self.axes.items() if axes is event.inaxes), None)

    def _scrolled(self, event: Any) -> None:
        """Move the cut of the view under the mouse by one plane."""
        axis = self._axisOf(event)
        if axis is not None:
            self.moveTo(**{AXIS_NAMES[axis]: self.position[axis] + (1 if event.button == "up" else -1)})

    def _pressed(self, event: Any) -> None:
        """Cut the other two views where the mouse is."""
        axis = self._axisOf(event)
        if axis is not None and event.button == 1:
            right, up = AXES[axis]
            self.moveTo(**{AXIS_NAMES[right]: event.xdata, AXIS_NAMES[up]: event.ydata})
