"""Tomograms in and out: MRC files mapped into memory, OME-Zarr folders read by blocks; written whole or not at all."""

from deepetpicker.io.volumes.blocks import require_zarr
from deepetpicker.io.volumes.ngff import Level, is_ngff
from deepetpicker.io.volumes.reading import VOLUME_SUFFIXES, Volume, open_volume, release_pages, tomogram_name
from deepetpicker.io.volumes.writing import VolumeWriter, write_volume

__all__ = ["VOLUME_SUFFIXES", "Level", "Volume", "VolumeWriter", "is_ngff", "open_volume", "release_pages",
           "require_zarr", "tomogram_name", "write_volume"]
