"""Review picks on contact sheets."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.annotation.session import Session
from deepetpicker.errors import InputError
from deepetpicker.io.classes import numbers_by_class
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker_plugin.engine.process import backgroundCommand
from deepetpicker_plugin.protocols.protocol_annotate import ProtDeepETPickerAnnotate, newestCoordinates
from deepetpicker_plugin.protocols.protocol_pick import ProtDeepETPickerPick
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.seen import SOURCES


class ProtDeepETPickerReview(ProtDeepETPickerAnnotate):
    """Look through picks of any program on contact sheets of crops: keep what is right, refuse what is not.

    The picks are sorted by score, by doubt or by tomogram, those unlike the others first, and answered by keyboard,
    whole rows and pages too; they can be moved and given another class. Every answer is on disk at once. When the
    window is closed the corrected picks and the refused places become outputs; *Execute* opens it again where it ended,
    and what is changed then becomes one more output. What nobody has looked at stays in. *Train* takes the picks.
    """

    _label = "review picks"

    # ---- form
    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
                      label="Picks", help="Picks of any program, also of another binning than the tomograms below.")
        form.addParam("inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms (optional)",
                      help="The corrected picks lie in these. Empty: the tomograms in which the picks lie.")
        form.addParam("shownTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
                      label="Tomograms to show (optional)",
                      help="Other versions of the same tomograms, with the same tsIds, that are shown in their place: "
                      "denoised, or of another binning. The coordinates belong to the tomograms above.")
        form.addParam("threshold", params.StringParam, default="", label="Doubtful score",
                      help="The order by doubt begins with picks whose score is nearest to it: one for all classes, or "
                      "by group id (or name): 1: 0.4, 2: 0.6. Empty: the lowest score of each class.")
        form.addParam("offerCandidates", params.BooleanParam, default=False, label="Offer candidates below?",
                      help="Yes: what the DeepETPicker protocol that picked them has found below its threshold is "
                      "offered as well; by doubt, both sides of the threshold come first. Such a candidate enters only "
                      "when it is accepted with the space bar.")
        form.addParam("classNames", params.StringParam, default="", label="Class names",
                      help="Names of the classes by group id, as 0: ribosome. Empty: as the picks say.")
        form.addParam("diameterAngstrom", params.StringParam, default="", label="Particle diameter (Å)",
                      help="One for all classes, or by group id (or name): 1: 250, 2: 140. It says how much the crops "
                      "show. Empty: that of the picks, or their box size.")
        self._defineUnseen(form)

    # ---- the window
    def _window(self, session: Session, scene: Any) -> Any:
        """Return the window on a session and its scene."""
        from deepetpicker.windows.linked import review_window

        return review_window(session, scene, f"Review picks: {self.getRunName()}", thresholds=self._thresholds(),
                             below=self._below() if self.offerCandidates.get() else None,
                             start=backgroundCommand(self.getClassPackage().Plugin))

    def _thresholds(self) -> Dict[int, float]:
        """Return the scores by class id from which doubt counts, where the form says them.

        Raises
        ------
        InputError
            If the text does not fit the classes.
        """
        return numbers_by_class(self.threshold.get() or "", self._classes(), "Doubtful score")

    def _below(self) -> Dict[str, CoordinateTable]:
        """Return what the protocol that made the picks has found, by tsId, in the voxels of the tomograms.

        Raises
        ------
        InputError
            If no DeepETPicker protocol made the picks.
        """
        maker = pickerOf(self.inputCoordinates.get(), self.getProject())
        if maker is None:
            raise InputError("Offer candidates below: only picks of the protocol *pick*, or chosen from them, have "
                             "candidates; answer No")
        sources, targets = convert.tomogramsOf(maker.inputTomograms.get()), self._places()
        found = {}
        for tsId, table in maker.getCandidates().items():
            if tsId in targets:
                origin, xyz = convert.Place.of(sources[tsId]), table.positions_zyx_vox[:, ::-1]
                zyx = convert.transfer(xyz, origin, targets[tsId])[:, ::-1]
                found[tsId] = CoordinateTable(zyx, table.class_ids, table.scores)
        return found

    def _tomograms(self) -> Any:
        """Return the tomograms: those of the form, or those in which the picks lie."""
        coordinates = self.inputCoordinates.get()
        return self.inputTomograms.get() or (coordinates.getPrecedents() if coordinates is not None else None)

    def _source(self) -> Any:
        """Return what the outputs lie in: a pointer to tomograms, or the set itself."""
        return self.inputTomograms if self.inputTomograms.get() is not None else self._tomograms()

    def createOutputs(self) -> None:
        """Make the outputs of the newest version, unless they are there; they come from the picks."""
        before = {name for name, _ in self.iterOutputAttributes()}
        super().createOutputs()
        for name, output in self.iterOutputAttributes():
            if name not in before:
                self._defineSourceRelation(self.inputCoordinates, output)

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors = super()._validate()
        if self.inputCoordinates.get() is not None and not errors:
            self._collect(errors, self._thresholds)
            if self.offerCandidates.get():
                self._collect(errors, self._below)
        return errors

    def _summary(self) -> List[str]:
        """Return what was reviewed."""
        given, newest = self.inputCoordinates.get(), newestCoordinates(self)
        if given is None or newest is None:
            return ["Nothing was reviewed yet: *Execute* opens the window."]
        return [f"{given.getSize()} picks came in, {newest.getSize()} are in the newest output", *super()._summary()]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        given, newest = self.inputCoordinates.get(), newestCoordinates(self)
        if given is None or newest is None:
            return []
        return [f"{given.getSize()} picks were looked through on contact sheets with DeepETPicker; "
                f"{newest.getSize()} particles were kept."]


def pickerOf(coordinates: Any, project: Any) -> Optional[ProtDeepETPickerPick]:
    """Return the protocol *pick* that picks come from, through those that choose among them; None if none did."""
    known = set()
    while coordinates is not None and coordinates.getObjParentId() is not None:
        number = int(coordinates.getObjParentId())
        if number in known:
            break
        known.add(number)
        maker = project.getProtocol(number)
        if isinstance(maker, ProtDeepETPickerPick):
            return maker
        coordinates = next((getattr(maker, name).get() for name in SOURCES if hasattr(maker, name)), None)
    return None
