"""What the process holds, and memory that stays with it, or goes back, while a computation runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deepetpicker import memory
from deepetpicker.memory import MIB, freed_memory, resident_bytes

MEASURE = """
import sys
import numpy as np
from deepetpicker.memory import MIB, freed_memory, resident_bytes

with freed_memory(kept=sys.argv[1] == "kept") as can:
    before = resident_bytes()
    np.ones(int(sys.argv[2]) * MIB, np.uint8)
    inside = resident_bytes()
print(int(can), (inside - before) // MIB, (inside - resident_bytes()) // MIB)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("how", "size", "kept"), [("kept", 48, True), ("kept", 8, True), ("back", 48, False),
                                                   ("back", 8, False)])
def test_freed_memory_stays_in_the_block_or_goes_back_at_once(how, size, kept):
    result = subprocess.run([sys.executable, "-c", MEASURE, how, str(size)], capture_output=True, text=True, check=True)
    can, held, given_back = (int(word) for word in result.stdout.split())
    if not can:
        pytest.skip("the C library is not glibc")
    assert (held >= size - 4) == kept
    assert not kept or given_back >= size - 4


def test_an_error_in_the_block_is_passed_on():
    with pytest.raises(ValueError, match="from inside"), freed_memory():
        raise ValueError("from inside")


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with freed_memory() as can:
        assert not can


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_this_process_knows_its_memory():
    before = resident_bytes()
    held = b"x" * (200 * MIB)
    assert resident_bytes() >= before + 190 * MIB
    assert resident_bytes(peak=True) >= resident_bytes() - 50 * MIB
    assert len(held) == 200 * MIB


LITTLE = """
import resource
import numpy as np
from deepetpicker.memory import MIB, take_blas_memory

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {spare} * MIB,) * 2)
take_blas_memory()
print((np.ones((300, 300), np.float32) @ np.ones((300, 300), np.float32)).sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")
@pytest.mark.parametrize(("spare", "told"), [(10, "Cannot allocate memory"), (300, "27000000.0")])
def test_a_matrix_product_with_too_little_memory_is_an_error_and_no_wait_without_end(spare, told):
    words = [sys.executable, "-c", LITTLE.format(spare=spare)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert told in done.stdout + done.stderr


VERB = """
import resource, sys
import deepetpicker.evaluation.run, deepetpicker.report.run
from deepetpicker.__main__ import main
from deepetpicker.memory import MIB

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10 * MIB,) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")
def test_verbs_with_too_little_memory_end_with_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,score\n1,2,3,0.5\n4,5,6,0.7\n")
    (tmp_path / "classes.json").write_text(
        '{"voxel_size_angstrom": 10.0, "classes": [{"id": 1, "name": "ring", "diameter_angstrom": 80}]}')
    words = ["evaluate", "--truth", str(tmp_path), "--picks", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run([sys.executable, "-c", VERB, *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "evaluate: error: not enough memory" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")
@pytest.mark.parametrize(("words", "mib", "threads"), [
    (("check", "--data", "."), 100, 2), (("check", "--data", "."), 130, 8), (("evaluate", "--truth", "."), 100, 8),
    (("pick", "m", "a.mrc", "--out", "o"), 330, 2), (("propose", "a.mrc", "--out", "o"), 550, 2),
    (("train", "--data", ".", "--out", "m"), 700, 1)])
def test_a_command_with_little_memory_from_its_start_ends(tmp_path, words, mib, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    limits = f"ulimit -v {mib * 1024}; exec \"$@\""
    done = subprocess.run(["sh", "-c", limits, "sh", sys.executable, "-m", "deepetpicker", *words], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{words[0]}: error: not enough memory" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")
@pytest.mark.parametrize(("limits", "low", "high"), [("ulimit -v 400000", 150, 391), ("ulimit -v unlimited", 0, 0)])
def test_the_room_that_a_limit_leaves_is_told(limits, low, high):
    code = "from deepetpicker.memory import MIB, room_bytes; print(room_bytes() / MIB)"
    done = subprocess.run(["sh", "-c", f'{limits}; exec "$@"', "sh", sys.executable, "-c", code], capture_output=True,
                          text=True, check=True)
    assert low <= float(done.stdout) <= high
