"""Timing of picking against the published algorithm, on one machine in one run."""

from deepetpicker.benchmarking.run import benchmark

__all__ = ["benchmark"]
