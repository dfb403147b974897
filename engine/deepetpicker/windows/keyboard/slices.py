"""The keys that move through a tomogram and change how it looks, which all windows with slices share."""

from __future__ import annotations

import tkinter as tk
from typing import Any, Callable, List

from deepetpicker.windows.keyboard.table import Group, Keys
from deepetpicker.windows.viewport import STEP
from deepetpicker.windows.window import set_slider

FINE_CUT, COARSE_CUT = 0.1, 0.5  # steps of the contrast by keys, in percent: below 1 and above
LEAP = 10
MOUSE_OF_SLICES = (Keys("the next slice of the view under it; with Shift ten on", label="wheel", brief="slices"),
                   Keys("zooms about the mouse", label="Ctrl-wheel", brief="zoom"),
                   Keys("the rectangle becomes the view", label="Ctrl-drag"),
                   Keys("moves what is seen", label="middle drag"))


def slice_keys(window: Any) -> List[Group]:
    """Return the keys of a window with slices, in groups.

    Parameters
    ----------
    window : SliceControls
        With ``panel``, the sliders ``average``, ``smooth`` and ``clipped``, and ``inverted``.
    """
    panel = window.panel

    def step(planes: int, z: bool) -> Callable[[], None]:
        return lambda: panel.step(0 if z else panel.under, planes)

    moves = [Keys("the next slice in z, the one before", (("<Up>", step(1, True)), ("<Down>", step(-1, True)))),
             Keys("ten slices in z", (("<Prior>", step(LEAP, True)), ("<Next>", step(-LEAP, True)))),
             Keys("the same", (("<Shift-Up>", step(LEAP, True)), ("<Shift-Down>", step(-LEAP, True)))),
             Keys("the slice before, the next one, of the view under the mouse",
                  (("<Left>", step(-1, False)), ("<Right>", step(1, False))), brief="slices of the view"),
             Keys("ten of them", (("<Shift-Left>", step(-LEAP, False)), ("<Shift-Right>", step(LEAP, False)))),
             Keys("larger, smaller, about the cross", (("<plus>", lambda: panel.zoom(STEP)),
                                                       ("<minus>", lambda: panel.zoom(1 / STEP)))),
             Keys("shows everything", (("<Key-0>", lambda: panel.zoom(0)),), brief="everything")]
    looks = [Keys("a thicker slab, a thinner one", (("<Key-t>", lambda: nudge(window.average, 1)),
                                                    ("<Key-T>", lambda: nudge(window.average, -1)))),
             Keys("more low-pass, less", (("<Key-l>", lambda: nudge(window.smooth, 1)),
                                          ("<Key-L>", lambda: nudge(window.smooth, -1)))),
             *contrast_keys(window.clipped, window.inverted, window._inverts)]
    return [("Slices", moves), ("Look", looks)]


def contrast_keys(clipped: tk.Scale, inverted: tk.BooleanVar, inverts: Callable[[], Any]) -> List[Keys]:
    """Return the keys for less and more contrast and for inverted greys.

    Parameters
    ----------
    clipped : Scale
        The slider of the share of pixels, in percent, that become quite black and quite white.
    inverted : BooleanVar
        Whether high values are dark.
    inverts : callable
        Shows what ``inverted`` says.
    """
    def cut(sign: int) -> None:
        """Cut a larger or smaller share."""
        value = clipped.get()
        set_slider(clipped, value + sign * (FINE_CUT if value + sign * FINE_CUT / 2 < 1 else COARSE_CUT))

    def invert() -> None:
        """Change light and dark."""
        inverted.set(not inverted.get())
        inverts()

    return [Keys("less, more contrast", (("<comma>", lambda: cut(-1)), ("<period>", lambda: cut(1))), ", and ."),
            Keys("inverts the greys", (("<Key-i>", invert),))]


def nudge(scale: tk.Scale, steps: int) -> None:
    """Move a slider by steps of its resolution."""
    set_slider(scale, scale.get() + steps * float(scale.cget("resolution")))
