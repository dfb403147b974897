"""The score threshold, chosen on the histogram with the picks shown."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Optional, Sequence, Tuple

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.perclass import resolve
from deepetpicker.windows.picks import PicksWindow
from deepetpicker.windows.scene import Scene
from deepetpicker_plugin.protocols import ProtDeepETPickerPick
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.viewers.registered import classesOf, classesOfSets
from deepetpicker_plugin.viewers.scene import sceneOfTables

START = 0.5


def thresholdText(lows: Sequence[float], several: bool) -> str:
    """Return the form's text: one number when all are equal or only one is possible, else one per class.

    Parameters
    ----------
    lows : sequence of float
        Thresholds by ascending group id, which is how the forms read numbers without ids.
    several : bool
        Whether each class may have its own.
    """
    words = [f"{low:.3g}" for low in lows]
    return words[0] if len(set(words)) == 1 or not several else ", ".join(words)


def earlierRun(protocol: ProtDeepETPickerPick) -> Optional[ProtDeepETPickerPick]:
    """Return the picking run whose candidates say most about a form: itself, or the newest with the same model.

    Runs on the same tomograms go before others.
    """
    if protocol.inputModel.get() is None:
        return None
    if protocol.getObjId() is not None and protocol.getCandidates():
        return protocol
    model, tomograms = protocol.inputModel.get().getObjId(), protocol.inputTomograms.get()
    wanted = tomograms.getObjId() if tomograms is not None else None
    others = [run for run in protocol.getProject().getRuns(refresh=True)
              if isinstance(run, ProtDeepETPickerPick) and run.getObjId() != protocol.getObjId()
              and run.inputModel.get() is not None and run.inputModel.get().getObjId() == model
              and run.inputTomograms.get() is not None and run.getCandidates()]
    others.sort(key=lambda run: (run.inputTomograms.get().getObjId() == wanted, run.getObjId()))
    return others[-1] if others else None


def thresholdsOfPicking(protocol: ProtDeepETPickerPick) -> Tuple[Scene, List[float]]:
    """Return the candidates of an earlier picking run, and the threshold in the form per class.

    Raises
    ------
    InputError
        If no model is chosen or there is no such run.
    """
    run = earlierRun(protocol)
    if run is None:
        raise InputError("There are no scores yet: the wizard shows those of an earlier picking run with the same "
                         "model. Run it once; 'threshold picks' then changes the threshold without a new run.")
    model, tomograms = run.inputModel.get(), convert.tomogramsOf(run.inputTomograms.get())
    tables = run.getCandidates()
    places = {ts: convert.Place.of(t) for ts, t in tomograms.items() if ts in tables}
    card = model.getCard()
    try:
        lows = resolve(protocol.threshold.get(), card.classes, card.thresholds, "Score threshold")
    except DeepETPickerError:  # something else in the form yet
        lows = card.thresholds
    return sceneOfTables(tables, places, classesOf(model)), [low for _, low in sorted(lows.items())]


def thresholdsOfSet(protocol: Any) -> Tuple[Scene, List[float]]:
    """Return what the protocol *threshold picks* chooses from, and the thresholds in its form per class.

    Raises
    ------
    InputError
        If no picks are chosen or they have no scores.
    """
    coordinates = protocol.inputCoordinates.get()
    if coordinates is None or not coordinates.getSize():
        raise InputError("Choose the picks first: the wizard shows their scores.")
    tables = protocol._tables()
    groups = protocol._groups(tables)
    tomograms = convert.tomogramsOf(coordinates.getPrecedents())
    places = {ts: convert.Place.of(t) for ts, t in tomograms.items() if ts in tables}
    known = classesOfSets([coordinates], protocol.getProject())
    box_ang = (coordinates.getBoxSize() or 20) * coordinates.getSamplingRate()
    classes = {g: known.get(g, (f"class {g}" if g else "particles", box_ang)) for g in groups}
    try:
        lows = [limit[0] for _, limit in sorted(protocol._limits(groups).items())]
    except DeepETPickerError:  # something else in the form yet
        lows = [START] * len(groups)
    scene = sceneOfTables(tables, places, classes)
    if len({s for layer in scene.layers for s in layer.all_scores()}) < 2:
        raise InputError("These picks have no scores, or all the same: there is nothing to choose by.")
    return scene, lows


class ThresholdWindow(PicksWindow):
    """The window of picks with a button that takes the threshold over.

    Parameters
    ----------
    scene : Scene
        Candidates, a layer per class.
    lows : sequence of float
        Thresholds to begin with, per class.
    several : bool
        Whether each class may have its own.
    done : callable
        Takes the text for the form.
    parent : Tk widget, optional
        The form.
    """

    def __init__(self, scene: Scene, lows: Sequence[float], several: bool, done: Callable[[str], Any],
                 parent: Optional[tk.Misc] = None) -> None:
        super().__init__("Score threshold", scene, parent, lows)
        self.several, self.done = several, done

    def _choices(self) -> List[str]:
        """Return what the slider can belong to."""
        return super()._choices() if self.several else super()._choices()[:1]

    def _build_footer(self, parent: tk.Misc) -> None:
        """Add the buttons."""
        bar = ttk.Frame(parent, padding=6)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        ttk.Button(bar, text="Cancel", command=self.close).pack(side=tk.RIGHT)
        self.ok = ttk.Button(bar, text="Use this threshold", command=self.accept)
        self.ok.pack(side=tk.RIGHT, padx=6)
        super()._build_footer(parent)

    def accept(self) -> None:
        """Set the form's value and close."""
        self.done(thresholdText(self.lows, self.several))
        self.close()
