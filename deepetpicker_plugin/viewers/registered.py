"""What *Analyze results* opens."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from pyworkflow.object import Pointer
from pyworkflow.protocol import Protocol
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer
from tomo.objects import SetOfCoordinates3D

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.windows.charts import EvaluationWindow, HistogramWindow, TrainingWindow
from deepetpicker.windows.picks import PicksWindow
from deepetpicker.windows.scene import Scene
from deepetpicker.windows.window import FigureWindow, state_of
from deepetpicker_plugin.constants import PICKS_DIR
from deepetpicker_plugin.engine import pages
from deepetpicker_plugin.epochs import readRows
from deepetpicker_plugin.objects import DeepETPickerEvaluation, DeepETPickerModel
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerAnnotate,
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerImportModel,
    ProtDeepETPickerPick,
    ProtDeepETPickerPropose,
    ProtDeepETPickerRefine,
    ProtDeepETPickerReview,
    ProtDeepETPickerSimulate,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.protocols.protocol_annotate import newestCoordinates
from deepetpicker_plugin.protocols.protocol_compare import BOTH, ONLY_FIRST, ONLY_SECOND
from deepetpicker_plugin.sets import classes, convert
from deepetpicker_plugin.sets.classes import lookOf
from deepetpicker_plugin.viewers.rounds import makerOf, namesOfModels, roundsOf
from deepetpicker_plugin.viewers.scene import sceneOfSets

NAMES = {BOTH: "in both", ONLY_FIRST: "only in the first", ONLY_SECOND: "only in the second"}


class DeepETPickerViewer(Viewer):
    """Base of the viewers: windows, or a message where there is nothing to show."""

    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[Any]:
        """Return the windows for an object or protocol."""
        try:
            return [self._noticing(window, obj) for window in self._windows(obj)]
        except (DeepETPickerError, OSError, ValueError) as error:
            return [self.errorMessage(str(error), "DeepETPicker")]

    def _windows(self, obj: Any) -> List[Any]:
        """Return the windows; an error becomes a message."""
        raise NotImplementedError

    def _noticing(self, window: Any, obj: Any) -> Any:
        """Let a window notice when the results of an object are made anew; messages and curves of training not."""
        if isinstance(window, FigureWindow) and not isinstance(window, TrainingWindow):
            files, newest = filesOf(obj), functools.partial(newestOf, obj, nameOf(obj, self.getProject()))
            window.notice(lambda: state_of(files), lambda: self._again(newest(self.getProject())))
        return window

    def _again(self, obj: Any) -> FigureWindow:
        """Return the window on the newest results of an object.

        Raises
        ------
        InputError
            If there are none yet.
        """
        window = self._noticing(self._windows(obj)[0], obj)
        if not isinstance(window, FigureWindow):
            raise InputError("there are no results yet")
        return window

    def _nothing(self, what: str) -> List[Any]:
        """Return the message that there is nothing yet."""
        return [self.infoMessage(what, "DeepETPicker")]


class DeepETPickerTrainingViewer(DeepETPickerViewer):
    """Training curves of a run, while it runs too, or of a model."""

    _name = "DeepETPicker training curves"
    _targets = [ProtDeepETPickerTrain, ProtDeepETPickerRefine, DeepETPickerModel, ProtDeepETPickerImportModel]

    def _windows(self, obj: Any) -> List[Any]:
        """Return the window with the curves."""
        if isinstance(obj, ProtDeepETPickerTrain):
            project, seen = self.getProject(), [state_of([obj.getDbPath()])]

            def running() -> bool:
                state = state_of([obj.getDbPath()])
                if obj.isActive() or state not in (seen[0], [None]):  # it may be run again while the window is open
                    seen[0] = state
                    project._updateProtocol(obj)
                return bool(obj.isActive())

            return [TrainingWindow(f"Training: {obj.getRunName()}",
                                   lambda: readRows(obj.getMetricsFile()), running, self.getTkRoot(),
                                   pages.pageOfTraining(obj, namesOfModels(obj, project)),
                                   lambda: roundsOf(obj, project), lambda: isPartial(obj))]
        model = getattr(obj, "model", None) if isinstance(obj, ProtDeepETPickerImportModel) else obj
        if model is None:
            return self._nothing("No model was imported yet.")
        rows = [dict(row) for row in model.getCard().validation]
        if not rows:
            return self._nothing(f"{model}\nThe model says nothing about its training.")
        maker = self.getProject().getProtocol(int(model.getObjParentId()))
        return [TrainingWindow(f"Training: {model}", lambda: rows, lambda: False, self.getTkRoot(),
                               pages.pageOfModel(maker, model.getFileName(), namesOfModels(maker, self.getProject())),
                               lambda: roundsOf(maker, self.getProject()), lambda: model.getCard().is_partial)]


class DeepETPickerPicksViewer(DeepETPickerViewer):
    """Picks over slices of their tomograms, with a filter by score."""

    _name = "DeepETPicker picks on slices"
    _targets = [ProtDeepETPickerPick, ProtDeepETPickerPropose, ProtDeepETPickerThreshold, ProtDeepETPickerCompare,
                ProtDeepETPickerSimulate, ProtDeepETPickerAnnotate, ProtDeepETPickerReview, SetOfCoordinates3D]

    def _windows(self, obj: Any) -> List[Any]:
        """Return the window with the picks."""
        if isinstance(obj, ProtDeepETPickerAnnotate):
            obj = newestCoordinates(obj) or obj
        scene = sceneOf(obj, self.getProject())
        if not scene.layers:
            return self._nothing("There are no picks yet.")
        sets = [obj] if isinstance(obj, SetOfCoordinates3D) else [
            s for _, s in obj.iterOutputAttributes(SetOfCoordinates3D) if s.getSize()]
        extras = [("Review these", lambda: self.review(sets[0])),
                  ("Annotate from these", lambda: self.annotate(sets[0]))] if len(sets) == 1 else []
        return [PicksWindow(f"Picks: {titleOf(obj)}", scene, self.getTkRoot(), extras=extras, page=self._page(obj))]

    def _page(self, obj: Any) -> Optional[Callable[[], str]]:
        """Return what makes the page of a picking, or of the picking that a set comes from; None for others."""
        if isinstance(obj, SetOfCoordinates3D):
            parent = obj.getObjParentId()
            obj = self.getProject().getProtocol(int(parent)) if parent is not None else None
        if not isinstance(obj, ProtDeepETPickerPick):
            return None
        names = namesOfModels(makerOf(obj.inputModel.get(), self.getProject()), self.getProject())
        return pages.pageOfPicks(obj, obj._getExtraPath(PICKS_DIR), names)

    def annotate(self, coordinates: SetOfCoordinates3D) -> ProtDeepETPickerAnnotate:
        """Add the protocol *annotate particles* that starts from a set to the project, launch it and return it."""
        return self._launch(ProtDeepETPickerAnnotate, coordinates)

    def review(self, coordinates: SetOfCoordinates3D) -> ProtDeepETPickerReview:
        """Add the protocol *review picks* of a set to the project, launch it and return it."""
        return self._launch(ProtDeepETPickerReview, coordinates)

    def _launch(self, kind: Any, coordinates: SetOfCoordinates3D) -> Any:
        """Add a protocol that opens a window on a set of coordinates to the project, launch it and return it."""
        project = self.getProject()
        protocol = project.newProtocol(kind)
        protocol.inputTomograms.copy(pointerTo(coordinates.getPrecedents(), project))
        protocol.inputCoordinates.copy(pointerTo(coordinates, project))
        project.launchProtocol(protocol)
        return protocol


class DeepETPickerScoresViewer(DeepETPickerViewer):
    """Histogram of the scores of picks."""

    _name = "DeepETPicker score histogram"
    _targets = [SetOfCoordinates3D]

    def _windows(self, obj: Any) -> List[Any]:
        """Return the window with the histogram."""
        layers = sceneOf(obj, self.getProject()).layers
        return [HistogramWindow(f"Scores: {titleOf(obj)}", {n.name: (n.colour, n.all_scores()) for n in layers},
                                self.getTkRoot())]


class DeepETPickerEvaluationViewer(DeepETPickerViewer):
    """Figures, curves and report of an evaluation."""

    _name = "DeepETPicker evaluation"
    _targets = [ProtDeepETPickerEvaluate, DeepETPickerEvaluation]

    def _windows(self, obj: Any) -> List[Any]:
        """Return the window with the evaluation."""
        found = getattr(obj, "evaluation", None) if isinstance(obj, ProtDeepETPickerEvaluate) else obj
        if found is None:
            return self._nothing("Nothing was evaluated yet.")
        return [EvaluationWindow(f"Evaluation: {titleOf(obj)}", keyFigures(found), readRows(found.getCurveFile()),
                                 found.getReport(), self.getTkRoot(), found.getPerClass(), found.getLowestScore())]


def isPartial(training: ProtDeepETPickerTrain) -> bool:
    """Tell whether many particles were not annotated; as long as there is no model, whether the form says so."""
    model = getattr(training, "model", None)
    if model is not None:
        return bool(model.getCard().is_partial)
    return bool(training._options()["unannotated"] == "unknown")


def filesOf(obj: Any) -> List[str]:
    """Return the files that change when the results of a protocol, or an output, are made anew."""
    if not isinstance(obj, Protocol):
        return [obj.getFileName()] if hasattr(obj, "getFileName") else sorted(obj.getFiles())
    versions = [obj.getDbPath()] if isinstance(obj, ProtDeepETPickerAnnotate) else []  # each of them is a new output
    return [*versions, *(path for _, output in obj.iterOutputAttributes() for path in filesOf(output))]


def nameOf(obj: Any, project: Any) -> str:
    """Return what the protocol that made an output calls it; nothing for protocols and what no protocol made."""
    if isinstance(obj, Protocol) or obj.getObjParentId() is None:
        return ""
    return str(pointerTo(obj, project).getExtended())


def newestOf(obj: Any, name: str, project: Any) -> Any:
    """Return a protocol, or its output of a name, as they are in the project now.

    Raises
    ------
    InputError
        If the protocol is gone, or has no such output, or not yet.
    """
    number = int(obj.getObjParentId() if name else obj.getObjId())
    if not project.doesProtocolExists(number):
        raise InputError("the run is no longer in the project")
    maker = project.getProtocol(number)
    project._updateProtocol(maker)
    found = getattr(maker, name, None) if name else maker
    if found is None or not any(True for _ in maker.iterOutputAttributes()):
        raise InputError(f"{maker.getRunName()} has no results yet ({maker.getStatus()})")
    return found


def pointerTo(output: Any, project: Any) -> Pointer:
    """Return a pointer to an output of a protocol, as the forms make it."""
    maker = project.getProtocol(int(output.getObjParentId()))
    return Pointer(maker, extended=next(name for name, other in maker.iterOutputAttributes()
                                        if other.getObjId() == output.getObjId()))


def titleOf(obj: Any) -> str:
    """Return what a window's title calls an object or protocol."""
    return obj.getRunName() if hasattr(obj, "getRunName") else str(obj.getObjLabel() or obj)


