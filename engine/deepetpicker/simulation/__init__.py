"""Simulated tomograms with known particles: phantoms or maps, packed, imaged and reconstructed."""

from __future__ import annotations

from deepetpicker.simulation.run import simulate

__all__ = ["simulate"]
