"""Picking as users need it to be: regions of interest, tomograms that cannot be picked, and Restart."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import sqlite3
import tempfile

import mrcfile
import numpy as np
from pyworkflow.protocol import MODE_RESTART
from tomo.protocols import ProtImportTomomasks

from deepetpicker.io.coordinates import read_coordinates
from deepetpicker_plugin.engine.process import EngineError, isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerThreshold
from deepetpicker_plugin.sets import picked
from deepetpicker_plugin.tests.base import PluginTest, alive, dataFolder, noiseTomograms, positions, slow, tinyModel
from deepetpicker_plugin.tests.pretend import engine

SHAPES = {f"{i:02d}": (20 + 4 * (i % 2), 48, 40) for i in range(1, 5)}  # Scipion calls them TS_01, ...
TSIDS = [f"TS_{name}" for name in SHAPES]
LOW = 0.3


class TestPick(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = noiseTomograms(os.path.join(dataFolder(), "pick"), SHAPES)
        cls.tomograms = cls.importTomograms(cls.folder)
        cls.model = cls.importModel(tinyModel())
        cls.reference = cls.pick()
        cls.wanted = positions(cls.reference.coordinates)
        x = np.concatenate([rows[:, 0] for rows in cls.wanted.values()])
        cls.edge = int(np.ceil((x.min() + x.max()) / 2))  # some picks are on either side

    @classmethod
    def pick(cls, wait=True, launch=True, **settings):
        chosen = {"inputTomograms": cls.tomograms, "inputModel": cls.model, "threshold": LOW, "binThreads": 1,
                  **settings}
        return cls.run_(ProtDeepETPickerPick, wait, **chosen) if launch else cls.newProtocol(ProtDeepETPickerPick,
                                                                                             **chosen)

    @classmethod
    def masks(cls, names, low, high, folder=""):
        """Import masks that are 1 where low <= x < high; those that lie in the folder already stay."""
        folder = folder or tempfile.mkdtemp(dir=dataFolder())
        for name in names:
            mask = np.zeros(SHAPES[name], np.int8)
            mask[:, :, low:high] = 1
            with mrcfile.new(os.path.join(folder, f"{name}.mrc")) as mrc:
                mrc.set_data(mask)
                mrc.voxel_size = cls.tomograms.getSamplingRate()
        return cls.run_(ProtImportTomomasks, filesPath=folder, filesPattern="*.mrc",
                        inputTomos=cls.tomograms).tomomasks

    def inProcess(self, **settings):
        """Return a protocol whose steps can be called here, without a launch."""
        protocol = self.pick(launch=False, useGpu=False, **settings)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        protocol.setHostConfig(self.proj.getHostConfig("localhost"))
        protocol.setStepsExecutor()
        return protocol

    @property
    def known(self):
        """Manifest of the undisturbed run."""
        return self.reference._getExtraPath("picks", "batch_001", "manifest.json")

    def assertPicks(self, coordinates, tsIds):
        """Check that a set holds what an undisturbed run gives for some tomograms, and nothing else."""
        found = positions(coordinates)
        self.assertEqual(sorted(found), sorted(tsIds))
        for tsId, rows in found.items():
            np.testing.assert_array_equal(rows, self.wanted[tsId])
        self.assertEqual(coordinates.getSize(), sum(map(len, found.values())))

    def assertInside(self, coordinates, tsIds):
        """Check that a set holds those picks of some tomograms that lie before the edge."""
        inside = {ts: self.wanted[ts][np.round(self.wanted[ts][:, 0]) < self.edge] for ts in tsIds}
        found = positions(coordinates)
        self.assertTrue(0 < sum(map(len, found.values())) < sum(len(self.wanted[ts]) for ts in tsIds))
        self.assertEqual({ts: len(rows) for ts, rows in inside.items() if len(rows)},
                         {ts: len(rows) for ts, rows in found.items()})
        for tsId, rows in found.items():
            np.testing.assert_array_equal(rows, inside[tsId])

    def assertSet(self, tomograms, tsIds):
        """Check that a set of tomograms can be used like its source."""
        self.assertEqual(sorted(tomograms.getTSIds()), sorted(tsIds))
        self.assertEqual(tomograms.getSamplingRate(), self.tomograms.getSamplingRate())
        self.assertEqual(tomograms.getAcquisition().getVoltage(), self.tomograms.getAcquisition().getVoltage())
        source = {t.getTsId(): t.clone() for t in self.tomograms.iterItems()}
        for item in tomograms.iterItems():
            self.assertEqual(item.getFileName(), source[item.getTsId()].getFileName())
            self.assertEqual(item.getShiftsFromOrigin(), source[item.getTsId()].getShiftsFromOrigin())
            self.assertTrue(item._failure.get())
        tomograms.close()

    def ended(self, protocol):
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())

    # ---- regions of interest
    def test_region_of_interest_and_a_mask_that_comes_later(self):
        folder = tempfile.mkdtemp(dir=dataFolder())
        protocol = self.pick(inputMasks=self.masks(["01", "02", "04"], 0, self.edge, folder))
        self.assertInside(protocol.coordinates, ["TS_01", "TS_02", "TS_04"])
        self.assertSet(protocol.failedTomograms, ["TS_03"])
        self.assertIn("expected a mask with the tsId TS_03", self.failures(protocol)["TS_03"])
        self.assertIn("TS_03 failed", " ".join(protocol.summary()))
        self.assertIn("No mask for TS_03", " ".join(protocol._warnings()))
        before = self.times(protocol)
        protocol.inputMasks.set(self.masks(list(SHAPES), 0, self.edge))  # other files
        self.assertIn("*masks* changed", " ".join(protocol.validate()))
        protocol.inputMasks.set(self.masks(["03"], 0, self.edge, folder))
        self.goOn(protocol)
        self.assertInside(protocol.coordinates, TSIDS)
        self.assertNoneFailed(protocol)
        self.assertEqual({ts: t for ts, t in self.times(protocol).items() if ts in before}, before)
        self.assertEqual(self.picked(protocol), [["TS_01", "TS_02", "TS_04"], ["TS_03"]])

    def test_other_masks_after_a_run_without_result(self):
        path = os.path.join(dataFolder(), "broken.safetensors")
        shutil.copyfile(self.model.getFileName(), path)
        model = self.importModel(path)
        content = pathlib.Path(model.getFileName()).read_bytes()
        pathlib.Path(model.getFileName()).write_bytes(content[:-400] + b"\xff" * 400)
        protocol = self.pick(launch=False, inputModel=model, inputMasks=self.masks(list(SHAPES), self.edge, 40))
        self.proj.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFailed())
        pathlib.Path(model.getFileName()).write_bytes(content)
        protocol.inputMasks.set(self.masks(list(SHAPES), 0, self.edge))
        self.goOn(protocol)
        self.assertInside(protocol.coordinates, TSIDS)

    # ---- Continue
    def goOn(self, protocol):
        """Continue a protocol as the form does, which checks it first."""
        self.assertEqual(protocol.validate(), [])
        self.proj.launchProtocol(protocol, wait=True)
        self.ended(protocol)

    def times(self, protocol):
        """Return when the table of each tomogram that was picked was written."""
        return {ts: os.stat(item["picks"]).st_mtime_ns
                for ts, item in picked.items(protocol._getExtraPath("picks")).items() if item["status"] == "done"}

    def picked(self, protocol):
        """Return what each start of the engine picked."""
        starts = [picked.itemsOf(folder) for folder in picked.batches(protocol._getExtraPath("picks"))]
        return [sorted(ts for ts, item in found.items() if item["status"] == "done") for found in starts]

    def failures(self, protocol):
        """Return why each failed tomogram failed, and leave no cursor on the set, which would keep others waiting."""
        found = {t.getTsId(): t._failure.get() for t in protocol.failedTomograms.iterItems()}
        protocol.failedTomograms.close()
        return found

    def assertNoneFailed(self, protocol):
        """Check that no tomogram counts as failed, in memory and in the file."""
        self.assertEqual(protocol.failedTomograms.getSize(), 0)
        self.assertEqual(self.failures(protocol), {})
        self.assertNotIn("failed", " ".join(protocol.summary()))

    def test_continue_tries_failed_tomograms_again_and_only_those(self):
        folder = os.path.join(dataFolder(), "again")
        shutil.copytree(self.folder, folder)
        protocol = self.pick(inputTomograms=self.importTomograms(folder), memoryLimit=0.001)
        self.assertEqual(sorted(self.failures(protocol)), TSIDS)
        self.assertIn("needs", self.failures(protocol)["TS_02"])
        self.assertFalse(hasattr(protocol, "coordinates"))
        os.rename(os.path.join(folder, "02.mrc"), os.path.join(folder, "02.away"))
        protocol.memoryLimit.set(0.0)
        self.goOn(protocol)
        self.assertPicks(protocol.coordinates, ["TS_01", "TS_03", "TS_04"])
        self.assertEqual(list(self.failures(protocol)), ["TS_02"])
        self.assertIn("no such tomogram", self.failures(protocol)["TS_02"])  # the reason is that of the second run
        before = self.times(protocol)
        os.rename(os.path.join(folder, "02.away"), os.path.join(folder, "02.mrc"))
        self.goOn(protocol)
        self.assertPicks(protocol.coordinates, TSIDS)
        self.assertNoneFailed(protocol)
        self.assertEqual({ts: t for ts, t in self.times(protocol).items() if ts in before}, before)
        self.assertEqual(self.picked(protocol), [[], ["TS_01", "TS_03", "TS_04"], ["TS_02"]])
        shutil.copy(os.path.join(folder, "04.mrc"), os.path.join(folder, "02.mrc"))  # another one under its name
        table = pathlib.Path(picked.items(protocol._getExtraPath("picks"))["TS_03"]["picks"])
        table.write_bytes(b"\0" * 100 + table.read_bytes()[100:])
        self.goOn(protocol)
        found = positions(protocol.coordinates)
        np.testing.assert_array_equal(found["TS_02"], self.wanted["TS_04"])
        self.assertEqual({ts: found[ts].tolist() for ts in before}, {ts: self.wanted[ts].tolist() for ts in before})
        self.assertEqual(protocol.coordinates.getSize(), sum(map(len, found.values())))
        after = self.times(protocol)
        self.assertEqual([ts for ts in before if after[ts] != before[ts]], ["TS_03"])
        self.assertEqual(self.picked(protocol), [[], ["TS_01", "TS_04"], [], ["TS_02", "TS_03"]])
        self.assertIn("TS_02: its file was exchanged", " ".join(protocol.summary()))

    def test_continue_while_the_failed_process_still_waits_for_an_engine(self):
        protocol = self.pick(launch=False, tomogramsPerStart=2, numberOfThreads=4, useGpu=False)
        with engine(self.known, traps="TS_01 TS_02", waits="TS_03"):
            self.proj.launchProtocol(protocol, wait=False)
            self.waitEnd(protocol)
        self.assertIn("signal 9", protocol.getErrorMessage())
        path = pathlib.Path(protocol._getExtraPath("process.txt"))
        pid = int(path.read_text("utf-8").split()[1])
        self.assertTrue(alive(pid))
        self.proj.launchProtocol(protocol, wait=False)
        self.assertFalse(alive(pid))
        self.waitEnd(protocol)  # for Scipion it is over as soon as it seems to have failed
        self.ended(protocol)
        self.assertPicks(protocol.coordinates, TSIDS)

    def test_a_set_of_failed_tomograms_that_is_empty_takes_some_again(self):
        protocol = self.inProcess()
        tomograms = protocol._tomograms(TSIDS)
        for reason in ("one", "two"):
            protocol._appendFailed(tomograms["TS_01"], reason)
            protocol._appendFailed(tomograms["TS_02"], reason)
        self.assertEqual(self.failures(protocol), {"TS_01": "two", "TS_02": "two"})
        protocol._dropFailed(["TS_02", "TS_01", "TS_04"])
        self.assertEqual(protocol.failedTomograms.getSize(), 0)
        protocol._appendFailed(tomograms["TS_04"], "three")
        self.assertSet(protocol.failedTomograms, ["TS_04"])
        self.assertEqual(self.failures(protocol), {"TS_04": "three"})

    def test_picks_that_are_taken_out_leave_a_set_that_takes_some_again(self):
        protocol = self.inProcess(saveMap=True)
        tomograms, item = protocol._tomograms(["TS_01"]), picked.itemsOf(os.path.dirname(self.known))["TS_01"]
        for _ in range(2):
            protocol._appendPicks(tomograms, {"TS_01": read_coordinates(item["picks"])})
            protocol._appendMaps(tomograms["TS_01"], {1: tomograms["TS_01"].getFileName()})
            self.assertPicks(protocol.coordinates, ["TS_01"])
            self.assertEqual(protocol.probabilityMaps.getTSIds(), ["TS_01"])
            protocol._dropPicks(["TS_01", "TS_04"])
            self.assertEqual((protocol.coordinates.getSize(), protocol.probabilityMaps.getSize()), (0, 0))
            self.assertEqual(positions(protocol.coordinates), {})

    def test_tables_in_scipion_show_why(self):
        from pwem.viewers import VISIBLE
        from pwem.viewers.viewers_data import RegistryViewerConfig

        import deepetpicker_plugin.viewers  # noqa: F401  as Scipion loads it

        protocol = self.inProcess()
        protocol._appendFailed(protocol._tomograms(["TS_01"])["TS_01"], "no memory")
        shown = RegistryViewerConfig.getConfig(type(protocol.failedTomograms))[VISIBLE].split()
        self.assertLessEqual({"_tsId", "_filename", "_failure"}, set(shown))
        with sqlite3.connect(protocol.failedTomograms.getFileName()) as database:
            columns = {row[0] for row in database.execute("SELECT label_property FROM Classes")}
        self.assertIn("_failure", columns)

    # ---- tomograms that cannot be picked
    def test_a_missing_file_costs_only_its_tomogram(self):
        folder = os.path.join(dataFolder(), "missing")
        shutil.copytree(self.folder, folder)
        tomograms = self.importTomograms(folder)
        os.remove(os.path.join(folder, "02.mrc"))
        protocol = self.pick(inputTomograms=tomograms)
        self.assertPicks(protocol.coordinates, ["TS_01", "TS_03", "TS_04"])
        self.assertEqual(protocol.failedTomograms.getTSIds(), ["TS_02"])
        self.assertIn("TS_02 failed", " ".join(protocol.summary()))
        shutil.copy(os.path.join(self.folder, "02.mrc"), folder)
        again = self.pick(inputTomograms=protocol.failedTomograms)
        self.assertPicks(again.coordinates, ["TS_02"])

    def test_a_tomogram_that_ends_the_engine(self):
        for number in (0, 1, 3):  # the first of a start, one in the middle, the last
            protocol = self.inProcess()
            with engine(self.known, traps=TSIDS[number]):
                protocol.pickStep("batch_001", TSIDS)
            found = picked.itemsFrom(protocol._getExtraPath("picks", "batch_001"))
            self.assertEqual(sorted(found), TSIDS)
            self.assertEqual([ts for ts, item in found.items() if item["status"] == "failed"], [TSIDS[number]])
            self.assertIn("signal 9", found[TSIDS[number]]["reason"])

    def test_one_that_ends_the_real_engine_costs_only_itself(self):
        with engine(traps="TS_02"):
            protocol = self.pick()
        self.assertPicks(protocol.coordinates, ["TS_01", "TS_03", "TS_04"])
        self.assertSet(protocol.failedTomograms, ["TS_02"])
        self.assertIn("signal 9", self.failures(protocol)["TS_02"])
        self.assertIn("TS_02 failed", " ".join(protocol.summary()))
        with engine(self.known):
            self.goOn(protocol)
        self.assertPicks(protocol.coordinates, TSIDS)
        self.assertNoneFailed(protocol)

    def test_an_engine_that_always_ends_blames_no_tomogram(self):
        protocol = self.inProcess()
        with engine(self.known, traps=" ".join(TSIDS)), self.assertRaisesRegex(EngineError, "signal 9"):
            protocol.pickStep("batch_001", TSIDS)
        self.assertEqual(picked.items(protocol._getExtraPath("picks")), {})
        with engine(self.known):  # Continue, with an engine that works
            self.goOn(protocol)
        self.assertPicks(protocol.coordinates, TSIDS)
        self.assertFalse(hasattr(protocol, "failedTomograms"))

    # ---- Restart
    def restart(self, protocol, **settings):
        for name, value in settings.items():
            getattr(protocol, name).set(value)
        protocol.runMode.set(MODE_RESTART)
        self.proj.launchProtocol(protocol, wait=True, force=True)  # as restarting a workflow does
        self.ended(protocol)

    def test_restart_replaces_the_outputs(self):
        protocol = self.pick(threshold=0.1, saveMap=True)
        after = self.newProtocol(ProtDeepETPickerThreshold, threshold=str(LOW))
        after.inputCoordinates.set(protocol)  # as the form does: the output of that name, whatever it is
        after.inputCoordinates.setExtended("coordinates")
        self.launchProtocol(after)
        self.assertPicks(after.coordinates, TSIDS)
        high = float(np.median(np.concatenate([rows[:, 4] for rows in self.wanted.values()])))
        count, before = protocol.coordinates.getSize(), protocol.coordinates.getObjId()
        self.restart(protocol, threshold=high, saveMap=False)
        self.assertEqual([name for name, _ in protocol.iterOutputAttributes()], ["coordinates"])
        self.assertNotEqual(protocol.coordinates.getObjId(), before)
        found = positions(protocol.coordinates)
        self.assertTrue(0 < protocol.coordinates.getSize() < count)
        self.assertEqual(protocol.coordinates.getSize(), sum(map(len, found.values())))
        self.assertGreaterEqual(min(rows[:, 4].min() for rows in found.values()), high)
        self.assertEqual(len(picked.batches(protocol._getExtraPath("picks"))), 1)
        self.assertEqual(self.relations(protocol), 2)
        self.assertEqual(after.inputCoordinates.get().getObjId(), protocol.coordinates.getObjId())
        self.restart(after)
        self.assertPicks(after.coordinates, TSIDS)

    def relations(self, protocol):
        """Return how many source relations the protocol's coordinates have in the project."""
        return sum(r["object_child_id"] == protocol.coordinates.getObjId() for r in protocol.getRelations())

    def test_restart_ends_what_the_killed_run_left(self):
        protocol = self.pick(launch=False)
        with engine(waits="TS_03"):
            self.proj.launchProtocol(protocol, wait=False)
            folder = pathlib.Path(protocol._getExtraPath("picks", "batch_001"))
            self.waitFor(lambda: "TS_02" in picked.itemsOf(str(folder)), 120, "two tomograms to be picked")
            orphan = int((folder / "engine.pid").read_text("utf-8").split()[1])
            self.kill9(protocol)
        self.assertTrue(isEngine(orphan))
        with engine(self.known):
            self.restart(protocol)
        self.assertFalse(isEngine(orphan))
        self.assertPicks(protocol.coordinates, TSIDS)

    @slow
    def test_continue_after_engine_protocol_or_both_were_killed(self):
        for victims in ("engine", "protocol", "both"):
            with self.subTest(victims):
                protocol = self.pick(launch=False)
                with engine(self.known, waits="TS_03"):
                    self.proj.launchProtocol(protocol, wait=False)
                    folder = pathlib.Path(protocol._getExtraPath("picks", "batch_001"))
                    self.waitFor(lambda folder=folder: "TS_02" in picked.itemsOf(str(folder)), 120, "two tomograms")
                    pid = int((folder / "engine.pid").read_text("utf-8").split()[1])
                    if victims != "protocol":
                        os.kill(pid, signal.SIGKILL)
                    if victims != "engine":
                        self.kill9(protocol)
                    else:
                        self.waitEnd(protocol)
                        self.assertIn("signal 9", self.failures(protocol)["TS_03"])
                with engine(self.known):
                    self.goOn(protocol)
                self.assertFalse(isEngine(pid))
                self.assertPicks(protocol.coordinates, TSIDS)
                if victims == "engine":
                    self.assertNoneFailed(protocol)  # TS_03 was, and its set is empty now
                else:
                    self.assertFalse(hasattr(protocol, "failedTomograms"))
