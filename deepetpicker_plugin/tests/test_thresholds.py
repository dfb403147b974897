"""Thresholds per class in the forms of pick, and what the summary of train says of the kept epoch."""

from __future__ import annotations

import os

import numpy as np

from deepetpicker_plugin.epochs import keptLines
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerReview, ProtDeepETPickerThreshold
from deepetpicker_plugin.sets import picked
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, tinyModel
from deepetpicker_plugin.wizards.threshold import thresholdsOfPicking


class TestThresholds(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = noiseTomograms(os.path.join(dataFolder(), "thresholds"), {"TS_1": (32, 48, 56)})
        cls.tomograms = cls.importTomograms(folder)
        cls.model = cls.importModel(tinyModel("ring,rod"))

    def settings(self, threshold):
        return {"inputTomograms": self.tomograms, "inputModel": self.model, "threshold": threshold, "binThreads": 1}

    def test_each_class_has_its_own(self):
        protocol = self.run_(ProtDeepETPickerPick, **self.settings("rod: 0, 1: 1"))
        found = next(iter(protocol.getCandidates().values()))
        self.assertGreater((found.class_ids == 1).sum(), 0)  # an untrained network finds both in noise
        wanted = int((found.class_ids == 2).sum())
        self.assertEqual({c.getGroupId() for c in protocol.coordinates.iterCoordinates()}, {2})
        self.assertEqual(protocol.coordinates.getSize(), wanted)
        for text in (*protocol.summary(), *protocol.methods()):
            self.assertNotIn("above 0.00,", text)
        self.assertIn("score at or above 1:1.00, 2:0.00", " ".join(protocol.summary()))
        self.assertIn("score at or above 1:1.00, 2:0.00", " ".join(protocol.methods()))
        scene, lows = thresholdsOfPicking(protocol)
        self.assertEqual(lows, [1.0, 0.0])
        self.assertEqual([layer.name for layer in scene.layers], ["ring", "rod"])
        self.check_review(protocol, found)

    def check_review(self, picking, candidates):
        """Check that *review picks* offers what the picking has found below its thresholds."""
        review = self.newProtocol(ProtDeepETPickerReview, inputCoordinates=picking.coordinates, offerCandidates=True)
        self.assertEqual(review._validate(), [])
        (offered,) = review._below().values()
        np.testing.assert_allclose(offered.positions_zyx_vox, candidates.positions_zyx_vox, atol=1e-6)
        self.assertEqual(offered.class_ids.tolist(), candidates.class_ids.tolist())
        chosen = self.run_(ProtDeepETPickerThreshold, inputCoordinates=picking.coordinates)
        review.inputCoordinates.set(chosen.coordinates)
        self.assertEqual(list(review._below()), ["TS_1"])  # found through the protocol that chose among them

    def test_the_form_names_what_is_wrong(self):
        for threshold, words in (("3: 0.5", "*Score threshold*: there is no class '3', but class 1 (ring), class 2"),
                                 ("high", "*Score threshold (-1: model's)* must be a number, or a number per class "
                                  "such as 1:0.4"),
                                 ("1: 1.5", "*Score threshold (-1: model's)* must be a number between -1 and 1")):
            errors = self.newProtocol(ProtDeepETPickerPick, **self.settings(threshold)).validate()
            self.assertEqual(len(errors), 1, errors)
            self.assertIn(words, errors[0])
        self.assertEqual(self.newProtocol(ProtDeepETPickerPick, **self.settings("-1, ring: 0.4")).validate(), [])
        errors = self.newProtocol(ProtDeepETPickerPick, fdr=0.05, **self.settings("-1")).validate()
        self.assertEqual(len(errors), 1, errors)
        self.assertIn("*False-discovery rate* expected a model whose scores are probabilities", errors[0])

    def test_the_summary_says_what_picks_were_chosen_by_and_how_many_are_expected_to_be_false(self):
        done = [{"thresholds": {"1": 0.4, "3": 0.6}, "expected_fdr": {"1": 0.02, "3": None}},
                {"thresholds": {"1": 0.5, "3": 0.6}, "expected_fdr": {"1": 0.04, "3": None}}]
        self.assertEqual(picked.chosenBy(done, 0.0), "score at or above 1:0.40, 3:0.60")
        self.assertEqual(picked.chosenBy(done, 0.05),
                         "at an estimated false-discovery rate of at most 0.05 in each tomogram")
        self.assertEqual(picked.expectedLines(done),
                         ["Group 1: 3.0% of the picks are expected to be false (mean over the tomograms)"])
        self.assertEqual(picked.expectedLines([{"threshold": 0.3}]), [])

    def test_finds_that_were_too_faint_are_counted(self):
        done = [{"n_faint": {"1": 3, "2": 1}}, {"n_faint": {}}, {}]
        self.assertIn("4 more stood out of their tomograms less than half", picked.faintLines(done)[0])
        self.assertEqual(picked.faintLines(done[1:]), [])

    def test_the_summary_says_which_tomograms_are_to_be_looked_at(self):
        good = {"grade": "good", "text": "good: 200 picks", "reasons": []}
        done = [{"name": f"TS_{n}", "status": "done", "n_picks": 200 + n, "verdict": good} for n in range(6)]
        self.assertEqual(picked.verdictLines(done), ["Verdict: *good: 6 tomograms picked*"])
        done[2] = {"name": "TS_2", "status": "done", "n_picks": 0, "verdict": {
            "grade": "doubtful", "text": "doubtful: contrast: turned round", "reasons": [{}]}}
        lines = picked.verdictLines(done)
        self.assertEqual(lines[0], "Verdict: *doubtful: 6 tomograms picked, 1 of them to look at*")
        self.assertIn("TS_2: doubtful: contrast: turned round", lines)
        self.assertIn("TS_2: few picks: 0, others about 202", lines[2])
        self.assertEqual(picked.verdictLines([{"name": "old", "status": "done", "n_picks": 3}]), [])

    def test_the_kept_epoch_is_the_last_one_marked(self):
        rows = [{"epoch": "0", "pick_f1": "0.5", "kept": "1"}, {"epoch": "1", "pick_f1": "0.75", "kept": "1"},
                {"epoch": "2", "pick_f1": "0.8", "kept": "0"}, {"epoch": "3", "pick_f1": "", "kept": "0"}]
        self.assertEqual(keptLines(rows, {}),
                         ["Best epoch so far: *1*, F1 of its picks on the validation part *0.750*"])
        one = {"class_id": 2, "name": "rod", "f1": 0.75, "precision": 1.0, "recall": 0.6, "n_true": 10,
               "threshold": 0.4}
        lines = keptLines(rows, {"kept_epoch": 1, "chosen_by": "voxels", "classes": [one]})
        self.assertEqual(lines, [
            "Kept epoch: *1* (chosen by voxels, not by picks), F1 of its picks on the validation part *0.750*",
            "Class 2 (rod): F1 0.75, precision 1.00, recall 0.60 on 10 particles, threshold 0.40"])
        self.assertEqual(keptLines([{"epoch": "0", "pick_f1": "0.5"}], {}), [])

    def test_where_many_particles_are_not_annotated_only_recall_is_said(self):
        """F1 would be 0.1 for a good model: it counts unannotated particles as false picks."""
        rows = [{"epoch": "3", "pick_f1": "0.1", "kept": "1"}]
        one = {"class_id": 2, "name": "rod", "f1": 0.1, "precision": 0.06, "recall": 1.0, "n_true": 2, "threshold": 0.3}
        lines = keptLines(rows, {"kept_epoch": 3, "chosen_by": "last", "classes": [one], "verdict": {
            "text": "doubtful: held-out part too small; mean recall of its picks 1.00 on 2 held-out particles"}})
        self.assertEqual(lines, ["Kept epoch: *3* (the last one: picks cannot choose)",
                                 "Class 2 (rod): recall 1.00 on 2 particles, threshold 0.30"])
