"""The outputs of a picking protocol, as they grow tomogram by tomogram."""

from __future__ import annotations

import types
from typing import Any, Callable, Dict, List, Mapping, MutableSet, Sequence, Tuple

from pyworkflow.object import Set, String
from tomo.objects import Coordinate3D, SetOfTomoMasks, Tomogram

from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker_plugin.objects import SetOfFailedTomograms
from deepetpicker_plugin.sets import convert, picked
from deepetpicker_plugin.sets.classes import setClasses
from deepetpicker_plugin.sets.picked import COORDINATES, FAILED, MAPS


class OutputsMixin:
    """What a picking protocol does to its outputs; one thread at a time may be in here."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._present: Dict[str, MutableSet[str]] = {}

    def _appendPicks(self, tomograms: Mapping[str, Tomogram], tables: Mapping[str, CoordinateTable]) -> None:
        """Append the picks of some tomograms to the set, or to the sets of their classes; each is written once.

        Parameters
        ----------
        tomograms : mapping
            Clones of tomograms by tsId.
        tables : mapping
            The picks of some of them, by tsId; what an output has already stays as it is.
        """
        for name, ids, diameter in self._coordinateOutputs():
            output, isNew = getattr(self, name, None), getattr(self, name, None) is None
            present = self._tsIdsOf(name)
            found = {ts: table.select([c in ids for c in table.class_ids.tolist()])
                     for ts, table in tables.items() if ts not in present}
            mine = {ts: table for ts, table in found.items() if len(table)}
            if not mine:
                continue
            if isNew:
                rate = self.inputTomograms.get().getSamplingRate()
                output = self._newCoordinates(self.inputTomograms, picked.suffix(name), rate,
                                              convert.boxSize(diameter, rate))
                setClasses(output, [c for c in self.inputModel.get().getClasses() if c.id in ids])
            else:
                output.close()  # what an attempt that failed has left unwritten goes
                self._enableAppend(output, Coordinate3D())
            for tsId, table in mine.items():
                convert.appendTable(output, tomograms[tsId], convert.Place.of(tomograms[tsId]), table)
            self._publish(name, output, isNew)
            present.update(mine)

    def _tsIdsOf(self, name: str) -> MutableSet[str]:
        """Return the tsIds in an output of coordinates, to be added to: its file is gone through once in a run."""
        if name not in self._present:
            output = getattr(self, name, None)
            self._present[name] = set() if output is None else set(output.getTSIds())
        return self._present[name]

    def _appendMaps(self, tomogram: Tomogram, files: Dict[str, str]) -> None:
        """Append the probability maps of one tomogram, a set per class."""
        names = self.getMapOutputs()
        for classId, fileName in files.items():
            mask = picked.maskOf(tomogram, fileName)
            self._appendTomogram(names[int(classId)], SetOfTomoMasks, mask)

    def _appendFailed(self, tomogram: Tomogram, reason: str) -> None:
        """Append a tomogram that could not be picked, with the reason; what was said of it before goes."""
        self.warning(f"{tomogram.getTsId()}: failed: {reason}")
        self._dropFailed([tomogram.getTsId()])
        failed = Tomogram()
        failed.copyInfo(tomogram)
        failed.setLocation(tomogram.getLocation())
        failed.setSamplingRate(tomogram.getSamplingRate())
        failed.setAcquisition(tomogram.getAcquisition())
        failed._failure = String(reason)
        self._appendTomogram(FAILED, SetOfFailedTomograms, failed)

    def _dropFailed(self, tsIds: Sequence[str]) -> None:
        """Take tomograms out of the failed ones; a set from which all have gone stays, empty, until *Restart*."""
        self._drop(FAILED, lambda tomogram: tomogram.getTsId() in tsIds)

    def _dropPicks(self, tsIds: Sequence[str]) -> None:
        """Take what was picked in some tomograms out of the outputs, as :meth:`_dropFailed` does."""
        for name, _, _ in self._coordinateOutputs():
            self._drop(name, lambda coordinate: coordinate.getTomoId() in tsIds)
            self._present.pop(name, None)
        for name in self.getMapOutputs().values():
            self._drop(name, lambda mask: mask.getTsId() in tsIds)

    def _drop(self, name: str, isGone: Callable[[Any], bool]) -> None:
        """Take items out of an output, if there is one."""
        output = getattr(self, name, None)
        gone = [] if output is None else [item.clone() for item in output.iterItems() if isGone(item)]
        if gone:
            for item in gone:
                output._getMapper().delete(item)
            output._size.set(output._getMapper().count())
            self._publish(name, output, isNew=False)

    def _appendTomogram(self, name: str, kind: Any, item: Tomogram) -> None:
        """Append a tomogram or mask to an output of tomograms, unless it is there."""
        output, isNew = getattr(self, name, None), getattr(self, name, None) is None
        if isNew:
            output = kind.create(self._getPath(), suffix=picked.suffix(name))
            output.copyInfo(self.inputTomograms.get())
            output.setSamplingRate(item.getSamplingRate())
        elif item.getTsId() in output.getTSIds():
            return
        else:
            self._enableAppend(output, item)
        if picked.isReadable(item):
            output.append(item)
        else:  # a set of tomograms reads the header of what is appended
            Set.append(output, item)
        self._publish(name, output, isNew)

    @staticmethod
    def _enableAppend(output: Any, item: Tomogram) -> None:
        """Make a set that was read from its file take more items; one without any does not know their columns."""
        output.enableAppend()
        if not output.getSize():
            output._getMapper().db.setupCommands(item.getObjDict(includeClass=True))
            output._idCount = output._idCount or 0  # the largest of no ids is None

    def _publish(self, name: str, output: Any, isNew: bool) -> None:
        """Write a growing output and make it known to the project."""
        self._updateOutputSet(name, output, Set.STREAM_OPEN)
        if isNew:
            self._defineSourceRelation(self.inputTomograms, output)
            self._defineSourceRelation(self.inputModel, output)

    def closeStep(self) -> None:
        """Close the outputs: nothing more will come."""
        self._closeOutputSet()
        if not any(hasattr(self, name) for name, _, _ in self._coordinateOutputs()):
            self.warning("No particle has a score at or above the threshold: lower it with *threshold picks*, which "
                         "needs no new run.")

    def getPossibleOutputs(self) -> List[Any]:
        """Return the outputs that a run may have, with a set per class where the form asks for it.

        The classes are known before the model is trained, so that scheduled workflows can be wired to them.
        """
        kinds, classes = dict(self._possibleOutputs), self._expectedClasses()
        ids, names = [c.id for c in classes], [c.name for c in classes]
        if classes and self.splitClasses.get():
            kind = kinds.pop(COORDINATES)
            kinds.update(dict.fromkeys(picked.outputNames(COORDINATES, ids, names).values(), kind))
        kind = kinds.pop(MAPS)
        if self.saveMap.get():
            kinds.update(dict.fromkeys(picked.outputNames(MAPS, ids, names).values() if len(ids) > 1 else [MAPS], kind))
        return [types.SimpleNamespace(name=name, value=kind) for name, kind in kinds.items()]

    def _expectedClasses(self) -> Tuple[ParticleClass, ...]:
        """Return the classes of the model, or of the protocol that will make it; empty when they are not known yet."""
        model = self.inputModel.get()
        source = model if hasattr(model, "getClasses") else self.inputModel.getObjValue()
        try:
            return tuple(source.getClasses()) if hasattr(source, "getClasses") else ()
        except Exception:  # the form of that protocol is not complete: nothing is known
            return ()

    def _coordinateOutputs(self) -> List[Tuple[str, List[int], float]]:
        """Return name, class ids and diameter (angstrom) of each set of coordinates the form asks for."""
        model = self.inputModel.get()
        ids, diameters = model.getClassIds(), model.getDiameters()
        if not self.splitClasses.get():
            return [(COORDINATES, ids, max(diameters))]
        names = picked.outputNames(COORDINATES, ids, model.getClassNames())
        return [(names[i], [i], d) for i, d in zip(ids, diameters)]

    def getMapOutputs(self) -> Dict[int, str]:
        """Return the name of the output with the probability maps of each class."""
        model = self.inputModel.get()
        ids = model.getClassIds()
        return {ids[0]: MAPS} if len(ids) == 1 else picked.outputNames(MAPS, ids, model.getClassNames())