def keyFigures(found: DeepETPickerEvaluation) -> List[Tuple[str, str]]:
    """Return the names and values of an evaluation's main figures, with units; a dash where unknown."""
    def text(attribute: Any, form: str) -> str:
        return "-" if attribute.get() is None else form.format(attribute.get())

    lowest, best = found.getLowestScore(), found.getBest()
    return [("F1", text(found._f1, "{:.3f}")), ("Precision", text(found._precision, "{:.3f}")),
            ("Recall", text(found._recall, "{:.3f}")), ("Reference particles", text(found._nTruth, "{}")),
            ("Picks", text(found._nPicks, "{}")), ("Hits", text(found._nHits, "{}")),
            ("Mean distance of hits", text(found._meanDistance, "{:.1f} Å")),
            ("Lowest score that counts", f"{lowest:g}" if lowest else "all count"),
            ("Best F1 of all thresholds", f"{best[0]:.3f}" if best else "-"),
            ("is at the threshold", f"{best[1]:.3f}" if best else "-")]


def sceneOf(obj: Any, project: Any) -> Scene:
    """Return the scene of a protocol's coordinates or of one set."""
    if isinstance(obj, SetOfCoordinates3D):
        return sceneOfSets({titleOf(obj): obj}, classesOfSets([obj], project)) if obj.getSize() else Scene([], [])
    sets = {name: s for name, s in obj.iterOutputAttributes(SetOfCoordinates3D) if s.getSize()}
    if not sets:
        return Scene([], [])
    if isinstance(obj, ProtDeepETPickerCompare):
        ordered = [name for name in (BOTH, ONLY_FIRST, ONLY_SECOND) if name in sets]
        return sceneOfSets({NAMES[name]: sets[name] for name in ordered}, classesOfSets(sets.values(), project), False)
    return sceneOfSets(sets, classesOfSets(sets.values(), project))


