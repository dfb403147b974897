"""Normalisation and ReLU in one step compute what PyTorch's own do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from deepetpicker.network.norm_relu import norm_relu


def features(channels=5, batch=2, shape=(6, 7, 9)):
    """Return features (B, C, Z, Y, X), stored channels last, whose channels differ in mean and spread."""
    torch.manual_seed(3)
    x = torch.randn(batch, channels, *shape) * torch.linspace(0.5, 3, channels).view(1, -1, 1, 1, 1)
    x += torch.linspace(-2, 2, channels).view(1, -1, 1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last_3d)


def normalisation(channels=5):
    """Return a batch normalisation whose weights are not those of a new one; one scale is negative."""
    torch.manual_seed(4)
    norm = nn.BatchNorm3d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize(("shape", "batch"), [((6, 7, 9), 2), ((8, 16, 8), 4), ((3, 5, 7), 1)])
def test_value_gradients_and_statistics_are_those_of_pytorch(shape, batch):
    x, ours = features(batch=batch, shape=shape).requires_grad_(), normalisation()
    theirs = copy.deepcopy(ours).double()
    weight = torch.randn(x.shape)
    out = norm_relu(x, ours)
    (out * weight).sum().backward()
    y = x.detach().double().requires_grad_()
    expected = functional.relu(theirs(y))
    (expected * weight.double()).sum().backward()
    assert type(out.grad_fn).__name__ == "_NormReluBackward"
    torch.testing.assert_close(out.double(), expected, atol=5e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad.double(), y.grad, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weight.grad.double(), theirs.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.bias.grad.double(), theirs.bias.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean.double(), theirs.running_mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, atol=1e-6, rtol=1e-5)
    assert int(ours.num_batches_tracked) == 1


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_a_bias_that_the_mean_takes_away_reaches_only_the_running_mean(layout):
    x, bias = features().contiguous(memory_format=layout), torch.linspace(-3, 3, 5).requires_grad_()
    ours = normalisation()
    theirs = copy.deepcopy(ours)
    expected = functional.relu(theirs(x + bias.detach().view(1, -1, 1, 1, 1)))
    out = norm_relu(x, ours, bias)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, atol=1e-6, rtol=1e-5)
    assert bias.grad.tolist() == [0.0] * 5


def test_in_evaluation_the_running_statistics_are_used_and_kept():
    x, norm = features(), normalisation().eval()
    norm.running_mean.normal_()
    before = norm.running_mean.clone()
    torch.testing.assert_close(norm_relu(x, norm), functional.relu(norm(x)))
    assert torch.equal(norm.running_mean, before)
