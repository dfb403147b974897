"""Batch normalisation and ReLU as one step of automatic differentiation, fast for float32 on a CPU.

With few channels, stored last, PyTorch's backward pass of batch normalisation takes several times as long as its
forward pass. What it needs are two sums per channel and a linear combination of two arrays: here the sums are matrix
products, and the combination runs over long rows.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ROW = 1024  # values that a row of the combination has at least, where the number of voxels can be divided so


def norm_relu(x_bczyx: Tensor, norm: nn.Module, bias: Optional[Tensor] = None) -> Tensor:
    """Return ReLU(norm(x + bias)), same shape as x (B, C, Z, Y, X).

    Parameters
    ----------
    x_bczyx : (B, C, Z, Y, X) float
        A convolution's output.
    norm : nn.BatchNorm3d
        With weight, bias and running statistics.
    bias : (C,), optional
        Only in training, where the batch's mean takes it away again: it is not added but reaches the running mean,
        and its gradient is 0.
    """
    if bias is not None:
        x_bczyx = _Without.apply(x_bczyx, bias)
        with torch.no_grad():  # before the step that multiplies it by 1 - momentum and saves it
            norm.running_mean.add_(bias, alpha=norm.momentum / (1 - norm.momentum))  # type: ignore
    is_fast = (type(norm) is nn.BatchNorm3d and norm.training and x_bczyx.device.type == "cpu"
               and x_bczyx.dtype == torch.float32 and x_bczyx.is_contiguous(memory_format=torch.channels_last_3d))
    if not is_fast:
        return functional.relu(norm(x_bczyx), inplace=True)
    norm.num_batches_tracked.add_(1)  # type: ignore[operator]
    return _NormRelu.apply(x_bczyx, norm.weight, norm.bias, norm)


class _Without(torch.autograd.Function):
    """The features as they are; a bias that cannot change the loss gets the gradient 0."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor]:
        return gradient, torch.zeros_like(ctx.saved_tensors[0])


class _NormRelu(torch.autograd.Function):
    """Training form, float32, channels last, on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm3d) -> Tensor:
        out, mean, inverse = torch.native_batch_norm(x, weight, bias, norm.running_mean, norm.running_var, True,
                                                     norm.momentum, norm.eps)  # type: ignore[arg-type]
        out.relu_()
        ctx.save_for_backward(x, out, weight, mean, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Any, ...]:
        x, out, weight, mean, inverse = ctx.saved_tensors
        masked = torch.ops.aten.threshold_backward(gradient.contiguous(memory_format=torch.channels_last_3d), out, 0)
        rows_x, rows_g = _rows(x), _rows(masked)
        n, channels = rows_g.shape
        times = _times(n, channels)
        wide_g = rows_g.view(n // times, channels * times)
        total = (wide_g.new_ones(len(wide_g)) @ wide_g).view(times, channels).sum(0)
        d_weight = ((rows_g.T @ rows_x).diagonal() - mean * total) * inverse
        scale = weight * inverse
        slope = -scale * inverse * d_weight / n
        shift = -scale * total / n - slope * mean
        slope, shift, scale = (v.repeat(times) for v in (slope, shift, scale))
        torch.addcmul(torch.addcmul(shift, rows_x.view_as(wide_g), slope), wide_g, scale, out=wide_g)
        return masked, d_weight, total, None


def _rows(x_bczyx: Tensor) -> Tensor:
    """Return the values (B*Z*Y*X, C) of an array that is stored channels last, without a copy."""
    return x_bczyx.permute(0, 2, 3, 4, 1).view(-1, x_bczyx.shape[1])


def _times(n: int, channels: int) -> int:
    """Return how many voxels make a row of at least ROW values, a power of 2 that divides n."""
    times = 1
    while times * channels < ROW and n % (2 * times) == 0:
        times *= 2
    return times
