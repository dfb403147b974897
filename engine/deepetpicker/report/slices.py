"""Pictures of tomograms: slices with picks, and three orthogonal views of one particle."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.report.charts import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepetpicker.evaluation.matching import Match

HIT, OTHER_CLASS, FALSE_POSITIVE, MISS = "#00c896", "#56b4e9", "#ff6a1f", "#f0e442"
CLASS_LOOKS = (("#56b4e9", "-"), ("#e69f00", "--"), ("#00c896", "-."), ("#f0e442", ":"), ("#cc79a7", "-"),
               ("#ff6a1f", "--"), ("#0072b2", "-."), ("#ffffff", ":"), ("#b15cff", "-"), ("#a6e22e", "--"),
               ("#ff2d7e", "-."), ("#8ff7ff", ":"), ("#c49a6c", "-"), ("#008060", "--"))
DEFAULT_DIAMETER_VOX = 20.0
MOST_PIXELS = 1400
SMALLEST_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class PictureStyle:
    """How slices are drawn.

    Parameters
    ----------
    planes : tuple of int
        z planes to show; empty chooses ``n_planes`` where most particles are.
    n_planes : int
        Number of planes when none are given.
    voxel_size_ang : float
        Voxel size in angstrom for the scale bar; 0 gives it in voxels.
    diameters_ang : mapping of int to float
        Particle diameter of each class in angstrom; a class without one is drawn 20 voxels wide.
    average : int
        Planes averaged on each side of the shown one.
    smooth_vox : float
        Standard deviation of the Gaussian smoothing within the plane, in voxels; 0 for none.
    percentiles : (2,) tuple of float
        Grey values shown as black and white.
    columns : int
        Slices side by side; 0 chooses.
    bare : bool
        True leaves out the legend and all margins: for pages that place and explain the pictures themselves.
    title : str
        Above the picture.
    looks : mapping of int to tuple
        Colour and dashes of picks by class, where there is no truth; classes without one are told by their order.
    """

    planes: Tuple[int, ...] = ()
    n_planes: int = 4
    voxel_size_ang: float = 0.0
    diameters_ang: Mapping[int, float] = dataclasses.field(default_factory=dict)
    average: int = 1
    smooth_vox: float = 1.0
    percentiles: Tuple[float, float] = (0.5, 99.5)
    columns: int = 0
    bare: bool = False
    title: str = ""
    looks: Mapping[int, Tuple[str, str]] = dataclasses.field(default_factory=dict)

    def radius_vox(self, class_id: int) -> float:
        """Return the radius at which particles of a class are drawn, in voxels."""
        diameter_ang = self.diameters_ang.get(class_id, 0.0)
        if diameter_ang and self.voxel_size_ang:
            return diameter_ang / self.voxel_size_ang / 2
        return DEFAULT_DIAMETER_VOX / 2


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """Particles (N,) that are drawn alike: colour, dashes, cross in the middle or not, and their legend."""

    table: CoordinateTable
    colour: str
    dashes: str
    cross: bool
    label: str


def slices_with_picks(volume_zyx: np.ndarray, picks: CoordinateTable, truth: Optional[CoordinateTable] = None,
                      match: Optional[Match] = None, style: Optional[PictureStyle] = None) -> Figure:
    """Return z slices of a tomogram with circles around the particles, which shrink away from their centre plane.

    With truth and match: hits (green, solid; of another class blue, dash-dotted), false positives (orange, with a
    cross), misses (yellow, dashed). With truth alone: truth (yellow, dashed) and picks. With picks alone: a colour and
    dash pattern per class. The legend counts the particles of the whole tomogram.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        Tomogram, may be memory-mapped: only the shown planes are read. y points up, as in 3dmod.
    picks : CoordinateTable
        Picks; may be empty.
    truth : CoordinateTable, optional
        True particles.
    match : Match, optional
        Pairs of ``truth`` and ``picks``.
    style : PictureStyle, optional
        Planes, contrast, voxel size (angstrom), diameters (angstrom).

    Raises
    ------
    InputError
        If the volume is not 3D, a plane is outside it, or the match does not belong to the tables.
    """
    from matplotlib.figure import Figure

    style = style or PictureStyle()
    _check(volume_zyx, style.planes)
    layers = _layers(picks, truth, match, style.looks)
    tables = [layer.table for layer in layers]
    planes = style.planes or choose_planes(volume_zyx.shape[0], tables, style.n_planes)
    columns = style.columns or (len(planes) if len(planes) < 4 else 2)
    rows = -(-len(planes) // columns)
    width = 10.0 if columns > 1 else 4.6 if style.bare else 6.0
    height = width / columns * volume_zyx.shape[1] / volume_zyx.shape[2] * rows
    extra = 0.0 if style.bare else 0.75 if style.title else 0.4
    figure = Figure(figsize=(width, float(np.clip(height + extra, 1.5, 30))), facecolor="white")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, plane in zip(cells, planes):
        _draw_slice(axes, volume_zyx, plane, layers, style)
    for axes in cells[len(planes):]:
        axes.set_axis_off()
    top = height / (height + extra) if not style.bare else 1.0
    gap = 0.0 if style.bare else 0.04
    figure.subplots_adjust(0, (1 - top) * (0.5 if style.title else 1), 1, 1 - (1 - top) * (0.5 if style.title else 0),
                           gap, gap)
    if not style.bare:
        _legend(figure, layers, style.title)
    return figure


def orthogonal_views(volume_zyx: np.ndarray, position_zyx_vox: Sequence[float], style: Optional[PictureStyle] = None,
                     class_id: int = 1) -> Figure:
    """Return the three planes through one particle, with its circle: xy, xz and zy.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        Tomogram, may be memory-mapped. What lies outside it is left grey.
    position_zyx_vox : (3,) float
        Centre of the particle.
    style : PictureStyle, optional
        Contrast, voxel size (angstrom), diameters (angstrom).
    class_id : int
        Class, for the diameter.

    Raises
    ------
    InputError
        If the volume is not 3D.
    """
    from matplotlib.figure import Figure

    style = style or PictureStyle()
    _check(volume_zyx, ())
    radius, centre = style.radius_vox(class_id), np.asarray(position_zyx_vox, float)
    half = int(np.ceil(2.2 * radius)) + 2
    block = _crop(volume_zyx, np.rint(centre).astype(int), half, style)
    low, high = _contrast(block, style.percentiles)
    figure = Figure(figsize=(9, 3.3 if style.title else 3.05), facecolor="white", layout="constrained")
    offset, middle = centre - np.rint(centre), style.average
    views = (("x", "y", block[half - middle:half + middle + 1].mean(axis=0), (2, 1)),
             ("x", "z", block[:, half - middle:half + middle + 1].mean(axis=1), (2, 0)),
             ("z", "y", block[:, :, half - middle:half + middle + 1].mean(axis=2).T, (0, 1)))
    panels: Any = figure.subplots(1, 3)
    for axes, (across, up, image, (i, j)) in zip(panels, views):
        extent = (-half - 0.5, half + 0.5, -half - 0.5, half + 0.5)
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="bilinear")
        axes.set_facecolor("0.5")
        _circles(axes, [(offset[i], offset[j], radius)], (HIT, "-"))
        axes.plot(offset[i], offset[j], "+", color=HIT, markersize=8, markeredgewidth=1.2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(across, fontsize=9)
        axes.set_ylabel(up, fontsize=9, rotation=0, labelpad=6)
        _scale_bar(axes, extent, style.voxel_size_ang)
    if style.title:
        figure.suptitle(plain(style.title), fontsize=10)
    return figure


def choose_planes(depth: int, tables: Sequence[CoordinateTable], n_planes: int = 4) -> Tuple[int, ...]:
    """Return z planes spread over the particles: each stands for as many of them.

    Parameters
    ----------
    depth : int
        Planes of the tomogram.
    tables : sequence of CoordinateTable
        What will be drawn; all may be empty.
    n_planes : int
        Number of planes wanted; fewer come back where particles lie in few planes.
    """
    z = np.concatenate([np.zeros(0), *(t.positions_zyx_vox[:, 0] for t in tables)])
    shares = (np.arange(n_planes) + 0.5) / n_planes
    chosen = np.quantile(z, shares) if z.size else shares * depth - 0.5
    return tuple(int(p) for p in np.unique(np.clip(np.rint(chosen), 0, depth - 1)))


def _check(volume_zyx: np.ndarray, planes: Sequence[int]) -> None:
    """Raise InputError unless the volume is 3D and holds the planes."""
    if volume_zyx.ndim != 3:
        raise InputError(f"a tomogram must have three axes (z, y, x), got the shape {volume_zyx.shape}")
    outside = [p for p in planes if not 0 <= p < volume_zyx.shape[0]]
    if outside:
        raise InputError(f"plane {outside[0]} is outside the tomogram: expected 0 to {volume_zyx.shape[0] - 1}")


def _layers(picks: CoordinateTable, truth: Optional[CoordinateTable], match: Optional[Match],
            looks: Mapping[int, Tuple[str, str]]) -> List[_Layer]:
    """Return what is drawn in which look."""
    if truth is not None and match is not None:
        if (match.n_truth, match.n_picks) != (len(truth), len(picks)):
            raise InputError(f"the match is of {match.n_truth} particles and {match.n_picks} picks, the tables hold "
                             f"{len(truth)} and {len(picks)}: give the tables that were matched")
        same = truth.class_ids[match.truth_index] == picks.class_ids[match.pick_index]
        good, other = picks.select(match.pick_index[same]), picks.select(match.pick_index[~same])
        shown = [_Layer(good, HIT, "-", False, f"hits ({len(good)})"),
                 _Layer(other, OTHER_CLASS, "-.", False, f"hits, other class ({len(other)})"),
                 _Layer(picks.select(~match.is_hit), FALSE_POSITIVE, "-", True, f"false positives ({match.fp})"),
                 _Layer(truth.select(~match.is_found), MISS, "--", False, f"misses ({match.fn})")]
        return [layer for layer in shown if len(layer.table) or layer.colour != OTHER_CLASS]
    layers = [] if truth is None else [_Layer(truth, MISS, "--", False, f"true particles ({len(truth)})")]
    for index, class_id in enumerate(np.unique(picks.class_ids).tolist()):
        one = picks.select(picks.class_ids == class_id)
        name = picks.class_names.get(class_id) or f"class {class_id}"
        colour, dashes = looks.get(class_id, CLASS_LOOKS[index % len(CLASS_LOOKS)])
        layers.append(_Layer(one, colour, dashes, False, f"{name} ({len(one)})"))
    return layers


def _draw_slice(axes: Axes, volume_zyx: np.ndarray, plane: int, layers: Sequence[_Layer], style: PictureStyle) -> None:
    """Draw one plane with the circles of all particles that reach it."""
    image = _smoothed_plane(volume_zyx, plane, style)
    low, high = _contrast(image, style.percentiles)
    extent = (-0.5, volume_zyx.shape[2] - 0.5, -0.5, volume_zyx.shape[1] - 0.5)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="bilinear",
                aspect="equal")
    for layer in layers:
        circles = _cuts(layer.table, plane, style)
        _circles(axes, circles, (layer.colour, layer.dashes))
        if layer.cross and circles:
            axes.plot([c[0] for c in circles], [c[1] for c in circles], "x", color=layer.colour, markersize=6,
                      markeredgewidth=1.4)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.set_axis_off()
    axes.text(0.015, 0.985, f"z = {plane}", transform=axes.transAxes, va="top", color="white", fontsize=10,
              path_effects=_halo(0.4))
    _scale_bar(axes, extent, style.voxel_size_ang)


def _cuts(table: CoordinateTable, plane: int, style: PictureStyle) -> List[Tuple[float, float, float]]:
    """Return x, y and radius in voxels of the circle in which the plane cuts each particle that it meets."""
    radii = np.array([style.radius_vox(c) for c in table.class_ids.tolist()])
    squares = radii ** 2 - (table.positions_zyx_vox[:, 0] - plane) ** 2
    met = np.flatnonzero(squares > 0)
    sizes = np.maximum(np.sqrt(squares[met]), SMALLEST_SHARE * radii[met])
    return [(float(x), float(y), float(r)) for (_, y, x), r in zip(table.positions_zyx_vox[met], sizes)]


def _circles(axes: Axes, circles: Sequence[Tuple[float, float, float]], look: Tuple[str, str]) -> None:
    """Draw circles (x, y, radius in voxels) in a colour and dash pattern, with a dark rim."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    patches = [Circle((x, y), r) for x, y, r in circles]
    axes.add_collection(PatchCollection(patches, facecolor="none", edgecolor=look[0], linestyle=look[1], linewidth=1.7,
                                        path_effects=_halo()))


