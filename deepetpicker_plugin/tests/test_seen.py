"""An evaluation knows which tomograms the model of the picks has seen."""

from __future__ import annotations

import unittest

from deepetpicker_plugin.sets.seen import LEAVE_OUT, SCORE, Seen

OURS = Seen(frozenset({"TS_1", "TS_2"}), frozenset({"TS_2", "TS_3"}), isOurs=True)


class TestSeen(unittest.TestCase):
    def test_what_was_trained_on_is_left_out_or_named_loudly(self):
        every = ["TS_1", "TS_2", "TS_3", "TS_4"]
        self.assertEqual(OURS.leftOut(LEAVE_OUT, every), ["TS_1", "TS_2"])
        self.assertEqual(OURS.leftOut(SCORE, every), [])
        self.assertIn("Left out, because the model was trained on them: TS_1, TS_2", OURS.lines(LEAVE_OUT, every))
        self.assertTrue(OURS.lines(SCORE, every)[0].startswith("*The model was trained on 2 of the 4 tomograms"))
        self.assertIn("TS_3 chose the model's epoch", OURS.lines(SCORE, every)[1])
        self.assertEqual([OURS.role(ts) for ts in every], ["training", "training", "validation", ""])
        self.assertEqual(OURS.lines(LEAVE_OUT, ["TS_4"]), [])

    def test_same_names_of_a_model_from_elsewhere_are_only_said(self):
        other = Seen(OURS.training, OURS.validation)
        self.assertEqual(other.leftOut(LEAVE_OUT, ["TS_1"]), [])
        self.assertEqual(other.role("TS_1"), "")
        self.assertIn("names TS_1: if these are the same", other.lines(LEAVE_OUT, ["TS_1", "TS_9"])[0])
        self.assertEqual(other.lines(LEAVE_OUT, ["TS_9"]), [])
