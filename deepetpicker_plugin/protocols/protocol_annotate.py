"""Annotate particles in the window."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from pyworkflow.protocol import MODE_RESTART, params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D

from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version, unseen_in, versions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.atomic import whole
from deepetpicker.io.classes import ParticleClass, read_classes
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.regions import NEGATIVES, REGIONS, read_negatives
from deepetpicker_plugin.constants import ANNOTATION_DIR
from deepetpicker_plugin.engine.process import backgroundCommand
from deepetpicker_plugin.objects import DeepETPickerRegions
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.protocols.protocol_propose import ProtDeepETPickerPropose
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import UNKNOWN_VOX, classesOf, setClasses, tableLines, withDiameters, withNames

UNSEEN = ("automatic", "keep", "leave out")
AUTOMATIC, KEEP, LEAVE = range(len(UNSEEN))
COORDINATES, NEGATIVE_OUTPUT, REGION_OUTPUT = "coordinates", "negatives", "regions"


class ProtDeepETPickerAnnotate(ProtDeepETPickerBase):
    """Mark particles, places without one, and boxes that are annotated completely, in a window.

    Every click is on disk at once. When the window is closed the particles become an output; *Execute* opens it again
    where it ended, and what is changed then becomes one more output: earlier ones stay as they are. Tomograms may be
    left out, and annotated in part. The particles are what *train* takes.
    """

    _label = "annotate particles"
    marksSome = True  # of what it puts out: there may be more particles than those marked
    _possibleOutputs = {COORDINATES: SetOfCoordinates3D, NEGATIVE_OUTPUT: SetOfCoordinates3D,
                        REGION_OUTPUT: DeepETPickerRegions}

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms", help="They may differ in size. Not all of them have to be annotated.")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", allowsNull=True,
                      label="Start from coordinates (optional)",
                      help="Particles to correct: picks of any program, also of another binning. They are drawn dashed "
                      "until somebody has looked at them.")
        form.addParam("shownTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms to show (optional)",
                      help="Other versions of the same tomograms, with the same tsIds, that are shown in their place: "
                      "denoised, or of another binning. The coordinates belong to the tomograms above.")
        form.addParam("classNames", params.StringParam, default="", label="Class names",
                      help="Names separated by commas, as ribosome, proteasome: they become the classes 1, 2, ... With "
                      "coordinates to start from: names of their classes, by group id, as 0: ribosome. Classes can be "
                      "added, named and measured in the window, too.")
        form.addParam("diameterAngstrom", params.StringParam, default="", label="Particle diameter (Å)",
                      help="One for all classes, or by group id (or name): 1: 250, 2: 140. Empty: that of the "
                      "coordinates to start from, else 20 voxels. It can be changed in the window.")
        self._defineUnseen(form)

    @staticmethod
    def _defineUnseen(form: Any) -> None:
        """Add what becomes of coordinates that nobody has looked at."""
        form.addParam("unseen", params.EnumParam, choices=list(UNSEEN), default=AUTOMATIC,
                      label="What nobody has looked at",
                      help="Of the coordinates that come in. automatic: candidates of *propose particles* are left out "
                      "of the output until they are accepted (Space), since most of them are no particles; all others "
                      "are kept unless they are removed.")

    # ---- steps
    def _insertAllSteps(self) -> None:
        """Insert the steps: what can fail is tried before the interactive one, which cannot say why it failed."""
        self._insertFunctionStep(self.prepareStep, time.time(), needsGPU=False)
        self._insertFunctionStep(self.annotateStep, interactive=True, needsGPU=False)

    def prepareStep(self, started: float) -> None:
        """Check display and tomograms, and bring tomograms, classes and the start into the annotation."""
        from deepetpicker.windows.window import open_screen

        open_screen().destroy()
        with Session(self.getFolder()) as session:
            self._prepare(session)

    def annotateStep(self) -> None:
        """Open the window, wait until it is closed, and make the outputs."""
        with Session(self.getFolder()) as session:
            self._window(session, self._prepare(session)).show()
            save_version(session, self.leavesUnseen())
        self.createOutputs()

    def leavesUnseen(self) -> bool:
        """Tell whether particles that nobody has looked at stay out of the output."""
        coordinates = self.inputCoordinates.get()
        if self.unseen.get() != AUTOMATIC or coordinates is None or coordinates.getObjParentId() is None:
            return bool(self.unseen.get() == LEAVE)
        return isinstance(self.getProject().getProtocol(int(coordinates.getObjParentId())), ProtDeepETPickerPropose)

    def _window(self, session: Session, scene: Any) -> Any:
        """Return the window on a session and its scene."""
        from deepetpicker.windows.linked import annotate_window

        return annotate_window(session, scene, f"Annotate particles: {self.getRunName()}",
                               start=backgroundCommand(self.getClassPackage().Plugin))

    def _source(self) -> Any:
        """Return what the outputs lie in: a pointer to tomograms, or the set itself."""
        return self.inputTomograms

    def _tomograms(self) -> Any:
        """Return the tomograms; None while the form does not say which."""
        return self.inputTomograms.get()

    def _prepare(self, session: Session) -> Any:
        """Let a session know what the form gives; return the scene.

        Raises
        ------
        InputError
            If no tomogram can be read, or one is not the one that was annotated.
        """
        from deepetpicker.windows.inputs import prepare_session
        from deepetpicker.windows.scene import Scene
        from deepetpicker_plugin.viewers.scene import sceneFile

        shown = self._shown()
        places, files, reason = self._places(), [], ""
        for ts, place in places.items():
            try:
                Scene([sceneFile(place, shown.get(ts, ""))], []).volume(ts)
                files.append(sceneFile(place, shown.get(ts, "")))
            except (DeepETPickerError, OSError) as error:
                reason = str(error)
                self.warning(f"{ts}: left out: {reason}")
        if not files:
            raise InputError(f"none of the {len(places)} tomograms can be read: {reason}")
        scene = Scene(files, [])
        prepare_session(session, scene, self._start(places), self._classes())
        return scene

    def _places(self) -> Dict[str, convert.Place]:
        """Return the tomograms by tsId."""
        return {ts: convert.Place.of(t) for ts, t in convert.tomogramsOf(self._tomograms()).items()}

    def _shown(self) -> Dict[str, str]:
        """Return the files of the tomograms that are shown in the place of others, by tsId."""
        shown = self.shownTomograms.get()
        return {} if shown is None else {ts: convert.localFile(t.getFileName())
                                         for ts, t in convert.tomogramsOf(shown).items()}

    def _start(self, places: Dict[str, convert.Place]) -> Dict[str, CoordinateTable]:
        """Return the coordinates to start from, in the voxels of the tomograms."""
        coordinates = self.inputCoordinates.get()
        if coordinates is None or not coordinates.getSize():
            return {}
        rows, sources = convert.readCoordinates(coordinates)
        found = {}
        for ts, row in rows.items():
            if ts in places:
                xyz = convert.transfer(row.positions_xyz_vox, sources[ts], places[ts])
                found[ts] = row.table({group: group for group in row.groups}, xyz)
        return found

    def _classes(self) -> Tuple[ParticleClass, ...]:
        """Return the classes of the form and of the coordinates to start from.

        Raises
        ------
        InputError
            If names or diameters do not fit.
        """
        coordinates, what = self.inputCoordinates.get(), ("Class names", "Particle diameter")
        if coordinates is not None and coordinates.getSize():
            found = withNames(classesOf(coordinates), self.classNames.get(), what[0])
            box_ang = (coordinates.getBoxSize() or 0) * coordinates.getSamplingRate()
            found = tuple(c if c.diameter_ang else ParticleClass(c.id, c.name, box_ang) for c in found)
        else:
            names = [name.strip() for name in (self.classNames.get() or "").split(",") if name.strip()]
            if len(set(names)) < len(names):
                raise InputError(f"{what[0]}: classes need different names, got {', '.join(names)}")
            size = UNKNOWN_VOX * self._tomograms().getSamplingRate()
            found = tuple(ParticleClass(n, name, size) for n, name in enumerate(names or ["particle"], start=1))
        return withDiameters(found, self.diameterAngstrom.get(), what[1])

    # ---- outputs
    def createOutputs(self) -> None:
        """Make the outputs of the newest version, unless they are there: also of one before which Scipion died."""
        found = versions(pathlib.Path(self.getFolder()))
        if not found:
            return
        number = int(found[-1].name.rpartition("_")[2])
        folder, end = str(found[-1]), "" if number == 1 else f"_{number}"
        names = [f"{name}{end}" for name in (COORDINATES, NEGATIVE_OUTPUT, REGION_OUTPUT)]
        if any(hasattr(self, name) for name in names):
            return
        classes, _ = read_classes(folder)
        tables = self._tables(folder, "")
        outputs: Dict[str, Any] = {}
        if any(len(table) for table in tables.values()):
            outputs[names[0]] = self._newSet(tables, classes, f"_v{number}")
            setClasses(outputs[names[0]], classes)
        negatives = self._tables(folder, NEGATIVES)
        if negatives:
            outputs[names[1]] = self._newSet(negatives, classes, f"_negatives_v{number}")
        regions = DeepETPickerRegions.fromFolder(folder)
        regions.setPrecedents(self._source())
        if regions.getRegions():
            outputs[names[2]] = regions
        self._defineOutputs(**outputs)
        for output in outputs.values():
            self._defineSourceRelation(self._source(), output)

    @staticmethod
    def _tables(folder: str, end: str) -> Dict[str, CoordinateTable]:
        """Return the particles of a version by tsId, or with ``NEGATIVES`` the places without one."""
        found = {}
        for path in whole(pathlib.Path(folder).glob("*.csv")):
            beside = any(path.name.endswith(other) for other in (NEGATIVES, REGIONS))
            if end and path.name.endswith(end):
                found[path.name[:-len(end)]] = CoordinateTable.from_positions(read_negatives(path), 0)
            elif not end and not beside:
                found[path.stem] = read_coordinates(path)
        return found

    def _newSet(self, tables: Dict[str, CoordinateTable], classes: Tuple[ParticleClass, ...],
                suffix: str) -> SetOfCoordinates3D:
        """Return a set of coordinates made from tables."""
        tomograms = convert.tomogramsOf(self._tomograms())
        rate = self._tomograms().getSamplingRate()
        box = convert.boxSize(max([c.diameter_ang for c in classes], default=0.0) or 20 * rate, rate)
        output = self._newCoordinates(self._source(), suffix, rate, box)
        for ts, table in tables.items():
            if ts in tomograms:
                convert.appendTable(output, tomograms[ts], convert.Place.of(tomograms[ts]), table)
        return output

    def iterOutputAttributes(self, outputClass: Any = None, includePossible: bool = False) -> Iterator[Tuple[str, Any]]:
        """Yield name and value of the outputs, the newest version first: a new form takes the first that fits."""
        found = list(super().iterOutputAttributes(outputClass, includePossible))
        return iter(sorted(found, key=lambda pair: -versionOf(pair[0])))

    # ---- the folder of the annotation
    def getFolder(self) -> str:
        """Return the folder of the annotation, relative to the project."""
        return self._getExtraPath(ANNOTATION_DIR)

    def cleanWorkingDir(self) -> None:
        """Delete the protocol's files; a *Restart* keeps what was annotated, beside the new annotation."""
        kept, beside = self.getFolder(), ""
        if self.runMode == MODE_RESTART and os.path.isdir(kept):
            beside = f"{self.getWorkingDir()}_annotation_{os.getpid()}"
            os.rename(kept, beside)
        super().cleanWorkingDir()
        if beside:
            os.makedirs(self._getExtraPath())
            os.rename(beside, self._getExtraPath(f"{ANNOTATION_DIR}_before_{time.strftime('%Y%m%d_%H%M%S')}"))

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        if self._tomograms() is None:
            return errors
        self._collect(errors, self._classes)
        start = self.inputCoordinates.get()
        names = set(self._tomograms().getTSIds())
        for what, other in (("Start from coordinates", start), ("Tomograms to show", self.shownTomograms.get())):
            if other is not None and not names & set(other.getTSIds()):
                errors.append(f"*{what}* none of them belongs to the tomograms: expected some of the tsIds "
                              f"{', '.join(sorted(names)[:4])}, found {', '.join(sorted(other.getTSIds())[:4])}")
        return errors

    def _summary(self) -> List[str]:
        """Return what was annotated."""
        found = versions(pathlib.Path(self.getFolder())) if os.path.isdir(self.getFolder()) else []
        if not found:
            return ["Nothing was annotated yet: *Execute* opens the window."]
        tables, negatives = self._tables(str(found[-1]), ""), self._tables(str(found[-1]), NEGATIVES)
        count = sum(map(len, DeepETPickerRegions.fromFolder(found[-1]).getRegions().values()))
        boxes = f", {convert.counted(count, 'complete box', 'es')}" if count else ""
        lines = [f"*{convert.counted(sum(map(len, tables.values())), 'particle')}* in "
                 f"{convert.counted(sum(bool(len(t)) for t in tables.values()), 'tomogram')}, "
                 f"{convert.counted(sum(map(len, negatives.values())), 'place')} without one{boxes}",
                 *tableLines(read_classes(found[-1])[0], self._tomograms().getSamplingRate())]
        unseen = unseen_in(pathlib.Path(self.getFolder()))
        if unseen:
            lines.append(f"{unseen} more that nobody has looked at are left out" if self.leavesUnseen() else
                         f"{unseen} of them nobody has looked at")
        if len(found) > 1:
            lines.append(f"{len(found)} versions; the newest output has the number {found[-1].name[-3:].lstrip('0')}")
        return [*lines, "*Execute* opens the window again where it ended. Next: *train*, or *refine model* where there "
                "is a model."]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        newest = newestCoordinates(self)
        return [f"{newest.getSize()} particles were annotated by hand with DeepETPicker."] if newest is not None else []


def newestCoordinates(protocol: Any) -> Optional[SetOfCoordinates3D]:
    """Return the newest particles of an annotation, None when there are none."""
    found = [(versionOf(name), output) for name, output in protocol.iterOutputAttributes(SetOfCoordinates3D)
             if name.startswith(COORDINATES)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def versionOf(name: str) -> int:
    """Return the version in the name of an output: 1 of ``coordinates``, 2 of ``coordinates_2``."""
    end = name.rpartition("_")[2]
    return int(end) if end.isdigit() else 1
