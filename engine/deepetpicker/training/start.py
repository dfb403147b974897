"""What a training starts from: a model of the user's, the generic model of the package, or chance."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
from typing import Optional, Tuple

import torch

from deepetpicker.checking.density import look
from deepetpicker.config import NetworkOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import news_of
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.network.generic import GENERIC, for_classes, invert_input, is_like, load_generic
from deepetpicker.network.modelfile import carry_over, load_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.sampling.gather import Gathered
from deepetpicker.training.recipe import RECIPES

log = logging.getLogger(__name__)
ARCHITECTURE = ("widths", "residual", "coordinates", "pyramid", "activation")
NO_START, THE_GENERIC = "none", "generic"
LOOKED_AT = 3  # tomograms that tell whether particles are dark or bright


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A network to start from.

    Attributes
    ----------
    network : ResUNet3D or None
        None starts from chance.
    card : ModelCard or None
        Of a user's model: it sets the working voxel size, and its classes are known. The generic model knows no
        classes and works at any voxel size: it has none.
    path : str
        The model file; empty for none.
    """

    network: Optional[ResUNet3D] = None
    card: Optional[ModelCard] = None
    path: str = ""

    @property
    def is_generic(self) -> bool:
        """Whether it is the model that comes with the package."""
        return self.network is not None and self.card is None

    @property
    def widths(self) -> Tuple[int, ...]:
        """Channels of each level; none for chance."""
        return tuple(self.network.options.widths) if self.network else ()

    @property
    def digest(self) -> str:
        """SHA-256 of the model file; empty for none."""
        return hashlib.sha256(pathlib.Path(self.path).read_bytes()).hexdigest() if self.path else ""


def choose_start(options: TrainOptions, on_gpu: bool) -> Start:
    """Return what a training starts from.

    Parameters
    ----------
    options : TrainOptions
        As the user gave them. ``init`` is a model file, ``"generic"``, ``"none"``, or empty: then the default recipe
        takes the generic model when the network that is wanted has its architecture.
    on_gpu : bool
        Whether a GPU trains, on which the recipe's networks are wider.
    """
    if options.init not in ("", NO_START, THE_GENERIC):
        return Start(*load_model(options.init, is_judged=True), options.init)
    recipe = RECIPES[options.recipe]
    widths = tuple(options.widths) or (recipe.widths if on_gpu else recipe.cpu_widths)
    plain = NetworkOptions(widths=widths)
    fits = is_like(widths) and all(getattr(plain, n) == getattr(options, n) for n in ARCHITECTURE[1:])
    if options.init == THE_GENERIC or (not options.init and recipe.starts_generic and fits):
        return Start(load_generic()[0], None, str(GENERIC))
    return Start()


def build_network(options: TrainOptions, gathered: Gathered, start: Start) -> ResUNet3D:
    """Return the network to train, initialised by the seed or from a model.

    Parameters
    ----------
    options : TrainOptions
        Architecture and seed.
    gathered : Gathered
        Classes; its warnings get what does not fit.
    start : Start
        The model to start from. Its architecture wins; its output layer is kept for the classes it knows.

    Raises
    ------
    InputError
        If the patch does not fit the number of levels.
    """
    wanted = {n: getattr(options, n) for n in ARCHITECTURE}
    if start.network:
        has = {n: getattr(start.network.options, n) for n in ARCHITECTURE}
        changed = [n for n in ARCHITECTURE if has[n] != wanted[n]]
        if changed:
            gathered.warnings.append(f"{options.init} has another {', '.join(changed)}; the model's is used")
        wanted = has
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = ResUNet3D(NetworkOptions(n_classes=len(gathered.classes), **wanted))
    if options.prior > 0:
        network.expect(options.prior)
    if start.network and start.card:
        network.load_state_dict(carry_over(start.network, network, start.card.classes, gathered.classes))
        news = news_of(gathered.classes, start.card.classes)
        if news:
            gathered.warnings.append(f"{options.init} knows other classes: {'; '.join(news)}: what the output layer "
                                     "says of them starts anew")
    elif start.network:
        network.load_state_dict(for_classes(start.network, network))
        if are_bright(gathered):
            log.info("the particles are brighter than their surroundings: the generic model is turned round")
            invert_input(network)
    if options.patch % network.stride:
        raise InputError(f"patch must be a multiple of {network.stride} for a network of {len(network.options.widths)} "
                         f"levels, got {options.patch}")
    return network


def are_bright(gathered: Gathered) -> bool:
    """Tell whether the particles are brighter than their surroundings, by the mean over classes and a few tomograms."""
    contrasts = []
    order = sorted(range(len(gathered.tables)), key=lambda k: -len(gathered.tables[k]))
    for volume, table in ((gathered.volumes[k], gathered.tables[k]) for k in order[:LOOKED_AT]):
        for one in gathered.classes:
            positions = table.positions_zyx_vox[table.class_ids == one.id]
            if len(positions):
                contrasts.append(look(volume, positions, one.diameter_ang).contrast)
    return sum(contrasts) > 0
