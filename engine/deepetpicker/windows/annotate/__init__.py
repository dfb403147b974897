"""The window in which particles are annotated by hand."""

from deepetpicker.windows.annotate.window import AnnotateWindow

__all__ = ["AnnotateWindow"]
