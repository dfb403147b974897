"""Viewers and wizards without and with windows, and the project window, on a small real project."""

from __future__ import annotations

import pathlib
import unittest

import numpy as np
from pwem import Domain
from pyworkflow.object import Pointer
from pyworkflow.protocol import MODE_RESTART
from pyworkflow.viewer import DESKTOP_TKINTER
from tomo.objects import SetOfCoordinates3D

from deepetpicker.errors import InputError
from deepetpicker_plugin import protocols
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerPick,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.tests.base import RATE, TINY
from deepetpicker_plugin.tests.screen import gui, mouse, picture, press, pump, pumpUntil, texts
from deepetpicker_plugin.tests.window import FormTest
from deepetpicker_plugin.wizards.diameter import Diameters
from deepetpicker_plugin.wizards.names import ClassNames
from deepetpicker_plugin.wizards.threshold import thresholdText


class TestModels(unittest.TestCase):
    """What the windows compute."""

    def test_diameters(self):
        model = Diameters([0, 1], [100.0, 200.0], 10.0, 1)
        self.assertEqual(model.draw((10, 10), (13, 14)), 100.0)
        self.assertEqual(model.text(), "100")
        self.assertEqual(model.draw((10, 10), (10, 10)), 20.0)  # at least a radius of one voxel
        self.assertEqual(model.text(), "0: 100, 1: 20")

    def test_class_names(self):
        model = ClassNames((0, 2), ("0", "2"), (5, 6), ("", ""))
        self.assertEqual(model.text(["a ", "b"]), "0: a, 2: b")
        self.assertEqual(model.text(["", " "]), "")
        for names, words in ((("a", ""), "class 2 has no name"), (("a,b", "c"), "comma"), (("a", "a"), "twice")):
            with self.assertRaisesRegex(InputError, words):
                model.text(names)

    def test_threshold_text(self):
        self.assertEqual(thresholdText([0.5, 0.5], True), "0.5")
        self.assertEqual(thresholdText([0.25, 0.5], True), "0.25, 0.5")
        self.assertEqual(thresholdText([0.25, 0.5], False), "0.25")


