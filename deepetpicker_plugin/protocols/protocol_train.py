"""Train a picker from labelled centres."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfTomograms

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.geometry import working_voxel_size
from deepetpicker_plugin import convert
from deepetpicker_plugin.constants import COORDINATES_DIR, METRICS_FILE, MODEL_FILE, TRAINING_DIR, TRAINING_MANIFEST
from deepetpicker_plugin.engine import EngineError, readManifest, writeParams
from deepetpicker_plugin.forms import addOption, addOptions, expertNames, readOptions
from deepetpicker_plugin.objects import DeepETPickerModel
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase

NETWORK = ("residual", "coordinates", "pyramid", "activation", "widths")
MACHINE = ("devices", "nodes")


class ProtDeepETPickerTrain(ProtDeepETPickerBase):
    """Train DeepETPicker from the centres of a few particles.

    The centres become weak labels (small balls), a 3D-ResUNet learns to find them, and the epoch that does best on
    tomograms kept aside becomes the model. The model remembers classes, diameters and voxel size, so that picking needs
    no further setting. A run that was stopped or killed goes on from its last whole epoch with *Continue*.
    """

    _label = "train"
    _possibleOutputs = {"model": DeepETPickerModel}

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Particle coordinates",
                      help="Centres of particles, a few dozen or more. Annotate all particles of a tomogram (or of a "
                      "part of it), or set below that others may be unannotated.")
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms (optional)",
                      help="Empty: the tomograms of the coordinates. Otherwise tomograms with the same tsIds, such as "
                      "denoised ones or those of another binning; the coordinates are scaled to them.")
        addOption(form, TrainOptions, "diameter_angstrom", "Particle diameter", important=True,
                  help="Diameter of the particle in Å, one for all classes or one per class in the order of the group "
                  "ids, separated by commas. The wizard draws it on a tomogram.")
        form.addParam("useGroups", params.BooleanParam, default=True, label="Classes from the group ids?",
                      help="Yes: coordinates with different group ids are different kinds of particles, and the "
                      "network learns to tell them apart. No: all are one kind, whatever their group id.")
        form.addParam("classNames", params.StringParam, default="", label="Class names (optional)",
                      help="Names separated by commas, in the order of the group ids: ribosome, proteasome.")
        addOption(form, TrainOptions, "unannotated", "What is not annotated")
        addOption(form, TrainOptions, "validation", "Tomograms kept for validation (tsIds)")
        form.addParam("initModel", params.PointerParam, pointerClass="DeepETPickerModel", allowsNull=True,
                      label="Start from a model (optional)",
                      help="Warm start: the weights of a model with the same network and classes instead of random "
                           "ones.")

        form.addSection(label="Training")
        addOptions(form, TrainOptions, ["epochs", "patch", "batch", "patches_per_epoch", "background_fraction",
                                        "working_diameter", "label", "label_diameter", "seed"])
        form.addSection(label="Expert")
        group = form.addGroup("Optimisation and augmentation", expertLevel=params.LEVEL_ADVANCED)
        addOptions(group, TrainOptions, expertNames(TrainOptions, (*NETWORK, *MACHINE)))
        group = form.addGroup("Network", expertLevel=params.LEVEL_ADVANCED)
        addOptions(group, TrainOptions, NETWORK)
        self._defineGpuParams(form)
        form.addParallelSection(threads=4, mpi=0)

    # ---- steps
    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes all of them run again when anything in the form changes."""
        digest = self._digestOf([self._options(), convert.classesJson(self._classes()), self._inputIds()])
        self._insertFunctionStep(self.convertStep, digest, needsGPU=False)
        self._insertFunctionStep(self.trainStep, digest, needsGPU=True)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def convertStep(self, digest: str) -> None:
        """Write the tables of the coordinates and params.json."""
        folder = self._ensureExtra(COORDINATES_DIR)
        rows, places = convert.readCoordinates(self.inputCoordinates.get())
        targets = self._targets(places)
        classes = convert.classIds(convert.groupIds(self.inputCoordinates.get()), self.useGroups.get())
        items = []
        for tsId, found in rows.items():
            if tsId not in targets:
                self.warning(f"{tsId}: left out, it is not among the tomograms to train on")
                continue
            xyz = convert.transfer(found.positions_xyz_vox, places[tsId], targets[tsId])
            table = convert.writeTable(folder, tsId, found.table(classes, xyz))
            items.append(convert.itemOf(targets[tsId], coordinates=table))
        if not items:
            raise InputError("no tomogram to train on has coordinates: the tsIds of the two sets must agree")
        writeParams(self._ensureExtra(TRAINING_DIR), self._options(), items, convert.classesJson(self._classes()))

    def trainStep(self, digest: str) -> List[str]:
        """Train, or go on where an earlier start ended; returns the model file, which must exist."""
        folder = self._getExtraPath(TRAINING_DIR)
        self.runEngine(folder, ["train", "--params", os.path.join(folder, "params.json"), "--out",
                                self._getExtraPath(MODEL_FILE)], gpu=True)
        if not os.path.exists(self._getExtraPath(MODEL_FILE)):
            raise EngineError("the engine left no model: see the output log")
        return [self._getExtraPath(MODEL_FILE)]

    def createOutputStep(self, digest: str) -> None:
        """Make the model an output."""
        model = DeepETPickerModel.fromFile(self._getExtraPath(MODEL_FILE))
        self._defineOutputs(model=model)
        self._defineSourceRelation(self.inputCoordinates, model)
        if self.inputTomograms.get() is not None:
            self._defineSourceRelation(self.inputTomograms, model)

    # ---- what the form says
    def getMetricsFile(self) -> str:
        """Return the path of the per-epoch CSV, which grows while the training runs."""
        return self._getExtraPath(METRICS_FILE)

    def getTomograms(self) -> Optional[SetOfTomograms]:
        """Return the tomograms to train on."""
        if self.inputTomograms.get() is not None:
            return self.inputTomograms.get()
        coordinates = self.inputCoordinates.get()
        return coordinates.getPrecedents() if coordinates is not None else None

    def _inputIds(self) -> List[Any]:
        """Return what identifies the inputs."""
        sets = [self.inputCoordinates.get(), self.getTomograms()]
        return [[s.getObjId(), s.getSize()] for s in sets]

    def _targets(self, places: Dict[str, convert.Place]) -> Dict[str, convert.Place]:
        """Return the tomograms to train on by tsId; places are those of the coordinates."""
        if self.inputTomograms.get() is None:
            return places
        return {ts: convert.Place.of(t) for ts, t in convert.tomogramsOf(self.inputTomograms.get()).items()}

    def _classes(self) -> convert.Classes:
        """Return the particle classes that the form and the coordinates give."""
        ids = convert.classIds(convert.groupIds(self.inputCoordinates.get()), self.useGroups.get())
        diameters = convert.parseNumbers(self.diameterAngstrom.get(), "Particle diameter")
        return convert.makeClasses(sorted(set(ids.values())), diameters, self.classNames.get())

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        model = self.initModel.get()
        gpus = len(self.getGpuList()) if self.usesGpu() else 1
        return readOptions(self, TrainOptions, diameter_angstrom=(), voxel_size=0.0, device=self._device(),
                           devices=max(1, gpus), init=model.getFileName() if model is not None else "")

    def _scale(self) -> Tuple[float, float]:
        """Return the voxel size of the tomograms and that at which the network works, in angstrom."""
        voxel = float(self.getTomograms().getSamplingRate())
        diameters = [d for _, d in self._classes().values()]
        return voxel, working_voxel_size(diameters, voxel, float(self.workingDiameter.get()))

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        coordinates, tomograms = self.inputCoordinates.get(), self.getTomograms()
        self._checkedOptions(errors)
        if coordinates is None:
            return errors
        if not coordinates.getSize():
            return [*errors, "*Particle coordinates* the set is empty: choose one with particles"]
        classes = self._collect(errors, self._classes, "Particle diameter")
        if classes:
            self._collect(errors, self._scale, "Particle diameter")
        annotated = set(coordinates.getTSIds())
        usable = annotated & set(tomograms.getTSIds())
        if not usable:
            errors.append(f"*Tomograms* none of them has coordinates: expected some of the tsIds "
                          f"{', '.join(sorted(annotated)[:4])}, found {', '.join(sorted(tomograms.getTSIds())[:4])}")
        kept = {w.strip() for w in (self.validation.get() or "").split(",") if w.strip()}
        if usable and kept - usable:
            errors.append(f"*Tomograms kept for validation* no coordinates in {', '.join(sorted(kept - usable))}, or "
                          f"not among the tomograms: choose among {', '.join(sorted(usable)[:8])}")
        elif kept and usable <= kept and usable:
            errors.append("*Tomograms kept for validation* nothing is left to train on: leave at least one tomogram "
                          "out")
        model = self.initModel.get()
        if model is not None and classes and model.getClassIds() != sorted(classes):
            errors.append(f"*Start from a model* it knows the classes {model.getClassIds()}, the coordinates have "
                          f"{sorted(classes)}: start from a model of the same classes, or from none")
        return errors

    def _summary(self) -> List[str]:
        """Return what was or will be done."""
        lines = []
        if self.inputCoordinates.get() is not None:
            lines += self._scaleLines()
        rows = readRows(self.getMetricsFile())
        if rows:
            best = max((r for r in rows if r.get("pick_f1")), key=lambda r: float(r["pick_f1"]), default=None)
            lines.append(f"Epochs: *{len(rows)} of {self.epochs.get()}*, last training loss {rows[-1]['train_loss']}")
            if best:
                lines.append(f"Best F1 on the validation part so far: *{float(best['pick_f1']):.3f}* (epoch "
                             f"{best['epoch']})")
        if hasattr(self, "model"):
            lines.append(f"Model: {self.model}")
        manifest = readManifest(self._getExtraPath(TRAINING_MANIFEST))
        return (lines or ["Nothing was trained yet."]) + self._warnings_of(manifest)

    def _scaleLines(self) -> List[str]:
        """Return diameters and scale in angstrom and voxels; nothing when the form does not say them yet."""
        errors: List[str] = []
        scale = self._collect(errors, self._scale)
        if scale is None:
            return []
        voxel, working = scale
        lines = [f"Class {i} ({name}): diameter {convert.inBoth(d, voxel)}" for i, (name, d) in self._classes().items()]
        size = self.patch.get()
        return [*lines, f"The network works at {working:.4g} Å per voxel (tomograms: {voxel:.4g} Å), on patches of "
                f"{size} voxels ({size * working:.4g} Å)"]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        if not hasattr(self, "model"):
            return ["The model is not trained yet."]
        card = self.model.getCard()
        f1 = "" if self.model.getF1() is None else f"; its F1 on held-out data was {self.model.getF1():.2f}"
        return [f"A 3D-ResUNet was trained with DeepETPicker {card.version} [Liu2024] on "
                f"{self.inputCoordinates.get().getSize()} particle centres at {card.voxel_size_ang:.4g} Å per voxel "
                f"for {self.model._epochs.get()} epochs{f1}."]


def readRows(path: str) -> List[Dict[str, str]]:
    """Return the rows of a CSV with a header as text; none when it is missing or still without a header."""
    import csv

    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values()]
