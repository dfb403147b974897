"""Inputs that are folders, OME-Zarr tomograms and copick projects: valid ones, and how they become hostile.

A content is a mapping from paths in the folder to bytes or to what is no plain file (:class:`Odd`).
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import json
import lzma
import os
import pathlib
import shutil
import struct
import tempfile
import zlib
from typing import Any, Callable, Dict, List, Tuple, Union

import numpy as np
from mutations import TOKENS, disturbed, mutate

from deepetpicker.io.coordinates.copick import Wanted, export_folder, import_tables, open_project
from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.io.records import identity
from deepetpicker.io.volumes import open_volume
from tests import zarrs

SHAPE = (6, 10, 14)
READ_ALL = 1 << 22  # voxels; of larger ones corners and the middle are read
METADATA = (".zattrs", ".zarray", ".zgroup", "zarr.json")
SIZES = [0, 1, 2, 3, 7, 64, 1000, 10 ** 4, 10 ** 5, 10 ** 7, 10 ** 9, 2 ** 31, 2 ** 63, 10 ** 30, -1, 1.5, True, "3"]
CODECS: List[Any] = [{"id": name} for name in (
    "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "pickle", "json2", "vlen-utf8", "msgpack2", "zfpy", "crc32",
    "packbits", "shuffle", "os.system", "../x", "")]
CODECS += [{"id": "astype", "encode_dtype": "u1", "decode_dtype": kind} for kind in ("<f8", "S1000000000", "O", "U99")]
CODECS += [{"id": "delta", "dtype": "<f4", "astype": "S100000000"},
           {"id": "quantize", "digits": 10 ** 9, "dtype": "f4"},
           {"id": "fixedscaleoffset", "offset": 0, "scale": 0, "dtype": "<f4", "astype": "U1000000"},
           {"id": "shuffle", "elementsize": 10 ** 9}, {"id": "lzma", "format": 9, "filters": [{"id": 3}]}]


@dataclasses.dataclass(frozen=True)
class Odd:
    """What is no plain file: a ``link`` to a path, a ``pipe``, a ``folder``, or a file of ``size`` zeros."""

    kind: str
    target: str = ""
    size: int = 0


Content = Dict[str, Union[bytes, Odd]]


def write_store(folder: pathlib.Path, content: Content) -> None:
    """Write a folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, what in content.items():
        with contextlib.suppress(OSError):  # a name that no file can have, a file where a folder should be
            _put(folder / name, what)


