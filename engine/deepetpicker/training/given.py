"""What a training is given: tomograms with particles, options of which none is open, a network to start from."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Union

import torch

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.manifest import Manifest
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.sampling.gather import Gathered, gather
from deepetpicker.training.recipe import filled_in, second_rate
from deepetpicker.training.rounds import Origin
from deepetpicker.training.run_folder import recipe_of
from deepetpicker.training.start import NO_START, THE_GENERIC, build_network, choose_start

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What a training is given, all of it checked; nothing is written yet.

    Attributes
    ----------
    options : TrainOptions
        As the user gave them, and what was left open filled in by the recipe.
    gathered : Gathered
        Tomograms, particles and classes.
    network : ResUNet3D
        Initialised, from a model or by the seed.
    model : str
        The user's model file that it starts from; empty for none.
    origin : Origin or None
        What is known about that model.
    recipe : dict
        What makes two runs the same, from :func:`recipe_of`, and what they start from.
    second_rate : float
        Learning rate of a training that a first one has found labels for.
    """

    options: TrainOptions
    gathered: Gathered
    network: ResUNet3D
    model: str
    origin: Optional[Origin]
    recipe: Dict[str, Any]
    second_rate: float

    def name_inputs(self, manifest: Manifest) -> None:
        """Name the tomograms and files that are read in the manifest."""
        for volume in self.gathered.volumes:
            manifest.add_input(volume)
        files: List[str] = [*(item.coordinates for item in self.gathered.items), self.model]
        for path in filter(None, files):
            manifest.add_file(path)


def check_all(data: Union[str, pathlib.Path], options: TrainOptions, params: Optional[Mapping[str, Any]],
              device: torch.device) -> Given:
    """Return what a training is given.

    Parameters
    ----------
    data, options, params
        As :func:`~deepetpicker.training.run.train` takes them.
    device : torch.device
        What is computed on.

    Raises
    ------
    InputError
        For bad input, listing every problem.
    """
    if options.recipe == "refine" and options.init in ("", NO_START, THE_GENERIC):
        raise InputError("the recipe 'refine' goes on from a model, got none: give it with --init MODEL")
    on_gpu = device.type == "cuda"
    start = choose_start(options, on_gpu)
    gathered = gather(data, options, params, start.card)
    asked = decided(options, gathered)
    diameters_vox = [c.diameter_ang / gathered.voxel_size_ang for c in gathered.classes]
    options = filled_in(asked, diameters_vox, on_gpu, start.widths, start.is_generic,
                        sum(gathered.n_particles.values()))
    network = build_network(options, gathered, start)
    return Given(options, gathered, network, start.path if start.card else "",
                 Origin.of(start.path, start.card) if start.card else None,
                 {**recipe_of(options, gathered), "init_sha256": start.digest}, second_rate(asked, options))


def decided(options: TrainOptions, gathered: Gathered) -> TrainOptions:
    """Return the options with what is not annotated decided: by the regions of complete annotation, where left open."""
    if options.unannotated != "auto":
        return options
    n, partial = (sum(getattr(one, name) for one in gathered.certain) for name in ("has_regions", "is_partial"))
    if partial:
        where = f"{n} with regions of complete annotation: outside of them," if n else "none with such a region:"
        log.info("%d tomogram(s) are annotated completely in regions alone, %s what is not annotated is taken for "
                 "unknown (--unannotated background if all of it is complete)", partial, where)
    return dataclasses.replace(options, unannotated=gathered.unannotated)
