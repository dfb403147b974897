"""What was picked, one small file per tomogram; the manifest of a folder of picks is made from them.

A record is written when the tables of its tomogram are complete and says what they were made from. So processes that
share a folder need no locks and no order: each writes the records of its own tomograms, and whoever reads the manifest
reads the records that there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import stat
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from deepetpicker.io.atomic import write_text
from deepetpicker.io.jsonvalues import parse
from deepetpicker.verdict import of_run

PathLike = Union[str, "os.PathLike[str]"]
Record = Dict[str, Any]

RECORDS, EARLIER = "records", "earlier"
FORMAT_VERSION = 1
NOT_COMPARED = ("shard", "resume", "device", "memory_limit", "batch", "slab", "mask", "voxel_size",
                "max_resampling")
LATER = {"fdr": 0.0, "faint": "auto"}  # options that older records do not have, and what they stood for
_SAMPLES, _SAMPLE_BYTES, _METADATA_BYTES = 8, 4096, 1 << 20


def identity(path: PathLike) -> Dict[str, Any]:
    """Return what tells a file from another one or from its earlier content: size, time and a digest of samples.

    The path is in it, absolute, for people; it does not count when identities are compared. ``size`` is -1 when there
    is no such file. Of a folder (OME-Zarr) it is the size of all files in it, the time of the newest, and a digest of
    their names and sizes, of all metadata and of samples of the others.
    """
    facts: Dict[str, Any] = {"path": os.path.abspath(path), "size": -1, "mtime_ns": 0, "sample": ""}
    if os.path.isdir(path):
        with contextlib.suppress(OSError):
            facts.update(_of_folder(os.fspath(path)))
        return facts
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        state = os.fstat(stream.fileno())
        digest = hashlib.sha256()
        for part in range(_SAMPLES):
            stream.seek(part * max(0, state.st_size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
        facts.update(size=state.st_size, mtime_ns=state.st_mtime_ns, sample=digest.hexdigest()[:32])
    return facts


def _of_folder(folder: str) -> Dict[str, Any]:
    """Return size, time and sample of a folder; links are neither followed nor read."""
    found: List[Tuple[str, int, int]] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            state = os.lstat(os.path.join(place, name))
            if stat.S_ISREG(state.st_mode):
                found.append((os.path.relpath(os.path.join(place, name), folder), state.st_size, state.st_mtime_ns))
    digest = hashlib.sha256()
    others = [one for one in found if not _is_metadata(one[0])]
    looked = {others[part * (len(others) - 1) // (_SAMPLES - 1)][0] for part in range(_SAMPLES)} if others else set()
    for name, size, _ in found:
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        if name in looked or _is_metadata(name):
            with open(os.path.join(folder, name), "rb") as stream:
                digest.update(stream.read(_METADATA_BYTES if _is_metadata(name) else _SAMPLE_BYTES))
    return {"size": sum(size for _, size, _ in found), "mtime_ns": max((time for _, _, time in found), default=0),
            "sample": digest.hexdigest()[:32]}


def _is_metadata(path: str) -> bool:
    """Tell whether a file in an OME-Zarr folder is no chunk."""
    name = os.path.basename(path)
    return name.startswith(".z") or name.endswith(".json")


def made_from(tomogram: PathLike, voxel_size_ang: float, mask: Optional[PathLike], model_sha256: str,
              options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what decides the picks of a tomogram, to be compared with that of an earlier run.

    Parameters
    ----------
    tomogram : path
        The tomogram.
    voxel_size_ang : float
        The voxel size that was given, in angstrom; 0 takes the header's.
    mask : path, optional
        Its mask.
    model_sha256 : str
        Digest of the model file.
    options : mapping
        Options of ``pick``; those that do not change what comes out are left out.
    """
    return {"tomogram": identity(tomogram), "voxel_size_angstrom": float(voxel_size_ang),
            "mask": identity(mask) if mask else None, "model_sha256": model_sha256, "options": compared(options)}


