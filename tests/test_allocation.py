"""Memory that stays with the process while a computation runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deepetpicker import allocation
from deepetpicker.allocation import memory_kept

MEASURE = """
import numpy as np
from deepetpicker.allocation import memory_kept

def resident():
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * 4096 // 2**20

with memory_kept() as can:
    before = resident()
    np.ones(48 << 20, np.uint8)
    inside = resident()
print(int(can), inside - before, inside - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_stays_in_the_block_and_goes_back_after_it():
    result = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    can, kept, given_back = (int(word) for word in result.stdout.split())
    if not can:
        pytest.skip("the C library is not glibc")
    assert kept >= 44
    assert given_back >= 44


def test_an_error_in_the_block_is_passed_on():
    with pytest.raises(ValueError, match="from inside"), memory_kept():
        raise ValueError("from inside")


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    with memory_kept() as can:
        assert not can
