"""What an annotation or a review says beside the particles, for the engine: negatives and complete boxes."""

from __future__ import annotations

import os
from typing import Any, Collection, Dict, List

import numpy as np

from deepetpicker.io.regions import NEGATIVES, REGIONS, Region, write_negatives, write_regions
from deepetpicker_plugin import convert
from deepetpicker_plugin.constants import CHOSEN_COORDINATES

INDEX_SLACK = 0.01  # so far from a voxel's index a rounded one still is that voxel


def addCorrectionParams(form: Any) -> None:
    """Add the negatives and the complete boxes to a form."""
    from pyworkflow.protocol import params

    form.addParam("inputNegatives", params.PointerParam, pointerClass=CHOSEN_COORDINATES, allowsNull=True,
                  label="Places without a particle (optional)",
                  help="What looks like a particle and is none: the negatives of *annotate particles* or *review "
                  "picks*, or any coordinates. What is there is learnt as background, whatever is said below of what "
                  "is not annotated.")
    form.addParam("inputRegions", params.PointerParam, pointerClass="DeepETPickerRegions", allowsNull=True,
                  label="Complete boxes (optional)",
                  help="Boxes of *annotate particles* or *review picks* in which everything is annotated. Outside of "
                  "them, and wherever else coordinates of these two lie, what is not annotated is taken for unknown "
                  "unless said otherwise below.")


def misplaced(protocol: Any) -> List[str]:
    """Return, as errors, whether a set of particles of a form was also chosen as places without one.

    Parameters
    ----------
    protocol : Protocol
        With ``getSources()`` and the parameters of :func:`addCorrectionParams`.
    """
    negatives = protocol.inputNegatives.get()
    if negatives is None or not any(convert.isSame(one.coordinates, negatives) for one in protocol.getSources()):
        return []
    return ["*Places without a particle* holds the particles themselves: choose the output *negatives* of *annotate* "
            "or *review*, or leave it empty"]


def leftBehind(protocol: Any) -> List[str]:
    """Return, as warnings, what was annotated or refused with or after the coordinates of a form and is not chosen.

    Parameters
    ----------
    protocol : Protocol
        With ``inputCoordinates`` and the parameters of :func:`addCorrectionParams`.
    """
    chosen = protocol.inputCoordinates.get()
    if chosen is None or chosen.getObjParentId() is None:
        return []
    maker, name = protocol.getProject().getProtocol(int(chosen.getObjParentId())), str(chosen.getLastName())
    lines = []
    newest = name
    if getattr(maker, "marksSome", False):  # its outputs come newest first
        newest = next(output for output, _ in maker.iterOutputAttributes() if output.startswith("coordinates"))
    if newest != name:
        lines.append(f"*Particle coordinates* is an earlier output, *{name}*, of "
                     f"*{maker.getObjLabel() or maker.getRunName()}*: its newest is *{newest}*.")
    for pointer, kind, label in ((protocol.inputNegatives, "negatives", "Places without a particle"),
                                 (protocol.inputRegions, "regions", "Complete boxes")):
        output = name.replace("coordinates", kind)
        if pointer.get() is None and output != name and getattr(maker, output, None) is not None:
            lines.append(f"*{label}* is empty, but *{maker.getObjLabel() or maker.getRunName()}*, which made the "
                         f"coordinates, has some: choose its output *{output}*, or they are not learnt.")
    return lines


def correctionItems(protocol: Any, targets: Dict[str, convert.Place], folder: str) -> Dict[str, Dict[str, str]]:
    """Write the negatives and boxes that a form gives; return the members of the engine's items by tsId.

    Parameters
    ----------
    protocol : Protocol
        With the parameters of :func:`addCorrectionParams`.
    targets : dict of str to Place
        The tomograms to train on; others are left out.
    folder : str
        Gets TSID_negatives.csv and TSID_regions.csv, in their voxels.
    """
    found: Dict[str, Dict[str, str]] = {}
    negatives, regions = protocol.inputNegatives.get(), protocol.inputRegions.get()
    if negatives is not None and negatives.getSize():
        rows, places = convert.readCoordinates(negatives)
        for tsId in rows:
            if tsId in targets:
                xyz = convert.transfer(rows[tsId].positions_xyz_vox, places[tsId], targets[tsId])
                path = os.path.join(folder, f"{tsId}{NEGATIVES}")
                write_negatives(path, xyz[:, ::-1])
                found.setdefault(tsId, {})["negatives"] = path
    if regions is not None:
        places = regions.getPlaces()
        for tsId, boxes in regions.getRegions().items():
            if tsId in targets:
                path = os.path.join(folder, f"{tsId}{REGIONS}")
                write_regions(path, transferBoxes(boxes, places.get(tsId, targets[tsId]), targets[tsId]))
                found.setdefault(tsId, {})["regions"] = path
    return found


def sayPartial(protocol: Any, names: Collection[str], folder: str, items: Dict[str, Dict[str, str]]) -> None:
    """Say of coordinates marked or answered in our windows that only the chosen boxes are complete, if there are any.

    Parameters
    ----------
    protocol : Protocol
        With ``getSources()``.
    names : collection of str
        tsIds with coordinates.
    folder : str
        Gets TSID_regions.csv, without a box.
    items : dict
        Members of the engine's items by tsId, from :func:`correctionItems`; completed.
    """
    makers = [one.coordinates.getObjParentId() for one in protocol.getSources()]
    project = protocol.getProject()
    if not any(getattr(project.getProtocol(int(key)), "marksSome", False) for key in makers if key is not None):
        return
    for tsId in names:
        members = items.setdefault(tsId, {})
        if "regions" not in members:
            members["regions"] = os.path.join(folder, f"{tsId}{REGIONS}")
            write_regions(members["regions"], [])


def transferBoxes(boxes: List[Region], source: convert.Place, target: convert.Place) -> List[Region]:
    """Return boxes of one tomogram in the voxels of another of the same tsId: what lies in them as a whole."""
    found = []
    for box in boxes:
        edges = np.array([box.low_zyx_vox, box.high_zyx_vox], float)[:, ::-1] + [[-0.5], [0.5]]
        low, high = convert.transfer(edges, source, target)[:, ::-1]
        first = np.ceil(low + 0.5 - INDEX_SLACK).astype(int).tolist()
        last = np.floor(high - 0.5 + INDEX_SLACK).astype(int).tolist()
        if all(a <= b for a, b in zip(first, last)):
            found.append(Region(tuple(first), tuple(last)))
    return found
