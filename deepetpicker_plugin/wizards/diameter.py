"""The diameter of particles, drawn on a slice of a tomogram."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.windows.scene import Scene
from deepetpicker.windows.slices import SlicePanel
from deepetpicker.windows.window import FigureWindow, slider
from deepetpicker_plugin.protocols import ProtDeepETPickerAnnotate, ProtDeepETPickerPropose
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.viewers.scene import sceneOfTables

LEAST_RADIUS_VOX = 1.0
START_VOX = 20.0
STILL_PX = 4
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
    """Return what a form gives to draw on: tomograms, particles where it has some, and diameters to begin with.

    Raises
    ------
    InputError
        If the form lacks what is drawn on, or it cannot be read.
    """
    if isinstance(protocol, ProtDeepETPickerPropose):
        found = _ofProposal(protocol)
    elif isinstance(protocol, ProtDeepETPickerAnnotate):
        found = _ofAnnotation(protocol)
    else:
        found = _ofTraining(protocol)
    found[0].volume(found[0].names[0])
    return found


def _ofTraining(protocol: Any) -> Tuple[Scene, Diameters]:
    """Return the annotated particles of a training."""
    sources = protocol.getSources()
    if not sources or not all(source.coordinates.getSize() for source in sources):
        raise InputError("Choose the particle coordinates first: the wizard draws on their tomograms.")
    tables, targets = protocol.readTables()
    shown = {ts: targets[ts] for ts in tables if ts in targets}
    if not shown:
        raise InputError("None of the tomograms has coordinates: the tsIds of the two sets must agree.")
    try:
        classes = protocol.getClasses(complete=False)
    except DeepETPickerError:  # something impossible in the form yet
        classes = protocol._sorted().classes
    return _drawnOn({ts: tables[ts] for ts in shown}, shown, classes)


def _ofProposal(protocol: Any) -> Tuple[Scene, Diameters]:
    """Return the tomograms in which particles are to be proposed, with the examples where there are some."""
    tomograms, examples = protocol.inputTomograms.get(), protocol.inputExamples.get()
    if tomograms is None:
        raise InputError("Choose the tomograms first: the wizard draws on them.")
    places = {ts: convert.Place.of(t) for ts, t in convert.tomogramsOf(tomograms).items()}
    tables = {}
    if examples is not None and examples.getSize():
        rows, sources = convert.readCoordinates(examples)
        tables = {ts: row.table(dict.fromkeys(row.groups, 1), convert.transfer(row.positions_xyz_vox, sources[ts],
                                                                               places[ts]))
                  for ts, row in rows.items() if ts in places}
    return _drawnOn(tables, places, [ParticleClass(1, "particle", protocol.diameterAngstrom.get() or 0.0)])


def _ofAnnotation(protocol: Any) -> Tuple[Scene, Diameters]:
    """Return the tomograms that are annotated or reviewed, with the coordinates to start from where there are some."""
    if protocol._tomograms() is None:
        raise InputError("Choose the tomograms first, or coordinates in them: the wizard draws on tomograms.")
    places = protocol._places()
    return _drawnOn(protocol._start(places), places, protocol._classes(), protocol._shown())


def _drawnOn(tables: Mapping[str, CoordinateTable], places: Mapping[str, convert.Place],
             classes: Sequence[ParticleClass], shown: Optional[Mapping[str, str]] = None) -> Tuple[Scene, Diameters]:
    """Return the scene of tables, which may be none, and the diameters of the classes, where unknown 20 voxels."""
    if not places:
        raise InputError("The set of tomograms is empty: choose one with tomograms.")
    voxel = next(iter(places.values())).samplingRate
    start = {c.id: c.diameter_ang or START_VOX * voxel for c in classes}
    looks = {c.id: (c.name, start[c.id]) for c in classes}
    return sceneOfTables(tables, places, looks, shown), Diameters(list(start), list(start.values()), voxel)


class DiameterWindow(FigureWindow):
    """A slice of a tomogram with a circle; drawn with the mouse or slid, it sets the diameter of particles.

    Particles that are there already are drawn with the same diameter.

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
        self._pressed_px: Optional[Tuple[float, float]] = None
        self._pulling = False

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        hint = ttk.Label(top, padding=6, text="Press the left button in the middle of a particle and pull to its edge, "
                         "or click there and slide the diameter. The mouse wheel moves through the slices, with Ctrl "
                         "it zooms. Average and low-pass change what is seen alone.")
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
        self.size = slider(foot, "diameter (Å)", (1, 100), self._sized)
        self.plane = slider(foot, "slice z (voxels)", (0, 1), lambda value: self._slid(value))
        self.average = slider(foot, "average (± planes)", (0, 10), lambda value: self._look(average=int(value)))
        self.smooth = slider(foot, "low-pass (voxels)", (0, 5), lambda value: self._look(smooth_vox=value), 0.25)

    def _look(self, **changes: Any) -> None:
        """Change how the slice is shown."""
        self.panel.look = dataclasses.replace(self.panel.look, **changes)
        self.panel.changed()

    def _slid(self, value: float) -> None:
        """Move to a slice."""
        if self.panel.tomogram and int(value) != self.panel.position[0]:
            self.panel.move_to(z=value)

    def _sized(self, value: float) -> None:
        """Take the diameter of the slider, unless it only follows."""
        if value != round(self.diameters.values_ang[self.diameters.chosen]):
            self.diameters.set(value)
            self._tell()

    def _moved(self) -> None:
        """Let the slider follow the mouse wheel."""
        self.plane.set(self.panel.position[0])

    def _chosen(self) -> None:
        """Show the chosen tomogram; without particles there the circle begins in the middle."""
        try:
            self.panel.show_tomogram(self.tomogram.get())
        except (DeepETPickerError, OSError) as error:
            self.text.set(str(error))
            self.tomogram.set(self.panel.tomogram)
            return
        name = self.panel.tomogram
        depth, *extents = self.scene.shape_zyx(name)
        self.centre = None
        if not any(len(layer.above(name)) for layer in self.scene.layers):
            self.centre = (float(self.panel.position[2]), float(self.panel.position[1]))
        self.plane.configure(to=depth - 1)
        self.size.configure(to=max(min(extents) * self.diameters.voxel_ang, *self.diameters.values_ang))
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
        self.centre, self._pressed_px = (event.xdata, event.ydata), (event.x, event.y)
        if len(near) and distances.min() < radius / 2:
            self.centre = (float(near[distances.argmin(), 0]), float(near[distances.argmin(), 1]))
        self.panel.changed()

    def _pulled(self, event: Any) -> None:
        """Change the diameter while the button is down."""
        if self._pressed_px is None or self.centre is None or event.inaxes is None:
            return
        if not self._pulling:  # a hand is not still when it clicks
            moved = np.hypot(event.x - self._pressed_px[0], event.y - self._pressed_px[1])
            self._pulling = bool(moved > STILL_PX)
        if self._pulling:
            self.diameters.draw(self.centre, (event.xdata, event.ydata))
            self._tell()

    def _released(self, event: Any) -> None:
        """End the pull; the circle stays."""
        self._pressed_px, self._pulling = None, False
        self.panel.changed()

    def _tell(self) -> None:
        """Show the diameter in both units, and all particles of the class with it."""
        number = self.diameters.chosen
        layer = self.scene.layers[number]
        diameter = self.diameters.values_ang[number]
        self.scene.layers[number] = dataclasses.replace(layer, diameter_ang=diameter)
        self.text.set(f"{layer.name}: {convert.inBoth(diameter, self.diameters.voxel_ang)}")
        self.size.set(diameter)
        self.panel.changed()

    def _drawCentre(self, axes: Any) -> None:
        """Draw the circle that was pulled or slid."""
        if self.centre is not None:
            from matplotlib.patches import Circle

            radius = self.diameters.values_ang[self.diameters.chosen] / self.diameters.voxel_ang / 2
            axes.add_patch(Circle(self.centre, radius, fill=False, edgecolor=DRAWN, linewidth=2.4))
            axes.plot(*self.centre, "+", color=DRAWN, markersize=12)

    def accept(self) -> None:
        """Set the form's value and close."""
        self.done(self.diameters.text())
        self.close()