def _put(path: pathlib.Path, what: Union[bytes, Odd]) -> None:
    """Write one file, or what stands for it; nothing is written through links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.realpath(path.parent).startswith(os.path.realpath(tempfile.gettempdir())):
        if isinstance(what, bytes):
            path.write_bytes(what)
        elif what.kind == "link":
            path.symlink_to(what.target)
        elif what.kind == "pipe":
            os.mkfifo(path)
        elif what.kind == "folder":
            path.mkdir()
        else:
            with open(path, "wb") as stream:
                stream.truncate(what.size)


def read_store(folder: pathlib.Path) -> Content:
    """Return the content of a folder of plain files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def zarr_stores(folder: pathlib.Path) -> List[Content]:
    """Return OME-Zarr tomograms of two levels in both versions of the format, with the usual codecs and with shards."""
    import numcodecs

    old = {"version": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    layouts: List[Dict[str, Any]] = [{**old, "compressors": None}, {"version": 2, "compressors": numcodecs.GZip()}]
    layouts += [{**old, "compressors": codec()} for codec in (
        numcodecs.Blosc, numcodecs.LZ4, numcodecs.BZ2, numcodecs.LZMA, numcodecs.Zlib)]
    layouts += [{**old, "filters": [numcodecs.Delta("<f4")], "compressors": numcodecs.Zstd()}]
    layouts += [{**old, "filters": [numcodecs.Shuffle(4), numcodecs.Zlib()], "compressors": numcodecs.Blosc()}]
    layouts += _new_layouts() if zarrs.is_new() else []
    out = []
    for number, how in enumerate(layouts):
        place = folder / f"made{number}.zarr"
        _write_zarr(place, **how)
        out.append(read_store(place))
    return out


def _new_layouts() -> List[Dict[str, Any]]:
    """Return layouts of version 3 of the format."""
    plain: List[Dict[str, Any]] = [{"compressors": None}]
    plain += [{"compressors": zarrs.codecs(*names)} for names in (
        ["ZstdCodec"], ["BloscCodec", "Crc32cCodec"], ["GzipCodec"], ["GzipCodec", "Crc32cCodec", "ZstdCodec"])]
    plain += [{"shards": (6, 10, 14), "compressors": zarrs.codecs(name)} for name in ("ZstdCodec", "GzipCodec")]
    return [{"version": 3, **how} for how in plain]


def _write_zarr(place: pathlib.Path, version: int, **how: Any) -> None:
    """Write a tomogram of two levels."""
    grey = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    group = zarrs.PlainGroup(place) if version == 2 else zarrs.open_group(place, version)
    listed = []
    for number, data in enumerate((grey, grey[::2, ::2, ::2])):
        settings = how if number == 0 or not {"shards", "serializer"} & set(how) else {}
        group.create_array(str(number), shape=data.shape, dtype="f4", **{"chunks": (3, 5, 7), **settings})[:] = data
        listed.append({"path": str(number), "coordinateTransformations": [
            {"type": "scale", "scale": [2.0 ** number] * 3}]})
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    image = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": listed}]}
    group.attrs.update(image if version == 2 else {"ome": {"version": "0.5", **image}})


def read_zarr(path: pathlib.Path) -> None:
    """Open a tomogram, read all levels, or of large ones corners and the middle, and take its identity."""
    identity(path)
    volume = open_volume(path)
    for data in (volume.data_zyx, *(level.data_zyx for level in volume.coarser)):
        if data.size <= READ_ALL:
            np.asarray(data[:])
            continue
        for part in (0.0, 0.5, 1.0):
            starts = [int(part * max(0, n - 4)) for n in data.shape]
            np.asarray(data[tuple(slice(start, start + 4) for start in starts)])


def mutate_zarr(rng: np.random.Generator, one: Content, other: Content) -> Content:
    """Return a tomogram with one to three changes."""
    content = dict(one)
    for _ in range(int(rng.integers(1, 4))):
        names = sorted(name for name, what in content.items() if isinstance(what, bytes))
        metadata = [name for name in names if name.rsplit("/", 1)[-1] in METADATA]
        chunks = [name for name in names if name not in metadata]
        if rng.random() < 0.6 and metadata:
            name = metadata[int(rng.integers(0, len(metadata)))]
            content[name] = _metadata(rng, bytes(content[name]))  # type: ignore[arg-type]
        elif chunks:
            _chunk(rng, content, chunks[int(rng.integers(0, len(chunks)))], other)
        if rng.random() < 0.1:
            name = names[int(rng.integers(0, len(names)))] if names else "x"
            content[name.rsplit("/", 1)[0] + "/" + METADATA[int(rng.integers(0, 4))]] = _odd(rng)
        if rng.random() < 0.03:
            content = {name: what for name, what in content.items() if not name.startswith("0/")}
            content["0"] = _odd(rng)
    return content


def _metadata(rng: np.random.Generator, text: bytes) -> bytes:
    """Return metadata with other bytes, another member anywhere, or a hostile value where one counts."""
    kind = rng.random()
    if kind < 0.2:
        return mutate(rng, text, text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    content = disturbed(rng, content) if kind < 0.5 else _hostile(rng, content)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _hostile(rng: np.random.Generator, content: Any) -> Any:
    """Return metadata in which one known member has a hostile value; others as they are."""
    def sizes(_: Any) -> List[Any]:
        return [SIZES[int(rng.integers(0, len(SIZES)))] for _ in range(int(rng.choice([3, 3, 3, 3, 2, 9])))]

    def scaled(value: Any) -> Any:
        factor = int(rng.choice([2, 100, 10 ** 4]))
        return [v * factor if isinstance(v, int) and rng.random() < 0.6 else v for v in value]

    def one_of(*values: Any) -> Callable[[Any], Any]:
        return lambda _: values[int(rng.integers(0, len(values)))]

    codec = one_of(*CODECS)
    paths = one_of("..", "../0", "/etc", "0/../..", "0/../0", "", ".", "0\0", "1", "x" * 5000, "0/./", "//", "\ud800")
    changes: Dict[str, Callable[[Any], Any]] = {
        "shape": one_of(sizes, scaled)(0), "chunks": one_of(sizes, scaled)(0), "chunk_shape": one_of(sizes, scaled)(0),
        "dtype": one_of("|O", ">f4", "<f8", "<c8", "|S9", "<U9", "|V8", "<M8[s]", "<f2", "|b1", "<i8", "f4", "|f8"),
        "data_type": one_of("float64", "uint8", "string", "bytes", "complex64", "bool", "r64", {"name": "x"}),
        "path": paths, "compressor": codec, "filters": lambda _: [codec(0) for _ in range(int(rng.integers(0, 4)))],
        "codecs": _codecs(rng),
        "fill_value": one_of(None, "NaN", "Infinity", "0x7fc00000", 1e999, [], "x" * 9999, "AA=="),
        "order": one_of("F", "K", 3), "dimension_separator": one_of("/", ".", "/../", ""),
        "index_location": one_of("start", "end", "middle"), "separator": one_of("/", ".", "../"),
        "scale": one_of([1e308] * 3, [0, 1, 1], [2, 2, 2], [1, 1], [1e-320] * 3, [5, 5, 5]),
        "unit": one_of("x", "parsec"), "zarr_format": one_of(2, 3, 4, "2"), "endian": one_of("big", "little", "x"),
        "name": one_of("x", "z", "gzip", "v2"),
        "order_": one_of([2, 1, 0], [0, 0, 0], [9]), "axes": one_of(list("zyx"), list("zy"), "zyx", list("tczyx"))}
    places: List[Tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in changes:
                places.append((node, key))
            if isinstance(value, (dict, list)):
                walk(value)

    if isinstance(content, (dict, list)):
        walk(content)
    if places:
        node, key = places[int(rng.integers(0, len(places)))]
        node[key] = changes[key](node[key])
    return content


def _codecs(rng: np.random.Generator) -> Callable[[Any], Any]:
    """Return what makes another list of codecs of version 3 from one."""
    shard = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1, 1], "codecs": [{"name": "bytes"}]}}
    more: List[Any] = [{"name": name} for name in (
        "gzip", "zstd", "bytes", "crc32c", "numcodecs.zlib", "numcodecs.pickle", "vlen-utf8", "x")]
    more += [shard, {"name": "transpose", "configuration": {"order": [2, 1, 0]}}, {"name": "gzip", "configuration": {
        "level": 5}}, {"name": "zstd", "configuration": {"level": 0, "checksum": True}}, 3, {}, "bytes", {"name": [[]]}]

    def change(value: Any) -> Any:
        codecs = list(value) if isinstance(value, list) else []
        codecs.insert(int(rng.integers(0, len(codecs) + 1)), more[int(rng.integers(0, len(more)))])
        return codecs if rng.random() < 0.7 else codecs[1:]

    return change


