"""The panel with linked slices of a tomogram and the circles of its particles."""

from __future__ import annotations

import functools
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.windows.render import Look, view_picture
from deepetpicker.windows.scene import AXES, AXIS_NAMES, Scene, scale_bar
from deepetpicker.windows.viewport import STEP, Viewport
from deepetpicker.windows.window import PAPER, canvas_of

CROSS, BAND = "#ffd33d", "#ff2fd0"
Point = Tuple[int, np.ndarray]  # axis that the view cuts, and the position (3,) z, y, x in voxels


class Tool:
    """What the left and the right mouse button do in the views: here they move the cross."""

    def __init__(self, panel: SlicePanel) -> None:
        self.panel = panel

    def press(self, point: Point, event: Any) -> None:
        """Handle the left button pressed at a point."""
        self.drag(point, event)

    def drag(self, point: Point, event: Any) -> None:
        """Handle the mouse moved with the left button down."""
        axis, position = point
        right, up = AXES[axis]
        self.panel.move_to(**{AXIS_NAMES[right]: position[right], AXIS_NAMES[up]: position[up]})

    def release(self, point: Point, event: Any) -> None:
        """Handle the left button let go."""

    def remove(self, point: Point, event: Any) -> None:
        """Handle the right button pressed at a point."""

    def decorate(self, axis: int, axes: Any) -> None:
        """Add something to a view that is being drawn."""


