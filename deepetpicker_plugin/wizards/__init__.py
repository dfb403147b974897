"""Wizards: the wands beside parameters that are easier to see than to type."""

from __future__ import annotations

from typing import Any

from pyworkflow.wizard import Wizard

from deepetpicker.errors import DeepETPickerError
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerAnnotate,
    ProtDeepETPickerPick,
    ProtDeepETPickerPropose,
    ProtDeepETPickerReview,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.wizards.diameter import DiameterWindow, diametersOf
from deepetpicker_plugin.wizards.names import NamesWindow, namesOf
from deepetpicker_plugin.wizards.threshold import ThresholdWindow, thresholdsOfPicking, thresholdsOfSet


class DeepETPickerWizard(Wizard):
    """Base of the wizards: opens a window, whose button sets the parameter."""

    def show(self, form: Any, *params: str) -> None:
        """Open the window; what is missing becomes a message."""
        try:
            self.window = self._window(form)
        except (DeepETPickerError, OSError) as error:
            form.showError(str(error))
            return
        self.window.open()

    def _window(self, form: Any) -> Any:
        """Return the window, not yet open.

        Raises
        ------
        InputError
            If the form lacks what the window shows.
        """
        raise NotImplementedError


class DeepETPickerDiameterWizard(DeepETPickerWizard):
    """Draws the particle's diameter on a slice."""

    _targets = [(kind, ["diameterAngstrom"]) for kind in (ProtDeepETPickerPropose, ProtDeepETPickerAnnotate,
                                                          ProtDeepETPickerReview, ProtDeepETPickerTrain)]

    def _window(self, form: Any) -> DiameterWindow:
        """Return the window."""
        return DiameterWindow(*diametersOf(form.protocol), lambda text: form.setVar("diameterAngstrom", text),
                              form.root)


class DeepETPickerNamesWizard(DeepETPickerWizard):
    """Gives names to the group ids."""

    _targets = [(ProtDeepETPickerTrain, ["classNames"])]

    def _window(self, form: Any) -> NamesWindow:
        """Return the window."""
        return NamesWindow(namesOf(form.protocol), lambda text: form.setVar("classNames", text), form.root)


class DeepETPickerThresholdWizard(DeepETPickerWizard):
    """Chooses the score threshold on the histogram, with the picks shown."""

    _targets = [(ProtDeepETPickerPick, ["threshold"]), (ProtDeepETPickerThreshold, ["threshold"])]

    def _window(self, form: Any) -> ThresholdWindow:
        """Return the window."""
        if isinstance(form.protocol, ProtDeepETPickerPick):
            scene, lows = thresholdsOfPicking(form.protocol)
        else:
            scene, lows = thresholdsOfSet(form.protocol)
        return ThresholdWindow(scene, lows, True, lambda text: form.setVar("threshold", text), form.root)
