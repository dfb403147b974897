"""Corrections on their way from Scipion's sets to the engine, and a model that is refined with them."""

from __future__ import annotations

import json
import pathlib
import tempfile

import numpy as np
from pyworkflow.object import Pointer
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D

from deepetpicker.config import RefineOptions, TrainOptions
from deepetpicker.io.regions import Region, read_negatives, read_regions, write_regions
from deepetpicker_plugin.convert import Place
from deepetpicker_plugin.corrections import correctionItems, transferBoxes
from deepetpicker_plugin.objects import DeepETPickerRegions
from deepetpicker_plugin.protocols import ProtDeepETPickerRefine, ProtDeepETPickerTrain
from deepetpicker_plugin.tests.base import PluginTest, slow, tinyModel

BOX = Region((2, 4, 6), (11, 33, 41))


class TestCorrections(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        made = cls.simulate(n=1)
        cls.tomograms, cls.coordinates = made.tomograms, made.coordinates
        cls.model = cls.importModel(tinyModel("ring,rod"))
        cls.folder = tempfile.mkdtemp(prefix="deepetpicker_refine_")
        cls.name = next(iter(cls.tomograms.getTSIds()))

    def regions(self):
        """Return complete boxes of the tomogram."""
        write_regions(pathlib.Path(self.folder) / f"{self.name}_regions.csv", [BOX])
        found = DeepETPickerRegions.fromFolder(self.folder)
        found.setPrecedents(self.tomograms)
        return found

    def negatives(self, *places):
        """Return a set of places without a particle, x, y, z."""
        found = SetOfCoordinates3D.create(self.folder, suffix="_negatives")
        found.setPrecedents(self.tomograms)
        found.setSamplingRate(self.tomograms.getSamplingRate())
        for place in places:
            one = Coordinate3D()
            one.setVolume(self.tomograms.getFirstItem())
            one.setPosition(*place, BOTTOM_LEFT_CORNER)
            found.append(one)
        found.write()
        return found

    def filled(self, kind, **settings):
        """Return a protocol whose form holds the sets of this test."""
        protocol = self.newProtocol(kind, inputCoordinates=self.coordinates, **settings)
        protocol.inputNegatives = Pointer(self.negatives((6.0, 5.0, 4.0), (30.5, 20.0, 10.0)))
        protocol.inputRegions = Pointer(self.regions())
        return protocol

    def test_negatives_and_boxes_reach_the_engine_in_the_voxels_of_the_tomograms(self):
        for factor in (1, 2):
            protocol = self.filled(ProtDeepETPickerTrain)
            place = Place.of(self.tomograms.getFirstItem())
            target = Place(place.tsId, place.fileName, place.samplingRate * factor,
                           tuple(n // factor for n in place.dims), place.shifts)
            items = correctionItems(protocol, {self.name: target}, self.folder + ("/" if factor == 1 else "/.."))
            found = read_negatives(items[self.name]["negatives"])
            np.testing.assert_allclose(found * factor, [[4, 5, 6], [10, 20, 30.5]], atol=1e-4)
            box = read_regions(items[self.name]["regions"])[0]
            low, high = (np.array(edge) * factor for edge in (box.low_zyx_vox, box.high_zyx_vox))
            for inwards in (low - BOX.low_zyx_vox, BOX.high_zyx_vox - high):  # never outwards, at most a coarse voxel
                self.assertTrue(((inwards >= 0) & (inwards <= 2 * (factor - 1))).all(), inwards)

    def test_a_box_too_thin_for_a_coarser_tomogram_is_left_out(self):
        fine, coarse = Place("TS", "", 5.0, (80, 80, 80), (0, 0, 0)), Place("TS", "", 20.0, (20, 20, 20), (0, 0, 0))
        self.assertEqual(transferBoxes([Region((5, 5, 5), (6, 60, 60))], fine, coarse), [])
        self.assertEqual(transferBoxes([BOX], fine, fine), [BOX])

    def test_other_groups_than_those_of_the_model_are_refused(self):
        protocol = self.newProtocol(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=self.model)
        self.assertEqual(protocol._validate(), [])
        self.assertEqual([c.name for c in protocol.getClasses()], ["ring", "rod"])
        one = self.importModel(tinyModel("ring"))
        protocol = self.newProtocol(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=one)
        self.assertTrue(any("expected the group ids of the model (1), found 2" in text
                            for text in protocol._validate()), protocol._validate())

    def test_the_forms_give_what_the_verbs_take(self):
        refining = self.newProtocol(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=self.model)
        options = refining._options()
        self.assertEqual(options["unannotated"], RefineOptions().unannotated)
        self.assertEqual((options["recipe"], options["init"]), ("refine", self.model.getFileName()))
        training = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.coordinates)
        self.assertEqual(training._options()["unannotated"], TrainOptions().unannotated)

    def test_train_starts_from_what_the_form_says(self):
        training = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.coordinates, diameterAngstrom="168")
        self.assertEqual(training._options()["init"], "")  # what the recipe takes
        for number, word in ((1, "generic"), (2, "none")):
            training.startFrom.set(number)
            self.assertEqual(training._options()["init"], word)
            self.assertEqual(training._validate(), [])
        training.startFrom.set(3)
        self.assertIn("*Start from* expected an earlier model, got none", " ".join(training._validate()))
        training.initModel.set(self.model)
        self.assertEqual(training._validate(), [])
        self.assertEqual(training._options()["init"], self.model.getFileName())
        self.assertIn("starts anew", " ".join(training._warnings()))  # another diameter than the model's
        training.startFrom.set(2)  # the form hides the model, which then does not count
        self.assertEqual(training._options()["init"], "none")
        self.assertNotIn("starts anew", " ".join(training._warnings()))
        training.startFrom.set(0)  # as in workflows that were made before there was the choice
        self.assertEqual(training._options()["init"], self.model.getFileName())

    @slow
    def test_a_model_is_refined(self):
        protocol = self.run_(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=self.model, epochs=1,
                             patch=32, batch=4, patchesPerEpoch=8, numberOfThreads=1)
        card = protocol.model.getCard()
        self.assertEqual(card.training["round"], 2)
        self.assertEqual([c.name for c in protocol.model.getClasses()], ["ring", "rod"])
        self.assertTrue(any("Round 2 of the model" in line for line in protocol._summary()), protocol._summary())
        params = json.loads(pathlib.Path(protocol._getExtraPath("training/params.json")).read_text("utf-8"))
        self.assertEqual(len(params["items"]), 1)
