"""How long the chunks of a Zarr array become when they are unpacked, found before memory is taken for them.

A few kilobytes can say that they unpack to terabytes. Heads are believed where decoders allocate what they say; where
they do not, the bytes are unpacked piece by piece and counted.
"""

from __future__ import annotations

import bz2
import contextlib
import itertools
import lzma
import os
import pathlib
import struct
import zlib
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.volumes.zarrmeta import ArrayFacts

_PIECE, _FED = 1 << 20, 1 << 16
_DEFLATED = 1032          # times, at most, that gzip and zlib make bytes fewer
_ZSTD_BLOCK = 128 << 10   # bytes that a block holds at most


def check_unpacked(path: pathlib.Path, facts: ArrayFacts, numbers: Sequence[int], spans: Sequence[slice]) -> None:
    """Refuse a file whose chunks would be longer unpacked than a chunk can be.

    Parameters
    ----------
    path : path
        The file of a chunk, or of a shard of several.
    facts : ArrayFacts
        What the metadata say.
    numbers : (D,) ints
        Which file it is.
    spans : (D,) slices
        The box of elements that is wanted: only its chunks are looked at.

    Raises
    ------
    InputError
        If it cannot be read.
    FormatError
        If it holds what unpacks to more, or the index of a shard points out of it.
    """
    try:
        with open(path, "rb") as stream:
            _check_parts(stream, facts, numbers, spans)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _check_parts(stream: Any, facts: ArrayFacts, numbers: Sequence[int], spans: Sequence[slice]) -> None:
    """Refuse an open file of a chunk, or of a shard, that unpacks to more than a chunk can be."""
    packing, limit = facts.packing, facts.largest_unpacked
    size = os.fstat(stream.fileno()).st_size
    for start, length in _parts(stream, size, facts, numbers, spans) if packing.index else [(0, size)]:
        length -= packing.tail
        if packing.packer in ("gzip", "zlib") and length * _DEFLATED <= limit:
            continue
        stream.seek(start)
        if LENGTHS[packing.packer](stream, length, limit) > limit:
            raise FormatError(f"{stream.name}: expected a chunk of at most {limit} bytes, found one that unpacks to "
                              "more: copy the tomogram again")


def _parts(stream: Any, size: int, facts: ArrayFacts, numbers: Sequence[int], spans: Sequence[slice]
           ) -> Iterator[Tuple[int, int]]:
    """Yield start and length of the chunks of a shard that a box of elements needs."""
    packing = facts.packing
    length = 16 * packing.inner
    if size < length + packing.index_tail:
        raise FormatError(f"{stream.name}: expected an index of {length + packing.index_tail} bytes, found a file of "
                          f"{size}: copy the tomogram again")
    stream.seek(0 if packing.index == "start" else size - length - packing.index_tail)
    index = np.frombuffer(stream.read(length), packing.order + "u8").reshape(-1, 2)
    grid = [a // b for a, b in zip(facts.stored, facts.chunks)]
    wanted = [range(max(0, span.start - place * whole) // edge, -(-min(whole, span.stop - place * whole) // edge))
              for place, span, whole, edge in zip(numbers, spans, facts.stored, facts.chunks)]
    is_whole = facts.stored == facts.chunks  # a transposed shard: all of its chunks
    rows = range(packing.inner) if is_whole else np.ravel_multi_index(
        tuple(np.array(list(itertools.product(*wanted))).T), grid)
    for begin, count in index[rows].tolist():
        if begin == count == 2 ** 64 - 1:
            continue  # not there: it has the fill value
        if begin + count > size:
            raise FormatError(f"{stream.name}: the index of the shard names bytes {begin} to {begin + count} of {size}"
                              ": copy the tomogram again")
        yield begin, count


def _said(at: int) -> Callable[[Any, int, int], int]:
    """Return what reads the length from a head."""
    def read(stream: Any, length: int, limit: int) -> int:
        head = stream.read(min(length, at + 4))
        return int(struct.unpack_from("<I", head, at)[0]) if len(head) == at + 4 else 0

    return read


def _stored(stream: Any, length: int, limit: int) -> int:
    """Return the length of what is not compressed."""
    return length


def _counted(make: Callable[[], Any]) -> Callable[[Any, int, int], int]:
    """Return what counts the bytes that streams, one after the other, unpack to; it stops above the limit."""
    def count(stream: Any, length: int, limit: int) -> int:
        packed, found = memoryview(stream.read(max(0, length))), 0
        with contextlib.suppress(zlib.error, OSError, EOFError):  # zarr says what is wrong with it
            for made in _pieces(make, packed):
                found += made
                if found > limit:
                    break
        return found

    return count


def _pieces(make: Callable[[], Any], packed: memoryview) -> Iterator[int]:
    """Yield how many bytes the streams that follow each other make, piece by piece."""
    at = 0
    while at < len(packed):
        for taken, made in _unpacked(make(), packed[at:]):
            at += taken
            yield made
        at += _zeros(packed[at:])


def _unpacked(one: Any, packed: memoryview) -> Iterator[Tuple[int, int]]:
    """Yield how many bytes a decompressor took and made, piece by piece, until its stream or what there is ends."""
    at = 0
    while not one.eof:
        is_hungry = getattr(one, "needs_input", True)  # zlib gives back what it did not take
        fed = packed[at:at + _FED] if is_hungry else b""
        if is_hungry and not fed:
            return
        made = len(one.decompress(fed, _PIECE))
        taken = len(fed) - len(getattr(one, "unconsumed_tail", b"")) - len(one.unused_data)
        at += taken
        yield taken, made


def _zeros(packed: memoryview) -> int:
    """Return how many zeros there are at the start, as between streams."""
    at = 0
    while at < len(packed) and not packed[at]:
        piece = bytes(packed[at:at + _FED])
        at += len(piece) - len(piece.lstrip(b"\0"))
    return at


def _zstandard(stream: Any, length: int, limit: int) -> int:
    """Return how long frames of Zstandard say that they are, else what their blocks can hold; damaged ones 0."""
    packed, at, found = memoryview(stream.read(max(0, length))), 0, 0
    while at + 5 <= len(packed) and found <= limit:
        magic, flags = struct.unpack_from("<IB", packed, at)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # to be skipped
            at += 8 + int.from_bytes(packed[at + 4:at + 8], "little")
            continue
        if magic != 0xFD2FB528:
            break
        is_single = flags >> 5 & 1
        width = (is_single, 2, 4, 8)[flags >> 6]
        at += 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
        said = int.from_bytes(packed[at:at + width], "little") + (256 if width == 2 else 0)
        at, held = at + width, 0
        is_last = False
        while not is_last and at + 3 <= len(packed):
            head = int.from_bytes(packed[at:at + 3], "little")
            is_last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            held += size if kind != 2 else _ZSTD_BLOCK
            at += 3 + (1 if kind == 1 else size)
        at += 4 * (flags >> 2 & 1)
        found += said if width else held
    return found


LENGTHS: Dict[str, Callable[[Any, int, int], int]] = {
    "": _stored, "blosc": _said(4), "lz4": _said(0), "zstd": _zstandard, "bz2": _counted(bz2.BZ2Decompressor),
    "gzip": _counted(lambda: zlib.decompressobj(31)), "zlib": _counted(zlib.decompressobj),
    "lzma": _counted(lambda: lzma.LZMADecompressor(memlimit=1 << 28))}
