"""The id of a class is the group id of its particles: from the coordinates through model and picks to their scores."""

from __future__ import annotations

import json
import unittest
from types import SimpleNamespace

from tomo.objects import SetOfCoordinates3D

from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerPick,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.sets import classes
from deepetpicker_plugin.tests.base import TINY, PluginTest, positions, slow
from deepetpicker_plugin.viewers.registered import sceneOf


def aSet(*groups, known=(), label=""):
    """Return what stands for a set of coordinates with some group ids, and maybe a class table."""
    coordinates = SimpleNamespace(getUniqueValues=lambda attribute: list(groups))
    classes.setClasses(coordinates, known)
    return classes.Source(coordinates, label)


class TestTable(unittest.TestCase):
    """Which group of which set is which class."""

    def table(self, *sources, **choices):
        found = classes.sortClasses(sources, **choices)
        return [(c.id, c.name) for c in found.classes], found.ofGroup

    def test_group_ids_are_class_ids(self):
        for groups in ((0,), (0, 1), (1, 2), (0, 4, 7)):
            self.assertEqual(self.table(aSet(*groups)), ([(g, f"class_{g}") for g in groups], [{g: g for g in groups}]))
        self.assertEqual(self.table(aSet(1, 2), useGroups=False)[1], [{1: 1, 2: 1}])
        self.assertEqual(self.table(aSet(3), useGroups=False)[1], [{3: 3}])

    def test_a_set_for_each_kind(self):
        one, two = aSet(0, label="ribosome"), aSet(0, label="proteasome, 20S")
        self.assertEqual(self.table(one, two), ([(1, "ribosome"), (2, "proteasome 20S")], [{0: 1}, {0: 2}]))
        apart = self.table(aSet(2, label="b"), aSet(1, label="a"))
        self.assertEqual(apart, ([(1, "a"), (2, "b")], [{2: 2}, {1: 1}]))  # their group ids say it already
        self.assertEqual(self.table(aSet(0, label="x"), aSet(0, label="x"))[0], [(1, "x 1"), (2, "x 2")])

    def test_several_sets_of_the_same_kinds(self):
        found = self.table(aSet(0, 1), aSet(1, 2), setsAreClasses=False)
        self.assertEqual(found, ([(0, "class_0"), (1, "class_1"), (2, "class_2")], [{0: 0, 1: 1}, {1: 1, 2: 2}]))
        self.assertEqual(self.table(aSet(1, 2), aSet(2, label="b"))[1], [{1: 1, 2: 2}, {2: 3}])
        self.assertEqual(self.table(aSet(1, 2), aSet(2), useGroups=False, setsAreClasses=False)[1],
                         [{1: 1, 2: 1}, {2: 1}])

    def test_what_sets_know_is_kept(self):
        ring = ParticleClass(0, "ring", 100.0)
        found = classes.sortClasses([aSet(0, 1, known=(ring,))])
        self.assertEqual(found.classes, (ring, ParticleClass(1, "class_1")))

    def test_diameters_and_names_of_a_form(self):
        both = (ParticleClass(0, "class_0"), ParticleClass(1, "class_1", 50.0))
        for text in ("100, 300", "1: 300, 0: 100", "100, 1: 300"):
            self.assertEqual([c.diameter_ang for c in classes.withDiameters(both, text, "D")], [100.0, 300.0])
        self.assertEqual([c.diameter_ang for c in classes.withDiameters(both, "", "D")], [0.0, 50.0])
        self.assertEqual([c.name for c in classes.withNames(both, "1: rod", "N")], ["class_0", "rod"])
        for text, word in (("a", "twice: .*such as 0: name, 1: name"), ("a, a", "twice"), ("5: a", "no class")):
            with self.assertRaisesRegex(InputError, word):
                classes.withNames(both, text, "N")
        with self.assertRaisesRegex(InputError, "> 0"):
            classes.withDiameters(both, "0", "D")


class TestOneClassOfAll(unittest.TestCase):
    """Evaluated without regard to group ids, particles are called what either side calls them."""

    def named(self, reference, picks):
        form = SimpleNamespace(inputReference=SimpleNamespace(get=lambda: reference.coordinates),
                               inputCoordinates=SimpleNamespace(get=lambda: picks.coordinates),
                               useGroups=SimpleNamespace(get=lambda: False))
        return ProtDeepETPickerEvaluate._match(form).classes[0].name

    def test_the_name_that_is_known_is_used(self):
        bare, named = aSet(0), aSet(1, known=(ParticleClass(1, "ribosome", 250.0),))
        self.assertEqual(self.named(bare, named), "ribosome")  # imported coordinates have no names
        self.assertEqual(self.named(named, bare), "ribosome")
        self.assertEqual(self.named(aSet(0, 1), named), "ribosome")
        self.assertEqual(self.named(bare, aSet(0)), "particle")


