"""The network on a device: which arithmetic, how many tiles at once, what to do when memory runs out."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Optional

import numpy as np
import torch
from torch import nn

from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.models.folded import FoldedResUNet
from deepetpicker.models.resunet import ResUNet3D, probabilities

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If ``cuda`` is asked for and PyTorch finds no usable GPU.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "cuda":
        raise InputError(f"device cuda was asked for, but PyTorch {torch.__version__} finds no usable GPU: check the "
                         "driver and CUDA_VISIBLE_DEVICES, or use --device cpu (slower, same picks)")
    return torch.device("cpu")


def cpu_has_bfloat16() -> bool:
    """Return True if this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as info:
            flags = next((line for line in info if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic of a device: ``auto`` takes bfloat16 where the hardware has it, else float32."""
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How a predictor computes: device, number type and tiles per forward pass."""

    device: torch.device
    dtype: torch.dtype
    batch: int

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", batch: int = 0) -> Arithmetic:
        """Return the arithmetic for the words of the options; batch 0 takes 1 on a CPU and 8 on a GPU."""
        where = choose_device(device)
        return cls(where, choose_dtype(precision, where), batch or (8 if where.type == "cuda" else 1))

    def __str__(self) -> str:
        """Return "cpu, bfloat16, 1 tile at a time"."""
        return f"{self.device}, {str(self.dtype).split('.')[-1]}, {self.batch} tile(s) at a time"


class Predictor:
    """Probabilities of tiles.

    Parameters
    ----------
    network : ResUNet3D or nn.Module
        A ResUNet3D is folded for inference; any other module is called as it is. Not modified.
    arithmetic : Arithmetic
        Where and how to compute. The batch shrinks by itself when the device runs out of memory.
    """

    def __init__(self, network: nn.Module, arithmetic: Optional[Arithmetic] = None) -> None:
        self.arithmetic = arithmetic or Arithmetic.choose()
        folded = FoldedResUNet(network) if isinstance(network, ResUNet3D) else network
        self.n_classes = getattr(getattr(network, "options", None), "n_classes", 1)
        folded = folded.eval().to(self.arithmetic.device, self.arithmetic.dtype)
        self.network = folded.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._batch = self.arithmetic.batch
        self._seconds = 0.0

    def __call__(self, tiles_bzyx: np.ndarray) -> np.ndarray:
        """Return the probability of each class (B, n_classes, Z, Y, X) float32 of tiles (B, Z, Y, X) float32.

        Raises
        ------
        DeviceMemoryError
            If a single tile does not fit into the device's memory.
        """
        begin, out, at = time.perf_counter(), [], 0
        while at < len(tiles_bzyx):
            try:
                out.append(self._forward(tiles_bzyx[at:at + self._batch]))
                at += self._batch
            except torch.cuda.OutOfMemoryError as error:
                self._shrink(tiles_bzyx.shape, error)
        self._seconds += time.perf_counter() - begin
        return np.concatenate(out) if len(out) > 1 else out[0]

    def take_seconds(self) -> float:
        """Return the seconds spent in the network since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    @property
    def batch(self) -> int:
        """Tiles per forward pass at present."""
        return self._batch

    def _forward(self, tiles_bzyx: np.ndarray) -> np.ndarray:
        """Return the probabilities of one batch, (B, n_classes, Z, Y, X) float32."""
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(tiles_bzyx))[:, None]
            x = x.to(self.arithmetic.device, self.arithmetic.dtype, non_blocking=True)
            logits = self.network(x.contiguous(memory_format=torch.channels_last_3d))
            return probabilities(logits.float()).contiguous().cpu().numpy()

    def _shrink(self, shape: tuple, error: BaseException) -> None:
        """Halve the batch, or raise DeviceMemoryError when it is 1."""
        if self._batch == 1:
            raise DeviceMemoryError(f"{self.arithmetic.device} has too little free memory for one tile of "
                                    f"{shape[-1]} voxels: use a smaller --tile, close other programs on the device, "
                                    "or use --device cpu") from error
        self._batch //= 2
        torch.cuda.empty_cache()
        logger.warning("%s: out of memory, going on with %d tile(s) at a time", self.arithmetic.device, self._batch)
