"""The model that comes with the package: it knows particles in general, not any one of them.

It was trained on random assemblies (``scripts/train_generic.py``) to find whatever is about twenty voxels across, dark
on its surroundings. So it fits any particle whose tomogram is brought to that scale: to propose candidates, and as the
start of a training, which then has to learn only what is special about its particles.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Dict, Sequence, Tuple

import torch
from torch import Tensor

from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.resunet import ResUNet3D

GENERIC = pathlib.Path(__file__).with_name("generic.safetensors")
WIDTHS = (16, 32, 48, 64)
ACROSS_VOX = 20.0


def load_generic(is_bright: bool = False) -> Tuple[ResUNet3D, ModelCard]:
    """Return the generic network (evaluation mode, CPU, float32) and its card.

    Parameters
    ----------
    is_bright : bool
        The particles are brighter than their surroundings.
    """
    network, card = load_model(GENERIC)
    if is_bright:
        invert_input(network)
    return network, card


def invert_input(network: ResUNet3D) -> None:
    """Make a network see its input with the opposite sign, exactly, in place: bright particles become dark ones."""
    with torch.no_grad():
        for level, encoder in enumerate(network.encoders):
            if level and not network.options.pyramid:
                break
            image = network.options.widths[level - 1] if level else 0
            encoder.unit1.conv.weight[:, image].neg_()  # type: ignore[union-attr, operator, index]


def for_diameter(card: ModelCard, particle: ParticleClass) -> ModelCard:
    """Return the generic model's card for a particle: its name and diameter, and the voxel size that fits it.

    Parameters
    ----------
    card : ModelCard
        Of the generic model.
    particle : ParticleClass
        What is looked for.
    """
    one = dataclasses.replace(card.classes[0], id=particle.id, name=particle.name, diameter_ang=particle.diameter_ang)
    return dataclasses.replace(card, classes=(one,), voxel_size_ang=particle.diameter_ang / ACROSS_VOX)


def for_classes(generic: ResUNet3D, wanted: ResUNet3D) -> Dict[str, Tensor]:
    """Return the generic network's weights for one or more classes, all of which look to it like particles.

    The probabilities of the classes are equal and add up to what the generic network takes for a particle.

    Parameters
    ----------
    generic : ResUNet3D
        One class.
    wanted : ResUNet3D
        A network of the same widths; gives the number of classes.
    """
    state, n = dict(generic.state_dict()), wanted.options.n_classes
    if n > 1:
        weight, bias = state["head.weight"], state["head.bias"]
        state["head.weight"] = torch.cat([torch.zeros_like(weight)] + [weight] * n)
        state["head.bias"] = torch.cat([torch.zeros_like(bias)] + [bias - math.log(n)] * n)
    return state


def is_like(options_widths: Sequence[int]) -> bool:
    """Tell whether a network of these widths can start from the generic one."""
    return tuple(options_widths) == WIDTHS
