"""Which engine is used, what is said when it does not fit, and how the environment for it is made."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from deepetpicker import __version__
from deepetpicker_plugin import Plugin
from deepetpicker_plugin.constants import ENGINE_ERRORS, ENGINE_PID, PLUGIN_DISTRIBUTION, PROCESS_FILE
from deepetpicker_plugin.engine import checkout, earlier, installation, process
from deepetpicker_plugin.tests import screen

SHOW = "import deepetpicker_plugin, deepetpicker; print(deepetpicker.__file__, deepetpicker.__version__)"

HALF_DONE = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for step in ("PRAGMA cache_size = 1", "BEGIN", "UPDATE Objects SET value = value || 'x'"):
    database.execute(step)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Words:
    """Answers every request for a package as Scipion's installer would be told, and remembers it."""

    def addPackage(self, name, **settings):
        self.name, self.settings = name, settings


class FolderTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name).resolve()

    @contextlib.contextmanager
    def installed(self, name, url=None, version=__version__):
        """Let a distribution look as if pip had installed it, from an index or from elsewhere."""
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place, f"{name.replace('-', '_')}-{version}.dist-info")
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
            if url:
                (folder / "direct_url.json").write_text(json.dumps(url), "utf-8")
            with mock.patch.object(sys, "path", [place, *sys.path]):
                yield

    def program(self, path, text):
        """Write a shell script."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        path.chmod(0o755)
        return path


class TestWhichEngine(FolderTest):
    """A plugin that runs from a checkout uses the engine of that checkout."""

    def test_an_older_copy_in_the_environment_is_passed_over(self):
        if not checkout.engineFolder():
            self.skipTest("the plugin does not run from a checkout")
        (self.folder / "deepetpicker").mkdir()
        (self.folder / "deepetpicker" / "__init__.py").write_text('__version__ = "0.0.1"\n', "utf-8")
        environ = {**os.environ, "PYTHONPATH": f"{self.folder}:{checkout.ROOT}"}
        done = subprocess.run([sys.executable, "-c", SHOW], env=environ, cwd=self.folder, check=True,
                              capture_output=True, text=True)
        path, version = done.stdout.split()
        self.assertEqual(pathlib.Path(path), checkout.ROOT / "engine" / "deepetpicker" / "__init__.py")
        self.assertEqual(version, __version__)

    def test_an_installed_plugin_takes_the_installed_engine(self):
        self.assertEqual(checkout.engineFolder(self.folder), "")
        before = list(sys.path)
        checkout.preferOwnEngine(self.folder)
        self.assertEqual(sys.path, before)

    def test_the_started_engine_is_the_same(self):
        package = self.folder / "a folder" / "engine" / "deepetpicker"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        line, own = checkout.exportOwnEngine(self.folder / "a folder"), str(package.parent)
        for before, wanted in (("", own), ("/b", f"{own}:/b")):
            done = subprocess.run(["bash", "-c", f"{line}; echo $PYTHONPATH"], env={"PYTHONPATH": before}, check=True,
                                  capture_output=True, text=True)
            self.assertEqual(done.stdout, wanted + "\n")
        self.assertEqual(checkout.exportOwnEngine(self.folder), "")
        script = process.writeScript(str(self.folder), ["info"], Plugin)
        self.assertIn(checkout.exportOwnEngine(), pathlib.Path(script).read_text("utf-8"))


class TestLeftovers(FolderTest):
    """An engine that outlived its protocol has ended, and its shell too, before its folder is used again."""

    def test_the_shell_has_noted_the_end_before_the_folder_is_free(self):
        python = self.folder / "python"
        python.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(60)\n", "utf-8")
        python.chmod(0o755)

        class WithPython(Plugin):
            getPython = classmethod(lambda cls: str(python))

        script = process.writeScript(str(self.folder), [], WithPython)
        with subprocess.Popen(["bash", script]) as shell:
            while not process.isEngine(self.started()):
                time.sleep(0.01)
            os.kill(shell.pid, signal.SIGSTOP)  # as on a busy machine, where it gets no time
            later = threading.Timer(0.5, os.kill, (shell.pid, signal.SIGCONT))
            later.start()
            self.assertTrue(process.stopLeftover(str(self.folder)))
            code = process.exitCode(str(self.folder))
            later.join()
        self.assertEqual(code, 143)
        for last in ("", "110 candidates in 4 tomogram(s)"):
            (self.folder / ENGINE_ERRORS).write_text(last, "utf-8")
            self.assertIn("the engine was interrupted", process.whyEnded(str(self.folder)))

    def test_in_the_copy_of_a_project_nothing_of_the_original_is_ended(self):
        original, copied = self.folder / "original", self.folder / "copy"
        for place in (original, copied):
            place.mkdir()
        code = "import time; time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", code, "deepetpicker"], cwd=original) as engine, \
                mock.patch.object(earlier, "ITS_OWN_END_S", 0.05):
            self.addCleanup(os.chdir, os.getcwd())
            os.chdir(copied)
            note = f"{socket.gethostname()} {engine.pid} "
            for name, rest in ((PROCESS_FILE, process.beginOf(engine.pid)), (ENGINE_PID, "0")):
                (copied / name).write_text(note + rest, "utf-8")
            self.assertTrue(process.isEngine(engine.pid))
            self.assertFalse(earlier.endProcess(".") or process.stopLeftover("."))
            self.assertIsNone(engine.poll())
            os.rename(original, self.folder / "moved")  # the project itself is moved: it is still its own
            os.chdir(self.folder / "moved")
            (self.folder / "moved" / PROCESS_FILE).write_text(note + process.beginOf(engine.pid), "utf-8")
            self.assertTrue(earlier.endProcess("."))
            self.assertEqual(engine.wait(), -signal.SIGTERM)

    def test_what_a_killed_process_left_half_done_does_not_spoil_the_copy_of_the_project(self):
        paths = [str(self.folder / name) for name in ("run.db", "project.sqlite")]
        for path, count in zip(paths, (200, 300)):
            with contextlib.closing(sqlite3.connect(path)) as database, database:
                database.execute("CREATE TABLE Objects (id INTEGER PRIMARY KEY, value TEXT)")
                database.executemany("INSERT INTO Objects (value) VALUES (?)", [(path * 9,)] * count)
        killed = subprocess.run([sys.executable, "-c", HALF_DONE, paths[0]], check=False)
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        self.assertTrue(os.path.exists(f"{paths[0]}-journal"))
        earlier.rollBack(paths[0])
        shutil.copyfile(paths[1], paths[0])  # as Scipion does for each launch
        with contextlib.closing(sqlite3.connect(paths[0])) as database:
            self.assertEqual(database.execute("SELECT COUNT(*) FROM Objects").fetchone()[0], 300)
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchone()[0], "ok")

    def started(self):
        """Return the number of the engine's process, 0 as long as there is none."""
        path = self.folder / ENGINE_PID
        return int((path.read_text("utf-8") if path.exists() else "").partition(" ")[2].partition(" ")[0] or 0)


