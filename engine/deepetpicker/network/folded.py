"""The network made ready for inference: same function, less work.

Batch normalisation is folded into the convolutions, and the coordinate channels, which are the same for every patch of
a shape, into a bias map that is computed once: a convolution is linear, so convolving ``[x, coordinates]`` is
convolving ``x`` and adding what the coordinates give. Where only the inner part of a tile is kept, the last block is
computed for that part and the voxels it depends on, which changes none of its values.
"""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepetpicker.network.resunet import ResidualBlock, ResUNet3D, coordinate_channels, halve

Box = Tuple[slice, slice, slice]
_REACH = 3  # voxels that three 3^3 convolutions see on each side


class FoldedBlock(nn.Module):
    """A :class:`~deepetpicker.network.resunet.ResidualBlock` with everything foldable folded."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        units = (block.unit1, block.unit2, block.unit3)
        self.conv1, self.conv2, self.conv3 = (fuse_conv_bn_eval(u.conv, u.norm) for u in units)  # type: ignore[arg-type]
        self.residual = block.residual
        self.coordinate_weight: Optional[nn.Parameter] = None
        self._bias_maps: Dict[Tuple[Any, ...], Tensor] = {}
        if block.coordinates:
            weight = self.conv1.weight.detach()
            self.coordinate_weight = nn.Parameter(weight[:, -3:].clone(), requires_grad=False)
            self.conv1.weight = nn.Parameter(weight[:, :-3].clone(), requires_grad=False)
            self.coordinate_bias = nn.Parameter(self.conv1.bias.detach().clone(),  # type: ignore[union-attr]
                                                requires_grad=False)
            self.conv1.bias = None
            self.conv1.in_channels -= 3

    def bias_map(self, like_bczyx: Tensor, shape_zyx: Tuple[int, ...]) -> Tensor:
        """Return what coordinates and bias add after the first convolution, (1, C, Z, Y, X), kept for one shape.

        It is computed anew where the block was moved to another device or number type since.
        """
        key = (shape_zyx, like_bczyx.device, like_bczyx.dtype)
        if key not in self._bias_maps and self.coordinate_weight is not None:
            coordinates = coordinate_channels(torch.empty(1, 1, *shape_zyx, device=like_bczyx.device))
            bias = functional.conv3d(coordinates, self.coordinate_weight.float(), self.coordinate_bias.float(),
                                     padding=1)
            self._bias_maps = {key: bias.to(like_bczyx.dtype).contiguous(memory_format=torch.channels_last_3d)}
        return self._bias_maps[key]

    def forward(self, x_bczyx: Tensor, box: Optional[Box] = None, shape_zyx: Sequence[int] = ()) -> Tensor:
        """Return the features (B, C_out, Z, Y, X) of x_bczyx (B, C_in, Z, Y, X).

        Parameters
        ----------
        x_bczyx : (B, C_in, Z, Y, X)
            The block's input, or a part of it.
        box, shape_zyx : slices and (3,) int, optional
            Which part of an input of that shape x_bczyx is.
        """
        first = self.conv1(x_bczyx)
        if self.coordinate_weight is not None:
            bias = self.bias_map(x_bczyx, tuple(shape_zyx) or tuple(x_bczyx.shape[2:]))
            first = first.add_(bias if box is None else bias[(..., *box)])
        first = first.relu_()
        last = self.conv3(self.conv2(first).relu_()).relu_()
        return last.add_(first) if self.residual else last  # not negative: the activation would be the identity


class FoldedResUNet(nn.Module):
    """Inference form of a :class:`~deepetpicker.network.resunet.ResUNet3D`; equal up to rounding.

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

    def forward(self, patch_bczyx: Tensor, keep: Optional[Box] = None) -> Tensor:
        """Return logits (B, C, Z, Y, X) of normalised patches (B, 1, Z, Y, X).

        Parameters
        ----------
        patch_bczyx : (B, 1, Z, Y, X)
            Normalised density.
        keep : slices, optional
            The part of the output that is wanted and returned (z, y, x); default: all of it.
        """
        image, x = patch_bczyx, patch_bczyx
        skips: List[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            if level:
                x, image = halve(x), halve(image)
                x = torch.cat([x, image], 1) if self.options.pyramid else x
            x = encoder(x)
            skips.append(x)
        x = skips.pop()
        pairs = list(zip(self.upsamplers, self.decoders))
        for upsampler, decoder in pairs[:-1] if keep else pairs:
            skip = skips.pop()
            x = decoder(upsampler(x, output_size=skip.shape[2:]).add_(skip))
        if keep is None or not pairs:
            return self.head(x if keep is None else x[(..., *keep)])
        return self._last_level(x, skips.pop(), keep)

    def _last_level(self, coarse: Tensor, skip: Tensor, keep: Box) -> Tensor:
        """Return the logits inside keep from the level below and the finest encoder's output."""
        shape = skip.shape[2:]
        wide: Any = tuple(slice(max(0, k.start - _REACH) // 2 * 2, min(n, -(-(k.stop + _REACH) // 2) * 2))
                     for k, n in zip(keep, shape))
        below: Any = tuple(slice(w.start // 2, min(w.stop // 2 + 1, n)) for w, n in zip(wide, coarse.shape[2:]))
        sizes = [2 * (b.stop - b.start) for b in below]
        x = self.upsamplers[-1](coarse[(..., *below)], output_size=sizes)
        x = x[(..., *(slice(0, w.stop - w.start) for w in wide))]
        x = self.decoders[-1](x.add_(skip[(..., *wide)]), wide, shape)
        return self.head(x[(..., *(slice(k.start - w.start, k.stop - w.start) for k, w in zip(keep, wide)))])
