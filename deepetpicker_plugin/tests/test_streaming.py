"""A set that grows while it is picked, one that is killed in the middle, one where a tomogram fails."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
import unittest
from unittest import mock

import numpy as np
from pyworkflow.object import Set
from tomo.objects import SetOfTomograms, Tomogram

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker_plugin.engine.process import isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick
from deepetpicker_plugin.sets import picked
from deepetpicker_plugin.sets.growing import GrowingSet
from deepetpicker_plugin.tests.base import (
    PluginTest,
    copyOf,
    dataFolder,
    extend,
    noiseTomograms,
    positions,
    slow,
    tinyModel,
)

SHAPES = {f"TS_0{i}": (24 + 4 * (i % 2), 48, 40) for i in range(6)}


class TestLooking(unittest.TestCase):
    """Looking at a set that grows, as its file really is at each moment."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "a set.sqlite")

    def grow(self, *tsIds, state=Set.STREAM_OPEN):
        """Append tomograms to the set and return it."""
        tomograms = SetOfTomograms(filename=self.path)
        if os.path.getsize(self.path):
            tomograms.enableAppend()
        for tsId in tsIds:
            tomogram = Tomogram()
            tomogram.setTsId(tsId)
            Set.append(tomograms, tomogram)
        tomograms.setStreamState(state)
        tomograms.write()
        tomograms.close()
        return tomograms

    def make(self, *tsIds, state=Set.STREAM_OPEN):
        open(self.path, "wb").close()
        return GrowingSet(self.grow(*tsIds, state=state))

    def test_each_tomogram_is_new_once(self):
        growing = self.make("TS_2", "TS_1")
        self.assertEqual(growing.look(), (["TS_2", "TS_1"], True))
        self.assertEqual(growing.look(), ([], True))
        self.grow("it's", "TS_0")
        self.assertEqual(growing.look(), (["it's", "TS_0"], True))
        self.grow("TS_9", state=Set.STREAM_CLOSED)
        self.assertEqual(growing.look(), (["TS_9"], False))

    def test_nothing_is_listed_while_nothing_comes(self):
        growing, asked, connect = self.make("TS_1"), [], sqlite3.connect

        def traced(*words, **named):
            connection = connect(*words, **named)
            connection.set_trace_callback(asked.append)
            return connection

        tracing = mock.patch.object(sqlite3, "connect", traced)
        tracing.start()
        self.addCleanup(tracing.stop)
        growing.look()
        self.assertTrue(any("ORDER BY id" in text for text in asked))
        asked.clear()
        self.assertEqual(growing.look(), ([], True))
        self.assertFalse([text for text in asked if "ORDER BY id" in text])
        self.assertLessEqual(len(asked), 5)

    def test_a_file_that_cannot_be_read_now_is_not_a_closed_set(self):
        growing = self.make("TS_1")
        with mock.patch("deepetpicker_plugin.sets.growing.LOCKED_S", 0.05):
            writer = sqlite3.connect(self.path, isolation_level=None)
            writer.execute("BEGIN EXCLUSIVE")
            with self.assertLogs("deepetpicker_plugin.sets.growing", "WARNING") as log:
                self.assertEqual(growing.look(), ([], True))
            self.assertIn("locked", log.output[0])
            writer.execute("ROLLBACK")
            writer.close()
        os.rename(self.path, self.path + "_away")
        self.assertEqual(growing.look(), ([], True))
        self.assertFalse(os.path.exists(self.path))  # looking makes no file
        with open(self.path, "w", encoding="utf-8") as stream:
            stream.write("half a file " * 100)
        self.assertEqual(growing.look(), ([], True))
        os.replace(self.path + "_away", self.path)
        self.assertEqual(growing.look(), (["TS_1"], True))

    def test_one_that_can_never_be_read_is_told(self):
        growing = GrowingSet(self.make("TS_1") and SetOfTomograms(filename=self.path), patienceS=0.0)
        os.remove(self.path)
        time.sleep(0.01)
        with self.assertRaisesRegex(InputError, "could not be read for .* choose .Continue."):
            growing.look()

    def test_the_moment_before_the_first_tomogram_is_not_the_end(self):
        growing = self.make()  # open, without any table
        self.assertEqual(growing.look(), ([], True))
        self.grow("TS_1")
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("DELETE FROM Properties")  # the tables are committed before the state is
            connection.execute("DELETE FROM Objects")
        connection.close()
        self.assertEqual(growing.look(), ([], True))
        self.assertEqual(self.make(state=Set.STREAM_CLOSED).look(), ([], False))


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
                        **settings)

    def assertSame(self, coordinates):
        found = positions(coordinates)
        self.assertEqual(sorted(found), sorted(self.wanted))
        for tsId, rows in found.items():
            np.testing.assert_array_equal(rows, self.wanted[tsId])
        self.assertEqual(coordinates.getSize(), sum(map(len, found.values())))

    def oneOfSix(self):
        """Return an import protocol whose set is open and holds the first tomogram, and clones of all."""
        items = [t.clone() for t in self.closed.iterItems()]
        source = self.growing(self.closed, items[:1])
        return source, items

    @slow
    def test_one_to_six_gives_what_a_closed_set_gives(self):
        """With the form as a user gets it."""
        source, items = self.oneOfSix()
        start = time.monotonic()
        protocol = self.pickAll(source.tomograms, wait=False)
        for number, more in ((1, items[1:3]), (3, items[3:6])):
            self.waitFor(lambda n=number: self.known(protocol) >= n, 120, f"{number} tomograms to be picked")
            self.assertEqual(self.known(protocol), number)
            self.assertEqual(protocol.coordinates.getStreamState(), Set.STREAM_OPEN)
            extend(source.tomograms, more, Set.STREAM_OPEN if number == 1 else Set.STREAM_CLOSED)
        self.waitEnd(protocol)
        seconds = time.monotonic() - start
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(protocol.coordinates.getStreamState(), Set.STREAM_CLOSED)
        self.assertSame(protocol.coordinates)
        starts = [picked.itemsOf(f) for f in picked.batches(protocol._getExtraPath("picks"))]
        self.assertEqual([len(found) for found in starts], [1, 2, 3])  # each was picked once
        with open(protocol._getLogsPath("run.stdout"), encoding="utf-8") as stream:
            waits = stream.read().count("sleeping 10 seconds")
        self.assertTrue(1 <= waits <= seconds / 10 + 1, (waits, seconds))

    def known(self, protocol):
        self.refresh(protocol)
        self.assertTrue(protocol.isActive(), protocol.getErrorMessage())
        return len(protocol.coordinates.getTSIds()) if hasattr(protocol, "coordinates") else 0

    def test_waiting_reads_nothing_anew_and_holds_no_lock(self):
        source, items = self.oneOfSix()
        protocol = self.newProtocol(ProtDeepETPickerPick, inputTomograms=source.tomograms, inputModel=self.model)
        self.assertEqual(protocol._getStreamingSleepOnWait(), 10)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        waits = []

        def wait(one):
            waits.append(len(one._steps))
            if len(waits) in (3, 5):
                extend(source.tomograms, [items[len(waits)]],
                            Set.STREAM_OPEN if len(waits) == 3 else Set.STREAM_CLOSED)

        with mock.patch.object(ProtDeepETPickerPick, "_streamingSleepOnWait", wait), \
                mock.patch.object(SetOfTomograms, "iterItems") as listed, \
                mock.patch.object(picked, "readManifest", return_value=None) as manifests, \
                protocol._lock:  # as the step that makes output holds it
            thread = threading.Thread(target=protocol.stepsGeneratorStep, daemon=True)
            thread.start()
            thread.join(60)
        self.assertFalse(thread.is_alive())
        self.assertEqual(waits, [2, 2, 2, 4, 4])  # a picking and an output step for each tomogram, when it comes
        self.assertEqual(len(protocol._steps), 7)  # and one that closes
        self.assertEqual((listed.call_count, manifests.call_count), (0, 0))

    def test_when_a_step_has_failed_no_more_tomograms_are_waited_for(self):
        source, _ = self.oneOfSix()
        protocol = self.newProtocol(ProtDeepETPickerPick, inputTomograms=source.tomograms, inputModel=self.model)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()

        def fail(one):
            one._storeSteps()
            one._steps[0].setRunning()
            one._steps[0].setFailed("disk full")
            self.assertFalse(one._stepFinished(one._steps[0]))

        with mock.patch.object(ProtDeepETPickerPick, "_streamingSleepOnWait", fail):
            thread = threading.Thread(target=protocol.stepsGeneratorStep, daemon=True)
            thread.start()
            thread.join(60)
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(protocol._steps), 2)  # one that picks, one that makes output; none that closes

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

    def test_a_long_set_is_not_gone_through_for_each_tomogram(self):
        protocol = self.newProtocol(ProtDeepETPickerPick, inputTomograms=self.closed, inputModel=self.model)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        tomogram, work = self.closed.getFirstItem().clone(), []

        class Counting(sqlite3.Connection):
            def __init__(self, *words, **named):
                super().__init__(*words, **named)
                self.set_progress_handler(lambda: work.append(1), 100)  # after each 100 instructions

        def append(number, count):
            """Append a tomogram and return how much work it was for the data base."""
            work.clear()
            item = copyOf(tomogram)
            item.setTsId(f"TS_{number}")
            table = CoordinateTable(np.ones((count, 3)), np.ones(count, np.int64), np.ones(count), {})
            protocol._appendPicks({item.getTsId(): item}, {item.getTsId(): table})
            return len(work)

        with mock.patch.object(sqlite3.dbapi2, "Connection", Counting):
            append(0, 10)
            short = append(1, 10)
            append(2, 5000)
            self.assertTrue(short > 0 and append(3, 10) <= short + 5, (short, len(work)))
            append(3, 10)  # a second time it stays as it is
        self.assertEqual(protocol.coordinates.getSize(), 5030)

    def test_an_empty_set_is_waited_for(self):
        source, _ = self.oneOfSix()
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


def leftover(folder):
    """Tell whether an engine still runs for a folder."""
    try:
        with open(os.path.join(folder, "engine.pid"), encoding="utf-8") as stream:
            return isEngine(int(stream.read().split()[1]))
    except OSError:
        return False