def _smoothed_plane(volume_zyx: np.ndarray, plane: int, style: PictureStyle) -> np.ndarray:
    """Return the plane averaged with its neighbours, smoothed, and binned when it is very large, (Y', X') float32."""
    from scipy.ndimage import gaussian_filter

    slab = np.asarray(volume_zyx[max(plane - style.average, 0):plane + style.average + 1], dtype=np.float32)
    image = slab.mean(axis=0)
    image = np.where(np.isfinite(image), image, np.float32(np.nan_to_num(np.nanmedian(image[np.isfinite(image)]))
                                                           if np.isfinite(image).any() else 0))
    step = -(-max(image.shape) // MOST_PIXELS)
    if style.smooth_vox:
        image = gaussian_filter(image, max(style.smooth_vox, step / 2))
    return image[::step, ::step]


def _crop(volume_zyx: np.ndarray, centre: np.ndarray, half: int, style: PictureStyle) -> np.ndarray:
    """Return a cube of side 2 half + 1 voxels about a voxel, smoothed; NaN outside the volume."""
    from scipy.ndimage import gaussian_filter

    block = np.full((2 * half + 1,) * 3, np.nan, dtype=np.float32)
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, volume_zyx.shape)
    if (low < high).all():
        part = np.asarray(volume_zyx[tuple(slice(a, b) for a, b in zip(low, high))], dtype=np.float32)
        target = tuple(slice(a, b) for a, b in zip(low - centre + half, high - centre + half))
        block[target] = gaussian_filter(part, style.smooth_vox) if style.smooth_vox else part
    return block


