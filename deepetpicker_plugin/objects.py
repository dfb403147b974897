"""Objects of the plugin that Scipion stores: a trained model, an evaluation, tomograms that could not be picked."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Dict, List, Optional, Set, Tuple

from pwem.objects import EMObject
from pyworkflow.object import Float, Integer, Pointer, String
from tomo.objects import SetOfTomograms

from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.modelcard import ModelCard, read_card
from deepetpicker.io.regions import REGIONS, Region, read_regions
from deepetpicker_plugin.sets.convert import Place, counted, tomogramsOf


class DeepETPickerModel(EMObject):
    """A trained network: the path of its file, relative to the project, and what its card says."""

    def __init__(self, fileName: Optional[str] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fileName = String(fileName)
        self._classIds = String()
        self._classNames = String()
        self._diameters = String()  # angstrom
        self._samplingRate = Float()  # angstrom per voxel the network works at
        self._nClasses = Integer()
        self._threshold = Float()
        self._epochs = Integer()
        self._f1 = Float()
        self._precision = Float()
        self._recall = Float()

    @classmethod
    def fromFile(cls, fileName: str) -> DeepETPickerModel:
        """Return the object of a model file.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged or no model.
        """
        card = read_card(fileName)
        model = cls(fileName)
        model._classIds.set(", ".join(str(c.id) for c in card.classes))
        model._classNames.set(", ".join(c.name.replace(",", " ") for c in card.classes))
        model._diameters.set(", ".join(f"{c.diameter_ang:g}" for c in card.classes))
        model._samplingRate.set(card.voxel_size_ang)
        model._nClasses.set(len(card.classes))
        model._threshold.set(card.threshold)
        best = keptEpoch(card)
        model._epochs.set(len(card.validation) or int(card.training.get("epochs") or 0))
        for attribute, column in ((model._f1, "pick_f1"), (model._precision, "pick_precision"),
                                  (model._recall, "pick_recall")):
            if best.get(column) is not None and not (card.is_partial and attribute is not model._recall):
                attribute.set(float(best[column]))
        return model

    def getFileName(self) -> str:
        """Return the path of the model file, relative to the project."""
        return self._fileName.get()

    def getFiles(self) -> Set[str]:
        """Return the files that belong to the object."""
        return {self.getFileName()}

    def getCard(self) -> ModelCard:
        """Return everything the model says about itself.

        Raises
        ------
        ModelFileError
            If the file is missing or damaged.
        """
        return read_card(self.getFileName())

    def getSamplingRate(self) -> float:
        """Return the voxel size at which the network works, in angstrom."""
        return self._samplingRate.get()

    def getThreshold(self) -> float:
        """Return the score at and above which candidates are picks by default."""
        return self._threshold.get()

    def getClassIds(self) -> List[int]:
        """Return the ids of the classes: the group ids of picks."""
        return [int(word) for word in self._classIds.get("").split(",") if word.strip()]

    def getClassNames(self) -> List[str]:
        """Return the names of the classes, in the order of the ids."""
        return [word.strip() for word in self._classNames.get("").split(",")]

    def getDiameters(self) -> List[float]:
        """Return the particle diameters in angstrom, in the order of the ids."""
        return [float(word) for word in self._diameters.get("").split(",") if word.strip()]

    def getClasses(self) -> Tuple[ParticleClass, ...]:
        """Return the class table: ids (the group ids of picks), names and diameters in angstrom."""
        return tuple(ParticleClass(i, n, d) for i, n, d in zip(self.getClassIds(), self.getClassNames(),
                                                               self.getDiameters()))

    def getF1(self) -> Optional[float]:
        """Return the F1 of the kept epoch on the validation part, None when unknown."""
        return self._f1.get()

    def __str__(self) -> str:
        classes = ", ".join(f"{n} {d:g} Å" for n, d in zip(self.getClassNames(), self.getDiameters()))
        f1 = "" if self.getF1() is None else f", F1 {self.getF1():.3f}"
        return f"DeepETPickerModel ({classes or 'no classes'}, {self._samplingRate.get(0.0):.2f} Å/voxel{f1})"


def keptEpoch(card: ModelCard) -> Dict[str, Any]:
    """Return the metrics of the epoch whose weights the model has; empty when the card does not say."""
    for row in card.validation:
        if row.get("epoch") == card.training.get("kept_epoch"):
            return row
    return {}


class SetOfFailedTomograms(SetOfTomograms):
    """Tomograms that could not be picked; ``_failure`` of each says why. Usable wherever tomograms are."""


class DeepETPickerRegions(EMObject):
    """Boxes of several tomograms in which everything is annotated: the folder of their tables."""

    def __init__(self, folder: Optional[str] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._folder = String(folder)
        self._boxes = Integer()
        self._tomograms = Integer()
        self._precedentsPointer = Pointer()

    @classmethod
    def fromFolder(cls, folder: str) -> DeepETPickerRegions:
        """Return the object of a version of an annotation, its path relative to the project."""
        found = cls(folder)
        regions = found.getRegions()
        found._boxes.set(sum(map(len, regions.values())))
        found._tomograms.set(len(regions))
        return found

    def getRegions(self) -> Dict[str, List[Region]]:
        """Return the boxes by tsId, in voxels of the annotated tomograms."""
        folder = pathlib.Path(self._folder.get())
        found = {path.name[:-len(REGIONS)]: read_regions(path) for path in sorted(folder.glob(f"*{REGIONS}"))}
        return {tsId: boxes for tsId, boxes in found.items() if boxes}

    def setPrecedents(self, tomograms: Any) -> None:
        """Set the annotated tomograms: a set, or a pointer to one."""
        if tomograms.isPointer():
            self._precedentsPointer.copy(tomograms)
        else:
            self._precedentsPointer.set(tomograms)

    def getPlaces(self) -> Dict[str, Place]:
        """Return the annotated tomograms by tsId; none where they are not known, as in older projects."""
        tomograms = self._precedentsPointer.get()
        return {} if tomograms is None else {ts: Place.of(t) for ts, t in tomogramsOf(tomograms).items()}

    def getFiles(self) -> Set[str]:
        """Return the files that belong to the object."""
        return {str(path) for path in pathlib.Path(self._folder.get()).glob(f"*{REGIONS}")}

    def __str__(self) -> str:
        boxes, tomograms = self._boxes.get(0), self._tomograms.get(0)
        return f"DeepETPickerRegions ({counted(boxes, 'complete box', 'es')} in {counted(tomograms, 'tomogram')})"


class DeepETPickerEvaluation(EMObject):
    """How well picks agree with a reference: the main figures, and the paths of the report and the curves."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._report = String()
        self._evaluation = String()
        self._curve = String()
        self._nTruth = Integer()
        self._nPicks = Integer()
        self._nHits = Integer()
        self._precision = Float()
        self._recall = Float()
        self._f1 = Float()
        self._meanDistance = Float()  # angstrom
        self._bestThreshold = Float()

    def getReport(self) -> str:
        """Return the path of the HTML report, relative to the project."""
        return self._report.get()

    def getEvaluationFile(self) -> str:
        """Return the path of evaluation.json, relative to the project."""
        return self._evaluation.get()

    def getContent(self) -> Dict[str, Any]:
        """Return what evaluation.json says; nothing where it is gone."""
        try:
            return dict(json.loads(pathlib.Path(self.getEvaluationFile()).read_text("utf-8")))
        except (OSError, ValueError):
            return {}

    def getPerClass(self) -> List[Dict[str, Any]]:
        """Return name and figures of each class; none where they are not known."""
        return list(self.getContent().get("per_class") or [])

    def getLowestScore(self) -> float:
        """Return the score from which on picks were scored; 0 for all."""
        return float((self.getContent().get("options") or {}).get("threshold") or 0.0)

    def getBest(self) -> Optional[Tuple[float, float]]:
        """Return the best F1 and the score threshold that gives it; None where no pick hits or it is not known."""
        best = (self.getContent().get("best_threshold") or {}).get("F1") or {}
        return (best["value"], best["threshold"]) if best.get("value") else None

    def getCurveFile(self) -> str:
        """Return the path of the curve over the score threshold (CSV), relative to the project."""
        return self._curve.get()

    def getFiles(self) -> Set[str]:
        """Return the files that belong to the object."""
        return {self.getReport(), self.getEvaluationFile(), self.getCurveFile()}

    def getF1(self) -> float:
        """Return F1."""
        return self._f1.get()

    def __str__(self) -> str:
        return (f"DeepETPickerEvaluation (F1 {self._f1.get(0.0):.3f}, precision {self._precision.get(0.0):.3f}, recall "
                f"{self._recall.get(0.0):.3f}, {self._nHits.get(0)} of {self._nTruth.get(0)} found)")
