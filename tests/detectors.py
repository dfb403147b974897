"""A network that finds blobs without training: its weights are set by hand, so that every pick is known."""

from __future__ import annotations

import pathlib
from typing import Any, Sequence

import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D

BLOB = ClassCard(1, "blob", 100.0, 7.0)


def options(n_classes: int) -> NetworkOptions:
    """Return the architecture: one level, a channel per class."""
    return NetworkOptions(n_classes, (n_classes,), coordinates=False, pyramid=False)


def blob_detector(signs: Sequence[int] = (1,), gain: float = 3.0) -> ResUNet3D:
    """Return a network whose logits grow with the mean of 3 x 3 x 3 voxels: ``gain * mean - 6``, at least -6.

    Parameters
    ----------
    signs : sequence of int
        Of each class: 1 finds what is bright, -1 what is dark.
    gain : float
        Logit per unit of the normalised density.
    """
    network = ResUNet3D(options(len(signs)))
    block = network.encoders[0]
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        for unit in (block.unit1, block.unit2, block.unit3):
            unit.norm.weight.fill_(1)
            unit.norm.running_var.fill_(1 - unit.norm.eps)
        for k, sign in enumerate(signs):
            block.unit1.conv.weight[k] = sign / 27
            network.head.weight[-len(signs) + k, k] = gain
        network.head.bias[-len(signs):] = -6
    return network.eval()


def detector_card(*classes: ClassCard, **changes: Any) -> ModelCard:
    """Return the card of such a network, at 10 angstrom per voxel; by default for one class of 100 angstrom."""
    classes = classes or (BLOB,)
    values = {"network": options(len(classes)).to_dict(), "classes": classes, "voxel_size_ang": 10.0, "patch_vox": 48,
              "border_vox": 12, "label": "tball", "normalisation": "robust", "threshold": 0.3, "score_floor": 0.1}
    return ModelCard(**{**values, **changes})


def write_detector(path: pathlib.Path, *classes: ClassCard, signs: Sequence[int] = (1,), gain: float = 3.0,
                   **changes: Any) -> pathlib.Path:
    """Write a model file of such a network; return its path. Parameters as above."""
    save_model(path, blob_detector(signs, gain), detector_card(*classes, **changes))
    return path
