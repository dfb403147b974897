"""A run that is killed at any moment goes on, and ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess

import numpy as np
import pytest
from kill import SIGNALS, Bench, half_written, orphans


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Data, a model and undisturbed runs."""
    return Bench(tmp_path_factory.mktemp("killed"))


@pytest.mark.long
@pytest.mark.parametrize(("verb", "number"), [("pick", signal.SIGKILL), ("train", signal.SIGTERM)])
def test_a_killed_run_goes_on_to_the_same_result(bench, verb, number):
    assert bench.survive(verb, number, np.random.default_rng(5)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", ["pick", "train"])
@pytest.mark.parametrize("seed", range(5))
def test_many_killed_runs_go_on_to_the_same_result(bench, verb, number, seed):
    assert bench.survive(verb, number, np.random.default_rng([seed, number])) == ""


def test_the_harness_sees_half_written_files_and_orphans(tmp_path):
    (tmp_path / "manifest.json").write_text('{"items": [')
    assert "manifest.json is not whole" in half_written(tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / ".manifest.1.json")
    (tmp_path / "t.csv").write_text("class,x,y,z,score\n1,2,3")
    assert "t.csv is not whole" in half_written(tmp_path)
    process = subprocess.Popen(["bash", "-c", "sleep 4 &"], start_new_session=True)
    process.wait()
    assert orphans(process.pid).startswith("orphans: ")