class TestClasses(PluginTest):
    """A set whose groups are 0 and 1, as emantomo numbers them, with the diameters a user types."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=2)
        cls.zero = cls.renumbered("fromZero", {1: 0, 2: 1})
        cls.train = cls.run_(ProtDeepETPickerTrain, inputCoordinates=cls.zero, diameterAngstrom="168,253",
                             classNames="0: ring, 1: rod", **TINY)
        cls.pick = cls.run_(ProtDeepETPickerPick, inputTomograms=cls.simulation.tomograms, inputModel=cls.train.model,
                            threshold=0.1, binThreads=1)

    @classmethod
    def renumbered(cls, name, groups, only=()):
        """Return the simulated coordinates with other group ids and no class table, as another output."""
        source = cls.simulation.coordinates
        target = SetOfCoordinates3D.create(cls.simulation._getPath(), suffix="_" + name.lower())
        target.setPrecedents(source.getPrecedents())
        target.setSamplingRate(source.getSamplingRate())
        target.setBoxSize(source.getBoxSize())
        for item in source.iterCoordinates():
            if not only or item.getGroupId() in only:
                copy = item.clone()
                copy.setGroupId(groups[item.getGroupId()])
                target.append(copy)
        cls.simulation._defineOutputs(**{name: target})
        target.close()
        cls.proj.mapper.store(cls.simulation)
        cls.proj.mapper.commit()
        return getattr(cls.simulation, name)

    def test_training_takes_100_for_group_0(self):
        form = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.zero, diameterAngstrom="100,300")
        self.assertEqual([(c.id, c.diameter_ang) for c in form.getClasses()], [(0, 100.0), (1, 300.0)])
        text = " ".join(form.summary())
        self.assertIn("Group 0 (class_0): diameter 100 Å", text)
        self.assertIn("Group 1 (class_1): diameter 300 Å", text)

    def test_the_model_has_the_group_ids(self):
        wanted = (ParticleClass(0, "ring", 168.0), ParticleClass(1, "rod", 253.0))
        self.assertEqual(self.train.model.getClasses(), wanted)
        with open(self.train._getExtraPath("training", "params.json"), encoding="utf-8") as stream:
            self.assertEqual([c["id"] for c in json.load(stream)["classes"]], [0, 1])

    def test_picks_and_what_is_chosen_from_them_carry_the_table(self):
        table = self.train.model.getClasses()
        picks = self.proj.getProtocol(self.pick.getObjId()).coordinates
        self.assertEqual(classes.knownClasses(picks), table)
        groups = {int(g) for rows in positions(picks).values() for g in rows[:, 3]}
        self.assertTrue(groups and groups <= {0, 1}, groups)
        chosen = self.run_(ProtDeepETPickerThreshold, inputCoordinates=picks, threshold="ring: 0.2, rod: 0.1")
        self.assertEqual(classes.knownClasses(chosen.coordinates), table)
        self.assertIn("Group 0 (ring): diameter 168 Å", " ".join(chosen.summary()))
        self.assertIn("no class 'disc'", "\n".join(self.newProtocol(
            ProtDeepETPickerThreshold, inputCoordinates=picks, threshold="disc: 0.2").validate()))
        compared = self.run_(ProtDeepETPickerCompare, inputFirst=picks, inputSecond=chosen.coordinates,
                             radiusAngstrom=1.0)
        self.assertEqual(classes.knownClasses(compared.inBoth), table)
        diameters = {layer.name: layer.diameter_ang for layer in sceneOf(compared, self.proj).layers}
        self.assertEqual({name: diameters[name] for name in ("in both: ring", "in both: rod") if name in diameters},
                         {f"in both: {c.name}": c.diameter_ang for c in table if c.id in groups})
        again = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=picks)
        self.assertEqual([c.diameter_ang for c in again.getClasses() if c.id in groups],
                         [c.diameter_ang for c in table if c.id in groups])  # curated picks train without typing

    def test_evaluation_names_the_classes_of_the_model(self):
        done = self.run_(ProtDeepETPickerEvaluate, inputCoordinates=self.pick.coordinates, inputReference=self.zero)
        with open(done.evaluation.getEvaluationFile(), encoding="utf-8") as stream:
            rows = json.load(stream)["per_class"]
        self.assertEqual([(row["id"], row["name"]) for row in rows], [(0, "ring"), (1, "rod")])
        self.assertIn("Group 1 (rod): diameter 253 Å", " ".join(done.summary()))

    def test_evaluation_of_one_class_is_not_called_particle(self):
        picks, truth = self.renumbered("picked", {1: 1}, only=(1,)), self.renumbered("onlyRings", {1: 0}, only=(1,))
        classes.setClasses(picks, [ParticleClass(1, "ribosome", 60.0)])  # as picks of a model have it
        form = self.newProtocol(ProtDeepETPickerEvaluate, inputCoordinates=picks, inputReference=truth)
        self.assertEqual(form.getClasses(), (ParticleClass(0, "ribosome", 60.0),))
        self.assertEqual(form._match().of_picks, {1: 0})

    def test_the_table_does_not_disturb_who_reads_the_file_alone(self):
        picks = self.pick.coordinates
        alone = SetOfCoordinates3D(filename=picks.getFileName())
        alone.loadAllProperties()
        self.assertEqual((alone.getSize(), alone.getBoxSize()), (picks.getSize(), picks.getBoxSize()))
        self.assertEqual(classes.knownClasses(alone), ())

    def test_shifted_group_ids_are_an_error_until_it_is_said_which_is_which(self):
        shifted = self.renumbered("fromOne", {1: 1, 2: 2})
        form = {"inputCoordinates": shifted, "inputReference": self.zero, "diameters": "168, 253"}
        errors = "\n".join(self.newProtocol(ProtDeepETPickerEvaluate, **form).validate())
        self.assertIn("cannot tell which is which", errors)
        self.assertIn("1: 0, 2: 1", errors)
        done = self.run_(ProtDeepETPickerEvaluate, classMap="1: 0, 2: 1", **form)
        with open(done.evaluation.getEvaluationFile(), encoding="utf-8") as stream:
            rows = json.load(stream)["per_class"]
        self.assertEqual([(row["id"], row["F1"]) for row in rows], [(0, 1.0), (1, 1.0)])
        same = {"inputFirst": self.zero, "inputSecond": shifted, "sameClass": True, "radiusAngstrom": 1.0}
        self.assertIn("cannot tell", "\n".join(self.newProtocol(ProtDeepETPickerCompare, **same).validate()))
        form = self.newProtocol(ProtDeepETPickerCompare, classMap="1: 0, 2: 1", **same)
        self.assertEqual(form._classOfSecond(), {1: 0, 2: 1})

    def test_warm_start_tells_what_differs(self):
        def said(diameters, names="0: ring, 1: rod"):
            form = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.zero, diameterAngstrom=diameters,
                                    classNames=names, initModel=self.train.model)
            self.assertEqual([e for e in form.validate() if "model" in e], [])
            return " ".join(form.warnings())

        self.assertNotIn("Start from", said("168, 253"))
        self.assertIn("class 0 (ring): 168 angstrom in the model, 253 in the data", said("253, 168"))
        self.assertIn("class 1 (disc) is not in the model, where 1 is rod", said("168, 253", "0: ring, 1: disc"))

    @slow
    def test_several_sets_train_as_classes(self):
        rings, rods = (self.renumbered(n, {1: 0, 2: 0}, only=(g,)) for n, g in (("rings", 1), ("rods", 2)))
        for coordinates, label in ((rings, "a ring"), (rods, "a rod")):
            coordinates.setObjLabel(label)
        self.proj.mapper.store(self.simulation)
        self.proj.mapper.commit()
        train = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=rings, moreCoordinates=[rods],
                                 diameterAngstrom="a ring: 168, a rod: 253", **TINY)
        self.assertEqual(train.getClasses(), (ParticleClass(1, "a ring", 168.0), ParticleClass(2, "a rod", 253.0)))
        train.diameterAngstrom.set("1: 168, 2: 253")
        self.launchProtocol(train)
        self.assertEqual([(c.id, c.diameter_ang) for c in train.model.getClasses()], [(1, 168.0), (2, 253.0)])
        self.assertEqual(train.model.getCard().training["particles"],
                         {"1": rings.getSize(), "2": rods.getSize()})

    def test_outputs_per_class_can_be_wired_before_there_is_a_model(self):
        train = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=self.zero, diameterAngstrom="100,300",
                                 classNames="0: ring, 1: rod")
        self.saveProtocol(train)
        pick = self.newProtocol(ProtDeepETPickerPick, inputTomograms=self.simulation.tomograms, splitClasses=True,
                                saveMap=True)
        pick.inputModel.set(train)
        pick.inputModel.setExtended("model")
        names = dict(pick.iterOutputAttributes(includePossible=True))
        self.assertEqual(sorted(names), ["coordinates_ring", "coordinates_rod", "failedTomograms",
                                         "probabilityMaps_ring", "probabilityMaps_rod"])
        self.assertIs(names["coordinates_ring"], SetOfCoordinates3D)
        pick.splitClasses.set(False)
        pick.saveMap.set(False)
        self.assertEqual(sorted(dict(pick.iterOutputAttributes(includePossible=True))),
                         ["coordinates", "failedTomograms"])
