"""The wizard of the diameter in all forms that have it, before there is a particle too."""

from __future__ import annotations

import os
import shutil
import tempfile

import numpy as np
from pyworkflow.object import Pointer

from deepetpicker_plugin.protocols import (
    ProtDeepETPickerAnnotate,
    ProtDeepETPickerPropose,
    ProtDeepETPickerReview,
)
from deepetpicker_plugin.tests.base import noiseTomograms
from deepetpicker_plugin.tests.screen import gui, mouse, picture, pump, pumpUntil
from deepetpicker_plugin.tests.window import FormTest


@gui
class TestDiameter(FormTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = noiseTomograms(tempfile.mkdtemp(prefix="deepetpicker_wizard_"), {"TS_01": (24, 64, 80),
                                                                                      "TS_02": (20, 48, 40)})
        cls.tomograms = cls.importTomograms(cls.folder)
        cls.importing = cls.proj.getProtocol(cls.tomograms.getObjParentId())

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)
        super().tearDownClass()

    def filled(self, kind, **settings):
        """Open the form of a protocol with the tomograms."""
        form = self.form(self.proj.newProtocol(kind, **settings))
        form.setVar("inputTomograms", Pointer(self.importing, extended="Tomograms"))
        return form

    def pull(self, window, start, end):
        """Press at a place, pull to another, let go."""
        for kind, place in (("button_press_event", start), ("motion_notify_event", end), ("button_release_event", end)):
            mouse(window.panel.canvas, window.panel.axes[0], kind, place)
        pump(window.top, 0.2)

    def test_before_there_is_a_particle_a_circle_is_pulled_or_slid(self):
        form = self.filled(ProtDeepETPickerPropose)
        window = self.wand(form, "diameterAngstrom")
        self.assertIn("200 Å (20.0 voxels)", window.text.get())
        self.assertEqual(window.centre, (40.0, 32.0))  # it is seen before anything is done
        self.pull(window, (20.0, 30.0), (26.0, 38.0))
        self.assertIn("200 Å (20.0 voxels)", window.text.get())
        self.pull(window, (20.0, 30.0), (20.0, 37.0))
        self.assertIn("140 Å (14.0 voxels)", window.text.get())
        self.assertEqual(window.size.get(), 140)
        np.testing.assert_allclose(window.centre, (20.0, 30.0))  # the circle stays where it was drawn
        self.pull(window, (50.0, 20.0), (50.2, 20.0))  # a click moves it, also of a hand that is not quite still
        np.testing.assert_allclose((*window.centre, window.size.get()), (50.0, 20.0, 140))
        window.size.set(165)
        pumpUntil(window.top, lambda: "165 Å (16.5 voxels)" in window.text.get())
        window.smooth.set(1.5)
        pumpUntil(window.top, lambda: window.panel.look.smooth_vox == 1.5)
        picture(window.top, "wizard_first_diameter")
        window.ok.invoke()
        self.assertEqual(form.protocol.diameterAngstrom.get(), 165.0)
        again = self.wand(form, "diameterAngstrom")  # and it begins with what the form says
        self.assertIn("165 Å (16.5 voxels)", again.text.get())

    def test_annotate_and_review_have_it_for_each_class(self):
        form = self.filled(ProtDeepETPickerAnnotate, classNames="ring, rod")
        window = self.wand(form, "diameterAngstrom")
        window.className.set("rod")
        window._classChosen()
        self.pull(window, (20.0, 30.0), (20.0, 36.0))
        window.ok.invoke()
        self.assertEqual(form.protocol.diameterAngstrom.get(), "1: 200, 2: 120")

        simulation = self.simulate(n=1, particles=6)
        form = self.form(self.proj.newProtocol(ProtDeepETPickerReview))
        form.setVar("inputCoordinates", Pointer(simulation, extended="coordinates"))
        window = self.wand(form, "diameterAngstrom")
        self.assertEqual(sum(layer.count() for layer in window.scene.layers), simulation.coordinates.getSize())
        self.assertIsNone(window.centre)  # the particles have circles of their own

    def test_what_is_missing_or_cannot_be_read_is_said(self):
        for kind, words in ((ProtDeepETPickerPropose, "Choose the tomograms first"),
                            (ProtDeepETPickerAnnotate, "Choose the tomograms first"),
                            (ProtDeepETPickerReview, "Choose the tomograms first")):
            form, said = self.form(self.proj.newProtocol(kind)), []
            form.showError = said.append
            self.assertIsNone(self.wand(form, "diameterAngstrom"))
            self.assertIn(words, said[0])
        folder = noiseTomograms(tempfile.mkdtemp(prefix="deepetpicker_wizard_"), {"TS_01": (24, 64, 80),
                                                                                  "TS_02": (20, 48, 40)})
        self.addCleanup(shutil.rmtree, folder)
        tomograms = self.importTomograms(folder)
        with open(os.path.join(folder, "TS_02.mrc"), "r+b") as stream:
            stream.truncate(2000)
        form = self.form(self.proj.newProtocol(ProtDeepETPickerPropose))
        form.setVar("inputTomograms", Pointer(self.proj.getProtocol(tomograms.getObjParentId()), extended="Tomograms"))
        window = self.wand(form, "diameterAngstrom")
        window.tomogram.set("TS_02")
        window._chosen()
        self.assertIn("TS_02", window.text.get())
        self.assertEqual((window.tomogram.get(), window.panel.tomogram), ("TS_01", "TS_01"))
