"""Propose particles without a model."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D

from deepetpicker.config import ProposeOptions
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker_plugin.constants import CHOSEN_COORDINATES, COORDINATES_DIR, MANIFEST_FILE, PROPOSALS_DIR
from deepetpicker_plugin.engine.earlier import toDoAgain
from deepetpicker_plugin.engine.process import readManifest, writeParams
from deepetpicker_plugin.forms import addOption, readOptions
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import setClasses

METHODS = ProposeOptions.__dataclass_fields__["method"].metadata["choices"]
WITH_MAP = f"method == {METHODS.index('map')}"
FOUND_BY = {"generic": "a generic network at the particle's size", "blob": "multi-scale difference of Gaussians",
            "map": "a network that learnt the particle's map in simulated tomograms"}


class ProtDeepETPickerPropose(ProtDeepETPickerBase):
    """Propose candidates for particles before there is a model of your own.

    They are what a generic network takes for particles of the right size, blobs, what learnt the particle's density map
    in simulated tomograms, or what looks like a few examples.

    The candidates are there to be looked at, not to be averaged: walk through them, keep what is right, train on it.
    With three examples or more, in one tomogram or several, what looks like them comes first in all tomograms.
    """

    _label = "propose particles"
    _possibleOutputs = {"coordinates": SetOfCoordinates3D}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms", help="Where to look. They need not be denoised.")
        addOption(form, ProposeOptions, "diameter_angstrom", "Particle diameter", important=True)
        addOption(form, ProposeOptions, "method", "Method")
        form.addParam("inputMap", params.PointerParam, pointerClass="Volume", allowsNull=True,
                      condition=WITH_MAP, label="Density map of the particle",
                      help="Bright density, with its sampling rate. Tomograms with it are simulated, a network learns "
                      "them, and picks.")
        addOption(form, ProposeOptions, "minutes", "Training time", condition=WITH_MAP)
        addOption(form, ProposeOptions, "most", "Candidates per tomogram")
        addOption(form, ProposeOptions, "contrast", "Particles are")
        form.addParam("inputExamples", params.PointerParam, pointerClass="SetOfCoordinates3D", allowsNull=True,
                      label="Examples (optional)", help="Three particles or more, in whichever of the tomograms: what "
                      "looks like them comes first, in all tomograms.")
        form.addParam("inputOthers", params.PointerParam, pointerClass=CHOSEN_COORDINATES, allowsNull=True,
                      label="Not these (optional)",
                      help="Places that are not what is looked for.")

    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes them run again when form, inputs or their files change, or one failed."""
        inputs = [p.get() for p in (self.inputTomograms, self.inputExamples, self.inputOthers, self.inputMap)
                  if p.get() is not None]
        again = toDoAgain(self._getExtraPath(PROPOSALS_DIR, MANIFEST_FILE))
        digest = self._digestOf([self._options(), self._stateOf(*inputs), *again])
        self._insertFunctionStep(self.proposeStep, digest, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def proposeStep(self, digest: str) -> List[str]:
        """Write the examples and run the engine; returns the tables, which must exist."""
        folder = self._getExtraPath(PROPOSALS_DIR)
        if os.path.isdir(folder):  # tables of an earlier run with other settings must not stay among the new ones
            shutil.rmtree(folder)
        self._ensureExtra(PROPOSALS_DIR)
        tomograms = convert.tomogramsOf(self.inputTomograms.get())
        examples = self._tables("examples", self.inputExamples, tomograms)
        others = self._tables("others", self.inputOthers, tomograms)
        items = [convert.itemUnread(one, **({"coordinates": examples[tsId]} if tsId in examples else {}))
                 for tsId, one in tomograms.items()]
        words = ["propose", "--params", writeParams(folder, self._options(), items), "--out", folder]
        if others:
            words += ["--unlike", self._getExtraPath(PROPOSALS_DIR, f"{COORDINATES_DIR}_others")]
        self.runEngine(folder, words)
        return [item["picks"] for item in self._doneManifest(folder)["items"] if item["status"] == "done"]

    def createOutputStep(self, digest: str) -> None:
        """Make the candidates an output."""
        tomograms = self.inputTomograms.get()
        rate = float(tomograms.getSamplingRate())
        coordinates = self._newCoordinates(self.inputTomograms, "", rate,
                                           convert.boxSize(self.diameterAngstrom.get(), rate))
        setClasses(coordinates, [ParticleClass(1, "particle", self.diameterAngstrom.get())])
        byId = convert.tomogramsOf(tomograms)
        for item in self._doneManifest(self._getExtraPath(PROPOSALS_DIR))["items"]:
            if item["status"] == "done":
                one = byId[item["name"]]
                convert.appendTable(coordinates, one, convert.Place.of(one), read_coordinates(item["picks"]))
        if coordinates.getSize() or hasattr(self, "coordinates"):  # what an earlier run had must not stay
            self._defineOutputs(coordinates=coordinates)
            self._defineSourceRelation(self.inputTomograms, coordinates)

    def _tables(self, name: str, pointer: Any, tomograms: Dict[str, Any]) -> Dict[str, str]:
        """Write a set's coordinates in the voxels of the tomograms; return the tables by tsId."""
        if pointer.get() is None:
            return {}
        folder = self._ensureExtra(PROPOSALS_DIR, f"{COORDINATES_DIR}_{name}")
        rows, places = convert.readCoordinates(pointer.get())
        paths = {}
        for tsId in (ts for ts in rows if ts in tomograms):
            xyz = convert.transfer(rows[tsId].positions_xyz_vox, places[tsId], convert.Place.of(tomograms[tsId]))
            table = rows[tsId].table(dict.fromkeys(rows[tsId].groups, 1), xyz)
            paths[tsId] = convert.writeTable(folder, tsId, table)
        return paths

    # ---- what the form says
    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        options = readOptions(self, ProposeOptions)
        volume = self.inputMap.get()
        if options["method"] == "map" and volume is not None:
            options["map"] = os.path.abspath(str(volume.getFileName()).replace(":mrc", ""))
        return options

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        options = self._checkedOptions(errors)
        if options is not None and not options["diameter_angstrom"] > 0:
            errors.append("*Particle diameter* expected a diameter in Å > 0, got none")
        if options is not None and options["method"] == "map" and self.inputMap.get() is None:
            errors.append("*Density map of the particle* expected a map for the method 'map', got none")
        examples, tomograms = self.inputExamples.get(), self.inputTomograms.get()
        if examples is not None and tomograms is not None:
            known = set(convert.tomogramsOf(tomograms))
            rows, _ = convert.readCoordinates(examples)
            n = sum(len(one.objIds) for tsId, one in rows.items() if tsId in known)
            if n < 3:
                errors.append(f"*Examples* expected 3 or more in these tomograms, found {n}: label more, or leave the "
                              "examples out")
        return errors

    def _summary(self) -> List[str]:
        """Return how many candidates there are, and in which tomograms unusually few or many."""
        manifest = readManifest(self._getExtraPath(PROPOSALS_DIR, MANIFEST_FILE))
        if manifest is None:
            return ["Nothing was proposed yet."]
        done = [item for item in manifest["items"] if item["status"] == "done"]
        examples = manifest["outputs"].get("examples")
        how = f"by likeness to {examples} examples" if examples else FOUND_BY[manifest["options"]["method"]]
        return [f"*{sum(item['n_picks'] for item in done)} candidates* in {len(done)} tomograms, {how}: to be looked "
                "through, not to be averaged. *Analyze results* leads to *annotate* and *review*",
                *(f"_{i['name']}: {i['reason']}_" for i in manifest["items"] if i["status"] == "failed"),
                *self._warnings_of(manifest)]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        ranked = " and ranked by their likeness to examples" if self.inputExamples.get() is not None else ""
        return [f"Candidates for particles of {self.diameterAngstrom.get():g} Å were proposed by "
                f"{FOUND_BY[self._options()['method']]}{ranked}."]
