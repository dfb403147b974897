"""The protocol *review picks*: its real window by the keyboard, its outputs, opened again, from the viewer."""

from __future__ import annotations

import functools
import pathlib
from unittest import mock

import numpy as np

from deepetpicker.annotation.session import Session
from deepetpicker_plugin.engine.process import backgroundCommand
from deepetpicker_plugin.protocols import ProtDeepETPickerReview
from deepetpicker_plugin.sets.classes import classesOf, knownClasses
from deepetpicker_plugin.tests.base import positions
from deepetpicker_plugin.tests.screen import gui
from deepetpicker_plugin.tests.window import WindowTest, xdotool


@gui
class TestReview(WindowTest):
    title = "Review picks: "

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.picks = cls.simulate(n=2, particles=6).coordinates

    def review(self, **settings):
        """Return a protocol that is not launched yet."""
        return self.newProtocol(ProtDeepETPickerReview, inputCoordinates=self.picks, **settings)

    def answer(self, protocol, *keys):
        """Press keys one after the other, each when the answer to the one before is on disk."""
        for name in keys:
            journal = pathlib.Path(protocol.getFolder(), "journal.jsonl")
            before = journal.stat().st_size
            xdotool("key", name)
            self.waitFor(functools.partial(self.grown, journal, before), 20, f"what {name} does")

    @staticmethod
    def grown(path, size):
        """Tell whether a file is larger than it was."""
        return path.stat().st_size > size

    def test_what_is_refused_goes_and_the_rest_stays_version_by_version(self):
        protocol = self.review()
        self.launched(protocol)
        self.answer(protocol, "x", "space", "x")
        self.closed(protocol)
        self.assertEqual(protocol.getStatus(), "interactive", protocol.getErrorMessage())
        kept, refused = protocol.coordinates, protocol.negatives
        self.assertEqual((kept.getSize(), refused.getSize()), (self.picks.getSize() - 2, 2))
        self.assertEqual(knownClasses(kept), classesOf(self.picks))
        self.assertEqual(kept.getPrecedents().getObjId(), self.picks.getPrecedents().getObjId())
        given = np.concatenate([rows[:, :3] for rows in positions(self.picks).values()])
        both = [rows[:, :3] for found in (kept, refused) for rows in positions(found).values()]
        np.testing.assert_allclose(np.sort(np.concatenate(both), axis=0), np.sort(given, axis=0), atol=0.01)
        with Session(protocol.getFolder()) as session:
            self.assertEqual(sum(len(session.unreviewed(one.name)) for one in session.tomograms),
                             self.picks.getSize() - 3)

        self.launched(protocol)  # opened again: what was looked at is not asked again, and the first outputs stay
        self.answer(protocol, "x", "Return")
        self.closed(protocol)
        self.assertEqual(protocol.coordinates.getSize(), self.picks.getSize() - 2)
        self.assertEqual((protocol.coordinates_2.getSize(), protocol.negatives_2.getSize()),
                         (self.picks.getSize() - 3, 3))
        self.assertIn(f"{self.picks.getSize()} picks came in, {self.picks.getSize() - 3} are in the newest",
                      protocol._summary()[0])
        self.assertIn(f"{self.picks.getSize() - 3} particles were kept", protocol._methods()[0])

    def test_the_viewer_leads_from_any_set_to_the_review(self):
        from deepetpicker_plugin.viewers.registered import DeepETPickerPicksViewer

        viewer = DeepETPickerPicksViewer(project=self.proj, protocol=None)
        (label, command), _ = viewer._windows(self.picks)[0].extras
        self.assertEqual(label, "Review these")
        made = command()
        self.opened()
        self.answer(made, "Return")  # the page is right
        self.closed(made)
        self.assertEqual(made.coordinates.getSize(), self.picks.getSize())
        for ts, rows in positions(self.picks).items():
            np.testing.assert_allclose(positions(made.coordinates)[ts][:, :4], rows[:, :4], atol=0.01)
        self.assertFalse(hasattr(made, "negatives"))
        window = viewer._windows(made)[0]
        self.assertEqual(sum(layer.count() for layer in window.scene.layers), self.picks.getSize())

    # ---- without the window
    def test_the_form_says_what_is_wrong(self):
        protocol = self.review(threshold="9: 0.4")
        self.assertIn("Doubtful score", protocol._validate()[0])
        protocol.threshold.set("0.4")
        self.assertEqual(protocol._validate(), [])
        self.assertEqual(set(protocol._thresholds().values()), {0.4})
        self.assertIn("Nothing was reviewed yet", protocol._summary()[0])
        self.assertEqual(self.newProtocol(ProtDeepETPickerReview)._tomograms(), None)
        protocol.offerCandidates.set(True)
        self.assertIn("only picks of the protocol *pick*", protocol._validate()[0])

    def test_the_engine_beside_the_window_runs_in_its_own_environment(self):
        from deepetpicker_plugin import Plugin

        words = backgroundCommand(Plugin)(["propose", "--out", "a folder"])
        self.assertEqual(words[:2], ["bash", "-c"])
        self.assertIn("-m deepetpicker propose --out 'a folder'", words[2])
        with mock.patch.dict(Plugin.getVars(), DEEPETPICKER_ENV_ACTIVATION=". /opt/env/bin/activate"):
            self.assertIn(". /opt/env/bin/activate && exec python -m deepetpicker", backgroundCommand(Plugin)(["x"])[2])
