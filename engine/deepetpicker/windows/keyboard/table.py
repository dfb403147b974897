"""Keys with what they do: bound to a window, listed in a window of their own, in short below the controls."""

from __future__ import annotations

import dataclasses
import functools
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Optional, Sequence, Tuple

from deepetpicker.windows.window import FigureWindow

Command = Callable[[], Any]
WORDS = {"space": "Space", "comma": ",", "period": ".", "plus": "+", "minus": "-", "Prior": "Page Up",
         "Next": "Page Down", "BackSpace": "Backspace", "Control": "Ctrl"}
BRIEF_LETTERS = 56  # of a line below the controls
TEXT_PX, LETTERS, COLUMNS = 330, 44, 2  # of what keys do: width of a line, letters of one; columns of the list
TYPED = ("Entry", "TEntry", "Text", "TCombobox", "Spinbox", "TSpinbox")


@dataclasses.dataclass(frozen=True)
class Keys:
    """Keys that belong together, or what the mouse does.

    Parameters
    ----------
    does : str
        What they do, in the order of the keys.
    commands : tuple of tuple
        Tk's name of each key, such as ``"<Key-n>"``, and what it does; none for the mouse.
    label : str
        What they are called; empty: made of their names.
    brief : str
        The same in a few words, for the lines below the controls; empty: not there.
    always : bool
        Whether they work while a text is typed, too.
    """

    does: str
    commands: Tuple[Tuple[str, Command], ...] = ()
    label: str = ""
    brief: str = ""
    always: bool = False

    @property
    def title(self) -> str:
        """What the keys are called: ``n, p``, or ``1 to 9`` of digits in a row."""
        names = [key_words(name) for name, _ in self.commands]
        if len(names) > 2 and "".join(names) in "0123456789":
            return self.label or f"{names[0]} to {names[-1]}"
        return self.label or ", ".join(names)


Group = Tuple[str, Sequence[Keys]]


def key_words(name: str) -> str:
    """Return what users call a key: ``Ctrl-Z`` of ``<Control-z>``, ``Shift-T`` of ``<Key-T>``, ``n`` of ``<Key-n>``."""
    *held, last = name.strip("<>").split("-")
    held = [WORDS.get(word, word) for word in held if word != "Key"]
    if len(last) == 1 and last.isalpha():
        if last.isupper() and "Shift" not in held:
            held.append("Shift")
        last = last.upper() if held else last
    return "-".join([*held, WORDS.get(last, last)])


def bind_keys(top: tk.Misc, keys: Sequence[Keys]) -> None:
    """Bind keys of a window to commands; but for those that always work, they do nothing while a text is typed."""
    for one in keys:
        for name, command in one.commands:
            top.bind(name, functools.partial(_run, command) if one.always else
                     functools.partial(_run_unless_typing, command))


def bind_table(window: FigureWindow, groups: Sequence[Group]) -> Command:
    """Bind all keys of a window, and F1 to the list of them.

    Parameters
    ----------
    window : FigureWindow
        Is open.
    groups : sequence of tuple
        Title and keys of each group of the list.

    Returns
    -------
    callable
        Opens the list, or closes it when it is open.
    """
    shown: List[KeysWindow] = []

    def toggle() -> None:
        """Open the list of keys, or close it."""
        if shown and shown[0].top.winfo_exists():
            shown.pop().close()
            return
        shown[:] = [KeysWindow(window, every, toggle).open()]

    here = ("This window", [Keys("this list; again, or Escape in it: closes it", (("<F1>", toggle),), always=True),
                            Keys("closes the window", (("<Control-w>", window.close),), always=True)])
    every = [*groups, here]
    for _, keys in every:
        bind_keys(window.top, keys)
    return toggle


def brief_help(groups: Sequence[Group]) -> str:
    """Return the lines of help below the controls: what has a brief word, and how to see the rest."""
    parts = [f"{one.title}: {one.brief}" for _, keys in groups for one in keys if one.brief]
    lines: List[str] = []
    for part in [*parts, "F1: all keys"]:
        if lines and len(lines[-1]) + 3 + len(part) <= BRIEF_LETTERS:
            lines[-1] += f"   {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def yields_keys(widget: tk.Misc, to: tk.Misc) -> None:
    """Let a list or a row of tabs give the keyboard away when it is clicked: its own keys would act beside ours.

    What lies inside of it keeps the keyboard, although Tk tells those around it, too.
    """
    widget.bind("<FocusIn>", lambda event: to.focus_set() if str(widget.tk.call("focus")) == str(widget) else None)


class KeysWindow(FigureWindow):
    """The list of all keys of a window.

    Parameters
    ----------
    window : FigureWindow
        Whose keys.
    groups : sequence of tuple
        Title and keys of each group.
    toggle : callable
        What F1 does.
    """

    def __init__(self, window: FigureWindow, groups: Sequence[Group], toggle: Command) -> None:
        super().__init__(f"Keys: {window.title}", window.top)
        self.groups, self.toggle = list(groups), toggle

    def open(self) -> KeysWindow:
        """Open the window, as large as the list."""
        super().open()
        self.top.geometry("")
        self.top.resizable(False, False)
        return self

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window: groups in columns of about the same length."""
        frame = ttk.Frame(top, padding=10)
        frame.pack(fill=tk.BOTH, expand=True)
        columns = [ttk.Frame(frame) for _ in range(COLUMNS)]
        for column in columns:
            column.pack(side=tk.LEFT, anchor=tk.N, padx=8)
        rows = [2 + sum(1 + len(one.does) // LETTERS for one in keys) for _, keys in self.groups]
        for number, (title, keys) in enumerate(self.groups):
            before = sum(rows[:number]) + rows[number] / 2
            self._fill(columns[min(COLUMNS - 1, int(COLUMNS * before / sum(rows)))], title, keys)
        bind_keys(top, [Keys("", (("<F1>", self.toggle), ("<Escape>", self.toggle)))])
        top.focus_set()

    @staticmethod
    def _fill(parent: tk.Misc, title: str, keys: Sequence[Keys]) -> None:
        """Add a group: a line for each of its keys."""
        row = parent.grid_size()[1]
        ttk.Label(parent, text=title, font=("TkDefaultFont", 10, "bold")).grid(row=row, column=0, columnspan=2,
                                                                               sticky=tk.W, pady=(8, 2))
        for number, one in enumerate(keys, start=row + 1):
            ttk.Label(parent, text=one.title, font=("TkFixedFont", 10)).grid(row=number, column=0, sticky=tk.NW,
                                                                             padx=(0, 10))
            ttk.Label(parent, text=one.does, wraplength=TEXT_PX, justify=tk.LEFT).grid(row=number, column=1,
                                                                                       sticky=tk.W)


def _run(command: Command, event: Any) -> None:
    """Run a command."""
    command()


def _run_unless_typing(command: Command, event: Any) -> None:
    """Run a command, unless its key goes to a field for text."""
    if not _typing(event):
        command()


def _typing(event: Any) -> Optional[bool]:
    """Tell whether a key event goes to a field for text."""
    try:
        return event.widget.winfo_class() in TYPED
    except AttributeError:  # a widget that Tk knows and Python does not, as in menus of comboboxes
        return False
