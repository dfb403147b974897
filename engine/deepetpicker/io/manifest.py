"""manifest.json: what a run was given, what it did and what came out."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import platform
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from deepetpicker import __version__
from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.jsonvalues import finite_json, objects, parse
from deepetpicker.io.plainfile import LARGEST_JSON, check_plain
from deepetpicker.io.records import Records, has_places, identity, located, with_records
from deepetpicker.io.volumes import Volume

PathLike = Union[str, "os.PathLike[str]"]
FORMAT_VERSION = 1
STATUSES = ("done", "failed")


class Manifest:
    """Collect the facts of a run and write them as manifest.json.

    Parameters
    ----------
    command : str
        Name of the command: ``"pick"``.
    options : dict
        Options in force, as ``Options.to_dict()``.
    argv : sequence of str, optional
        Command line; default: this process's.
    seed : int
        Seed of everything random.

    Attributes
    ----------
    outputs : dict
        Names of outputs to their paths or values; filled by the command.
    warnings : list of str
        Warnings so far, each once.
    items : list of dict
        One entry per item so far.
    """

    def __init__(self, command: str, options: Mapping[str, Any], argv: Optional[Sequence[str]] = None,
                 seed: int = 0) -> None:
        self.outputs: Dict[str, Any] = {}
        self.warnings: List[str] = []
        self.items: List[Dict[str, Any]] = []
        self._inputs: List[Dict[str, Any]] = []
        self._clock = time.monotonic()
        words = [str(a) for a in (sys.argv if argv is None else argv)]
        self._head = {"format_version": FORMAT_VERSION, "command": command, "version": __version__,
                      "argv": words, "options": dict(options), **_params_of(words),
                      "directory": os.getcwd(), "seed": int(seed),
                      "started": datetime.datetime.now().isoformat(timespec="seconds")}

    def add_input(self, volume: Volume) -> None:
        """Record an input tomogram with its shape, voxel size and a digest of samples, and its warnings."""
        facts = identity(volume.path)
        self._inputs.append({"path": str(volume.path), "shape_zyx": list(volume.shape_zyx),
                             "voxel_size_angstrom": volume.voxel_size_ang, "bytes": facts["size"],
                             "sample_sha256": facts["sample"]})
        for text in volume.warnings:
            self.warn(f"{volume.name}: {text}")

    def add_mask(self, path: PathLike) -> None:
        """Record a mask of an input tomogram with a digest of samples."""
        facts = identity(path)
        self._inputs.append({"path": str(path), "bytes": facts["size"], "sample_sha256": facts["sample"]})

    def add_file(self, path: PathLike) -> None:
        """Record an input that is read as a whole, a table or a model, with its digest."""
        digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        self._inputs.append({"path": str(path), "sha256": digest})

    def add_item(self, name: str, status: str, reason: str = "", **facts: Any) -> None:
        """Record what became of one item.

        Parameters
        ----------
        name : str
            Name of the item.
        status : str
            ``"done"`` or ``"failed"``.
        reason : str
            Why it failed.
        **facts
            Anything else about it: seconds, paths, counts.

        Raises
        ------
        InputError
            For another status.
        """
        if status not in STATUSES:
            raise InputError(f"status must be one of {', '.join(STATUSES)}, got {status!r}")
        self.items.append({"name": name, "status": status, "reason": reason, **facts})

    def warn(self, text: str) -> None:
        """Record a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    @property
    def n_failed(self) -> int:
        """Number of failed items so far."""
        return sum(item["status"] == "failed" for item in self.items)

    def to_dict(self) -> Dict[str, Any]:
        """Return the manifest's content as JSON-ready values; NaN becomes null, paths become text."""
        content = {**self._head, "seconds": round(time.monotonic() - self._clock, 3), "machine": machine(),
                   "inputs": self._inputs, "items": self.items, "outputs": self.outputs, "warnings": self.warnings}
        ready: Dict[str, Any] = finite_json(content)
        return ready

    def write(self, path: PathLike) -> None:
        """Write the manifest, complete or not at all; may be called again as the run goes on.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        write_content(path, self.to_dict())


def _params_of(words: Sequence[str]) -> Dict[str, Any]:
    """Return, as the member ``params``, name and digest of the file that ``--params`` of a command line names."""
    for word, following in zip(words, [*words[1:], ""]):
        name = following if word == "--params" else word[len("--params="):] if word.startswith("--params=") else ""
        if name:
            with contextlib.suppress(OSError):
                digest = hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
                return {"params": {"path": name, "sha256": digest}}
    return {}


def write_content(path: PathLike, content: Mapping[str, Any]) -> None:
    """Write the content of a manifest, as :meth:`Manifest.to_dict` gives it, complete or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def machine() -> Dict[str, Any]:
    """Return platform, processor count, Python version and, where torch is loaded, its version."""
    facts: Dict[str, Any] = {"platform": platform.platform(), "cpu_count": os.cpu_count(),
                             "python": platform.python_version()}
    if "torch" in sys.modules:
        facts["torch"] = str(getattr(sys.modules["torch"], "__version__", "unknown"))
    return facts


def read_manifest(path: PathLike) -> Dict[str, Any]:
    """Return the content of a manifest.json; that of picks with all records in its folder.

    Tables and maps of picks are given below the folder of path, wherever the manifest was written.

    Raises
    ------
    InputError
        If the file is missing or unreadable.
    FormatError
        If it is no manifest or of another format version.
    """
    try:
        check_plain(path, "a manifest", LARGEST_JSON)
        content = parse(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the manifest {path}: {error.strerror or error}") from error
    except InputError:
        raise
    except ValueError as error:
        raise FormatError(f"{path} is not a manifest (no valid JSON: {error}); run the command again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise FormatError(f"{path}: expected a manifest of format version {FORMAT_VERSION}, found {version!r}; use the "
                          "version of DeepETPicker that wrote it")
    _check_members(content, path)
    if content.get("command") != "pick" or "names" not in (content.get("outputs") or {}):
        return dict(content)
    records = Records(pathlib.Path(path).parent)
    return located(with_records(content, records.read()), records.folder)


def _check_members(content: Mapping[str, Any], path: PathLike) -> None:
    """Raise FormatError unless the members that are read have the form in which manifests are written."""
    try:
        outputs, items = content.get("outputs") or {}, objects(content, "items")
        if not isinstance(outputs, Mapping):
            raise InputError("'outputs' must be an object")
        if content.get("command") != "pick" or "names" not in outputs:
            return
        names, options = outputs["names"], content.get("options")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("'names' must be a list of names")
        if not isinstance(options, Mapping) or not isinstance(outputs.get("model_sha256"), str):
            raise InputError("'options' and 'model_sha256' must be there")
        if not all(has_places(item) for item in items):
            raise InputError("an item's tables and maps must be paths")
    except InputError as error:
        raise FormatError(f"{path}: damaged manifest ({error}); run the command again") from error
