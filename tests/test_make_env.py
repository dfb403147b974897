"""The environment maker: which Python, which torch, when an environment is used again, what an error says."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from typing import Any, Callable, List, Tuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A Python that makes environments of nothing but itself, and notes what pip is asked to install in them.
STAND_IN = """#!/bin/sh
case "$*" in
*"import ensurepip"*) echo 3.11.7 ;;
"-m venv"*) for path; do :; done; mkdir -p "$path/bin" && cp "$0" "$path/bin/python" ;;
"-m pip"*) echo "$*" >> "{pip}"; {then} ;;
*"v('torch')"*) echo 2.13.0+cpu ;;
esac
"""


def maker_of(root: pathlib.Path) -> types.ModuleType:
    """Return scripts/make_env.py of a checkout as a module."""
    spec = importlib.util.spec_from_file_location("make_env", root / "scripts/make_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return scripts/make_env.py as a module, with none of its variables set."""
    monkeypatch.delenv("TORCH_BUILD", raising=False)
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    return maker_of(ROOT)


class Pip:
    """What was installed so far by the Python that stands in."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.log = folder, folder / "asked"

    def does(self, command: str) -> None:
        """Let every installation end with a shell command."""
        python = self.folder / "python"
        python.write_text(STAND_IN.format(pip=self.log, then=command), "utf-8")
        python.chmod(0o755)

    @property
    def asked(self) -> List[str]:
        """The commands so far."""
        return self.log.read_text("utf-8").splitlines() if self.log.exists() else []


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Pip:
    """Run with a Python that stands in."""
    pip = Pip(tmp_path)
    pip.does("true")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return pip


def machine(monkeypatch: pytest.MonkeyPatch, path: pathlib.Path, status: int) -> None:
    """Look like a machine whose only sign of a GPU is a tool that ends with a status."""
    tool = path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/dev/nvidia0" and exists(path))


class FakeSteps:
    """Answers each command with the next of the given results and remembers the commands."""

    def __init__(self, *results: Tuple[int, str]) -> None:
        self.results, self.commands, self.number, self.log = list(results), [], 0, pathlib.Path("log")

    def run(self, title: str, command: List[str]) -> Tuple[int, str]:
        self.commands.append(command)
        return self.results.pop(0)


@pytest.mark.parametrize(("asked", "gpu", "platform", "build"), [
    (None, False, "linux", "cpu"), (None, True, "linux", "default"), ("auto", True, "linux", "default"),
    ("cpu", True, "linux", "cpu"), ("default", False, "linux", "default"), (None, False, "darwin", "default"),
])
def test_build_suits_the_machine(maker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, asked: Any,
                                 gpu: bool, platform: str, build: str):
    machine(monkeypatch, tmp_path, 0 if gpu else 9)
    monkeypatch.setattr(sys, "platform", platform)
    if asked:
        monkeypatch.setenv("TORCH_BUILD", asked)
    assert maker.choose_build()[0] == build


def test_unknown_build_is_refused(maker: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_BUILD", "cuda")
    with pytest.raises(maker.EnvError, match="TORCH_BUILD must be auto, cpu or default, got 'cuda'"):
        maker.choose_build()


@pytest.mark.parametrize(("status", "found"), [(0, True), (9, False)])
def test_gpu_by_a_tool_that_answers(maker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, status: int,
                                    found: bool):
    machine(monkeypatch, tmp_path, status)
    assert maker.has_gpu() is found


def test_cpu_build_comes_from_the_users_index_when_it_has_one(maker: Any):
    steps = FakeSteps((0, ""))
    assert maker.install_torch(steps, ["pip"], "cpu", "2.13.0") == "the configured package index"
    assert steps.commands == [["pip", "torch==2.13.0+cpu"]]


def test_cpu_build_comes_from_pytorch_otherwise(maker: Any):
    steps = FakeSteps((1, "ERROR: No matching distribution found for torch==2.13.0+cpu"), (0, ""))
    assert maker.install_torch(steps, ["pip"], "cpu", "2.13.0") == maker.TORCH_INDEX
    assert steps.commands[1] == ["pip", "torch==2.13.0+cpu", "--index-url", maker.TORCH_INDEX]


def test_a_named_index_is_the_only_one_asked(maker: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    steps = FakeSteps((0, ""))
    assert maker.install_torch(steps, ["pip"], "cpu", "2.13.0") == "https://example.org/cpu"
    assert steps.commands == [["pip", "torch==2.13.0+cpu", "--index-url", "https://example.org/cpu"]]


def test_default_build_refuses_a_cpu_wheel(maker: Any):
    steps = FakeSteps((0, ""))
    maker.install_torch(steps, ["pip"], "default", "2.13.0")
    assert steps.commands == [["pip", "torch===2.13.0"]]


@pytest.mark.parametrize(("output", "advice"), [
    ("OSError: [Errno 28] No space left on device", "The disk is full"),
    ("Max retries exceeded with url", "check the network and the proxy"),
    ("something else", "Run the same command again"),
])
def test_other_errors_are_not_tried_elsewhere(maker: Any, output: str, advice: str):
    steps = FakeSteps((1, f"first line\n{output}\n"))
    with pytest.raises(maker.EnvError) as caught:
        maker.install_torch(steps, ["pip"], "cpu", "2.13.0")
    assert output in str(caught.value)
    assert advice in str(caught.value)
    assert len(steps.commands) == 1


def test_no_build_anywhere_says_what_to_do(maker: Any):
    steps = FakeSteps(*[(1, "ERROR: No matching distribution found")] * 2)
    with pytest.raises(maker.EnvError, match="set TORCH_INDEX to an index that has one, or TORCH_BUILD=default"):
        maker.install_torch(steps, ["pip"], "cpu", "2.13.0")


def test_a_python_that_is_too_new_gives_way_to_one_on_the_path(maker: Any, monkeypatch: pytest.MonkeyPatch,
                                                               tmp_path: pathlib.Path,
                                                               capsys: pytest.CaptureFixture[str]):
    (tmp_path / "python3.11").write_text("#!/bin/sh\necho broken shim >&2; exit 127\n")
    (tmp_path / "python3.12").write_text("#!/bin/sh\necho 3.12.4\n")
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert maker.choose_python() == (str(tmp_path / "python3.12"), "3.12.4")
    assert "taking" in capsys.readouterr().out


def test_no_python_says_what_was_expected(maker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    with pytest.raises(maker.EnvError, match=r"Expected Python 3\.9 to 3\.12 with its venv module, found"):
        maker.choose_python()


def finished(maker: Any, path: pathlib.Path, **changes: Any) -> None:
    """Write what a finished environment has; its Python is the one that runs."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(sys.executable, path / "bin/python")
    for name, folder in maker.FOLDERS.items():
        information = path / f"lib/python3.11/site-packages/{name.replace('-', '_')}-0.1.0.dist-info"
        information.mkdir(parents=True)
        (information / "direct_url.json").write_text(json.dumps({"url": folder.as_uri()}))
    version = maker.choose_python()[1]
    (path / maker.STAMP).write_text(json.dumps({"key": maker.environment_key(version), "extras": ["scipion", "test"],
                                                "build": "cpu", "torch": "2.13.0+cpu", **changes}))


