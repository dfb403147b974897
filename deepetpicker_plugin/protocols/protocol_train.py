"""Train a picker from labelled centres."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D, SetOfTomograms

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.geometry import working_voxel_size
from deepetpicker.io.classes import classes_to_json, news_of, numbers_by_class
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker_plugin.constants import (
    COORDINATES_DIR,
    FIRST_METRICS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    TRAINING_DIR,
    TRAINING_MANIFEST,
)
from deepetpicker_plugin.engine import devices
from deepetpicker_plugin.engine.earlier import toDoAgain
from deepetpicker_plugin.engine.process import EngineError, readManifest, writeParams
from deepetpicker_plugin.epochs import keptLines, readRows
from deepetpicker_plugin.forms import addOption, addOptions, addTrainingOptions, expertNames, inFormWords, readOptions
from deepetpicker_plugin.objects import DeepETPickerModel
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert, corrections
from deepetpicker_plugin.sets.classes import (
    BY_CLASS,
    Sorted,
    Source,
    Table,
    fromCoordinates,
    sortClasses,
    tableLines,
    tableOf,
    unmeasured,
    withDiameters,
    withNames,
)

NETWORK = ("residual", "coordinates", "pyramid", "activation", "widths")
MACHINE = ("devices", "nodes")
STARTS = ("automatic", "the model of the package", "nothing", "an earlier model")
AUTOMATIC, GENERIC, NOTHING, EARLIER = range(len(STARTS))
INITS = {AUTOMATIC: "", GENERIC: "generic", NOTHING: "none", EARLIER: ""}  # the engine's words where there is no file


class ProtDeepETPickerTrain(ProtDeepETPickerBase):
    """Train DeepETPicker from the centres of a few particles.

    The centres become weak labels (small balls), a 3D-ResUNet learns to find them, and the epoch that does best on
    tomograms kept aside becomes the model. The model remembers classes, diameters and voxel size, so that picking needs
    no further setting. A run that was stopped or killed goes on from its last whole epoch with *Continue*.
    """

    _label = "train"
    _verb = "train"
    _optionsClass: Any = TrainOptions
    _possibleOutputs = {"model": DeepETPickerModel}

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Particle coordinates",
                      help="Centres of particles: ten do, a few dozen are better. Those of *annotate particles* and "
                      "*review picks* may be some of many. Of any others it is taken that all particles of their "
                      "tomograms are marked, unless *What is not annotated* says unknown.")
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms (optional)",
                      help="Empty: the tomograms of the coordinates. Otherwise tomograms with the same tsIds, such as "
                      "denoised ones or those of another binning; the coordinates are scaled to them.")
        form.addParam("moreCoordinates", params.MultiPointerParam, pointerClass="SetOfCoordinates3D", allowsNull=True,
                      minNumObjects=0, label="Further sets (optional)",
                      help="Such as the particles of other kinds, a set for each: its label becomes the name of the "
                      "class. Their group ids become class ids; sets that share one are counted from 1 instead, and "
                      "the summary shows the table.")
        addOption(form, TrainOptions, "diameter_angstrom", "Particle diameter", important=True,
                  validators=[], help=f"Diameter of the particle in Å. {BY_CLASS} Empty: what the coordinates know, as "
                  "annotated, proposed, picked and simulated ones do; the summary says whose it is. Coordinates of "
                  "other programs know none. The wizard draws it on a tomogram, and begins with what is known.")
        form.addParam("useGroups", params.BooleanParam, default=True, label="Classes from the group ids?",
                      help="Yes: coordinates with different group ids are different kinds of particles, and the "
                      "network learns to tell them apart. No: those of a set are one kind, whatever their group id.")
        form.addParam("setsAreClasses", params.BooleanParam, default=True, label="Is each set a kind of its own?",
                      help="With several sets. Yes: particles of different sets are of different kinds, whatever their "
                      "group id. No: sets only add particles, and a group id means the same in all of them.")
        form.addParam("classNames", params.StringParam, default="", label="Class names (optional)",
                      help="By group id: 0: ribosome, 1: proteasome. The model, its picks and all that is chosen from "
                      "them carry the names. Empty: what the coordinates know.")
        corrections.addCorrectionParams(form)
        addOption(form, TrainOptions, "unannotated", "What is not annotated")
        addOption(form, TrainOptions, "self_training", "Train with sure finds too?")
        addOption(form, TrainOptions, "refit", "Learn the held-out part too?")
        addOption(form, TrainOptions, "validation", "Kept for validation (tsIds)")
        form.addParam("startFrom", params.EnumParam, choices=list(STARTS), default=AUTOMATIC, label="Start from",
                      help="automatic: the model below, if one is chosen; else on a CPU the default recipe starts from "
                      "the model that comes with the package, and everything else from chance.\n"
                      "the model of the package: a small network (2 MB) that knows particles in general, trained on "
                      "simulated ones; no protein was among them. Few labels and few minutes go farther with it.\n"
                      "nothing: chance. Such a training owes nothing to other data; give it more time.\n"
                      "an earlier model: the weights of the model below.")
        form.addParam("initModel", params.PointerParam, pointerClass="DeepETPickerModel", allowsNull=True,
                      condition=f"startFrom in ({AUTOMATIC}, {EARLIER})", label="Earlier model (optional)",
                      help="Warm start: the weights of a model of the project. What its output says of classes with "
                      "the same name (or id, without names) and diameter is kept too.")

        form.addSection(label="Training")
        addTrainingOptions(form, TrainOptions, ["recipe", "minutes", "epochs", "patch", "batch",
                                                "patches_per_epoch"])
        addOptions(form, TrainOptions, ["background_fraction", "working_diameter", "label"])
        addTrainingOptions(form, TrainOptions, ["label_diameter", "seed"])
        group = form.addGroup("Optimisation and augmentation", expertLevel=params.LEVEL_ADVANCED)
        addOptions(group, TrainOptions, expertNames(TrainOptions, (*NETWORK, *MACHINE)))
        group = form.addGroup("Network", expertLevel=params.LEVEL_ADVANCED)
        addOptions(group, TrainOptions, NETWORK)
        self._defineGpuParams(form)
        form.addParallelSection(threads=4, mpi=0)

    # ---- steps
    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes all of them run again when form, inputs or the tomograms' files change."""
        digest = self._digestOf([self._options(), classes_to_json(self.getClasses()), self._sorted().ofGroup,
                                 self._inputIds(), *toDoAgain(self._getExtraPath(TRAINING_MANIFEST))])
        self._insertFunctionStep(self.convertStep, digest, needsGPU=False)
        self._insertFunctionStep(self.trainStep, digest, needsGPU=True)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def convertStep(self, digest: str) -> None:
        """Write the tables of the coordinates and params.json."""
        folder = self._ensureExtra(COORDINATES_DIR)
        tables, targets = self.readTables()
        for tsId in tables:
            if tsId not in targets:
                self.warning(f"{tsId}: left out, it is not among the tomograms to train on")
        beside = corrections.correctionItems(self, targets, folder)
        corrections.sayPartial(self, [ts for ts in tables if ts in targets], folder, beside)
        items = [convert.itemOf(targets[ts], coordinates=convert.writeTable(folder, ts, table), **beside.pop(ts, {}))
                 for ts, table in tables.items() if ts in targets]
        items += [convert.itemOf(targets[ts], **paths) for ts, paths in beside.items()]
        if not items:
            raise InputError("no tomogram to train on has coordinates: the tsIds of the two sets must agree")
        writeParams(self._ensureExtra(TRAINING_DIR), self._options(), items, classes_to_json(self.getClasses()))

    def trainStep(self, digest: str) -> List[str]:
        """Train, or go on where an earlier start ended; returns the model file, which must exist."""
        folder = self._getExtraPath(TRAINING_DIR)
        self.runEngine(folder, [self._verb, *self._engineWords(), "--params", os.path.join(folder, "params.json"),
                                "--out", self._getExtraPath(MODEL_FILE)], gpu=True)
        if not os.path.exists(self._getExtraPath(MODEL_FILE)):
            raise EngineError("the engine left no model: see the output log")
        return [self._getExtraPath(MODEL_FILE)]

    def createOutputStep(self, digest: str) -> None:
        """Make the model an output."""
        model = DeepETPickerModel.fromFile(self._getExtraPath(MODEL_FILE))
        self._defineOutputs(model=model)
        optional = [self.inputTomograms, *([self.initModel] if self.getStartModel() is not None else [])]
        for source in (self.inputCoordinates, *self.moreCoordinates, *(p for p in optional if p.get() is not None),
                       *(one.output for kind in corrections.KINDS for one in corrections.given(self, kind))):
            self._defineSourceRelation(source, model)

    # ---- what the form says
    def _engineWords(self) -> List[str]:
        """Return what stands behind the engine's verb: nothing."""
        return []

    def getMetricsFile(self) -> str:
        """Return the path of the per-epoch CSV, which grows while the training runs."""
        last, first = self._getExtraPath(METRICS_FILE), self._getExtraPath(FIRST_METRICS_FILE)
        return first if os.path.exists(first) and not os.path.exists(last) else last

    def getTomograms(self) -> Optional[SetOfTomograms]:
        """Return the tomograms to train on."""
        if self.inputTomograms.get() is not None:
            return self.inputTomograms.get()
        coordinates = self.inputCoordinates.get()
        return coordinates.getPrecedents() if coordinates is not None else None

    def getSources(self) -> List[Source]:
        """Return the sets of coordinates that the form has, with what they are called."""
        pointers = [self.inputCoordinates, *self.moreCoordinates]
        return [Source(p.get(), self._labelOf(p), tableOf(p.get(), self.getProject()))
                for p in pointers if p.get() is not None]

    @staticmethod
    def _labelOf(pointer: Any) -> str:
        """Return the label of a set, else that of the protocol it comes from; with the output's name beside others."""
        own, maker = (pointer.get().getObjLabel() or "").strip(), pointer.getObjValue()
        if own or not hasattr(maker, "iterOutputAttributes"):
            return own
        several = len(list(maker.iterOutputAttributes(SetOfCoordinates3D))) > 1
        return f"{maker.getObjLabel()} {pointer.getExtended()}" if several else str(maker.getObjLabel() or "")

    def readTables(self) -> Tuple[Dict[str, CoordinateTable], Dict[str, convert.Place]]:
        """Return the particles of all sets by tsId, and the tomograms to train on, in whose voxels they are.

        Particles of tomograms that are not trained on stay as they are.
        """
        found = [convert.readCoordinates(source.coordinates) for source in self.getSources()]
        targets: Dict[str, convert.Place] = {}
        if self.inputTomograms.get() is not None:
            targets = {ts: convert.Place.of(t) for ts, t in convert.tomogramsOf(self.inputTomograms.get()).items()}
        else:
            for _, places in reversed(found):
                targets.update(places)
        parts: Dict[str, List[CoordinateTable]] = {}
        for (rows, places), ofGroup in zip(found, self._sorted().ofGroup):
            for tsId, row in rows.items():
                xyz = convert.transfer(row.positions_xyz_vox, places[tsId], targets.get(tsId, places[tsId]))
                parts.setdefault(tsId, []).append(row.table(ofGroup, xyz))
        return {ts: CoordinateTable.concatenate(tables) for ts, tables in parts.items()}, targets

    def _inputIds(self) -> List[Any]:
        """Return what identifies the inputs."""
        negatives, regions = (corrections.given(self, kind) for kind in corrections.KINDS)
        sets = [*(source.coordinates for source in self.getSources()), self.getTomograms(),
                *(one.output for one in negatives)]
        return [*([s.getObjId(), s.getSize()] for s in sets if s is not None),
                *(str(one.output.getRegions()) for one in regions)]

    def _sorted(self) -> Sorted:
        """Return the classes that the coordinates give, and which group of which set is which."""
        return sortClasses(self.getSources(), self.useGroups.get(), self.setsAreClasses.get())

    def getClasses(self, complete: bool = True) -> Table:
        """Return the particle classes that the coordinates and the form give, by ascending id.

        Parameters
        ----------
        complete : bool
            False allows diameters that are not known yet.

        Raises
        ------
        InputError
            If names or diameters do not fit the classes, or a diameter is missing.
        """
        named = withNames(self._sorted().classes, self.classNames.get(), "*Class names*")
        classes = withDiameters(named, self.diameterAngstrom.get(), "*Particle diameter*")
        bare = [c for c in classes if not c.diameter_ang > 0]
        if bare and complete:
            raise InputError(f"*Particle diameter* expected one > 0 Å for {', '.join(c.label for c in bare)}, got "
                             "none" + (f": write {', '.join(f'{c.id}: ...' for c in bare)}" if len(classes) > 1
                                       else "") + "; the wizard beside the field draws it")
        return classes

    def _undrawn(self) -> Table:
        """Return the classes whose diameter the form leaves to the coordinates."""
        classes = self.getClasses(complete=False)
        given = numbers_by_class(self.diameterAngstrom.get() or "", classes, "*Particle diameter*")
        return tuple(c for c in classes if c.id not in given and c.diameter_ang > 0)

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        model = self.getStartModel()
        gpus = len(self.getGpuList()) if self.usesGpu() else 1
        return readOptions(self, self._optionsClass, diameter_angstrom=(), voxel_size=0.0, device=self._device(),
                           devices=max(1, gpus), init=self._startWord() if model is None else model.getFileName())

    def getStartModel(self) -> Optional[DeepETPickerModel]:
        """Return the earlier model to start from, None where the form wants none."""
        return self.initModel.get() if self.startFrom.get() in (AUTOMATIC, EARLIER) else None

    def _startWord(self) -> str:
        """Return what the engine calls a start that is no file."""
        return INITS[self.startFrom.get()]

    def _scale(self) -> Tuple[float, float]:
        """Return the voxel size of the tomograms and that at which the network works, in angstrom."""
        voxel = float(self.getTomograms().getSamplingRate())
        diameters = [c.diameter_ang for c in self.getClasses()]
        return voxel, working_voxel_size(diameters, voxel, float(self.workingDiameter.get()))

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        coordinates, tomograms = self.inputCoordinates.get(), self.getTomograms()
        errors += devices.errors(self)
        if not errors:
            self._checkedOptions(errors)
        errors += self._startErrors()
        if coordinates is None:
            return errors
        sources = self.getSources()
        if any(not source.coordinates.getSize() for source in sources):
            return [*errors, "*Particle coordinates* a set is empty: choose sets with particles"]
        errors += corrections.misplaced(self)
        if self._collect(errors, self.getClasses) is not None:
            self._collect(errors, self._scale, "Particle diameter")
        annotated = {ts for source in sources for ts in source.coordinates.getTSIds()}
        given = set(tomograms.getTSIds()) if self.inputTomograms.get() is not None else annotated
        usable = annotated & given
        if not usable:
            errors.append(f"*Tomograms* none of them has coordinates: expected some of the tsIds "
                          f"{', '.join(sorted(annotated)[:4])}, found {', '.join(sorted(given)[:4])}")
        kept = {w.strip() for w in (self.validation.get() or "").split(",") if w.strip()}
        if usable and kept - usable:
            errors.append(f"*Kept for validation* no coordinates in {', '.join(sorted(kept - usable))}, or "
                          f"not among the tomograms: choose among {', '.join(sorted(usable)[:8])}")
        elif kept and usable <= kept and usable:
            errors.append("*Kept for validation* nothing is left to train on: leave at least one tomogram "
                          "out")
        return errors

    def _startErrors(self) -> List[str]:
        """Return what is wrong with what the form starts from."""
        lacks = self.startFrom.get() == EARLIER and self.initModel.get() is None
        return ["*Start from* expected an earlier model, got none: choose one below, or start from something else"
                ] if lacks else []

    def _warnings(self) -> List[str]:
        """Return what the user should know before the run."""
        model, errors = self.getStartModel(), []  # type: ignore[var-annotated]
        classes = self._collect(errors, self.getClasses) if self.inputCoordinates.get() is not None else None
        lines = super()._warnings() + corrections.leftBehind(self)
        if classes is None:
            return lines
        lines += unmeasured(self.getSources(), self._sorted(), self._undrawn(), self.getProject())
        if model is None:
            return lines
        return lines + [f"*Start from* {text}: what the model's output says of this class starts anew"
                for text in news_of(classes, model.getClasses())]

    def _summary(self) -> List[str]:
        """Return what was or will be done."""
        lines = []
        if self.inputCoordinates.get() is not None:
            lines += self._scaleLines() + corrections.summary(self)
        rows = readRows(self.getMetricsFile())
        if rows:
            isFirst = self.getMetricsFile().endswith(FIRST_METRICS_FILE)
            isOnly = not os.path.exists(self._getExtraPath(FIRST_METRICS_FILE))
            planned = f" of {self.epochs.get()}" if self.epochs.get() and isOnly else ""
            which = "Epochs" if isOnly else "First training, epochs" if isFirst else "Second training, epochs"
            lines.append(f"{which}: *{len(rows)}{planned}*, last training loss {rows[-1]['train_loss']}")
        manifest = readManifest(self._getExtraPath(TRAINING_MANIFEST))
        outputs = (manifest or {}).get("outputs", {})
        lines += [f"Verdict: *{outputs['verdict']['text']}*"] if outputs.get("verdict") else []
        lines += keptLines(rows, outputs)
        if hasattr(self, "model"):
            lines += [f"Model: {self.model}", "Next: *pick* takes it."]
        return [inFormWords(line, self) for line in [*(lines or ["Nothing was trained yet."]),
                                                     *self._warnings_of(manifest)]]

    def _scaleLines(self) -> List[str]:
        """Return diameters and scale in angstrom and voxels; nothing when the form does not say them yet."""
        errors: List[str] = []
        scale = self._collect(errors, self._scale)
        if scale is None:
            return []
        voxel, working = scale
        size = self.patch.get()
        patches = f"{size} voxels ({size * working:.4g} Å)" if size else "the size that the recipe chooses"
        return [*tableLines(self.getClasses(), voxel),
                *fromCoordinates(self.getSources(), self._sorted(), self._undrawn(), self.getProject()),
                f"The network works at {working:.4g} Å per voxel (tomograms: {voxel:.4g} Å), on patches of "
                f"{patches}"]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        if not hasattr(self, "model"):
            return ["The model is not trained yet."]
        card = self.model.getCard()
        f1 = "" if self.model.getF1() is None else f"; its F1 on held-out data was {self.model.getF1():.2f}"
        count = sum(source.coordinates.getSize() for source in self.getSources())
        found = sum(card.training.get("found", {}).values())
        more = f", and on {found} that a first training was sure of," if found else ""
        return [f"A 3D-ResUNet was trained with DeepETPicker {card.version} [Liu2024] on {count} particle "
                f"centres{more} at {card.voxel_size_ang:.4g} Å per voxel for {self.model._epochs.get()} epochs{f1}."]
