"""A network of full size whose weights are set, not trained: it answers to dark compact particles.

Timing needs no trained model, but two pickers can only be compared on picks that exist. One channel smooths the
inverted density, and the head turns it into a probability. The others hold random features that reach neither: on
zeros some processors run faster.
"""

from __future__ import annotations

import torch
from torch import nn

from deepetpicker.config import NetworkOptions
from deepetpicker.network.resunet import ResidualBlock, ResUNet3D


def blob_detector(threshold: float = 1.2, sharpness: float = 6.0,
                  options: NetworkOptions = NetworkOptions()) -> ResUNet3D:
    """Return a network for one class, in evaluation mode, as a detector of dark blobs.

    Parameters
    ----------
    threshold : float
        Smoothed inverted density, in standard deviations, at which the probability is one half.
    sharpness : float
        How steeply the probability rises there.
    options : NetworkOptions
        Of the network; by default it has full size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResUNet3D(options).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.weight[0].zero_()
                module.bias[0] = 0  # type: ignore[index]
            if isinstance(module, nn.ConvTranspose3d):
                module.weight[:, 0].zero_()
                module.bias[0] = 0  # type: ignore[index]
        _smooth(network.encoders[0], -1.0)
        _smooth(network.decoders[-1], 1.0)
        network.head.weight[0, 0] = sharpness
        network.head.bias.fill_(-sharpness * threshold)  # type: ignore[union-attr]
    return network


def _smooth(block: nn.Module, sign: float) -> None:
    """Make channel 0 of a block twice the mean over 3^3 voxels of channel 0 of its input; sign -1 inverts it."""
    assert isinstance(block, ResidualBlock)
    for number, unit in enumerate((block.unit1, block.unit2, block.unit3)):
        centre = unit.conv.weight[0, 0]
        if number == 0:
            centre.fill_(sign / 27)
        else:
            centre[1, 1, 1] = 1.0
