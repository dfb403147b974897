"""Compare two sets of picks as sets."""

from __future__ import annotations

import csv
import os
from typing import Any, Dict, List, Sequence, Tuple

from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D

from deepetpicker.config import CompareOptions
from deepetpicker.io.classmatch import match_classes
from deepetpicker_plugin.constants import CHOSEN_COORDINATES, COMPARISON_DIR, COORDINATES_DIR, MANIFEST_FILE
from deepetpicker_plugin.engine.process import EngineError, readManifest, writeParams
from deepetpicker_plugin.forms import addOption, readOptions
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import classesOf, knownClasses, setClasses, tableLines

BOTH, ONLY_FIRST, ONLY_SECOND = "inBoth", "onlyInFirst", "onlyInSecond"


class ProtDeepETPickerCompare(ProtDeepETPickerBase):
    """Compare two sets of picks: what they share and what only one of them has.

    Gives three new sets: the particles of the first set that the second has too, those that only the first has, and
    those that only the second has. Each particle has at most one partner. Items are copied whole, with their transforms
    and scores.
    """

    _label = "compare picks"
    _possibleOutputs = {BOTH: SetOfCoordinates3D, ONLY_FIRST: SetOfCoordinates3D, ONLY_SECOND: SetOfCoordinates3D}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputFirst", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="First picks", help="Distances are measured in the voxels of its tomograms.")
        form.addParam("inputSecond", params.PointerParam, pointerClass=CHOSEN_COORDINATES, important=True,
                      label="Second picks", help="Its tomograms may be of another binning, as long as the tsIds agree.")
        addOption(form, CompareOptions, "radius_angstrom", "Same particle within",
                  help="Picks at most this far apart are the same particle. 0: half the box size of the first set.")
        addOption(form, CompareOptions, "same_class", "Only within the same class?",
                  help="Yes: only picks of the same class can be the same particle. Classes are told by name where "
                  "both sets have names, else by group id.")
        form.addParam("classMap", params.StringParam, default="", condition="sameClass", label="Which class is which",
                      help="Where group ids differ and names are not known: group of the second set and of the first, "
                      "1: 0, 2: 1.")

    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes them run again when anything in the form changes."""
        digest = self._digestOf([self._options(), self.classMap.get(),
                                 self._stateOf(self.inputFirst.get(), self.inputSecond.get())])
        self._insertFunctionStep(self.compareStep, digest, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def compareStep(self, digest: str) -> List[str]:
        """Write the tables and run the engine; returns the manifest, which must exist."""
        folder = self._ensureExtra(COMPARISON_DIR)
        (first, second), ofSecond = self._rows(), self._classOfSecond()
        voxel = self.inputFirst.get().getSamplingRate()
        tables = {"a": self._ensureExtra(COMPARISON_DIR, f"{COORDINATES_DIR}_first"),
                  "b": self._ensureExtra(COMPARISON_DIR, f"{COORDINATES_DIR}_second")}
        items = []
        for tsId in [*first, *(ts for ts in second if ts not in first)]:
            item = {"name": tsId, "voxel_size": voxel}
            for key, rows in (("a", first), ("b", second)):
                if tsId in rows:
                    table = rows[tsId].table(ofSecond if key == "b" else {g: g for g in rows[tsId].groups})
                    item[key] = convert.writeTable(tables[key], tsId, table)
            items.append(item)
        self.runEngine(folder, ["compare", "--params", writeParams(folder, self._options(), items), "--out", folder])
        if any(item["status"] == "failed" for item in self._doneManifest(folder)["items"]):
            raise EngineError("some tomograms could not be compared: see the output log")
        return [os.path.join(folder, MANIFEST_FILE)]

    def createOutputStep(self, digest: str) -> None:
        """Copy the items of both sets into the three outputs."""
        first, second = self._rows()
        wanted: Dict[str, List[int]] = {BOTH: [], ONLY_FIRST: [], ONLY_SECOND: []}
        for item in self._doneManifest(self._getExtraPath(COMPARISON_DIR))["items"]:
            with open(item["pairs"], newline="", encoding="utf-8") as stream:
                pairs = list(csv.DictReader(stream))
            inA, inB = {int(p["row_a"]) for p in pairs}, {int(p["row_b"]) for p in pairs}
            idsA = first[item["name"]].objIds if item["name"] in first else []
            idsB = second[item["name"]].objIds if item["name"] in second else []
            wanted[BOTH] += [i for row, i in enumerate(idsA) if row in inA]
            wanted[ONLY_FIRST] += [i for row, i in enumerate(idsA) if row not in inA]
            wanted[ONLY_SECOND] += [i for row, i in enumerate(idsB) if row not in inB]
        for name, pointer in ((BOTH, self.inputFirst), (ONLY_FIRST, self.inputFirst), (ONLY_SECOND, self.inputSecond)):
            if wanted[name] or hasattr(self, name):  # what an earlier run had must not stay
                self._copyItems(name, pointer, wanted[name])

    def _copyItems(self, name: str, pointer: Any, objIds: Sequence[int]) -> None:
        """Make an output of some items of an input set."""
        source, chosen = pointer.get(), set(objIds)
        output = self._newCoordinates(source.getPrecedents(), "_" + name.lower(), source.getSamplingRate(),
                                      source.getBoxSize() or 1)
        setClasses(output, knownClasses(source))
        for item in source.iterCoordinates():
            if item.getObjId() in chosen:
                output.append(item.clone())
        self._defineOutputs(**{name: output})
        self._defineSourceRelation(pointer, output)

    def _rows(self) -> Tuple[Dict[str, convert.Rows], Dict[str, convert.Rows]]:
        """Return both sets by tsId, the second in the voxels of the first one's tomograms; only tomograms both know."""
        first, places = convert.readCoordinates(self.inputFirst.get())
        second, others = convert.readCoordinates(self.inputSecond.get())
        moved = {ts: convert.Rows(r.objIds, convert.transfer(r.positions_xyz_vox, others[ts], places[ts]), r.groups,
                                  r.scores) for ts, r in second.items() if ts in places}
        return {ts: r for ts, r in first.items() if ts in others}, moved

    # ---- what the form says
    def _classOfSecond(self) -> Dict[int, int]:
        """Return the class, as the first set counts, of each group of the second set.

        Raises
        ------
        InputError
            If classes must agree and it cannot be told which is which.
        """
        first, second = classesOf(self.inputFirst.get()), classesOf(self.inputSecond.get())
        if not self.sameClass.get():
            return {c.id: c.id for c in second}
        return match_classes(first, second, self.classMap.get()).of_picks

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        options = readOptions(self, CompareOptions, voxel_size=0.0)
        first = self.inputFirst.get()
        if not options["radius_angstrom"] and first is not None:
            options["radius_angstrom"] = (first.getBoxSize() or 0) * first.getSamplingRate() / 2
        return options

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        options = self._checkedOptions(errors)
        first, second = self.inputFirst.get(), self.inputSecond.get()
        if first is None or second is None:
            return errors
        if options is not None and options["radius_angstrom"] <= 0:
            errors.append("*Same particle within* the first set has no box size: give a distance > 0 Å")
        self._collect(errors, self._classOfSecond, "Only within the same class?")
        known, others = (set(convert.tomogramsOf(s.getPrecedents())) for s in (first, second))
        if not known & others:
            errors.append("*Second picks* no tomogram is in both sets: expected some of "
                          f"{', '.join(sorted(known)[:4])}, found {', '.join(sorted(others)[:4])}")
        return errors

    def _summary(self) -> List[str]:
        """Return the sizes of the parts."""
        manifest = readManifest(os.path.join(self._getExtraPath(COMPARISON_DIR), MANIFEST_FILE))
        if manifest is None:
            return ["Nothing was compared yet."]
        both, a, b = (sum(i[key] for i in manifest["items"] if i["status"] == "done")
                      for key in ("n_both", "n_only_a", "n_only_b"))
        radius = manifest["options"]["radius_angstrom"]
        first = self.inputFirst.get()
        return [f"*{both} in both*, {a} only in the first, {b} only in the second set",
                f"Jaccard index {both / max(1, both + a + b):.3f}, same particle within "
                f"{convert.inBoth(radius, first.getSamplingRate())}",
                *tableLines(knownClasses(first), first.getSamplingRate())]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        return ["Two sets of picks were compared by one-to-one matching within a radius."]