def compared(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the options that decide what comes out, as they are after a round trip through JSON."""
    kept = {name: value for name, value in options.items() if name not in NOT_COMPARED}
    return dict(json.loads(json.dumps(kept)))


def is_same(made: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two results of :func:`made_from` give the same picks."""
    def bare(content: Mapping[str, Any]) -> Dict[str, Any]:
        files = {key: content.get(key) and {k: v for k, v in content[key].items() if k != "path"}
                 for key in ("tomogram", "mask")}
        return {**content, **files, "options": {**LATER, **content["options"]}}

    return bare(made) == bare(other)


class Records:
    """The records in an output folder.

    Parameters
    ----------
    folder : path
        Output folder; it need not exist.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = pathlib.Path(folder)
        self._known: Dict[str, Tuple[Tuple[int, int], Record]] = {}

    def path(self, name: str) -> pathlib.Path:
        """Return the file of a tomogram's record."""
        return self.folder / RECORDS / f"{name}.json"

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a tomogram's record, with the paths of what is in the output folder relative to it.

        Parameters
        ----------
        name : str
            Name of the tomogram.
        record : mapping
            ``made`` (:func:`made_from`), ``item``, ``inputs`` and ``warnings`` as in a manifest. Digests of the files
            that it names, and of itself, are added.
        """
        item = _moved(record["item"], self._relative)
        content = {"format_version": FORMAT_VERSION, **record, "item": item, "files": self._digests(item)}
        write_text(self.path(name), json.dumps({**content, "digest": _digest(content)}, indent=1, allow_nan=False)
                   + "\n")

    def is_whole(self, record: Mapping[str, Any]) -> bool:
        """Tell whether the tables and maps of a record are as they were written; older records do not say."""
        return "files" not in record or record["files"] == self._digests(record["item"])

    def _digests(self, item: Mapping[str, Any]) -> Dict[str, Any]:
        """Return the SHA-256 of each table of an item, and size and sample of each of its maps, by their paths."""
        tables = [item[key] for key in ("picks", "candidates") if item.get(key)]
        found: Dict[str, Any] = {}
        for path in tables:
            with contextlib.suppress(OSError):
                found[path] = hashlib.sha256((self.folder / path).read_bytes()).hexdigest()
        for path in (item.get("maps") or {}).values():
            facts = identity(self.folder / path)
            found[path] = [facts["size"], facts["sample"]]
        return found

    def forget(self, name: str) -> None:
        """Remove a tomogram's record: its tables are about to be replaced."""
        with contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()

    def read(self) -> Dict[str, Record]:
        """Return the records by name; those of tomograms whose pick table is gone, or that are damaged, are left out.

        A record that was read before is not read again unless its file has changed.
        """
        known: Dict[str, Tuple[Tuple[int, int], Record]] = {}
        try:
            entries = sorted(os.scandir(self.folder / RECORDS), key=lambda entry: entry.name)
        except OSError:
            entries = []
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith(".json") or not entry.is_file():
                continue
            with contextlib.suppress(OSError, ValueError):
                stamp = entry.stat().st_ino, entry.stat().st_mtime_ns
                before = self._known.get(entry.name)
                known[entry.name] = before if before and before[0] == stamp else (stamp, _load(entry.path))
        self._known = known
        return {record["item"]["name"]: record for _, record in known.values() if self._is_there(record)}

    def set_aside(self, name: str) -> List[str]:
        """Move the tables and maps that an earlier run left of a tomogram to ``earlier/``; return their names."""
        tables = [self.folder / f"{name}_candidates.csv", self.folder / f"{name}.csv"]
        if not tables[0].is_file():  # else it is not ours
            return []
        maps = [path for path in self.folder.iterdir() if path.name.startswith(f"{name}_probability_")]
        moved = [path for path in (*tables, *maps) if path.is_file()]
        (self.folder / EARLIER).mkdir(exist_ok=True)
        for path in moved:
            os.replace(path, self.folder / EARLIER / path.name)
        return [path.name for path in moved]

    def _is_there(self, record: Record) -> bool:
        """Tell whether the pick table of a record is there; a failed tomogram has none."""
        item = record["item"]
        return item["status"] != "done" or os.path.isfile(self.folder / item["picks"])

    def _relative(self, path: str) -> str:
        """Return a path in the output folder relative to it."""
        return os.path.relpath(os.path.abspath(path), os.path.abspath(self.folder))


def _load(path: str) -> Record:
    """Return a record, or raise ValueError."""
    record = parse(pathlib.Path(path).read_text(encoding="utf-8"))
    if isinstance(record, dict) and "digest" in record and record.pop("digest") != _digest(record):
        raise ValueError("a damaged record")
    item = record.get("item") if isinstance(record, dict) else None
    if not isinstance(item, dict) or record.get("format_version") != FORMAT_VERSION or not _is_item(item) \
            or not _is_made(record.get("made")) or not isinstance(record.get("inputs"), list) \
            or not isinstance(record.get("warnings"), list) or not all(isinstance(t, str) for t in record["warnings"]):
        raise ValueError("no record")
    return dict(record)


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, however they are laid out in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "replace")).hexdigest()


