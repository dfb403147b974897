"""Zarr groups to write in tests, by the functions of zarr 3 with any zarr; Python below 3.11 has zarr 2."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np
import pytest


def is_new() -> bool:
    """Tell whether zarr is version 3, which alone has version 3 of the format."""
    import zarr

    return int(zarr.__version__.split(".")[0]) >= 3


def codecs(*names: str, **settings: Any) -> List[Any]:
    """Return codecs of version 3 of the format by the names of their classes; with zarr 2 the test is skipped."""
    if not is_new():
        pytest.skip("version 3 of Zarr's format needs zarr 3, which needs Python 3.11")
    import zarr.codecs

    return [getattr(zarr.codecs, name)(**settings) for name in names]


def open_group(folder: pathlib.Path, version: int = 2, mode: str = "w") -> Any:
    """Return the group of a folder; with zarr 2 a test of version 3 of the format is skipped."""
    import zarr

    if is_new():
        return zarr.open_group(str(folder), mode=mode, zarr_format=version)
    if version != 2:
        pytest.skip("version 3 of Zarr's format needs zarr 3, which needs Python 3.11")
    return Group(zarr.open_group(str(folder), mode=mode))


class Group:
    """A group of zarr 2 that is written to as one of zarr 3.

    Parameters
    ----------
    group : zarr.Group
        The group.
    """

    def __init__(self, group: Any) -> None:
        self._group, self.attrs = group, group.attrs

    def __getitem__(self, name: str) -> Any:
        """Return an array."""
        return self._group[name]

    def create_array(self, name: str, shape: Sequence[int], dtype: Any, chunks: Sequence[int], **how: Any) -> Any:
        """Return a new array."""
        settings: Dict[str, Any] = {"dimension_separator": how.pop("chunk_key_encoding", {}).get("separator", ".")}
        if "compressors" in how:
            settings["compressor"] = how.pop("compressors")
        settings.update(shape=tuple(shape), dtype=dtype, chunks=tuple(chunks))
        return self._group.create_dataset(name, **settings, **how)


class PlainGroup:
    """A new group of version 2 of the format, of files that are written one by one, without zarr and its threads.

    Parameters
    ----------
    folder : path
        Where it is made.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self.attrs = folder, self
        folder.mkdir(parents=True)
        (folder / ".zgroup").write_text('{"zarr_format": 2}')

    def update(self, attributes: Mapping[str, Any]) -> None:
        """Write the attributes."""
        (self._folder / ".zattrs").write_text(json.dumps(attributes))

    def create_array(self, name: str, shape: Sequence[int], dtype: str, chunks: Sequence[int], **how: Any) -> Any:
        """Return an array that takes all of its values at once; how it is packed as in zarr."""
        (self._folder / name).mkdir()
        return PlainArray(self._folder / name, tuple(shape), np.dtype(dtype), tuple(chunks), how)


class PlainArray:
    """An array of a :class:`PlainGroup`."""

    def __init__(self, folder: pathlib.Path, shape: Sequence[int], dtype: Any, chunks: Sequence[int],
                 how: Mapping[str, Any]) -> None:
        import numcodecs

        self._folder, self._chunks, self._dtype, self._order = folder, chunks, dtype, how.get("order", "C")
        self._separator = how.get("chunk_key_encoding", {}).get("separator", ".")
        last = how.get("compressors", numcodecs.Zstd())
        self._packers = [*(how.get("filters") or []), *([] if last is None else [last])]
        configs = [packer.get_config() for packer in self._packers]
        filters, compressor = (configs, None) if last is None else (configs[:-1], configs[-1])
        (folder / ".zarray").write_text(json.dumps({
            "zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": dtype.str, "order": self._order,
            "fill_value": 0.0, "filters": filters or None, "compressor": compressor,
            "dimension_separator": self._separator}))

    def __setitem__(self, everything: slice, data: np.ndarray) -> None:
        """Write a chunk after the other; those at the end are filled up with zeros."""
        counts = [-(-n // edge) for n, edge in zip(data.shape, self._chunks)]
        for numbers in itertools.product(*map(range, counts)):
            part = data[tuple(slice(k * edge, (k + 1) * edge) for k, edge in zip(numbers, self._chunks))]
            chunk: Any = np.zeros(self._chunks, self._dtype, order=self._order)
            chunk[tuple(map(slice, part.shape))] = part
            for packer in self._packers:
                chunk = packer.encode(chunk)
            path = self._folder / self._separator.join(map(str, numbers))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chunk if isinstance(chunk, bytes) else np.asarray(chunk).tobytes(self._order))