class SlicePanel(ttk.Frame):
    """Linked slices of a tomogram with the circles of its particles.

    The wheel steps through slices, with Ctrl it zooms; Ctrl with the left button draws the part to enlarge; the middle
    button moves what is seen.

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
        self.scene, self.moved, self.tomogram = scene, moved, ""
        self.position: List[int] = [0, 0, 0]
        self.under = 0  # axis of the view under the mouse, z where there is none
        self.look = Look()
        self.lows = [-np.inf] * len(scene.layers)
        self.visible = [True] * len(scene.layers)
        self.figure = Figure(figsize=(7, 7), dpi=100, facecolor=PAPER)
        self.canvas = canvas_of(self, self.figure)
        self.canvas.get_tk_widget().pack(fill=tk.BOTH, expand=True)
        self.cuts = tuple(axes)
        self.axes: Dict[int, Any] = {}
        self._frames: Dict[int, _Frame] = {}
        self.circles: Dict[int, int] = {}
        self.extra: Optional[Callable[[Any], Any]] = None
        self.tool: Optional[Tool] = Tool(self) if len(self.cuts) > 1 else None
        self.pointed: Optional[Callable[[Optional[Point]], Any]] = None
        self.viewport = Viewport((2, 2, 2), cuts=self.cuts)
        self._due: Optional[str] = None
        self._pictures: Dict[int, Tuple[Any, Any]] = {}
        self._gesture: Optional[Tuple[str, int, Tuple[float, float]]] = None
        self._band: Optional[Tuple[float, float]] = None
        for kind, command in (("scroll_event", self._scrolled), ("button_press_event", self._pressed),
                              ("motion_notify_event", self._dragged), ("button_release_event", self._released),
                              ("resize_event", lambda event: self._resized()), ("figure_leave_event", self._left)):
            self.canvas.mpl_connect(kind, command)

    # ---- what is shown
    def show_tomogram(self, name: str) -> None:
        """Show another tomogram, at its busiest voxel.

        Raises
        ------
        DeepETPickerError
            If it cannot be opened; what was shown before stays.
        """
        self.scene.volume(name)
        self.tomogram = name
        self.position = list(self.scene.busiest(name))
        self.viewport = Viewport(self.scene.shape_zyx(name), self._size(), self.cuts)
        self.figure.clear()
        self.axes = {axis: self._new_view(axis) for axis in self.cuts}
        self._place()
        self.changed()

    def _new_view(self, axis: int) -> Any:
        """Return the axes of one view."""
        axes = self.figure.add_axes((0, 0, 1, 1), label=AXIS_NAMES[axis])
        axes.set_axis_off()
        axes.add_artist(plane_artist()(functools.partial(self._picture, axis)))
        self._frames[axis] = _Frame(axes, len(self.cuts) > 1, axis == 0)
        return axes

    def _picture(self, axis: int, size_px: Tuple[int, int]) -> np.ndarray:
        """Return the picture of a view, (height, width, 4), in the voxels that are shown."""
        volume, factor = self.scene.volume(self.tomogram), self.scene.factor_zyx(self.tomogram)
        right, up = AXES[axis]
        left, other, low, high = self.viewport.window(axis)
        window = [(edge + 0.5) * factor[place] - 0.5 for edge, place in
                  ((left, right), (other, right), (low, up), (high, up))]
        plane = int(np.clip(round((self.position[axis] + 0.5) * factor[axis] - 0.5), 0, volume.shape[axis] - 1))
        wanted = (self.tomogram, plane, tuple(window), size_px, self.look)
        if self._pictures.get(axis, (None, None))[0] != wanted:
            self._pictures[axis] = (wanted, view_picture(volume, (axis, plane), window, size_px, self.look))
        return self._pictures[axis][1]

    def _size(self) -> Tuple[int, int]:
        """Return width and height of the canvas in pixels."""
        width, height = self.canvas.get_width_height(physical=True)
        return max(int(width), 40), max(int(height), 40)

    def _resized(self) -> None:
        """Fit the views to another size of the window."""
        self.viewport.resize(self._size())
        if self.axes:
            self._place()
            self.changed()

    def _place(self) -> None:
        """Put the views where the viewport wants them."""
        width, height = self.viewport.size_px
        rectangles = self.viewport.rectangles()
        for axis, axes in self.axes.items():
            left, bottom, wide, high = rectangles[axis]
            axes.set_position((left / width, bottom / height, wide / width, high / height))

    def move_to(self, **planes: float) -> None:
        """Move the cut along some axes (``z=12``), to the nearest plane inside the tomogram; zoomed views follow."""
        self._set_position(planes)
        self.viewport.follow(self.position)
        self.changed()

    def centre_on(self, position_zyx_vox: Sequence[float]) -> None:
        """Move the cuts to a position, and what is seen so that it is in the middle."""
        self._set_position(dict(zip(AXIS_NAMES, position_zyx_vox)))
        self.viewport.follow(self.position, centred=True)
        self.changed()

    def _set_position(self, planes: Mapping[str, float]) -> None:
        """Take over planes by the name of their axis."""
        shape = self.scene.shape_zyx(self.tomogram)
        for name, plane in planes.items():
            axis = AXIS_NAMES.index(name)
            self.position[axis] = int(np.clip(round(plane), 0, shape[axis] - 1))

    def step(self, axis: int, planes: int) -> None:
        """Move the cut of an axis by planes."""
        self.move_to(**{AXIS_NAMES[axis]: self.position[axis] + planes})

    def zoom(self, factor: float) -> None:
        """Enlarge by a factor about the cross; 0 shows everything."""
        if factor:
            self.viewport.zoom(factor, self.position)
        else:
            self.viewport.fit()
        self.changed()

    # ---- drawing
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
            self._draw_cut(axis, axes)
        if self.extra is not None and self.axes:
            self.extra(self.axes[0])
        self.canvas.draw()

    def _draw_cut(self, axis: int, axes: Any) -> None:
        """Make the parts of one view, but for its picture."""
        from matplotlib.collections import EllipseCollection

        for artist in [*axes.collections, *axes.lines, *axes.texts, *axes.patches]:
            if artist not in self._frames[axis].artists:
                artist.remove()
        left, right, low, high = self.viewport.window(axis)
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        self.circles[axis] = 0
        for number, layer in enumerate(self.scene.layers):
            if not self.visible[number]:
                continue
            found = layer.circles(self.tomogram, (axis, self.position[axis]),
                                  self.scene.radius_vox(layer, self.tomogram), self.lows[number])
            self.circles[axis] += len(found)
            axes.add_collection(EllipseCollection(
                2 * found[:, 2], 2 * found[:, 2], np.zeros(len(found)), units="xy", offsets=found[:, :2],
                offset_transform=axes.transData, facecolors="none", edgecolors=layer.colour, linewidths=1.8,
                linestyles=layer.dashes))
        self._decorate(axis, axes)
        if self.tool is not None:
            self.tool.decorate(axis, axes)

    def _decorate(self, axis: int, axes: Any) -> None:
        """Bring the lines of the other cuts, title and scale bar up to date, and draw the rectangle to enlarge."""
        right, up = AXES[axis]
        left, end, low, high = self.viewport.window(axis)
        title = f"{AXIS_NAMES[axis]} = {self.position[axis]}"
        frame = self._frames[axis]
        frame.show(f"{self.tomogram}, {title}" if axis == 0 else title, self.position[right], self.position[up])
        if self._gesture is not None and self._gesture[0] == "band" and self._gesture[1] == axis and self._band:
            (x, y), (a, b) = self._gesture[2], self._band
            axes.plot([x, a, a, x, x], [y, y, b, b, y], color=BAND, linewidth=1.4)
        if axis == 0:
            length, label = scale_bar(end - left, self.scene.voxel_size_ang(self.tomogram))
            x = min(end, self.scene.shape_zyx(self.tomogram)[2] - 0.5) - 0.03 * (end - left)
            y = max(low, -0.5) + 0.03 * (high - low)  # on the picture, not beside it
            frame.show_bar(x - length, x, y, label)

    # ---- the mouse
    def point(self, event: Any) -> Optional[Point]:
        """Return the view under the mouse and the position there; None beside the views."""
        axis = next((axis for axis, axes in self.axes.items() if axes is event.inaxes), None)
        if axis is None:
            return None
        return axis, self._position(axis, event.xdata, event.ydata)

    def _position(self, axis: int, right_vox: float, up_vox: float) -> np.ndarray:
        """Return the position (3,) z, y, x of a point in a view."""
        position = np.array(self.position, float)
        position[list(AXES[axis])] = right_vox, up_vox
        return position

    def _scrolled(self, event: Any) -> None:
        """Move the cut of the view under the mouse by one plane; with Ctrl, zoom."""
        found = self.point(event)
        if found is None:
            return
        steps = 1 if event.button == "up" else -1
        if "ctrl" in event.modifiers:
            self.viewport.zoom(STEP ** steps, found[1].tolist())
            self.changed()
        else:
            self.step(found[0], steps * (10 if "shift" in event.modifiers else 1))

    def _pressed(self, event: Any) -> None:
        """Begin what a button does."""
        found = self.point(event)
        if found is None:
            return
        self.canvas.get_tk_widget().focus_set()
        at = (event.xdata, event.ydata)
        if event.button == 1 and "ctrl" in event.modifiers:
            self._gesture, self._band = ("band", found[0], at), None
        elif event.button == 2:
            self._gesture = ("pan", found[0], at)
        elif self.tool is not None and event.button == 1:
            self._gesture = ("tool", found[0], at)
            self.tool.press(found, event)
        elif self.tool is not None and event.button == 3:
            self.tool.remove(found, event)

    def _dragged(self, event: Any) -> None:
        """Go on with it; outside the view it began in, its nearest point counts."""
        if self._gesture is None:
            found = self.point(event)
            self.under = 0 if found is None else found[0]
            if self.pointed is not None:
                self.pointed(found)
            return
        kind, axis, start = self._gesture
        x, y = self.axes[axis].transData.inverted().transform((event.x, event.y))
        if kind == "pan":
            self.viewport.pan(axis, (x - start[0], y - start[1]))
            self.axes[axis].set_xlim(self.viewport.window(axis)[:2])
            self.axes[axis].set_ylim(self.viewport.window(axis)[2:])
            self.changed()
        elif kind == "band":
            self._band = (x, y)
            self.changed()
        elif self.tool is not None:
            self.tool.drag((axis, self._inside(axis, x, y)), event)

    def _left(self, event: Any) -> None:
        """Notice that the mouse is beside the views."""
        self.under = 0

    def _inside(self, axis: int, right_vox: float, up_vox: float) -> np.ndarray:
        """Return the position of a point in a view, moved to the tomogram's outer edge when it is beyond."""
        shape = np.array(self.scene.shape_zyx(self.tomogram))
        return np.clip(self._position(axis, right_vox, up_vox), -0.5, shape - 0.5)

    def _released(self, event: Any) -> None:
        """End what the pressed button began."""
        if self._gesture is None:
            return
        kind, axis, start = self._gesture
        self._gesture, band, self._band = None, self._band, None
        if kind == "band" and band is not None and max(abs(band[0] - start[0]), abs(band[1] - start[1])) > 1:
            self.viewport.show_band(axis, start, band)
        elif kind == "tool" and self.tool is not None:
            x, y = self.axes[axis].transData.inverted().transform((event.x, event.y))
            self.tool.release((axis, self._inside(axis, x, y)), event)
        self.changed()