def _is_item(item: Mapping[str, Any]) -> bool:
    """Tell whether an item has a name, a status and, when it is done, a table."""
    named = all(isinstance(item.get(key), str) for key in ("name", "status"))
    return named and has_places(item) and (item["status"] != "done" or bool(item.get("picks")))


def has_places(item: Mapping[str, Any]) -> bool:
    """Tell whether the tables and maps of an item, where it has any, are paths."""
    maps = item.get("maps") or {}
    places = [item.get("picks") or "", item.get("candidates") or "",
              *(maps.values() if isinstance(maps, Mapping) else [None])]
    return all(isinstance(place, str) and "\0" not in place for place in places)


def _is_made(made: Any) -> bool:
    """Tell whether a value has the form of what :func:`made_from` returns."""
    return (isinstance(made, dict) and isinstance(made.get("options"), dict) and "model_sha256" in made
            and all(made.get(key) is None or isinstance(made[key], dict) for key in ("tomogram", "mask")))


def _moved(item: Mapping[str, Any], place: Any) -> Dict[str, Any]:
    """Return an item whose tables and maps are where ``place(path)`` says."""
    paths = {key: place(item[key]) for key in ("picks", "candidates") if item.get(key)}
    if item.get("maps"):
        paths["maps"] = {key: place(path) for key, path in item["maps"].items()}
    return {**item, **paths}


def with_records(content: Mapping[str, Any], records: Mapping[str, Record]) -> Dict[str, Any]:
    """Return the manifest of a run of ``pick`` with what all records in its folder say.

    Parameters
    ----------
    content : mapping
        A manifest whose ``outputs`` have ``names`` (of the run's tomograms) and ``model_sha256``.
    records : mapping
        Records by name.

    Returns
    -------
    dict
        The tomograms of the run come first, in its order, then others by name. ``outputs.missing`` are the names of
        those that were not picked yet with the run's model and options; picks that were made otherwise have a warning.
    """
    names: Sequence[str] = content["outputs"]["names"]
    order = [name for name in names if name in records] + sorted(set(records) - set(names))
    chosen = [records[name] for name in order]
    others = {name: text for name in order if (text := _otherwise(content, records[name]["made"]))}
    warnings = [text for record in chosen for text in record["warnings"]]
    warnings += [f"{name}: picked with {text}" for name, text in others.items()
                 if records[name]["item"]["status"] == "done"]
    missing = [name for name in names if name not in records or name in others]
    items = [record["item"] for record in chosen]
    verdict = of_run(items)
    return {**content, "inputs": [one for record in chosen for one in record["inputs"]], "items": items,
            "warnings": list(dict.fromkeys([*warnings, *verdict["unusual"]])),
            "outputs": {**content["outputs"], "missing": missing, "verdict": verdict}}


def _otherwise(content: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Return in what a record differs from a run: "threshold 0.3 instead of 0.5"; empty when in nothing."""
    ours, theirs = ({**LATER, **options} for options in (compared(content["options"]), made["options"]))
    words = [f"{name} {theirs.get(name)} instead of {ours.get(name)}" for name in sorted({**ours, **theirs})
             if ours.get(name) != theirs.get(name)]
    if made["model_sha256"] != content["outputs"]["model_sha256"]:
        words.insert(0, "another model")
    return ", ".join(words)


def located(content: Mapping[str, Any], folder: pathlib.Path) -> Dict[str, Any]:
    """Return a manifest whose tables and maps are below the folder that it was read from."""
    items = [_moved(item, lambda path: str(folder / path)) for item in content["items"]]
    return {**content, "items": items}
