"""Every reader of files that others may have written, valid files to start from, a generator of strange ones."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import struct
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import stores
import torch
from mutations import Generator, disturbed, strange_json

from deepetpicker import options
from deepetpicker.annotation import journal
from deepetpicker.annotation.session import Session
from deepetpicker.config import NetworkOptions, PickOptions, TrainOptions
from deepetpicker.io.classes import classes_from_params, read_classes
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates, write_coordinates
from deepetpicker.io.items import items_from_params
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, ModelCard, format_info, info, read_card
from deepetpicker.io.regions import read_negatives, read_regions
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.network.modelfile import load_model, save_model
from deepetpicker.network.reference import network_from_reference, read_checkpoint
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.proposing.candidates import Candidates, read_candidates, write_candidates

FRAME = Frame(10.0, (24, 32, 40), 8, "")


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader: the name its file must have, what reads it, valid files, how many of the inputs it gets.

    What is a folder has a way of its own to be changed and written; contents are bytes otherwise.
    """

    name: str
    filename: str
    read: Callable[[pathlib.Path], Any]
    make: Callable[[pathlib.Path], List[Any]]
    generate: Optional[Generator] = None
    weight: float = 1.0
    mutate: Optional[Callable[[np.random.Generator, Any, Any], Any]] = None
    write: Callable[[pathlib.Path, Any], Any] = pathlib.Path.write_bytes


