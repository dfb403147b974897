"""Names for the classes of a training."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from deepetpicker.errors import InputError
from deepetpicker.windows.window import FigureWindow
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import withNames


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """The classes of a training and what they are called.

    Attributes
    ----------
    ids : tuple of int
        Class ids, ascending.
    groups : tuple of str
        Where the particles of each class come from: group ids, and the set where there are several.
    counts : tuple of int
        Number of particles of each class.
    names : tuple of str
        Name of each class; empty where there is none yet.
    """

    ids: Tuple[int, ...]
    groups: Tuple[str, ...]
    counts: Tuple[int, ...]
    names: Tuple[str, ...]

    def text(self, names: Sequence[str]) -> str:
        """Return the form's text for names in the order of the ids (``0: ring, 1: rod``); empty when all of them are.

        Raises
        ------
        InputError
            If a name is missing, doubled, or holds a comma, colon or semicolon.
        """
        words = [name.strip() for name in names]
        if not any(words):
            return ""
        for classId, word in zip(self.ids, words):
            if not word:
                raise InputError(f"class {classId} has no name: give one to each class, or to none")
            if set(word) & set(",;:"):
                raise InputError(f"the name {word!r} holds a comma, semicolon or colon, which separate names: leave it "
                                 "out")
            if words.count(word) > 1:
                raise InputError(f"the name {word!r} is given twice: classes need different names")
        return ", ".join(f"{i}: {word}" for i, word in zip(self.ids, words))


def namesOf(protocol: Any) -> ClassNames:
    """Return the classes that a training protocol's form gives.

    Raises
    ------
    InputError
        If no coordinates are chosen, or they are empty.
    """
    sources = protocol.getSources()
    if not sources or not all(source.coordinates.getSize() for source in sources):
        raise InputError("Choose the particle coordinates first: their group ids are the classes.")
    found = protocol._sorted()
    counts = dict.fromkeys((c.id for c in found.classes), 0)
    groups: Dict[int, List[str]] = {c.id: [] for c in found.classes}
    for number, (source, ofGroup) in enumerate(zip(sources, found.ofGroup), start=1):
        rows, _ = convert.readCoordinates(source.coordinates)
        for group, classId in ofGroup.items():
            counts[classId] += sum(row.groups.count(group) for row in rows.values())
            groups[classId].append(str(group) if len(sources) == 1 else f"{group} of set {number}")
    try:
        classes = withNames(found.classes, protocol.classNames.get(), "Class names")
    except InputError:  # something else in the form yet
        classes = found.classes
    return ClassNames(tuple(c.id for c in classes), tuple(", ".join(groups[c.id]) for c in classes),
                      tuple(counts[c.id] for c in classes), tuple(c.name if c.is_named else "" for c in classes))


class NamesWindow(FigureWindow):
    """A table of the classes with a field for each name.

    Parameters
    ----------
    classes : ClassNames
        What is shown.
    done : callable
        Takes the text for the form.
    parent : Tk widget, optional
        The form.
    """

    def __init__(self, classes: ClassNames, done: Callable[[str], Any], parent: Optional[tk.Misc] = None) -> None:
        super().__init__("Class names", parent, (560, 150 + 34 * len(classes.ids)))
        self.classes, self.done = classes, done
        self.fields: List[tk.StringVar] = []

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        self.message = tk.StringVar(top)
        table = ttk.Frame(top, padding=10)
        table.pack(fill=tk.BOTH, expand=True)
        for column, text in enumerate(("Class id", "Group id", "Particles", "Name")):
            ttk.Label(table, text=text, font=("TkDefaultFont", 10, "bold")).grid(row=0, column=column, sticky=tk.W,
                                                                                 padx=6)
        rows = zip(self.classes.ids, self.classes.groups, self.classes.counts, self.classes.names)
        for number, (classId, groups, count, name) in enumerate(rows, 1):
            for column, text in enumerate((str(classId), groups, str(count))):
                ttk.Label(table, text=text).grid(row=number, column=column, sticky=tk.W, padx=6, pady=3)
            field = tk.StringVar(top, value=name)
            field.trace_add("write", lambda *changed: self.message.set(""))
            ttk.Entry(table, textvariable=field, width=28).grid(row=number, column=3, sticky=tk.EW, padx=6)
            self.fields.append(field)
        table.columnconfigure(3, weight=1)
        bar = ttk.Frame(top, padding=6)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        ttk.Button(bar, text="Cancel", command=self.close).pack(side=tk.RIGHT)
        self.ok = ttk.Button(bar, text="Use these names", command=self.accept)
        self.ok.pack(side=tk.RIGHT, padx=6)
        tk.Label(top, textvariable=self.message, fg="#b3261e", wraplength=520, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=12)

    def accept(self) -> None:
        """Set the form's value and close; what is wrong with the names is shown instead."""
        try:
            text = self.classes.text([field.get() for field in self.fields])
        except InputError as error:
            self.message.set(str(error))
            return
        self.done(text)
        self.close()
