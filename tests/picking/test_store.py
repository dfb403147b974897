"""The probability map gives back what was written, in memory or from a scratch file."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from deepetpicker.errors import OutputError
from deepetpicker.picking.store import ProbabilityStore


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 30])
def test_strips_come_back(tmp_path, in_memory_bytes):
    volume = torch.from_numpy(np.random.default_rng(0).random((2, 11, 13, 17)).astype(np.float32))
    with ProbabilityStore(volume.shape, tmp_path, in_memory_bytes) as store:
        for z in (0, 5):
            for y in (0, 7):
                store.write(z, y, volume[:, z:z + 6 if z else 5, y:y + 7][:, :11 - z])
        for channel in (0, 1):
            np.testing.assert_allclose(store.read(channel, slice(0, 11), slice(0, 13)), volume[channel], atol=3e-4)
        np.testing.assert_allclose(store.read(1, slice(4, 6), slice(6, 9)), volume[1, 4:6, 6:9], atol=3e-4)
        assert store.on_disk == (in_memory_bytes == 0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_work_starts(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OutputError, match="free space"):
        ProbabilityStore((1, 10, 10, 10), tmp_path, 0)


def test_short_writes_are_completed_and_a_full_disk_is_told(tmp_path, monkeypatch):
    volume = torch.rand(1, 3, 5, 40)
    original = os.pwrite
    with ProbabilityStore(volume.shape, tmp_path, 0) as store:
        monkeypatch.setattr("os.pwrite", lambda file, data, at: original(file, data[:33], at))
        store.write(0, 0, volume)
        np.testing.assert_allclose(store.read(0, slice(0, 3), slice(0, 5)), volume[0], atol=3e-4)

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.pwrite", full)
        with pytest.raises(OutputError, match="No space left on device; free space"):
            store.write(0, 0, volume)
