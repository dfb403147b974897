"""The network: the published one by default, each customisation an option."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from deepetpicker.config import NetworkOptions
from deepetpicker.network.folded import FoldedResUNet
from deepetpicker.network.resunet import (
    ResUNet3D,
    convolved_coordinates,
    coordinate_channels,
    halve,
    parameter_count,
    probabilities,
)

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


class PublishedUnit(torch.nn.Module):
    """A unit's layers, used as it is published: the coordinates concatenated, the bias added."""

    def __init__(self, unit):
        super().__init__()
        self.unit = unit

    def forward(self, x):
        if self.unit.coordinates:
            x = torch.cat([x, coordinate_channels(x)], 1)
        return functional.relu(self.unit.norm(self.unit.conv(x)))


class PublishedBlock(torch.nn.Module):
    """A block's layers, used as it is published: with the activation after the sum."""

    def __init__(self, block):
        super().__init__()
        self.units = torch.nn.ModuleList(PublishedUnit(unit) for unit in (block.unit1, block.unit2, block.unit3))
        self.activation, self.residual = block.activation, block.residual

    def forward(self, x):
        first = self.units[0](x)
        last = self.units[2](self.units[1](first))
        return self.activation(first + last if self.residual else last)


def published(network):
    """Return a network of the same layers, used as it is published."""
    theirs = copy.deepcopy(network)
    for blocks in (theirs.encoders, theirs.decoders):
        for k, block in enumerate(blocks):
            blocks[k] = PublishedBlock(block)
    return theirs


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("switch", [{}, {"residual": False, "activation": "leaky_relu"}, {"coordinates": False}])
def test_a_training_step_is_that_of_the_published_network(switch, layout):
    ours = network(**switch).double().train()
    theirs = published(ours)
    x, weight = torch.randn(2, 1, 8, 24, 16).double(), torch.randn(2, 1, 8, 24, 16).double()
    ours.to(memory_format=layout)
    out = ours(x.contiguous(memory_format=layout))
    (out * weight).sum().backward()
    expected = theirs(x)
    (expected * weight).sum().backward()
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-5, msg=name)
    for (name, mine), (_, other) in zip(ours.named_buffers(), theirs.named_buffers()):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("shape", [(3, 5, 9), (1, 4, 2)])
def test_convolved_coordinates_are_a_convolution_of_the_coordinates(shape):
    torch.manual_seed(2)
    weight = torch.randn(4, 3, 3, 3, 3, requires_grad=True)
    found = convolved_coordinates(weight, shape)
    channels = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")[::-1])[None]
    expected = functional.conv3d(channels, weight, padding=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    factor = torch.randn(found.shape)
    mine, = torch.autograd.grad((found * factor).sum(), weight)
    other, = torch.autograd.grad((expected * factor).sum(), weight)
    torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_halving_and_its_gradient_are_those_of_average_pooling():
    x = torch.randn(2, 3, 8, 12, 16, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(2, 3, 4, 6, 8)
    (halve(x) * weight).sum().backward()
    (functional.avg_pool3d(y, 2) * weight).sum().backward()
    torch.testing.assert_close(halve(x), functional.avg_pool3d(y, 2))
    torch.testing.assert_close(x.grad, y.grad)


def test_halving_in_bfloat16_is_average_pooling():
    x = torch.randn(1, 2, 8, 12, 16)
    torch.testing.assert_close(halve(x.bfloat16()).float(), halve(x), atol=0.02, rtol=0.02)


def test_a_patch_that_does_not_fit_the_levels_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        network()(torch.zeros(1, 1, 20, 24, 32))


@pytest.mark.parametrize("n_classes", [1, 3])
def test_an_untrained_network_expects_few_particles(n_classes):
    torch.manual_seed(0)
    network = ResUNet3D(NetworkOptions(n_classes=n_classes, widths=(4, 6)))
    with torch.no_grad():
        network.head.weight.zero_()
    network.expect(0.01)
    probability = probabilities(network(torch.randn(1, 1, 8, 10, 12)))
    assert probability.shape[1] == n_classes
    torch.testing.assert_close(probability, torch.full_like(probability, 0.01), rtol=1e-4, atol=1e-6)
