"""The list of classes in the annotation window: which one a click adds, its name, colour and diameter."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, List, Optional

from deepetpicker.annotation.records import ClassLook
from deepetpicker.annotation.session import Session
from deepetpicker.windows.window import button_row, heading, shortened

LEAST_ANG, MOST_ANG, STEP_ANG = 1.0, 100_000.0, 5.0
NAME_LETTERS = 28  # of a class in the list, whose number of particles is to be seen


class ClassBox(ttk.Frame):
    """Classes, each with its colour, its key and its number of particles; below, what the chosen one is like.

    Parameters
    ----------
    parent : Tk widget
        Holds the box.
    session : Session
        What is annotated.
    attempt : callable
        Runs a function and shows its error, if there is one.
    chosen : callable
        Is called when another class is chosen.
    """

    def __init__(self, parent: tk.Misc, session: Session, attempt: Callable[[Callable[[], Any]], Any],
                 chosen: Callable[[], Any]) -> None:
        super().__init__(parent)
        self.session, self.attempt, self._tell = session, attempt, chosen
        self.class_id = tk.IntVar(self, value=session.classes[0].kind.id if session.classes else 0)
        heading(self, "Classes (particles here)")
        self.rows = ttk.Frame(self)
        self.rows.pack(fill=tk.X, padx=6)
        self.lines: Dict[int, tk.StringVar] = {}
        self.name, self.diameter, self.voxels = tk.StringVar(self), tk.StringVar(self), tk.StringVar(self)
        row = ttk.Frame(self)
        row.pack(fill=tk.X, padx=6, pady=(4, 0))
        ttk.Label(row, text="name").pack(side=tk.LEFT)
        self.name_field = ttk.Entry(row, textvariable=self.name, width=12)
        self.name_field.pack(side=tk.LEFT, fill=tk.X, expand=True, padx=4)
        self.swatch = tk.Button(row, width=2, relief=tk.SOLID, bd=1, takefocus=False, command=self.ask_colour)
        self.swatch.pack(side=tk.RIGHT)
        row = ttk.Frame(self)
        row.pack(fill=tk.X, padx=6)
        ttk.Label(row, text="diameter (Å)").pack(side=tk.LEFT)
        self.diameter_field = ttk.Spinbox(row, textvariable=self.diameter, from_=LEAST_ANG, to=MOST_ANG, width=8,
                                          increment=STEP_ANG, command=self.keep)
        self.diameter_field.pack(side=tk.LEFT, padx=4)
        ttk.Label(row, textvariable=self.voxels).pack(side=tk.LEFT)
        for field in (self.name_field, self.diameter_field):
            field.bind("<Return>", self._entered)
            field.bind("<FocusOut>", lambda event: self.keep())
        self.buttons = button_row(self, ("New class", self.new), ("Remove class", self.remove))
        self.voxel_size_ang = 1.0
        self._shown: List[ClassLook] = []

    @property
    def look(self) -> Optional[ClassLook]:
        """The chosen class; None when there is none at all."""
        found = self.session.classes
        return next((one for one in found if one.kind.id == self.class_id.get()), found[0] if found else None)

    def choose(self, number: int) -> None:
        """Choose a class by its place in the list, counted from 1."""
        if 1 <= number <= len(self.session.classes):
            self.class_id.set(self.session.classes[number - 1].kind.id)
            self._tell()

    def refresh(self, tomogram: str, voxel_size_ang: float) -> None:
        """Show classes and numbers as they are now."""
        self.voxel_size_ang = voxel_size_ang
        look = self.look
        if look is not None:
            self.class_id.set(look.kind.id)
        if self.session.classes != self._shown:
            self._fill()
        counts = self.session.counts(tomogram)
        for number, one in enumerate(self.session.classes, start=1):
            key = f"{number}: " if number < 10 else ""
            self.lines[one.kind.id].set(f"{key}{shortened(one.kind.name, NAME_LETTERS)} ({counts.get(one.kind.id, 0)})")
        if look is not None and self.focus_get() not in (self.name_field, self.diameter_field):
            self.name.set(look.kind.name)
            self.diameter.set(f"{look.kind.diameter_ang:g}" if look.kind.diameter_ang else "")
        if look is not None:
            self.swatch.configure(background=look.colour, activebackground=look.colour)
            self.voxels.set(f"{look.kind.diameter_ang / voxel_size_ang:.1f} voxels" if look.kind.diameter_ang else
                            "not known: drawn as 20 voxels")

    def _fill(self) -> None:
        """Make a line for each class."""
        self._shown = self.session.classes
        for child in self.rows.winfo_children():
            child.destroy()
        self.lines = {}
        for one in self._shown:
            row = ttk.Frame(self.rows)
            row.pack(fill=tk.X)
            tk.Label(row, bg=one.colour, width=2, relief=tk.SOLID, bd=1).pack(side=tk.LEFT, padx=(0, 4))
            self.lines[one.kind.id] = tk.StringVar(row)
            ttk.Radiobutton(row, textvariable=self.lines[one.kind.id], variable=self.class_id, value=one.kind.id,
                            command=self._tell, takefocus=False).pack(side=tk.LEFT)

    def _entered(self, event: Any) -> None:
        """Keep what was typed, and give the keys back to the window."""
        self.winfo_toplevel().focus_set()
        self.keep()

    def keep(self) -> None:
        """Take name and diameter of the chosen class from the fields; what is no number is put back."""
        look = self.look
        if look is None:
            return
        try:
            diameter = min(max(float(self.diameter.get()), LEAST_ANG), MOST_ANG)
        except ValueError:
            diameter = look.kind.diameter_ang
        kind = dataclasses.replace(look.kind, name=self.name.get().strip(), diameter_ang=diameter)
        if kind != look.kind:
            self.attempt(lambda: self.session.set_class(dataclasses.replace(look, kind=kind)))
        self._tell()

    def new(self) -> None:
        """Add a class like the chosen one and choose it."""
        names = {one.kind.name for one in self.session.classes}
        number = next(n for n in range(1, len(names) + 2) if f"class_{n}" not in names)
        look = self.look
        made = self.attempt(lambda: self.session.new_class(f"class_{number}", look.kind.diameter_ang if look else 0.0))
        if made is not None:
            self.class_id.set(made.kind.id)
        self._tell()

    def remove(self) -> None:
        """Remove the chosen class, if nothing has it."""
        look = self.look
        if look is not None:
            self.attempt(lambda: self.session.remove_class(look.kind.id))
        self._tell()

    def ask_colour(self) -> None:
        """Let the user choose the colour of the chosen class."""
        from tkinter import colorchooser

        look = self.look
        if look is not None:
            found = colorchooser.askcolor(look.colour, parent=self, title=f"Colour of {look.kind.name}")[1]
            if found:
                self.attempt(lambda: self.session.set_class(dataclasses.replace(look, colour=str(found))))
            self._tell()
