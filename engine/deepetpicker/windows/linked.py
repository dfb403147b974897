"""The windows that change a session: slices to annotate in and sheets to review on, each a button of the other.

Neither knows the other: each is told here how the other is made.
"""

from __future__ import annotations

import functools
import tkinter as tk
from typing import Mapping, Optional

from deepetpicker.annotation.background import Start, this_python
from deepetpicker.annotation.session import Session
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.windows.annotate import AnnotateWindow
from deepetpicker.windows.review import ReviewWindow
from deepetpicker.windows.scene import Scene


def annotate_window(session: Session, scene: Scene, title: str = "Annotate particles",
                    parent: Optional[tk.Misc] = None, start: Start = this_python) -> AnnotateWindow:
    """Return the window to annotate in, whose sheets are those of the review; the parameters are its own."""
    return AnnotateWindow(session, scene, functools.partial(review_window, start=start), title, parent, start)


def review_window(session: Session, scene: Scene, title: str = "Review picks", parent: Optional[tk.Misc] = None,
                  thresholds: Optional[Mapping[int, float]] = None,
                  below: Optional[Mapping[str, CoordinateTable]] = None,
                  start: Start = this_python) -> ReviewWindow:
    """Return the window to review in, whose slices are those to annotate in; ``start`` is theirs, the rest its own."""
    slices = functools.partial(annotate_window, start=start)
    return ReviewWindow(session, scene, slices, title, parent, thresholds, below)
