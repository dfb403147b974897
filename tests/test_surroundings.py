"""A command among odd surroundings: streams that are closed, a home that is not there, a locale without its letters."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any, Dict

import numpy as np
import pytest

from deepetpicker.io.coordinates import CoordinateTable, write_coordinates

NAME = "\u7c92\u5b50"


def run(work: pathlib.Path, shell: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which ``$D`` is the command."""
    kept: Dict[str, Any] = {key: value for key, value in os.environ.items() if key not in ("HOME", "TMPDIR")}
    return subprocess.run(["sh", "-c", f"D='{sys.executable} -m deepetpicker'; {shell}"], cwd=work, check=False,
                          env={**kept, **variables}, capture_output=True, text=True, encoding="utf-8", timeout=100)


@pytest.fixture
def work(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with two equal tables and a file whose name is not of ASCII."""
    for name in ("a", NAME):
        write_coordinates(tmp_path / f"{name}.csv", CoordinateTable.from_positions(np.array([[8.0, 12, 10]])))
    return tmp_path


COMPARE = "$D compare a.csv a.csv --radius-angstrom 10 --voxel-size 10 --out both"


@pytest.mark.parametrize(("streams", "out"), [
    (">&-", ""), ("2>&-", "1 in both, 0 only in A, 0 only in B\n"), ("<&- >&- 2>&-", ""),
    ("<&-", "1 in both, 0 only in A, 0 only in B\n")])
def test_closed_streams_do_no_harm(work: pathlib.Path, streams: str, out: str):
    done = run(work, f"{COMPARE} {streams}")
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")
    assert (work / "both" / "a_both.csv").read_text().count("\n") == 2


def test_an_error_without_a_standard_error_keeps_its_status(work: pathlib.Path):
    assert run(work, "$D compare a.csv no.csv --out both 2>&-").returncode == 2


def test_a_reader_that_goes_away_ends_help_without_a_word(work: pathlib.Path):
    done = run(work, "$D --help | head -1")
    assert done.stdout.startswith("usage: deepetpicker")
    assert done.stderr == ""


@pytest.mark.long
@pytest.mark.parametrize("variables", [
    {}, {"HOME": "/nowhere", "TMPDIR": "/nowhere"}, {"HOME": "", "TMPDIR": "rel"}, {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_home_temporary_folder_and_locale_do_not_matter(work: pathlib.Path, variables: Dict[str, str]):
    words = f"compare {NAME}.csv {NAME}.csv --radius-angstrom 10 --voxel-size 10 --out"
    done = run(work, f"umask 077; $D {words} {NAME}", **variables)
    assert (done.returncode, done.stdout) == (0, "1 in both, 0 only in A, 0 only in B\n")
    made = work / NAME / f"{NAME}_both.csv"
    assert made.is_file()
    assert made.stat().st_mode & 0o777 == 0o600
    assert run(work, f"$D {words} {NAME}.csv", **variables).returncode == 2
