"""Model files: weights and model card in one safetensors file."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, TypeVar, Union

import safetensors
import safetensors.torch
import torch

from deepetpicker.config import NetworkOptions, from_mapping
from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.classes import ParticleClass, same_particle
from deepetpicker.io.modelcard import JUDGED, METADATA_KEY, ModelCard, read_card, read_header
from deepetpicker.network.resunet import ResUNet3D

PathLike = Union[str, pathlib.Path]
Value = TypeVar("Value")
DIGEST_KEY = "sha256"


def save_model(path: PathLike, network: ResUNet3D, card: ModelCard, is_half: bool = False,
               judged: Optional[Mapping[str, torch.Tensor]] = None) -> None:
    """Write the network's weights and its card to one file, whole or not at all.

    Parameters
    ----------
    path : path
        ``*.safetensors``; replaced if it exists.
    network : ResUNet3D
        On any device; not modified.
    card : ModelCard
        Written into the file's metadata as JSON.
    is_half : bool
        Write weights as float16, in half the space, instead of float32.
    judged : mapping of str to torch.Tensor, optional
        State of the network that was judged, where another one picks: it has seen nothing of what was held out.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    states = {**network.state_dict(), **{JUDGED + name: value for name, value in (judged or {}).items()}}
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in states.items()}
    kind = torch.float16 if is_half else torch.float32
    tensors = {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}
    text = card.to_json()
    content = safetensors.torch.save(tensors, metadata={METADATA_KEY: text, DIGEST_KEY: digest_of(text, tensors)})
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)  # save_file would keep it from all but its owner, whatever the umask says


def digest_of(card: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a card's text and of the weights (on the CPU, contiguous) in the order of their names."""
    digest = hashlib.sha256(card.encode("utf-8"))
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode("utf-8"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def load_model(path: PathLike, is_judged: bool = False) -> Tuple[ResUNet3D, ModelCard]:
    """Return the network (evaluation mode, CPU, float32) and the card of a model file.

    Parameters
    ----------
    path : path
        ``*.safetensors``.
    is_judged : bool
        Return the network that was judged, where the file has another one to pick with: to go on from.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of another format version, or its weights do not fit its card.
    """
    card = read_card(path)
    try:
        options = from_mapping(NetworkOptions, card.network)
        shapes = {name: tensor.get("shape") for name, tensor in read_header(path)[1].items()}
        has_judged = any(name.startswith(JUDGED) for name in shapes)
        for prefix in ("", JUDGED) if has_judged else ("",):
            check_fits(options, of_network(shapes, prefix))
        network = ResUNet3D(options)
        weights = safetensors.torch.load_file(str(path))
        network.load_state_dict(of_network(weights, JUDGED if is_judged and has_judged else ""), strict=True)
    except (safetensors.SafetensorError, RuntimeError, InputError, TypeError, ValueError) as error:
        text = str(error).splitlines()[0]
        raise ModelFileError(
            f"{path}: the weights do not fit the model card ({text}): expected a file written by deepetpicker, "
            "copy or train the model again") from error
    metadata = read_header(path)[0]  # models of before have no digest
    if DIGEST_KEY in metadata and metadata[DIGEST_KEY] != digest_of(metadata[METADATA_KEY], weights):
        raise ModelFileError(f"{path} is damaged: its weights or its card are not those that were written (SHA-256); "
                             "copy or train the model again")
    if not all(torch.isfinite(v).all() for v in network.state_dict().values() if v.is_floating_point()):
        raise ModelFileError(f"{path}: expected finite weights, found NaN or infinite ones: train the model again")
    return network.eval(), card


def of_network(values: Mapping[str, Value], prefix: str = "") -> Dict[str, Value]:
    """Return what a file has of one of its networks, by the names in it: of the one that picks, or the judged one."""
    return {name[len(prefix):]: value for name, value in values.items()
            if (name.startswith(JUDGED) if prefix else not name.startswith(JUDGED))}


def check_fits(options: NetworkOptions, shapes: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of a network before it is made: no file makes a network larger than itself.

    Parameters
    ----------
    options : NetworkOptions
        Of the network.
    shapes : mapping
        Shape of each weight by its name.

    Raises
    ------
    InputError
        Naming the first weights that do not fit.
    """
    if options.n_classes > 10_000 or max(options.widths) > 100_000 or len(options.widths) > 20:
        raise InputError(f"no network has {options.n_classes} classes and the widths {options.widths[:20]}")
    with torch.device("meta"):  # shapes without memory
        wanted = {name: list(value.shape) for name, value in ResUNet3D(options).state_dict().items()}
    misfits = [name for name, shape in wanted.items() if list(shapes.get(name) or []) != shape]
    misfits += sorted(set(shapes) - set(wanted))
    if misfits:
        raise InputError(f"{len(misfits)} weights do not fit, first {', '.join(misfits[:3])}")


def carry_over(old: ResUNet3D, new: ResUNet3D, known: Sequence[ParticleClass],
               wanted: Sequence[ParticleClass]) -> Dict[str, torch.Tensor]:
    """Return the weights of a model for other classes: the outputs of those it knows, and of the background, are kept.

    Parameters
    ----------
    old, new : ResUNet3D
        The model, and a network of the same architecture for the wanted classes, whose other outputs are taken.
    known, wanted : sequence of ParticleClass
        Classes of the two in the order of their channels.

    Returns
    -------
    dict of str to torch.Tensor
        The state of the new network.
    """
    first, was = (0 if len(classes) == 1 else 1 for classes in (wanted, known))  # a lone class has no background
    pairs = [(0, 0)] if first == was == 1 else []
    pairs += [(k, j) for k, one in enumerate(wanted, first) for j, other in enumerate(known, was)
              if same_particle(one, other)]
    state = dict(old.state_dict())
    for name, fresh in new.state_dict().items():
        if name.startswith("head."):
            values = fresh.clone()
            for k, j in pairs:
                values[k] = state[name][j]
            state[name] = values
    return state
