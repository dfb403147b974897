"""Choose among picks by score and number."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np
from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D

from deepetpicker.errors import InputError
from deepetpicker.io.classes import default_class, numbers_by_class
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.protocols.protocol_pick import ProtDeepETPickerPick
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import groupIds, knownClasses, setClasses, tableLines
from deepetpicker_plugin.sets.picked import COORDINATES


class ProtDeepETPickerThreshold(ProtDeepETPickerBase):
    """Choose among picks by their score and number, per class, without a new run.

    For picks of *pick* all candidates above its floor are available, so that the threshold can also be lowered. Picks
    of other programs are filtered by the scores in the set.
    """

    _label = "threshold picks"
    _possibleOutputs = {COORDINATES: SetOfCoordinates3D}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Picks", help="Coordinates with scores.")
        form.addParam("threshold", params.StringParam, default="0.5", label="Score threshold",
                      help="Lowest score that is kept: one for all classes, or by group id (or name): 0: 0.5, 1: 0.7. "
                      "Without ids they count for the group ids in ascending order. The wizard shows the histogram of "
                      "the scores and the picks.")
        form.addParam("maxPicks", params.StringParam, default="0", label="Most picks per tomogram",
                      help="Keep at most so many per class and tomogram, best first; one number, or by group id (or "
                      "name): 0: 100, 1: 20. 0 keeps all.")
        form.addParam("useCandidates", params.BooleanParam, default=True, label="From all candidates?",
                      help="Yes: for picks of *pick*, choose among all its candidates, so that a lower threshold "
                      "brings more. No: choose among the picks in the set.")

    def _insertAllSteps(self) -> None:
        """Insert the one step; the digest makes it run again when anything changes."""
        self._insertFunctionStep(self.filterStep, self._digestOf([
            self.threshold.get(), self.maxPicks.get(), self.useCandidates.get(),
            self._stateOf(self.inputCoordinates.get())]), needsGPU=False)

    def filterStep(self, digest: str) -> None:
        """Write the chosen picks as a new set."""
        coordinates = self.inputCoordinates.get()
        tables = self._tables()
        tomograms = convert.tomogramsOf(coordinates.getPrecedents())
        limits = self._limits(self._groups(tables))
        output = self._newCoordinates(coordinates.getPrecedents(), "", coordinates.getSamplingRate(),
                                      coordinates.getBoxSize())
        setClasses(output, knownClasses(coordinates))
        for tsId, tomogram in tomograms.items():
            if tsId in tables:
                chosen = choose(tables[tsId], limits)
                convert.appendTable(output, tomogram, convert.Place.of(tomogram), chosen)
        self._defineOutputs(**{COORDINATES: output})
        self._defineSourceRelation(self.inputCoordinates, output)

    # ---- what the form says
    def getPickProtocol(self) -> Optional[ProtDeepETPickerPick]:
        """Return the picking protocol that made the input, None when it was made otherwise."""
        coordinates = self.inputCoordinates.get()
        project = self.getProject()
        if coordinates is None or project is None or coordinates.getObjParentId() is None:
            return None
        maker = project.getProtocol(int(coordinates.getObjParentId()))
        return maker if isinstance(maker, ProtDeepETPickerPick) else None

    def _tables(self) -> Dict[str, CoordinateTable]:
        """Return what there is to choose from, by tsId; class ids are the group ids."""
        maker = self.getPickProtocol() if self.useCandidates.get() else None
        groups = groupIds(self.inputCoordinates.get())
        if maker is not None and not maker.splitClasses.get():
            return maker.getCandidates()
        if maker is not None:
            return {ts: t.select(np.isin(t.class_ids, groups)) for ts, t in maker.getCandidates().items()}
        rows, _ = convert.readCoordinates(self.inputCoordinates.get())
        return {ts: found.table({g: g for g in groups}) for ts, found in rows.items()}

    def _groups(self, tables: Dict[str, CoordinateTable]) -> List[int]:
        """Return the group ids that the input knows of or that occur, ascending."""
        occurring = {int(c) for t in tables.values() for c in t.class_ids}
        return sorted(occurring | {c.id for c in knownClasses(self.inputCoordinates.get())})

    def _limits(self, groups: List[int]) -> Dict[int, Any]:
        """Return lowest score and largest number per class.

        Raises
        ------
        InputError
            If there is anything but numbers, a class is not known, or a class is left out.
        """
        known = {c.id: c for c in knownClasses(self.inputCoordinates.get())}
        classes = [known.get(g, default_class(g)) for g in groups]
        columns = []
        for text, what in ((self.threshold.get(), "*Score threshold*"),
                           (self.maxPicks.get(), "*Most picks per tomogram*")):
            values = numbers_by_class(text or "", classes, what)
            bare = [c.label for c in classes if c.id not in values]
            if bare:
                raise InputError(f"{what}: expected a number for {', '.join(bare)} too, got {text!r}")
            columns.append(values)
        if any(n != int(n) for n in columns[1].values()):
            raise InputError(f"*Most picks per tomogram*: expected whole numbers, got {self.maxPicks.get()!r}")
        return {g: (columns[0][g], int(columns[1][g])) for g in groups}

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        coordinates = self.inputCoordinates.get()
        if coordinates is None:
            return errors
        tables = self._tables()  # all candidate tables are read here, so once
        limits = self._collect(errors, lambda: self._limits(self._groups(tables)))
        if limits is not None and not any(len(choose(table, limits)) for table in tables.values()):
            errors.append("*Score threshold* nothing reaches it: choose a lower one (the wizard shows the scores)")
        return errors

    def _summary(self) -> List[str]:
        """Return what was kept."""
        if not hasattr(self, COORDINATES):
            return ["Nothing was chosen yet."]
        kept = getattr(self, COORDINATES)
        fromRun = self.useCandidates.get() and self.getPickProtocol() is not None
        source = "all candidates of the picking run" if fromRun else "the set"
        return [f"*{kept.getSize()} picks* kept from {source} (the input has {self.inputCoordinates.get().getSize()}), "
                f"score at or above {self.threshold.get()}",
                *tableLines(knownClasses(kept), kept.getSamplingRate()),
                f"Box size {convert.inBoth(kept.getBoxSize() * kept.getSamplingRate(), kept.getSamplingRate())}"]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        return [f"Picks with a score of at least {self.threshold.get()} were kept."]


def choose(table: CoordinateTable, limits: Dict[int, Any]) -> CoordinateTable:
    """Return the rows of a table that reach their class's score, at most its number, best first.

    Parameters
    ----------
    table : CoordinateTable
        Picks of one tomogram.
    limits : dict
        Lowest score and largest number (0: no limit) by class id.
    """
    table = table.sorted_by_score()
    kept: List[int] = []
    for classId, (low, most) in limits.items():
        rows = np.flatnonzero((table.class_ids == classId) & (table.scores >= low))
        kept += rows[:most or None].tolist()
    return table.select(np.array(sorted(kept), int))
