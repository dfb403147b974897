"""What the metadata of a Zarr array say, checked before anything is opened or allocated."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import re
from typing import Any, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.jsonvalues import parse
from deepetpicker.io.plainfile import check_plain

LARGEST_METADATA = 16 << 20  # bytes
LARGEST_CHUNK = 512 << 20    # bytes, decoded
LONGEST_AXIS = 10 ** 7
MOST_VOXELS = 10 ** 11
MOST_FILES = 10 ** 7
MOST_AXES = 8
_TYPE = re.compile(r"^[<>|]?(b1|[iu][1248]|f[248])$")
_TYPES_3 = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
            "float16", "float32", "float64"}
# What only changes bytes. Others are refused: some of them (pickle) would run what a file says.
_CODECS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "quantize",
           "bitround", "crc32", "crc32c", "adler32", "fletcher32", "packbits", "astype"}
_CODECS_3 = {"bytes", "transpose", "sharding_indexed"}
_PACKERS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma"}
_ENDLESS = {"zlib", "gzip", "bz2", "lzma"}  # nothing says how long they become
_CHECKSUMS = {"crc32c", "fletcher32"}  # 4 bytes at the end
_OWN_FORMATS = (1, 2)  # of lzma: they name their settings; in the third, raw, the metadata would
MOST_PACKERS = 4
_WIDENS = {"delta": ("dtype", "astype"), "fixedscaleoffset": ("dtype", "astype"), "quantize": ("dtype", "astype"),
           "astype": ("decode_dtype", "encode_dtype")}
_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
FEWEST_ELEMENTS = 64          # of a chunk, where there are more than
MOST_TINY_CHUNKS = 4096       # of them: each costs as much time as a large one
MOST_CHUNKS_IN_SHARD = 1 << 18


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the numbers of a chunk become bytes, as far as it says how long they are unpacked.

    Parameters
    ----------
    packer : str
        What compresses, empty for nothing.
    tail : int
        Bytes of check sums behind what is compressed.
    widens : float
        How many times as long as unpacked a chunk is in the end.
    chain : tuple of str
        What compresses and check sums, in the order of writing; one compresses, or several one after the other.
    index : str
        Where the index of a shard lies: ``start`` or ``end``; empty where a file is one chunk.
    index_tail : int
        Bytes of check sums behind the index.
    order : str
        Byte order of the index, ``<`` or ``>``.
    inner : int
        Chunks in a shard.
    """

    packer: str = ""
    tail: int = 0
    widens: float = 1.0
    chain: Tuple[str, ...] = ()
    index: str = ""
    index_tail: int = 0
    order: str = "<"
    inner: int = 1

    @property
    def is_handed_over(self) -> bool:
        """True where chunks are unpacked before zarr gets them: its decoders would stop at nothing."""
        n_packers = sum(name in _PACKERS for name in self.chain)
        return not self.index and (n_packers > 1 or self.packer in _ENDLESS)


