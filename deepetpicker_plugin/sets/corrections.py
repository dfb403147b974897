"""What an annotation or a review says beside the particles, for the engine: negatives and complete boxes."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Collection, Dict, List

import numpy as np

from deepetpicker.io.regions import NEGATIVES, REGIONS, Region, write_negatives, write_regions
from deepetpicker_plugin.constants import CHOSEN_COORDINATES
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import called, makerOf

KINDS = ("negatives", "regions")  # outputs of *annotate* and *review* beside their coordinates
LABELS = {"negatives": "Places without a particle", "regions": "Complete boxes"}
INDEX_SLACK = 0.01  # so far from a voxel's index a rounded one still is that voxel


def addCorrectionParams(form: Any) -> None:
    """Add the negatives and the complete boxes to a form."""
    from pyworkflow.protocol import params

    form.addParam("inputNegatives", params.PointerParam, pointerClass=CHOSEN_COORDINATES, allowsNull=True,
                  label="Places without a particle",
                  help="What looks like a particle and is none: the negatives of *annotate particles* or *review "
                  "picks*, or any coordinates. What is there is learnt as background, whatever is said below of what "
                  "is not annotated.")
    form.addParam("inputRegions", params.PointerParam, pointerClass="DeepETPickerRegions", allowsNull=True,
                  label="Complete boxes (optional)",
                  help="Boxes of *annotate particles* or *review picks* in which everything is annotated. Outside of "
                  "them, and wherever else coordinates of these two lie, what is not annotated is taken for unknown "
                  "unless said otherwise below.")
    form.addParam("takeAlong", params.BooleanParam, default=True, label="Take those of the annotation?",
                  help="Where the fields above are empty, of coordinates of *annotate particles* and *review picks*. "
                  "Yes: the places without a particle and the complete boxes of the same version are taken along; the "
                  "summary says how many. No: only what is chosen above. Of several sets that are kinds of their own "
                  "none are taken: what is not one of the one kind may be one of another.")


@dataclasses.dataclass(frozen=True)
class Correction:
    """Places without a particle, or complete boxes: the output, its name, and what its protocol is called."""

    output: Any
    name: str
    maker: str

    def __str__(self) -> str:
        """Return how many they are, and whose, as a summary says it."""
        if hasattr(self.output, "getRegions"):
            count = sum(map(len, self.output.getRegions().values()))
        else:
            count = self.output.getSize()
        return f"{count} of *{self.maker}* ({self.name})" if self.maker else str(count)


def given(protocol: Any, kind: str) -> List[Correction]:
    """Return what a form gives of a kind: what is chosen, else what is taken along with the coordinates.

    Parameters
    ----------
    protocol : Protocol
        With ``getSources()`` and the parameters of :func:`addCorrectionParams`.
    kind : str
        One of ``KINDS``.
    """
    pointer = protocol.inputNegatives if kind == "negatives" else protocol.inputRegions
    if pointer.get() is not None:
        maker = makerOf(pointer.get(), protocol.getProject())
        return [Correction(pointer.get(), str(pointer.get().getLastName()), called(maker))]
    return beside(protocol, kind) if protocol.takeAlong.get() and not _apart(protocol) else []


def beside(protocol: Any, kind: str) -> List[Correction]:
    """Return what was annotated or refused together with the coordinates of a form, of a kind."""
    found: Dict[int, Correction] = {}
    for source in protocol.getSources():
        maker, name = makerOf(source.coordinates, protocol.getProject()), str(source.coordinates.getLastName())
        end = name.replace("coordinates", kind)
        output = getattr(maker, end, None) if getattr(maker, "marksSome", False) and end != name else None
        if output is not None:
            found[output.getObjId()] = Correction(output, end, called(maker))
    return list(found.values())


def _apart(protocol: Any) -> bool:
    """Tell whether the coordinates are several kinds, each from a protocol of its own."""
    sources, apart = protocol.getSources(), getattr(protocol, "setsAreClasses", None)
    return apart is not None and bool(apart.get()) and len({s.coordinates.getObjParentId() for s in sources}) > 1


def summary(protocol: Any) -> List[str]:
    """Return, as summary lines, which places without a particle and complete boxes are learnt, and which are not."""
    found = []
    for kind in KINDS:
        mine, left = given(protocol, kind), beside(protocol, kind)
        if mine:
            found.append(f"{LABELS[kind]}: {', '.join(map(str, mine))}")
        elif left:
            found.append(f"{LABELS[kind]}: none; {', '.join(map(str, left))} are not taken")
    return found


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
    """Return, as warnings, what was annotated or refused with or after the coordinates of a form and is not learnt.

    Parameters
    ----------
    protocol : Protocol
        With ``inputCoordinates`` and the parameters of :func:`addCorrectionParams`.
    """
    chosen = protocol.inputCoordinates.get()
    if chosen is None or chosen.getObjParentId() is None:
        return []
    maker, name, lines = makerOf(chosen, protocol.getProject()), str(chosen.getLastName()), []
    newest = name
    if getattr(maker, "marksSome", False):  # its outputs come newest first
        newest = next(output for output, _ in maker.iterOutputAttributes() if output.startswith("coordinates"))
    if newest != name:
        lines.append(f"*Particle coordinates* is an earlier output, *{name}*, of *{called(maker)}*: its newest is "
                     f"*{newest}*.")
    for kind in KINDS:
        if protocol.takeAlong.get() and not given(protocol, kind):
            lines += [f"*{LABELS[kind]}* is empty, but *{one.maker}*, which made coordinates of one kind, has some: "
                      f"choose its output *{one.name}* if they hold for all kinds, or they are not learnt."
                      for one in beside(protocol, kind)]
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
    places: Dict[str, List[np.ndarray]] = {}
    boxes: Dict[str, List[Region]] = {}
    for one in given(protocol, "negatives"):
        rows, sources = convert.readCoordinates(one.output)
        for tsId in (ts for ts in rows if ts in targets):
            xyz = convert.transfer(rows[tsId].positions_xyz_vox, sources[tsId], targets[tsId])
            places.setdefault(tsId, []).append(xyz[:, ::-1])
    for one in given(protocol, "regions"):
        sources = one.output.getPlaces()
        for tsId, mine in one.output.getRegions().items():
            if tsId in targets:
                boxes.setdefault(tsId, []).extend(
                    transferBoxes(mine, sources.get(tsId, targets[tsId]), targets[tsId]))
    for tsId, parts in places.items():
        found.setdefault(tsId, {})["negatives"] = os.path.join(folder, f"{tsId}{NEGATIVES}")
        write_negatives(found[tsId]["negatives"], np.concatenate(parts))
    for tsId, regions in boxes.items():
        found.setdefault(tsId, {})["regions"] = os.path.join(folder, f"{tsId}{REGIONS}")
        write_regions(found[tsId]["regions"], regions)
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
