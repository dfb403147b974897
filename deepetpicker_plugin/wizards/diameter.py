"""The diameter of particles, drawn on a slice of a tomogram."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.windows.scene import Scene
from deepetpicker.windows.slices import SlicePanel
from deepetpicker.windows.window import FigureWindow, slider
from deepetpicker_plugin import convert
from deepetpicker_plugin.viewers.scene import sceneOfTables

LEAST_RADIUS_VOX = 1.0
START_VOX = 20.0
DRAWN = "#ff2fd0"  # unlike the colour of any class


@dataclasses.dataclass
class Diameters:
    """The diameters that are being drawn.

    Attributes
    ----------
    ids : list of int
        Class ids, ascending.
    values_ang : list of float
        Diameter of each class in angstrom.
    voxel_ang : float
        Voxel size in angstrom.
    chosen : int
        Number of the class that is drawn.
    """

    ids: List[int]
    values_ang: List[float]
    voxel_ang: float
    chosen: int = 0

    def draw(self, centre_xy_vox: Tuple[float, float], edge_xy_vox: Tuple[float, float]) -> float:
        """Set the chosen diameter to that of a circle given by its centre and a point on it; return it in angstrom."""
        radius_vox = max(LEAST_RADIUS_VOX, float(np.hypot(edge_xy_vox[0] - centre_xy_vox[0],
                                                          edge_xy_vox[1] - centre_xy_vox[1])))
        return self.set(2 * radius_vox * self.voxel_ang)

    def set(self, diameter_ang: float) -> float:
        """Set the chosen diameter in angstrom, rounded to one; return it."""
        self.values_ang[self.chosen] = max(1.0, float(round(diameter_ang)))
        return self.values_ang[self.chosen]

    def text(self) -> str:
        """Return the form's text: one diameter where all are equal, else ``0: 100, 1: 300``."""
        words = [f"{d:g}" for d in self.values_ang]
        return words[0] if len(set(words)) == 1 else ", ".join(f"{i}: {word}" for i, word in zip(self.ids, words))


def diametersOf(protocol: Any) -> Tuple[Scene, Diameters]:
    """Return what a training protocol's form gives: the annotated particles, and diameters to begin with.

    Raises
    ------
    InputError
        If no coordinates are chosen, or none lies in the tomograms.
    """
    sources = protocol.getSources()
    if not sources or not all(source.coordinates.getSize() for source in sources):
        raise InputError("Choose the particle coordinates first: the wizard draws on their tomograms.")
    tables, targets = protocol.readTables()
    shown = {ts: targets[ts] for ts in tables if ts in targets}
    if not shown:
        raise InputError("None of the tomograms has coordinates: the tsIds of the two sets must agree.")
    voxel = next(iter(shown.values())).samplingRate
    try:
        classes = protocol.getClasses(complete=False)
    except DeepETPickerError:  # something impossible in the form yet
        classes = protocol._sorted().classes
    start = {c.id: c.diameter_ang or START_VOX * voxel for c in classes}
    looks = {c.id: (c.name, start[c.id]) for c in classes}
    scene = sceneOfTables({ts: tables[ts] for ts in shown}, shown, looks)
    return scene, Diameters(list(start), list(start.values()), voxel)


