"""Bring a trained model into a project."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.errors import InputError
from deepetpicker.io.classes import default_class
from deepetpicker.io.modelcard import read_card
from deepetpicker.io.records import identity
from deepetpicker_plugin.objects import DeepETPickerModel
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import Table, tableLines, withDiameters, withNames

OURS, REFERENCE = 0, 1


class ProtDeepETPickerImportModel(ProtDeepETPickerBase):
    """Import a trained DeepETPicker model.

    Takes a model file of this package, which says itself what it picks, or a checkpoint of the published reference
    implementation, which needs particle diameter and voxel size. The file is copied into the project.
    """

    _label = "import model"
    _possibleOutputs = {"model": DeepETPickerModel}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("importFrom", params.EnumParam, default=OURS,
                      choices=["DeepETPicker model", "reference checkpoint"],
                      display=params.EnumParam.DISPLAY_HLIST, label="Import",
                      help="A model file that *train* or 'deepetpicker train' wrote (.safetensors), or a Lightning "
                      "checkpoint (.ckpt) of the published reference implementation.")
        form.addParam("modelFile", params.FileParam, important=True, label="Model file",
                      help="The file. It is copied into the project.")
        form.addParam("diameters", params.StringParam, default="", condition=f"importFrom=={REFERENCE}",
                      label="Particle diameter (Å)",
                      help="One for all classes, or by class: 1: 250, 2: 140. Without ids they count for the classes "
                      "in the order of the checkpoint's outputs. The ids become the group ids of picks.")
        form.addParam("classNames", params.StringParam, default="", condition=f"importFrom=={REFERENCE}",
                      label="Class names (optional)", help="By class: 1: ribosome, 2: proteasome.")
        form.addParam("samplingRate", params.FloatParam, default=0.0, condition=f"importFrom=={REFERENCE}",
                      label="Voxel size it was trained at (Å)", help="Voxel size of the tomograms it was trained on.")
        form.addParam("labelDiameter", params.FloatParam, default=0.0, condition=f"importFrom=={REFERENCE}",
                      expertLevel=params.LEVEL_ADVANCED, label="Its label diameter (voxels)",
                      help="0 takes the published 7 voxels.")
        form.addParam("patch", params.IntParam, default=0, condition=f"importFrom=={REFERENCE}",
                      expertLevel=params.LEVEL_ADVANCED, label="Its training patch (voxels)",
                      help="0 takes what the checkpoint says, else 72.")

    def _insertAllSteps(self) -> None:
        """Insert the one step; it runs again when the form or the file changes."""
        settings = (self.importFrom, self.diameters, self.classNames, self.samplingRate, self.labelDiameter, self.patch)
        state = identity(self._file())
        self._insertFunctionStep(self.importStep, self._file(), *(s.get() for s in settings), state["size"],
                                 state["sample"], needsGPU=False)

    def importStep(self, fileName: str, *settings: Any) -> List[str]:
        """Copy or convert the file and make it an output."""
        target = self._getExtraPath(os.path.splitext(os.path.basename(fileName))[0] + ".safetensors")
        if self.importFrom.get() == OURS:
            shutil.copyfile(fileName, target)
        else:
            self.runEngine(self._ensureExtra("import"), [
                "import-reference", fileName, "--out", target, *self._classWords(),
                "--voxel-size", f"{self.samplingRate.get():g}", "--label-diameter", f"{self.labelDiameter.get():g}",
                "--patch", str(self.patch.get())])
        self._defineOutputs(model=DeepETPickerModel.fromFile(target))
        return [target]

    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        fileName = self._file()
        if not os.path.isfile(fileName):
            errors.append(f"*Model file* no such file: {fileName or 'none was given'}")
        elif self.importFrom.get() == OURS:
            self._collect(errors, lambda: read_card(fileName), "Model file")
        if self.importFrom.get() == REFERENCE:
            self._collect(errors, self._classWords)
            if self.samplingRate.get() is None or self.samplingRate.get() <= 0:
                errors.append("*Voxel size it was trained at* expected a number > 0 Å: a checkpoint does not say it")
        return errors

    def getClasses(self) -> Table:
        """Return the classes of the model, from its file as long as it is not imported; empty when unknown."""
        if hasattr(self, "model"):
            return self.model.getClasses()
        if self.importFrom.get() != OURS or not os.path.isfile(self._file()):
            return ()
        return tuple(read_card(self._file()).classes)

    def _file(self) -> str:
        """Return the path of the form's file."""
        return (self.modelFile.get() or "").strip()

    def _classWords(self) -> List[str]:
        """Return what the form says of a checkpoint's classes, as the engine's command line takes it.

        Raises
        ------
        InputError
            If a diameter is missing or names and diameters do not fit each other.
        """
        diameters, names = self.diameters.get() or "", self.classNames.get() or ""
        keyed = re.findall(r"(\d+)\s*:", f"{diameters};{names}")
        if not keyed and not names.strip():
            given = convert.parseNumbers(diameters, "*Particle diameter*")
            if not given or min(given) <= 0:
                raise InputError("*Particle diameter* expected one or more diameters > 0 Å: a checkpoint does not say "
                                 "them")
            return ["--diameter-angstrom", ",".join(f"{d:g}" for d in given)]
        count = max(len(re.findall(r"[^,;\s]+", diameters)), len(re.findall("[^,;]+", names)))
        ids = sorted({int(key) for key in keyed}) or list(range(1, count + 1))
        classes = withNames([default_class(i) for i in ids], names, "*Class names*")
        classes = withDiameters(classes, diameters, "*Particle diameter*")
        bare = [c.label for c in classes if not c.diameter_ang]
        if bare:
            raise InputError(f"*Particle diameter* expected one > 0 Å for {', '.join(bare)}: a checkpoint does not "
                             "say it")
        return ["--classes", ",".join(f"{c.id}:{c.name}:{c.diameter_ang:g}" for c in classes)]

    def _summary(self) -> List[str]:
        """Return what was imported."""
        if not hasattr(self, "model"):
            return ["No model was imported yet."]
        voxel = self.model.getSamplingRate()
        return [str(self.model), f"Threshold {self.model.getThreshold():.2f}",
                *tableLines(self.model.getClasses(), voxel)]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        return ["A DeepETPicker model [Liu2024] that had been trained before was used."]
