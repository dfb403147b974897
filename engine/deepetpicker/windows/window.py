"""A window of its own, and the parts that all windows are made of."""

from __future__ import annotations

import functools
import os
import pathlib
import threading
import tkinter as tk
import webbrowser
from tkinter import ttk
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple, TypeVar

from deepetpicker.errors import DeepETPickerError, InputError

INK = "#24292f"
PAPER = "#ebebeb"
NEWS = "#fff8c5"
LOOK_MS = 200
WATCH_MS = 3000
CHANGED = "What this window shows has changed on disk since it was opened."
Window = TypeVar("Window", bound="FigureWindow")


class FigureWindow:
    """A window with pictures. It has ``show``, as what Scipion's viewers return.

    Parameters
    ----------
    title : str
        Title of the window.
    parent : Tk widget, optional
        Window that opened it, and that ends it.
    size : tuple of int
        Width and height in pixels.
    """

    def __init__(self, title: str, parent: Optional[tk.Misc] = None, size: Sequence[int] = (1180, 820)) -> None:
        self.title, self.parent, self.size = title, parent, size
        self.top: Any = None
        self.news: Any = None  # the line that says that there is something newer
        self.successor: Optional[FigureWindow] = None
        self._state: Optional[Callable[[], Any]] = None

    def notice(self: Window, state: Callable[[], Any], again: Callable[[], FigureWindow]) -> Window:
        """Let the window say when what it shows has changed on disk, and offer to show what is there now.

        Nothing is exchanged before the user asks for it: the place he looks at is his.

        Parameters
        ----------
        state : callable
            Returns something that is equal as long as nothing has changed, such as :func:`state_of` some files; it is
            called every three seconds.
        again : callable
            Returns the window on what is there now, or raises DeepETPickerError or OSError as long as there is nothing.
        """
        self._state, self._again, self._seen = state, again, state()
        return self

    def show(self) -> None:
        """Open the window; without another window around it, wait until it is closed.

        Raises
        ------
        InputError
            If there is no display.
        """
        if self.parent is not None or tk._default_root is not None:  # type: ignore[attr-defined]
            self.open()
            return
        root = open_screen()
        self.parent = root
        shown: Optional[FigureWindow] = self.open()
        while shown is not None:
            root.wait_window(shown.top)
            shown = shown.successor
        root.destroy()

    def open(self: Window) -> Window:
        """Open the window and return at once. Ctrl-W closes it, Escape does not."""
        self.top = tk.Toplevel(self.parent)
        self.top.title(self.title)
        width, height = (min(a, b - 60) for a, b in zip(self.size, (self.top.winfo_screenwidth(),
                                                                    self.top.winfo_screenheight())))
        self.top.geometry(f"{width}x{height}")
        self.top.protocol("WM_DELETE_WINDOW", self.close)
        self.top.bind("<Control-w>", lambda event: self.close())
        self._build(self.top)
        if self._state is not None:
            self.top.after(WATCH_MS, self._look_for_news)
        return self

    def _look_for_news(self) -> None:
        """Say once that there is something newer."""
        if self._state is None or not self.top.winfo_exists():
            return
        if self._state() == self._seen:
            self.top.after(WATCH_MS, self._look_for_news)
            return
        line = tk.Frame(self.top, bg=NEWS)
        line.pack(side=tk.TOP, fill=tk.X, before=self.top.pack_slaves()[0])
        self.news = tk.StringVar(line, CHANGED)
        ttk.Button(line, text="Show what is there now", command=self.renew, takefocus=False).pack(
            side=tk.RIGHT, padx=6, pady=4)
        tk.Label(line, textvariable=self.news, bg=NEWS, fg=INK, anchor=tk.W).pack(side=tk.LEFT, padx=8)

    def renew(self) -> None:
        """Put a window on what is there now in the place of this one, which stays where there is nothing yet."""
        try:
            new = self._again()
        except (DeepETPickerError, OSError) as error:
            self.news.set(f"{CHANGED} Not yet to be shown: {error}")
            return
        new.parent = self.parent
        place = self.top.geometry()
        self.successor = new.open()
        new.top.geometry(place)
        self.close()

    def say(self, text: str) -> None:
        """Say something in the window's line of text; windows that have none do not say it."""

    def open_page(self, make: Callable[[], str]) -> None:
        """Make a page beside the window, which goes on working, and open it in the user's browser.

        Parameters
        ----------
        make : callable
            Returns the path of the page, or raises DeepETPickerError; called in a thread of its own.
        """
        found: List[str] = []
        said: List[str] = []

        def work() -> None:
            try:
                found.append(make())
            except (DeepETPickerError, OSError) as error:
                said.append(f"No page could be made: {error}")

        def look() -> None:
            if not self.top.winfo_exists():
                return
            if thread.is_alive():
                self.top.after(LOOK_MS, look)
            elif found:
                self.say(f"The page is open in the browser: {found[0]}")
                webbrowser.open(pathlib.Path(found[0]).absolute().as_uri())
            else:
                self.say(said[0] if said else "No page could be made")

        self.say("The page is being made, which takes some seconds ...")
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.top.after(LOOK_MS, look)

    def close(self) -> None:
        """Close the window."""
        if self.top is not None and self.top.winfo_exists():
            self.top.destroy()

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        raise NotImplementedError


