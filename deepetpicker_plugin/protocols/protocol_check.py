"""Check that coordinates fit their tomograms."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.config import CheckOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import classes_to_json
from deepetpicker_plugin.constants import CHECK_DIR, COORDINATES_DIR, MANIFEST_FILE
from deepetpicker_plugin.engine.earlier import toDoAgain
from deepetpicker_plugin.engine.process import readManifest, writeParams
from deepetpicker_plugin.forms import readOptions
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import BY_CLASS, Table, classesOf, withDiameters


class ProtDeepETPickerCheck(ProtDeepETPickerBase):
    """Check that coordinates fit their tomograms, or tell whether they would flipped, swapped, scaled or shifted.

    Coordinates imported from other programs may count from another corner, in other axes or at another binning. Here
    the density at the coordinates is held against that at random places, as they are and in 288 other readings. *train*
    does the same before it starts. The result is in the summary.
    """

    _label = "check coordinates"

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Coordinates", help="Five particles of a class and tomogram or more can be judged.")
        form.addParam("diameters", params.StringParam, default="", label="Particle diameter (Å)",
                      help=f"{BY_CLASS} Empty: what is known of the classes, else the box size.")

    def _insertAllSteps(self) -> None:
        """Insert the step; the digest makes it run again when form, input or its files change, or one failed."""
        again = toDoAgain(self._getExtraPath(CHECK_DIR, MANIFEST_FILE))
        digest = self._digestOf([self.diameters.get(), self._stateOf(self.inputCoordinates.get()), *again])
        self._insertFunctionStep(self.checkStep, digest, needsGPU=False)

    def checkStep(self, digest: str) -> List[str]:
        """Write the tables and run the engine; returns the manifest, which must exist."""
        folder = self._ensureExtra(CHECK_DIR)
        tables = self._ensureExtra(CHECK_DIR, COORDINATES_DIR)
        rows, places = convert.readCoordinates(self.inputCoordinates.get())
        items = [convert.itemOf(places[tsId], coordinates=convert.writeTable(
            tables, tsId, one.table({g: g for g in one.groups}))) for tsId, one in rows.items()]
        words = ["check", "--params", writeParams(folder, self._options(), items, classes_to_json(self._classes())),
                 "--out", folder]
        self.runEngine(folder, words)
        return [self._getExtraPath(CHECK_DIR, MANIFEST_FILE)]

    # ---- what the form says
    def _classes(self) -> Table:
        """Return the classes with their diameters in angstrom."""
        coordinates = self.inputCoordinates.get()
        box_ang = (coordinates.getBoxSize() or 0) * float(coordinates.getSamplingRate())
        known = withDiameters(classesOf(coordinates), self.diameters.get(), "*Particle diameter*")
        return tuple(dataclasses.replace(one, diameter_ang=one.diameter_ang or box_ang) for one in known)

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives; the diameters go with the classes."""
        return readOptions(self, CheckOptions)

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        if self.inputCoordinates.get() is None:
            return []
        try:
            missing = [one.label for one in self._classes() if not one.diameter_ang > 0]
        except InputError as error:
            return [str(error)]
        said = f"*Particle diameter* expected one for {', '.join(missing)}: the set has no box size"
        return [said] if missing else []

    def _summary(self) -> List[str]:
        """Return what was found for each tomogram, what does not fit first."""
        manifest = readManifest(self._getExtraPath(CHECK_DIR, MANIFEST_FILE))
        if manifest is None:
            return ["Nothing was checked yet."]
        items = sorted(manifest["items"], key=lambda item: bool(item.get("fits")))
        fitting = sum(bool(item.get("fits")) for item in items)
        return [f"*The coordinates of {fitting} of {len(items)} tomograms fit*",
                *(f"{item['name']}: {item['reason'] or item['text']}" for item in items)]
