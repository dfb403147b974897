"""The keys of the window in which picks are reviewed."""

from __future__ import annotations

import functools
from typing import Any, List

from deepetpicker.windows.keyboard import Keys
from deepetpicker.windows.keyboard.table import Group

STEPS = {"Right": (0, 0, 1), "Left": (0, 0, -1), "Up": (0, 1, 0), "Down": (0, -1, 0), "Prior": (1, 0, 0),
         "Next": (-1, 0, 0)}
FAR = 10 ** 9  # pages: as far as there are


def keys_of(window: Any) -> List[Group]:
    """Return what mouse and keys do in the window, in groups.

    Parameters
    ----------
    window : ReviewWindow
        Has its controls already.
    """
    answers = [Keys("right; goes to the next that nobody has looked at", (("<space>", window.accept),), brief="right"),
               Keys("not one", (("<Key-x>", window.refuse), ("<Delete>", window.refuse)), brief="not one"),
               Keys("the rest of the page is right; next page", (("<Return>", window.accept_page),),
                    brief="rest of the page is right"),
               Keys("gives the class", tuple((f"<Key-{n}>", functools.partial(window.give_class, n))
                                             for n in range(1, 10)), brief="class")]
    every = lambda: window.sheet.columns  # noqa: E731 - it changes with the size of the window
    arrows = (("Left", lambda: -1), ("Right", lambda: 1), ("Up", lambda: -every()), ("Down", every))
    walk = [Keys("moves the cursor; beyond the page: turns it",
                 tuple((f"<{key}>", functools.partial(window.walk, step, False)) for key, step in arrows),
                 label="arrows", brief="go"),
            Keys("chooses what lies between", tuple((f"<Shift-{key}>", functools.partial(window.walk, step, True))
                                                    for key, step in arrows), label="Shift-arrows", brief="choose"),
            Keys("chooses the row, the page", (("<Key-r>", window.choose_row), ("<Control-a>", window.choose_page))),
            Keys("chooses only the one under the cursor", (("<Escape>", lambda: window.go(window.cursor)),)),
            Keys("other pages", (("<Prior>", lambda: window.turn(-1)), ("<Next>", lambda: window.turn(1)))),
            Keys("the first page, the last", (("<Home>", lambda: window.turn(-FAR)),
                                              ("<End>", lambda: window.turn(FAR))))]
    centre = [Keys("moves it by a voxel: to the sides, and with the Page keys along z",
                   tuple((f"<Control-{key}>", functools.partial(window.nudge, step)) for key, step in STEPS.items()),
                   label="Ctrl-arrows, Ctrl-Page", brief="move"),
              Keys("moves it to the centre of density", (("<Key-s>", window.snap),), brief="snap"),
              Keys("shows it in the slices", (("<Key-g>", window.open_slices),), brief="slices")]
    keep = [Keys("takes the last answer back, gives it again",
                 (("<Control-z>", window.undo), ("<Control-y>", window.redo)), brief="undo, redo"),
            Keys("again, too", (("<Control-Shift-Z>", window.redo),)),
            Keys("writes the tables", (("<Control-s>", window.save),))]
    looks = [Keys("three cuts instead of one, rings of the particle's size",
                  (("<Key-k>", lambda: window.flip(window.three)), ("<Key-o>", lambda: window.flip(window.rings)))),
             *window.contrast_keys()]
    mouse = [Keys("the cursor goes there; with Shift what lies between is chosen", label="click"),
             Keys("shows it in the slices", label="double click"),
             Keys("moves the pick: what is under the yellow cross becomes its centre", label="pull a crop",
                  brief="move"),
             Keys("other pages", (("<Button-4>", lambda: window.turn(-1)), ("<Button-5>", lambda: window.turn(1))),
                  label="wheel")]
    return [("Answers", answers), ("Cursor", walk), ("Mouse", mouse), ("Centre", centre), ("Changes", keep),
            ("Look", looks)]
