"""Two windows beside the slices: crops of all picks, and their places in three dimensions."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.report.slices import DEFAULT_DIAMETER_VOX
from deepetpicker.windows.keyboard import Keys, bind_keys
from deepetpicker.windows.render import Look, crop_greys, plane_limits
from deepetpicker.windows.slices import SlicePanel
from deepetpicker.windows.window import INK, FigureWindow, canvas_of

TILE_PX, GAP_PX, COLUMNS, ROWS = 104, 8, 8, 6
SHOWN_DIAMETERS = 1.8


@dataclasses.dataclass(frozen=True)
class Pick:
    """One pick: the number of its layer, its position z, y, x in voxels and its score."""

    layer: int
    position_zyx_vox: Tuple[float, ...]
    score: float = 0.0


class GalleryWindow(FigureWindow):
    """Crops of the picks of a tomogram, page by page; a click shows the pick in the slices.

    Parameters
    ----------
    panel : SlicePanel
        The slices: tomogram, layers and look.
    picks : callable
        Returns the picks to show, in order.
    go_to : callable
        Takes the pick that was clicked.
    parent : Tk widget
        Window that opened it.
    """

    def __init__(self, panel: SlicePanel, picks: Callable[[], Sequence[Pick]], go_to: Callable[[Pick], Any],
                 parent: tk.Misc) -> None:
        super().__init__(f"Gallery: {panel.tomogram}", parent,
                         (COLUMNS * (TILE_PX + GAP_PX) + GAP_PX, ROWS * (TILE_PX + GAP_PX + 14) + 60))
        self.panel, self.all, self.go_to = panel, picks, go_to
        self.shown: List[Pick] = []
        self.page, self.chosen = 0, -1
        self._images: List[tk.PhotoImage] = []
        self._limits: Dict[Tuple[str, Look], Tuple[float, float]] = {}  # grey values: gold must not dim its neighbours

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        bar = ttk.Frame(top, padding=6)
        bar.pack(side=tk.BOTTOM, fill=tk.X)
        self.text = tk.StringVar(top)
        ttk.Label(bar, textvariable=self.text).pack(side=tk.LEFT)
        for text, command in (("Next page", lambda: self.turn(1)), ("Previous page", lambda: self.turn(-1)),
                              ("Refresh", lambda: self.turn(0))):
            ttk.Button(bar, text=text, command=command).pack(side=tk.RIGHT, padx=3)
        self.tiles = tk.Canvas(top, background="#3a3f45", highlightthickness=0)
        self.tiles.pack(fill=tk.BOTH, expand=True)
        self.tiles.bind("<Button-1>", self._clicked)
        bind_keys(top, [Keys("other pages", (("<Next>", lambda: self.turn(1)), ("<Prior>", lambda: self.turn(-1))))])
        self.turn(0)

    def turn(self, pages: int) -> None:
        """Go so many pages on; 0 draws the page anew."""
        picks = list(self.all())
        last = max(0, (len(picks) - 1) // (COLUMNS * ROWS))
        self.page = int(np.clip(self.page + pages, 0, last))
        self.shown = picks[self.page * COLUMNS * ROWS:(self.page + 1) * COLUMNS * ROWS]
        self.chosen = -1
        self.text.set(f"page {self.page + 1} of {last + 1}, {len(picks)} picks of {self.panel.tomogram}")
        self._draw()

    def _draw(self) -> None:
        """Draw the tiles of the page."""
        self.tiles.delete("all")
        self._images = [self._image(pick) for pick in self.shown]
        for number, (pick, image) in enumerate(zip(self.shown, self._images)):
            x, y = self._corner(number)
            self.tiles.create_image(x, y, image=image, anchor=tk.NW)
            self.tiles.create_rectangle(x - 2, y - 2, x + TILE_PX + 1, y + TILE_PX + 1, tags=(f"frame{number}",),
                                        outline=self.panel.scene.layers[pick.layer].colour, width=2)
            z, row, column = pick.position_zyx_vox
            self.tiles.create_text(x, y + TILE_PX + 8, anchor=tk.W, fill="white", font=("TkDefaultFont", 8),
                                   text=f"{pick.score:.3f}  z {z:.0f}" if pick.score else
                                   f"{column:.0f}, {row:.0f}, {z:.0f}")

    def _image(self, pick: Pick) -> tk.PhotoImage:
        """Return the crop of a pick."""
        scene, name = self.panel.scene, self.panel.tomogram
        factor = scene.factor_zyx(name)
        centre = (np.array(pick.position_zyx_vox) + 0.5) * factor - 0.5
        half = scene.radius_vox(scene.layers[pick.layer], name) * SHOWN_DIAMETERS * float(factor.mean())
        volume, look = scene.volume(name), self.panel.look
        if (name, look) not in self._limits:
            self._limits[name, look] = plane_limits(volume, look)
        return photo(self.top, crop_greys(volume, centre.tolist(), half, TILE_PX, look,
                                          limits=self._limits[name, look]))

    @staticmethod
    def _corner(number: int) -> Tuple[int, int]:
        """Return the upper left corner of a tile in pixels."""
        return (GAP_PX + number % COLUMNS * (TILE_PX + GAP_PX),
                GAP_PX + number // COLUMNS * (TILE_PX + GAP_PX + 14))

    def _clicked(self, event: Any) -> None:
        """Show the clicked pick."""
        for number, pick in enumerate(self.shown):
            x, y = self._corner(number)
            if 0 <= event.x - x < TILE_PX and 0 <= event.y - y < TILE_PX:
                if self.chosen >= 0:
                    self.tiles.itemconfigure(f"frame{self.chosen}", width=2)
                self.tiles.itemconfigure(f"frame{number}", width=5)
                self.chosen = number
                self.go_to(pick)


class CropRow(ttk.Frame):
    """The three cuts through one particle, side by side.

    Parameters
    ----------
    parent : Tk widget
        Holds the row.
    panel : SlicePanel
        The slices: tomogram and look.
    """

    def __init__(self, parent: tk.Misc, panel: SlicePanel) -> None:
        super().__init__(parent)
        self.panel = panel
        self.images: List[tk.PhotoImage] = []
        self._labels = [tk.Label(self, bd=1, relief=tk.SOLID) for _ in range(3)]
        for label in self._labels:
            label.pack(side=tk.LEFT, padx=1)

    def show(self, position_zyx_vox: Optional[np.ndarray], radius_vox: float) -> None:
        """Show the cuts through a position (3,) zyx, of a particle of some radius; nothing without a position."""
        if position_zyx_vox is None:
            self.images = [tk.PhotoImage(master=self, width=TILE_PX, height=TILE_PX) for _ in self._labels]
        else:
            scene, name = self.panel.scene, self.panel.tomogram
            factor = scene.factor_zyx(name)
            centre = ((position_zyx_vox + 0.5) * factor - 0.5).tolist()
            half = SHOWN_DIAMETERS * radius_vox * float(factor.mean())
            self.images = [photo(self, crop_greys(scene.volume(name), centre, half, TILE_PX, self.panel.look, axis))
                           for axis in range(3)]
        for label, image in zip(self._labels, self.images):
            label.configure(image=image)


def photo(master: tk.Misc, greys: np.ndarray) -> tk.PhotoImage:
    """Return a grey picture (H, W) uint8 as Tk shows it."""
    header = f"P5 {greys.shape[1]} {greys.shape[0]} 255 ".encode("ascii")
    return tk.PhotoImage(master=master, data=header + greys.tobytes(), format="PPM")


class OverviewWindow(FigureWindow):
    """All picks of a tomogram in three dimensions, to turn with the mouse, over projections of their circles.

    Parameters
    ----------
    panel : SlicePanel
        The slices: tomogram, layers and which of them are shown.
    parent : Tk widget
        Window that opened it.
    """

    def __init__(self, panel: SlicePanel, parent: Optional[tk.Misc]) -> None:
        super().__init__(f"Overview: {panel.tomogram}", parent, (820, 720))
        self.panel = panel

    def _build(self, top: tk.Toplevel) -> None:
        """Fill the window."""
        self.figure = overview_figure(self.panel)
        self.canvas = canvas_of(top, self.figure)
        self.canvas.get_tk_widget().pack(fill=tk.BOTH, expand=True)
        ttk.Label(top, text="Pull to turn it, with the right button to zoom.", padding=4).pack(anchor=tk.W)


def overview_figure(panel: SlicePanel) -> Any:
    """Return the picture of all shown picks of a tomogram in three dimensions, a colour per layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained", facecolor="white")
    axes: Any = figure.add_subplot(projection="3d")
    z, y, x = panel.scene.shape_zyx(panel.tomogram)
    for number, layer in enumerate(panel.scene.layers):
        found = layer.above(panel.tomogram, panel.lows[number])
        if panel.visible[number] and len(found):
            radius = panel.scene.radius_vox(layer, panel.tomogram) or DEFAULT_DIAMETER_VOX / 2
            size = float(np.clip((400 * radius / max(x, y)) ** 2, 12, 900))
            axes.scatter(found[:, 2], found[:, 1], found[:, 0], s=size, color=layer.colour, edgecolors=INK,
                         linewidths=0.4, label=f"{layer.name} ({len(found)})", depthshade=True)
    axes.set_xlim(0, x)
    axes.set_ylim(0, y)
    axes.set_zlim(0, z)
    axes.set_box_aspect((x, y, max(z, 0.15 * max(x, y))))
    for name, command in (("x", axes.set_xlabel), ("y", axes.set_ylabel), ("z", axes.set_zlabel)):
        command(f"{name} (voxels)", fontsize=9, color=INK)
    if axes.get_legend_handles_labels()[1]:
        legend = axes.legend(fontsize=9, loc="upper left")
        for handle in legend.legend_handles:
            handle.set_sizes([60])
    return figure
