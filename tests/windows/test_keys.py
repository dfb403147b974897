"""The list of keys, made of the table that binds them, and lists that do not keep the keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from virtual_screen import picture, pump, pumpUntil, texts, touch

from deepetpicker.annotation.session import Session
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.windows.inputs import prepare_session
from deepetpicker.windows.keyboard import Keys, brief_help
from deepetpicker.windows.keyboard.table import key_words
from deepetpicker.windows.linked import annotate_window, review_window
from deepetpicker.windows.picks import PicksWindow
from deepetpicker.windows.scene import Scene

pytestmark = pytest.mark.gui
CLASSES = [ParticleClass(1, "ring", 60.0), ParticleClass(2, "rod", 90.0)]
PICKS = CoordinateTable(np.array([[5.0, 10, 20], [8, 11, 21], [18, 30, 40]]), np.array([1, 2, 1]),
                        np.array([0.9, 0.4, 0.7]))


@pytest.fixture(params=["view", "annotate", "review"])
def window(request, root, scene, tmp_path):
    """Yield each of the windows, open; what it is for is its ``purpose``."""
    with Session(tmp_path / "out") as session:
        if request.param == "view":
            opened = PicksWindow("picks", scene, root)
        else:
            prepare_session(session, scene, {"a": PICKS, "b": PICKS}, CLASSES)
            make = annotate_window if request.param == "annotate" else review_window
            opened = make(session, Scene(list(scene.files.values()), []), parent=root)
        opened.purpose = request.param
        opened.open()
        pump(opened.top, 0.3)
        opened.top.focus_force()
        yield opened
        opened.close()


def list_of(window):
    """Return the list of keys that is open, None without one."""
    return next((child for child in window.top.winfo_children() if child.winfo_class() == "Toplevel"), None)


def test_names_of_keys_are_those_on_the_keyboard():
    assert [key_words(f"<{name}>") for name in ("Key-n", "Key-T", "Control-z", "Control-Shift-Z", "space", "Prior",
                                                "comma", "Shift-Left", "F1", "Key-0")] == [
        "n", "Shift-T", "Ctrl-Z", "Ctrl-Shift-Z", "Space", "Page Up", ",", "Shift-Left", "F1", "0"]
    digits = Keys("", tuple((f"<Key-{n}>", list) for n in range(1, 10)))
    assert (digits.title, Keys("", (("<Key-a>", list), ("<Key-b>", list))).title) == ("1 to 9", "a, b")
    help_lines = brief_help([("", [Keys("", label="k" * 30, brief="long"), Keys("", label="w" * 30, brief="wide"),
                                   Keys("not there")])]).splitlines()
    assert help_lines == ["k" * 30 + ": long", "w" * 30 + ": wide   F1: all keys"]


def test_f1_lists_every_key_that_is_bound(window):
    window.top.event_generate("<F1>")
    pumpUntil(window.top, lambda: list_of(window) is not None)
    shown = texts(list_of(window))
    picture(list_of(window), f"keys_{window.purpose}")
    bound = {name if len(name) == 1 and not name.isupper() else key_words(name) for name in window.top.bind()
             if not any(word in name for word in ("Focus", "Button", "Wheel", "Destroy", "Motion"))}
    listed = " ".join(shown)
    assert len(bound) > 20
    covered = {"1 to 9": [str(n) for n in range(1, 10)], "arrows": ["Left", "Right", "Up", "Down"],
               ", and .": [",", "."]}
    arrows = [f"{held}-{way}" for held in ("Shift", "Ctrl") for way in (*covered["arrows"], "Page Up", "Page Down")]
    for key in bound:
        assert any(key in words.split(", ") for words in shown) or any(
            key in keys and label in listed for label, keys in covered.items()) or (
            key in arrows and f"{key.split('-')[0]}-arrows" in listed), key
    assert "F1: all keys" in window.help.get()
    for line in window.help.get().splitlines():
        assert len(line) <= 60
    window.top.event_generate("<F1>")  # again: closes it
    pumpUntil(window.top, lambda: list_of(window) is None)
    window.show_keys()
    pump(window.top, 0.1)
    list_of(window).event_generate("<Escape>")
    pumpUntil(window.top, lambda: list_of(window) is None)
    assert window.top.winfo_exists()


def test_left_and_right_go_through_the_slices_of_the_view_under_the_mouse(window):
    if window.purpose == "review":
        return  # arrows move the cursor there
    for axis, point in ((1, (20, 12)), (2, (12, 20)), (0, (20, 20))):
        touch(window.panel, axis, point, "<Motion>")
        pump(window.top, 0.05)
        before = list(window.panel.position)
        for key in ("Right", "Right", "Left", "Right"):
            window.top.event_generate(f"<{key}>")
        pump(window.top, 0.05)
        before[axis] += 2
        assert window.panel.position == before
    before = list(window.panel.position)
    touch(window.panel, 1, (20, 12), "<Motion>")
    window.top.event_generate("<Up>")  # as ever
    window.top.event_generate("<Shift-Right>")
    pump(window.top, 0.05)
    assert window.panel.position == [before[0] + 1, before[1] + 10, before[2]]
    window.panel.canvas.get_tk_widget().event_generate("<Leave>")
    pump(window.top, 0.05)
    window.top.event_generate("<Left>")
    pump(window.top, 0.05)
    assert window.panel.position == [before[0], before[1] + 10, before[2]]


def test_lists_do_not_keep_the_keyboard(window):
    """Their own keys acted beside those of the window: Down showed another tomogram, Space began a review anew."""
    box = window.tomograms
    x, y, *_ = box.bbox(0)
    for kind in ("<ButtonPress-1>", "<ButtonRelease-1>"):
        box.event_generate(kind, x=x + 5, y=y + 5)
    pump(window.top, 0.1)
    assert window.top.focus_get() is not box
    if window.purpose == "annotate":
        window.book.event_generate("<ButtonPress-1>", x=12, y=10)
        pump(window.top, 0.1)
        assert window.top.focus_get() is not window.book
    shown, chosen = window.purpose != "review" and window.panel.tomogram, box.curselection()
    for key in ("Down", "Right"):
        window.top.focus_get().event_generate(f"<{key}>")
        pump(window.top, 0.05)
    assert box.curselection() == chosen
    if shown:
        assert window.panel.tomogram == shown