def seeds(reader: Reader, folder: pathlib.Path) -> List[Any]:
    """Return valid contents; each of them is read here first, so that the mutations start from what works."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = reader.make(folder)
    for content in contents:
        place = folder / reader.name
        (place / reader.filename).parent.mkdir(parents=True, exist_ok=True)
        reader.write(place / reader.filename, content)
        reader.read(place / reader.filename)
    return contents


def strange_table(rng: np.random.Generator) -> bytes:
    """Return a text table of random words, separators and numbers."""
    words = ["x", "y", "z", "class", "score", "class_id", "class_name", "1", "2.5", "-3", "nan", "1e309", "9e18",
             "1e19", "", '"', '"a', "#", "x,y,z", "data_", "loop_", "_rlnCoordinateX", "_rlnCoordinateY", "1_0", "é",
             "_rlnCoordinateZ", "_rlnTomoName", "_rlnClassNumber", "_CoordinateX", "_CoordinateY", "_CoordinateZ",
             "_Width", "_Height", "<NA>"]
    mark = [",", ";", "\t", " ", "  "][int(rng.integers(0, 5))]
    lines = [mark.join(words[int(rng.integers(0, len(words)))] for _ in range(int(rng.integers(0, 8))))
             for _ in range(int(rng.integers(0, 12)))]
    end = ["\n", "\r\n", "\r"][int(rng.integers(0, 3))]
    return end.join(lines).encode(["utf-8", "utf-16", "latin-1"][int(rng.integers(0, 3))])


def strange_mrc(rng: np.random.Generator) -> bytes:
    """Return an MRC file with a header of extreme numbers."""
    from mrcfile.dtypes import HEADER_DTYPE

    extreme = [0, 1, 2, 3, 4, 8, -1, 10 ** 4, 10 ** 6, 10 ** 7 - 1, 2 ** 31 - 1, -2 ** 31, 12, 16, 101, 401, 1024]
    header = np.zeros(1, HEADER_DTYPE.newbyteorder("<>"[int(rng.integers(0, 2))]))
    for name in ("nx", "ny", "nz", "mode", "mx", "my", "mz", "ispg", "nsymbt", "mapc", "mapr", "maps"):
        usual = {"mode": 2, "nsymbt": 0, "ispg": 1, "mapc": 1, "mapr": 2, "maps": 3}.get(name, 8)
        header[name] = extreme[int(rng.integers(0, len(extreme)))] if rng.random() < 0.3 else usual
    header["cella"] = tuple(float(v) for v in rng.choice([0, 1, -1, 80, 1e38, np.nan, np.inf], 3))
    header["map"] = b"MAP " if rng.random() < 0.9 else b"????"
    header["machst"] = [[0x44, 0x44, 0, 0], [0x11, 0x11, 0, 0], [0, 0, 0, 0]][int(rng.integers(0, 3))]
    return header.tobytes() + bytes(int(rng.choice([0, 100, 2048, 2049, 3072])))


def _tables(suffix: str, name: str = "auto") -> Callable[[pathlib.Path], List[bytes]]:
    """Return what makes valid coordinate files of a format."""
    def make(folder: pathlib.Path) -> List[bytes]:
        rng, out = np.random.default_rng(3), []
        for count in (0, 1, 7):
            table = CoordinateTable(rng.uniform(0, 23, (count, 3)), rng.integers(1, 3, count), rng.random(count))
            write_coordinates(folder / f"t{suffix}", table, Frame(10.0, (24, 32, 40), 8, "TS_1"), name)
            out.append((folder / f"t{suffix}").read_bytes())
        return out

    return make


def _coordinates(suffix: str, name: str = "auto", weight: float = 1.0) -> Reader:
    """Return the reader of a coordinate format."""
    return Reader(name if name != "auto" else suffix[1:], f"t{suffix}", lambda p: read_coordinates(p, FRAME),
                  _tables(suffix, name), strange_table, weight)


def _volumes(folder: pathlib.Path) -> List[bytes]:
    """Return small tomograms of several types, one with an extended header."""
    out = []
    for kind in ("f4", "i2", "i1", "f2"):
        write_volume(folder / "v.mrc", np.arange(60).reshape(3, 4, 5).astype(kind), 10.0)
        out.append((folder / "v.mrc").read_bytes())
    extended = bytearray(out[0])
    struct.pack_into("<i", extended, 92, 160)
    return [*out, bytes(extended[:1024]) + bytes(160) + bytes(extended[1024:])]


def _read_volume(path: pathlib.Path) -> None:
    """Open a tomogram and read all of it."""
    volume = open_volume(path)
    volume.read(0, volume.shape_zyx[0])


def _params() -> Dict[str, Any]:
    """Return the content of a params.json."""
    return {"options": {"threshold": 0.5, "min_distance_angstrom": "1:50", "widths": [4, 6], "device": "cpu"},
            "items": [{"name": "a", "tomogram": "a.mrc", "coordinates": "a.csv", "voxel_size": 10.0, "mask": ""}],
            "classes": [{"id": 1, "name": "ring", "diameter_angstrom": 200.0}]}


def _read_params(path: pathlib.Path) -> None:
    """Read all parts of a params.json."""
    content = options.read_params(str(path))
    items_from_params(content)
    classes_from_params(content)
    given = content.get("options", {})
    for kind in (PickOptions, TrainOptions):
        names = kind.__dataclass_fields__
        options.from_mapping(kind, {k: v for k, v in given.items() if k in names} if isinstance(given, dict) else given)


def _classes() -> Dict[str, Any]:
    """Return the content of a classes.json."""
    return {"voxel_size_angstrom": 10.0, "classes": [{"id": 1, "name": "ring", "diameter_angstrom": 200.0},
                                                     {"id": 2, "name": "rod", "diameter_angstrom": 0}]}


def _manifest() -> Dict[str, Any]:
    """Return the content of a manifest of picks."""
    item = {"name": "a", "status": "done", "reason": "", "picks": "a.csv", "candidates": "c.csv", "maps": {"1": "m"}}
    return {"format_version": 1, "command": "pick", "options": {"threshold": 0.5}, "items": [item], "inputs": [],
            "outputs": {"names": ["a"], "model_sha256": "00", "model": "m"}, "warnings": []}


def _record() -> Dict[str, Any]:
    """Return the content of a record."""
    made = {"options": {"threshold": 0.5}, "model_sha256": "00", "tomogram": {"path": "a"}, "mask": None}
    return {"format_version": 1, "made": made, "inputs": [{"path": "a"}], "warnings": ["w"],
            "item": {"name": "a", "status": "done", "picks": "../manifest.json", "candidates": "c", "maps": {"1": "m"}}}


def _read_record(path: pathlib.Path) -> None:
    """Read a folder of picks with one record."""
    folder = path.parent.parent
    (folder / "manifest.json").write_text(json.dumps(_manifest()))
    read_manifest(folder / "manifest.json")


def _card() -> ModelCard:
    """Return the card of a small model."""
    picks = {"class_id": 1, "n_true": 3, "f1": 0.5, "precision": 0.5, "recall": 0.5}
    training = {"tomograms": ["a"], "items": [{"name": "a", "role": "training"}], "picks": [picks]}
    return ModelCard(network=NetworkOptions(widths=(4, 6)).to_dict(), classes=(ClassCard(1, "ring", 100.0, 7.0, 0.4),),
                     voxel_size_ang=10.0, patch_vox=32, border_vox=12, label="tball", normalisation="robust",
                     threshold=0.3, score_floor=0.1, training=training, validation=[{"epoch": 1}])


def _model(folder: pathlib.Path) -> List[bytes]:
    """Return a small model file."""
    torch.manual_seed(0)
    save_model(folder / "m.safetensors", ResUNet3D(NetworkOptions(widths=(4, 6))), _card())
    return [(folder / "m.safetensors").read_bytes()]


def _strange_model(rng: np.random.Generator) -> bytes:
    """Return a model file without weights whose card is strange."""
    card = disturbed(rng, json.loads(_card().to_json()))
    header = json.dumps({"__metadata__": {"deepetpicker": json.dumps(card)},
                         "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    return struct.pack("<Q", len(header.encode())) + header.encode() + bytes(8)


def _read_card(path: pathlib.Path) -> None:
    """Read a model's card as info does, and as the viewers do."""
    card = read_card(path)
    format_info(card)
    info(path)
    card.use_of("a")


