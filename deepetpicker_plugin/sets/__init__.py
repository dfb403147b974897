"""Scipion's sets on the way to the engine and back: tomograms, coordinates, classes, corrections, outputs."""