def test_a_finished_environment_is_used_again(maker: Any, tmp_path: pathlib.Path,
                                                      capsys: pytest.CaptureFixture[str]):
    finished(maker, tmp_path / "env")
    assert maker.main(["--path", str(tmp_path / "env")]) == 0
    assert "Reusing" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"key": "old"}, {"damaged": True}])
def test_a_changed_or_damaged_environment_is_made_anew(maker: Any, pip: Pip, monkeypatch: pytest.MonkeyPatch,
                                                       tmp_path: pathlib.Path, changes: Any):
    monkeypatch.setenv("TORCH_BUILD", "cpu")
    finished(maker, tmp_path / "env", **changes)
    if "damaged" in changes:
        (tmp_path / "env/bin/python").unlink()
    assert maker.main(["--path", str(tmp_path / "env")]) == 0
    assert [words.split()[-1] for words in pip.asked] == ["torch==2.13.0+cpu", "wheel", f"{ROOT}[scipion,test]",
                                                          f"{ROOT / 'engine'}[zarr,cluster]"]
    stamp = json.loads((tmp_path / "env" / maker.STAMP).read_text())
    assert (stamp["extras"], stamp["build"], stamp["torch"]) == (["scipion", "test"], "cpu", "2.13.0+cpu")


def move_engine(root: pathlib.Path) -> None:
    (root / "engine/deepetpicker").rename(root / "deepetpicker")


