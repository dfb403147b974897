"""The network: the published one by default, each customisation an option."""

from __future__ import annotations

import pytest
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.models.folded import FoldedResUNet
from deepetpicker.models.resunet import ResUNet3D, coordinate_channels, halve, parameter_count, probabilities

SMALL = (4, 6, 8, 10)


def network(**options):
    """Return a small network with batch statistics that are not those of a new one."""
    torch.manual_seed(1)
    net = ResUNet3D(NetworkOptions(**{"widths": SMALL, **options})).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def test_published_parameter_count():
    assert parameter_count(ResUNet3D(NetworkOptions())) == 2_429_845


@pytest.mark.parametrize(("n_classes", "channels"), [(1, 1), (2, 3), (12, 13)])
def test_output_channels(n_classes, channels):
    with torch.inference_mode():
        logits = network(n_classes=n_classes)(torch.randn(2, 1, 16, 24, 32))
    assert logits.shape == (2, channels, 16, 24, 32)
    chance = probabilities(logits)
    assert chance.shape == (2, n_classes, 16, 24, 32)
    assert float(chance.sum(1).max()) <= 1 + 1e-6


@pytest.mark.parametrize("switch", [{}, {"residual": False}, {"coordinates": False}, {"pyramid": False},
                                    {"activation": "relu"}, {"widths": (4, 8)}, {"n_classes": 3},
                                    {"residual": False, "coordinates": False, "pyramid": False}])
def test_each_customisation_runs_and_folding_keeps_the_result(switch):
    net = network(**switch)
    x = torch.randn(2, 1, 16, 24, 32)
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(FoldedResUNet(net)(x), expected, atol=2e-5, rtol=1e-4)
        folded = FoldedResUNet(net).to(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(folded(x[:1]), expected[:1], atol=2e-5, rtol=1e-4)


def test_folded_network_serves_patches_of_several_shapes():
    net = network()
    folded = FoldedResUNet(net)
    with torch.inference_mode():
        for shape in ((16, 16, 24), (24, 16, 16), (16, 16, 24)):
            x = torch.randn(1, 1, *shape)
            torch.testing.assert_close(folded(x), net(x), atol=2e-5, rtol=1e-4)


def test_a_folded_network_may_move_between_two_patches():
    """What the coordinates add is kept for a shape, but belongs to a device and a number type."""
    folded, patch = FoldedResUNet(network()), torch.randn(1, 1, 16, 24, 32)
    with torch.inference_mode():
        before = folded(patch)
        after = folded.double()(patch.double())
        assert torch.allclose(before.double(), after, atol=1e-4)
        folded.to("meta")(patch.double().to("meta"))
    for block in folded.decoders:
        assert [bias.device.type for bias in block._bias_maps.values()] == ["meta"]


def test_switches_change_the_parameter_count_as_they_should():
    full = parameter_count(ResUNet3D(NetworkOptions()))
    plain = parameter_count(ResUNet3D(NetworkOptions(coordinates=False, pyramid=False, residual=False)))
    blocks = 24 + 48 + 72 + 108 + 72 + 48 + 24
    assert full - plain == 27 * (3 * blocks + 48 + 72 + 108)


def test_coordinates_run_from_minus_one_to_one_in_x_y_z_order():
    channels = coordinate_channels(torch.zeros(2, 1, 3, 5, 9))
    assert channels.shape == (2, 3, 3, 5, 9)
    torch.testing.assert_close(channels[0, 0, 0, 0], torch.linspace(-1, 1, 9))
    torch.testing.assert_close(channels[1, 1, 0, :, 0], torch.linspace(-1, 1, 5))
    torch.testing.assert_close(channels[0, 2, :, 0, 0], torch.linspace(-1, 1, 3))


def test_halving_in_bfloat16_is_average_pooling():
    x = torch.randn(1, 2, 8, 12, 16)
    torch.testing.assert_close(halve(x.bfloat16()).float(), halve(x), atol=0.02, rtol=0.02)


def test_a_patch_that_does_not_fit_the_levels_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        network()(torch.zeros(1, 1, 20, 24, 32))