class DiameterWindow(FigureWindow):
    """A slice with all annotated particles; a circle drawn with the mouse sets their diameter.

    Parameters
    ----------
    scene : Scene
        Tomograms and particles, a layer per class.
    diameters : Diameters
        Is changed.
    done : callable
        Takes the text for the form.
    parent : Tk widget, optional
        The form.
    """

    def __init__(self, scene: Scene, diameters: Diameters, done: Callable[[str], Any],
                 parent: Optional[tk.Misc] = None) -> None:
        super().__init__("Particle diameter", parent, (900, 900))
        self.scene, self.diameters, self.done = scene, diameters, done
        self.centre: Optional[Tuple[float, float]] = None

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        hint = ttk.Label(top, padding=6, text="Press the left button in the middle of a particle and pull to its edge. "
                         "The mouse wheel moves through the slices, with Ctrl it zooms.")
        hint.pack(fill=tk.X)
        hint.bind("<Configure>", lambda event: hint.configure(wraplength=event.width - 12))
        head = ttk.Frame(top)
        head.pack(fill=tk.X, padx=6)
        self.tomogram = tk.StringVar(top, value=self.scene.names[0])
        names = [layer.name for layer in self.scene.layers]
        self.className = tk.StringVar(top, value=names[0])
        for label, variable, values, command in (("Tomogram", self.tomogram, self.scene.names, self._chosen),
                                                 ("Class", self.className, names, self._classChosen)):
            ttk.Label(head, text=label).pack(side=tk.LEFT, padx=(0, 4))
            box = ttk.Combobox(head, textvariable=variable, values=values, state="readonly", width=18)
            box.pack(side=tk.LEFT, padx=(0, 14))
            box.bind("<<ComboboxSelected>>", lambda event, command=command: command())
        self._buildFoot(top)
        self.panel = SlicePanel(top, self.scene, (0,), self._moved)
        self.panel.extra = self._drawCentre
        self.panel.pack(fill=tk.BOTH, expand=True)
        for kind, command in (("button_press_event", self._pressed), ("motion_notify_event", self._pulled),
                              ("button_release_event", self._released)):
            self.panel.canvas.mpl_connect(kind, command)
        self._chosen()
        self._tell()

    def _buildFoot(self, top: tk.Toplevel) -> None:
        """Add slider, figures and buttons."""
        bar = ttk.Frame(top, padding=6)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        self.text = tk.StringVar(top)
        ttk.Label(bar, textvariable=self.text, font=("TkDefaultFont", 12, "bold")).pack(side=tk.LEFT)
        ttk.Button(bar, text="Cancel", command=self.close).pack(side=tk.RIGHT)
        self.ok = ttk.Button(bar, text="Use this diameter", command=self.accept)
        self.ok.pack(side=tk.RIGHT, padx=6)
        foot = ttk.Frame(top)
        foot.pack(side=tk.BOTTOM, fill=tk.X)
        self.plane = slider(foot, "slice z (voxels)", (0, 1), lambda value: self._slid(value))

    def _slid(self, value: float) -> None:
        """Move to a slice."""
        if self.panel.tomogram and int(value) != self.panel.position[0]:
            self.panel.move_to(z=value)

    def _moved(self) -> None:
        """Let the slider follow the mouse wheel."""
        self.plane.set(self.panel.position[0])

    def _chosen(self) -> None:
        """Show the chosen tomogram."""
        self.centre = None
        self.panel.show_tomogram(self.tomogram.get())
        self.plane.configure(to=self.scene.shape_zyx(self.panel.tomogram)[0] - 1)
        self._moved()

    def _classChosen(self) -> None:
        """Draw the diameter of another class from now on."""
        self.diameters.chosen = [layer.name for layer in self.scene.layers].index(self.className.get())
        self._tell()

    def _pressed(self, event: Any) -> None:
        """Begin a circle, in the middle of the annotated particle under the mouse if there is one."""
        if event.inaxes is None or event.button != 1 or "ctrl" in event.modifiers:
            return
        layer = self.scene.layers[self.diameters.chosen]
        radius = self.scene.radius_vox(layer, self.panel.tomogram)
        near = layer.circles(self.panel.tomogram, (0, self.panel.position[0]), radius)
        distances = np.hypot(near[:, 0] - event.xdata, near[:, 1] - event.ydata)
        self.centre = (event.xdata, event.ydata)
        if len(near) and distances.min() < radius / 2:
            self.centre = (float(near[distances.argmin(), 0]), float(near[distances.argmin(), 1]))

    def _pulled(self, event: Any) -> None:
        """Change the diameter while the button is down."""
        if self.centre is not None and event.inaxes is not None and event.button == 1:
            self.diameters.draw(self.centre, (event.xdata, event.ydata))
            self._tell()

    def _released(self, event: Any) -> None:
        """End the circle."""
        self.centre = None
        self.panel.changed()

    def _tell(self) -> None:
        """Show the diameter in both units, and all particles of the class with it."""
        number = self.diameters.chosen
        layer = self.scene.layers[number]
        diameter = self.diameters.values_ang[number]
        self.scene.layers[number] = dataclasses.replace(layer, diameter_ang=diameter)
        self.text.set(f"{layer.name}: {convert.inBoth(diameter, self.diameters.voxel_ang)}")
        self.panel.changed()

    def _drawCentre(self, axes: Any) -> None:
        """Draw the circle that is being pulled."""
        if self.centre is not None:
            from matplotlib.patches import Circle

            radius = self.diameters.values_ang[self.diameters.chosen] / self.diameters.voxel_ang / 2
            axes.add_patch(Circle(self.centre, radius, fill=False, edgecolor=DRAWN, linewidth=2.4))
            axes.plot(*self.centre, "+", color=DRAWN, markersize=12)

    def accept(self) -> None:
        """Set the form's value and close."""
        self.done(self.diameters.text())
        self.close()
