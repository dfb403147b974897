"""The 3D-ResUNet with coordinate convolution and image pyramid.

Source: Liu et al. 2024, Nat. Commun. 15:2090. Every customisation is an option, so that the published ablation (a
plain 3D U-Net as the baseline) can be run.
"""

from __future__ import annotations

from typing import List

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepetpicker.config import NetworkOptions

_ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def coordinate_channels(like_bczyx: Tensor) -> Tensor:
    """Return three channels with the position in the patch: x, y, z, each from -1 to 1.

    Parameters
    ----------
    like_bczyx : (B, C, Z, Y, X)
        Gives batch size, spatial shape, type and device.

    Returns
    -------
    (B, 3, Z, Y, X)
        An axis of length 1 gets -1.
    """
    batch, _, *shape = like_bczyx.shape
    axes = [torch.linspace(-1, 1, n, device=like_bczyx.device, dtype=torch.float32) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z]).to(like_bczyx.dtype).expand(batch, -1, -1, -1, -1)


class ConvUnit(nn.Module):
    """A 3x3x3 convolution, batch normalisation and ReLU; (B, C_in, Z, Y, X) to (B, C_out, Z, Y, X)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm3d(channels_out)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return the features, same spatial shape as x_bczyx (B, C_in, Z, Y, X)."""
        return functional.relu(self.norm(self.conv(x_bczyx)), inplace=True)


class ResidualBlock(nn.Module):
    """Three convolution units; the first one's output is added to the third's, then the activation."""

    def __init__(self, channels_in: int, channels_out: int, options: NetworkOptions) -> None:
        super().__init__()
        self.coordinates, self.residual = options.coordinates, options.residual
        self.unit1 = ConvUnit(channels_in + 3 * options.coordinates, channels_out)
        self.unit2 = ConvUnit(channels_out, channels_out)
        self.unit3 = ConvUnit(channels_out, channels_out)
        self.activation = _ACTIVATIONS[options.activation]()

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return the features (B, C_out, Z, Y, X) of x_bczyx (B, C_in, Z, Y, X)."""
        if self.coordinates:
            x_bczyx = torch.cat([x_bczyx, coordinate_channels(x_bczyx)], 1)
        first = self.unit1(x_bczyx)
        last = self.unit3(self.unit2(first))
        return self.activation(first + last if self.residual else last)


class ResUNet3D(nn.Module):
    """The picker's network: probabilities' logits for each voxel of a patch.

    Parameters
    ----------
    options : NetworkOptions
        Classes, widths and customisations. The defaults have 2,429,845 parameters for one class.

    Notes
    -----
    Input (B, 1, Z, Y, X), normalised density; Z, Y and X multiples of 2^(levels-1), 8 by default. Output
    (B, C, Z, Y, X) logits: C = 1 for one class (sigmoid), else n_classes + 1 with the background first (softmax).
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        widths = options.widths
        before = [0, *widths[:-1]]
        self.encoders = nn.ModuleList(
            ResidualBlock(w_in + (1 if level == 0 or options.pyramid else 0), w, options)
            for level, (w_in, w) in enumerate(zip(before, widths)))
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(w_deep, w, 3, stride=2, padding=1)
            for w_deep, w in zip(widths[:0:-1], widths[-2::-1]))
        self.decoders = nn.ModuleList(ResidualBlock(w, w, options) for w in widths[-2::-1])
        self.head = nn.Conv3d(widths[0], 1 if options.n_classes == 1 else options.n_classes + 1, 1)

    @property
    def stride(self) -> int:
        """Number that every side of a patch must be a multiple of, in voxels."""
        return 2 ** (len(self.options.widths) - 1)

    def forward(self, patch_bczyx: Tensor) -> Tensor:
        """Return logits (B, C, Z, Y, X) of a normalised patch (B, 1, Z, Y, X).

        Raises
        ------
        ValueError
            If a side of the patch is not a multiple of the stride.
        """
        if any(n % self.stride for n in patch_bczyx.shape[2:]):
            raise ValueError(f"patch sides must be multiples of {self.stride}, got {tuple(patch_bczyx.shape[2:])}")
        image, skips, x = patch_bczyx, [], patch_bczyx
        for level, encoder in enumerate(self.encoders):
            if level:
                x = halve(x)
                image = halve(image)
                x = torch.cat([x, image], 1) if self.options.pyramid else x
            x = encoder(x)
            skips.append(x)
        return self.head(self._decode(skips))

    def _decode(self, skips: List[Tensor]) -> Tensor:
        """Return the finest features (B, C, Z, Y, X) from the encoders' outputs, finest first."""
        x = skips[-1]
        for upsampler, decoder, skip in zip(self.upsamplers, self.decoders, skips[-2::-1]):
            x = decoder(upsampler(x, output_size=skip.shape[2:]) + skip)
        return x


def halve(x_bczyx: Tensor) -> Tensor:
    """Return x_bczyx (B, C, Z, Y, X) average-pooled by 2 along each axis.

    PyTorch has no bfloat16 average pooling on the CPU; trilinear down-sampling by 2 takes the same eight voxels with
    the same weights.
    """
    if x_bczyx.dtype == torch.bfloat16 and x_bczyx.device.type == "cpu":
        size = [n // 2 for n in x_bczyx.shape[2:]]
        return functional.interpolate(x_bczyx, size=size, mode="trilinear", align_corners=False)
    return functional.avg_pool3d(x_bczyx, 2)


def probabilities(logits_bczyx: Tensor) -> Tensor:
    """Return one probability per class (B, n_classes, Z, Y, X) from the network's logits (B, C, Z, Y, X)."""
    if logits_bczyx.shape[1] == 1:
        return logits_bczyx.sigmoid()
    return logits_bczyx.softmax(1)[:, 1:]


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
