"""The interactive protocol: its real window, clicked with a real mouse, its outputs, opened again, killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
import time

import numpy as np
from pyworkflow.object import Pointer
from tomo.constants import BOTTOM_LEFT_CORNER

from deepetpicker.annotation.records import Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.regions import Region
from deepetpicker_plugin.protocols import ProtDeepETPickerAnnotate, ProtDeepETPickerPropose, ProtDeepETPickerTrain
from deepetpicker_plugin.protocols.protocol_annotate import newestCoordinates
from deepetpicker_plugin.sets.classes import classesOf, knownClasses
from deepetpicker_plugin.tests.base import RATE, alive, noiseTomograms, positions
from deepetpicker_plugin.tests.screen import gui, pump
from deepetpicker_plugin.tests.window import WindowTest, windowNamed, xdotool

SHAPES = {"TS_01": (32, 64, 80), "TS_02": (24, 48, 40)}
TITLE = "Annotate particles: "
WANTED = [(16.0, 40.0, 30.0), (16.0, 20.5, 61.25)]  # z, y, x; the window opens in the middle plane


@gui
class TestAnnotate(WindowTest):
    title = TITLE

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = noiseTomograms(tempfile.mkdtemp(prefix="deepetpicker_annotate_"), SHAPES)
        cls.tomograms = cls.importTomograms(cls.folder)
        cls.pixels = cls.pixelsOf(WANTED)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)
        super().tearDownClass()

    @classmethod
    def pixelsOf(cls, places):
        """Return where the voxels of the middle plane of TS_01 are in a window of this kind, and pixels per voxel."""
        from deepetpicker.windows.inputs import find_tomograms, prepare_session
        from deepetpicker.windows.linked import annotate_window
        from deepetpicker.windows.scene import Scene
        from deepetpicker.windows.window import open_screen

        scene = Scene(find_tomograms([os.path.join(cls.folder, "TS_01.mrc")]), [])
        root, folder = open_screen(), tempfile.mkdtemp(prefix="deepetpicker_session_")
        with Session(folder) as session:
            prepare_session(session, scene, {}, [ParticleClass(1, "particle", 200.0)])
            window = annotate_window(session, scene, parent=root).open()
            pump(window.top, 0.5)
            widget, axes = window.panel.canvas.get_tk_widget(), window.panel.axes[0]
            left, top = widget.winfo_rootx() - window.top.winfo_rootx(), widget.winfo_rooty() - window.top.winfo_rooty()
            cls.scale = window.panel.viewport.scale_px
            found = []
            for _, y, x in places:
                a, b = axes.transData.transform((x, y))
                found.append((left + round(a), top + round(window.panel.figure.bbox.height - b)))
            root.destroy()
        shutil.rmtree(folder)
        return found

    def click(self, window, place, *more):
        """Click at a place of the window."""
        xdotool("mousemove", "--window", window, *place, "click", "1", *more)
        time.sleep(0.5)

    def annotation(self, **settings):
        """Return a protocol that is not launched yet."""
        return self.newProtocol(ProtDeepETPickerAnnotate, inputTomograms=self.tomograms, classNames="ring, rod",
                                diameterAngstrom="150, 250", **settings)

    # ---- with the window
    def test_what_is_clicked_becomes_an_output_and_then_another(self):
        protocol = self.annotation()
        window = self.launched(protocol)
        self.click(window, self.pixels[0])
        xdotool("key", "2")
        self.click(window, self.pixels[1])
        self.closed(protocol)
        self.assertEqual(protocol.getStatus(), "interactive", protocol.getErrorMessage())
        first = protocol.coordinates
        found = positions(first)
        self.assertEqual(list(found), ["TS_01"])
        # to a pixel of where the mouse was, and to 0.01 voxel what the window kept
        wanted = np.array(sorted(WANTED, key=lambda place: place[2]))[:, ::-1]
        self.assertLess(np.abs(found["TS_01"][:, :3] - wanted).max(), 0.6 / self.scale)
        with Session(protocol.getFolder()) as session:
            kept = sorted(p.position_zyx_vox[::-1] for p in session.particles("TS_01").values())
        np.testing.assert_allclose(found["TS_01"][:, :3], kept, atol=0.01)
        self.assertEqual(found["TS_01"][:, 3].tolist(), [1, 2])  # x 30 is the first
        self.assertEqual([(c.id, c.name, c.diameter_ang) for c in knownClasses(first)],
                         [(1, "ring", 150.0), (2, "rod", 250.0)])
        self.assertEqual((first.getSamplingRate(), first.getBoxSize()), (RATE, 25))
        self.assertTrue(first.getPrecedents().getSize() == 2)

        window = self.launched(protocol)  # opened again: it goes on, and the first output stays
        xdotool("key", "n", "key", "Delete")
        time.sleep(0.5)
        self.closed(protocol)
        self.assertEqual(positions(protocol.coordinates)["TS_01"].tolist(), found["TS_01"].tolist())
        self.assertEqual(len(positions(protocol.coordinates_2)["TS_01"]), 1)
        self.assertEqual(newestCoordinates(protocol).getSize(), 1)
        self.assertIn("*1 particle* in 1 tomogram, 0 places without one", "\n".join(protocol._summary()))

        self.launched(protocol)  # nothing is changed: no output more
        self.closed(protocol)
        self.assertFalse(hasattr(protocol, "coordinates_3"))

    def test_a_killed_window_loses_nothing_and_execute_goes_on(self):
        protocol = self.annotation()
        window = self.launched(protocol)
        self.click(window, self.pixels[0])
        pid = self.refresh(protocol).getPid()
        os.kill(pid, signal.SIGKILL)
        self.waitFor(lambda: not alive(pid), 10, "the end of the killed process")
        with contextlib.suppress(Exception):  # it says that the process is gone; the protocol is stopped all the same
            self.proj.stopProtocol(protocol)  # Scipion does not look whether interactive protocols live
        self.assertFalse(hasattr(protocol, "coordinates"))
        self.launched(protocol)
        self.closed(protocol)
        self.assertEqual(protocol.coordinates.getSize(), 1)

    def test_the_viewer_leads_from_any_set_to_the_annotation(self):
        from deepetpicker_plugin.viewers.registered import DeepETPickerPicksViewer

        given = self.coordinates()
        viewer = DeepETPickerPicksViewer(project=self.proj, protocol=None)
        window = viewer._windows(given)[0]
        self.assertEqual([text for text, _ in window.extras], ["Review these", "Annotate from these"])
        made = viewer.annotate(given)
        windowNamed(TITLE)
        time.sleep(1.0)
        first = sorted(positions(given))[0]
        number = len(positions(given)[first])
        for _ in range(number + 1):  # those of the first tomogram are right
            xdotool("key", "space")
            time.sleep(0.2)
        self.closed(made)
        self.assertEqual(made.coordinates.getSize(), given.getSize())
        for ts, rows in positions(given).items():
            np.testing.assert_allclose(positions(made.coordinates)[ts][:, :4], rows[:, :4], atol=0.01)
        with Session(made.getFolder()) as session:
            self.assertEqual([len(session.unreviewed(ts)) for ts in sorted(positions(given))],
                             [0, given.getSize() - number])

    def test_candidates_lead_to_the_annotation_and_what_was_accepted_comes_out(self):
        from deepetpicker_plugin.viewers.registered import DeepETPickerPicksViewer

        proposing = self.newProtocol(ProtDeepETPickerPropose, inputTomograms=self.tomograms, diameterAngstrom=120.0,
                                     method=1, most=8)
        chained = self.newProtocol(ProtDeepETPickerAnnotate, inputTomograms=self.tomograms)
        chained.inputCoordinates = Pointer(proposing, extended="coordinates")
        self.assertEqual(chained.validate(), [])  # wired before there is a candidate
        self.launchProtocol(proposing)
        self.assertEqual(proposing.coordinates.getSize(), 16)
        self.assertEqual([c.diameter_ang for c in chained._classes()], [120.0])  # and not that of the box, 130
        self.assertTrue(chained.leavesUnseen())
        chained.unseen.set(1)
        self.assertFalse(chained.leavesUnseen())
        self.assertFalse(self.annotation(inputCoordinates=self.coordinates()).leavesUnseen())

        viewer = DeepETPickerPicksViewer(project=self.proj, protocol=None)
        self.assertEqual([text for text, _ in viewer._windows(proposing)[0].extras],
                         ["Review these", "Annotate from these"])
        made = viewer._windows(proposing)[0].extras[1][1]()
        self.opened()
        for _ in range(3):  # goes to the first, accepts it, accepts the second
            xdotool("key", "space")
            time.sleep(0.3)
        self.closed(made)
        with Session(made.getFolder()) as session:
            accepted = [p.position_zyx_vox[::-1] for one in session.tomograms
                        for p in session.particles(one.name).values() if p.reviewed]
            self.assertEqual(sum(len(session.unreviewed(one.name)) for one in session.tomograms), 14)
        self.assertEqual((len(accepted), made.coordinates.getSize()), (2, 2))
        found = np.concatenate([rows[:, :3] for rows in positions(made.coordinates).values()])
        np.testing.assert_allclose(found, sorted(accepted), atol=0.01)

    def test_without_a_display_it_fails_with_one_line(self):
        display = os.environ.pop("DISPLAY")
        try:
            protocol = self.annotation()
            self.proj.launchProtocol(protocol, wait=True)
        finally:
            os.environ["DISPLAY"] = display
        self.assertTrue(protocol.isFailed())
        self.assertIn("there is no display", protocol.getErrorMessage())

    # ---- without it
    def coordinates(self):
        """Return the particles of two simulated tomograms, of two classes."""
        if not hasattr(TestAnnotate, "simulation"):
            TestAnnotate.simulation = self.simulate(n=2, particles=6)
        return self.simulation.coordinates

    def saved(self, **settings):
        """Return a protocol whose folder is there, as the first step finds it."""
        protocol = self.annotation(**settings)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        return protocol

    def test_negatives_and_regions_become_outputs_too(self):
        protocol = self.saved()
        with Session(protocol.getFolder()) as session:
            protocol._prepare(session)
            session.add("TS_02", Negative((3.5, 4.25, 5.0)))
            session.add("TS_02", Region((0, 1, 2), (10, 20, 30)))
            version = save_version(session)
        (pathlib.Path(version) / ".TS_01.123-0a1b2c3d.csv").write_text("x,y")  # as a killed writer leaves
        protocol.createOutputs()  # as after a death between the tables and the outputs
        self.assertFalse(hasattr(protocol, "coordinates"))
        (item,) = [c.clone() for c in protocol.negatives.iterCoordinates()]
        np.testing.assert_allclose(item.getPosition(BOTTOM_LEFT_CORNER), (5.0, 4.25, 3.5), atol=1e-6)
        self.assertEqual(protocol.regions.getRegions(), {"TS_02": [Region((0, 1, 2), (10, 20, 30))]})
        self.assertIn("*0 particles* in 0 tomograms, 1 place without one, 1 complete box", protocol._summary()[0])
        self.assertIn("1 complete box in 1 tomogram)", str(protocol.regions))

    def test_a_new_form_takes_the_newest_particles_and_never_as_places_without_one(self):
        from pyworkflow.gui import Window
        from pyworkflow.gui.form import FormWindow

        made = self.saved()
        with Session(made.getFolder()) as session:
            made._prepare(session)
            session.add("TS_01", Negative((3.0, 4.0, 5.0)))
        for number in (1, 2):
            with Session(made.getFolder()) as session:
                session.add("TS_01", Particle((9.0, 9.0, 9.0 + number), 1))
                save_version(session)
            made.createOutputs()
        self.proj._storeProtocol(made)
        self.assertEqual([name for name, _ in made.iterOutputAttributes()],
                         ["coordinates_2", "negatives_2", "coordinates", "negatives"])
        train = self.newProtocol(ProtDeepETPickerTrain)
        master = Window("tests")
        self.addCleanup(master.root.destroy)
        FormWindow("form", train, lambda *args, **kwargs: "", master, previousProt=made)
        self.assertEqual(train.inputCoordinates.getExtended(), "coordinates_2")
        self.assertIsNone(train.inputNegatives.get())
        self.assertIn("Places without a particle: 1 of", " ".join(train._summary()))
        self.assertIn("(negatives_2)", " ".join(train._summary()))

        train.inputNegatives.set(made.coordinates_2)
        self.assertIn("*Places without a particle* holds the particles themselves", train._validate()[-1])
        train.inputNegatives.set(made.negatives_2)
        self.assertEqual(train._validate(), [])
        train.inputCoordinates.setExtended("coordinates")
        self.assertIn("its newest is *coordinates_2*", " ".join(train._warnings()))

    def test_start_and_classes_come_from_the_coordinates(self):
        given = self.coordinates()
        protocol = self.saved(inputCoordinates=given)
        protocol.inputTomograms.set(self.simulation.tomograms)
        protocol.classNames.set("")
        protocol.diameterAngstrom.set("")
        with Session(protocol.getFolder()) as session:
            protocol._prepare(session)
            self.assertEqual([look.kind for look in session.classes], list(classesOf(given)))
            self.assertGreater(min(look.kind.diameter_ang for look in session.classes), 0)
            self.assertEqual(sum(len(session.unreviewed(one.name)) for one in session.tomograms), given.getSize())
            save_version(session)
        self.assertIn(f"{given.getSize()} of them nobody has looked at", protocol._summary())
        protocol.unseen.set(2)
        self.assertIn(f"{given.getSize()} more that nobody has looked at are left out", protocol._summary())

    def test_restart_keeps_what_was_annotated(self):
        from pyworkflow.protocol import MODE_RESTART

        protocol = self.saved()
        with Session(protocol.getFolder()) as session:
            protocol._prepare(session)
            session.add("TS_01", Particle((1.0, 2.0, 3.0), 1))
        protocol.runMode.set(MODE_RESTART)
        protocol.makePathsAndClean()
        (kept,) = pathlib.Path(protocol._getExtraPath()).glob("annotation_before_*")
        with Session(kept) as session:
            self.assertEqual(len(session.particles("TS_01")), 1)
        self.assertFalse(os.path.exists(protocol.getFolder()))

    def test_the_form_says_what_is_wrong(self):
        protocol = self.annotation()
        self.assertEqual(protocol._validate(), [])
        protocol.classNames.set("ring, ring")
        self.assertIn("different names", protocol._validate()[0])
        protocol.classNames.set("ring")
        protocol.diameterAngstrom.set("1, 2")
        self.assertEqual(len(protocol._validate()), 1)
        self.assertIn("Execute", protocol._summary()[0])

    def test_a_damaged_tomogram_is_left_out(self):
        folder = noiseTomograms(tempfile.mkdtemp(prefix="deepetpicker_damaged_"), SHAPES)
        self.addCleanup(shutil.rmtree, folder)
        tomograms = self.importTomograms(folder)
        protocol = self.saved()
        protocol.inputTomograms.set(tomograms)
        path = pathlib.Path(folder, "TS_02.mrc")
        path.write_bytes(path.read_bytes()[:2000])
        with Session(protocol.getFolder()) as session:
            self.assertEqual(protocol._prepare(session).names, ["TS_01"])