def _checkpoint(folder: pathlib.Path) -> List[bytes]:
    """Return a small checkpoint in the form of the published reference."""
    names = {"encoders.0.basic_module.conv1.conv.weight": (4, 1, 3, 3, 3), "final_conv.weight": (2, 4, 1, 1, 1)}
    content = {"state_dict": {f"model.{k}": torch.zeros(v) for k, v in names.items()}, "epoch": 3,
               "hyper_parameters": {"block_size": 72, "pad_size": 12}}
    torch.save(content, folder / "c.ckpt")
    return [(folder / "c.ckpt").read_bytes()]


def _read_checkpoint(path: pathlib.Path) -> None:
    """Read a checkpoint; that its weights are no network is what the seeds say."""
    from deepetpicker.errors import ModelFileError

    content = read_checkpoint(path)
    try:
        network_from_reference(content, path)
    except ModelFileError as error:
        if not str(error):
            raise


def _change(key: int) -> Dict[str, Any]:
    """Return a change of the annotation's journal."""
    return {"what": "particle", "in": "a", "key": key, "before": None,
            "after": {"zyx": [1.0, 2.0, 3.5], "class": 1, "reviewed": True, "score": None}}


def _journal() -> List[Dict[str, Any]]:
    """Return the entries of a journal."""
    tomogram = {"what": "tomogram", "in": "a", "key": 0, "before": None, "after": {
        "name": "a", "path": "/d/a.mrc", "voxel_size_angstrom": 10.0, "shape_zyx": [24, 32, 40]}}
    return [{"n": 1, "start": [tomogram]}, {"n": 2, "do": [_change(1)]}, {"n": 3, "do": [_change(2)]},
            {"n": 4, "undo": True}, {"n": 5, "redo": True}]


def _lines(entries: List[Any]) -> bytes:
    """Return entries as the lines of a journal."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in entries)


def _strange_journal(rng: np.random.Generator) -> bytes:
    """Return a journal in which something is strange."""
    content = disturbed(rng, _journal())
    return _lines(content if isinstance(content, list) else [content])


def _read_session(path: pathlib.Path) -> None:
    """Open an annotation folder as the window does, and count what it holds."""
    journal.read_journal(path)
    with Session(path.parent) as session:
        for one in session.tomograms:
            session.table(one.name)
            session.counts(one.name)


def _candidates(folder: pathlib.Path) -> List[bytes]:
    """Return the file of a few candidates."""
    found = Candidates(np.arange(9.0).reshape(3, 3), np.ones(3), np.ones((3, 4), np.float32))
    write_candidates(folder / "made.npz", found, {"source": "x"})
    return [(folder / "made.npz").read_bytes()]


def _json(valid: Callable[[], Any]) -> Callable[[pathlib.Path], List[bytes]]:
    """Return what makes a valid JSON file."""
    return lambda folder: [json.dumps(valid(), indent=1).encode() + b"\n"]


READERS: Dict[str, Reader] = {one.name: one for one in (
    Reader("mrc", "v.mrc", _read_volume, _volumes, strange_mrc, 2.0),
    _coordinates(".csv", weight=2.0), _coordinates(".coords"), _coordinates(".box"), _coordinates(".pts"),
    _coordinates(".star", "relion4", 0.4), _coordinates(".star", "relion5", 0.4), _coordinates(".cbox", weight=0.4),
    Reader("params", "params.json", _read_params, _json(_params), strange_json(_params), 1.5),
    Reader("classes", "classes.json", lambda p: read_classes(p.parent), _json(_classes), strange_json(_classes)),
    Reader("manifest", "manifest.json", read_manifest, _json(_manifest), strange_json(_manifest)),
    Reader("record", "records/a.json", _read_record, _json(_record), strange_json(_record)),
    Reader("regions", "a_regions.csv", read_regions,
           lambda folder: [b"x_min,y_min,z_min,x_max,y_max,z_max\n0,1,2,9,8,7\n"], strange_table),
    Reader("negatives", "a_negatives.csv", read_negatives, lambda folder: [b"x,y,z\n0,1,2.5\n"], strange_table),
    Reader("candidates", "a.npz", read_candidates, _candidates),
    Reader("card", "m.safetensors", _read_card, _model, _strange_model, 1.5),
    Reader("model", "m.safetensors", load_model, _model, _strange_model, 0.5),
    Reader("checkpoint", "c.ckpt", _read_checkpoint, _checkpoint, None, 0.5),
    Reader("journal", "journal.jsonl", _read_session, lambda folder: [_lines(_journal())], _strange_journal, 0.5),
    Reader("zarr", "v.zarr", stores.read_zarr, stores.zarr_stores, None, 0.5, stores.mutate_zarr, stores.write_store),
    Reader("copick", "p/config.json", stores.read_copick, stores.copick_projects, None, 0.5, stores.mutate_copick,
           stores.write_project),
)}
