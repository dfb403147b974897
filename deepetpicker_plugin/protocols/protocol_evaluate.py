"""Score picks against a reference."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.config import EvaluateOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, classes_to_json
from deepetpicker.io.classmatch import ClassMatch, match_classes
from deepetpicker_plugin.constants import (
    CHOSEN_COORDINATES,
    COORDINATES_DIR,
    CURVE_FILE,
    EVALUATION_DIR,
    EVALUATION_FILE,
    MANIFEST_FILE,
    REPORT_FILE,
)
from deepetpicker_plugin.engine.earlier import toDoAgain
from deepetpicker_plugin.engine.process import readManifest, writeParams
from deepetpicker_plugin.forms import addOption, readOptions
from deepetpicker_plugin.objects import DeepETPickerEvaluation
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert, seen
from deepetpicker_plugin.sets.classes import BY_CLASS, Table, classesOf, groupIds, tableLines, withDiameters


class ProtDeepETPickerEvaluate(ProtDeepETPickerBase):
    """Score picks against a reference set of coordinates.

    Gives precision, recall, F1, distances, confusion of classes, curves over the score threshold and a report that
    opens in a browser. A pick hits when it lies within a radius of a reference particle that no other pick has taken.
    The two sets may belong to tomograms of different binnings, as long as the tsIds agree.
    """

    _label = "evaluate picks"
    _possibleOutputs = {"evaluation": DeepETPickerEvaluation}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Picks", help="Picks to be scored; class = group id.")
        form.addParam("inputReference", params.PointerParam, pointerClass=CHOSEN_COORDINATES, important=True,
                      label="Reference", help="The true particles, for instance hand-picked or simulated ones. "
                      "Tomograms without a single reference particle are not evaluated.")
        form.addParam("diameters", params.StringParam, default="", label="Particle diameter (Å)",
                      help=f"{BY_CLASS} Group ids are those of the reference. Empty: what reference or picks know of "
                      "their classes, else the box size of the picks.")
        addOption(form, EvaluateOptions, "radius_angstrom", "Hit radius", "0: half a diameter",
                  help="A pick at most this far from a reference particle hits it. 0: half the diameter of the class.")
        form.addParam("useGroups", params.BooleanParam, default=True, label="Classes from the group ids?",
                      help="Yes: group ids of both sets are classes, and the report shows which are confused. No: all "
                      "particles are of one class.")
        form.addParam("classMap", params.StringParam, default="", condition="useGroups", label="Which class is which",
                      help="Classes are told by name where both sets know names, else by group id. Where neither does: "
                      "group of the picks and of the reference, 1: 0, 2: 1.")
        form.addParam("trainedTomograms", params.EnumParam, choices=list(seen.CHOICES), default=seen.LEAVE_OUT,
                      label="Tomograms it was trained on",
                      help="Picks in tomograms that a model was trained on are better than those in others, so that "
                      "their scores promise too much. Known for models that were trained in this project. Tomograms "
                      "that were only kept for validation are scored, and named in the summary.")
        addOption(form, EvaluateOptions, "threshold", "Lowest score")
        addOption(form, EvaluateOptions, "beta", "Beta of F-beta")
        addOption(form, EvaluateOptions, "margin", "Margin left out")

    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes them run again when form, inputs or their files change, or one failed."""
        again = toDoAgain(self._getExtraPath(EVALUATION_DIR, MANIFEST_FILE))
        digest = self._digestOf([self._options(), self.diameters.get(), self.useGroups.get(), self.classMap.get(),
                                 self._stateOf(self.inputCoordinates.get(), self.inputReference.get()),
                                 self._leftOut(), *again])
        self._insertFunctionStep(self.evaluateStep, digest, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def evaluateStep(self, digest: str) -> List[str]:
        """Write the tables, run the engine; returns the files it must have made."""
        folder = self._ensureExtra(EVALUATION_DIR)
        words = ["evaluate", "--params", writeParams(folder, self._options(), self._items(),
                                                     classes_to_json(self.getClasses())), "--out", folder]
        self.runEngine(folder, words)
        self._doneManifest(folder)
        return [self._getExtraPath(name) for name in (REPORT_FILE, EVALUATION_FILE, CURVE_FILE)]

    def createOutputStep(self, digest: str) -> None:
        """Make the evaluation an output."""
        with open(self._getExtraPath(EVALUATION_FILE), encoding="utf-8") as stream:
            found = json.load(stream)
        overall = found["overall"]
        output = DeepETPickerEvaluation()
        output._report.set(self._getExtraPath(REPORT_FILE))
        output._evaluation.set(self._getExtraPath(EVALUATION_FILE))
        output._curve.set(self._getExtraPath(CURVE_FILE))
        for attribute, value in ((output._nTruth, overall["TP"] + overall["FN"]), (output._nPicks, overall["n_picks"]),
                                 (output._nHits, overall["TP"]), (output._precision, overall["precision"]),
                                 (output._recall, overall["recall"]), (output._f1, overall["F1"]),
                                 (output._meanDistance, overall["AD_ang"]),
                                 (output._bestThreshold, found["best_threshold"]["F1"]["threshold"])):
            if value is not None:
                attribute.set(value)
        self._defineOutputs(evaluation=output)
        self._defineSourceRelation(self.inputCoordinates, output)
        self._defineSourceRelation(self.inputReference, output)

    def _items(self) -> List[Dict[str, Any]]:
        """Write the tables of both sets, in the voxels of the picks' tomograms, and return the engine's items.

        Raises
        ------
        InputError
            If no tomogram of the picks has reference particles.
        """
        picks, places = convert.readCoordinates(self.inputCoordinates.get())
        truth, truthPlaces = convert.readCoordinates(self.inputReference.get())
        folders = {key: self._ensureExtra(EVALUATION_DIR, f"{COORDINATES_DIR}_{key}") for key in ("picks", "truth")}
        match, items = self._match(), []  # type: ignore[var-annotated]
        ofTruth = dict.fromkeys(groupIds(self.inputReference.get()), 1) if not self.useGroups.get() else {
            c.id: c.id for c in match.classes}
        model, leftOut = self._seen(), self._leftOut()
        for tsId, place in places.items():
            if tsId not in truth or tsId in leftOut:
                continue
            xyz = convert.transfer(truth[tsId].positions_xyz_vox, truthPlaces[tsId], place)
            paths = {"truth": convert.writeTable(folders["truth"], tsId, truth[tsId].table(ofTruth, xyz))}
            if tsId in picks:
                paths["picks"] = convert.writeTable(folders["picks"], tsId, picks[tsId].table(match.of_picks))
            items.append(convert.itemOf(place, seen=model.role(tsId), **paths))
        if not items:
            raise InputError("no tomogram of the picks has reference particles: the tsIds of the two sets must agree")
        return items

    # ---- what the form says
    def _seen(self) -> seen.Seen:
        """Return what the model of the picks has seen."""
        return seen.seenBy(self.inputCoordinates.get(), self.getProject())

    def _scorable(self) -> List[str]:
        """Return the tsIds of the tomograms of the picks that have reference particles."""
        known = convert.tomogramsOf(self.inputCoordinates.get().getPrecedents())
        return sorted(set(known) & set(self.inputReference.get().getTSIds()))

    def _leftOut(self) -> List[str]:
        """Return the tsIds of the tomograms that are left out because the model was trained on them."""
        return self._seen().leftOut(self.trainedTomograms.get(), self._scorable())

    def _seenLines(self) -> List[str]:
        """Return what the user must know of tomograms that the model has seen."""
        return self._seen().lines(self.trainedTomograms.get(), self._scorable())

    def getReport(self) -> str:
        """Return the path of the HTML report."""
        return self._getExtraPath(REPORT_FILE)

    def _match(self) -> ClassMatch:
        """Return the classes of both sets as one table, in the group ids of the reference.

        Raises
        ------
        InputError
            If it cannot be told which class is which.
        """
        picks, reference = classesOf(self.inputCoordinates.get()), classesOf(self.inputReference.get())
        if self.useGroups.get():
            return match_classes(reference, picks, self.classMap.get())
        merged = ParticleClass(1, next((side[0].name for side in (reference, picks)
                                        if len(side) == 1 and side[0].is_named), "particle"),
                               max((c.diameter_ang for c in (*reference, *picks)), default=0.0))
        return ClassMatch((merged,), {c.id: 1 for c in picks})

    def getClasses(self) -> Table:
        """Return the classes with their diameters, in the group ids of the reference.

        Raises
        ------
        InputError
            If it cannot be told which class is which, or a diameter is missing.
        """
        picks = self.inputCoordinates.get()
        classes = withDiameters(self._match().classes, self.diameters.get(), "*Particle diameter*")
        box_ang = (picks.getBoxSize() or 0) * picks.getSamplingRate()
        found = tuple(dataclasses.replace(c, diameter_ang=c.diameter_ang or box_ang) for c in classes)
        bare = [c.label for c in found if not c.diameter_ang]
        if bare:
            raise InputError(f"*Particle diameter* the picks have no box size: give the diameter of {', '.join(bare)} "
                             "in Å")
        return found

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        return readOptions(self, EvaluateOptions, rule="distance", voxel_size=0.0)

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        self._checkedOptions(errors)
        picks, reference = self.inputCoordinates.get(), self.inputReference.get()
        if picks is None or reference is None:
            return errors
        known = convert.tomogramsOf(picks.getPrecedents())
        if not set(known) & set(reference.getTSIds()):
            errors.append(f"*Reference* no tomogram of the picks has reference particles: expected some of "
                          f"{', '.join(sorted(known)[:4])}, found {', '.join(sorted(reference.getTSIds())[:4])}")
        elif self._leftOut() == self._scorable():
            errors.append(f"*Tomograms it was trained on* it was trained on all that have reference particles "
                          f"({seen.some(self._scorable())}): annotate one that it has not seen, or choose "
                          f"*{seen.CHOICES[seen.SCORE]}*, which gives figures that are too good")
        if self._collect(errors, self._match, "Which class is which") is not None:
            self._collect(errors, self.getClasses)
        return errors

    def _warnings(self) -> List[str]:
        """Return what the user should know before the run."""
        if self.inputCoordinates.get() is None or self.inputReference.get() is None:
            return []
        match, picks = self._collect([], self._match), self.inputCoordinates.get()
        same = ["*Reference* is the set of the picks itself: all of them will be right."] if convert.isSame(
            picks, self.inputReference.get()) else []
        return same + [line for line in self._seenLines() if line.startswith("*")] + (
            list(match.warnings) if match is not None else [])

    def _summary(self) -> List[str]:
        """Return the main figures."""
        if not hasattr(self, "evaluation"):
            return ["Nothing was evaluated yet."]
        e = self.evaluation
        with open(e.getEvaluationFile(), encoding="utf-8") as stream:
            found = json.load(stream)
        lowest, best = e.getLowestScore(), e.getBest()
        scores = f" with scores of {lowest:g} and above" if lowest else ""
        lines = [f"*F1 {e._f1.get(0.0):.3f}*, precision {e._precision.get(0.0):.3f}, recall {e._recall.get(0.0):.3f}",
                 f"{e._nHits.get()} of {e._nTruth.get()} particles found by {e._nPicks.get()} picks{scores}",
                 found.get("hit_rule", "")]
        if e._meanDistance.get() is not None:
            rate = self.inputCoordinates.get().getSamplingRate()
            lines.append(f"Mean distance of the hits: {convert.inBoth(round(e._meanDistance.get(), 1), rate)}")
        if best is not None:
            lines.append(f"Best F1 of all thresholds: *{best[0]:.3f}*, at {best[1]:.3f}")
        lines += [line for line in self._seenLines() if not line.startswith("*")]  # the others are among the warnings
        manifest = readManifest(self._getExtraPath(EVALUATION_DIR, MANIFEST_FILE))
        rate = self.inputCoordinates.get().getSamplingRate()
        lines += tableLines(self._collect([], self.getClasses) or (), rate) + self._warnings()
        return [*lines, f"Report: {self.getReport()}", *self._warnings_of(manifest)]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        if not hasattr(self, "evaluation"):
            return ["Nothing was evaluated yet."]
        return [f"Against {self.evaluation._nTruth.get()} reference particles the picks have an F1 of "
                f"{self.evaluation.getF1():.2f} (one-to-one matching within a radius)."]
