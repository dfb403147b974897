"""The controls of the review window: tomograms, order, classes, and how crops look."""

from __future__ import annotations

import dataclasses
import functools
import tkinter as tk
from tkinter import ttk
from typing import Any, Dict, List

from deepetpicker.annotation.review import ALL, DOUBT, NEW, REFUSED_ONLY, SCORE, TOMOGRAM
from deepetpicker.annotation.session import Session
from deepetpicker.outliers import Unlike
from deepetpicker.windows.keyboard import Keys, yields_keys
from deepetpicker.windows.keyboard.slices import contrast_keys
from deepetpicker.windows.picks import replace_line
from deepetpicker.windows.sheet import Sheet
from deepetpicker.windows.window import heading, shortened, slider

ORDERS = ((SCORE, "score"), (DOUBT, "doubt"), (TOMOGRAM, "tomogram"))
SHOWN = ((NEW, "not seen"), (ALL, "all"), (REFUSED_ONLY, "refused"))
EVERYTHING = "all tomograms"
NAME_LETTERS = 26  # of a class on its button, whose number of picks is to be seen


class ReviewControls:
    """Part of the review window, which sets the attributes."""

    session: Session
    sheet: Sheet
    names: List[str]
    unlike: Dict[str, Unlike]

    def arrange(self) -> None:
        """Make the list anew."""
        raise NotImplementedError

    def fit(self) -> None:
        """Show as many tiles as there is room for."""
        raise NotImplementedError

    def give_class(self, place: int) -> None:
        """Give the class at a place of the list, counted from 1."""
        raise NotImplementedError

    def _build_order(self, parent: tk.Misc) -> None:
        """Add the list of tomograms, the order, and what is shown."""
        heading(parent, "Tomograms (unlike the others first)")
        frame = ttk.Frame(parent)
        frame.pack(fill=tk.BOTH, expand=True, padx=6)
        self.tomograms = tk.Listbox(frame, height=4, exportselection=False)
        bar = ttk.Scrollbar(frame, command=self.tomograms.yview)
        self.tomograms.configure(yscrollcommand=bar.set)
        bar.pack(side=tk.RIGHT, fill=tk.Y)
        self.tomograms.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.tomograms.bind("<<ListboxSelect>>", lambda event: self.arrange())
        yields_keys(self.tomograms, self.sheet.canvas)
        self.reasons = tk.StringVar(parent)
        ttk.Label(parent, textvariable=self.reasons, wraplength=318, foreground="#9a6700").pack(anchor=tk.W, padx=6)
        self.order, self.shown = tk.StringVar(parent, value=SCORE), tk.StringVar(parent, value=NEW)
        for title, variable, choices in (("Sort by", self.order, ORDERS), ("Show", self.shown, SHOWN)):
            row = ttk.Frame(parent)
            row.pack(fill=tk.X, padx=6)
            ttk.Label(row, text=title, width=7, font=("TkDefaultFont", 10, "bold")).pack(side=tk.LEFT)
            for value, text in choices:
                ttk.Radiobutton(row, text=text, variable=variable, value=value, takefocus=False,
                                command=self.arrange).pack(side=tk.LEFT, padx=(0, 10))

    def _build_classes(self, parent: tk.Misc) -> None:
        """Add a button for each class."""
        heading(parent, "Classes (a click gives it)")
        self._classes = ttk.Frame(parent)
        self._classes.pack(fill=tk.X, padx=6)
        self._class_buttons: List[tk.Button] = []

    def _build_crops(self, parent: tk.Misc) -> None:
        """Add how the crops look."""
        heading(parent, "Crops")
        size = slider(parent, "size (pixels)", (40, 240), lambda v: self._set_crops(edge_px=int(v)), 4)
        size.set(self.sheet.edge_px)
        look = self.sheet.look
        slider(parent, "average (± planes)", (0, 10), lambda v: self.set_look(average=int(v))).set(look.average)
        self.smoothed = slider(parent, "low-pass (voxels)", (0, 5), lambda v: self.set_look(smooth_vox=v), 0.25)
        self.clipped = slider(parent, "contrast (%; , and .)", (0, 10), lambda v: self.set_look(clipped_percent=v), 0.1)
        self.clipped.set(look.clipped_percent)
        row = ttk.Frame(parent)
        row.pack(fill=tk.X, padx=6)
        self.three, self.rings = tk.BooleanVar(parent), tk.BooleanVar(parent)
        self.inverted = tk.BooleanVar(parent)
        for text, variable, command in (("three cuts", self.three, self._set_cuts),
                                        ("rings", self.rings, self._set_cuts),
                                        ("high values dark", self.inverted, self._invert)):
            ttk.Checkbutton(row, text=text, variable=variable, takefocus=False, command=command).pack(
                side=tk.LEFT, padx=(0, 10))

    def set_look(self, **changes: Any) -> None:
        """Change how crops are shown."""
        self._set_crops(look=dataclasses.replace(self.sheet.look, **changes))

    def contrast_keys(self) -> List[Keys]:
        """Return the keys that change how crops look."""
        return contrast_keys(self.clipped, self.inverted, self._invert)

    def _invert(self) -> None:
        """Show high values dark, or bright."""
        self.set_look(inverted=self.inverted.get())

    def _set_cuts(self) -> None:
        """Show one cut or three, with rings or without."""
        self._set_crops(cuts=(0, 1, 2) if self.three.get() else (0,), rings=self.rings.get())

    def flip(self, variable: tk.BooleanVar) -> None:
        """Switch cuts or rings by a key."""
        variable.set(not variable.get())
        self._set_cuts()

    def _set_crops(self, **changes: Any) -> None:
        """Change how crops are shown, and draw the page anew."""
        if any(getattr(self.sheet, name) != value for name, value in changes.items()):
            for name, value in changes.items():
                setattr(self.sheet, name, value)
            self.fit()

    def fill_lists(self) -> None:
        """Show the numbers of tomograms and classes."""
        counts = {name: (len(self.session.particles(name)), len(self.session.unreviewed(name))) for name in self.names}
        every = (sum(c for c, _ in counts.values()), sum(n for _, n in counts.values()))
        for number, (name, (count, new)) in enumerate([(EVERYTHING, every), *counts.items()]):
            mark = " !" if name in self.unlike and self.unlike[name].reasons else ""
            replace_line(self.tomograms, number, f"{name} ({count}{f', {new} new' if new else ''}){mark}")
        looks = self.session.classes
        if len(self._class_buttons) != len(looks):
            for button in self._class_buttons:
                button.destroy()
            self._class_buttons = [tk.Button(self._classes, anchor=tk.W, takefocus=False, pady=0, bd=1,
                                             command=functools.partial(self.give_class, place))
                                   for place in range(1, len(looks) + 1)]
            for button in self._class_buttons:
                button.pack(fill=tk.X)
        for place, (button, one) in enumerate(zip(self._class_buttons, looks), start=1):
            count = sum(self.session.counts(name).get(one.kind.id, 0) for name in self.names)
            button.configure(text=f"{place}: {shortened(one.kind.name, NAME_LETTERS)} ({count})",
                             highlightbackground=one.colour, highlightthickness=2)
