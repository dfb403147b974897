"""Tomograms in and out: MRC files mapped into memory and read on demand, and written whole or not at all."""

from deepetpicker.io.volumes.reading import VOLUME_SUFFIXES, Volume, open_volume, release_pages
from deepetpicker.io.volumes.writing import VolumeWriter, write_volume

__all__ = ["VOLUME_SUFFIXES", "Volume", "VolumeWriter", "open_volume", "release_pages", "write_volume"]
