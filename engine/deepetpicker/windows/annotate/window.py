"""The window in which particles are annotated."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, List, Optional, Sequence

import numpy as np

from deepetpicker.annotation.annotations import moved
from deepetpicker.annotation.background import Start, this_python
from deepetpicker.annotation.records import Change, Negative, Particle, Position
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.snap import snap
from deepetpicker.windows.annotate.classbox import ClassBox
from deepetpicker.windows.annotate.complete import CompleteTick
from deepetpicker.windows.annotate.keys import keys_of
from deepetpicker.windows.annotate.marks import (
    CANDIDATE,
    LOOK,
    NEGATIVE,
    PARTICLE,
    REGION,
    Actions,
    Mark,
    MarkTool,
    layers_of,
)
from deepetpicker.windows.annotate.more import MorePanel
from deepetpicker.windows.annotate.remembered import recall, remember
from deepetpicker.windows.gallery import CropRow, GalleryWindow, OverviewWindow, Pick
from deepetpicker.windows.keyboard import bind_table, brief_help, yields_keys
from deepetpicker.windows.picks import SliceControls, replace_line
from deepetpicker.windows.scene import Scene, diameter_vox
from deepetpicker.windows.session import Opens, SessionWindow
from deepetpicker.windows.slices import SlicePanel
from deepetpicker.windows.window import FigureWindow, ScrolledColumn, button_row, heading

MODES = ((PARTICLE, "Particle", "a"), (NEGATIVE, "Not one", "x"), (REGION, "Complete box", "b"), (LOOK, "Look", "v"))


class AnnotateWindow(SessionWindow, SliceControls, FigureWindow):
    """Three linked slices in which a click adds a particle of the chosen class.

    Every change is on disk before it is shown. Closing the window leaves the session open: its owner saves and closes
    it.

    Parameters
    ----------
    session : Session
        What is annotated; knows the tomograms of the scene.
    scene : Scene
        The tomograms; its layers are made from the session.
    sheets : callable
        Makes the window with sheets of all particles, from session, scene, title, parent and ``start``.
    title : str
        Title of the window.
    parent : Tk widget, optional
        Window that opened it.
    start : callable
        How the engine is started, which finds more; see :class:`~deepetpicker.annotation.background.Background`.
    """

    def __init__(self, session: Session, scene: Scene, sheets: Opens, title: str = "Annotate particles",
                 parent: Optional[tk.Misc] = None, start: Start = this_python) -> None:
        super().__init__(title, parent, (1280, 920))
        self.session, self.scene, self._start, self._sheets = session, scene, start, sheets
        self.gallery: Optional[GalleryWindow] = None
        self._keys: List[List[int]] = []

    # ---- the window
    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window: controls on the left, slices on the right."""
        controls = ttk.Frame(top, width=340)
        controls.pack(side=tk.LEFT, fill=tk.Y)
        controls.pack_propagate(False)
        self.panel = SlicePanel(top, self.scene, moved=self._moved)
        self.panel.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.panel.pointed = self._pointed
        self.tool = MarkTool(self.panel, self.session, Actions(
            self.add, self.move, self.remove, self.select, lambda region: self._attempt(self._add, region),
            lambda key, region: self._attempt(self.session.change, self.panel.tomogram, key, region)))
        self.panel.tool = self.tool
        self.status, self.error, self.help = tk.StringVar(top), tk.StringVar(top), tk.StringVar(top)
        self._build_footer(controls)
        self.book = ttk.Notebook(controls)
        self.book.pack(fill=tk.BOTH, expand=True)
        yields_keys(self.book, self.panel.canvas.get_tk_widget())
        columns = [ScrolledColumn(self.book), ScrolledColumn(self.book)]
        pages = [column.inside for column in columns]
        self.book.add(columns[0], text="Annotate")
        self._build_tomograms(pages[0], "Tomograms (particles, not looked at)")
        self.classes = ClassBox(pages[0], self.session, self._attempt, self._refresh)
        self.classes.pack(fill=tk.X)
        self.more = MorePanel(self.book, self, self._start)
        for page, name in ((self.more, "Find more"), (columns[1], "View")):
            self.book.add(page, text=name)
        self._build_modes(pages[0])
        self._build_slices(pages[1])
        self._build_crops(pages[1])
        self._bind()
        self.watch(top)
        self.tomograms.selection_set(0)
        self._chosen()
        recall(self, self.session.folder)

    def close(self) -> None:
        """Close the window; the next one begins where it was."""
        if self.top is not None and self.top.winfo_exists() and self.panel.tomogram:
            remember(self, self.session.folder)
        super().close()

    def _build_modes(self, parent: tk.Misc) -> None:
        """Add what a click does, and the buttons for the selected particle."""
        heading(parent, "A click marks")
        self.mode = tk.StringVar(parent, value=PARTICLE)
        row = ttk.Frame(parent)
        row.pack(fill=tk.X, padx=6)
        for number, (mode, text, key) in enumerate(MODES):
            ttk.Radiobutton(row, text=f"{text} ({key})", variable=self.mode, value=mode, takefocus=False,
                            command=lambda: self.set_mode(self.mode.get())).grid(row=number // 2, column=number % 2,
                                                                                 sticky=tk.W, padx=(0, 12))
        self.snapping = tk.BooleanVar(parent, value=False)
        ttk.Checkbutton(parent, text="snap clicks to the centre of density (s)", variable=self.snapping,
                        takefocus=False).pack(anchor=tk.W, padx=6)
        self.marks_text = tk.StringVar(parent)
        ttk.Label(parent, textvariable=self.marks_text).pack(anchor=tk.W, padx=6)
        self.complete = CompleteTick(parent, self.session, self._attempt)
        self.complete.pack(anchor=tk.W, padx=6)
        button_row(parent, ("Undo", self.undo), ("Redo", self.redo), ("Remove", self.remove_selected),
                   ("Keys (F1)", lambda: self.show_keys()))
        button_row(parent, ("Previous", lambda: self.next_particle(-1)), ("Next", lambda: self.next_particle(1)),
                   ("Next new", lambda: self.next_particle(1, True)))
        button_row(parent, ("Gallery", self.open_gallery), ("Overview", self.open_overview),
                   ("Sheets", self.open_sheets), ("Find more", self.more.toggle))
        self.save_buttons = button_row(parent, ("Save tables", self.save), ("Save a copy ...", self.ask_copy))

    def _build_crops(self, parent: tk.Misc) -> None:
        """Add the three crops of the selected particle."""
        heading(parent, "Selected particle (z, y and x cut)")
        self.crops = CropRow(parent, self.panel)
        self.crops.pack(anchor=tk.W, padx=6, pady=4)

    def _build_footer(self, parent: tk.Misc) -> None:
        """Add the lines of help and status; errors are red."""
        ttk.Label(parent, textvariable=self.status, wraplength=330, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)
        tk.Label(parent, textvariable=self.error, fg="#b3261e", wraplength=326, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=4)
        ttk.Label(parent, textvariable=self.help, justify=tk.LEFT, foreground="#57606a",
                  font=("TkDefaultFont", 8)).pack(side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)

    def _bind(self) -> None:
        """Bind the keys, and F1 to the list of them."""
        groups = keys_of(self)
        self.show_keys = bind_table(self, groups)
        self.help.set(brief_help(groups))

    # ---- what the user does
    def _add(self, record: Any) -> None:
        """Add a record and select it."""
        key = self.session.add(self.panel.tomogram, record)
        kind = PARTICLE if isinstance(record, Particle) else NEGATIVE if isinstance(record, Negative) else REGION
        self.select((kind, key))

    def add(self, kind: str, position_zyx_vox: np.ndarray) -> None:
        """Add a particle of the chosen class, or a negative, and select it."""
        look = self.classes.look
        if kind == NEGATIVE:
            self._attempt(self._add, Negative(_position(position_zyx_vox)))
        elif look is None:
            self.error.set("there is no class: make one first")
        else:
            place = self.snapped(position_zyx_vox)
            self._attempt(lambda: self._add(Particle(place, look.kind.id)))
            if self.snapping.get() and place == _position(position_zyx_vox) and not self.error.get():
                self.error.set(f"nothing compact of {look.kind.diameter_ang:g} angstrom within a quarter of that: the "
                               "click was not moved")

    def snapped(self, position_zyx_vox: np.ndarray) -> Position:
        """Return a click's position, or the centre of density near it when that is wanted."""
        look, name = self.classes.look, self.panel.tomogram
        if not self.snapping.get() or look is None:
            return _position(position_zyx_vox)
        own = self.scene.header(name)
        size = diameter_vox(look.kind.diameter_ang, own.voxel_size_ang)
        return _position(snap(own.data_zyx, position_zyx_vox.tolist(), size))

    def move(self, mark: Mark, position_zyx_vox: np.ndarray) -> None:
        """Move a particle or negative."""
        kind, key = mark
        name = self.panel.tomogram
        if kind == CANDIDATE:
            self.more.move(position_zyx_vox)
        elif kind == PARTICLE:
            self._attempt(lambda: self.session.change(name, key, moved(self.session.particles(name)[key],
                                                                       position_zyx_vox.tolist())))
        else:
            self._attempt(lambda: self.session.change(name, key, Negative(_position(position_zyx_vox))))

    def remove(self, mark: Mark) -> None:
        """Remove a particle, negative or box; the candidate that is asked about is refused."""
        if mark[0] == CANDIDATE:
            self.more.refuse()
            return
        self._attempt(self.session.remove, mark[0], self.panel.tomogram, mark[1])

    def remove_selected(self) -> None:
        """Remove what is selected."""
        if self.tool.selected is not None:
            self.remove(self.tool.selected)

    def select(self, mark: Optional[Mark]) -> None:
        """Select a mark; the other views cut through it."""
        self.tool.selected = mark
        place = self.tool.place(mark) if mark is not None else None
        if place is not None:
            z, y, x = place
            self.panel.move_to(z=z, y=y, x=x)
        self._refresh()

    def set_mode(self, mode: str) -> None:
        """Choose what a click does."""
        self.mode.set(mode)
        self.tool.mode = mode

    def not_one(self) -> None:
        """Make a negative of the selected particle; without one, let clicks mark negatives."""
        mark = self.tool.selected
        if self.more.active:
            self.more.refuse()
        elif mark is not None and mark[0] == PARTICLE and self.tool.place(mark) is not None:
            self.refuse_selected()
        else:
            self.set_mode(NEGATIVE)

    def refuse_selected(self) -> None:
        """Make a negative of the selected particle, and go to the next one that nobody has looked at."""
        mark = self.tool.selected
        if mark is not None and mark[0] == PARTICLE:
            following = self._following(True)
            self._attempt(self.session.refuse, self.panel.tomogram, mark[1])
            self._go(following)

    def give_class(self) -> None:
        """Give the selected particle the chosen class."""
        look, mark, name = self.classes.look, self.tool.selected, self.panel.tomogram
        if look is not None and mark is not None and mark[0] == PARTICLE:
            one = self.session.particles(name)[mark[1]]
            self._attempt(self.session.change, name, mark[1],
                          dataclasses.replace(one, class_id=look.kind.id, reviewed=True))

    def accept(self) -> None:
        """Note that the selected particle is right, and go to the next one that nobody has looked at."""
        mark, name = self.tool.selected, self.panel.tomogram
        if mark is not None and mark[0] == PARTICLE:
            one = self.session.particles(name)[mark[1]]
            following = self._following(True)
            if not one.reviewed:
                self._attempt(self.session.change, name, mark[1], dataclasses.replace(one, reviewed=True))
            self._go(following)
        else:
            self.next_particle(1, True)

    def _show_changes(self, changes: Optional[List[Change]]) -> None:
        """Go where something has changed."""
        for change in changes or []:
            self._open(change.tomogram)
            if change.kind in (PARTICLE, NEGATIVE):
                record = change.after if change.after is not None else change.before
                if isinstance(record, (Particle, Negative)):
                    z, y, x = record.position_zyx_vox
                    self.panel.move_to(z=z, y=y, x=x)
                    self.more.ask_at(change.tomogram, record.position_zyx_vox)
                self.tool.selected = None if change.after is None else (change.kind, change.key)
        self._refresh()

    def _open(self, tomogram: str) -> None:
        """Show a tomogram, if it is another one of the list; the zoom stays."""
        if tomogram in self.scene.names and tomogram != self.panel.tomogram:
            scale = self.panel.viewport.scale_px
            self.tomograms.selection_clear(0, tk.END)
            self.tomograms.selection_set(self.scene.names.index(tomogram))
            self._chosen()
            self.panel.viewport.zoom(scale / self.panel.viewport.scale_px, self.panel.position)

    def show_place(self, tomogram: str, position_zyx_vox: Sequence[float]) -> None:
        """Cut a tomogram through a position, and bring it into the middle."""
        self._open(tomogram)
        self.panel.centre_on(position_zyx_vox)

    def show_particle(self, tomogram: str, key: int, position_zyx_vox: Sequence[float]) -> None:
        """Show where a particle is, and select it if it is there."""
        self.show_place(tomogram, position_zyx_vox)
        self.tool.selected = (PARTICLE, key) if self.session.get(PARTICLE, tomogram, key) is not None else None
        self._refresh()

    # ---- particles one by one
    def _following(self, only_unreviewed: bool = False, steps: int = 1) -> Optional[int]:
        """Return the key of the particle so many steps after the selected one, None when there is none."""
        every = self.session.ordered(self.panel.tomogram)
        wanted = set(self.session.unreviewed(self.panel.tomogram)) if only_unreviewed else set(every)
        mark = self.tool.selected
        at = every.index(mark[1]) if mark is not None and mark[1] in every else (-1 if steps > 0 else 0)
        found = [every[(at + steps * n) % len(every)] for n in range(1, len(every) + 1)]
        return next((key for key in found if key in wanted and (mark is None or key != mark[1])), None)

    def next_particle(self, steps: int, only_unreviewed: bool = False) -> None:
        """Select the next or previous particle, or the next one that nobody has looked at."""
        self._go(self._following(only_unreviewed, steps))

    def _go(self, key: Optional[int]) -> None:
        """Select a particle and bring it into the middle."""
        found = self.session.particles(self.panel.tomogram)
        if key in found:
            self.tool.selected = (PARTICLE, int(key))  # type: ignore[arg-type]
            self.panel.centre_on(found[key].position_zyx_vox)  # type: ignore[index]
        self._refresh()

    def picks(self) -> List[Pick]:
        """Return the particles of the tomogram as the gallery shows them."""
        number = {key: layer for layer, keys in enumerate(self._keys) for key in keys}
        found = self.session.particles(self.panel.tomogram)
        return [Pick(number[key], found[key].position_zyx_vox, float(np.nan_to_num(found[key].score)))
                for key in self.session.ordered(self.panel.tomogram)]

    def _go_to_pick(self, pick: Pick) -> None:
        """Select the particle of a crop."""
        for key, one in self.session.particles(self.panel.tomogram).items():
            if one.position_zyx_vox == pick.position_zyx_vox:
                self._go(key)

    def open_gallery(self) -> None:
        """Open the window with crops of the particles."""
        self.gallery = GalleryWindow(self.panel, self.picks, self._go_to_pick, self.top)
        self.gallery.open()

    def open_sheets(self) -> None:
        """Open the window with sheets of all particles of all tomograms, to answer them there."""
        scene = Scene(list(self.scene.files.values()), [])
        self.sheets = self._sheets(self.session, scene, f"{self.title}: sheets", self.top).open()

    def open_overview(self) -> None:
        """Open the window with all particles of the tomogram in three dimensions."""
        OverviewWindow(self.panel, self.top).open()

    # ---- what follows
    def _refresh(self) -> None:
        """Draw slices and numbers anew."""
        name, self.seen = self.panel.tomogram, self.session.sequence
        if not name:
            return
        kind, key = self.tool.selected or (CANDIDATE, 0)
        if kind != CANDIDATE and self.session.get(kind, name, key) is None:
            self.tool.selected = None
        self.scene.layers, self._keys = layers_of(self.session, name)
        self.panel.lows, self.panel.visible = [-np.inf] * len(self._keys), [True] * len(self._keys)
        voxel = self.scene.voxel_size_ang(name)
        self.classes.refresh(name, voxel)
        look = self.classes.look
        self.tool.reach_vox = 0.5 * diameter_vox(look.kind.diameter_ang if look else 0.0, voxel)
        self.marks_text.set(f"not one: {len(self.session.negatives(name))}    complete boxes: "
                            f"{len(self.session.regions(name))}")
        self.complete.refresh(name)
        for number, one in enumerate(self.scene.names):
            new = len(self.session.unreviewed(one))
            replace_line(self.tomograms, number,
                         f"{one} ({len(self.session.particles(one))}{f', {new} new' if new else ''})")
        self.crops.show(self.tool.place(self.tool.selected) if self.tool.selected else None, self.tool.reach_vox)
        self.panel.changed()
        self.more.refresh()

    def _chosen(self) -> None:
        """Show the chosen tomogram, with nothing selected."""
        before = self.panel.tomogram
        for number in self.tomograms.curselection():
            self.scene.layers = layers_of(self.session, self.scene.names[number])[0]
        super()._chosen()
        if before != self.panel.tomogram:
            self.tool.selected = None
        self._refresh()


def _position(values: np.ndarray) -> Position:
    """Return three numbers."""
    z, y, x = (float(value) for value in values)
    return z, y, x


