"""A virtual screen for the tests of windows, and hands that use them."""

from __future__ import annotations

import atexit
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest
from typing import Any, Callable, Dict, List, Tuple

PICTURES = "DEEPETPICKER_PICTURES"  # folder for pictures of the windows, as documentation; unset: none are made
MOST_BYTES = 200_000
PR_SET_PDEATHSIG = 1  # of prctl(2)
STARTS = 5  # of a screen, before it is an error
SCREENS: Dict[str, str] = {}  # names of the screens that run, by their size


def startScreen(size: str = "1400x950x24") -> str:
    """Return the name of a virtual screen, started when it is asked for first.

    It lasts as long as this process: Tk keeps a connection even of windows that are gone, and ends the process when the
    screen behind it has ended. Of two that begin at the same moment one may find its number taken and end: it is
    started again.
    """
    for _ in range(STARTS):
        if size in SCREENS:
            return SCREENS[size]
        reading, writing = os.pipe()
        process = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"],
                                   pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   preexec_fn=_endWithParent)
        os.close(writing)
        with os.fdopen(reading) as stream:
            number = stream.readline().strip()  # nothing, when it has ended
        if number:
            SCREENS[size] = f":{number}"
            atexit.register(process.terminate)
        else:
            process.wait()
    if size not in SCREENS:
        raise OSError(f"Xvfb has ended {STARTS} times before it had a screen")
    return SCREENS[size]


def _endWithParent() -> None:
    """Have the kernel end this process with the one that started it, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def gui(cls: Any) -> Any:
    """Mark a test class that opens windows (conftest.py makes it pytest's mark); skip it without a virtual screen."""
    cls.isGui = True
    return unittest.skipUnless(shutil.which("Xvfb"), "needs a virtual screen: install Xvfb (Debian: xvfb)")(cls)


def pump(widget: Any, seconds: float = 0.2) -> None:
    """Let Tk work for a while, as its main loop would."""
    end = time.monotonic() + seconds
    while True:
        widget.update_idletasks()
        widget.update()
        if time.monotonic() > end:
            return
        time.sleep(0.01)


def pumpUntil(widget: Any, condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Let Tk work until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain")
        pump(widget, 0.05)


def mouse(canvas: Any, axes: Any, kind: str, point: Tuple[float, float], button: int = 1) -> None:
    """Send a mouse event at a point of the data through matplotlib."""
    from matplotlib.backend_bases import MouseEvent

    x, y = axes.transData.transform(point)
    canvas.callbacks.process(kind, MouseEvent(kind, canvas, x, y, button))


def touch(panel: Any, axis: int, point: Tuple[float, float], kind: str, state: int = 0) -> None:
    """Let Tk have a mouse event at a point (right, up, in voxels) of the view that cuts an axis.

    Parameters
    ----------
    panel : SlicePanel
        Holds the view.
    axis : int
        Axis that the view cuts.
    point : tuple of float
        Where, in voxels.
    kind : str
        Tk's name of the event, such as ``"<ButtonPress-1>"``.
    state : int
        Modifiers, as Tk counts them: 1 Shift, 4 Ctrl.
    """
    widget = panel.canvas.get_tk_widget()
    x, y = panel.axes[axis].transData.transform(point)
    widget.event_generate(kind, x=round(x), y=round(panel.figure.bbox.height - y), state=state)


def texts(widget: Any) -> List[str]:
    """Return the texts of a widget and of all below it."""
    found = []
    for option in ("text", "label"):
        try:
            found.append(str(widget.cget(option)))
        except Exception:  # most widgets have only one of them
            continue
    if hasattr(widget, "get") and widget.winfo_class() == "Text":
        found.append(widget.get("1.0", "end"))
    for child in widget.winfo_children():
        found += texts(child)
    return found


def press(widget: Any, text: str) -> None:
    """Press the button of a widget and its children that has a text; fails when there is none."""
    todo = [widget]
    while todo:
        one = todo.pop()
        if one.winfo_class() in ("Button", "TButton") and one.cget("text") == text:
            one.invoke()
            return
        todo += one.winfo_children()
    raise AssertionError(f"no button {text!r}")


def reduced(image: Any, colours: int) -> Any:
    """Return a picture (RGB) with so many colours: three quarters are greys, of which tomograms are made."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image).reshape(-1, 3)
    bright = np.unique(pixels[np.ptp(pixels, axis=1) > 24], axis=0)  # rare ones count as much as frequent ones
    palette = np.repeat(np.linspace(0, 255, colours - colours // 4).round().astype(np.uint8)[:, None], 3, 1)
    if len(bright):
        found = Image.fromarray(bright[None]).quantize(colours // 4, Image.Quantize.MEDIANCUT).getpalette()
        palette = np.concatenate([palette, np.array(found, np.uint8).reshape(-1, 3)[:colours // 4]])
    holder = Image.new("P", (1, 1))
    holder.putpalette(palette.tobytes())
    return image.quantize(palette=holder, dither=Image.Dither.NONE)


def picture(widget: Any, name: str) -> None:
    """Keep a picture of a window for the documents, where they are asked for."""
    folder = os.environ.get(PICTURES)
    if not folder:
        return
    from PIL import ImageGrab

    widget.geometry("+0+0")
    widget.lift()
    pump(widget, 0.8)
    left, top = widget.winfo_rootx(), widget.winfo_rooty()
    box = (left, top, left + widget.winfo_width(), top + widget.winfo_height())
    path = pathlib.Path(folder, f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = ImageGrab.grab(bbox=box, xdisplay=os.environ["DISPLAY"]).convert("RGB")
    for colours in (128, 64, 32, 16):
        reduced(image, colours).save(path, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            return
