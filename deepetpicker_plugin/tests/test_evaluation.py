"""What an evaluation says of itself: which picks count, and the best it could be."""

from __future__ import annotations

import json
import pathlib
import tempfile
import unittest

from deepetpicker.windows.charts import curve_figure
from deepetpicker_plugin.objects import DeepETPickerEvaluation
from deepetpicker_plugin.viewers.registered import keyFigures

CURVE = [{"threshold": "0.2", "F1": "0.5", "precision": "0.5", "recall": "0.5"},
         {"threshold": "0.6", "F1": "0.8", "precision": "1.0", "recall": "0.67"}]


class TestEvaluation(unittest.TestCase):
    def evaluated(self, **content):
        """Return an evaluation whose file says this."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name, "evaluation.json")
        path.write_text(json.dumps(content), "utf-8")
        found = DeepETPickerEvaluation()
        found._evaluation.set(str(path))
        return found

    def test_the_figures_name_the_scores_that_count_and_the_best_f1(self):
        found = self.evaluated(options={"threshold": 0.5}, best_threshold={"F1": {"threshold": 0.6, "value": 0.8}})
        self.assertEqual(keyFigures(found)[-3:], [("Lowest score that counts", "0.5"),
                                                  ("Best F1 of all thresholds", "0.800"),
                                                  ("is at the threshold", "0.600")])
        left = curve_figure(CURVE, found.getLowestScore()).axes[0]
        self.assertIn("lowest score that counts", [text.get_text() for text in left.get_legend().get_texts()])

    def test_where_nothing_hits_no_threshold_is_the_best(self):
        none = self.evaluated(options={"threshold": 0.0}, best_threshold={"F1": {"threshold": 0.8, "value": 0.0}})
        self.assertEqual([value for _, value in keyFigures(none)[-3:]], ["all count", "-", "-"])
        self.assertIsNone(self.evaluated().getBest())
        gone = DeepETPickerEvaluation()
        gone._evaluation.set("nowhere.json")
        self.assertEqual((gone.getPerClass(), gone.getLowestScore(), gone.getBest()), ([], 0.0, None))
        self.assertEqual(len(curve_figure(CURVE).axes[0].get_legend().get_texts()), 3)
