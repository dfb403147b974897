"""Studies as commands: variants of a training or of a method, on the same labels and budget, scored side by side."""

from __future__ import annotations

from deepetpicker.studying.run import study

__all__ = ["study"]
