"""The network made ready for inference: same function, less work.

Batch normalisation is folded into the convolutions, and the coordinate channels, which are the same for every patch of
a shape, into a bias map that is computed once: a convolution is linear, so convolving ``[x, coordinates]`` is
convolving ``x`` and adding what the coordinates give.
"""

from __future__ import annotations

import copy
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepetpicker.models.resunet import ResidualBlock, ResUNet3D, coordinate_channels, halve


class FoldedBlock(nn.Module):
    """A :class:`~deepetpicker.models.resunet.ResidualBlock` with everything foldable folded."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        units = (block.unit1, block.unit2, block.unit3)
        self.conv1, self.conv2, self.conv3 = (fuse_conv_bn_eval(u.conv, u.norm) for u in units)  # type: ignore[arg-type]
        self.residual, self.activation = block.residual, copy.deepcopy(block.activation)
        if hasattr(self.activation, "inplace"):
            self.activation.inplace = True
        self.coordinate_weight: Optional[nn.Parameter] = None
        self._bias_maps: Dict[Tuple[int, ...], Tensor] = {}
        if block.coordinates:
            weight = self.conv1.weight.detach()
            self.coordinate_weight = nn.Parameter(weight[:, -3:].clone(), requires_grad=False)
            self.conv1.weight = nn.Parameter(weight[:, :-3].clone(), requires_grad=False)
            self.coordinate_bias = nn.Parameter(self.conv1.bias.detach().clone(),  # type: ignore[union-attr]
                                                requires_grad=False)
            self.conv1.bias = None
            self.conv1.in_channels -= 3

    def bias_map(self, like_bczyx: Tensor) -> Tensor:
        """Return what the coordinates and the bias add after the first convolution, (1, C, Z, Y, X), cached."""
        key = tuple(like_bczyx.shape[2:])
        if key not in self._bias_maps and self.coordinate_weight is not None:
            coordinates = coordinate_channels(torch.empty(1, 1, *key, device=like_bczyx.device))
            bias = functional.conv3d(coordinates, self.coordinate_weight.float(), self.coordinate_bias.float(),
                                     padding=1)
            self._bias_maps = {key: bias.to(like_bczyx.dtype).contiguous(
                memory_format=torch.channels_last_3d)}
        return self._bias_maps[key]

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return the features (B, C_out, Z, Y, X) of x_bczyx (B, C_in, Z, Y, X)."""
        first = self.conv1(x_bczyx)
        if self.coordinate_weight is not None:
            first = first.add_(self.bias_map(x_bczyx))
        first = first.relu_()
        last = self.conv3(self.conv2(first).relu_()).relu_()
        return self.activation(last.add_(first) if self.residual else last)


class FoldedResUNet(nn.Module):
    """Inference form of a :class:`~deepetpicker.models.resunet.ResUNet3D`; equal up to rounding.

    Parameters
    ----------
    network : ResUNet3D
        In evaluation mode; not modified.

    Notes
    -----
    Input (B, 1, Z, Y, X), output logits (B, C, Z, Y, X), as the network's.
    """

    def __init__(self, network: ResUNet3D) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.options = network.options
        self.encoders = nn.ModuleList(FoldedBlock(b) for b in network.encoders)  # type: ignore[arg-type]
        self.decoders = nn.ModuleList(FoldedBlock(b) for b in network.decoders)  # type: ignore[arg-type]
        self.upsamplers, self.head = network.upsamplers, network.head

    def forward(self, patch_bczyx: Tensor) -> Tensor:
        """Return logits (B, C, Z, Y, X) of normalised patches (B, 1, Z, Y, X)."""
        image, x = patch_bczyx, patch_bczyx
        skips: List[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            if level:
                x, image = halve(x), halve(image)
                x = torch.cat([x, image], 1) if self.options.pyramid else x
            x = encoder(x)
            skips.append(x)
        x = skips.pop()
        for upsampler, decoder in zip(self.upsamplers, self.decoders):
            skip = skips.pop()
            x = decoder(upsampler(x, output_size=skip.shape[2:]).add_(skip))
        return self.head(x)
