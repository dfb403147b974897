"""A contact sheet: crops of many places side by side, with what was said of them."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.io.volumes import release_pages
from deepetpicker.windows.gallery import photo
from deepetpicker.windows.render import Look, crop_greys, plane_limits
from deepetpicker.windows.scene import AXES, Scene

GAP_PX, TEXT_PX, SEAM_PX = 7, 13, 2
SHOWN_RADII = 1.8  # half of a crop's edge
PULL_PX, LETTER_PX = 4, 7
GROUND, CURSOR, CHOSEN = "#3a3f45", "#ffffff", "#ff5fd2"
RIGHT, REFUSED, OFFER = "right", "refused", "offer"
DASHES = {"": (3, 3), OFFER: (1, 6)}  # frames of what nobody has answered
RIGHT_COLOUR, REFUSED_COLOUR = "#3fb950", "#ff3b30"


@dataclasses.dataclass(frozen=True)
class Tile:
    """One place.

    Parameters
    ----------
    tomogram : str
        Its tomogram.
    position_zyx_vox : tuple of float
        Where it is, in the voxels of coordinates.
    radius_vox : float
        Radius of the particle there.
    colour : str
        Colour of its frame.
    text : str
        What stands below it.
    answer : str
        ``RIGHT``, ``REFUSED``, or ``OFFER`` or empty while nobody has said anything.
    """

    tomogram: str
    position_zyx_vox: Tuple[float, ...]
    radius_vox: float
    colour: str
    text: str = ""
    answer: str = ""


def caption(number: str, name: str, width_px: int) -> str:
    """Return a number with the name of a tomogram behind it, or of that as much of its end as there is room for."""
    room = width_px // LETTER_PX - len(number) - 1
    if room < 3:
        return number
    return f"{number} {name if len(name) <= room else '…' + name[len(name) - room + 1:]}".strip()


class Sheet(ttk.Frame):
    """Tiles in rows, as many as there is room for.

    Parameters
    ----------
    parent : Tk widget
        Holds the sheet.
    scene : Scene
        The tomograms.
    clicked : callable
        Takes the number of the tile that was clicked, and Tk's state of the modifiers.
    resized : callable
        Is called when there is room for another number of tiles.
    pulled : callable, optional
        Takes the number of a tile whose crop was pulled, and the new position (3,) of its centre.
    """

    def __init__(self, parent: tk.Misc, scene: Scene, clicked: Callable[[int, int], Any],
                 resized: Callable[[], Any], pulled: Optional[Callable[[int, np.ndarray], Any]] = None) -> None:
        super().__init__(parent)
        self.scene, self.clicked, self.resized, self.pulled = scene, clicked, resized, pulled
        self.cuts: Tuple[int, ...] = (0,)
        self.look, self.edge_px, self.rings = Look(), 84, False
        self.tiles: List[Tile] = []
        self.canvas = tk.Canvas(self, background=GROUND, highlightthickness=0)
        self.canvas.pack(fill=tk.BOTH, expand=True)
        self._images: Dict[int, tk.PhotoImage] = {}
        self._limits: Dict[Tuple[str, Look], Tuple[float, float]] = {}
        self._pull: Optional[Tuple[int, int, int, int]] = None  # tile, cut, and where it began
        self._room = (0, 0)
        for name, command in (("<Configure>", self._configured), ("<ButtonPress-1>", self._pressed),
                              ("<B1-Motion>", self._dragged), ("<ButtonRelease-1>", self._released)):
            self.canvas.bind(name, command)

    # ---- room
    @property
    def width_px(self) -> int:
        """Width of a tile in pixels."""
        return len(self.cuts) * (self.edge_px + SEAM_PX) - SEAM_PX

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return max(1, (self.canvas.winfo_width() - GAP_PX) // (self.width_px + GAP_PX))

    @property
    def capacity(self) -> int:
        """Tiles that there is room for."""
        rows = (self.canvas.winfo_height() - GAP_PX) // (self.edge_px + TEXT_PX + GAP_PX)
        return self.columns * max(1, rows)

    def corner(self, number: int) -> Tuple[int, int]:
        """Return the upper left corner of a tile in pixels."""
        row, column = divmod(number, self.columns)
        return (GAP_PX + column * (self.width_px + GAP_PX), GAP_PX + row * (self.edge_px + TEXT_PX + GAP_PX))

    def _configured(self, event: Any) -> None:
        """Tell that there is another number of tiles."""
        room = (self.columns, self.capacity)
        if room != self._room:
            self._room = room
            self.resized()

    # ---- drawing
    def show(self, tiles: Sequence[Tile]) -> None:
        """Show other tiles."""
        self.tiles = list(tiles)
        self.canvas.delete("all")
        self._images.clear()
        for name in sorted({tile.tomogram for tile in tiles}):  # each tomogram is opened once, and let go again
            for number in (number for number, tile in enumerate(tiles) if tile.tomogram == name):
                self._draw(number)
            if len(self.scene.names) > 1:
                release_pages(self.scene.volume(name))

    def change(self, number: int, tile: Tile) -> None:
        """Show another tile in a place; nothing is drawn when it is the same."""
        if self.tiles[number] != tile:
            before, self.tiles[number] = self.tiles[number], tile
            same = (before.tomogram, before.position_zyx_vox, before.radius_vox) == (
                tile.tomogram, tile.position_zyx_vox, tile.radius_vox)
            self._draw(number, keep_image=same)

    def _draw(self, number: int, keep_image: bool = False) -> None:
        """Draw a tile."""
        tile, tag = self.tiles[number], f"tile{number}"
        x, y = self.corner(number)
        self.canvas.delete(tag)
        if not keep_image or number not in self._images:
            self._images[number] = photo(self, self.picture(tile))
        self.canvas.create_image(x, y, image=self._images[number], anchor=tk.NW, tags=(tag, f"image{number}"))
        end, low = x + self.width_px, y + self.edge_px
        refused = tile.answer == REFUSED
        self.canvas.create_rectangle(x - 2, y - 2, end + 1, low + 1, width=2, tags=(tag,),
                                     outline=REFUSED_COLOUR if refused else tile.colour,
                                     dash=DASHES.get(tile.answer, ()))
        if self.rings:
            radius = self.edge_px / 2 / SHOWN_RADII
            for middle in (left + self.edge_px / 2 for left in self._lefts(x)):
                self.canvas.create_oval(middle - radius, y + self.edge_px / 2 - radius, middle + radius,
                                        y + self.edge_px / 2 + radius, outline=tile.colour, tags=(tag,))
        if refused:
            for a, b in ((y, low), (low, y)):
                self.canvas.create_line(x, a, end, b, fill=REFUSED_COLOUR, width=2, tags=(tag,))
        elif tile.answer == RIGHT:
            self.canvas.create_line([end - 16, y + 9, end - 11, y + 14, end - 4, y + 4], fill=RIGHT_COLOUR, width=3,
                                    tags=(tag,))
        self.canvas.create_text(x, low + 8, anchor=tk.W, fill="#f0f0f0", font=("TkDefaultFont", 8), text=tile.text,
                                tags=(tag,))
        self.canvas.tag_raise("cursor")

    def picture(self, tile: Tile) -> np.ndarray:
        """Return the crops of a tile side by side, (edge, width) uint8."""
        volume, factor = self.scene.volume(tile.tomogram), self.scene.factor_zyx(tile.tomogram)
        limits = self._limits.get((tile.tomogram, self.look))
        if limits is None:
            limits = self._limits[tile.tomogram, self.look] = plane_limits(volume, self.look)
        centre = ((np.array(tile.position_zyx_vox) + 0.5) * factor - 0.5).tolist()
        half = SHOWN_RADII * tile.radius_vox * float(factor.mean())
        seam = np.full((self.edge_px, SEAM_PX), 40, np.uint8)
        parts: List[np.ndarray] = []
        for axis in self.cuts:
            parts += [seam, crop_greys(volume, centre, half, self.edge_px, self.look, axis, limits)]
        return np.concatenate(parts[1:], axis=1)

    def mark(self, cursor: int, chosen: Iterable[int] = ()) -> None:
        """Frame the tile that keys mean, and others that were chosen with it."""
        self.canvas.delete("cursor")
        for number in chosen:
            self._frame(number, CHOSEN, 5)
        if 0 <= cursor < len(self.tiles):
            self._frame(cursor, CURSOR, 3)

    def _frame(self, number: int, colour: str, out: int) -> None:
        """Draw a frame about a tile."""
        x, y = self.corner(number)
        self.canvas.create_rectangle(x - out, y - out, x + self.width_px + out - 1, y + self.edge_px + out - 1,
                                     outline=colour, width=2, tags=("cursor",))

    # ---- the mouse
    def _lefts(self, x: int) -> List[int]:
        """Return where the crops of a tile begin, in pixels."""
        return [x + n * (self.edge_px + SEAM_PX) for n in range(len(self.cuts))]

    def at(self, x: int, y: int) -> Optional[Tuple[int, int]]:
        """Return the tile and the number of its crop at a pixel; None beside the tiles."""
        column, row = (x - GAP_PX) // (self.width_px + GAP_PX), (y - GAP_PX) // (self.edge_px + TEXT_PX + GAP_PX)
        number = row * self.columns + column
        if not (0 <= column < self.columns and 0 <= number < len(self.tiles)):
            return None
        left, top = self.corner(number)
        if x - left >= self.width_px or y - top >= self.edge_px + TEXT_PX:
            return None
        return number, min((x - left) // (self.edge_px + SEAM_PX), len(self.cuts) - 1)

    def _pressed(self, event: Any) -> None:
        """Begin a click or a pull."""
        found = self.at(event.x, event.y)
        self.canvas.focus_set()
        if found is not None:
            self._pull = (*found, event.x, event.y)
            self.clicked(found[0], event.state)

    def _dragged(self, event: Any) -> None:
        """Let the crop follow the mouse, under a cross where its centre will be."""
        if self._pull is None or self.pulled is None:
            return
        number, cut, x, y = self._pull
        left, top = self.corner(number)
        middle = self._lefts(left)[cut] + self.edge_px / 2, top + self.edge_px / 2
        self.canvas.coords(f"image{number}", left + event.x - x, top + event.y - y)
        self.canvas.delete("cross")
        for a, b in ((8, 0), (0, 8)):
            self.canvas.create_line(middle[0] - a, middle[1] - b, middle[0] + a, middle[1] + b, fill=CHOSEN, width=2,
                                    tags=("cross",))

    def _released(self, event: Any) -> None:
        """Keep what was pulled."""
        pull, self._pull = self._pull, None
        self.canvas.delete("cross")
        if pull is None or self.pulled is None:
            return
        number, cut, x, y = pull
        if max(abs(event.x - x), abs(event.y - y)) < PULL_PX:
            self.canvas.coords(f"image{number}", *self.corner(number))
            return
        tile = self.tiles[number]
        scale = 2 * SHOWN_RADII * tile.radius_vox / self.edge_px
        right, up = AXES[self.cuts[cut]]
        place = np.array(tile.position_zyx_vox, float)
        place[right] -= (event.x - x) * scale
        place[up] += (event.y - y) * scale
        self._draw(number, keep_image=True)
        self.pulled(number, place)