def raise_version(root: pathlib.Path) -> None:
    path = root / "engine/deepetpicker/__init__.py"
    path.write_text(path.read_text("utf-8").replace("__version__ = ", "__version__ = 'next' or "), "utf-8")


def add_requirement(root: pathlib.Path) -> None:
    path = root / "engine/setup.py"
    path.write_text(path.read_text("utf-8").replace('"tqdm', '"one-more",\n    "tqdm'), "utf-8")


def move_checkout(root: pathlib.Path) -> None:
    root.rename(root.parent / "moved")


@pytest.mark.parametrize("change", [move_engine, raise_version, add_requirement, move_checkout])
def test_the_key_knows_layout_version_requirements_and_place(maker: Any, tmp_path: pathlib.Path,
                                                             change: Callable[..., None]):
    """What an environment holds would be wrong after each of these, so it must be made anew."""
    root = tmp_path / "checkout"
    for name in (*maker.HASHED, "engine/deepetpicker/__init__.py", "deepetpicker_plugin/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    before = maker_of(root).environment_key("3.11.7")
    assert maker_of(root).environment_key("3.11.7") == before
    change(root)
    assert maker_of(root if root.exists() else tmp_path / "moved").environment_key("3.11.7") != before


@pytest.mark.parametrize("url", [None, "file:///elsewhere/engine"])
def test_an_engine_from_elsewhere_is_replaced(maker: Any, pip: Pip, tmp_path: pathlib.Path,
                                              capsys: pytest.CaptureFixture[str], url: Any):
    """An environment that lacks the engine of this checkout is repaired without installing torch again."""
    finished(maker, tmp_path / "env")
    record = next((tmp_path / "env").glob("lib/python3*/site-packages/deepetpicker-*.dist-info/direct_url.json"))
    if url:
        record.write_text(json.dumps({"url": url}))
    else:
        shutil.rmtree(record.parent)
    assert maker.main(["--path", str(tmp_path / "env")]) == 0
    assert [words.split()[-1] for words in pip.asked] == [f"{ROOT}[scipion,test]", f"{ROOT / 'engine'}[zarr,cluster]"]
    assert f"--editable {ROOT / 'engine'} " in pip.asked[0]
    assert f"deepetpicker must be installed from {maker.ROOT}" in capsys.readouterr().err


@pytest.mark.parametrize(("install", "words", "what"), [
    ([], ["--no-build-isolation", "--editable", str(ROOT / "engine"), "--editable", f"{ROOT}[scipion,test]"],
     "engine and plugin[scipion,test], in place"),
    (["/d/deepetpicker.whl", "/d/plugin.whl"], ["/d/deepetpicker.whl", "/d/plugin.whl"],
     "deepetpicker.whl and plugin.whl"),
])
def test_both_distributions_are_installed_at_once(maker: Any, install: List[str], words: List[str], what: str):
    steps = FakeSteps((1, "no"))
    with pytest.raises(maker.EnvError) as caught:
        maker.install_package(steps, ["/e/bin/python", "pip"], ["scipion", "test"], install)
    assert f"Installing {what} failed" in str(caught.value)
    assert steps.commands == [["/e/bin/python", "pip", "--constraint", "/e/constraints.txt", *words]]


def test_the_engines_extras_come_after_the_rest_whose_versions_stay(maker: Any, tmp_path: pathlib.Path):
    steps, kept = FakeSteps((0, ""), (1, "no")), tmp_path / "kept.txt"
    pip = [sys.executable, "-m", "pip"]
    maker.install_optional(steps, pip, tmp_path / "constraints.txt")
    assert steps.commands == [[*pip, "--constraint", str(kept), "--no-build-isolation", "--editable",
                               f"{ROOT / 'engine'}[zarr,cluster]"]]
    lines = kept.read_text().splitlines()
    assert f"pytest=={pytest.__version__}" in lines
    assert not [line for line in lines if "deepet" in line]
    with pytest.raises(maker.EnvError, match="Installing the engine's extras failed"):
        maker.install_optional(steps, pip, tmp_path / "constraints.txt")


@pytest.mark.parametrize(("extras", "install", "takes"), [
    (["scipion", "test"], [], True), (["scipion"], [], False), (["test"], ["/d/engine.whl"], False)])
def test_the_engines_extras_are_for_the_tests(maker: Any, extras: List[str], install: List[str], takes: bool):
    assert maker.takes_optional(extras, install) is takes


def test_another_torch_build_is_made_anew(maker: Any, pip: Pip, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: pathlib.Path):
    finished(maker, tmp_path / "env")
    monkeypatch.setenv("TORCH_BUILD", "default")
    maker.make(tmp_path / "env", ["test"])
    assert pip.asked[0].split()[-1] == "torch===2.13.0"
    assert json.loads((tmp_path / "env" / maker.STAMP).read_text())["build"] == "default"


def test_missing_extras_are_added(maker: Any, pip: Pip, tmp_path: pathlib.Path):
    finished(maker, tmp_path / "env")
    maker.make(tmp_path / "env", ["test", "dev"])
    assert [words.split()[-1] for words in pip.asked] == [f"{ROOT}[dev,scipion,test]",
                                                          f"{ROOT / 'engine'}[zarr,cluster]"]
    maker.make(tmp_path / "env", ["dev"])
    assert len(pip.asked) == 2


def test_a_failure_leaves_no_stamp(maker: Any, pip: Pip, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    finished(maker, tmp_path / "env", key="old")
    pip.does("echo pip said no; exit 1")
    assert maker.main(["--path", str(tmp_path / "env")]) == 1
    assert "\npip said no\n\nInstalling torch" in capsys.readouterr().err
    assert not (tmp_path / "env" / maker.STAMP).exists()


def test_two_at_once_wait_for_each_other(maker: Any, tmp_path: pathlib.Path):
    order: List[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait()
        with maker.locked(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with maker.locked(tmp_path):
        entered.set()
        time.sleep(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_step_shows_its_time_and_keeps_the_output(maker: Any, tmp_path: pathlib.Path,
                                                    capsys: pytest.CaptureFixture[str]):
    steps = maker.Steps(2, tmp_path / "log")
    status, output = steps.run("say a word", [sys.executable, "-c", "import sys; print('word'); sys.exit(3)"])
    assert (status, output) == (3, "word\n")
    assert "word" in (tmp_path / "log").read_text()
    shown = capsys.readouterr().err
    assert "[1/2] say a word ..." in shown
    assert "[1/2] say a word: failed, " in shown


def test_an_interrupted_step_ends_its_command(maker: Any, pip: Pip, tmp_path: pathlib.Path,
                                              capsys: pytest.CaptureFixture[str]):
    pid = tmp_path / "pid"
    pip.does(f"echo $$ > '{pid}.part'; mv '{pid}.part' '{pid}'; exec sleep 60")

    def interrupt() -> None:
        while not pid.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert maker.main(["--path", str(tmp_path / "env")]) == 130
    assert "the next run makes it anew" in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.long
def test_a_step_that_is_interrupted_as_it_begins_ends_its_command_too(maker: Any, pip: Pip, tmp_path: pathlib.Path,
                                                                      monkeypatch: pytest.MonkeyPatch):
    pid = tmp_path / "pid"
    pip.does(f"echo $$ > '{pid}.part'; mv '{pid}.part' '{pid}'; exec sleep 60")

    def start(reader: threading.Thread) -> None:
        for _ in range(100):
            if pid.exists():
                raise KeyboardInterrupt
            time.sleep(0.02)
        begin(reader)  # of a step before pip's

    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    assert maker.main(["--path", str(tmp_path / "env")]) == 130
    monkeypatch.undo()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_pip_does_not_see_variables_that_lead_it_astray(maker: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org")
    environ = maker.clean_environ()
    assert "PYTHONPATH" not in environ
    assert "PIP_TARGET" not in environ
    assert environ["PIP_INDEX_URL"] == "https://example.org"


@pytest.mark.parametrize("words", [["--help"], ["--nonsense"]])
def test_it_needs_nothing_but_the_standard_library(words: List[str]):
    done = subprocess.run([sys.executable, "-I", "-S", str(ROOT / "scripts/make_env.py"), *words], capture_output=True,
                          text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == (0 if words == ["--help"] else 2)
    assert "--extras" in done.stdout + done.stderr