def classesOfSets(sets: Iterable[SetOfCoordinates3D], project: Any) -> convert.Classes:
    """Return name and diameter (angstrom) of the classes of some sets; the first set that knows a class says it."""
    found: convert.Classes = {}
    for coordinates in sets:
        parent = coordinates.getObjParentId()
        known = lookOf(classes.knownClasses(coordinates)) or knownClasses(
            project.getProtocol(int(parent)) if parent is not None else None, project)
        found = {**known, **found}
    return found


def knownClasses(maker: Any, project: Any) -> convert.Classes:
    """Return name and diameter (angstrom) of the classes of a protocol's picks, for sets that do not carry them.

    Sets made before sets could carry them are such. Empty when unknown.
    """
    seen: List[Any] = []
    while maker is not None and maker not in seen:
        seen.append(maker)
        if isinstance(maker, ProtDeepETPickerPick):
            model = maker.inputModel.get()
            return classesOf(model) if model is not None else {}
        source = None
        for name in ("inputCoordinates", "inputFirst"):
            if isinstance(maker, (ProtDeepETPickerThreshold, ProtDeepETPickerCompare)) and hasattr(maker, name):
                source = getattr(maker, name).get()
        parent = source.getObjParentId() if source is not None else None
        maker = project.getProtocol(int(parent)) if parent is not None else None
    return {}


def classesOf(model: DeepETPickerModel) -> Dict[int, Tuple[str, float]]:
    """Return name and diameter (angstrom) of a model's classes by id."""
    return {i: (n, d) for i, n, d in zip(model.getClassIds(), model.getClassNames(), model.getDiameters())}
