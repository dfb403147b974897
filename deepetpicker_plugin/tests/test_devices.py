"""Which devices compute, how many at once, and what is idle: in checks, warnings, summary and execution."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import tempfile
import unittest
from unittest import mock

from pyworkflow.object import Set
from pyworkflow.protocol.executor import QueueStepExecutor, StepExecutor, ThreadStepExecutor
from tomo.objects import SetOfTomograms, Tomogram

from deepetpicker_plugin.engine import devices
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerTrain
from deepetpicker_plugin.tests.base import PluginTest


@contextlib.contextmanager
def machine(*names, broken=False):
    """Pretend a machine with some GPUs, or none: a driver's command that lists them."""
    with tempfile.TemporaryDirectory() as folder:
        listing = "\n".join(f"{n}, {name}" for n, name in enumerate(names))
        if names or broken:
            path = pathlib.Path(folder, "nvidia-smi")
            path.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}\nEND\nexit {9 if broken else 0}\n", "utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        others = [p for p in os.environ["PATH"].split(os.pathsep) if not os.path.exists(os.path.join(p, "nvidia-smi"))]
        with mock.patch.dict(os.environ, PATH=os.pathsep.join([folder, *others])):
            yield


class TestSlots(unittest.TestCase):
    """Scipion's executors, arranged."""

    def slots(self, gpus, threads=3, kind=ThreadStepExecutor):
        words = ([{}] if kind is QueueStepExecutor else [])
        executor = kind(None, *words, threads - 1, gpuList=gpus)
        devices.giveEachGpuASlot(executor)
        return executor.numberOfProcs, [executor.gpuDict[n] for n in sorted(executor.gpuDict, reverse=True)]

    def test_each_gpu_gets_an_engine(self):
        self.assertEqual(self.slots([0, 1, 2, 3]), (6, [[0], [1], [2], [3]]))  # with the threads of a new form
        self.assertEqual(self.slots([0]), (3, [[0]]))
        self.assertEqual(self.slots([2, 2]), (4, [[2], [2]]))  # two engines on one GPU, if the form says so
        self.assertEqual(self.slots([0, 99, 1]), (4, [[0], [1]]))  # 99 is Scipion's "none"
        self.assertEqual(self.slots([0, 1], threads=9), (8, [[0], [1]]))  # more threads stay
        self.assertEqual(self.slots([0, 1], kind=QueueStepExecutor), (4, [[0], [0]]))  # each job counts from 0

    def test_no_gpu_no_change(self):
        self.assertEqual(self.slots([]), (2, []))
        self.assertEqual(self.slots(None), (2, []))
        serial = StepExecutor(None, gpuList=[0, 1])
        devices.giveEachGpuASlot(serial)
        self.assertEqual(serial.getGpuList(), [0, 1])


class TestDevices(PluginTest):
    def form(self, kind=ProtDeepETPickerPick, **settings):
        return self.newProtocol(kind, **settings)

    def about(self, lines):
        return [line for line in lines if "GPU" in line]

    def tomograms(self, n):
        found = SetOfTomograms(filename=self.proj.getTmpPath(f"{n}.sqlite"))
        for number in range(n):
            tomogram = Tomogram()
            tomogram.setTsId(f"TS_{number}")
            Set.append(found, tomogram)  # not a set of tomograms' own: it would read the file
        found.setSamplingRate(10.0)
        found.write()
        return found

    def test_without_a_gpu_the_cpu_is_named_loudly(self):
        for kind in (ProtDeepETPickerPick, ProtDeepETPickerTrain):
            for broken in (False, True):
                with machine(broken=broken):
                    self.assertEqual(self.about(self.form(kind).warnings()), [devices.NO_GPU])
                    self.assertEqual(self.about(self.form(kind).validate()), [])
                    self.assertEqual(self.form(kind, useGpu=False).warnings(), [])
            with machine("H100"):
                self.assertEqual(self.form(kind).warnings(), [])
        with machine():
            lines = self.form(gpuList="0,1,2,3").warnings()
        self.assertIn("4 engines would run at once on the CPU", lines[1])

    def test_gpus_that_are_not_there_are_an_error(self):
        with machine("H100", "H100"):
            for kind in (ProtDeepETPickerPick, ProtDeepETPickerTrain):
                self.assertEqual(self.about(self.form(kind, gpuList="1,2,3").validate()), [
                    "*GPU IDs* this machine has GPUs 0, 1, and no GPUs 2, 3: the engine would compute on the CPU "
                    "instead"])
                self.assertEqual(self.about(self.form(kind, gpuList="0-1").validate()), [])
                self.assertIn("expected numbers such as 0", self.about(self.form(kind, gpuList="0,a").validate())[0])
                self.assertIn("expected at least one", self.about(self.form(kind, gpuList="").validate())[0])
            queued = self.form(gpuList="2")
            queued._useQueue.set(True)
            self.assertEqual(self.about(queued.validate()), [])  # the queue's machines may have more

    def test_what_stays_idle_is_said_before(self):
        with machine("A", "B", "C", "D"):
            protocol = self.form(gpuList="0,1,2,3", inputTomograms=self.tomograms(2))
            self.assertEqual(protocol.warnings(), ["GPUs 2, 3 will stay idle: a tomogram is picked by one GPU, and "
                                                   "there are 2 tomograms."])
            protocol.inputTomograms.get().setStreamState(1)
            self.assertEqual(protocol.warnings(), [])  # more may come
        protocol._useQueue.set(True)
        protocol.setQueueParams(("gpu", {"QUEUE_FOR_JOBS": "Y"}))
        self.assertIn("asks the queue for 4 GPUs and uses one", protocol.warnings()[0])
        protocol.setQueueParams(("gpu", {"QUEUE_FOR_JOBS": "N"}))
        self.assertIn("set *Scipion threads* to 7 or higher", protocol.warnings()[0])

    def test_summary(self):
        protocol = self.form(gpuList="0,2")
        self.assertIn("Will compute on GPUs 0, 2: 2 engines at once", protocol.summary())
        self.assertIn("Will compute on the CPU: 1 engine at once", self.form(useGpu=False).summary())
        self.assertFalse([line for line in self.form(gpuList="x").summary() if "compute" in line])
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        path = protocol._getExtraPath("devices.json")
        for names, wanted in ((["H100", "A40", "H100"], "Computes on GPU 0 (H100), 2 (H100): 2 engines at once; idle, "
                                                        "as not in *GPU IDs*: GPU 1"),
                              ([], "*No GPU was found: computes on the CPU*, 2 engines at once, 4 threads each; *GPU "
                                   "IDs* says 0, 2")):
            with machine(*names):
                devices.record(protocol, path)
            self.assertIn(wanted, protocol.summary())
