"""The keys of the window in which particles are annotated."""

from __future__ import annotations

import functools
from typing import Any, List

from deepetpicker.windows.annotate.marks import LOOK, PARTICLE, REGION
from deepetpicker.windows.keyboard import Keys
from deepetpicker.windows.keyboard.slices import MOUSE_OF_SLICES, slice_keys
from deepetpicker.windows.keyboard.table import Group


def keys_of(window: Any) -> List[Group]:
    """Return what mouse and keys do in the window, in groups.

    Parameters
    ----------
    window : AnnotateWindow
        Has its controls already.
    """
    more = window.more
    mouse = [Keys("adds what a click marks; on a particle: selects it", label="click", brief="add"),
             Keys("moves it, in the plane of the view", label="drag", brief="move"),
             Keys("removes it; in a complete box, while these are marked: the box", label="right click",
                  brief="remove"),
             Keys("looks there, whatever a click marks", label="Shift-click", brief="look there"), *MOUSE_OF_SLICES]
    marks = [Keys("a click marks particles, complete boxes, or only looks there",
                  tuple((f"<Key-{key}>", functools.partial(window.set_mode, mode))
                        for key, mode in (("a", PARTICLE), ("b", REGION), ("v", LOOK)))),
             Keys("the selected particle is not one; with none selected a click marks places without a particle",
                  (("<Key-x>", window.not_one),), brief="not one"),
             Keys("chooses the class", tuple((f"<Key-{n}>", functools.partial(window.classes.choose, n))
                                             for n in range(1, 10)), brief="class"),
             Keys("gives the selected particle the chosen class", (("<Key-c>", window.give_class),)),
             Keys("removes what is selected", (("<Delete>", window.remove_selected),
                                               ("<BackSpace>", window.remove_selected))),
             Keys("clicks snap to the centre of density, or no longer do",
                  (("<Key-s>", lambda: window.snapping.set(not window.snapping.get())),))]
    walk = [Keys("the next particle, the one before; of what is asked: passes it over, goes back",
                 (("<Key-n>", lambda: more.next() if more.active else window.next_particle(1)),
                  ("<Key-p>", lambda: more.back() if more.active else window.next_particle(-1))),
                 brief="next, previous"),
            Keys("the selected particle, or what is asked, is right; goes to the next that nobody has looked at",
                 (("<space>", lambda: more.accept() if more.active else window.accept()),), brief="right, next new"),
            Keys("the next that nobody has looked at", (("<Key-u>", lambda: window.next_particle(1, True)),)),
            Keys("finds more like these; again: no longer", (("<Key-f>", more.toggle),), brief="find more")]
    keep = [Keys("takes the last change back, makes it again",
                 (("<Control-z>", window.undo), ("<Control-y>", window.redo)), brief="undo, redo"),
            Keys("again, too", (("<Control-Shift-Z>", window.redo),)),
            Keys("writes the tables", (("<Control-s>", window.save),))]
    return [("Mouse", mouse), ("Marks", marks), ("Particles one by one", walk), ("Changes", keep), *slice_keys(window)]
