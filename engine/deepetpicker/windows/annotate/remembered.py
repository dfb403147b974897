"""What a window shows, kept beside the annotation: the next one begins there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from deepetpicker.errors import DeepETPickerError
from deepetpicker.io.atomic import write_text
from deepetpicker.windows.render import Look
from deepetpicker.windows.window import set_slider

FILE = "view.json"


def remember(window: Any, folder: pathlib.Path) -> None:
    """Write what a window shows; a folder that takes nothing more is no reason to keep the window open.

    Parameters
    ----------
    window : AnnotateWindow
        The window, still open.
    folder : path
        Of the annotation.
    """
    panel, port = window.panel, window.panel.viewport
    shown = {"tomogram": panel.tomogram, "position_zyx_vox": panel.position, "snapping": window.snapping.get(),
             "scale_px": 0.0 if port.scale_px <= port.fitting_px * 1.001 else port.scale_px,
             "look": dataclasses.asdict(panel.look)}
    with contextlib.suppress(DeepETPickerError, OSError):
        write_text(folder / FILE, json.dumps(shown) + "\n")


def recall(window: Any, folder: pathlib.Path) -> None:
    """Let a window show what the last one did; what cannot be read or is not there any more is left as it is.

    Parameters
    ----------
    window : AnnotateWindow
        The window, just built.
    folder : path
        Of the annotation.
    """
    try:
        shown = json.loads((folder / FILE).read_text("utf-8"))
        look, tomogram, position = Look(**shown["look"]), str(shown["tomogram"]), shown["position_zyx_vox"]
        scale_px, snapping = float(shown["scale_px"]), bool(shown["snapping"])
        numbers = [float(n) for n in (*position, scale_px, look.average, look.smooth_vox, look.clipped_percent)]
    except (OSError, ValueError, TypeError, KeyError):
        return
    if not np.isfinite(numbers).all() or len(position) != 3:
        return
    for scale, value in ((window.average, look.average), (window.smooth, look.smooth_vox),
                         (window.clipped, look.clipped_percent)):
        set_slider(scale, float(value))  # within what it allows
    window.inverted.set(bool(look.inverted))
    window.set_look(inverted=bool(look.inverted))
    window.snapping.set(snapping)
    if tomogram not in window.scene.names:
        return
    window.show_place(tomogram, position)
    if window.panel.tomogram == tomogram and scale_px > 0:
        window.panel.zoom(scale_px / window.panel.viewport.scale_px)
        window.panel.centre_on(position)