def state_of(paths: Iterable[Any]) -> List[Optional[Tuple[int, int]]]:
    """Return time and size of files, None for those that are not there."""
    found: List[Optional[Tuple[int, int]]] = []
    for path in paths:
        try:
            seen = os.stat(path)
            found.append((seen.st_mtime_ns, seen.st_size))
        except OSError:
            found.append(None)
    return found


def open_screen() -> tk.Tk:
    """Return a hidden root window.

    Raises
    ------
    InputError
        If there is no display.
    """
    try:
        root = tk.Tk(className="DeepETPicker")
    except tk.TclError as error:
        raise InputError(f"there is no display to open a window on ({' '.join(str(error).split())}): log in with "
                         "'ssh -X', or use a desktop of this machine") from error
    root.withdraw()
    return root


def canvas_of(parent: tk.Misc, figure: Any) -> Any:
    """Return the canvas of a matplotlib figure in a Tk widget, not yet placed."""
    from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg

    return FigureCanvasTkAgg(figure, master=parent)


class ScrolledColumn(ttk.Frame):
    """A column of controls that scrolls, with a bar beside it, where the window is too low for all of them.

    What is to be in the column has ``inside`` as its parent. The wheel scrolls it, but for lists, which have their own.
    """

    def __init__(self, parent: tk.Misc) -> None:
        super().__init__(parent)
        self.view = tk.Canvas(self, highlightthickness=0, bd=0, width=1, height=1, yscrollincrement=24, takefocus=False)
        self.bar = ttk.Scrollbar(self, command=self.view.yview)
        self.view.configure(yscrollcommand=self.bar.set)
        self.view.pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.inside = ttk.Frame(self.view)
        self._item = self.view.create_window(0, 0, anchor=tk.NW, window=self.inside)
        self._known: List[tk.Misc] = []
        for part in (self.view, self.inside):
            part.bind("<Configure>", self._fit)
        for kind, steps in (("<Button-4>", -2), ("<Button-5>", 2)):
            self.winfo_toplevel().bind(kind, functools.partial(self._wheel, steps), add="+")

    def _fit(self, event: Any = None) -> None:
        """Give the controls the height that is there, or that they need, and a bar where that is more."""
        for child in self.inside.winfo_children():
            if child not in self._known:  # one that grows lets the column be measured anew
                self._known.append(child)
                child.bind("<Configure>", self._fit, add="+")
        needed, there, width = self.inside.winfo_reqheight(), self.view.winfo_height(), self.view.winfo_width()
        self.view.itemconfigure(self._item, width=width, height=max(needed, there))
        self.view.configure(scrollregion=(0, 0, width, max(needed, there)))
        if needed > there > 1:
            self.bar.pack(side=tk.RIGHT, fill=tk.Y, before=self.view)
        else:
            self.bar.pack_forget()

    def _wheel(self, steps: int, event: Any) -> None:
        """Scroll, when the mouse is over the column and not over a list."""
        if str(event.widget).startswith(f"{self}.") and self.bar.winfo_ismapped() and not isinstance(
                event.widget, (tk.Listbox, ttk.Combobox)):
            self.view.yview_scroll(steps, tk.UNITS)


def shortened(name: str, letters: int) -> str:
    """Return a name of at most so many letters; a longer one ends in an ellipsis."""
    return name if len(name) <= letters else f"{name[:letters - 1].rstrip()}\u2026"


def heading(parent: tk.Misc, text: str) -> ttk.Label:
    """Add a heading to a column of controls and return it."""
    label = ttk.Label(parent, text=text, font=("TkDefaultFont", 10, "bold"))
    label.pack(anchor=tk.W, padx=6, pady=(6, 1))
    return label


def slider(parent: tk.Misc, label: str, span: Sequence[float], command: Callable[[float], Any],
           resolution: float = 1) -> tk.Scale:
    """Return a slider in a line of its own, after its label if it has one."""
    row = ttk.Frame(parent)
    row.pack(fill=tk.X, padx=6)
    if label:
        ttk.Label(row, text=label, width=max(18, len(label))).pack(side=tk.LEFT, anchor=tk.S)
    decimals = len(f"{resolution:g}".partition(".")[2])  # Tk takes 0.25 for a tenth
    scale = tk.Scale(row, from_=span[0], to=span[1], resolution=resolution, orient=tk.HORIZONTAL,
                     digits=len(f"{span[1]:.0f}") + decimals if decimals else 0,
                     command=lambda value: command(float(value)), bd=0, highlightthickness=0, width=12)
    scale.pack(side=tk.LEFT, fill=tk.X, expand=True)
    return scale


def set_slider(scale: tk.Scale, value: float) -> None:
    """Move a slider and do what it is for: Tk does that only once a slider is seen."""
    scale.set(value)
    scale.tk.call(scale.cget("command"), scale.get())


def button_row(parent: tk.Misc, *buttons: Any) -> Any:
    """Add a row of equal buttons, each a text and what it does; return the list of buttons."""
    row = ttk.Frame(parent)
    row.pack(fill=tk.X, padx=6, pady=1)
    made = []
    for text, command in buttons:
        button = ttk.Button(row, text=text, command=command, takefocus=False, width=1)
        button.pack(side=tk.LEFT, fill=tk.X, expand=True)
        made.append(button)
    return made
