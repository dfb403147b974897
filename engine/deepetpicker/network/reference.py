"""Import of checkpoints of the published reference implementation.

Such a checkpoint is a pickle. It is read by PyTorch's restricted loader, which makes tensors and plain containers only;
every other class it names is replaced by an inert placeholder, so that nothing from the file is ever run.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import pathlib
import re
import zipfile
from typing import Any, Dict, List, Sequence, Tuple, Union

import torch

from deepetpicker import __version__
from deepetpicker.config import NetworkOptions
from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.geometry import check_working_diameter
from deepetpicker.io.classes import ParticleClass, default_class, described
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.network.modelfile import check_fits, save_model
from deepetpicker.network.resunet import ResUNet3D

PathLike = Union[str, pathlib.Path]
logger = logging.getLogger(__name__)

DEFAULT_LABEL_VOX, DEFAULT_PATCH_VOX = 7.0, 72

_RENAMES = (
    (r"^(model|module)\.", ""),
    (r"\.basic_module\.conv(\d)\.conv\.", r".unit\1.conv."),
    (r"\.basic_module\.conv(\d)\.batchnorm\.", r".unit\1.norm."),
    (r"^decoders\.(\d+)\.upsampling\.upsample\.", r"upsamplers.\1."),
    (r"^final_conv\.", "head."),
)


class _Inert:
    """Stands in for every class a checkpoint names; keeps plain attributes and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_checkpoint(path: PathLike) -> Dict[str, Any]:
    """Return the content of a Lightning checkpoint without running anything from it.

    Raises
    ------
    ModelFileError
        If the file is missing, no checkpoint, or names code that the restricted loader refuses.
    """
    path = pathlib.Path(path)
    if "\0" in str(path) or not os.path.isfile(path) or path.stat().st_size == 0:
        raise ModelFileError(f"expected a checkpoint (.ckpt), found no file or an empty one: {path}")
    try:
        _refuse_packed(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        with torch.serialization.safe_globals([(_Inert, name) for name in names]):
            content = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is anybody's guess
        raise ModelFileError(f"{path}: refused, not a plain checkpoint of tensors ({_first_line(error)}): expected a "
                             ".ckpt file saved by the reference implementation") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ModelFileError(f"{path}: expected a checkpoint with a 'state_dict', found "
                             f"{sorted(content) if isinstance(content, dict) else type(content).__name__}")
    huge = [str(name) for name, value in content["state_dict"].items() if isinstance(value, torch.Tensor)
            and value.numel() * value.element_size() > value.untyped_storage().nbytes()]
    if huge:
        raise ModelFileError(f"{path}: refused, the file does not hold all of the weights that it lists ({huge[0]})")
    return content


def _refuse_packed(path: pathlib.Path) -> None:
    """Raise ValueError for an archive that holds more bytes than the file has: PyTorch stores weights as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("a compressed archive")


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def network_from_reference(content: Dict[str, Any], path: PathLike) -> ResUNet3D:
    """Return our network with the weights of a checkpoint read by :func:`read_checkpoint`.

    Raises
    ------
    ModelFileError
        If the weights are not those of a 3D-ResUNet of the reference, with the first names that do not fit.
    """
    weights = {_rename(str(k)): v for k, v in content["state_dict"].items() if isinstance(v, torch.Tensor)}
    try:
        options = _network_options(weights, path)
        check_fits(options, {name: tuple(value.shape) for name, value in weights.items()})
    except (InputError, IndexError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: the weights are not those of the reference's 3D-ResUNet: {error}") from error
    network = ResUNet3D(options)
    network.load_state_dict(weights, strict=True)
    return network.eval()


def _rename(key: str) -> str:
    """Return our name of a weight of the reference."""
    for pattern, new in _RENAMES:
        key = re.sub(pattern, new, key)
    return key


def _network_options(weights: Dict[str, torch.Tensor], path: PathLike) -> NetworkOptions:
    """Return the network's options, read off the shapes of its weights."""
    widths: List[int] = []
    while f"encoders.{len(widths)}.unit1.conv.weight" in weights:
        widths.append(int(weights[f"encoders.{len(widths)}.unit1.conv.weight"].shape[0]))
    if len(widths) < 2 or "head.weight" not in weights:
        raise ModelFileError(f"{path}: expected weights named model.encoders.N.basic_module..., found none: this is "
                             "no checkpoint of the reference's 3D-ResUNet")
    coordinates = weights["encoders.0.unit1.conv.weight"].shape[1] == 4
    pyramid = weights["encoders.1.unit1.conv.weight"].shape[1] - widths[0] - 3 * coordinates == 1
    outputs = int(weights["head.weight"].shape[0])
    return NetworkOptions(n_classes=max(1, outputs - 1), widths=tuple(widths), coordinates=coordinates,
                          pyramid=pyramid)


def import_reference(checkpoint: PathLike, out: PathLike, diameter_angstrom: Sequence[float], voxel_size: float,
                     label_diameter: float = 0.0, patch: int = 0,
                     classes: Sequence[ParticleClass] = ()) -> Dict[str, Any]:
    """Turn a checkpoint of the reference implementation into a model file.

    Parameters
    ----------
    checkpoint : path
        Lightning ``.ckpt`` with ``state_dict`` keys ``model.encoders.N.basic_module...``.
    out : path
        Model file to write.
    diameter_angstrom : sequence of float
        Particle diameter in angstrom: one for all classes, or one per class; may be empty with classes.
    voxel_size : float
        Voxel size in angstrom of the tomograms it was trained on.
    label_diameter : float
        Diameter of its training labels in voxels; 0 takes 7, the published value.
    patch : int
        Edge of its training patch in voxels; 0 reads it from the checkpoint, else 72.
    classes : sequence of ParticleClass
        Ids, names and diameters of its classes, which by ascending id are its output channels; default: 1, 2, ...

    Returns
    -------
    dict
        ``model`` (path), ``classes``, ``epoch`` and ``parameters``.

    Raises
    ------
    ModelFileError, InputError
        If the checkpoint, the diameters or the voxel size cannot be used.
    """
    if voxel_size <= 0:
        raise InputError(f"--voxel-size must be the voxel size in angstrom (> 0) the network was trained at, got "
                         f"{voxel_size:g}")
    content = read_checkpoint(checkpoint)
    network = network_from_reference(content, checkpoint)
    table = _class_table(network.options.n_classes, diameter_angstrom, classes)
    cards = _class_cards(table, voxel_size, label_diameter or DEFAULT_LABEL_VOX)
    patch_vox, border_vox = _trained_tiles(content)
    card = ModelCard(
        network=network.options.to_dict(), classes=cards, voxel_size_ang=float(voxel_size),
        patch_vox=patch or patch_vox, border_vox=border_vox, label="tball", normalisation="mean-std",
        threshold=0.5, score_floor=0.1, intensity={}, training={"imported_from": pathlib.Path(checkpoint).name,
                                               "epochs": _epoch(content)},
        validation=[], seed=0, version=__version__, created=datetime.datetime.now().isoformat(timespec="seconds"))
    save_model(out, network, card)
    logger.info("%s: imported, %d class(es), %g angstrom/voxel", out, len(cards), voxel_size)
    return {"model": str(out), "classes": len(cards), "epoch": card.training["epochs"],
            "parameters": sum(p.numel() for p in network.parameters())}


def _epoch(content: Dict[str, Any]) -> int:
    """Return the epoch that a checkpoint names, 0 when it names none."""
    epoch = content.get("epoch", 0)
    return epoch if isinstance(epoch, int) else 0


def _class_table(n_classes: int, diameters_ang: Sequence[float],
                 classes: Sequence[ParticleClass]) -> Tuple[ParticleClass, ...]:
    """Return the class of each channel with its diameter, or raise InputError when the numbers do not fit."""
    table = sorted(classes, key=lambda c: c.id) or [default_class(k) for k in range(1, n_classes + 1)]
    if len(table) != n_classes:
        raise InputError(f"--classes must give the {n_classes} class(es) of the checkpoint, got {described(table)}")
    diameters = list(diameters_ang) * n_classes if len(diameters_ang) == 1 else list(diameters_ang)
    diameters = diameters or [c.diameter_ang for c in table]
    if len(diameters) != n_classes or min(diameters) <= 0:
        raise InputError(f"--diameter-angstrom must give 1 or {n_classes} diameters (the checkpoint has {n_classes} "
                         f"class(es)), or --classes ID:NAME:DIAMETER one for each; got {len(diameters_ang)}")
    return tuple(dataclasses.replace(c, diameter_ang=float(d)) for c, d in zip(table, diameters))


def _class_cards(table: Sequence[ParticleClass], voxel_ang: float, label_vox: float) -> Tuple[ClassCard, ...]:
    """Return a card per class, or raise InputError when a diameter does not suit the voxel size."""
    for one in table:
        check_working_diameter(one.diameter_ang, voxel_ang)
    return tuple(ClassCard(c.id, c.name, c.diameter_ang, float(label_vox)) for c in table)


def _trained_tiles(content: Dict[str, Any]) -> Tuple[int, int]:
    """Return patch edge and border in voxels that the checkpoint's options name, else the published 72 and 12."""
    found: Dict[str, Any] = {}
    stack: List[Any] = [content.get("hyper_parameters")]
    while stack:
        part = stack.pop()
        values = part if isinstance(part, dict) else getattr(part, "__dict__", {})
        stack += [v for v in values.values() if isinstance(v, (dict, _Inert))]
        found.update({k: v for k, v in values.items() if isinstance(v, int)})
    patch, border = found.get("block_size", DEFAULT_PATCH_VOX), found.get("pad_size", 12)
    valid = isinstance(patch, int) and patch >= 32 and patch % 8 == 0
    return (patch, border if 0 <= border < patch // 2 else 12) if valid else (DEFAULT_PATCH_VOX, 12)