def _chunk(rng: np.random.Generator, content: Content, name: str, other: Content) -> None:
    """Change one chunk of a tomogram, in place."""
    kind, data = int(rng.integers(0, 9)), bytes(content[name])  # type: ignore[arg-type]
    if kind == 0:
        del content[name]
    elif kind == 1:
        content[name] = data[:int(rng.integers(0, len(data) + 1))]
    elif kind == 2:
        content[name] = data + bytes(int(rng.choice([1, 4, 1000, 10 ** 5, 10 ** 6])))
    elif kind == 3:
        content[name] = _odd(rng)
    elif kind in (4, 5):
        content[name] = bomb(rng, data)
    elif kind == 6 and len(data) > 40:  # the index of a shard, or the head of a compressed chunk
        changed, at = bytearray(data), int(rng.choice([0, 4, 8, 12, len(data) - 4, len(data) - 20, len(data) - 36]))
        extreme = [0, 1, 2 ** 31 - 1, 2 ** 32 - 1, 10 ** 9, 4 * len(data)]
        changed[at:at + 4] = struct.pack("<I", extreme[int(rng.integers(0, len(extreme)))])
        content[name] = bytes(changed)
    else:
        spare = [value for key, value in other.items() if key[-1].isdigit() and isinstance(value, bytes)] or [data]
        content[name] = mutate(rng, data, spare[int(rng.integers(0, len(spare)))])


