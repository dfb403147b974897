"""What the engine's windows show of Scipion's sets."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.windows.scene import Scene, TomogramFile, make_layer
from deepetpicker_plugin.sets import convert


def sceneFile(place: convert.Place, shown: str = "") -> TomogramFile:
    """Return a tomogram as the windows take it; Scipion's sampling rate counts, never the header's."""
    return TomogramFile(place.tsId, place.fileName, place.samplingRate, shown)


def sceneOfSets(sets: Mapping[str, Any], classes: Optional[convert.Classes] = None, byClass: bool = True) -> Scene:
    """Return the scene of one or several sets of coordinates.

    Parameters
    ----------
    sets : mapping of str to SetOfCoordinates3D
        By name; the tomograms are those of the first, the others are moved into their voxels.
    classes : mapping, optional
        Name and diameter in angstrom of the classes, where they are known; else the box size is the diameter.
    byClass : bool
        True: a layer per group id. False: a layer per set, and per class of it where several are known.
    """
    found = [(name, coordinates, *convert.readCoordinates(coordinates)) for name, coordinates in sets.items()]
    places = found[0][3]
    parts: Dict[Tuple[Any, ...], Tuple[str, float, Dict[str, List[Any]]]] = {}
    for number, (name, coordinates, rows, others) in enumerate(found):
        box_ang = (coordinates.getBoxSize() or 0) * coordinates.getSamplingRate() or 20 * coordinates.getSamplingRate()
        for tsId in [tsId for tsId in rows if tsId in places]:
            zyx = convert.transfer(rows[tsId].positions_xyz_vox, others[tsId], places[tsId])[:, ::-1]
            groups, scores = np.array(rows[tsId].groups), np.array(rows[tsId].scores)
            for group in sorted(set(rows[tsId].groups)):
                known = (classes or {}).get(group, (f"class {group}" if group else "particles", box_ang))
                key, title = ((group,), known[0]) if byClass else _layerOfSet(number, name, group, known[0], classes)
                part = parts.setdefault(key, (title, known[1], {}))
                part[2].setdefault(tsId, []).append((zyx[groups == group], scores[groups == group]))
    return Scene([sceneFile(place) for place in places.values()],
                 [make_layer(number, *parts[key]) for number, key in enumerate(sorted(parts))])


def _layerOfSet(number: int, name: str, group: int, className: str,
                classes: Optional[convert.Classes]) -> Tuple[Tuple[int, int], str]:
    """Return key and name of the layer of a set; where several classes are known, that of one class in it."""
    if classes and len(classes) > 1:
        return (number, group), f"{name}: {className}"
    return (number, 0), name


def sceneOfTables(tables: Mapping[str, CoordinateTable], places: Mapping[str, convert.Place],
                  classes: convert.Classes, shown: Optional[Mapping[str, str]] = None) -> Scene:
    """Return the scene of tables in the voxels of their tomograms, a layer per class; ``shown`` are other files."""
    layers = []
    for number, (classId, (name, diameter)) in enumerate(sorted(classes.items())):
        mine = {ts: t.select(t.class_ids == classId) for ts, t in tables.items() if ts in places}
        layers.append(make_layer(number, name, diameter,
                                 {ts: [(t.positions_zyx_vox, t.scores)] for ts, t in mine.items()}))
    return Scene([sceneFile(place, (shown or {}).get(ts, "")) for ts, place in places.items()], layers)
