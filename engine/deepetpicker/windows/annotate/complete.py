"""The tick that says that all particles of a tomogram are marked: a complete box as large as the tomogram."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Optional

from deepetpicker.annotation.session import Session
from deepetpicker.io.regions import Region


class CompleteTick(ttk.Checkbutton):
    """A tick for the tomogram that is shown.

    Parameters
    ----------
    parent : Tk widget
        Where it goes.
    session : Session
        What is annotated.
    attempt : callable
        Makes a change, given a method of the session and its arguments, and shows what went wrong.
    """

    def __init__(self, parent: tk.Misc, session: Session, attempt: Callable[..., Any]) -> None:
        self.session, self._attempt, self._name = session, attempt, ""
        self.is_set = tk.BooleanVar(parent, value=False)
        super().__init__(parent, text="all particles of this tomogram are marked", variable=self.is_set,
                         takefocus=False, command=self._changed)

    def refresh(self, name: str) -> None:
        """Show how it is for a tomogram."""
        self._name = name
        self.is_set.set(self._key() is not None)

    def _key(self) -> Optional[int]:
        """Return the key of a box that is as large as the tomogram."""
        whole = whole_of(self.session, self._name)
        return next((key for key, one in self.session.regions(self._name).items() if one == whole), None)

    def _changed(self) -> None:
        """Add or remove the box."""
        key = self._key()
        if self.is_set.get() and key is None:
            self._attempt(self.session.add, self._name, whole_of(self.session, self._name))
        elif not self.is_set.get() and key is not None:
            self._attempt(self.session.remove, "region", self._name, key)
        self.refresh(self._name)  # as it is, should the change have failed


def whole_of(session: Session, name: str) -> Region:
    """Return the box that is a whole tomogram."""
    z, y, x = session.tomogram(name).shape_zyx
    return Region((0, 0, 0), (z - 1, y - 1, x - 1))
