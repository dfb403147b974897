"""Find more like these: a walk down the list of candidates that look like what was marked."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.annotation.background import Start
from deepetpicker.annotation.records import Negative, Particle
from deepetpicker.annotation.similar import Proposal, Similar
from deepetpicker.errors import DeepETPickerError
from deepetpicker.windows.annotate.marks import CANDIDATE
from deepetpicker.windows.scene import diameter_vox
from deepetpicker.windows.sheet import Sheet, Tile, caption
from deepetpicker.windows.window import button_row, heading

POLL_MS, LAST, EDGE_PX = 150, 10, 72
CURRENT: Tuple[str, int] = (CANDIDATE, 0)
WORDS = ("Mark three particles or more of a class, then press f: the candidates of all tomograms are ranked by how "
         "much they look like these, and unlike what was refused. Every answer ranks anew.")


class MorePanel(ttk.Frame):
    """The candidate that is asked about, and those that come next.

    Parameters
    ----------
    parent : Tk widget
        Holds the panel.
    window : AnnotateWindow
        The window: session, slices, classes, and what it does with errors.
    start : callable
        How the engine is started.
    """

    def __init__(self, parent: tk.Misc, window: Any, start: Start) -> None:
        super().__init__(parent)
        self.window = window
        self.similar = Similar(window.session, start, window.scene.names)
        self.current: Optional[Proposal] = None
        self.centre: Optional[np.ndarray] = None
        self._trail: List[Proposal] = []
        self._answers: List[bool] = []
        self._shown: List[Proposal] = []
        self._busy = False
        self._due: Optional[str] = None
        self.status, self.question = tk.StringVar(self), tk.StringVar(self, value=WORDS)
        heading(self, "Find more like these")
        self.bar = ttk.Progressbar(self)
        self.bar.pack(fill=tk.X, padx=6)
        ttk.Label(self, textvariable=self.status, wraplength=318, justify=tk.LEFT).pack(anchor=tk.W, padx=6)
        self.buttons = button_row(self, ("Find more (f)", self.toggle), ("Back (p)", self.back),
                                  ("Next (n)", self.next))
        self.buttons += button_row(self, ("Yes (Space)", self.accept), ("Not one (x)", self.refuse))
        self.only = tk.BooleanVar(self)
        ttk.Checkbutton(self, text="in this tomogram only", variable=self.only, takefocus=False,
                        command=self.refresh).pack(anchor=tk.W, padx=6)
        ttk.Label(self, textvariable=self.question, wraplength=318, justify=tk.LEFT).pack(anchor=tk.W, padx=6, pady=3)
        heading(self, "Next in the list")
        self.sheet = Sheet(self, window.scene, self._clicked, self._show_list)
        self.sheet.edge_px = EDGE_PX
        self.sheet.pack(fill=tk.BOTH, expand=True, padx=6, pady=4)
        self.bind("<Destroy>", lambda event: self.similar.close() if event.widget is self else None)

    @property
    def active(self) -> bool:
        """Whether the window asks about candidates."""
        return self.similar.class_id is not None

    # ---- begin and end
    def toggle(self) -> None:
        """Begin to ask, or end it."""
        if self.active:
            self.stop()
        else:
            self.begin()

    def begin(self) -> None:
        """Begin to ask about candidates of the chosen class."""
        self._trail.clear()
        self._answers.clear()
        self._begin()
        if self.active:
            self.window.book.select(self)
            self.buttons[0].configure(text="Stop (f)")
            self.refresh()

    def _begin(self) -> None:
        """Let the background look for what the chosen class needs; without enough examples, end."""
        look = self.window.classes.look
        try:
            if look is not None:
                self.similar.begin(look.kind.id, self.window.panel.tomogram)
                self.window.error.set("")
                if self._due is None:
                    self._poll()
        except DeepETPickerError as error:
            self.stop()
            self.window.error.set(str(error))

    def stop(self) -> None:
        """Ask no more; candidates go on being made."""
        self.similar.class_id = None
        self._let_go()
        self.question.set(WORDS)
        self.buttons[0].configure(text="Find more (f)")
        self.sheet.show([])
        self.window.panel.changed()

    def _let_go(self) -> None:
        """Ask about nothing."""
        self.current = self.centre = self.window.tool.candidate = None
        if self.window.tool.selected == CURRENT:
            self.window.tool.selected = None

    def _poll(self) -> None:
        """Look what the background has done."""
        self._due = self.after(POLL_MS, self._poll) if self.active or not self.similar.is_complete else None
        if self.similar.poll():
            self.refresh()

    # ---- the list
    def ranked(self) -> List[Proposal]:
        """Return the list as it is to be walked."""
        name = self.window.panel.tomogram
        return [one for one in self.similar.ranked() if one.tomogram == name or not self.only.get()]

    def refresh(self) -> None:
        """Rank anew after any change, show where the background is, and ask about a candidate that is free."""
        if self._busy:
            return
        self._busy = True
        try:
            self._show_progress()
            if self.active and self._same_class():
                self._follow()
        finally:
            self._busy = False

    def _show_progress(self) -> None:
        """Show where the background is."""
        done, total, count = self.similar.counts()
        failed = "".join(f"\n{name}: {why}" for name, why in self.similar.failed.items())
        if total:
            self.bar.configure(maximum=total, value=done)
            self.status.set((f"{count} candidates in {done} of {total} tomograms" if not self.similar.problem else
                             f"the search has ended: {self.similar.problem}") + failed)

    def _same_class(self) -> bool:
        """Follow the choice of another class, or of another diameter; tell whether there is anything to ask."""
        look = self.window.classes.look
        if look is None or (look.kind.id, look.kind.diameter_ang) != (self.similar.class_id, self.similar.diameter_ang):
            self._let_go()
            self._begin()
        return self.active

    def _follow(self) -> None:
        """Ask about the best candidate, unless one is asked about that is still free and in sight."""
        ranked, here = self.ranked(), self.window.panel.tomogram
        free = {(one.tomogram, one.row) for one in ranked}
        if self.current is None or (self.current.tomogram, self.current.row) not in free:
            self._ask(ranked[0] if ranked else None)
        elif self.current.tomogram != here:  # somebody has chosen another tomogram
            self._ask(next((one for one in ranked if one.tomogram == here), ranked[0]))
        self._say(ranked)
        self._show_list(ranked)

    def _say(self, ranked: List[Proposal]) -> None:
        """Say what is asked."""
        look = self.window.classes.look
        name = look.kind.name if look is not None else ""
        if self.current is None:
            self.question.set("Nothing is left in the list." if self.similar.is_complete else
                              "The first candidates are being made ...")
            return
        yes, last = sum(self._answers[-LAST:]), len(self._answers[-LAST:])
        self.question.set(f"Is it a {name}? Likeness {self._likeness(ranked):.2f}; {len(ranked)} are left. On one but "
                          "off its centre: click where the centre is, in two views, then Space; do not refuse it."
                          f"{f' Of the last {last} answers {yes} were yes.' if last else ''}")

    def _likeness(self, ranked: List[Proposal]) -> float:
        """Return the likeness of the current candidate as it is now."""
        assert self.current is not None
        own = (self.current.tomogram, self.current.row)
        return next((one.likeness for one in ranked if (one.tomogram, one.row) == own), self.current.likeness)

    def _show_list(self, ranked: Optional[List[Proposal]] = None) -> None:
        """Show crops of what comes next."""
        if not self.active or not self.sheet.winfo_ismapped():
            return
        own = (self.current.tomogram, self.current.row) if self.current is not None else None
        every = [one for one in (self.ranked() if ranked is None else ranked) if (one.tomogram, one.row) != own]
        self._shown = every[:self.sheet.capacity]
        look, scene = self.window.classes.look, self.window.scene
        self.sheet.look = self.window.panel.look
        sizes = [diameter_vox(look.kind.diameter_ang, scene.voxel_size_ang(one.tomogram)) for one in self._shown]
        self.sheet.show([Tile(one.tomogram, one.position_zyx_vox, size / 2, look.colour,
                              caption(f"{one.likeness:.2f}", one.tomogram, EDGE_PX))
                         for one, size in zip(self._shown, sizes)])

    def _clicked(self, number: int, state: int) -> None:
        """Ask about a candidate of the list."""
        self._ask(self._shown[number])
        self.refresh()

    def _ask(self, proposal: Optional[Proposal]) -> None:
        """Ask about a candidate: show it in the slices."""
        if proposal is None:
            self._let_go()
            return
        self.current, self.centre = proposal, np.array(proposal.position_zyx_vox)
        self.window.show_place(proposal.tomogram, proposal.position_zyx_vox)
        self.window.tool.candidate, self.window.tool.selected = self.centre, CURRENT
        self.window.panel.changed()

    # ---- answers
    def accept(self) -> None:
        """Make a particle of the candidate, snapped to the centre of density where clicks are."""
        if self.current is not None and self.centre is not None and self.similar.class_id is not None:
            particle = Particle(self.window.snapped(self.centre), self.similar.class_id)
            self._answer(True, self.current.tomogram, particle)

    def refuse(self) -> None:
        """Make a negative of the candidate."""
        if self.current is not None:
            self._answer(False, self.current.tomogram, Negative(self.current.position_zyx_vox))

    def _answer(self, yes: bool, tomogram: str, record: Any) -> None:
        """Keep an answer and ask about the best that is left; what cannot be kept is asked again."""
        asked = self.current
        assert asked is not None
        self._answers.append(yes)
        if not self._keep(tomogram, record, self.similar.unseen(asked, yes)):
            self._answers.pop()
        elif self.current is not None and self.current == asked:  # it was moved far: its place is still free
            self.next()

    def _keep(self, tomogram: str, record: Any, unseen: Optional[int]) -> bool:
        """Keep an answer; False when it could not be kept, which is shown.

        Parameters
        ----------
        tomogram : str
            Name of the tomogram.
        record : Particle or Negative
            What was answered.
        unseen : int or None
            Key of the particle that nobody had looked at and that it is about: it becomes what was answered.
        """
        session, attempt = self.window.session, self.window._attempt
        before = session.sequence
        if unseen is None:
            attempt(session.add, tomogram, record)
        elif isinstance(record, Negative):
            attempt(session.refuse, tomogram, unseen)
        else:
            known = session.particles(tomogram)[unseen]
            attempt(session.change, tomogram, unseen, dataclasses.replace(record, score=known.score))
        return bool(session.sequence != before)

    def next(self) -> None:
        """Pass the candidate over: it comes again behind all others."""
        if self.current is not None:
            self._trail.append(self.current)
            self.similar.later(self.current)
            self._let_go()
            self.refresh()

    def ask_at(self, tomogram: str, position_zyx_vox: Sequence[float]) -> None:
        """Ask about the free candidate at a place, if there is one: an answer was taken back there."""
        if not self.active:
            return
        reach = self.window.tool.reach_vox
        ranked = self.ranked()
        near = [(float(np.linalg.norm(np.subtract(one.position_zyx_vox, position_zyx_vox))), number)
                for number, one in enumerate(ranked) if one.tomogram == tomogram]
        if near and min(near)[0] <= reach:
            self._ask(ranked[min(near)[1]])

    def back(self) -> None:
        """Ask again about what was passed over last."""
        if self._trail:
            self._ask(self._trail.pop())
            self.refresh()

    def move(self, position_zyx_vox: np.ndarray) -> None:
        """Move the candidate, and cut the other views through it."""
        self.centre = self.window.tool.candidate = position_zyx_vox
        z, y, x = position_zyx_vox
        self.window.panel.move_to(z=z, y=y, x=x)
        self.window.panel.changed()