_BOMBS: Dict[str, bytes] = {}


def bomb(rng: np.random.Generator, data: bytes) -> bytes:
    """Return a chunk that unpacks to 2 GiB or more, packed like the one it replaces where that is known."""
    if not _BOMBS:
        _BOMBS.update(bombs())
    heads = {b"\x1f\x8b": "gzip", b"BZ": "bz2", b"\xfd7": "lzma", b"x\x01": "zlib", b"(\xb5": "zstd"}
    fit = heads.get(data[:2]) or next((name for mark, name in heads.items() if mark in data[:64]), "")
    names = [fit] if fit and rng.random() < 0.8 else sorted(_BOMBS)
    return _BOMBS[names[int(rng.integers(0, len(names)))]]


def bombs(size: int = 2 << 30) -> Dict[str, bytes]:
    """Return chunks of zeros by codec that are much longer unpacked than packed, at least ``size`` bytes."""
    piece, times, out = bytes(1 << 22), size >> 22, {}
    for name, bits in (("gzip", 31), ("zlib", 15)):
        packer = zlib.compressobj(9, zlib.DEFLATED, bits)
        first, again = (packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
        out[name] = first + again * times  # its check sum is missing, which is seen when all is unpacked
    out.update({name: packer(piece) * times for name, packer in (("lzma", lzma.compress), ("bz2", bz2.compress))})
    out["gzip twice"] = gzip.compress(out["gzip"])
    block = struct.pack("<I", (0x1FFFF << 3) | 2)[:3] + b"\0"  # 131071 zeros, run-length coded
    count = size // 0x1FFFF + 1
    last = struct.pack("<I", (1 << 3) | 3)[:3] + b"\0"
    out["zstd"] = b"\x28\xb5\x2f\xfd\x00\x58" + block * count + last
    out["lz4"] = struct.pack("<I", 2 ** 31 - 1) + bytes(40)
    out["blosc"] = bytes((2, 1, 0x21, 4)) + struct.pack("<III", 2 ** 31 - 64, 2 ** 18, 400) + bytes(384)
    return out


def _odd(rng: np.random.Generator) -> Odd:
    """Return what should not be where a file of a tomogram is."""
    links = ("/dev/zero", "/dev/random", "/etc/passwd", "../../../x", ".", "zarr.json", "/proc/self/mem", "/")
    odd = [Odd("pipe"), Odd("folder"), Odd("zeros", size=10 ** 6), Odd("zeros", size=10 ** 10)]
    odd += [Odd("link", target) for target in links]
    return odd[int(rng.integers(0, len(odd)))]


def copick_projects(folder: pathlib.Path) -> List[Content]:
    """Return a copick project of two runs with picks of two users."""
    moved = [[1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, -2.5], [0, 0, 0, 1]]
    point = {"location": {"x": 10.0, "y": 20.5, "z": 30}, "transformation_": moved, "instance_id": 0, "score": 0.5}
    runs = {}
    for run, user, name in (("a", "anna", "ribosome"), ("a", "anna", "rod"), ("b", "anna", "rod"),
                            ("b", "bert", "rod")):
        runs[f"ExperimentRuns/{run}/Picks/{user}_1_{name}.json"] = json.dumps({
            "pickable_object_name": name, "user_id": user, "session_id": "1", "run_name": run, "unit": "angstrom",
            "points": [point, {**point, "score": None}]}).encode()
        runs[f"ExperimentRuns/{run}/VoxelSpacing10.000/wbp.zarr/.zattrs"] = b"{}"
    objects = [{"name": "ribosome", "is_particle": True, "label": 3, "radius": 120.0, "color": [1, 2, 3, 255]},
               {"name": "rod", "is_particle": True, "label": 7, "radius": 65.0},
               {"name": "membrane", "is_particle": False, "label": 9}]
    config = {"config_type": "filesystem", "name": "p", "version": "1.0", "overlay_root": "local://PLACE",
              "pickable_objects": objects}
    return [{"config.json": json.dumps(config).encode(), **runs},
            {"config.json": json.dumps({**config, "static_root": "PLACE"}).encode(), **runs}]


def write_project(path: pathlib.Path, content: Content) -> None:
    """Write a project into the folder of its configuration."""
    folder = path.parent
    config = content.get("config.json", b"")
    place = json.dumps(str(folder)).strip('"').encode()
    filled = config.replace(b"PLACE", place) if isinstance(config, bytes) else config
    write_store(folder, {**content, "config.json": filled})


def read_copick(path: pathlib.Path) -> None:
    """Write picks into a project, and make a data folder of it."""
    project = open_project(path)
    table = CoordinateTable(np.ones((2, 3)), np.array([3, 7]), np.array([0.5, np.nan]))
    is_inside = str(project.overlay).startswith(str(path.parent) + os.sep) or project.overlay == path.parent
    try:
        if is_inside:  # it may lie anywhere, and is written to wherever it lies
            import_tables(project, {"a": table}, {"a": 10.0}, project.classes, Wanted("new", "1"))
    finally:
        export_folder(project, path.parent / "made", Wanted(user="anna"))


def mutate_copick(rng: np.random.Generator, one: Content, other: Content) -> Content:
    """Return a project with one or two changes in its configuration, its picks or its folders."""
    content = dict(one)
    for _ in range(int(rng.integers(1, 3))):
        names = sorted(name for name, what in content.items() if isinstance(what, bytes))
        is_config = rng.random() < 0.5 and "config.json" in names
        name = "config.json" if is_config else names[int(rng.integers(0, len(names)))]
        text = bytes(content[name])  # type: ignore[arg-type]
        kind = rng.random()
        if kind < 0.25:
            content[name] = mutate(rng, text, text)
        elif kind < 0.75:
            try:
                content[name] = json.dumps(disturbed(rng, json.loads(text))).encode("utf-8", "surrogatepass")
            except (ValueError, RecursionError):
                content[name] = TOKENS[int(rng.integers(0, len(TOKENS)))]
        elif kind < 0.85:
            content[name] = _odd(rng)
        else:
            del content[name]
            content[_renamed(rng, name)] = text
        if not any(isinstance(what, bytes) for what in content.values()):
            break
    return content


def _renamed(rng: np.random.Generator, name: str) -> str:
    """Return a path in which one part has a strange name."""
    words = ["VoxelSpacingnan", "VoxelSpacing1e400", "VoxelSpacing-1", "VoxelSpacing0.001", "VoxelSpacing10", "a b",
             "é", "$(x)", "anna_1_x.json", "anna_1.json", "___.json", "new_1_rod.json", "..x", "-rf", "x" * 250,
             ".hidden", "x.zarr", "\n"]
    parts = name.split("/")
    parts[int(rng.integers(0, len(parts)))] = words[int(rng.integers(0, len(words)))]
    return "/".join(parts)
