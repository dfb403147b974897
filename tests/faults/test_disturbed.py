"""A run that is disturbed in any way goes on, and ends as if nothing had happened."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from bench import Bench, half_written, orphans, result
from kinds import places, survive

from deepetpicker.io.manifest import Manifest

SAMPLE = (("SIGKILL", "pick"), ("SIGTERM", "annotate"), ("file size", "propose"), ("table damaged", "pick"),
          ("input changed", "pick"), ("reading hangs", "pick"), ("picks damaged", "report"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Data, a model and undisturbed runs."""
    return Bench(tmp_path_factory.mktemp("disturbed"), ["pick"])


@pytest.mark.long
@pytest.mark.parametrize(("kind", "verb"), SAMPLE)
def test_a_disturbed_run_goes_on_to_the_same_result(bench, kind, verb):
    assert survive(bench, kind, verb, np.random.default_rng(5)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("kind", "verb"), [pair for pair in places() if os.geteuid() == 0 or pair[0] != "full disk"])
def test_every_kind_of_fault_is_survived_everywhere(bench, kind, verb, seed):
    assert survive(bench, kind, verb, np.random.default_rng([seed, *kind.encode()])) == ""


@pytest.mark.long
def test_the_harness_sees_half_written_files_and_orphans(tmp_path):
    (tmp_path / "manifest.json").write_text('{"items": [')
    assert "manifest.json is not whole" in half_written(tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / ".manifest.1.json")
    (tmp_path / "t.csv").write_text("class,x,y,z,score\n1,2,3")
    assert "t.csv is not whole" in half_written(tmp_path)
    (tmp_path / "t.csv").unlink()
    (tmp_path / "t_regions.csv").write_text("x_min,y_min,z_min,x_max,y_max,z_max\n")
    assert half_written(tmp_path) == ""
    (tmp_path / "t_regions.csv").write_text("x_min,y_min,z_min,x_max,y_max,z_max\n1,2,3\n")
    assert "t_regions.csv is not whole" in half_written(tmp_path)
    process = subprocess.Popen(["bash", "-c", "sleep 4 &"], start_new_session=True)
    process.wait()
    assert orphans(process.pid).startswith("orphans: ")


def test_the_harness_does_not_count_what_a_killed_writer_left(tmp_path):
    found = tmp_path / "out" / "found"
    found.mkdir(parents=True)
    Manifest("propose", {}).write(found / "manifest.json")
    (found / "tomo_00.csv").write_text("x,y,z\n")
    before = result("propose", tmp_path)
    (found / ".tomo_00.7-ab.csv").write_text("x,y")
    assert result("propose", tmp_path) == before == ([], {"tomo_00.csv": b"x,y,z\n"})
