"""The benchmark compares like with like: same model, same volume, picks that agree."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepetpicker.__main__ import main
from deepetpicker.benchmarking.baseline import (
    BORDER,
    TILE,
    pick_as_published,
    plain_logits,
    tile_peaks,
    tile_starts,
)
from deepetpicker.benchmarking.detector import blob_detector
from deepetpicker.benchmarking.run import detector_model, scan_flop
from deepetpicker.config import NetworkOptions, SimulateOptions
from deepetpicker.network.folded import FoldedResUNet
from deepetpicker.network.resunet import ResUNet3D, parameter_count
from deepetpicker.preparation.tiling import TilePlan
from deepetpicker.simulation import simulate


@pytest.mark.parametrize(("length", "count"), [(200, 5), (512, 11), (48, 1), (49, 2), (20, 1)])
def test_published_tiles_step_by_48(length, count):
    starts = tile_starts(length)
    assert len(starts) == count
    assert starts[0] == -BORDER
    assert starts[-1] + TILE - BORDER >= length


@pytest.mark.parametrize("plain", [{}, {"coordinates": False, "pyramid": False, "residual": False}])
def test_the_plain_network_computes_what_ours_does(plain):
    torch.manual_seed(0)
    network = ResUNet3D(NetworkOptions(n_classes=2, widths=(4, 6, 8, 10), **plain)).eval()
    patch = torch.randn(2, 1, 16, 24, 32)
    with torch.inference_mode():
        torch.testing.assert_close(plain_logits(network, patch), network(patch), atol=1e-5, rtol=1e-4)


def test_a_peak_on_the_tile_border_is_claimed_by_two_tiles():
    """The published border test keeps one plane too many; ours tiles exactly once (see test_tiling)."""
    probability = torch.zeros(1, TILE, TILE, TILE)
    probability[0, BORDER - 3:BORDER + 4, 33:40, 33:40] = 1
    shifted = torch.roll(probability, TILE - 2 * BORDER, 1)
    for tile in (probability, shifted):
        ((_, voxels, _),) = tile_peaks(tile, 3)
        assert len(voxels) == 1


@pytest.mark.long
def test_the_detector_is_the_full_network_and_finds_dark_blobs():
    network = blob_detector()
    assert parameter_count(network) == 2_429_845
    grid = np.indices((30, 40, 46)).astype(np.float32)
    volume = -4 * np.exp(-sum((g - c) ** 2 for g, c in zip(grid, (15, 20, 30))) / 30)
    picks = pick_as_published(network, volume.astype(np.float32), [12.0], torch.device("cpu"))
    assert len(picks) == 1
    np.testing.assert_allclose(picks[0, 1:4], [15, 20, 30], atol=1)


def test_flop_of_the_default_patch_and_less_where_less_is_kept():
    network = FoldedResUNet(blob_detector())
    one = scan_flop(network, TilePlan.cover((72, 72, 72), 72, 12))
    assert one == pytest.approx(105.4e9, rel=0.01)  # the published 109.2 without those of the coordinates
    two = scan_flop(network, TilePlan.cover((72, 72, 120), 72, 12))
    assert 1.8 * one < two < 2 * one


@pytest.mark.long
def test_one_json_object_with_agreeing_picks(tmp_path, capsys):
    """On a small network that answers as the one of full size, which is benchmarked without a model, does."""
    simulate(tmp_path, SimulateOptions(n=1, shape=(40, 48, 64), particles=8, phantoms=("ribosome",), voxel_size=13.3,
                                       snr=1.0, gold=0, membranes=0), quiet=True)
    model = detector_model(tmp_path, 13.3, NetworkOptions(widths=(4, 6, 8, 10)))
    capsys.readouterr()
    words = ["benchmark", str(model), str(tmp_path / "tomo_00.mrc")]
    status = main([*words, "--repeats", "1", "--json", "--device", "cpu"])
    result = json.loads(capsys.readouterr().out)
    assert status == 0
    assert result["agree"] is True
    assert result["ratio"] > 0
    assert result["ours_s"] > 0
    assert result["reference_s"] > 0
    assert set(result["where_s"]) == {"scan", "read", "network", "write", "post_processing"}
    assert min(result["picks"]) >= 3
