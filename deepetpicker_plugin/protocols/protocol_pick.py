"""Pick particles in tomograms as they come."""

from __future__ import annotations

import logging
import math
import os
from typing import Any, Dict, List, Sequence

from pyworkflow.protocol import STATUS_NEW, ProtStreamingBase, params
from pyworkflow.utils import Message
from pyworkflow.utils.retry_streaming import retry_on_sqlite_lock
from tomo.objects import SetOfCoordinates3D, SetOfTomoMasks, Tomogram

from deepetpicker.config import PickOptions
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.perclass import resolve
from deepetpicker_plugin.constants import DEVICES_FILE, MANIFEST_FILE, PICKS_DIR
from deepetpicker_plugin.engine import devices
from deepetpicker_plugin.engine.earlier import endProcess, noteProcess
from deepetpicker_plugin.engine.process import (
    OWN_ERRORS,
    EngineError,
    exitCode,
    readManifest,
    signalOf,
    stopLeftovers,
    writeParams,
)
from deepetpicker_plugin.forms import addOption, addOptions, expertNames, inFormWords, readOptions
from deepetpicker_plugin.objects import SetOfFailedTomograms
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert, picked
from deepetpicker_plugin.sets.classes import tableLines
from deepetpicker_plugin.sets.growing import GrowingSet
from deepetpicker_plugin.sets.kept import KeptMixin
from deepetpicker_plugin.sets.outputs import OutputsMixin
from deepetpicker_plugin.sets.picked import COORDINATES, FAILED, MAPS

logger = logging.getLogger(__name__)

MOST_TERMS = 100  # of an SQL condition


