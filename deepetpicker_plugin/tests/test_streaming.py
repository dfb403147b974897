"""A set that grows while it is picked, one that is killed in the middle, one where a tomogram fails."""

from __future__ import annotations

import os
import shutil

import numpy as np
from pyworkflow.object import Set

from deepetpicker_plugin import picked
from deepetpicker_plugin.engine import isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerSimulate
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, positions, slow, tinyModel

SHAPES = {f"TS_0{i}": (24 + 4 * (i % 2), 48, 40) for i in range(6)}


class TestGrowingSet(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = noiseTomograms(os.path.join(dataFolder(), "stream"), SHAPES)
        cls.closed = cls.importTomograms(folder)
        cls.model = cls.importModel(tinyModel("ring,rod"))
        cls.reference = cls.pickAll(cls.closed)
        cls.wanted = positions(cls.reference.coordinates)

    @classmethod
    def pickAll(cls, tomograms, wait=True, **settings):
        return cls.run_(ProtDeepETPickerPick, wait=wait, inputTomograms=tomograms, inputModel=cls.model, binThreads=1,
                        streamingSleepOnWait=1, **settings)

    def assertSame(self, coordinates):
        found = positions(coordinates)
        self.assertEqual(sorted(found), sorted(self.wanted))
        for tsId, rows in found.items():
            np.testing.assert_array_equal(rows, self.wanted[tsId])
        self.assertEqual(coordinates.getSize(), sum(map(len, found.values())))

    def growing(self):
        """Return an import protocol whose set is open and holds the first tomogram, and clones of all."""
        source = self.run_(ProtDeepETPickerSimulate, n=1, shape="16,16,16", particles=0, phantoms="ring", gold=0,
                           membranes=0)
        items = [t.clone() for t in self.closed.iterItems()]
        grown = source.tomograms
        path = grown.getFileName()
        grown.close()
        os.remove(path)
        fresh = type(grown)(filename=path)
        fresh.setSamplingRate(self.closed.getSamplingRate())
        fresh.setStreamState(Set.STREAM_OPEN)
        fresh.append(copyOf(items[0]))
        fresh.write()
        fresh.close()
        source.tomograms.setStreamState(Set.STREAM_OPEN)
        source.tomograms.copy(fresh, copyId=False)
        source._store(source.tomograms)
        return source, items

    @slow
    def test_one_to_six_gives_what_a_closed_set_gives(self):
        source, items = self.growing()
        protocol = self.pickAll(source.tomograms, wait=False)
        sizes = []
        for number, item in enumerate(items[1:], start=2):
            last = sizes[-1] if sizes else 0
            self.waitFor(lambda n=number, low=last: self.known(protocol) >= n - 1 and self.size(protocol) > low,
                         120, f"{number - 1} tomograms to be picked")
            sizes.append(self.size(protocol))
            self.assertEqual(protocol.coordinates.getStreamState(), Set.STREAM_OPEN)
            grown = type(source.tomograms)(filename=source.tomograms.getFileName())
            grown.loadAllProperties()
            grown.enableAppend()
            grown.append(copyOf(item))
            grown.setStreamState(Set.STREAM_OPEN if number < len(items) else Set.STREAM_CLOSED)
            grown.write()
            grown.close()
        self.waitEnd(protocol)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(len(sizes), 5)  # it grew with each tomogram
        self.assertEqual(protocol.coordinates.getStreamState(), Set.STREAM_CLOSED)
        self.assertSame(protocol.coordinates)
        starts = [picked.itemsOf(f) for f in picked.batches(protocol._getExtraPath("picks"))]
        self.assertEqual(sum(map(len, starts)), 6)  # each was picked once

    def known(self, protocol):
        self.refresh(protocol)
        self.assertTrue(protocol.isActive(), protocol.getErrorMessage())
        return len(protocol.coordinates.getTSIds()) if hasattr(protocol, "coordinates") else 0

    def size(self, protocol):
        return protocol.coordinates.getSize()

    @slow
    def test_kill_9_and_continue(self):
        protocol = self.pickAll(self.closed, wait=False, tomogramsPerStart=2)
        folder = protocol._getExtraPath("picks")
        self.waitFor(lambda: len(picked.items(folder)) >= 3, 120, "three tomograms to be picked")
        self.kill9(protocol)
        before = {ts: os.stat(item["picks"]).st_mtime_ns for ts, item in picked.items(folder).items()}
        self.proj.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertSame(protocol.coordinates)
        after = {ts: os.stat(item["picks"]).st_mtime_ns for ts, item in picked.items(folder).items()}
        self.assertTrue(all(after[ts] == t for ts, t in before.items()))  # none was picked twice
        done = [ts for f in picked.batches(folder) for ts in picked.itemsOf(f)]
        self.assertEqual(sorted(done), sorted(SHAPES))  # none was lost or doubled
        self.assertFalse([f for f in picked.batches(folder) if leftover(f)])

    def test_a_tomogram_that_fails_goes_to_its_own_set(self):
        folder = os.path.join(dataFolder(), "broken")
        shutil.copytree(os.path.join(dataFolder(), "stream"), folder)
        tomograms = self.importTomograms(folder)
        with open(os.path.join(folder, "TS_02.mrc"), "r+b") as stream:
            stream.truncate(5000)
        protocol = self.pickAll(tomograms)
        self.assertEqual(protocol.failedTomograms.getTSIds(), ["TS_02"])
        failed = protocol.failedTomograms.getFirstItem()
        self.assertIn("truncated", failed._failure.get())
        self.assertEqual(sorted(protocol.coordinates.getTSIds()), [ts for ts in sorted(SHAPES) if ts != "TS_02"])
        self.assertIn("TS_02 failed", " ".join(protocol.summary()))

    def test_an_empty_set_is_waited_for(self):
        source, _ = self.growing()
        path = source.tomograms.getFileName()
        source.tomograms.close()
        os.remove(path)
        empty = type(source.tomograms)(filename=path)
        empty.setSamplingRate(self.closed.getSamplingRate())
        empty.setStreamState(Set.STREAM_OPEN)
        empty.write()
        empty.close()
        protocol = self.newProtocol(ProtDeepETPickerPick, inputTomograms=empty, inputModel=self.model)
        self.assertEqual([e for e in protocol.validate() if "empty" in e], [
            "*Tomograms* the set is empty: wait until it has its first tomogram, or schedule this"])

    def test_a_changed_threshold_is_not_mixed_with_old_picks(self):
        copy = self.proj.copyProtocol(self.reference)
        self.launchProtocol(copy)
        copy.threshold.set(0.9)
        errors = copy.validate()
        self.assertEqual(len(errors), 1)
        self.assertIn("threshold", errors[0])
        self.assertIn("Restart", errors[0])


def copyOf(tomogram):
    """Return a tomogram that can be appended to another set."""
    copy = tomogram.clone()
    copy.cleanObjId()
    return copy


def leftover(folder):
    """Tell whether an engine still runs for a folder."""
    try:
        with open(os.path.join(folder, "engine.pid"), encoding="utf-8") as stream:
            return isEngine(int(stream.read().split()[1]))
    except OSError:
        return False
