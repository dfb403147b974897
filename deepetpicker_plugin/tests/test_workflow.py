"""The whole way, each protocol as a real Scipion process: simulate, train, pick, evaluate, compare, threshold."""

from __future__ import annotations

import json
import os

import numpy as np

from deepetpicker_plugin.constants import TRAINING_MANIFEST
from deepetpicker_plugin.engine.process import readManifest
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerPick,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.tests.base import DIAMETERS, RATE, SHAPE, TINY, PluginTest, positions

THRESHOLD = 0.845


class TestWorkflow(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=3)
        cls.tomograms, cls.truth = cls.simulation.tomograms, cls.simulation.coordinates
        cls.train = cls.run_(ProtDeepETPickerTrain, inputCoordinates=cls.truth, diameterAngstrom="168, 253",
                             classNames="ring, rod", **TINY)
        cls.pick = cls.run_(ProtDeepETPickerPick, inputTomograms=cls.tomograms, inputModel=cls.train.model,
                            threshold=THRESHOLD, saveMap=True, binThreads=1)

    def test_simulated_sets(self):
        self.checkTomograms(self.tomograms, expectedSetSize=3, expectedSRate=RATE, expectedDimensions=list(SHAPE[::-1]))
        self.checkCoordinates(self.truth, expectedSetSize=self.truth.getSize(), expectedBoxSize=25, expectedSRate=RATE)
        for tsId, rows in positions(self.truth).items():
            table = np.loadtxt(self.simulation._getExtraPath("simulation", f"{tsId}.csv"), delimiter=",", skiprows=1,
                               usecols=(2, 3, 4, 0))
            np.testing.assert_allclose(rows[:, :4], np.array(sorted(map(tuple, table))), atol=1e-3)
        self.assertIn(f"{self.truth.getSize()} particles", " ".join(self.simulation.summary()))
        self.assertGreater(self.truth.getSize(), 25)

    def test_model(self):
        model = self.train.model
        self.assertEqual(model.getClassIds(), [1, 2])
        self.assertEqual(model.getClassNames(), ["ring", "rod"])
        self.assertEqual(model.getDiameters(), list(DIAMETERS))
        self.assertEqual(model.getSamplingRate(), 21.0)
        self.assertEqual(model._epochs.get(), 2)
        self.assertFalse(os.path.isabs(model.getFileName()))
        self.assertEqual([c.name for c in model.getCard().classes], ["ring", "rod"])
        self.assertIn("ring 168 Å", str(model))
        text = " ".join(self.train.summary())
        self.assertIn("diameter 168 Å (16.8 voxels)", text)
        self.assertIn("2 of 2", text)
        manifest, card = readManifest(self.train._getExtraPath(TRAINING_MANIFEST)), model.getCard()
        kept = card.training["kept_epoch"]
        self.assertEqual(manifest["outputs"]["kept_epoch"], kept)
        self.assertAlmostEqual(model.getF1(), card.validation[kept]["pick_f1"], places=12)
        self.assertEqual(card.validation[kept]["pick_f1"], manifest["outputs"]["pick_f1"])
        self.assertIn(f"Kept epoch: *{kept}*, F1 of its picks on the validation part *{model.getF1():.3f}*", text)
        for one in card.training["picks"]:
            self.assertIn(f"({one['name']}): F1 {one['f1']:.2f}", text)
            self.assertEqual(f"{one['name']}): pick F1" in text, one["f1"] < 0.7)  # the warning
        self.assertIn("Liu2024", " ".join(self.train.methods()))
        self.assertIn("10.1038/s41467-024-46041-0", self.train.getCitations()["Liu2024"])

    def test_picks(self):
        picks = self.pick.coordinates
        self.checkCoordinates(picks, expectedSetSize=picks.getSize(), expectedBoxSize=25, expectedSRate=RATE)
        self.assertEqual(picks.getPrecedents().getTSIds(), self.tomograms.getTSIds())
        for item in picks.iterCoordinates():
            self.assertIn(item.getGroupId(), (1, 2))
            self.assertTrue(THRESHOLD <= item.getScore() <= 1)
            self.assertTrue(self.areInTomogram(item, item.getVolume()))

    def areInTomogram(self, item, volume):
        from tomo.constants import BOTTOM_LEFT_CORNER
        return all(-0.5 <= p <= n - 0.5 for p, n in zip(item.getPosition(BOTTOM_LEFT_CORNER), volume.getDim()))

    def test_probability_maps(self):
        for name, label in (("probabilityMaps_ring", 1), ("probabilityMaps_rod", 2)):
            masks = getattr(self.pick, name)
            self.checkTomoMasks(masks, expectedSetSize=3, expectedSRate=21.0, expectedDimensions=[31, 31, 16])
            for mask in masks:
                self.assertIn(f"_probability_{label}", mask.getFileName())
                shift = mask.getShiftsFromOrigin()[2]
                self.assertAlmostEqual(shift - 21 / 2, -SHAPE[0] / 2 * RATE - RATE / 2)

    def test_evaluation(self):
        protocol = self.run_(ProtDeepETPickerEvaluate, inputCoordinates=self.truth, inputReference=self.truth,
                             diameters="168,253")
        self.assertEqual(protocol.evaluation.getF1(), 1.0)
        self.assertTrue(os.path.exists(protocol.evaluation.getReport()))
        n = self.truth.getSize()
        self.assertIn(f"{n} of {n}", " ".join(protocol.summary()))
        settings = {"inputCoordinates": self.pick.coordinates, "inputReference": self.truth}
        held = self.run_(ProtDeepETPickerEvaluate, **settings)  # what the model was trained on is left out
        self.assertEqual(held.evaluation._nTruth.get(), len(positions(self.truth)["TS_02"]))
        self.assertIn("Left out, because the model was trained on them: TS_00, TS_01", held.summary())
        self.assertIn("A hit lies within", " ".join(held.summary()))
        poor = self.run_(ProtDeepETPickerEvaluate, trainedTomograms=1, **settings)
        self.assertIn("*The model was trained on 2 of the 3 tomograms", " ".join(poor.summary()))
        self.assertLess(poor.evaluation.getF1(), 1.0)
        self.assertEqual(poor.evaluation._nTruth.get(), n)

    def test_threshold_and_comparison(self):
        every = self.run_(ProtDeepETPickerThreshold, inputCoordinates=self.pick.coordinates, threshold="0.1")
        candidates = self.pick.getCandidates()
        self.assertEqual(every.coordinates.getSize(), sum(map(len, candidates.values())))
        middle = np.median(np.concatenate([rows[:, 4] for rows in positions(every.coordinates).values()]))
        half = self.run_(ProtDeepETPickerThreshold, inputCoordinates=self.pick.coordinates, threshold=f"{middle:.4f}")
        self.assertGreater(every.coordinates.getSize(), half.coordinates.getSize())
        few = self.run_(ProtDeepETPickerThreshold, inputCoordinates=self.pick.coordinates, threshold=str(THRESHOLD),
                        maxPicks="1", useCandidates=False)
        self.assertLessEqual(few.coordinates.getSize(), 2 * 3)
        best = {ts: max(rows[rows[:, 3] == 1][:, 4]) for ts, rows in positions(self.pick.coordinates).items()
                if (rows[:, 3] == 1).any()}
        kept = {ts: rows[rows[:, 3] == 1][:, 4] for ts, rows in positions(few.coordinates).items()}
        for tsId, score in best.items():
            np.testing.assert_allclose(kept[tsId], [score])
        both = self.run_(ProtDeepETPickerCompare, inputFirst=every.coordinates, inputSecond=half.coordinates,
                         radiusAngstrom=1.0)
        self.assertEqual(both.inBoth.getSize(), half.coordinates.getSize())
        self.assertEqual(both.onlyInFirst.getSize(), every.coordinates.getSize() - half.coordinates.getSize())
        self.assertFalse(hasattr(both, "onlyInSecond"))

    def test_one_set_per_class(self):
        split = self.run_(ProtDeepETPickerPick, inputTomograms=self.tomograms, inputModel=self.train.model,
                          threshold=0.1, splitClasses=True, binThreads=1)
        whole = self.pick.getCandidates()
        for number, name in ((1, "coordinates_ring"), (2, "coordinates_rod")):
            wanted = sum(int((t.class_ids == number).sum()) for t in whole.values())
            found = getattr(split, name, None)
            self.assertEqual(found.getSize() if found is not None else 0, wanted)
            if found is not None:
                self.assertEqual(found.getBoxSize(), round(DIAMETERS[number - 1] / RATE))

    def test_workflow_as_json_and_copy(self):
        path = self.proj.getTmpPath("workflow.json")
        self.proj.getRunsGraph(refresh=True)
        self.proj.exportProtocols([self.train, self.pick], path)
        with open(path, encoding="utf-8") as stream:
            self.assertNotIn(self.proj.getPath(), json.dumps(json.load(stream)))
        copies = self.proj.loadProtocols(path)
        fresh = {p.getClassName(): p for p in copies.values()}
        self.assertEqual(fresh["ProtDeepETPickerTrain"].widths.get(), "4,6,8,10")
        again = fresh["ProtDeepETPickerPick"]
        self.assertEqual(float(again.threshold.get()), THRESHOLD)
        copy = self.proj.copyProtocol(self.pick)
        self.assertEqual(copy.inputModel.get().getFileName(), self.train.model.getFileName())
        self.launchProtocol(copy)
        for tsId, rows in positions(copy.coordinates).items():
            np.testing.assert_array_equal(rows, positions(self.pick.coordinates)[tsId])
