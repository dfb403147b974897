"""The training step, its optimiser, and what makes several processes compute what one would."""

from __future__ import annotations

import copy
import logging
from typing import Any, Dict, List, Tuple

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.training.loop.losses import WeakLabelLoss
from deepetpicker.training.loop.schedule import Schedule

log = logging.getLogger(__name__)

BETAS = (0.9, 0.99)
AVERAGE_STARTS = 10
BAD_STEPS_IN_A_ROW = 10


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient.clone().contiguous()
        dist.all_reduce(out)
        return out


def sum_over_processes(x: Tensor) -> Tensor:
    """Return x summed over the processes of a distributed run; x itself in a single one. Differentiable."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _SumOverProcesses.apply(x)
    return x


class GlobalBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation over the patches of all processes, on any device.

    Takes over parameters and buffers of a ``BatchNorm3d`` whose class is set to this one.
    """

    def forward(self, x_bczyx: Tensor) -> Tensor:
        """Return x_bczyx (B, C, Z, Y, X) normalised; the statistics are those of the global batch in training."""
        if not self.training:
            return super().forward(x_bczyx)
        x, axes = x_bczyx.float(), (0, 2, 3, 4)
        here = torch.stack([x.sum(axes), (x * x).sum(axes)])
        count = torch.full((1, here.shape[1]), float(x.numel() // x.shape[1]), device=x.device)
        total, square, n = sum_over_processes(torch.cat([here, count]))
        mean = total / n
        variance = (square / n - mean * mean).clamp(min=0)
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * n / (n - 1).clamp(min=1), momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight / torch.sqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale.view(1, -1, 1, 1, 1) + shift.view(1, -1, 1, 1, 1)).to(x_bczyx.dtype)


def use_global_statistics(network: nn.Module) -> None:
    """Make every batch normalisation of the network one over all processes, in place; weights keep their names."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = GlobalBatchNorm3d


class PickerModule(pl.LightningModule):
    """Trains a ResUNet3D on patches.

    Parameters
    ----------
    network : ResUNet3D
        Trained in place.
    options : TrainOptions
        Learning rate, weight decay and so on.
    schedule : Schedule
        The learning rate of every step.

    Attributes
    ----------
    averaged : ResUNet3D or None
        Running mean of the network over the steps, with its normalisation statistics; None when none is wanted.
    """

    def __init__(self, network: ResUNet3D, options: TrainOptions, schedule: Schedule) -> None:
        super().__init__()
        self.network, self.options, self.schedule = network, options, schedule
        self.averaged = copy.deepcopy(network).requires_grad_(False) if options.averaging > 0 else None
        self.loss = WeakLabelLoss(network.options.n_classes, options.cross_entropy, sum_over_processes,
                                  options.balance, options.unannotated == "unknown")
        self.losses: List[float] = []
        self.bad_steps, self.bad_in_a_row = 0, 0
        self._last_loss = float("nan")
        self._good: Dict[str, Tensor] = {}

    def configure_optimizers(self) -> Any:
        """Return AdamW with the one-cycle schedule: 10 % warm-up, cosine, from 1/30 of the peak to 1/100 of that."""
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.options.learning_rate, betas=BETAS,
                                      weight_decay=self.options.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.schedule.rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self.losses = []

    def training_step(self, batch: Tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch: image (B, 1, N, N, N), label and weight (B, N, N, N)."""
        image, label, weight = batch
        self._good = {name: b.clone() for name, b in self.network.named_buffers()}
        logits = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        with torch.autocast(image.device.type, enabled=False):
            loss, dice = self.loss(logits, label, weight)
        self._last_loss = float(loss.detach())
        self.losses.append(float(dice.detach()))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave a step out when its loss or gradient is not a number, and give up after ten such in a row.

        Raises
        ------
        InputError
            Saying what to change.
        """
        norms = [p.grad.norm() for p in self.network.parameters() if p.grad is not None]
        finite = self._last_loss == self._last_loss and bool(torch.isfinite(torch.stack(norms)).all())
        if finite:
            self.bad_in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(self._good[name])
        self.bad_steps, self.bad_in_a_row = self.bad_steps + 1, self.bad_in_a_row + 1
        log.warning("step %d left out: the loss or its gradient is not a number", self.global_step)
        if self.bad_in_a_row >= BAD_STEPS_IN_A_ROW:
            raise InputError(f"the loss was not a number in {BAD_STEPS_IN_A_ROW} steps in a row (learning rate "
                             f"{self.options.learning_rate:g}): use a lower --learning-rate or --precision float32")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the step's weights into the mean; its first steps weigh more, so that the start is soon forgotten."""
        if self.averaged is None:
            return
        step = self.global_step
        new = max(1 - self.options.averaging, AVERAGE_STARTS / (AVERAGE_STARTS + step))
        with torch.no_grad():
            for mean, now in zip(self.averaged.state_dict().values(), self.network.state_dict().values()):
                if mean.is_floating_point():
                    mean.lerp_(now, new)
                else:
                    mean.copy_(now)

    @property
    def picker(self) -> ResUNet3D:
        """The network to pick with: the mean over the steps where there is one."""
        return self.network if self.averaged is None else self.averaged

    @property
    def mean_loss(self) -> float:
        """Mean Dice loss of the epoch's good steps so far; NaN when there are none."""
        good = [v for v in self.losses if v == v]
        return sum(good) / len(good) if good else float("nan")