def _contrast(image: np.ndarray, percentiles: Tuple[float, float]) -> Tuple[float, float]:
    """Return the grey values for black and white; they differ even in a constant image."""
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, percentiles) if known.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def _scale_bar(axes: Axes, extent: Tuple[float, float, float, float], voxel_size_ang: float) -> None:
    """Draw a bar of a round length, about a fifth of the width, in nm (or voxels when the size is unknown)."""
    unit, per_voxel = ("nm", voxel_size_ang / 10) if voxel_size_ang else ("voxels", 1.0)
    width, height = extent[1] - extent[0], extent[3] - extent[2]
    wanted = width * per_voxel / 5
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max(f * power for f in (1, 2, 5) if f * power <= wanted * 1.0001)
    right, bottom = extent[1] - 0.03 * width, extent[2] + 0.03 * height
    axes.plot([right - length / per_voxel, right], [bottom, bottom], color="white", linewidth=3,
              solid_capstyle="butt", path_effects=_halo(1.0))
    axes.text(right - length / per_voxel / 2, bottom + 0.012 * height, f"{length:g} {unit}", color="white", ha="center",
              va="bottom", fontsize=9, path_effects=_halo(0.4))


def _legend(figure: Figure, layers: Sequence[_Layer], title: str) -> None:
    """Put the legend below the slices and the title above."""
    from matplotlib.lines import Line2D

    handles: List[Any] = []
    for layer in layers:
        look: Dict[str, Any] = {"marker": "x", "markersize": 6} if layer.cross else {}
        handles.append(Line2D([], [], color=layer.colour, linestyle=layer.dashes, linewidth=2,
                              label=plain(layer.label), path_effects=_halo(0.6), **look))
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 5), frameon=False, fontsize=9,
                      handlelength=2.6)
    if title:
        figure.suptitle(plain(title), fontsize=11, y=0.99)


def _halo(width: float = 1.0) -> List[Any]:
    """Return path effects that draw a dark rim of so many points around a line or text."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=1.7 + 2 * width, foreground="black", alpha=0.55), patheffects.Normal()]
