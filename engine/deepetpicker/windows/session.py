"""What windows that change a session share: changes that may fail, tables, copies, undo."""

from __future__ import annotations

import pathlib
import tkinter as tk
from typing import Any, Callable, List, Optional

from deepetpicker.annotation.records import Change
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version, write_tables
from deepetpicker.errors import DeepETPickerError

Opens = Callable[..., Any]  # makes another window on the same session, not yet open


class SessionWindow:
    """Part of a window that changes a session; the window sets the attributes and has ``_refresh``."""

    session: Session
    top: Any
    status: tk.StringVar
    error: tk.StringVar
    seen = -1  # number of the change that the window shows

    def watch(self, top: tk.Toplevel) -> None:
        """Draw everything anew when the window gets the focus and another one has changed the session meanwhile."""
        top.bind("<FocusIn>", lambda event: self._refresh() if self.seen != self.session.sequence else None)

    def _refresh(self) -> None:
        """Draw everything anew."""
        raise NotImplementedError

    def _attempt(self, action: Callable[..., Any], *words: Any) -> Any:
        """Do something that changes the session; what went wrong is shown, and nothing has changed then."""
        try:
            found = action(*words)
        except (DeepETPickerError, OSError) as error:
            self.error.set(str(error))
            self.top.bell()
            return None
        self.error.set("")
        self._refresh()
        return found

    def undo(self) -> None:
        """Take the last change back."""
        self._show_changes(self._attempt(self.session.undo))

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._show_changes(self._attempt(self.session.redo))

    def _show_changes(self, changes: Optional[List[Change]]) -> None:
        """Go where something has changed."""
        raise NotImplementedError

    def save(self) -> None:
        """Write the tables as a new version."""
        folder = self._attempt(save_version, self.session)
        if not self.error.get():
            self.status.set(f"tables written: {folder}" if folder else "the tables say everything already")

    def ask_copy(self) -> None:
        """Ask for a folder and save a copy of everything there."""
        from tkinter import filedialog

        folder = filedialog.askdirectory(parent=self.top, title="Folder for a copy", mustexist=False)
        if folder:
            self._attempt(self.save_copy, pathlib.Path(folder))

    def save_copy(self, folder: pathlib.Path) -> None:
        """Save everything in another folder: tables, and what this window needs to go on there.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self.session.write_snapshot(folder)
        write_tables(self.session, folder, folder)
