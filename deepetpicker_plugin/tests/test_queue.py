"""A queue system (a stand-in for SLURM) and pretended GPUs: each start of the engine sees its own device."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import sys
import tempfile
import unittest

from deepetpicker_plugin.engine.process import writeScript
from deepetpicker_plugin.protocols import ProtDeepETPickerPick
from deepetpicker_plugin.sets import picked
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, slow, tinyModel

SHAPES = {f"TS_0{i}": (24, 32, 40) for i in range(4)}

# Jobs get the devices 4, 5, ...: as many as they ask for, each job others. State: a folder with a file per job.
SBATCH = """#!{python}
import os, re, subprocess, sys
folder = os.environ["QUEUE_FOLDER"]
job = 100 + len(os.listdir(folder))
text = open(sys.argv[-1]).read()
want = dict(re.findall(r"^#SBATCH --([a-z]+)=(.*)$", text, re.M))
count = int(want["gres"].split(":")[-1] or 0)
devices = ",".join(str(4 + 2 * (job - 100) + i) for i in range(count))
env = dict(os.environ, SLURM_JOB_ID=str(job), CUDA_VISIBLE_DEVICES=devices)
child = subprocess.Popen(["bash", sys.argv[-1]], stdin=subprocess.DEVNULL, stdout=open(want["output"], "a"),
                         stderr=open(want["error"], "a"), start_new_session=True, env=env)
open(os.path.join(folder, str(job)), "w").write(str(child.pid))
print("Submitted batch job", job)
"""
SQUEUE = """#!{python}
import os, sys
try:
    pid = open(os.path.join(os.environ["QUEUE_FOLDER"], sys.argv[sys.argv.index("-j") + 1])).read()
    if open("/proc/" + pid + "/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
        print("RUNNING")
except OSError:
    pass
"""


class TestScript(unittest.TestCase):
    """The script that starts the engine, run by bash with a command that tells its devices."""

    def devices(self, gpus, given=None, queued=False):
        import subprocess

        class Plugin:
            @staticmethod
            def getActivation():
                return ""

            @staticmethod
            def getPython():
                return "env"

        with tempfile.TemporaryDirectory() as folder:
            script = writeScript(folder, [], Plugin, queued=queued)
            text = pathlib.Path(script).read_text("utf-8").replace("env -m deepetpicker", "env")
            pathlib.Path(script).write_text(text, "utf-8")
            environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
            environment.update({"CUDA_VISIBLE_DEVICES": given} if given else {})
            done = subprocess.run(["bash", script, *([gpus] if gpus else [])], env=environment, capture_output=True,
                                  text=True, check=True)
            self.assertEqual(pathlib.Path(folder, "engine.exit").read_text("utf-8").strip(), "0")
            self.assertFalse(os.path.exists(os.path.join(folder, "engine.pid")))
        found = re.search(r"^CUDA_VISIBLE_DEVICES=(.*)$", done.stdout, re.M)
        return found[1] if found else None

    def test_devices(self):
        self.assertIsNone(self.devices(""))
        self.assertEqual(self.devices("1"), "1")
        self.assertEqual(self.devices("0 2"), "0,2")
        self.assertEqual(self.devices("1", given="3,7"), "1")  # no queue: Scipion's numbers are the machine's
        self.assertEqual(self.devices("1", given="3,7", queued=True), "7")  # the second of those the queue gave
        self.assertEqual(self.devices("0 1", given="3,7", queued=True), "3,7")
        self.assertEqual(self.devices("2", given="3,7", queued=True), "2")  # not among them: as it is


class TestDevices(PluginTest):
    @classmethod
    def setUpClass(cls):
        with open(os.environ.get("SCIPION_HOSTS", os.devnull), encoding="utf-8") as stream:
            if "sbatch" not in stream.read():
                raise unittest.SkipTest("needs the hosts file of conftest.py: run this test with pytest")
        super().setUpClass()
        cls.commands = tempfile.TemporaryDirectory()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            path = pathlib.Path(cls.commands.name, name)
            path.write_text(text.replace("{python}", sys.executable), "utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        cls.before = os.environ["PATH"]
        os.environ["PATH"] = cls.commands.name + os.pathsep + cls.before
        cls.tomograms = cls.importTomograms(noiseTomograms(os.path.join(dataFolder(), "queue"), SHAPES))
        cls.model = cls.importModel(tinyModel())

    @classmethod
    def tearDownClass(cls):
        os.environ["PATH"] = cls.before
        cls.commands.cleanup()
        super().tearDownClass()

    def pick(self, queue="", gpus="0 1"):
        """Pick with the number of threads that a new form has."""
        protocol = self.newProtocol(ProtDeepETPickerPick, inputTomograms=self.tomograms, inputModel=self.model,
                                    gpuList=gpus, binThreads=1)
        os.environ["QUEUE_FOLDER"] = tempfile.mkdtemp(dir=self.commands.name)
        if queue:
            protocol._useQueue.set(True)
            protocol.setQueueParams(("gpu", {"QUEUE_FOR_JOBS": "Y" if queue == "steps" else "N"}))
        self.proj.launchProtocol(protocol, wait=False)
        self.waitFor(lambda: not self.refresh(protocol).isActive() and not protocol.isLaunched(), 120, "the end")
        return protocol

    def devices(self, protocol):
        found = []
        for folder in picked.batches(protocol._getExtraPath("picks")):
            log = pathlib.Path(folder, "engine.log").read_text("utf-8")
            found += re.findall(r"start .* devices=(\S*)", log)
        return sorted(found)

    def test_four_gpus(self):
        protocol = self.pick(gpus="0,1,2,3")
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(self.devices(protocol), ["0", "1", "2", "3"])
        times = {"start": [], "end": []}
        for folder in picked.batches(protocol._getExtraPath("picks")):
            for line in pathlib.Path(folder, "engine.log").read_text("utf-8").splitlines():
                times[line.split()[1]].append(float(line.split()[0]))
        self.assertEqual([len(t) for t in times.values()], [4, 4])
        self.assertLess(max(times["start"]), min(times["end"]))  # all at once
        self.assertEqual(sorted(protocol.coordinates.getTSIds()), sorted(SHAPES))
        self.assertIn("4 engines at once", " ".join(protocol.summary()))

    @slow
    def test_whole_protocol_in_a_queue(self):
        protocol = self.pick("protocol")
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(self.devices(protocol), ["4", "5"])
        self.assertEqual(len(os.listdir(os.environ["QUEUE_FOLDER"])), 1)
        self.assertEqual(sorted(protocol.coordinates.getTSIds()), sorted(SHAPES))

    @slow
    def test_each_step_in_a_queue(self):
        protocol = self.pick("steps")
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(self.devices(protocol), ["4", "6"])  # the first device of each job's own two
        self.assertEqual(len(os.listdir(os.environ["QUEUE_FOLDER"])), 2)
        self.assertEqual(sorted(protocol.coordinates.getTSIds()), sorted(SHAPES))

    @slow
    def test_a_job_that_fails_is_seen_though_the_queue_hides_it(self):
        path = self.model.getFileName()
        with open(path, "rb") as stream:
            content = stream.read()
        with open(path, "r+b") as stream:  # its card can be read, its weights are not numbers
            stream.seek(len(content) - 400)
            stream.write(b"\xff" * 400)
        try:
            protocol = self.pick("steps")
        finally:
            with open(path, "wb") as stream:
                stream.write(content)
        self.assertTrue(protocol.isFailed())
        self.assertIn("expected finite weights", protocol.getErrorMessage())
        self.assertTrue(os.listdir(os.environ["QUEUE_FOLDER"]))
