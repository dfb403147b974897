"""The 3D-ResUNet with coordinate convolution and image pyramid.

Source: Liu et al. 2024, Nat. Commun. 15:2090. Every customisation is an option, so that the published ablation (a
plain 3D U-Net as the baseline) can be run.
"""

from __future__ import annotations

import math
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepetpicker.config import NetworkOptions
from deepetpicker.network.norm_relu import norm_relu

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


def convolved_coordinates(weight_okzyx: Tensor, shape_zyx: Sequence[int]) -> Tensor:
    """Return the 3x3x3 convolution of the coordinate channels, zero outside, as products of short tables.

    Each channel depends on one axis alone and the padding on each axis apart, so what a tap of the kernel sees is a
    product of three functions of z, y and x.

    Parameters
    ----------
    weight_okzyx : (C, 3, 3, 3, 3)
        Weights of the x, y and z channel. Gradients reach them.
    shape_zyx : three int
        Spatial shape Z, Y, X.

    Returns
    -------
    (1, C, Z, Y, X) float32, or float64 like the weights
        Stored channels last. Equals ``conv3d(coordinate_channels(...), weight, padding=1)``.
    """
    tables, dtype = [], torch.promote_types(weight_okzyx.dtype, torch.float32)
    for axis, n in enumerate(shape_zyx):
        line = torch.linspace(-1, 1, n, device=weight_okzyx.device, dtype=dtype)
        line, ones = (functional.pad(v, (1, 1)).unfold(0, n, 1) for v in (line, torch.ones_like(line)))
        tables.append(torch.stack([line if channel == 2 - axis else ones for channel in range(3)]))
    (z_kuz, y_kvy, x_kwx), channels = tables, len(weight_okzyx)
    with torch.autocast(weight_okzyx.device.type, enabled=False):
        rows = torch.einsum("okuvw,kwx->kuvxo", weight_okzyx.to(dtype), x_kwx)
        planes = torch.einsum("kuvxo,kvy->kuyxo", rows, y_kvy)
        out = z_kuz.flatten(0, 1).T @ planes.reshape(9, -1)
    return out.view(1, *shape_zyx, channels).permute(0, 4, 1, 2, 3)


class _AddToEach(torch.autograd.Function):
    """Add the same features to each patch of a batch, in place; the batch is summed faster than PyTorch would."""

    @staticmethod
    def forward(ctx: Any, features_bczyx: Tensor, added_1czyx: Tensor) -> Tensor:
        ctx.dtype = added_1czyx.dtype
        ctx.mark_dirty(features_bczyx)
        return features_bczyx.add_(added_1czyx)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor]:
        batch, channels, *shape = gradient.shape
        values = gradient.permute(0, 2, 3, 4, 1).reshape(batch, -1)
        total = values.new_ones(1, batch) @ values if batch > 1 else values
        return gradient, total.to(ctx.dtype).view(1, *shape, channels).permute(0, 4, 1, 2, 3)


class ConvUnit(nn.Module):
    """A 3x3x3 convolution, batch normalisation and ReLU; (B, C_in, Z, Y, X) to (B, C_out, Z, Y, X).

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of the input, without coordinates, and of the output.
    coordinates : bool
        Append the three coordinate channels to the input. They are the same for all patches and a convolution is
        linear, so they are convolved once for the batch and the result is added: nothing is concatenated.
    """

    def __init__(self, channels_in: int, channels_out: int, coordinates: bool = False) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.conv = nn.Conv3d(channels_in + 3 * coordinates, channels_out, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm3d(channels_out)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return the features, same spatial shape as x_bczyx (B, C_in, Z, Y, X)."""
        weight, bias = self.conv.weight, self.conv.bias
        own = weight[:, :-3] if self.coordinates else weight
        features = functional.conv3d(x_bczyx, own, None if self.training else bias, padding=1)
        if self.coordinates:
            added = convolved_coordinates(weight[:, -3:], x_bczyx.shape[2:])
            features = _AddToEach.apply(features, added)
        return norm_relu(features, self.norm, bias if self.training else None)


class ResidualBlock(nn.Module):
    """Three convolution units; the first one's output is added to the third's, then the activation.

    The units' outputs are not negative, where every activation on offer (ELU, ReLU, leaky ReLU) is the identity, with
    the same gradients: it is left out. The published block has it, and the option stays in model files.
    """

    def __init__(self, channels_in: int, channels_out: int, options: NetworkOptions) -> None:
        super().__init__()
        self.coordinates, self.residual = options.coordinates, options.residual
        self.unit1 = ConvUnit(channels_in, channels_out, options.coordinates)
        self.unit2 = ConvUnit(channels_out, channels_out)
        self.unit3 = ConvUnit(channels_out, channels_out)
        self.activation = _ACTIVATIONS[options.activation]()

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return the features (B, C_out, Z, Y, X) of x_bczyx (B, C_in, Z, Y, X)."""
        first = self.unit1(x_bczyx)
        last = self.unit3(self.unit2(first))
        return first + last if self.residual else last


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

    def expect(self, prior: float) -> None:
        """Set the output's biases so that the untrained network gives each class about a probability everywhere.

        Parameters
        ----------
        prior : float
            The probability, above 0. Small labels are learnt sooner when most of the volume is taken for empty from
            the start (Lin et al. 2017, focal loss).
        """
        with torch.no_grad():
            self.head.bias.zero_()  # type: ignore[union-attr]
            if self.options.n_classes == 1:
                self.head.bias.fill_(-math.log(1 / prior - 1))  # type: ignore[union-attr]
            else:
                rest = max(1 - self.options.n_classes * prior, prior)
                self.head.bias[0] = math.log(rest / prior)  # type: ignore[index]

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
            x = decoder(upsampler(x, output_size=skip.shape[2:]).add_(skip))
        return x


def halve(x_bczyx: Tensor) -> Tensor:
    """Return x_bczyx (B, C, Z, Y, X), of even Z, Y and X, average-pooled by 2 along each axis.

    On the CPU PyTorch's average pooling knows neither bfloat16 nor channels stored last; trilinear down-sampling by 2
    takes the same eight voxels with the same weights.
    """
    return _Halve.apply(x_bczyx) if x_bczyx.device.type == "cpu" else functional.avg_pool3d(x_bczyx, 2)


class _Halve(torch.autograd.Function):
    """Average pooling by 2 on the CPU; backward each voxel gives its eight the same share."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return functional.interpolate(x, size=[n // 2 for n in x.shape[2:]], mode="trilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shares = (gradient / 8).contiguous(memory_format=torch.channels_last_3d)
        return functional.interpolate(shares, scale_factor=2, mode="nearest")


def probabilities(logits_bczyx: Tensor) -> Tensor:
    """Return one probability per class (B, n_classes, Z, Y, X) from the network's logits (B, C, Z, Y, X)."""
    if logits_bczyx.shape[1] == 1:
        return logits_bczyx.sigmoid()
    return logits_bczyx.softmax(1)[:, 1:]


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
