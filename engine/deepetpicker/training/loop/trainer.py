"""Lightning's trainer: how it is made and run."""

from __future__ import annotations

import pathlib
from typing import Optional

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from deepetpicker.network.predictor import Arithmetic
from deepetpicker.training.loop.callbacks import EpochEnd, LastCheckpoint
from deepetpicker.training.loop.module import PickerModule
from deepetpicker.training.loop.processes import Processes
from deepetpicker.training.run_folder import RunFolder

_PRECISIONS = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def make_trainer(run: RunFolder, arithmetic: Arithmetic, processes: Processes, end: EpochEnd) -> pl.Trainer:
    """Return Lightning's trainer for a run; ``end`` says when the run is over."""
    device = arithmetic.device
    return pl.Trainer(
        max_epochs=-1, accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=processes.devices, num_nodes=processes.nodes, strategy=processes.strategy(device),
        plugins=processes.plugins(), precision=_PRECISIONS[arithmetic.dtype],  # type: ignore[arg-type]
        logger=TensorBoardLogger(str(run.path), name="", version="tensorboard"),
        callbacks=[end, LastCheckpoint(run.checkpoint)], enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, limit_val_batches=0, log_every_n_steps=1,
        benchmark=device.type == "cuda", default_root_dir=str(run.path))


def fit(trainer: pl.Trainer, module: PickerModule, loader: DataLoader,
                 checkpoint: Optional[pathlib.Path]) -> None:
    """Fit; an interrupt, which Lightning turns into an exit, is a KeyboardInterrupt again."""
    try:
        trainer.fit(module, loader, ckpt_path=str(checkpoint) if checkpoint else None)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except BaseException as error:
        if type(error).__name__ == "SIGTERMException":
            raise KeyboardInterrupt from None
        raise
