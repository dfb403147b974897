"""Zarr groups to write in tests, by the functions of zarr 3 with any zarr; Python below 3.11 has zarr 2."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, List, Sequence

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
