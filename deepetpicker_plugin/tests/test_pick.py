"""Picking as users need it to be: regions of interest, tomograms that cannot be picked, and Restart."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from unittest import mock

import mrcfile
import numpy as np
from pyworkflow.protocol import MODE_RESTART
from tomo.protocols import ProtImportTomomasks

from deepetpicker_plugin import picked
from deepetpicker_plugin.engine import isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerThreshold
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, positions, tinyModel

SHAPES = {f"{i:02d}": (20 + 4 * (i % 2), 48, 40) for i in range(1, 5)}  # Scipion calls them TS_01, ...
TSIDS = [f"TS_{name}" for name in SHAPES]
LOW = 0.3

# An engine that a tomogram can end, as too little memory does, or that waits there for ever.
ENGINE = """
import os, runpy, signal, sys, time
from deepetpicker.picking.picker import Picker
candidates = Picker.candidates
def trap(self, volume, *more, **named):
    if volume.name in os.environ["TRAPS"].split():
        os.kill(os.getpid(), signal.SIGKILL)
    while volume.name in os.environ.get("WAITS", "").split():
        time.sleep(0.1)
    return candidates(self, volume, *more, **named)
Picker.candidates = trap
sys.argv = sys.argv[2:]
runpy.run_module("deepetpicker", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def trapped(traps="", waits=""):
    """Let the protocols that are started meanwhile use an engine with traps."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "engine.py").write_text(ENGINE, "utf-8")
        python = pathlib.Path(folder, "python")
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/engine.py "$@"\n', "utf-8")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        with mock.patch.dict(os.environ, DEEPETPICKER_ENV_ACTIVATION=f"export PATH={folder}:$PATH", TRAPS=traps,
                             WAITS=waits):
            yield


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
                  "streamingSleepOnWait": 1, **settings}
        return cls.run_(ProtDeepETPickerPick, wait, **chosen) if launch else cls.newProtocol(ProtDeepETPickerPick,
                                                                                             **chosen)

    @classmethod
    def masks(cls, names, low, high):
        """Import masks that are 1 where low <= x < high."""
        folder = tempfile.mkdtemp(dir=dataFolder())
        for name in names:
            mask = np.zeros(SHAPES[name], np.int8)
            mask[:, :, low:high] = 1
            with mrcfile.new(os.path.join(folder, f"{name}.mrc")) as mrc:
                mrc.set_data(mask)
                mrc.voxel_size = cls.tomograms.getSamplingRate()
        return cls.run_(ProtImportTomomasks, filesPath=folder, filesPattern="*.mrc",
                        inputTomos=cls.tomograms).tomomasks

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

    def ended(self, protocol):
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())

    # ---- regions of interest
    def test_region_of_interest(self):
        protocol = self.pick(inputMasks=self.masks(["01", "02", "04"], 0, self.edge))
        self.assertInside(protocol.coordinates, ["TS_01", "TS_02", "TS_04"])
        self.assertSet(protocol.failedTomograms, ["TS_03"])
        self.assertIn("expected a mask with the tsId TS_03", protocol.failedTomograms.getFirstItem()._failure.get())
        self.assertIn("TS_03 failed", " ".join(protocol.summary()))
        self.assertIn("No mask for TS_03", " ".join(protocol._warnings()))

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
        self.proj.launchProtocol(protocol, wait=True)
        self.ended(protocol)
        self.assertInside(protocol.coordinates, TSIDS)

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
            with trapped(TSIDS[number]):
                protocol = self.pick()
            others = [ts for ts in TSIDS if ts != TSIDS[number]]
            self.assertPicks(protocol.coordinates, others)
            self.assertSet(protocol.failedTomograms, [TSIDS[number]])
            self.assertIn("signal 9", protocol.failedTomograms.getFirstItem()._failure.get())
            self.assertIn(f"{TSIDS[number]} failed", " ".join(protocol.summary()))

    def test_an_engine_that_always_ends_blames_no_tomogram(self):
        protocol = self.pick(launch=False)
        with trapped(" ".join(TSIDS)):
            self.proj.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFailed())
        self.assertIn("signal 9", protocol.getErrorMessage())
        self.assertFalse(hasattr(protocol, "failedTomograms"))
        self.proj.launchProtocol(protocol, wait=True)  # Continue, with an engine that works
        self.ended(protocol)
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
        with trapped(waits="TS_03"):
            self.proj.launchProtocol(protocol, wait=False)
            folder = pathlib.Path(protocol._getExtraPath("picks", "batch_001"))
            self.waitFor(lambda: "TS_02" in picked.itemsOf(str(folder)), 120, "two tomograms to be picked")
            orphan = int((folder / "engine.pid").read_text("utf-8").split()[1])
            self.kill9(protocol)
        self.assertTrue(isEngine(orphan))
        self.restart(protocol)
        self.assertFalse(isEngine(orphan))
        self.assertPicks(protocol.coordinates, TSIDS)