class TestScreen(FolderTest):
    """The virtual screen of the tests of windows."""

    def test_one_that_finds_its_number_taken_is_started_again(self):
        once, size = self.folder / "once", "10x12x24"
        self.program(self.folder / "Xvfb", f"[ -e {once} ] || {{ touch {once}; exit 1; }}\necho 42 > /dev/fd/$2\n"
                     "exec sleep 60")
        self.addCleanup(screen.SCREENS.pop, size, None)
        with mock.patch.dict(os.environ, PATH=f"{self.folder}:{os.environ['PATH']}"):
            self.assertEqual(screen.startScreen(size), ":42")


class TestErrors(FolderTest):
    """What does not fit is said before a protocol starts, with what to do."""

    def setUp(self):
        super().setUp()
        self.addCleanup(installation.environmentVersion.cache_clear)
        installation.environmentVersion.cache_clear()

    def test_nothing_to_say(self):
        (self.folder / "torch").mkdir()  # Scipion's Python 3.8 has none
        (self.folder / "torch" / "__init__.py").touch()
        with mock.patch.object(sys, "path", [str(self.folder), *sys.path]):
            self.assertEqual(installation.installationErrors(""), [])

    def test_plugin_and_engine_of_two_versions(self):
        with self.installed(PLUGIN_DISTRIBUTION, version="9.9.9"):
            (error,) = installation.installationErrors("")
        self.assertIn(f"installed in version 9.9.9, and the engine it finds is version {__version__}", error)
        self.assertIn("installp -p", error)

    def test_no_torch(self):
        with mock.patch.dict(sys.modules, torch=None):  # importing it is an ImportError
            (error,) = installation.installationErrors("")
        self.assertIn("needs PyTorch", error)
        self.assertIn("scipion3 installb deepetpicker", error)

    def test_an_environment_with_the_engine(self):
        self.program(self.folder / "python", f'exec {sys.executable} "$@"')
        self.assertEqual(installation.installationErrors(f"export PATH={self.folder}:$PATH"), [])

    def test_an_environment_with_another_version(self):
        count = self.folder / "count"
        self.program(self.folder / "python", f"echo asked >> {count}; echo deepetpicker 0.0.1")
        for _ in range(2):  # asked again, as it may have been mended meanwhile
            (error,) = installation.installationErrors(f"export PATH={self.folder}:$PATH")
            self.assertIn(f"Expected the engine deepetpicker {__version__}", error)
            self.assertIn("found: deepetpicker 0.0.1", error)
        self.assertEqual(count.read_text("utf-8"), "asked\nasked\n")

    def test_an_activation_that_fails(self):
        (error,) = installation.installationErrors(". /no/such/environment/bin/activate")
        self.assertIn("/no/such/environment/bin/activate: No such file or directory", error)
        self.assertIn("DEEPETPICKER_ENV_ACTIVATION", error)


