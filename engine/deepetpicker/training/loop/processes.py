"""One process of a training, or one of several: which, and what they have to agree on."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any, List, Optional

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Processes:
    """One process among those of a run.

    Attributes
    ----------
    rank, world : int
        Which one this is, from 0, and how many there are.
    devices, nodes : int
        Processes on each machine, and machines.
    """

    rank: int
    world: int
    devices: int
    nodes: int

    @property
    def is_first(self) -> bool:
        """True in the process that validates and writes."""
        return self.rank == 0

    @classmethod
    def join(cls, options: TrainOptions, device: torch.device) -> Processes:
        """Return this process's place; connect to the others where a launcher (torchrun, SLURM) started them.

        Parameters
        ----------
        options : TrainOptions
            ``devices`` and ``nodes``; torchrun's own numbers win.
        device : torch.device
            What is computed on.

        Raises
        ------
        InputError
            If the batch cannot be shared evenly.
        """
        devices, nodes = options.devices, options.nodes
        environment: Any = None
        if TorchElasticEnvironment.detect():
            environment = TorchElasticEnvironment()
            devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
            nodes = environment.world_size() // devices
        elif devices * nodes > 1 and SLURMEnvironment.detect():
            environment = SLURMEnvironment()
        world = devices * nodes
        if options.batch % world:
            raise InputError(f"batch must be a multiple of the number of processes ({world}), got {options.batch}: "
                             "every process takes the same share of a batch")
        if world == 1:
            return cls(0, 1, 1, 1)
        if environment is None:
            rank = int(os.environ.get("NODE_RANK", 0)) * devices + int(os.environ.get("LOCAL_RANK", 0))
            return cls(rank, world, devices, nodes)
        if not dist.is_initialized():
            os.environ.setdefault("MASTER_ADDR", environment.main_address)
            os.environ.setdefault("MASTER_PORT", str(environment.main_port))
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                                    rank=environment.global_rank(), world_size=world)
        return cls(environment.global_rank(), world, devices, nodes)

    def agree(self, value: Any) -> Any:
        """Return the first process's value in all; the own one where they are not connected yet."""
        if self.world == 1 or not dist.is_initialized():
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def strategy(self, device: torch.device) -> Any:
        """Return Lightning's strategy for this run."""
        if self.world == 1:
            return "auto"
        return DDPStrategy(process_group_backend="nccl" if device.type == "cuda" else "gloo")

    def plugins(self) -> Optional[List[Any]]:
        """Return Lightning's plugins: a single process must not take a surrounding SLURM job for its own."""
        return [LightningEnvironment()] if self.world == 1 else None
