"""What the mouse does in the views of the annotation window, and how annotations look there."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.annotation.annotations import Annotations
from deepetpicker.annotation.records import Particle
from deepetpicker.io.regions import Region
from deepetpicker.windows.scene import AXES, Layer
from deepetpicker.windows.slices import Point, SlicePanel, Tool

PARTICLE, NEGATIVE, REGION, LOOK, CANDIDATE = "particle", "negative", "region", "look", "candidate"
NEGATIVE_COLOUR, REGION_COLOUR, SELECTED_COLOUR, CANDIDATE_COLOUR = "#ff3b30", "#7fe0ff", "#ffffff", "#ff5fd2"
NEAR_PX = 7
Mark = Tuple[str, int]  # kind and key of a record


@dataclasses.dataclass(frozen=True)
class Actions:
    """What the window does for the mouse.

    Parameters
    ----------
    add, move, remove, select : callable
        ``add(kind, position)`` and ``move(mark, position)`` take zyx in voxels; ``select`` takes a mark or None.
    add_region, change_region : callable
        Take a :class:`Region`, the second after its key.
    """

    add: Callable[[str, np.ndarray], Any]
    move: Callable[[Mark, np.ndarray], Any]
    remove: Callable[[Mark], Any]
    select: Callable[[Optional[Mark]], Any]
    add_region: Callable[[Region], Any]
    change_region: Callable[[int, Region], Any]


class MarkTool(Tool):
    """Clicks add, drags move, the right button removes; what a click adds is told by the mode.

    Parameters
    ----------
    panel : SlicePanel
        The views.
    session : Annotations
        What is annotated.
    actions : Actions
        What to do.
    """

    def __init__(self, panel: SlicePanel, session: Annotations, actions: Actions) -> None:
        super().__init__(panel)
        self.session, self.actions = session, actions
        self.mode = PARTICLE
        self.reach_vox = 5.0
        self.selected: Optional[Mark] = None
        self.candidate: Optional[np.ndarray] = None  # z, y, x of what the window asks about
        self._looking = False
        self._grabbed: Optional[Tuple[Mark, np.ndarray, np.ndarray]] = None  # mark, offset, where it is now
        self._box: Optional[Tuple[Optional[int], Region]] = None  # key, or None for a new one, and how it is now
        self._start: Optional[np.ndarray] = None
        self._edges: List[Tuple[int, int]] = []  # edges that are pulled: axis, and 0 for its first voxel, 1 its last

    # ---- the mouse
    def press(self, point: Point, event: Any) -> None:
        """Select what is near; otherwise add, or begin a box."""
        self._looking = self.mode == LOOK or "shift" in event.modifiers
        if self._looking:
            super().press(point, event)
        elif self.mode == REGION:
            self._press_box(point)
        else:
            mark = self.near(point[1])
            if mark is None:
                self.actions.add(self.mode, point[1])
                mark = self.selected
                place = self.place(mark) if mark is not None else None
                self._grabbed = None if mark is None or place is None else (mark, np.zeros(3), place)
            else:
                self.actions.select(mark)
                place = self.place(mark)
                assert place is not None
                self._grabbed = (mark, place - point[1], place)

    def drag(self, point: Point, event: Any) -> None:
        """Move what was grabbed, in the plane of the view."""
        if self._looking:
            super().drag(point, event)
        elif self._grabbed is not None:
            mark, offset, place = self._grabbed
            moved = place.copy()
            plane = list(AXES[point[0]])
            moved[plane] = (point[1] + offset)[plane]
            self._grabbed = (mark, offset, moved)
            self.panel.changed()
        elif self._box is not None:
            self._drag_box(point)
            self.panel.changed()

    def release(self, point: Point, event: Any) -> None:
        """Keep what was moved or drawn; a click on the candidate that is asked about says where its centre is."""
        grabbed, box, start = self._grabbed, self._box, self._start
        self._grabbed = self._box = self._start = None
        if grabbed is not None:
            mark, _, moved = grabbed
            place = self.place(mark)
            if mark[0] == CANDIDATE and place is not None and np.array_equal(moved, place):  # a click, not a drag
                plane = list(AXES[point[0]])
                moved = place.copy()
                moved[plane] = point[1][plane]
            if place is not None and np.abs(moved - place).max() * self.panel.viewport.scale_px > 1:
                self.actions.move(mark, moved)
        elif box is not None:
            key, region = box
            if key is not None:
                self.actions.change_region(key, region)
            elif start is not None and np.abs(point[1] - start)[list(AXES[point[0]])].min() >= 2:
                self.actions.add_region(region)

    def remove(self, point: Point, event: Any) -> None:
        """Remove what is under the mouse; in the mode for boxes, the smallest box there."""
        if self.mode == REGION:
            inside = [(np.prod(np.subtract(r.high_zyx_vox, r.low_zyx_vox) + 1.0), key)
                      for key, r in self.session.regions(self.panel.tomogram).items() if r.contains(point[1]).any()]
            if inside:
                self.actions.remove((REGION, min(inside)[1]))
            return
        mark = self.near(point[1])
        if mark is not None:
            self.actions.remove(mark)

    def near(self, position_zyx_vox: np.ndarray) -> Optional[Mark]:
        """Return the particle or negative that a click at a position means, None when there is none."""
        reach = max(self.reach_vox, NEAR_PX / self.panel.viewport.scale_px)
        if self.candidate is not None and np.linalg.norm(self.candidate - position_zyx_vox) <= reach:
            return CANDIDATE, 0
        return self.session.nearest(self.panel.tomogram, position_zyx_vox.tolist(), reach)

    def place(self, mark: Mark) -> Optional[np.ndarray]:
        """Return the position (3,) zyx of a particle or negative, None when it is gone or a box."""
        kind, key = mark
        name = self.panel.tomogram
        if kind == CANDIDATE:
            return self.candidate
        found: Any = (self.session.particles(name) if kind == PARTICLE else
                      self.session.negatives(name) if kind == NEGATIVE else {})
        return np.array(found[key].position_zyx_vox) if key in found else None

    # ---- boxes
    def _press_box(self, point: Point) -> None:
        """Grab an edge of a box that is near, or begin a new box."""
        axis, position = point
        near = NEAR_PX / self.panel.viewport.scale_px
        for key, region in self.session.regions(self.panel.tomogram).items():
            self._edges = _edges_near(region, axis, position, near)
            if self._edges:
                self._box, self._start = (key, region), None
                return
        voxel = self._voxel(position)
        shape = self.panel.scene.shape_zyx(self.panel.tomogram)
        low, high = list(voxel), list(voxel)
        low[axis], high[axis] = 0, shape[axis] - 1
        self._box, self._start = (None, _region(low, high)), position.copy()
        self._edges = []

    def _drag_box(self, point: Point) -> None:
        """Let the box follow the mouse."""
        assert self._box is not None
        axis, position = point
        key, region = self._box
        low, high, voxel = list(region.low_zyx_vox), list(region.high_zyx_vox), self._voxel(position)
        if self._start is not None:
            start = self._voxel(self._start)
            for place in AXES[axis]:
                low[place], high[place] = min(start[place], voxel[place]), max(start[place], voxel[place])
        for place, end in self._edges:
            if end:
                high[place] = max(voxel[place], low[place])
            else:
                low[place] = min(voxel[place], high[place])
        self._box = (key, _region(low, high))

    def _voxel(self, position_zyx_vox: np.ndarray) -> List[int]:
        """Return the voxel at a position, inside the tomogram."""
        last = np.array(self.panel.scene.shape_zyx(self.panel.tomogram)) - 1
        return [int(v) for v in np.clip(np.rint(position_zyx_vox), 0, last)]

    # ---- drawing
    def decorate(self, axis: int, axes: Any) -> None:
        """Draw boxes, what is being moved, and what is selected."""
        name, plane = self.panel.tomogram, self.panel.position[axis]
        regions: Dict[Optional[int], Region] = {}
        regions.update(self.session.regions(name))  # type: ignore[arg-type]  # keys of one kind of those allowed
        if self._box is not None:
            regions[self._box[0]] = self._box[1]
        for key, region in regions.items():
            met = region.low_zyx_vox[axis] <= plane <= region.high_zyx_vox[axis]
            chosen = self.selected == (REGION, key)
            _draw_box(axes, axis, region, "-" if met else ":", 2.4 if chosen else 1.5)
        right, up = AXES[axis]
        if self._grabbed is not None:
            axes.plot(self._grabbed[2][right], self._grabbed[2][up], "+", color=SELECTED_COLOUR, markersize=14)
        elif self.selected is not None:
            place = self.place(self.selected)
            if place is not None and abs(place[axis] - plane) <= self.reach_vox:
                axes.plot(place[right], place[up], "+", color=SELECTED_COLOUR, markersize=14, markeredgewidth=1.6)
        self._draw_candidate(axis, axes)
        for negative in self.session.negatives(name).values():
            place = np.array(negative.position_zyx_vox)
            if abs(place[axis] - plane) <= self.reach_vox:
                axes.plot(place[right], place[up], "x", color=NEGATIVE_COLOUR, markersize=9, markeredgewidth=1.8)


    def _draw_candidate(self, axis: int, axes: Any) -> None:
        """Draw a ring about the candidate that is asked about, as large as the plane cuts it."""
        from matplotlib.patches import Circle

        centre = self.candidate
        if self._grabbed is not None and self._grabbed[0][0] == CANDIDATE:
            centre = self._grabbed[2]
        if centre is None or abs(centre[axis] - self.panel.position[axis]) >= self.reach_vox:
            return
        right, up = AXES[axis]
        radius = np.sqrt(self.reach_vox ** 2 - (centre[axis] - self.panel.position[axis]) ** 2)
        axes.add_patch(Circle((centre[right], centre[up]), radius, fill=False, color=CANDIDATE_COLOUR, linewidth=2.2,
                              linestyle="--"))


def _region(low: Sequence[int], high: Sequence[int]) -> Region:
    """Return the box between two voxels."""
    return Region((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _edges_near(region: Region, axis: int, position: np.ndarray, near_vox: float) -> List[Tuple[int, int]]:
    """Return the edges of a box that a view shows near a position: the axis, and 0 for the first voxel, 1 for the last.

    A corner gives two.
    """
    found = []
    for place in AXES[axis]:
        other = next(p for p in AXES[axis] if p != place)
        along = region.low_zyx_vox[other] - near_vox <= position[other] <= region.high_zyx_vox[other] + near_vox
        for end, edge in ((0, region.low_zyx_vox[place] - 0.5), (1, region.high_zyx_vox[place] + 0.5)):
            if along and abs(position[place] - edge) <= near_vox:
                found.append((place, end))
                break
    return found


def _draw_box(axes: Any, axis: int, region: Region, dashes: str, width: float) -> None:
    """Draw the outline of a box in a view."""
    right, up = AXES[axis]
    a, b = region.low_zyx_vox[right] - 0.5, region.high_zyx_vox[right] + 0.5
    c, d = region.low_zyx_vox[up] - 0.5, region.high_zyx_vox[up] + 0.5
    axes.plot([a, b, b, a, a], [c, c, d, d, c], color=REGION_COLOUR, linestyle=dashes, linewidth=width)


def layers_of(session: Annotations, tomogram: str) -> Tuple[List[Layer], List[List[int]]]:
    """Return the layers of a tomogram and the keys of their particles: per class those looked at, then the others.

    Parameters
    ----------
    session : Annotations
        What is annotated.
    tomogram : str
        Name of the tomogram.
    """
    layers, keys = [], []
    particles = session.particles(tomogram)
    for look in session.classes:
        for reviewed in (True, False):
            mine = [key for key, one in particles.items()
                    if one.class_id == look.kind.id and one.reviewed == reviewed]
            if not mine and not reviewed:
                continue
            keys.append(mine)
            layers.append(_layer(look.kind.name + ("" if reviewed else " (not looked at)"), look.colour,
                                 look.kind.diameter_ang, tomogram, [particles[key] for key in mine],
                                 "-" if reviewed else "--"))
    return layers, keys


def _layer(name: str, colour: str, diameter_ang: float, tomogram: str, particles: Sequence[Particle],
           dashes: str) -> Layer:
    """Return a layer of particles of one tomogram."""
    return Layer(name, colour, diameter_ang,
                 {tomogram: np.array([p.position_zyx_vox for p in particles], float).reshape(-1, 3)},
                 {tomogram: np.nan_to_num(np.array([p.score for p in particles], float))}, dashes)
