"""Chunks that are unpacked here, within bounds, and handed to zarr as if they had never been packed.

Decoders of gzip, zlib, bz2 and lzma stop at nothing, so their chunks would have to be unpacked twice: once to count,
once by zarr. The same holds for what was packed several times over.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import pathlib
import zlib
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.volumes.unpacked import LENGTHS
from deepetpicker.io.volumes.zarrmeta import ArrayFacts, read_json

LARGEST_DICTIONARY = 1 << 28  # bytes that lzma may take beside what it unpacks


class _TooLongError(Exception):
    """What is unpacked is longer than it can be."""


def plain_store(folder: pathlib.Path, root: pathlib.Path, facts: ArrayFacts,
                files: Iterable[Tuple[Tuple[int, ...], pathlib.Path]]) -> Dict[str, bytes]:
    """Return an array of some chunks, unpacked, as a mapping from names of files to bytes.

    Parameters
    ----------
    folder, root : path
        Of the array and of the tomogram.
    facts : ArrayFacts
        What the metadata say.
    files : iterable of numbers and path
        Files of chunks that are there.

    Raises
    ------
    InputError
        If a file cannot be read.
    FormatError
        If a chunk is damaged, or unpacks to more than a chunk can be.
    """
    name = ".zarray" if facts.version == 2 else "zarr.json"
    metadata = dict(read_json(folder / name, root))
    if facts.version == 2:
        every = [*(metadata.get("filters") or []), metadata.get("compressor")]
        kept = [codec for codec in every if codec is not None][:-len(facts.packing.chain)]
        metadata.update(filters=kept or None, compressor=None)
    else:
        metadata["codecs"] = metadata["codecs"][:-len(facts.packing.chain)]
    store = {name: json.dumps(metadata).encode("utf-8")}
    for numbers, path in files:
        store[facts.prefix + facts.separator.join(map(str, numbers))] = unpack(path, facts)
    return store


def open_store(zarr: Any, store: Mapping[str, bytes]) -> Any:
    """Return the array of a mapping from names of files to bytes, as the package zarr reads it."""
    if int(str(zarr.__version__).split(".")[0]) < 3:
        return zarr.open_array(store=dict(store), mode="r")
    from zarr.core.buffer import default_buffer_prototype

    buffer = default_buffer_prototype().buffer
    return zarr.open_array(store={name: buffer.from_bytes(content) for name, content in store.items()}, mode="r")


def unpack(path: pathlib.Path, facts: ArrayFacts) -> bytes:
    """Return the bytes of a chunk without what packs it, check sums included; errors as :func:`plain_store`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    chain, limit = facts.packing.chain, facts.largest_unpacked
    try:
        for place in reversed(range(len(chain))):
            bound = limit if place == 0 else limit + limit // 8 + 65536  # what packs again may find nothing to spare
            content = _UNPACKED[chain[place]](content, bound)
    except _TooLongError as error:
        raise FormatError(f"{path}: expected a chunk of at most {limit} bytes, found one that unpacks to more: copy "
                          "the tomogram again") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder says of damaged bytes
        raise FormatError(f"{path} cannot be read ({type(error).__name__}: {error}): copy the tomogram again"
                          ) from error
    return content


def _streams(make: Callable[[], Any], needs_all: bool) -> Callable[[bytes, int], bytes]:
    """Return what unpacks streams, one after the other; what follows the last is an error where all must be used."""
    def unpacked(packed: bytes, limit: int) -> bytes:
        whole: List[bytes] = []
        room, rest = limit, packed
        while rest or not whole:
            try:
                made, rest = _stream(make(), rest, room)
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                if isinstance(error, lzma.LZMAError) and "emory" in str(error):
                    raise _TooLongError from error
                if needs_all or not whole:
                    raise
                break  # as Python's own modules do
            whole.append(made)
            room, rest = room - len(made), rest.lstrip(b"\0")
        return whole[0] if len(whole) == 1 else b"".join(whole)

    return unpacked


def _stream(one: Any, packed: bytes, room: int) -> Tuple[bytes, bytes]:
    """Return what a stream unpacks to, and what follows it; _TooLongError where there is more than room for."""
    parts, made, fed = [], 0, packed
    while not one.eof:
        part = one.decompress(fed, room - made + 1)
        parts.append(part)
        made += len(part)
        if made > room:
            raise _TooLongError
        fed = getattr(one, "unconsumed_tail", b"")  # zlib gives back what it did not take
        if not one.eof and not part and not fed and getattr(one, "needs_input", True):
            raise EOFError("the packed bytes end too early")
    return parts[0] if len(parts) == 1 else b"".join(parts), one.unused_data


def _said(name: str) -> Callable[[bytes, int], bytes]:
    """Return what unpacks bytes that say in their head how long they become."""
    def unpacked(packed: bytes, limit: int) -> bytes:
        if LENGTHS[name](io.BytesIO(packed), len(packed), limit) > limit:
            raise _TooLongError
        return _codec(name, packed)

    return unpacked


def _summed(name: str) -> Callable[[bytes, int], bytes]:
    """Return what takes a check sum off."""
    return lambda packed, limit: _codec(name, packed)


def _codec(name: str, packed: bytes) -> bytes:
    """Return what a codec of the package numcodecs makes of bytes."""
    import numcodecs

    return bytes(numcodecs.get_codec({"id": name}).decode(packed))


_UNPACKED: Dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _streams(lambda: zlib.decompressobj(31), True), "zlib": _streams(zlib.decompressobj, False),
    "bz2": _streams(bz2.BZ2Decompressor, False),
    "lzma": _streams(lambda: lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY), False),
    **{name: _said(name) for name in ("blosc", "lz4", "zstd")},
    **{name: _summed(name) for name in ("crc32c", "fletcher32")}}
