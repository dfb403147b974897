"""Review picks on contact sheets."""

from __future__ import annotations

from typing import Any, Dict, List

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from deepetpicker.annotation.session import Session
from deepetpicker.io.classes import numbers_by_class
from deepetpicker_plugin.engine import backgroundCommand
from deepetpicker_plugin.protocols.protocol_annotate import ProtDeepETPickerAnnotate, newestCoordinates


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
        form.addParam("classNames", params.StringParam, default="", label="Class names",
                      help="Names of the classes by group id, as 0: ribosome. Empty: as the picks say.")
        form.addParam("diameterAngstrom", params.StringParam, default="", label="Particle diameter (Å)",
                      help="One for all classes, or by group id (or name): 1: 250, 2: 140. It says how much the crops "
                      "show. Empty: that of the picks, or their box size.")

    # ---- the window
    def _window(self, session: Session, scene: Any) -> Any:
        """Return the window on a session and its scene."""
        from deepetpicker.windows.review import ReviewWindow

        return ReviewWindow(session, scene, f"Review picks: {self.getRunName()}", thresholds=self._thresholds(),
                            start=backgroundCommand(self.getClassPackage().Plugin))

    def _thresholds(self) -> Dict[int, float]:
        """Return the scores by class id from which doubt counts, where the form says them.

        Raises
        ------
        InputError
            If the text does not fit the classes.
        """
        return numbers_by_class(self.threshold.get() or "", self._classes(), "Doubtful score")

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
