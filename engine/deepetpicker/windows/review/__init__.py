"""The window in which picks are reviewed."""

from deepetpicker.windows.review.window import ReviewWindow

__all__ = ["ReviewWindow"]
