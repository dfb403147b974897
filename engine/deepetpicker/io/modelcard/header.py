"""The header of a safetensors file, which holds the model card, without its weights."""

from __future__ import annotations

import os
import pathlib
import struct
from typing import Any, Dict, Tuple, Union

from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.io.jsonvalues import parse
from deepetpicker.io.modelcard.card import ModelCard
from deepetpicker.io.plainfile import check_plain

METADATA_KEY = "deepetpicker"
JUDGED = "judged."  # begins the names of the weights that were judged, where others pick
MAX_HEADER_BYTES = 100_000_000

PathLike = Union[str, "os.PathLike[str]"]


def read_card(path: PathLike) -> ModelCard:
    """Return the model card of a model file, reading its header only.

    Raises
    ------
    ModelFileError
        If the file is missing, empty, truncated, no safetensors file, holds no card, or a card of another version.
    """
    metadata, _ = read_header(path)
    if METADATA_KEY not in metadata:
        raise ModelFileError(f"{path} is a safetensors file without a DeepETPicker model card: expected one written "
                             "by 'deepetpicker train' or 'deepetpicker import-reference'")
    return ModelCard.from_json(metadata[METADATA_KEY], path)


def read_header(path: PathLike) -> Tuple[Dict[str, str], Dict[str, Any]]:
    """Return the metadata and the tensor directory of a safetensors file.

    Returns
    -------
    tuple of dict
        Metadata (names to text) and the directory (tensor name to dtype, shape and data_offsets).

    Raises
    ------
    ModelFileError
        If the file is missing, empty, truncated or no safetensors file.
    """
    file = pathlib.Path(path)
    try:
        check_plain(file, "a model file (.safetensors)")
    except InputError as error:
        raise ModelFileError(str(error)) from error
    if file.is_dir():
        raise ModelFileError(f"expected a model file (.safetensors), got a folder: {path}")
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            directory = _directory(stream.read(8), stream, size, path)
    except FileNotFoundError as error:
        raise ModelFileError(f"no such model file: {path}") from error
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror or error}") from error
    metadata = directory.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFileError(f"{path}: damaged safetensors header (metadata must map names to text)")
    return metadata, directory


def _directory(head: bytes, stream: Any, size: int, path: PathLike) -> Dict[str, Any]:
    """Return the parsed header; its length is checked against the file before anything is read."""
    if size == 0:
        raise ModelFileError(f"{path} is empty (0 bytes): copy the model again or train anew")
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if len(head) < 8 or length < 2 or length > MAX_HEADER_BYTES:
        raise ModelFileError(f"{path} is not a safetensors file: expected a model written by 'deepetpicker train'")
    start = stream.read(1)
    if start != b"{":
        raise ModelFileError(f"{path} is not a safetensors file: expected a model written by 'deepetpicker train'")
    if length > size - 8:
        raise ModelFileError(f"{path} is truncated: its header should have {length} bytes, {size - 8} are left; "
                             "copy the model again")
    try:
        directory = parse((start + stream.read(length - 1)).decode("utf-8"))
        if not isinstance(directory, dict):
            raise ValueError("header is no object")
        tensors = [t for n, t in directory.items() if n != "__metadata__"]
        ends = [int(t["data_offsets"][1]) for t in tensors]
        if min((int(edge) for t in tensors for edge in t["shape"]), default=0) < 0:
            raise ValueError("a shape below zero")
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ModelFileError(f"{path}: damaged safetensors header ({error}); copy the model again") from error
    if ends and 8 + length + max(ends) > size:
        raise ModelFileError(f"{path} is truncated: expected {8 + length + max(ends)} bytes, found {size}; copy the "
                             "model again")
    return directory