@gui
class TestGuiWindows(FormTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=2)
        cls.truth = cls.simulation.coordinates
        cls.train = cls.run_(ProtDeepETPickerTrain, inputCoordinates=cls.truth, diameterAngstrom="168, 253",
                             classNames="ring, rod", **TINY)
        cls.pick = cls.run_(ProtDeepETPickerPick, inputTomograms=cls.simulation.tomograms, inputModel=cls.train.model,
                            threshold=0.1, binThreads=1)
        cls.choice = cls.run_(ProtDeepETPickerThreshold, inputCoordinates=cls.pick.coordinates, threshold="0.1",
                              maxPicks="1", useCandidates=False)
        cls.compare = cls.run_(ProtDeepETPickerCompare, inputFirst=cls.pick.coordinates,
                               inputSecond=cls.choice.coordinates)
        cls.evaluate = cls.run_(ProtDeepETPickerEvaluate, inputCoordinates=cls.pick.coordinates,
                                inputReference=cls.truth)

    # ---- helpers
    def view(self, obj, number=0):
        """Open what Analyze results or the menu of an object opens; return the one window."""
        found = Domain.findViewers(obj, DESKTOP_TKINTER)
        ours = [v for v in found if v.__module__.startswith("deepetpicker_plugin")]
        self.assertGreater(len(ours), number, f"no viewer for {obj}: {found}")
        windows = ours[number](project=self.proj, protocol=None, parent=self.master)._visualize(obj)
        self.assertEqual(len(windows), 1)
        windows[0].show()
        self.addCleanup(windows[0].close)
        pump(windows[0].top, 0.4)
        windows[0].top.event_generate("<Escape>")
        pump(windows[0].top, 0.1)
        self.assertTrue(windows[0].top.winfo_exists())  # Escape closes nothing
        return windows[0]

    # ---- viewers
    def test_training_curves(self):
        window = self.view(self.train)
        self.assertEqual(len(window.shown), 2)
        self.assertIn("2 epochs", window.text.get())
        model = self.view(self.train.model)
        self.assertIn("epochs", model.text.get())

    def test_training_curves_follow_a_run(self):
        from deepetpicker.windows import charts

        rows, running = [], [True]
        charts.REFRESH_MS = 50
        self.addCleanup(setattr, charts, "REFRESH_MS", 3000)
        window = charts.TrainingWindow("live", lambda: list(rows), lambda: running[0], self.master.root).open()
        self.addCleanup(window.close)
        pump(window.top)
        self.assertIn("No epoch", window.text.get())
        rows.append({"epoch": "0", "train_loss": "0.5", "pick_f1": "0.25"})
        pumpUntil(window.top, lambda: "0.250" in window.text.get())
        self.assertIn("Running", window.text.get())
        running[0] = False
        pumpUntil(window.top, lambda: "Running" not in window.text.get())

    def test_picks_on_slices(self):
        window = self.view(self.pick)
        names = [layer.name for layer in window.scene.layers]
        self.assertLessEqual(set(names), {"ring", "rod"})
        total = sum(layer.count() for layer in window.scene.layers)
        self.assertEqual(total, self.pick.coordinates.getSize())
        self.assertGreater(window.panel.circles[0], 0)
        picture(window.top, "viewer_picks")
        window.score.set(window.span[1])
        pumpUntil(window.top, lambda: window.panel.circles[0] == 0)
        window.score.set(0.0)
        pumpUntil(window.top, lambda: window.panel.circles[0] > 0)
        window.sliders[0].set(3)
        pumpUntil(window.top, lambda: window.panel.position[0] == 3)
        mouse(window.panel.canvas, window.panel.axes[0], "button_press_event", (40, 25))
        pumpUntil(window.top, lambda: window.panel.position == [3, 25, 40])
        self.assertIn("x 40, y 25, z 3", window.status.get())
        self.assertIn("400, 250, 30 Å", window.status.get())
        window.layer_buttons[0].invoke()
        self.assertFalse(window.panel.visible[0])
        window.clipped.set(5)
        pumpUntil(window.top, lambda: window.panel.look.clipped_percent == 5)
        window.tomograms.selection_clear(0, "end")
        window.tomograms.selection_set(1)
        window.tomograms.event_generate("<<ListboxSelect>>")
        pumpUntil(window.top, lambda: window.panel.tomogram == window.scene.names[1])
        pumpUntil(window.top, lambda: any(window.scene.names[1] in text.get_text()
                                          for text in window.panel.axes[0].texts))

    def test_picks_of_other_protocols(self):
        chosen = self.view(self.choice)
        self.assertLessEqual({layer.name for layer in chosen.scene.layers}, {"ring", "rod"})
        compared = self.view(self.compare)
        self.assertEqual(compared.scene.layers[0].name.split(":")[0], "in both")
        self.assertEqual(sum(layer.count() for layer in compared.scene.layers if layer.name.startswith("in both")),
                         self.choice.coordinates.getSize())
        picture(compared.top, "viewer_compare")
        truth = self.view(self.simulation)
        self.assertFalse(truth.has_scores)
        self.assertEqual(sum(layer.count() for layer in truth.scene.layers), self.truth.getSize())

    def test_score_histogram_is_an_extra_choice_for_every_set(self):
        window = self.view(self.pick.coordinates, 1)
        self.assertIn(f"{self.pick.coordinates.getSize()} picks", window.text.get())
        picture(window.top, "viewer_scores")
        names = [n for n in Domain.getViewers() if "DeepETPicker" in n]
        ours = [n for n in names if SetOfCoordinates3D in Domain.getViewers()[n]._targets]
        self.assertTrue(ours)
        self.assertTrue(all(n.startswith("Z") for n in ours), ours)

    def test_evaluation(self):
        import webbrowser

        window = self.view(self.evaluate)
        shown = texts(window.top)
        self.assertIn(f"{self.evaluate.evaluation.getF1():.3f}", shown)
        rows = {row["name"]: row for row in self.evaluate.evaluation.getPerClass()}
        self.assertEqual(set(rows), {"ring", "rod"})
        for name, row in rows.items():  # each class has its figures
            self.assertIn(f"{row['recall']:.3f}", shown[shown.index(name):])
        picture(window.top, "viewer_evaluation")
        opened, original = [], webbrowser.open
        webbrowser.open = opened.append
        self.addCleanup(setattr, webbrowser, "open", original)
        window.open_report()
        self.assertTrue(opened[0].startswith("file:///"))
        self.assertTrue(opened[0].endswith("report.html"))
        self._run_again(window)

    def _run_again(self, window):
        """Restart the evaluation while its window, and one of its output, are open: both offer the new figures."""
        from deepetpicker.windows import window as windows

        self.addCleanup(setattr, windows, "WATCH_MS", windows.WATCH_MS)
        windows.WATCH_MS = 50
        both = [self.view(self.evaluate), self.view(self.evaluate.evaluation)]
        before = both[0].figures
        again = self.proj.getProtocol(self.evaluate.getObjId())
        again.threshold.set(0.99)
        again.runMode.set(MODE_RESTART)
        self.proj.launchProtocol(again, wait=False)
        pumpUntil(window.top, lambda: all(one.news is not None for one in both))
        press(both[0].top, "Show what is there now")
        self.assertRegex(both[0].news.get(), "no results yet|has changed")
        self.waitEnd(again)
        for one in both:
            self.assertEqual(one.figures, before)  # until they are asked for
            press(one.top, "Show what is there now")
            new = one.successor
            self.addCleanup(new.close)
            pump(new.top, 0.3)
            self.assertIn(("Lowest score that counts", "0.99"), new.figures)
            self.assertIsNone(new.news)

    def test_the_pages_of_a_training_and_of_picks_open_in_the_browser(self):
        """Analyze results leads to them; they are made when asked for, while the window goes on working."""
        import webbrowser

        opened, original = [], webbrowser.open
        webbrowser.open = opened.append
        self.addCleanup(setattr, webbrowser, "open", original)
        for shown, word in ((self.train, "Training: "), (self.pick, f"{self.pick.coordinates.getSize()} picks in"),
                            (self.pick.coordinates, "Best picks")):
            window = self.view(shown)
            press(window.top, "Report in the browser")
            pumpUntil(window.top, lambda: opened, 60.0)
            page = pathlib.Path(opened.pop()[len("file://"):]).read_text("utf-8")
            self.assertIn(word, page)
            for name in ("ring", "rod"):
                self.assertIn(name, page)
            if shown is not self.train:
                self.assertIn(f"the model of {self.train.getObjLabel()} (", page)  # as the project window calls it
        self.assertIsNone(self.view(self.choice).page)  # a threshold has no page of its own

    # ---- forms and wizards
    def test_every_form_opens(self):
        for name in protocols.__all__:
            form = self.form(self.proj.newProtocol(getattr(protocols, name)))
            self.assertIn("runName", dir(form.protocol))
            self.assertGreater(len(form.widgetDict), 3, name)
            form.root.destroy()

    def test_an_invalid_form_shows_all_its_messages(self):
        from pyworkflow.gui import dialog

        form = self.form(self.proj.newProtocol(ProtDeepETPickerTrain, patch=30, epochs=-1, seed=-1))
        form.setVar("inputCoordinates", Pointer(self.simulation, extended="coordinates"))
        pump(form.root)
        seen = []

        def answer():
            for window in form.root.winfo_children():
                if isinstance(window, dialog.Dialog):
                    seen.append("\n".join(texts(window)))
                    picture(window, "form_messages")
                    window.cancel()

        form.root.after(400, answer)
        form.btnExecute.invoke()
        self.assertEqual((len(seen), self.executed), (1, []))
        for words in ("multiple of 8", "Epochs", "Seed"):
            self.assertIn(words, seen[0])

    def test_diameter_wizard(self):
        form = self.form(self.proj.newProtocol(ProtDeepETPickerTrain, diameterAngstrom="168, 253"))
        form.setVar("inputCoordinates", Pointer(self.simulation, extended="coordinates"))
        window = self.wand(form, "diameterAngstrom")
        canvas, axes = window.panel.canvas, window.panel.axes[0]
        z, y, x = window.scene.layers[0].above(window.panel.tomogram, -np.inf)[0]
        window.panel.move_to(z=z)
        pump(window.top, 0.3)
        mouse(canvas, axes, "button_press_event", (x, y))
        mouse(canvas, axes, "motion_notify_event", (x + 9 if x < 50 else x - 9, y))
        pump(window.top, 0.3)
        self.assertIn("180 Å (18.0 voxels)", window.text.get())
        picture(window.top, "wizard_diameter")
        mouse(canvas, axes, "button_release_event", (x, y))
        window.ok.invoke()
        self.assertEqual(form.protocol.diameterAngstrom.get(), "1: 180, 2: 253")
        self.assertEqual(RATE, 10.0)

    def test_names_wizard(self):
        form = self.form(self.proj.newProtocol(ProtDeepETPickerTrain))
        form.setVar("inputCoordinates", Pointer(self.simulation, extended="coordinates"))
        window = self.wand(form, "classNames")
        self.assertEqual(window.classes.ids, (1, 2))
        self.assertEqual(sum(window.classes.counts), self.truth.getSize())
        self.assertEqual([field.get() for field in window.fields], ["ring", "rod"])  # the coordinates know them
        window.fields[1].set("")
        window.ok.invoke()
        self.assertIn("class 2 has no name", window.message.get())
        window.fields[1].set("rod")
        picture(window.top, "wizard_names")
        window.ok.invoke()
        self.assertEqual(form.protocol.classNames.get(), "1: ring, 2: rod")
        self.assertFalse(window.top.winfo_exists())

    def test_threshold_wizards(self):
        form = self.form(self.proj.newProtocol(ProtDeepETPickerThreshold))
        form.setVar("inputCoordinates", Pointer(self.pick, extended="coordinates"))
        window = self.wand(form, "threshold")
        self.assertEqual(window.lows, [0.5] * len(window.scene.layers))
        mouse(window.histogram_canvas, window.histogram.axes[0], "button_press_event", (0.25, 1))
        pumpUntil(window.top, lambda: abs(window.lows[0] - 0.25) < 0.01)
        picture(window.top, "wizard_threshold")
        window.ok.invoke()
        self.assertAlmostEqual(float(form.protocol.threshold.get()), 0.25, places=2)

        form = self.form(self.proj.newProtocol(ProtDeepETPickerPick))
        form.setVar("inputTomograms", Pointer(self.simulation, extended="tomograms"))
        form.setVar("inputModel", Pointer(self.train, extended="model"))
        window = self.wand(form, "threshold")
        window.score.set(0.3)
        pumpUntil(window.top, lambda: abs(window.lows[0] - 0.3) < 0.001)
        window.ok.invoke()
        self.assertAlmostEqual(float(form.protocol.threshold.get()), 0.3)

    def test_wizards_say_what_is_missing(self):
        for kind, parameter in ((ProtDeepETPickerTrain, "diameterAngstrom"), (ProtDeepETPickerTrain, "classNames"),
                                (ProtDeepETPickerPick, "threshold"), (ProtDeepETPickerThreshold, "threshold")):
            form = self.form(self.proj.newProtocol(kind))
            said = []
            form.showError = said.append
            self.assertIsNone(self.wand(form, parameter))
            self.assertRegex(said[0], "first|no scores yet")

    def test_train_form_as_a_picture(self):
        form = self.form(self.proj.newProtocol(ProtDeepETPickerTrain))
        form.setVar("inputCoordinates", Pointer(self.simulation, extended="coordinates"))
        pump(form.root)
        self.assertEqual(str(form.btnExecute.cget("state")), "normal")
        picture(form.root, "form_train")

    # ---- the project
    def test_project_window(self):
        from pyworkflow.gui.project import ProjectWindow

        settings = self.proj.getSettings()
        settings.setProtocolView("Tomography")
        self.proj.saveSettings()
        window = ProjectWindow(self.proj.getPath(), self.master)
        self.addCleanup(window.root.destroy)
        window.root.deiconify()
        window.root.geometry("1380x900+0+0")
        pump(window.root, 1.0)
        tree = window.getViewWidget().protTree

        def below(item):
            return {value for child in tree.get_children(item) for value in (child, *below(child))}

        shown = {tree.item(item, "text").strip() for item in below("")}
        labels = {f"deepetpicker - {getattr(protocols, name)._label}" for name in protocols.__all__}
        self.assertLessEqual({"DeepETPicker", *labels}, shown)
        mine = next(item for item in below("") if tree.item(item, "text").strip() == "DeepETPicker")
        tree.item(mine, open=True)
        tree.see(tree.get_children(mine)[-1])
        view = window.getViewWidget()
        view._selectItemProtocol(self.pick)
        view._updateSelection()
        pane = next(w for w in view.winfo_children() if w.winfo_class() == "Panedwindow")
        pump(window.root)
        pane.sash_place(0, 430, 0)
        pump(window.root, 0.3)
        self.assertIn("picks", view.summaryText.get("1.0", "end"))
        picture(window.root, "project")
