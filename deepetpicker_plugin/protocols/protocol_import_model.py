"""Bring a trained model into a project."""

from __future__ import annotations

import os
import shutil
from typing import Any, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.errors import InputError
from deepetpicker.io.modelcard import read_card
from deepetpicker_plugin import convert
from deepetpicker_plugin.classes import Table, tableLines
from deepetpicker_plugin.objects import DeepETPickerModel
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase

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
                      help="One diameter for all classes or one per class, separated by commas.")
        form.addParam("samplingRate", params.FloatParam, default=0.0, condition=f"importFrom=={REFERENCE}",
                      label="Voxel size it was trained at (Å)", help="Voxel size of the tomograms it was trained on.")
        form.addParam("labelDiameter", params.FloatParam, default=0.0, condition=f"importFrom=={REFERENCE}",
                      expertLevel=params.LEVEL_ADVANCED, label="Diameter of its training labels (voxels)",
                      help="0 takes the published 7 voxels.")
        form.addParam("patch", params.IntParam, default=0, condition=f"importFrom=={REFERENCE}",
                      expertLevel=params.LEVEL_ADVANCED, label="Edge of its training patch (voxels)",
                      help="0 takes what the checkpoint says, else 72.")

    def _insertAllSteps(self) -> None:
        """Insert the one step."""
        settings = (self.importFrom, self.diameters, self.samplingRate, self.labelDiameter, self.patch)
        self._insertFunctionStep(self.importStep, self._file(), *(s.get() for s in settings), needsGPU=False)

    def importStep(self, fileName: str, *settings: Any) -> List[str]:
        """Copy or convert the file and make it an output."""
        target = self._getExtraPath(os.path.splitext(os.path.basename(fileName))[0] + ".safetensors")
        if self.importFrom.get() == OURS:
            shutil.copyfile(fileName, target)
        else:
            self.runEngine(self._ensureExtra("import"), [
                "import-reference", fileName, "--out", target, "--diameter-angstrom",
                ",".join(f"{d:g}" for d in convert.parseNumbers(self.diameters.get(), "Particle diameter")),
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
            given = self._collect(errors, self._diameters, "Particle diameter")
            if given is not None and (not given or min(given) <= 0):
                errors.append("*Particle diameter* expected one or more diameters > 0 Å: a checkpoint does not say "
                              "them")
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

    def _diameters(self) -> List[float]:
        """Return the diameters of the form in angstrom.

        Raises
        ------
        InputError
            If there is anything but numbers.
        """
        try:
            return convert.parseNumbers(self.diameters.get(), "expected numbers")
        except InputError as error:
            raise InputError(f"expected numbers separated by commas, got {self.diameters.get()!r}") from error

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
