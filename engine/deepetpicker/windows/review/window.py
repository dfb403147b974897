"""The window in which picks are reviewed: contact sheets of crops, answered by keyboard, whole rows too."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

import numpy as np

from deepetpicker.annotation.records import Change, Position
from deepetpicker.annotation.review import GONE, OFFER, OPEN, REFUSED, RIGHT, Review
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.snap import snap
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.outliers import Unlike
from deepetpicker.windows.keyboard import bind_table, brief_help
from deepetpicker.windows.review.controls import EVERYTHING, ReviewControls
from deepetpicker.windows.review.keys import keys_of
from deepetpicker.windows.scene import Scene, diameter_vox
from deepetpicker.windows.session import Opens, SessionWindow
from deepetpicker.windows.sheet import DASHES, Sheet, Tile, caption
from deepetpicker.windows.window import FigureWindow, ScrolledColumn, button_row

SHIFT, MOST_REASONS = 1, 3
ANSWERS = {RIGHT: RIGHT, REFUSED: REFUSED, GONE: REFUSED, OFFER: OFFER}  # what a tile shows


class ReviewWindow(SessionWindow, ReviewControls, FigureWindow):
    """Contact sheets of the picks of a session.

    Every answer is on disk before it is shown. Closing the window leaves the session open: its owner saves and closes
    it.

    Parameters
    ----------
    session : Session
        Holds the picks; knows the tomograms of the scene.
    scene : Scene
        The tomograms.
    slices : callable
        Makes the window with slices, from session, scene, title and parent.
    title : str
        Title of the window.
    parent : Tk widget, optional
        Window that opened it.
    thresholds : mapping
        Score threshold by class id, where it is known: doubt counts from it.
    below : mapping
        Candidates by tomogram that are offered beside the picks.
    """

    def __init__(self, session: Session, scene: Scene, slices: Opens, title: str = "Review picks",
                 parent: Optional[tk.Misc] = None, thresholds: Optional[Mapping[int, float]] = None,
                 below: Optional[Mapping[str, CoordinateTable]] = None) -> None:
        super().__init__(title, parent, (1320, 930))
        self.session, self.scene, self._slices = session, scene, slices
        self.review = Review(session, thresholds, scene.names, below)
        self.page, self.cursor = 0, 0
        self.chosen: Set[int] = set()
        self.names: List[str] = []
        self.unlike: Dict[str, Unlike] = {}
        self.slices: Any = None

    # ---- the window
    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window: controls on the left, the sheet on the right."""
        controls = ttk.Frame(top, width=344)
        controls.pack(side=tk.LEFT, fill=tk.Y)
        controls.pack_propagate(False)
        right = ttk.Frame(top)
        right.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.status, self.error, self.help = tk.StringVar(top), tk.StringVar(top), tk.StringVar(top)
        self._build_bar(right)
        self.sheet = Sheet(right, self.scene, self._clicked, self.fit, self._pulled)
        self.sheet.pack(fill=tk.BOTH, expand=True)
        self._build_footer(controls)
        buttons = ttk.Frame(controls)
        buttons.pack(side=tk.BOTTOM, fill=tk.X)
        button_row(buttons, ("Undo", self.undo), ("Redo", self.redo), ("Slices", self.open_slices),
                   ("Keys (F1)", lambda: self.show_keys()))
        button_row(buttons, ("Save tables", self.save), ("Save a copy ...", self.ask_copy))
        column = ScrolledColumn(controls)
        column.pack(fill=tk.BOTH, expand=True)
        self._build_order(column.inside)
        self._build_classes(column.inside)
        self._build_crops(column.inside)
        self._bind(top)
        self.arrange()

    def _build_bar(self, parent: tk.Misc) -> None:
        """Add the line below the sheet."""
        bar = ttk.Frame(parent, padding=4)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        self.place = tk.StringVar(parent)
        ttk.Label(bar, textvariable=self.place).pack(side=tk.LEFT)
        for text, command in (("Next page", lambda: self.turn(1)), ("Rest is right, next page", self.accept_page),
                              ("Previous page", lambda: self.turn(-1))):
            ttk.Button(bar, text=text, command=command, takefocus=False).pack(side=tk.RIGHT, padx=3)
        self.progress = ttk.Progressbar(bar, length=160)
        self.progress.pack(side=tk.RIGHT, padx=8)

    def _build_footer(self, parent: tk.Misc) -> None:
        """Add the lines of help and status; errors are red."""
        ttk.Label(parent, textvariable=self.status, wraplength=318, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)
        tk.Label(parent, textvariable=self.error, fg="#b3261e", wraplength=314, justify=tk.LEFT).pack(
            side=tk.BOTTOM, anchor=tk.W, padx=4)
        ttk.Label(parent, textvariable=self.help, justify=tk.LEFT, foreground="#57606a",
                  font=("TkDefaultFont", 8)).pack(side=tk.BOTTOM, anchor=tk.W, padx=6, pady=3)

    def _bind(self, top: tk.Toplevel) -> None:
        """Bind the keys, and F1 to the list of them."""
        groups = keys_of(self)
        self.show_keys = bind_table(self, groups)
        self.help.set(brief_help(groups))
        self.watch(top)
        self.sheet.canvas.bind("<Double-Button-1>", lambda event: self.open_slices())

    # ---- the list
    def arrange(self) -> None:
        """Make the list anew, as the controls say, and show its first page."""
        chosen = self.tomograms.curselection()
        only = self.names[chosen[0] - 1] if chosen and chosen[0] > 0 else ""
        self.unlike = self.review.unlike()
        names = self.review.tomograms()
        if names != self.names:
            self.names = names
            self.tomograms.delete(0, tk.END)
            self.tomograms.insert(tk.END, EVERYTHING, *names)
            self.tomograms.selection_set(names.index(only) + 1 if only else 0)
        self.review.arrange(self.order.get(), only, self.shown.get())
        told = [only] if only else [name for name in names if self.unlike[name].reasons][:MOST_REASONS]
        self.reasons.set("\n".join(f"{name}: {', '.join(self.unlike[name].reasons)}" for name in told
                                   if self.unlike[name].reasons))
        self.turn(-10 ** 9)

    @property
    def capacity(self) -> int:
        """Picks on a page."""
        return self.sheet.capacity

    def on_page(self) -> range:
        """Return the numbers of the entries on the page."""
        first = self.page * self.capacity
        return range(first, min(first + self.capacity, len(self.review.entries)))

    def turn(self, pages: int) -> None:
        """Go so many pages on."""
        last = max(0, (len(self.review.entries) - 1) // self.capacity)
        self.page = int(np.clip(self.page + pages, 0, last))
        self.cursor, self.chosen = 0, set()
        self.sheet.show([self._tile(number) for number in self.on_page()])
        self._refresh()

    def fit(self) -> None:
        """Show as many tiles as there is room for; the one with the cursor stays on the page."""
        at = self.page * max(len(self.sheet.tiles), 1) + self.cursor if self.sheet.tiles else 0
        self.page = at // self.capacity
        self.turn(0)
        self.go(at % self.capacity)

    def _tile(self, number: int) -> Tile:
        """Return how an entry is shown."""
        one, name = self.review.now(number), self.review.entries[number].tomogram
        look = next((c for c in self.session.classes if c.kind.id == one.class_id), None)
        size = diameter_vox(look.kind.diameter_ang if look else 0.0, self.scene.voxel_size_ang(name))
        state = self.review.state(number)
        score = "removed" if state == GONE else "" if np.isnan(one.score) else f"{one.score:.2f}"
        score += " offered" if state == OFFER else ""
        return Tile(name, one.position_zyx_vox, size / 2, look.colour if look else "#ffffff",
                    caption(score, name, self.sheet.width_px), ANSWERS.get(state, ""))

    # ---- cursor and choice
    def go(self, place: int, add: bool = False) -> None:
        """Put the cursor on a tile of the page; with ``add`` what lies between is chosen, too."""
        if not self.sheet.tiles:
            return
        place = int(np.clip(place, 0, len(self.sheet.tiles) - 1))
        if add:
            low, high = sorted((self.cursor, place))
            self.chosen |= set(range(low, high + 1))
        else:
            self.chosen = set()
        self.cursor = place
        self._refresh()

    def walk(self, step: Any, add: bool) -> None:
        """Move the cursor; beyond the ends of the page, to the next or previous one."""
        place = self.cursor + step()
        if place >= len(self.sheet.tiles) and not add and self.on_page().stop < len(self.review.entries):
            self.turn(1)
        elif place < 0 and not add and self.page > 0:
            self.turn(-1)
            self.go(len(self.sheet.tiles) - 1)
        else:
            self.go(place, add)

    def choose_row(self) -> None:
        """Choose the row of the cursor."""
        first = self.cursor // self.sheet.columns * self.sheet.columns
        self.chosen |= set(range(first, min(first + self.sheet.columns, len(self.sheet.tiles))))
        self._refresh()

    def choose_page(self) -> None:
        """Choose the whole page."""
        self.chosen = set(range(len(self.sheet.tiles)))
        self._refresh()

    def _clicked(self, place: int, state: int) -> None:
        """Put the cursor on the clicked tile; with Shift choose what lies between."""
        self.go(place, bool(state & SHIFT))

    def targets(self) -> List[int]:
        """Return the numbers of the entries that keys mean: the chosen ones, else the one under the cursor."""
        first = self.on_page().start
        return [first + place for place in sorted(self.chosen or {self.cursor}) if place < len(self.sheet.tiles)]

    # ---- answers
    def _answer(self, action: Any, *words: Any, stay: bool = False) -> None:
        """Do something with the targets, and go to the next that nobody has looked at."""
        targets = self.targets()
        if not targets:
            return
        self._attempt(action, targets, *words)
        if not self.error.get() and not stay:
            last = targets[-1] - self.on_page().start
            ahead = [n for n in range(last + 1, len(self.sheet.tiles)) if self.sheet.tiles[n].answer in DASHES]
            self.go(ahead[0] if ahead else last)

    def accept(self) -> None:
        """Note that the targets are right."""
        self._answer(self.review.accept)

    def refuse(self) -> None:
        """Make negatives of the targets."""
        self._answer(self.review.refuse)

    def give_class(self, place: int) -> None:
        """Give the targets the class at a place of the list, counted from 1."""
        if place <= len(self.session.classes):
            self._answer(self.review.give_class, self.session.classes[place - 1].kind.id)

    def accept_page(self) -> None:
        """Note that whatever nobody has looked at on the page is right, and turn the page."""
        numbers = [number for number in self.on_page() if self.review.state(number) == OPEN]
        self._attempt(self.review.accept, numbers)
        if not self.error.get():
            self.turn(1)

    def nudge(self, step_zyx: Sequence[int]) -> None:
        """Move the targets by a voxel."""
        self._answer(lambda numbers: self.review.move({
            n: _position(np.add(self.review.now(n).position_zyx_vox, step_zyx)) for n in numbers}), stay=True)

    def _pulled(self, place: int, position_zyx_vox: np.ndarray) -> None:
        """Move the pick whose crop was pulled."""
        self._attempt(self.review.move, {self.on_page().start + place: _position(position_zyx_vox)})

    def snap(self) -> None:
        """Move the targets to the centre of density near them."""
        self._answer(lambda numbers: self.review.move({n: self._snapped(n) for n in numbers}), stay=True)

    def _snapped(self, number: int) -> Position:
        """Return the centre of density near a pick."""
        tile, one = self._tile(number), self.review.now(number)
        return _position(snap(self.scene.header(tile.tomogram).data_zyx, one.position_zyx_vox, 2 * tile.radius_vox))

    def open_slices(self) -> None:
        """Show the pick under the cursor in the slices, where it can be moved in all directions."""
        if not self.sheet.tiles:
            return
        entry = self.review.entries[self.on_page().start + self.cursor]
        if self.slices is None or not self.slices.top.winfo_exists():
            scene = Scene(list(self.scene.files.values()), [])
            self.slices = self._slices(self.session, scene, f"{self.title}: slices", self.top).open()
        self.slices.show_particle(entry.tomogram, entry.key, self.review.now(
            self.on_page().start + self.cursor).position_zyx_vox)
        self.slices.top.lift()

    # ---- what follows
    def _show_changes(self, changes: Optional[List[Change]]) -> None:
        """Go to the page where something has changed."""
        found = self.review.find(changes or [])
        if found:
            if found[0] not in self.on_page():
                self.page = found[0] // self.capacity
                self.turn(0)
            self.go(found[0] - self.on_page().start)

    def _refresh(self) -> None:
        """Draw what has changed, and the numbers."""
        self.seen = self.session.sequence
        page = self.on_page()
        if len(page) == len(self.sheet.tiles):
            for place, number in enumerate(page):
                self.sheet.change(place, self._tile(number))
        self.sheet.mark(self.cursor, self.chosen)
        looked, total, refused = self.review.looked_at()
        self.progress.configure(maximum=max(total, 1), value=looked)
        pages = max(1, -(-len(self.review.entries) // self.capacity))
        self.place.set(f"page {self.page + 1} of {pages}, {len(self.review.entries)} in the list;   {looked} right, "
                       f"{refused} refused, {total - looked} not yet seen")
        self.fill_lists()

def _position(values: np.ndarray) -> Position:
    """Return three numbers."""
    z, y, x = (float(value) for value in values)
    return z, y, x
