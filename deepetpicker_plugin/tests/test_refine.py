"""Corrections on their way from Scipion's sets to the engine, and a model that is refined with them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
from pwem.protocols import ProtSubSet
from pyworkflow.object import Pointer
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D

from deepetpicker.annotation.records import Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.config import RefineOptions, TrainOptions
from deepetpicker.io.regions import Region, read_negatives, read_regions, write_regions
from deepetpicker_plugin.constants import MODEL_FILE, TRAINING_DIR
from deepetpicker_plugin.engine.pages import pageOfModel
from deepetpicker_plugin.objects import DeepETPickerModel, DeepETPickerRegions
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerAnnotate,
    ProtDeepETPickerRefine,
    ProtDeepETPickerReview,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.sets.convert import Place
from deepetpicker_plugin.sets.corrections import correctionItems, leftBehind, transferBoxes
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, python, slow, tinyModel
from deepetpicker_plugin.viewers.registered import DeepETPickerTrainingViewer
from deepetpicker_plugin.viewers.rounds import namesOfModels, roundsOf

TRAINING_CODE = """
import dataclasses, json, sys
from deepetpicker.network.modelfile import load_model, save_model
network, card = load_model(sys.argv[1])
save_model(sys.argv[2], network, dataclasses.replace(card, training=json.loads(sys.argv[3])))
"""
BOX = Region((2, 4, 6), (11, 33, 41))


def withTraining(path, **training):
    """Return the path of a copy of a model whose card says this of its training."""
    target = os.path.join(dataFolder(), f"model_round_{training.get('round', 1)}.safetensors")
    subprocess.run([python(), "-c", TRAINING_CODE, path, target, json.dumps(training)], check=True)
    return target


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

    def test_what_was_refused_with_the_particles_is_not_forgotten_unseen(self):
        for end, versions in (("", 1), ("_2", 2)):
            made = self.newProtocol(ProtDeepETPickerAnnotate, inputTomograms=self.tomograms, classNames="ring",
                                    diameterAngstrom="168")
            made.setObjLabel("review of mine")
            self.proj.saveProtocol(made)
            made.makePathsAndClean()
            with Session(made.getFolder()) as session:
                made._prepare(session)
                session.add(self.name, Negative((4.0, 5.0, 6.0)))
                for number in range(versions):
                    session.add(self.name, Particle((9.0, 9.0, 9.0 + 20 * number), 1))
                    save_version(session)
            made.createOutputs()  # of the newest version
            self.proj._storeProtocol(made)
            protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=getattr(made, f"coordinates{end}"))
            self.assertEqual(leftBehind(protocol), [])
            self.assertIn(f"Places without a particle: 1 of *review of mine* (negatives{end})", protocol._summary())
            ids = protocol._inputIds()
            protocol.takeAlong.set(False)  # somebody does not want them
            self.assertEqual(leftBehind(protocol), [])
            self.assertIn(f"Places without a particle: none; 1 of *review of mine* (negatives{end}) are not taken",
                          protocol._summary())
            self.assertNotEqual(ids, protocol._inputIds())
            protocol.inputNegatives = Pointer(self.negatives((6.0, 5.0, 4.0), (30.5, 20.0, 10.0)))
            self.assertIn("Places without a particle: 2", protocol._summary())  # what is chosen counts alone
        for left in (self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.coordinates),
                     self.newProtocol(ProtDeepETPickerTrain)):
            self.assertEqual(leftBehind(left), [])
            self.assertNotIn("Places", " ".join(left._summary()))

    def annotated(self, name, label, *records, **settings):
        """Return an annotation with outputs that holds some records."""
        made = self.newProtocol(ProtDeepETPickerAnnotate, inputTomograms=self.tomograms, classNames=name, **settings)
        made.setObjLabel(label)
        self.proj.saveProtocol(made)
        made.makePathsAndClean()
        with Session(made.getFolder()) as session:
            made._prepare(session)
            for record in records:
                session.add(self.name, record)
            save_version(session)
        made.createOutputs()
        self.proj._storeProtocol(made)
        return made

    def test_what_was_annotated_along_is_learnt_and_related(self):
        made = self.annotated("ring", "mine", Particle((9.0, 9.0, 9.0), 1), Negative((4.0, 5.0, 6.0)), BOX,
                              diameterAngstrom="168")
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=made.coordinates)
        items = correctionItems(protocol, {self.name: Place.of(self.tomograms.getFirstItem())}, self.folder)
        np.testing.assert_allclose(read_negatives(items[self.name]["negatives"]), [[4, 5, 6]], atol=1e-4)
        self.assertEqual(read_regions(items[self.name]["regions"]), [BOX])
        self.assertIn("Complete boxes: 1 of *mine* (regions)", protocol._summary())
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        os.makedirs(protocol._getExtraPath(TRAINING_DIR))
        shutil.copy(tinyModel(), protocol._getExtraPath(MODEL_FILE))
        protocol.createOutputStep("")
        related = [row["object_parent_id"] for row in protocol.getRelations()]
        for output in (made.coordinates, made.negatives, made.regions):
            self.assertIn(output.getObjId(), related)
        protocol.takeAlong.set(False)
        self.assertEqual(correctionItems(protocol, {self.name: Place.of(self.tomograms.getFirstItem())}, self.folder),
                         {})

    def test_what_is_not_one_kind_may_be_another(self):
        ring, rod = (self.annotated(name, f"the {name}s", Particle((9.0, 9.0, at), 1), Negative((4.0, 5.0, at)),
                                    diameterAngstrom="168") for name, at in (("ring", 9.0), ("rod", 40.0)))
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=ring.coordinates,
                                    moreCoordinates=[rod.coordinates])
        self.assertEqual(correctionItems(protocol, {self.name: Place.of(self.tomograms.getFirstItem())}, self.folder),
                         {})
        self.assertEqual(["the rings" in line or "the rods" in line for line in leftBehind(protocol)], [True, True])
        protocol.setsAreClasses.set(False)
        self.assertEqual(leftBehind(protocol), [])
        self.assertIn("Places without a particle: 1 of *the rings* (negatives), 1 of *the rods* (negatives)",
                      protocol._summary())

    def test_a_diameter_that_is_known_need_not_be_typed(self):
        both = (Particle((9.0, 9.0, 9.0), 1), Particle((9.0, 9.0, 40.0), 2))
        made = self.annotated("ring, rod", "mine", *both, diameterAngstrom="150, 250")
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=made.coordinates)
        self.assertEqual((protocol._validate(), self.doubts(protocol)), ([], []))
        self.assertEqual([c.diameter_ang for c in protocol.getClasses()], [150.0, 250.0])
        self.assertIn("Diameter of class 1 (ring), class 2 (rod): that of *mine*, as *Particle diameter* does not say "
                      "another", protocol._summary())
        protocol.diameterAngstrom.set("rod: 240")
        self.assertEqual([c.diameter_ang for c in protocol.getClasses()], [150.0, 240.0])
        self.assertIn("Diameter of class 1 (ring): that of *mine*", " ".join(protocol._summary()))
        protocol.diameterAngstrom.set("140")
        self.assertNotIn("that of", " ".join(protocol._summary()))
        given = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.foreign())
        self.assertIn("expected one > 0 Å for class 1 (class_1), class 2 (class_2), got none: write 1: ..., 2: ...",
                      " ".join(given._validate()))

    def test_a_diameter_that_nobody_has_chosen_is_asked_about(self):
        made = self.annotated("ring", "mine", Particle((9.0, 9.0, 9.0), 1))
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=made.coordinates)
        (line,) = self.doubts(protocol)
        self.assertIn("200 Å (20.0 voxels) of class 1 (ring) is what *mine* began with", line)
        protocol.diameterAngstrom.set("200")
        self.assertEqual(self.doubts(protocol), [])

    @staticmethod
    def doubts(protocol):
        """Return the warnings of a form but those of the machine."""
        return [line for line in protocol._warnings() if "GPU" not in line]

    def foreign(self, source=None):
        """Return the particles as other programs have them: without a table of their classes."""
        source = source or self.coordinates
        found = SetOfCoordinates3D.create(self.folder, suffix="_foreign")
        found.setPrecedents(self.tomograms)
        found.setSamplingRate(self.tomograms.getSamplingRate())
        for one in source.iterCoordinates():
            found.append(one.clone())
        found.write()
        return found

    def test_a_subset_that_scipion_made_keeps_what_is_known(self):
        both = (Particle((9.0, 9.0, 9.0), 1), Particle((9.0, 9.0, 40.0), 2))
        made = self.annotated("ring, rod", "mine", *both, diameterAngstrom="150, 250")
        chosen = self.newProtocol(ProtSubSet, inputFullSet=made.coordinates, chooseAtRandom=True, nElements=1)
        self.launchProtocol(chosen)
        (_, subset), = chosen.iterOutputAttributes(SetOfCoordinates3D)
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=subset)
        (one,) = protocol.getClasses()
        self.assertEqual((one.name, one.diameter_ang), {1: ("ring", 150.0), 2: ("rod", 250.0)}[one.id])
        self.assertEqual(protocol._validate(), [])

    def test_what_was_clicked_or_answered_may_be_some_of_many(self):
        marked = self.newProtocol(ProtDeepETPickerAnnotate, inputTomograms=self.tomograms, classNames="ring",
                                  diameterAngstrom="168")
        answered = self.newProtocol(ProtDeepETPickerReview, inputCoordinates=self.coordinates)
        for made in (marked, answered):
            self.proj.saveProtocol(made)
            made.makePathsAndClean()
            with Session(made.getFolder()) as session:
                made._prepare(session)
                session.add(self.name, Particle((9.0, 9.0, 9.0), 1))
                save_version(session)
            made.createOutputs()
            self.proj._storeProtocol(made)
            self.assertFalse(hasattr(made, "regions"))  # no box was drawn
        said = []
        for coordinates in (marked.coordinates, answered.coordinates, self.coordinates):
            protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=coordinates, diameter_angstrom="168")
            self.proj.saveProtocol(protocol)
            protocol.makePathsAndClean()
            protocol.convertStep("")
            params = json.loads(pathlib.Path(protocol._getExtraPath(TRAINING_DIR, "params.json")).read_text())
            said.append([read_regions(item["regions"]) for item in params["items"] if item.get("regions")])
        self.assertEqual(said, [[[]], [[]], []])

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

    def trained(self, kind, path, label, **settings):
        """Return a training of the project whose model is a file that is there."""
        protocol = self.newProtocol(kind, inputCoordinates=self.coordinates, **settings)
        protocol.setObjLabel(label)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        protocol._defineOutputs(model=DeepETPickerModel.fromFile(path))
        self.proj.saveProtocol(protocol)
        return protocol

    def test_the_rounds_of_a_model_are_followed_through_the_project(self):
        first, second = (withTraining(tinyModel(), **facts) for facts in (
            {"items": [{"name": "a", "particles": 10}],
             "picks": [{"class_id": 1, "f1": 0.5, "precision": 0.5, "recall": 0.5, "n_true": 4}]},
            {"items": [{"name": "a", "particles": 30, "negatives": 7}], "round": 2,
             "started_from": {"file": "m.safetensors", "round": 1, "f1_before": 0.5, "f1_after": 0.75, "n_true": 4}}))
        train = self.trained(ProtDeepETPickerTrain, first, "ten clicks")
        self.assertEqual([str(one) for one in roundsOf(train, self.proj)],
                         ["round 1 (ten clicks): 10 particles, F1 0.50 on 4 held-out particles"])
        refined = self.trained(ProtDeepETPickerRefine, second, "corrected", initModel=train.model)
        self.assertEqual([(one.number, one.name, one.particles) for one in roundsOf(refined, self.proj)],
                         [(1, "ten clicks", 10), (2, "corrected", 30)])
        names = namesOfModels(refined, self.proj)
        self.assertEqual(names, {first: "ten clicks", second: "corrected"})
        page = pageOfModel(refined, refined.model.getFileName(), names)()
        self.assertIn(">2: corrected<", pathlib.Path(page).read_text("utf-8"))
        third = self.newProtocol(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=refined.model)
        third.setObjLabel("again")
        self.proj.saveProtocol(third)
        third.setStatus("running")
        self.assertEqual(str(roundsOf(third, self.proj)[-1]), "round 3 (again): running")
        window = DeepETPickerTrainingViewer(project=self.proj, protocol=None)._windows(third)[0]
        self.assertEqual([one.number for one in window.rounds()], [1, 2, 3])
        third.setStatus("failed")
        self.assertEqual(len(roundsOf(third, self.proj)), 2)
        anew = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.coordinates, initModel=refined.model,
                                startFrom=2)
        self.proj.saveProtocol(anew)
        self.assertEqual(roundsOf(anew, self.proj), [])  # it started from nothing
        brought = self.importModel(second)
        maker = self.proj.getProtocol(int(brought.getObjParentId()))
        self.assertEqual([(one.number, one.name) for one in roundsOf(maker, self.proj)],
                         [(1, "m.safetensors"), (2, maker.getObjLabel() or maker.getRunName())])

    @slow
    def test_a_model_is_refined(self):
        protocol = self.run_(ProtDeepETPickerRefine, inputCoordinates=self.coordinates, initModel=self.model, epochs=1,
                             patch=32, batch=4, patchesPerEpoch=8, numberOfThreads=1)
        card = protocol.model.getCard()
        self.assertEqual(card.training["round"], 2)
        self.assertEqual([one.number for one in roundsOf(protocol, self.proj)], [1, 2])
        self.assertEqual([c.name for c in protocol.model.getClasses()], ["ring", "rod"])
        self.assertTrue(any("Round 2 of the model" in line for line in protocol._summary()), protocol._summary())
        params = json.loads(pathlib.Path(protocol._getExtraPath("training/params.json")).read_text("utf-8"))
        self.assertEqual(len(params["items"]), 1)