class ProtDeepETPickerPick(KeptMixin, OutputsMixin, ProtDeepETPickerBase, ProtStreamingBase):
    """Pick particles in tomograms with a trained DeepETPicker model.

    Takes tomograms while they are being reconstructed, uses all GPUs given, starts the engine once for many tomograms,
    and sets tomograms that fail apart. All candidates are kept with their scores: *threshold picks* chooses among them
    without a new run.
    """

    _label = "pick"
    _hasFailedStep = False
    _possibleOutputs = {COORDINATES: SetOfCoordinates3D, MAPS: SetOfTomoMasks, FAILED: SetOfFailedTomograms}

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", important=True,
                      label="Tomograms",
                      help="Tomograms to pick in, of the model's voxel size or finer; finer ones are resampled. The "
                      "set may still be growing.")
        form.addParam("inputModel", params.PointerParam, pointerClass="DeepETPickerModel", important=True,
                      label="Model",
                      help="A model from *train* or *import model*. It says classes, diameters and voxel size.")
        form.addParam("inputMasks", params.PointerParam, pointerClass="SetOfTomoMasks", allowsNull=True,
                      label="Region of interest (optional)",
                      help="Masks with the tsIds of the tomograms, of the same or another binning: picks outside "
                      "voxels > 0 are dropped. A tomogram without a mask goes to the failed ones.")
        addOption(form, PickOptions, "threshold", "Score threshold", "-1: model's",
                  help="Lowest score of a pick, 0 to 1 (the probability that it is right, where the model is "
                  "calibrated): one for all, or by group id (or name): 1: 0.4, 2: 0.6. Negative, or a class left out, "
                  "takes the model's own, best in its validation. The wizard shows the scores of an earlier run.")
        addOption(form, PickOptions, "fdr", "False-discovery rate", "0: not used",
                  help="Share of false picks that is accepted, such as 0.05: the threshold of each class and tomogram "
                  "is then the lowest that keeps the estimated rate at or below it, and not below a score threshold "
                  "that is given. 0: by the score threshold alone. Needs a model whose scores are calibrated.")
        addOption(form, PickOptions, "mirrors", "Looks at each place", "0: model's",
                  help="The mean of looks at each place and its mirror images tells classes apart and centres better, "
                  "and takes so many times as long. 0: four where the model has several classes or learnt from a part "
                  "of the particles, else one.")
        addOption(form, PickOptions, "faint", "Faint picks",
                  help="Picks that stand out of the tomogram less than half as far as the faintest annotated particle: "
                  "*auto* drops them where the model learnt from a part of the particles. The summary says "
                  "how many.")
        addOption(form, PickOptions, "max_picks", "Most picks per class", "0: all")
        addOption(form, PickOptions, "min_distance_angstrom", "Least distance", "-1: model's",
                  help="Picks closer than this are one particle: one number, or by group id (or name): 1: 80, 2: 50. "
                  "Negative, or a class left out, takes what the nearest particles of the training say (half the "
                  "diameter, where they were too few).")
        form.addSection(label="Output")
        form.addParam("splitClasses", params.BooleanParam, default=False, label="One set per class?",
                      help="Yes: each class becomes its own set of coordinates. No: one set, where the group id is the "
                           "class.")
        addOption(form, PickOptions, "save_map", "Keep the probability maps?",
                  help="Yes: the probability of each class also becomes a set of tomogram masks, at the voxel size the "
                  "network works at.")
        form.addSection(label="Computation")
        form.addParam("streamingSleepOnWait", params.IntParam, default=10,
                      label="Look for new ones every (s)",
                      validators=[params.GE(1, error="must be 1 or more")],
                      help="As long as the set of tomograms grows, it is looked for new ones so often.")
        form.addParam("tomogramsPerStart", params.IntParam, default=20, expertLevel=params.LEVEL_ADVANCED,
                      label="Tomograms per start", validators=[params.GE(1, error="must be 1 or more")],
                      help="Starting the engine takes some seconds, so that one start picks several tomograms. Results "
                      "appear when a start has ended.")
        addOptions(form, PickOptions, expertNames(PickOptions, without=("shard",)))
        self._defineGpuParams(form)
        form.addParallelSection(threads=3, mpi=0, binThreads=4)

    # ---- steps
    def setStepsExecutor(self, executor: Any = None) -> None:
        """Take what runs the steps, and see to it that each GPU of the form gets an engine."""
        super().setStepsExecutor(executor)
        devices.giveEachGpuASlot(self.getExecutor())

    # This one occupies a thread as long as tomograms may come.
    def stepsGeneratorStep(self) -> None:
        """Insert picking steps for tomograms as they come; what an earlier run has picked is taken as it is."""
        endProcess(self._getExtraPath())
        noteProcess(self._ensureExtra())
        self._sign()
        stopLeftovers(self._getExtraPath())
        for line in devices.describe(devices.record(self, self._getExtraPath(DEVICES_FILE))):
            self.info(line)
        before = self._kept()
        growing, outputs, isOpen = GrowingSet(self.inputTomograms.get()), [], True
        while isOpen:
            new, isOpen = growing.look()
            ready = [ts for ts in new if ts in before]
            if ready:
                outputs.append(self._insertFunctionStep(self.outputStep, "", ready, prerequisites=[], needsGPU=False))
            outputs += self._insertPicking([ts for ts in new if ts not in before])
            if isOpen:
                self._streamingSleepOnWait()
            if self._hasFailedStep:  # nobody does what is inserted now, and the process waits for this thread
                return
        self._insertFunctionStep(self.closeStep, prerequisites=outputs, needsGPU=False)

    def _stepFinished(self, step: Any) -> Any:
        """Do what Scipion does when a step has ended; when it has failed, no more tomograms are looked for."""
        self._hasFailedStep = self._hasFailedStep or step.isFailed()
        return super()._stepFinished(step)

    def _insertPicking(self, tsIds: Sequence[str]) -> List[int]:
        """Insert the steps that pick some tomograms; return those that make output."""
        steps = []
        size = max(1, min(self.tomogramsPerStart.get(), math.ceil(len(tsIds) / devices.atOnce(self))))
        for start in range(0, len(tsIds), size):
            chunk = list(tsIds[start:start + size])
            batch = os.path.basename(picked.newBatch(self._ensureExtra(PICKS_DIR)))
            step = self._insertGpuStep(self.pickStep, batch, chunk)
            steps.append(self._insertFunctionStep(self.outputStep, batch, chunk, prerequisites=[step], needsGPU=False))
        return steps

    def _insertGpuStep(self, function: Any, *args: Any) -> int:
        """Insert a step that books a GPU.

        The executor books by the step's id, which steps of a generator get only when they are stored: without one they
        would share a GPU. So the step waits until it has the id it will be stored with.
        """
        number = self._insertFunctionStep(function, *args, prerequisites=[], wait=True, needsGPU=self.usesGpu())
        step = self._steps[number - 1]
        step.setObjId(number)
        step.setStatus(STATUS_NEW)
        return number

    def pickStep(self, batch: str, tsIds: List[str]) -> None:
        """Pick some tomograms with one start of the engine; if one of them ends it, start again for the others.

        Raises
        ------
        EngineError
            If the engine itself is at fault, or was asked to end. A tomogram is blamed when the engine was killed by
            a signal, unless this happens twice and there is no result, or when it ended behind others' results.
        """
        folder, items = self._getExtraPath(PICKS_DIR, batch), self._engineItems(tsIds)
        remaining, works, blamed = self._withMask(folder, items), False, []
        while remaining:
            message = self._pickBatch(folder, [items[ts] for ts in remaining])
            done = picked.itemsOf(folder)
            missing = [ts for ts in remaining if ts not in done]
            fruitless, killed = len(missing) == len(remaining), signalOf(folder) > 0
            if missing and not killed and (fruitless or exitCode(folder) not in OWN_ERRORS):
                raise EngineError(message or f"the engine left no result in {folder}: see the output log")
            works = works or not fruitless
            blamed += [(folder, missing[0], message)] if missing else []
            if len(blamed) > 1 and not works:
                raise EngineError(message)
            if works or len(missing) == 1:
                for case in blamed:
                    picked.recordFailure(*case)
                blamed = []
            remaining, folder = missing[1:], picked.nextOf(folder)

    def _engineItems(self, tsIds: Sequence[str]) -> Dict[str, Dict[str, Any]]:
        """Return the engine's items of those of some tomograms that the set has, by tsId; with masks, if any."""
        found, masks = self._tomograms(tsIds), self.inputMasks.get()
        tomograms = {ts: found[ts] for ts in tsIds if ts in found}
        if masks is None:
            return {ts: convert.itemUnread(tomogram) for ts, tomogram in tomograms.items()}
        with self._lock:
            files = {m.getTsId(): convert.localFile(m.getFileName()) for m in masks.iterItems()}
            masks.close()
        return {ts: convert.itemUnread(tomogram, mask=files.get(ts, "")) for ts, tomogram in tomograms.items()}

    def _withMask(self, folder: str, items: Dict[str, Dict[str, Any]]) -> List[str]:
        """Return the tsIds that can be picked; one that lacks its mask is recorded as failed."""
        bare = [ts for ts, item in items.items() if item.get("mask") == ""]
        for tsId in bare:
            picked.recordFailure(folder, tsId, f"expected a mask with the tsId {tsId} among those of the region of "
                                 "interest, found none: add it, or pick without masks")
        return [ts for ts in items if ts not in bare]

    def _pickBatch(self, folder: str, items: List[Dict[str, Any]]) -> str:
        """Start the engine once; return its last error, empty when it ended well."""
        os.makedirs(folder, exist_ok=True)
        path = writeParams(folder, self._options(), items)
        words = ["pick", self.inputModel.get().getFileName(), "--params", path, "--out", folder]
        try:
            self.runEngine(folder, words, gpu=True)
        except EngineError as error:
            return str(error)
        return ""

    def _tomograms(self, tsIds: Sequence[str]) -> Dict[str, Tomogram]:
        """Return clones of some tomograms by tsId."""
        quoted = [str(ts).replace("'", "''") for ts in tsIds]
        where = " OR ".join(f"{Tomogram.TS_ID_FIELD}='{ts}'" for ts in quoted) if len(quoted) < MOST_TERMS else None
        with self._lock:
            tomograms = self.inputTomograms.get()
            found = {t.getTsId(): t.clone() for t in tomograms.iterItems(where=where) if t.getTsId() in tsIds}
            tomograms.close()
        return found

    # ---- output
    @retry_on_sqlite_lock(log=logger)
    def outputStep(self, batch: str, tsIds: List[str]) -> None:
        """Append what was found in some tomograms to the outputs; what is there already stays as it is.

        Parameters
        ----------
        batch : str
            Name of the folder of the start that picked them; empty for tomograms that earlier runs have picked.
        tsIds : list of str
            The tomograms.
        """
        folder = self._getExtraPath(PICKS_DIR)
        tomograms = self._tomograms(tsIds)
        results = picked.itemsFrom(os.path.join(folder, batch)) if batch else picked.items(folder)
        with self._lock:
            done = [ts for ts in tsIds if results[ts]["status"] == "done"]
            self._appendPicks(tomograms, {ts: read_coordinates(results[ts]["picks"]) for ts in done})
            for tsId in tsIds:
                if tsId in done:
                    self._appendMaps(tomograms[tsId], results[tsId]["maps"])
                else:
                    self._appendFailed(tomograms[tsId], results[tsId]["reason"])
            self._dropFailed(done)

    # ---- what the form says
    def getCandidates(self) -> Dict[str, CoordinateTable]:
        """Return all candidates above the floor by tsId, best first, in the tomograms' own voxels."""
        return {ts: read_coordinates(item["candidates"])
                for ts, item in picked.items(self._getExtraPath(PICKS_DIR)).items() if item["status"] == "done"}

    def _options(self) -> Dict[str, Any]:
        """Return the engine's options that the form gives; tomograms are shared out by this protocol, not by shards."""
        options = readOptions(self, PickOptions, device=self._device(), voxel_size=0.0, mask="", resume=False)
        return {name: value for name, value in options.items() if name != "shard"}

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        if self.numberOfThreads.get() < 3:
            errors.append("*Scipion threads* expected 3 or more: the main one, one that waits for tomograms, and one "
                          f"or more that pick; found {self.numberOfThreads.get()}")
        errors += devices.errors(self)
        options = self._checkedOptions(errors)
        model, tomograms = self.inputModel.get(), self.inputTomograms.get()
        card = self._collect(errors, model.getCard, "Model") if model is not None else None
        if tomograms is not None and not tomograms.getSize():  # Scipion takes a set without items for a closed one
            errors.append("*Tomograms* the set is empty: wait until it has its first tomogram, or schedule this")
        if card is not None and options is not None:
            for option, label in (("threshold", "Score threshold"),
                                  ("min_distance_angstrom", "Least distance")):
                self._collect(errors, lambda option=option, label=label: resolve(
                    options[option], card.classes, card.thresholds, f"*{label}*"))
            if options["fdr"] and any(c.calibration is None for c in card.classes):
                errors.append("*False-discovery rate* expected a model whose scores are probabilities, this one's are "
                              "not calibrated: set the rate to 0 and choose by *Score threshold*, or train it anew")
        if card is not None and tomograms is not None and options is not None:
            changed = self._changed()
            if changed:
                errors.append(f"*{', '.join(changed)}* changed since a part of the tomograms was picked: choose "
                              "*Restart* to pick all of them anew, or put the old values back to *Continue*")
        return errors

    def _warnings(self) -> List[str]:
        """Return what the user should know before the run."""
        tomograms, masks, model = self.inputTomograms.get(), self.inputMasks.get(), self.inputModel.get()
        known = tomograms.getSize() if tomograms is not None and not tomograms.isStreamOpen() else None
        lines = devices.pickingWarnings(self, known)
        if masks is not None and tomograms is not None:
            bare = sorted(set(tomograms.getTSIds()) - set(masks.getTSIds()))
            if bare:
                lines.append(f"No mask for {', '.join(bare[:8])}: they will go to the failed tomograms.")
        if model is not None and tomograms is not None and tomograms.getSamplingRate() > 1.02 * model.getSamplingRate():
            lines.append(f"The tomograms have {tomograms.getSamplingRate():.4g} Å per voxel, the model works at "
                         f"{model.getSamplingRate():.4g}: coarser tomograms give fewer particles, and much coarser "
                         "ones none.")
        return lines

    def _summary(self) -> List[str]:
        """Return what was found."""
        lines = []
        model, tomograms = self.inputModel.get(), self.inputTomograms.get()
        if model is not None and tomograms is not None:
            lines += tableLines(model.getClasses(), tomograms.getSamplingRate())
            lines.append(f"The network works at {model.getSamplingRate():.4g} Å per voxel (tomograms: "
                         f"{tomograms.getSamplingRate():.4g} Å)")
        lines += self._deviceLines()
        results = picked.items(self._getExtraPath(PICKS_DIR))
        done = [r for r in results.values() if r["status"] == "done"]
        if done:
            lines.append(f"*{sum(r['n_picks'] for r in done)} picks* of {sum(r['n_candidates'] for r in done)} "
                         f"candidates in {convert.counted(len(done), 'tomogram')}, "
                         f"{picked.chosenBy(done, self.fdr.get())}")
            lines += [*picked.faintLines(done), *picked.expectedLines(done)]
        if done and not sum(r["n_picks"] for r in done):
            best = max((r["best_score"] or 0.0 for r in done), default=0.0)
            lines.append(f"The best score is {best:.2f}: lower the threshold with *threshold picks*, without a new "
                         "run.")
        lines += [inFormWords(line, self) for line in picked.verdictLines(done)]
        lines += ["Next: *Analyze results* shows them and leads to *review picks*."] if done else []
        lines += picked.asideLines(self._getExtraPath(PICKS_DIR))
        lines += [f"{ts} failed: {r['reason']}" for ts, r in results.items() if r["status"] == "failed"]
        return lines or ["Nothing was picked yet."]

    def _deviceLines(self) -> List[str]:
        """Return what computes, or will."""
        content = devices.readRecord(self._getExtraPath(DEVICES_FILE))
        if content is None:
            return devices.planned(self)
        lines = devices.describe(content)
        used = {(readManifest(os.path.join(folder, MANIFEST_FILE)) or {}).get("outputs", {}).get("device", "")
                for folder in picked.batches(self._getExtraPath(PICKS_DIR))}
        if content["listed"] and content["here"] and "cpu" in used:
            lines.append("*The engine computed on the CPU though there are GPUs*: its PyTorch finds none that it can "
                         "use, because it was made for the CPU or the driver is too old for it")
        return lines

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        done = [r for r in picked.items(self._getExtraPath(PICKS_DIR)).values() if r["status"] == "done"]
        if not done:
            return ["Nothing was picked yet."]
        return [f"{sum(r['n_picks'] for r in done)} particles were picked in {len(done)} tomograms with DeepETPicker "
                f"[Liu2024], {picked.chosenBy(done, self.fdr.get())}."]
