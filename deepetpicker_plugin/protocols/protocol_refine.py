"""Go on training a model with corrected picks."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.config import RefineOptions
from deepetpicker.errors import InputError
from deepetpicker_plugin.constants import TRAINING_MANIFEST
from deepetpicker_plugin.engine.process import readManifest
from deepetpicker_plugin.forms import addOption, addOptions, addTrainingOptions, expertNames
from deepetpicker_plugin.objects import DeepETPickerModel
from deepetpicker_plugin.protocols.protocol_train import MACHINE, NETWORK, ProtDeepETPickerTrain
from deepetpicker_plugin.sets import convert, corrections
from deepetpicker_plugin.sets.classes import Sorted, Table, groupIds, tableLines


class ProtDeepETPickerRefine(ProtDeepETPickerTrain):
    """Go on training a model with corrected picks, for a few minutes.

    The corrected picks of *review picks* or *annotate particles*, with the places where the model was wrong and the
    boxes that are complete, teach the model; it keeps its classes and what was held out when it was trained, so that
    before and after are compared on the same particles. The new model knows which one it comes from, and says so when
    it became worse.
    """

    _label = "refine model"
    _verb = "refine"
    _optionsClass = RefineOptions

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("initModel", params.PointerParam, pointerClass="DeepETPickerModel", important=True,
                      label="Model to refine", help="Of *train*, *refine model* or *import model*. It stays as it is.")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Corrected particles",
                      help="All particles that are known, those of the first training too: what is not shown again is "
                      "forgotten in time. Their group ids are those of the model's picks.")
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms (optional)",
                      help="Empty: the tomograms of the coordinates. Otherwise tomograms with the same tsIds; the "
                      "coordinates are scaled to them.")
        form.addParam("moreCoordinates", params.MultiPointerParam, pointerClass="SetOfCoordinates3D", allowsNull=True,
                      minNumObjects=0, label="Further sets (optional)",
                      help="Such as the particles that the model was trained with.")
        corrections.addCorrectionParams(form)
        addOption(form, RefineOptions, "unannotated", "What is not annotated")
        addOption(form, RefineOptions, "validation", "Kept for validation (tsIds)")
        addTrainingOptions(form, RefineOptions, ["minutes", "epochs"])

        form.addSection(label="Training")
        addTrainingOptions(form, RefineOptions, ["patch", "batch", "patches_per_epoch"])
        addOptions(form, RefineOptions, ["background_fraction", "seed"])
        group = form.addGroup("Optimisation and augmentation", expertLevel=params.LEVEL_ADVANCED)
        addOptions(group, RefineOptions, expertNames(RefineOptions, (*NETWORK, *MACHINE)))
        self._defineGpuParams(form)
        form.addParallelSection(threads=4, mpi=0)

    # ---- what the form says
    def _engineWords(self) -> List[str]:
        """Return what stands behind the engine's verb: the model."""
        return [self.initModel.get().getFileName()]

    def getStartModel(self) -> Optional[DeepETPickerModel]:
        """Return the model to refine."""
        return self.initModel.get()

    def _startWord(self) -> str:
        """Return nothing: the form without its model asks for it."""
        return ""

    def _startErrors(self) -> List[str]:
        """Return nothing: Scipion itself asks for the model."""
        return []

    def getClasses(self, complete: bool = True) -> Table:
        """Return the classes of the model.

        Raises
        ------
        InputError
            If particles have a group id that the model does not know.
        """
        classes = self.initModel.get().getClasses() if self.initModel.get() is not None else ()
        known = [c.id for c in classes]
        unknown = sorted({g for source in self.getSources() for g in self._groupsOf(source.coordinates, known)}
                         - set(known))
        if classes and unknown:
            raise InputError(f"*Corrected particles* expected the group ids of the model ("
                             f"{', '.join(map(str, known))}), found {', '.join(map(str, unknown))}: give the picks of "
                             "the model, or train a model with these classes that starts from this one")
        return classes

    @staticmethod
    def _groupsOf(coordinates: Any, known: List[int]) -> Dict[int, int]:
        """Return the class id of each group id of a set: itself, or the only one where there is one on both sides."""
        groups = groupIds(coordinates)
        return {groups[0]: known[0]} if len(groups) == len(known) == 1 else {g: g for g in groups}

    def _sorted(self) -> Sorted:
        """Return the classes of the model, and which group of which set is which."""
        classes = self.getClasses()
        known = [c.id for c in classes]
        return Sorted(classes, [self._groupsOf(source.coordinates, known) for source in self.getSources()])

    def _undrawn(self) -> Table:
        """Return nothing: the diameters are the model's."""
        return ()

    def _scale(self) -> Tuple[float, float]:
        """Return the voxel size of the tomograms and that at which the model works, in angstrom."""
        model = self.initModel.get()
        voxel = float(self.getTomograms().getSamplingRate())
        return voxel, model.getSamplingRate() if model is not None else voxel

    def _inputIds(self) -> List[Any]:
        """Return what identifies the inputs."""
        card = self.initModel.get().getCard()
        return [*super()._inputIds(), card.created, card.training.get("round", 1)]

    # ---- information
    def _warnings(self) -> List[str]:
        """Return what the user should know before the run; all classes are the model's."""
        return super()._warnings() if self.initModel.get() is not None else []

    def _scaleLines(self) -> List[str]:
        """Return the model's classes and its scale."""
        if self.initModel.get() is None:
            return []
        errors: List[str] = []
        scale, classes = self._collect(errors, self._scale), self._collect(errors, self.getClasses)
        if scale is None or classes is None:
            return []
        origin = (readManifest(self._getExtraPath(TRAINING_MANIFEST)) or {}).get("outputs", {}).get("started_from")
        rounds = [f"Round {origin['round'] + 1} of the model"] if origin else []
        return [*rounds, *tableLines(classes, scale[0]), f"The network works at {scale[1]:.4g} Å per voxel (tomograms: "
                f"{convert.inBoth(scale[0], 0)} per voxel)"]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        if not hasattr(self, "model"):
            return ["The model is not refined yet."]
        origin = self.model.getCard().training.get("started_from") or {}
        count = sum(source.coordinates.getSize() for source in self.getSources())
        return [f"A DeepETPicker model [Liu2024] (round {origin.get('round')}) was refined with {count} particle "
                "centres."]
