"""Before there is a model: candidates in real Scipion processes, and coordinates held against their tomograms."""

from __future__ import annotations

import pathlib

import numpy as np
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D

from deepetpicker_plugin.engine.earlier import toDoAgain
from deepetpicker_plugin.engine.process import readManifest
from deepetpicker_plugin.protocols import ProtDeepETPickerCheck, ProtDeepETPickerEvaluate, ProtDeepETPickerPropose
from deepetpicker_plugin.protocols.protocol_propose import METHODS
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.tests.base import RATE, PluginTest, positions

DIAMETER = 253.0


class TestPropose(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=2, shape="48,96,96", phantoms="ribosome", particles=12)
        cls.tomograms, cls.truth = cls.simulation.tomograms, cls.simulation.coordinates

    def found(self, coordinates: SetOfCoordinates3D) -> int:
        """Return how many true particles have a candidate within half a diameter."""
        picked, true = positions(coordinates), positions(self.truth)
        apart = [np.linalg.norm(rows[:, None, :3] - picked[ts][None, :, :3], axis=-1).min(1)
                 for ts, rows in true.items()]
        return int((np.concatenate(apart) <= DIAMETER / RATE / 2).sum())

    def test_without_a_label_and_ranked_by_examples(self):
        blobs = self.run_(ProtDeepETPickerPropose, inputTomograms=self.tomograms, diameterAngstrom=DIAMETER, most=24)
        self.checkCoordinates(blobs.coordinates, expectedSetSize=blobs.coordinates.getSize(), expectedBoxSize=25,
                              expectedSRate=RATE)
        self.assertGreaterEqual(self.found(blobs.coordinates), 0.8 * self.truth.getSize())
        self.assertIn("a generic network at the particle's size", " ".join(blobs.summary()))
        ranked = self.run_(ProtDeepETPickerPropose, inputTomograms=self.tomograms, diameterAngstrom=DIAMETER, most=24,
                           inputExamples=self.truth)
        self.assertIn(f"likeness to {self.truth.getSize()} examples", " ".join(ranked.summary()))
        self.assertGreaterEqual(self.found(ranked.coordinates), 0.8 * self.truth.getSize())

    def test_continue_tries_a_tomogram_that_failed_again(self):
        path = pathlib.Path(convert.localFile(self.tomograms.getFirstItem().getFileName()))
        content = path.read_bytes()
        path.write_bytes(content[:5000])
        try:
            protocol = self.run_(ProtDeepETPickerPropose, inputTomograms=self.tomograms, diameterAngstrom=DIAMETER,
                                 most=24, method=METHODS.index("blob"))
        finally:
            path.write_bytes(content)
        self.assertEqual(len(protocol.coordinates.getTSIds()), 1)
        protocol.coordinates.close()
        self.assertIn("truncated", " ".join(protocol.summary()))
        self.goOn(protocol)
        self.assertEqual(len(protocol.coordinates.getTSIds()), 2)
        self.assertNotIn("truncated", " ".join(protocol.summary()))
        manifest = protocol._getExtraPath("proposals", "manifest.json")
        table = pathlib.Path(readManifest(manifest)["items"][0]["picks"])
        for damaged, named in ((table, "TS_00"), (pathlib.Path(manifest), manifest)):
            self.assertEqual(toDoAgain(manifest), [])
            whole = damaged.read_bytes()
            damaged.write_bytes(bytes(200) + whole[200:])
            self.assertEqual(toDoAgain(manifest)[:-1], [named])
            damaged.write_bytes(whole)

    def test_continue_checks_and_evaluates_what_failed_or_was_exchanged(self):
        path = pathlib.Path(convert.localFile(self.tomograms.getFirstItem().getFileName()))
        content = path.read_bytes()
        settings = {"inputCoordinates": self.truth, "diameters": "276"}
        kinds = ((ProtDeepETPickerCheck, settings), (ProtDeepETPickerEvaluate, {
            **settings, "inputReference": self.truth, "margin": 2.0}))
        path.write_bytes(content[:5000])
        try:
            check, evaluation = (self.run_(kind, **given) for kind, given in kinds)
        finally:
            path.write_bytes(content)
        self.assertIn("truncated", " ".join(check.summary()))
        self.assertIn("evaluated without its tomogram", " ".join(evaluation.summary()))
        count = evaluation.evaluation._nTruth.get()
        for protocol in (check, evaluation):
            self.goOn(protocol)
            self.assertNotIn("truncated", " ".join(protocol.summary()))
        self.assertIn("The coordinates of 2 of 2 tomograms fit", " ".join(check.summary()))
        self.assertGreater(evaluation.evaluation._nTruth.get(), count)
        manifests = [check._getExtraPath("check", "manifest.json"),
                     evaluation._getExtraPath("evaluation", "manifest.json")]
        self.assertEqual([toDoAgain(manifest) for manifest in manifests], [[], []])
        path.write_bytes(content[:1024] + bytes(len(content) - 1024))  # another tomogram under the name
        try:
            self.assertEqual([toDoAgain(manifest)[:-1] for manifest in manifests], [[str(path)], [str(path)]])
        finally:
            path.write_bytes(content)

    def goOn(self, protocol):
        """Continue a protocol."""
        self.proj.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())

    def test_the_form_says_what_is_missing(self):
        protocol = self.newProtocol(ProtDeepETPickerPropose, inputTomograms=self.tomograms)
        self.assertIn("diameter in Å", " ".join(protocol.validate()))

    def test_coordinates_are_held_against_their_tomograms(self):
        fits = self.run_(ProtDeepETPickerCheck, inputCoordinates=self.truth, diameters="276")
        self.assertIn("The coordinates of 2 of 2 tomograms fit", " ".join(fits.summary()))
        wrong = SetOfCoordinates3D.create(fits._getPath(), suffix="_wrong")
        wrong.setPrecedents(self.tomograms)
        wrong.setSamplingRate(RATE)
        wrong.setBoxSize(25)
        tomograms = convert.tomogramsOf(self.tomograms)
        for item in [c.clone() for c in self.truth.iterCoordinates()]:
            tomogram = tomograms[item.getTomoId()]
            x, y, z = item.getPosition(BOTTOM_LEFT_CORNER)
            item.setObjId(None)
            item.setVolume(tomogram)
            item.setPosition(x, tomogram.getDim()[1] - 1 - y, z, BOTTOM_LEFT_CORNER)
            wrong.append(item)
        fits._defineOutputs(wrong=wrong)
        flipped = self.run_(ProtDeepETPickerCheck, inputCoordinates=fits.wrong, diameters="276")
        text = " ".join(flipped.summary())
        self.assertIn("The coordinates of 0 of 2 tomograms fit", text)
        self.assertIn("y flipped", text)