@dataclasses.dataclass(frozen=True)
class ArrayFacts:
    """What the metadata of a Zarr array say.

    Parameters
    ----------
    version : int
        Version of the format, 2 or 3.
    shape : tuple of int
        Shape in elements, as stored.
    chunks : tuple of int
        What can be read alone, in elements.
    stored : tuple of int
        What one file holds: a chunk, or a shard of several.
    dtype : str
        Type of the elements.
    prefix, separator : str
        How files are named: ``PREFIX`` and the numbers of the chunk between ``SEPARATOR``.
    packing : Packing
        How chunks become bytes.
    """

    version: int
    shape: Tuple[int, ...]
    chunks: Tuple[int, ...]
    stored: Tuple[int, ...]
    dtype: str
    prefix: str
    separator: str
    packing: Packing = Packing()

    @property
    def largest_unpacked(self) -> int:
        """Bytes that a chunk can have when it is unpacked."""
        raw = math.prod(self.chunks) * np.dtype(self.dtype).itemsize
        return max(1 << 20, int(raw / self.packing.widens) + 65536)

    @property
    def largest_file(self) -> int:
        """Bytes that a file of a chunk can have: compression may make it a little longer, an index too."""
        raw = math.prod(self.stored) * np.dtype(self.dtype).itemsize
        inner = math.prod(-(-a // b) for a, b in zip(self.stored, self.chunks))
        return raw + raw // 8 + 65536 + 64 * inner

    @property
    def n_files(self) -> int:
        """Number of files that hold all chunks."""
        return math.prod(-(-n // edge) for n, edge in zip(self.shape, self.stored))

    def files(self, folder: pathlib.Path, spans: Sequence[slice]) -> Iterator[Tuple[Tuple[int, ...], pathlib.Path]]:
        """Yield the files that hold a box of elements, each with its numbers."""
        ranges = [range(span.start // edge, -(-span.stop // edge)) for span, edge in zip(spans, self.stored)]
        for numbers in itertools.product(*ranges):
            yield numbers, folder / (self.prefix + self.separator.join(map(str, numbers)))


def read_json(path: pathlib.Path, root: pathlib.Path) -> Mapping[str, Any]:
    """Return the object in a file of metadata within a folder.

    Raises
    ------
    InputError
        If it cannot be read.
    FormatError
        If it is a link out of the folder, too large, or no JSON object.
    """
    _check_metadata(path, root)
    try:
        content = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except InputError:
        raise
    except ValueError as error:
        raise FormatError(f"{path} is damaged (no valid JSON: {error}): copy the tomogram again") from error
    if not isinstance(content, Mapping):
        raise FormatError(f"{path}: expected a JSON object, found {type(content).__name__}: copy the tomogram again")
    return content


def _check_metadata(path: pathlib.Path, root: pathlib.Path) -> None:
    """Refuse a file of metadata that is no plain file, a link out of the folder, or too large; it may be missing."""
    check_plain(path, "metadata of an OME-Zarr tomogram")
    if not is_inside(path, root):
        raise FormatError(f"{path} is a link out of the tomogram's folder: copy what it names to its place")
    size = os.stat(path).st_size if os.path.exists(path) else 0
    if size > LARGEST_METADATA:
        raise FormatError(f"{path}: expected metadata of at most {LARGEST_METADATA} bytes, found {size}")


def is_inside(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Tell whether a path, links followed, lies in a folder."""
    return (os.path.realpath(path) + os.sep).startswith(os.path.realpath(root) + os.sep)


def read_facts(folder: pathlib.Path, root: pathlib.Path) -> ArrayFacts:
    """Return what the metadata of an array in a folder say.

    Parameters
    ----------
    folder : path
        Of the array: it has ``.zarray`` or ``zarr.json``.
    root : path
        Of the tomogram.

    Raises
    ------
    InputError
        If the metadata cannot be read.
    FormatError
        If they are damaged, or say what no tomogram has.
    """
    if not is_inside(folder, root):
        raise FormatError(f"{folder} is a link out of the tomogram's folder: copy what it names to its place")
    for name in _METADATA:  # zarr reads more of them than we do
        _check_metadata(folder / name, root)
    if os.path.exists(folder / "zarr.json"):
        path, make = folder / "zarr.json", _version_3
    elif os.path.exists(folder / ".zarray"):
        path, make = folder / ".zarray", _version_2
    else:
        raise FormatError(f"{folder}: expected a Zarr array (.zarray or zarr.json), found none: copy the tomogram "
                          "again")
    content = read_json(path, root)
    try:
        facts = make(content)
        _check(facts)
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise FormatError(f"{path}: damaged metadata ({type(error).__name__}: {error}): copy the tomogram again"
                          ) from error
    return facts


def _version_2(content: Mapping[str, Any]) -> ArrayFacts:
    """Return the facts of ``.zarray``."""
    if content.get("zarr_format") != 2:
        raise InputError(f"expected Zarr's format version 2, found {content.get('zarr_format')!r}")
    kind = content["dtype"]
    if not isinstance(kind, str) or not _TYPE.match(kind):
        raise InputError(f"expected real numbers, found the data type {kind!r}: write the tomogram as float32")
    chain = [codec for codec in (*(content.get("filters") or []), content.get("compressor")) if codec is not None]
    for codec in chain:
        _check_codec(codec["id"])
    packing = _packing([(codec["id"], codec) for codec in chain])
    separator = content.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise InputError(f"expected the separator '.' or '/', found {separator!r}")
    chunks = _sizes(content["chunks"], "chunks")
    return ArrayFacts(2, _sizes(content["shape"], "shape"), chunks, chunks, kind, "", separator,
                      packing)


def _version_3(content: Mapping[str, Any]) -> ArrayFacts:
    """Return the facts of ``zarr.json``."""
    if content.get("zarr_format") != 3 or content.get("node_type") != "array":
        raise InputError(f"expected an array of Zarr's format version 3, found {content.get('node_type')!r} of "
                         f"{content.get('zarr_format')!r}")
    kind = content["data_type"]
    if not isinstance(kind, str) or kind not in _TYPES_3:
        raise InputError(f"expected real numbers, found the data type {kind!r}: write the tomogram as float32")
    if content.get("storage_transformers"):
        raise InputError("storage transformers are not supported: write the tomogram without")
    grid, names = content["chunk_grid"], content["chunk_key_encoding"]
    if grid["name"] != "regular" or names["name"] not in ("default", "v2"):
        raise InputError(f"expected a regular grid of chunks, found {grid['name']!r} with names {names['name']!r}")
    stored = chunks = _sizes(grid["configuration"]["chunk_shape"], "chunk_shape")
    codecs = content["codecs"]
    _check_codecs(codecs)
    packing = _packing([(codec["name"], codec.get("configuration") or {}) for codec in codecs])
    if codecs[-1]["name"] == "sharding_indexed":
        chunks, packing = _shard(codecs[-1]["configuration"], stored)
        chunks = chunks if len(codecs) == 1 else stored  # of a transposed shard
    is_default = names["name"] == "default"
    separator = (names.get("configuration") or {}).get("separator", "/" if is_default else ".")
    if separator not in (".", "/"):
        raise InputError(f"expected the separator '.' or '/', found {separator!r}")
    return ArrayFacts(3, _sizes(content["shape"], "shape"), chunks, stored, kind, "c" + separator if is_default else "",
                      separator, packing)


def _shard(inner: Mapping[str, Any], stored: Tuple[int, ...]) -> Tuple[Tuple[int, ...], Packing]:
    """Return the shape of the chunks in a shard and how they become bytes."""
    chunks = _sizes(inner["chunk_shape"], "chunk_shape of a shard")
    if len(chunks) != len(stored) or any(a % b for a, b in zip(stored, chunks)):
        raise InputError(f"expected shards of whole chunks, found {stored} of {chunks}")
    count = math.prod(stored) // math.prod(chunks)
    if count > MOST_CHUNKS_IN_SHARD:
        raise InputError(f"expected at most {MOST_CHUNKS_IN_SHARD} chunks in a shard, found {count}: write the "
                         "tomogram with smaller shards, or larger chunks")
    index = inner.get("index_codecs", [{"name": "bytes"}, {"name": "crc32c"}])
    names = [one["name"] for one in index]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        raise InputError(f"expected an index of shards with the codecs bytes and crc32c, found {str(names)[:60]}")
    order = ">" if (index[0].get("configuration") or {}).get("endian") == "big" else "<"
    packing = _packing([(one["name"], one.get("configuration") or {}) for one in inner.get("codecs", [])])
    if sum(name in _PACKERS for name in packing.chain) > 1:
        raise InputError(f"expected one codec that compresses in shards, found {', '.join(packing.chain)}: write the "
                         "tomogram so")
    where = inner.get("index_location", "end")
    if where not in ("start", "end"):
        raise InputError(f"expected the index of shards at their start or end, found {str(where)[:60]!r}")
    return chunks, dataclasses.replace(packing, index=where, index_tail=4 * (len(names) - 1), order=order, inner=count)


def _packing(chain: Sequence[Tuple[Any, Mapping[str, Any]]]) -> Packing:
    """Return how codecs, in the order of writing, make bytes; refuse chains that unpack to more and more."""
    names = [str(name).split("numcodecs.")[-1] for name, _ in chain]
    packers = [place for place, name in enumerate(names) if name in _PACKERS]
    behind = names[packers[0] + 1:] if packers else []
    if len(packers) > MOST_PACKERS or not set(behind) <= _CHECKSUMS | _PACKERS or "sharding_indexed" in names[:-1]:
        raise InputError(f"expected codecs that compress (at most {MOST_PACKERS}) as the last ones, with nothing but "
                         f"check sums between and behind them, found {', '.join(names)[:200]}: write the tomogram so")
    if any(name == "lzma" and one.get("format", 1) not in _OWN_FORMATS for name, (_, one) in zip(names, chain)):
        raise InputError("expected lzma in its format 1 (xz) or 2: write the tomogram so")
    widens = 1.0
    for name, (_, settings) in zip(names[::-1], chain[::-1]):  # as they are undone
        if name in _WIDENS:
            after, before = (settings.get(key) for key in _WIDENS[name])
            widens *= _item(after) / _item(before if before is not None else after)
        widens *= 8 if name == "packbits" else 1
        if widens > 8:
            raise InputError(f"expected filters that widen numbers 8 times at most, found {', '.join(names)}")
    packed = tuple(names[packers[0]:]) if packers else ()
    return Packing(packed[0] if packed else "", 4 * len(behind), widens, packed)


def _item(kind: Any) -> int:
    """Return the bytes of a number of a type that a filter names."""
    if not isinstance(kind, str) or not _TYPE.match(kind if kind[:1] in "<>|" else "|" + kind):
        raise InputError(f"expected filters of real numbers, found the data type {str(kind)[:60]!r}")
    return np.dtype(kind).itemsize


def _check_codecs(codecs: Any) -> None:
    """Refuse codecs that are not known to change bytes only; those within shards too."""
    if not isinstance(codecs, list) or not codecs:
        raise InputError(f"expected a list of codecs, found {codecs!r}")
    for codec in codecs:
        _check_codec(codec["name"])
        is_shard = codec["name"] == "sharding_indexed"
        inner = codec["configuration"] if is_shard else {}
        for part in ("codecs", "index_codecs") if is_shard else ():
            if any(one.get("name") == "sharding_indexed" for one in inner.get(part, [])):
                raise InputError("shards within shards are not supported: write the tomogram without")
            _check_codecs(inner.get(part, [{"name": "bytes"}]))


def _check_codec(name: Any) -> None:
    """Refuse a codec by its name."""
    known = isinstance(name, str) and (name in _CODECS_3 or name.split("numcodecs.")[-1] in _CODECS)
    if not known:
        raise InputError(f"expected a codec of numbers (blosc, zstd, gzip, ...), found {str(name)[:60]!r}: write the "
                         "tomogram with another one")


def _sizes(values: Any, what: str) -> Tuple[int, ...]:
    """Return whole numbers >= 1."""
    good = isinstance(values, list) and 0 < len(values) <= MOST_AXES and all(
        isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= LONGEST_AXIS for v in values)
    if not good:
        raise InputError(f"expected a {what} of up to {MOST_AXES} whole numbers from 1 to {LONGEST_AXIS}, found "
                         f"{str(values)[:80]}")
    return tuple(values)


def _check(facts: ArrayFacts) -> None:
    """Refuse sizes that cannot be true, before anything is allocated."""
    if not len(facts.shape) == len(facts.chunks) == len(facts.stored):
        raise InputError(f"expected chunks with as many axes as the array, found {facts.chunks} of {facts.shape}")
    if math.prod(facts.shape) > MOST_VOXELS:
        raise InputError(f"expected at most {MOST_VOXELS:.0e} voxels, found {_dims(facts.shape)}")
    size = math.prod(facts.chunks) * np.dtype(facts.dtype).itemsize
    if size > LARGEST_CHUNK:
        raise InputError(f"expected chunks of at most {LARGEST_CHUNK >> 20} MiB, found {_dims(facts.chunks)} elements: "
                         "write the tomogram with smaller ones (64 or 128 along each axis)")
    count = math.prod(-(-n // edge) for n, edge in zip(facts.shape, facts.chunks))
    if math.prod(facts.chunks) < FEWEST_ELEMENTS and count > MOST_TINY_CHUNKS:
        raise InputError(f"expected chunks of at least {FEWEST_ELEMENTS} voxels, found {count} of "
                         f"{_dims(facts.chunks)}: write the tomogram with larger ones (64 or 128 along each axis)")
    if facts.n_files > MOST_FILES:
        raise InputError(f"expected at most {MOST_FILES:.0e} chunks, found {facts.n_files}: write the tomogram with "
                         "larger ones (64 or 128 along each axis)")


def _dims(shape: Sequence[int]) -> str:
    """Return sizes in words."""
    return " x ".join(map(str, shape))


def missing_files(facts: ArrayFacts, folder: pathlib.Path) -> int:
    """Return how many files of chunks are not there: their voxels have the fill value, as the format says."""
    return max(0, facts.n_files - sum(1 for _ in _chunk_files(folder)))


def _chunk_files(folder: pathlib.Path) -> Iterator[str]:
    """Yield the files below a folder that are no metadata; links to folders are not followed."""
    waiting: List[str] = [str(folder)]
    while waiting:
        yield from _chunk_files_in(waiting.pop(), waiting)


def _chunk_files_in(folder: str, folders: List[str]) -> Iterator[str]:
    """Yield the files in a folder that are no metadata, and append the folders in it to a list."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.name[:1] == "c" or entry.name[:1].isdigit():
                yield entry.path