class _Frame:
    """What every picture of a view has: a title, the lines of the other cuts, a scale bar. Making them anew is slow.

    Parameters
    ----------
    axes : matplotlib Axes
        The view.
    crossed : bool
        Whether other cuts are seen in it.
    measured : bool
        Whether it has a scale bar.
    """

    def __init__(self, axes: Any, crossed: bool, measured: bool) -> None:
        box = {"facecolor": "black", "alpha": 0.45, "lw": 0, "pad": 2}
        self._cross = [line(0, color=CROSS, linewidth=0.7, alpha=0.7) for line in (axes.axvline, axes.axhline)
                       if crossed]
        self._title = axes.annotate("", (0, 1), (3, -3), xycoords="axes fraction", textcoords="offset points",
                                    ha="left", va="top", color="white", fontsize=9, bbox=box)
        self._bars = [axes.plot([], [], solid_capstyle="butt", **look)[0] for look in (
            {"color": "black", "linewidth": 6, "alpha": 0.6}, {"color": "white", "linewidth": 3}) if measured]
        self._label = axes.annotate("", (0, 0), xytext=(0, 5), textcoords="offset points", ha="center", color="white",
                                    fontsize=10, bbox=box) if measured else None
        self.artists = {*self._cross, self._title, *self._bars, self._label}

    def show(self, title: str, right_vox: float, up_vox: float) -> None:
        """Show a title, and where the other cuts are."""
        self._title.set_text(title)
        for line, set_data, place in zip(self._cross, ("set_xdata", "set_ydata"), (right_vox, up_vox)):
            getattr(line, set_data)([place, place])

    def show_bar(self, left_vox: float, right_vox: float, up_vox: float, label: str) -> None:
        """Show a scale bar between two points with its length."""
        for line in self._bars:
            line.set_data(np.array([left_vox, right_vox]), np.array([up_vox, up_vox]))
        if self._label is not None:
            self._label.xy = ((left_vox + right_vox) / 2, up_vox)
            self._label.set_text(label)


@functools.lru_cache(maxsize=None)
def plane_artist() -> Any:
    """Return the class of matplotlib artists that draw a picture as large as their axes, pixel for pixel."""
    from matplotlib.artist import Artist

    class PlaneImage(Artist):
        """Draws what a function returns for a width and height in pixels."""

        def __init__(self, picture: Callable[[Tuple[int, int]], np.ndarray]) -> None:
            super().__init__()
            self.picture = picture
            self.set_zorder(-1)

        def draw(self, renderer: Any) -> None:
            """Draw the picture."""
            axes: Any = self.axes
            box = axes.bbox
            left, bottom = round(box.x0), round(box.y0)
            size = (max(round(box.x1) - left, 1), max(round(box.y1) - bottom, 1))
            context = renderer.new_gc()
            renderer.draw_image(context, left, bottom, self.picture(size)[::-1])
            context.restore()

    return PlaneImage
