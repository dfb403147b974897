"""What the engine's windows show of Scipion's sets."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.windows.scene import Scene, TomogramFile, make_layer
from deepetpicker_plugin import convert


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
    parts: Dict[Any, Tuple[str, float, Dict[str, List[Any]]]] = {}
    order = list(sets)
    for name, coordinates, rows, others in found:
        box_ang = (coordinates.getBoxSize() or 0) * coordinates.getSamplingRate() or 20 * coordinates.getSamplingRate()
        for tsId, row in rows.items():
            if tsId not in places:
                continue
            zyx = convert.transfer(row.positions_xyz_vox, others[tsId], places[tsId])[:, ::-1]
            for group in sorted(set(row.groups)):
                known = (classes or {}).get(group, (f"class {group}" if group else "particles", box_ang))
                key: Any = group
                label = known
                if not byClass:  # a layer per set; where classes are known, per set and class
                    key, label = (name, group), (f"{name}: {known[0]}", known[1])
                    if not classes or len(classes) == 1:
                        key, label = (name, 0), (name, known[1])
                mine = np.array(row.groups) == group
                part = parts.setdefault(key, (label[0], label[1], {}))
                part[2].setdefault(tsId, []).append((zyx[mine], np.array(row.scores)[mine]))
    keys = sorted(parts, key=lambda key: key if byClass else (order.index(key[0]), key[1]))
    return Scene([sceneFile(place) for place in places.values()],
                 [make_layer(number, *parts[key]) for number, key in enumerate(keys)])


def sceneOfTables(tables: Mapping[str, CoordinateTable], places: Mapping[str, convert.Place],
                  classes: convert.Classes) -> Scene:
    """Return the scene of tables in the voxels of their tomograms, a layer per class."""
    layers = []
    for number, (classId, (name, diameter)) in enumerate(sorted(classes.items())):
        mine = {ts: t.select(t.class_ids == classId) for ts, t in tables.items() if ts in places}
        layers.append(make_layer(number, name, diameter,
                                 {ts: [(t.positions_zyx_vox, t.scores)] for ts, t in mine.items()}))
    return Scene([sceneFile(place) for place in places.values()], layers)
