"""A Scipion of their own for the plugin's tests: nothing of the user's is touched, and nothing leaves the machine.

It stands here and not beside those tests because importing their package already imports pyworkflow, which reads its
settings once.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
from typing import List

import pytest

# The queue exists only where a test puts its commands on PATH; without a queue in a form it is never asked.
HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s
NAME = SLURM
MANDATORY = 0
SUBMIT_COMMAND = sbatch %_(JOB_SCRIPT)s
CANCEL_COMMAND = scancel %_(JOB_ID)s
CHECK_COMMAND = squeue -h -j %_(JOB_ID)s -o %%T
SUBMIT_TEMPLATE = #!/bin/bash
    ##SBATCH --gres=gpu:%_(GPU_COUNT)s
    ##SBATCH --output=%_(JOB_LOGS)s.out
    ##SBATCH --error=%_(JOB_LOGS)s.err
    %_(JOB_COMMAND)s
QUEUES = {"gpu": [["QUEUE_FOR_JOBS", "N", "Use queue for jobs", "Send each job to the queue?"]]}
QUEUES_DEFAULT = {}
"""
ROOT = pathlib.Path(__file__).resolve().parent
HOME = tempfile.mkdtemp(prefix="scipion_test_")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
sys.path.append(str(ROOT / "tests"))
warm = importlib.import_module("warm").WarmPython(HOME) if hasattr(os, "pidfd_open") else None


def set_up_scipion(home: str) -> None:
    """Point this process and its children to an empty Scipion home; must run before pyworkflow is imported."""
    config = pathlib.Path(home, "config")
    config.mkdir(parents=True)
    pathlib.Path(home, "user").mkdir()
    (config / "scipion.conf").write_text("[PYWORKFLOW]\nSCIPION_NOTIFY = False\n", encoding="utf-8")
    (config / "hosts.conf").write_text(HOSTS, encoding="utf-8")
    os.environ.update(
        SCIPION_PYTHON=warm.path if warm else sys.executable,
        SCIPION_DOMAIN="pwem", SCIPION_PRIORITY_PACKAGE_LIST="pwem tomo", SCIPION_HOME=home,
        SCIPION_USER_DATA=os.path.join(home, "user"), SCIPION_CONFIG=str(config / "scipion.conf"),
        SCIPION_HOSTS=str(config / "hosts.conf"), SCIPION_NOTIFY="False", SCIPION_TEST_NOSYNC="True",
        OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(ROOT / "engine"), str(ROOT)]),
        PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])


def pytest_report_header(config: pytest.Config) -> List[str]:
    """Say before the first test what will not be tested here, and how to get it."""
    left_out = str(config.getoption("markexpr"))
    scipion, slow = "not scipion" not in left_out, "not slow" not in left_out
    gpu = os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi")
    lacking = (
        (not scipion, "the plugin: make test"),
        (not shutil.which("Xvfb"), "windows, viewers, wizards (skipped), which need a virtual screen: install Xvfb "
         "(Debian: apt install xvfb)"),
        (shutil.which("Xvfb") and not shutil.which("xdotool"), "a window that the command opens (skipped), which needs "
         "hands: install xdotool (Debian: apt install xdotool)"),
        (scipion and not importlib.util.find_spec("emantomo"), "handing picks over (skipped), which needs other "
         "plugins: install the extra 'test'"),
        (not importlib.util.find_spec("distributed"), "picking on a cluster (skipped), which needs dask: install the "
         "engine's extra 'cluster'"),
        (slow and importlib.import_module("slurm").missing(), "jobs of a queue (skipped), which need SLURM, and root "
         "to start it (Debian: apt install slurm-wlm munge)"),
        (slow and not (shutil.which("chromium") or shutil.which("google-chrome")), "pages in a browser (skipped), "
         "which need Chromium (Debian: apt install chromium)"),
        (not gpu, "GPUs, there is none here: on a machine with one, python benchmarks/gpu.py compares it with the CPU"),
        ("not long" in left_out, "what is marked long: make test"),
        (not slow, "what is marked slow, some of which needs the package index: make test-slow"),
    )
    return [f"not tested here: {what}" for missing, what in lacking if missing]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process more than there are cores, as protocols often wait; each costs the import of torch."""
    return (os.cpu_count() or 1) + ("not scipion" not in str(config.getoption("markexpr")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Load Scipion and torch once for all protocols, before the first test that starts one."""
    if warm and hasattr(getattr(item, "cls", None), "launchProtocol"):
        warm.start()


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Give the plugin's tests their marks, as they cannot import pytest (Scipion's own test runner has none); sort.

    Files with tests that take long come first, so that at the end quick ones fill all processes.
    """
    for item in items:
        if ROOT / "deepetpicker_plugin" in item.path.parents:
            item.add_marker(pytest.mark.scipion)
        if getattr(getattr(item, "cls", None), "isGui", False):
            item.add_marker(pytest.mark.gui)
        if getattr(getattr(item, "function", None), "isSlow", False):
            item.add_marker(pytest.mark.slow)
    lasting = {item.path for item in items if any(map(item.get_closest_marker, ("slow", "long", "scipion")))}
    items.sort(key=lambda item: item.path not in lasting)


set_up_scipion(HOME)