class TestBinaries(FolderTest):
    """The environment that installb makes, by a shell and with programs that stand in for Python and conda."""

    PYTHON = """mkdir -p env/bin
printf '#!/bin/sh\\necho "{name} $*" >> pip\\n' > env/bin/python
chmod +x env/bin/python"""

    def make(self, own, programs):
        """Run the command with an own interpreter and some programs on PATH; return its status and what was used."""
        for name, text in programs.items():
            self.program(self.folder / "bin" / name, text)
        work = self.folder / "work"
        work.mkdir()
        with mock.patch.object(sys, "version_info", own), \
                mock.patch.object(sys, "executable", str(self.folder / "bin" / "own")):
            command = installation.environmentCommand("")
        done = subprocess.run(command, shell=True, cwd=work, capture_output=True, text=True, check=False,
                              env={"PATH": f"{self.folder}/bin:/usr/bin:/bin"})
        used = (work / "pip").read_text("utf-8").splitlines() if (work / "pip").exists() else []
        return done, used, (work / installation.READY).exists()

    def install(self):
        """Return what the environment's Python is asked first."""
        return " ".join(["-m", "pip", "install", *shlex.split(installation.engineSource())])

    def test_scipions_own_python_comes_first(self):
        done, used, ready = self.make((3, 11), {"own": self.PYTHON.format(name="own"),
                                                "conda": self.PYTHON.format(name="conda")})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(used, [f"own {self.install()}", "own -m deepetpicker --version"])
        self.assertTrue(ready)

    def test_conda_where_that_python_is_too_old(self):
        _, used, ready = self.make((3, 8), {"own": self.PYTHON.format(name="own"),
                                            "conda": self.PYTHON.format(name="conda")})
        self.assertEqual(used[0], f"conda {self.install()}")
        self.assertTrue(ready)

    def test_a_python_on_path_where_there_is_no_conda(self):
        _, used, ready = self.make((3, 8), {"python3.11": "exit 127", "python3.12": self.PYTHON.format(name="3.12")})
        self.assertEqual(used[0], f"3.12 {self.install()}")
        self.assertTrue(ready)

    def test_no_python_at_all(self):
        broken = {f"python3.{minor}": "exit 127" for minor in (9, 10, 11, 12)}
        done, used, ready = self.make((3, 8), broken)
        self.assertEqual((done.returncode != 0, used, ready), (True, [], False))
        self.assertIn("No Python 3.9 to 3.12 was found", done.stdout)

    def test_it_is_among_scipions_binaries(self):
        binaries = Words()
        Plugin.defineBinaries(binaries)
        self.assertEqual((binaries.name, binaries.settings["version"]), ("deepetpicker", __version__))
        self.assertFalse(binaries.settings["default"])
        self.assertTrue(pathlib.Path(binaries.settings["url"].partition("file:")[2]).is_file())
        if checkout.engineFolder():
            self.assertIn(f"install --editable {checkout.ROOT / 'engine'} ", binaries.settings["commands"][0][0])

    def test_the_engine_in_it_comes_from_where_ours_came_from(self):
        wheel = self.folder / "deepetpicker 1.whl"
        wheel.touch()
        gone = {"url": "file:///tmp/pip-req-build/engine"}
        repository = {"url": "https://example.org/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
        published = f"deepetpicker=={__version__}"
        cases = [({"url": wheel.as_uri()}, None, f"'{wheel}'"),
                 (gone, repository, "'git+https://example.org/r.git@abc#subdirectory=engine'"),
                 (gone, None, published), (None, None, published)]
        for ours, plugins, wanted in cases:
            with self.installed("deepetpicker", ours), self.installed(PLUGIN_DISTRIBUTION, plugins):
                self.assertEqual(installation.engineSource(self.folder), wanted)

    def test_it_is_used_once_it_is_finished(self):
        self.program(self.folder / "env" / "bin" / "python", "")
        with mock.patch.dict(Plugin.getVars(), DEEPETPICKER_HOME=str(self.folder), DEEPETPICKER_ENV_ACTIVATION=""):
            self.assertEqual(Plugin.getActivation(), "")
            (self.folder / installation.READY).touch()
            self.assertEqual(Plugin.getActivation(), f'export PATH={self.folder}/env/bin:"$PATH"')
            self.assertEqual(Plugin.getPython(), "python")
            Plugin.getVars()["DEEPETPICKER_ENV_ACTIVATION"] = ". /opt/env/bin/activate"
            self.assertEqual(Plugin.getActivation(), ". /opt/env/bin/activate")


class TestFolder(FolderTest):
    """An environment that is a folder and nothing else, on a machine without conda."""

    def setUp(self):
        super().setUp()
        self.addCleanup(installation.environmentVersion.cache_clear)
        installation.environmentVersion.cache_clear()
        self.python(f'exec {sys.executable} "$@"')
        (self.folder / installation.READY).touch()
        self.path = mock.patch.dict(os.environ, PATH="/usr/bin:/bin")
        self.path.start()
        self.addCleanup(self.path.stop)

    def python(self, text):
        """Give the folder a Python that says when it is used."""
        self.program(self.folder / "env" / "bin" / "python", f'echo "$*" >> {self.folder}/used\n{text}')

    def variables(self, home="", activation=""):
        """Set the plugin's variables."""
        return mock.patch.dict(Plugin.getVars(), DEEPETPICKER_HOME=home, DEEPETPICKER_ENV_ACTIVATION=activation)

    def uses(self):
        """Check the installation, start the engine and return what it says."""
        self.assertEqual(Plugin.validateInstallation(), [])
        script = process.writeScript(str(self.folder), ["--version"], Plugin)
        done = subprocess.run(["bash", script], check=True, timeout=60, capture_output=True, text=True)
        self.assertEqual(process.exitCode(str(self.folder)), 0)
        self.assertEqual((self.folder / "used").read_text("utf-8"), "-m deepetpicker --version\n" * 2)
        return done.stdout

    def test_the_one_below_the_home_is_found_and_used(self):
        with self.variables(home=str(self.folder)):
            self.assertIn(f"deepetpicker {__version__}", self.uses())

    def test_one_that_is_activated_by_its_own_script_is_used(self):
        (self.folder / "env" / "bin" / "activate").write_text(f"PATH={self.folder}/env/bin:$PATH\n", "utf-8")
        with self.variables(activation=f". {self.folder}/env/bin/activate"):
            self.assertIn(f"deepetpicker {__version__}", self.uses())

    def test_one_with_another_engine_or_none_is_refused_by_name(self):
        for text, found in (("echo deepetpicker 0.0.1", "deepetpicker 0.0.1"),
                            ("echo No module named deepetpicker >&2; exit 1", "No module named deepetpicker")):
            self.python(text)
            with self.variables(home=str(self.folder)):
                (error,) = Plugin.validateInstallation()
            self.assertIn(f"Expected the engine deepetpicker {__version__} in the environment that", error)
            self.assertIn(f"{self.folder}/env/bin", error)
            self.assertIn(f"found: {found}. Install it there", error)

    def test_a_folder_in_the_place_of_a_command_is_refused(self):
        with self.variables(activation=str(self.folder / "env")):
            (error,) = Plugin.validateInstallation()
        self.assertIn(f"{self.folder}/env: Is a directory", error)
        self.assertIn("correct DEEPETPICKER_ENV_ACTIVATION", error)

    def test_one_that_is_gone_is_not_used(self):
        (self.folder / "env" / "bin" / "python").unlink()
        with self.variables(home=str(self.folder)):
            self.assertEqual((Plugin.getActivation(), Plugin.getPython()), ("", sys.executable))
