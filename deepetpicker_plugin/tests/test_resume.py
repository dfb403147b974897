"""Training that is killed goes on and ends where an undisturbed one ends; a project can be moved."""

from __future__ import annotations

import csv
import os
import shutil
import signal

import numpy as np
from pyworkflow.project import Manager

from deepetpicker.io.modelcard import read_header
from deepetpicker_plugin.engine.process import isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerTrain
from deepetpicker_plugin.tests.base import TINY, PluginTest, positions, slow

EPOCHS = 8
CLOCKS = ("seconds", "patches_per_second")


def weights(path):
    """Return the bytes of all tensors by name."""
    _, directory = read_header(path)
    size = max(t["data_offsets"][1] for t in directory.values())
    with open(path, "rb") as stream:
        data = stream.read()[-size:]
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], np.float32) for name, t in directory.items()}


def metrics(path):
    """Return the rows of a metrics file without what depends on the clock."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(stream)]


class TestResume(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=2, phantoms="ring")

    def training(self, wait, **settings):
        return self.run_(ProtDeepETPickerTrain, wait=wait, inputCoordinates=self.simulation.coordinates,
                         diameterAngstrom="168", **{**TINY, **settings})

    def enginePid(self, protocol):
        path = protocol._getExtraPath("training", "engine.pid")

        def read():
            try:
                with open(path, encoding="utf-8") as stream:
                    return int(stream.read().split()[1])
            except (OSError, IndexError):
                return 0
        return self.waitFor(read, 60, "the engine's process number")

    @slow
    def test_kill_9_of_train(self):
        whole = self.training(True, epochs=EPOCHS)
        killed = self.training(False, epochs=EPOCHS)
        path = killed.getMetricsFile()
        self.waitFor(lambda: len(metrics(path)) >= 2, 120, "two epochs")
        self.kill9(killed)
        orphan = self.enginePid(killed)
        self.assertTrue(isEngine(orphan))  # it outlives the protocol
        self.proj.launchProtocol(killed, wait=False)
        self.waitFor(lambda: not isEngine(orphan), 60, "the leftover engine to be ended")
        self.waitFor(lambda: len(metrics(path)) >= 4, 120, "more epochs")
        engine = self.enginePid(killed)
        self.assertNotEqual(engine, orphan)
        self.kill9(killed)
        if isEngine(engine):
            os.kill(engine, signal.SIGKILL)
        self.proj.launchProtocol(killed, wait=True)
        self.assertTrue(killed.isFinished(), killed.getErrorMessage())
        rows = metrics(path)
        self.assertEqual([int(r["epoch"]) for r in rows], list(range(EPOCHS)))  # none twice, none left out
        self.assertEqual(rows, metrics(whole.getMetricsFile()))
        expected = weights(whole.model.getFileName())
        found = weights(killed.model.getFileName())
        self.assertEqual(sorted(found), sorted(expected))
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])
        with open(killed._getExtraPath("training", "engine.log"), encoding="utf-8") as stream:
            self.assertGreaterEqual(stream.read().count(" start "), 3)

    def test_project_in_another_folder(self):
        train = self.training(True, epochs=1)
        pick = self.run_(ProtDeepETPickerPick, inputTomograms=self.simulation.tomograms, inputModel=train.model,
                         threshold=0.1, binThreads=1)
        before = positions(pick.coordinates)
        candidates = {ts: len(t) for ts, t in pick.getCandidates().items()}
        old = self.proj.getPath()
        new = old + "_moved"
        shutil.copytree(old, new, symlinks=True)
        away = old + "_away"
        os.rename(old, away)  # whatever still points there is found out
        try:
            moved = Manager().loadProject(os.path.basename(new))
            os.chdir(moved.path)
            model = moved.getProtocol(train.getObjId()).model
            self.assertEqual([c.name for c in model.getCard().classes], ["ring"])
            again = moved.getProtocol(pick.getObjId())
            after = positions(again.coordinates)
            for tsId, rows in after.items():
                np.testing.assert_array_equal(rows, before[tsId])
            self.assertEqual(sorted(after), sorted(before))
            self.assertEqual({ts: len(t) for ts, t in again.getCandidates().items()}, candidates)
            copy = moved.copyProtocol(again)
            moved.launchProtocol(copy, wait=True)
            self.assertTrue(copy.isFinished(), copy.getErrorMessage())
            for tsId, rows in positions(copy.coordinates).items():
                np.testing.assert_array_equal(rows, before[tsId])
        finally:
            os.rename(away, old)
            os.chdir(old)
            shutil.rmtree(new)
