"""What the engine's starts of one picking protocol have left on disk, and the names of its outputs."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Dict, List, Mapping, Sequence, Set

from pwem.objects import Transform
from tomo.objects import Tomogram, TomoMask

from deepetpicker.io.manifest import Manifest
from deepetpicker.io.records import EARLIER, Records
from deepetpicker.io.volumes import open_volume
from deepetpicker.perclass import text_of
from deepetpicker.verdict import of_run
from deepetpicker_plugin.constants import MANIFEST_FILE
from deepetpicker_plugin.engine.earlier import isExchanged
from deepetpicker_plugin.engine.process import readManifest
from deepetpicker_plugin.sets import convert

CRASH_FILE = "crash.json"
COORDINATES, MAPS, FAILED = "coordinates", "probabilityMaps", "failedTomograms"


def batches(folder: str) -> List[str]:
    """Return the folders of the engine's starts below a folder, the first one first."""
    found = [path for path in glob.glob(os.path.join(glob.escape(folder), "batch_*")) if os.path.isdir(path)]
    return sorted(found, key=lambda path: (int(os.path.basename(path).split("_")[1]), path))


def newBatch(folder: str) -> str:
    """Make a folder for one more start of the engine and return its path."""
    number = 1
    while os.path.exists(path := os.path.join(folder, f"batch_{number:03d}")):
        number += 1
    os.makedirs(path)
    return path


def itemsOf(folder: str) -> Dict[str, Dict[str, Any]]:
    """Return what one start of the engine did with each tomogram, by name: the entries of its manifest.

    Entries whose tables are gone do not count.
    """
    found = {}
    for name in (MANIFEST_FILE, CRASH_FILE):
        for item in (readManifest(os.path.join(folder, name)) or {}).get("items", []):
            if item["status"] == "failed" or os.path.exists(item["picks"]):
                found[item["name"]] = item
    return found


def nextOf(folder: str) -> str:
    """Return the folder in which a start goes on behind a tomogram that ended the engine."""
    return f"{folder}_next"


def itemsFrom(folder: str) -> Dict[str, Dict[str, Any]]:
    """Return what one start of the engine, and those that went on for it, did with each tomogram, by name."""
    found: Dict[str, Dict[str, Any]] = {}
    while os.path.isdir(folder):
        found.update(itemsOf(folder))
        folder = nextOf(folder)
    return found


def items(folder: str) -> Dict[str, Dict[str, Any]]:
    """Return what became of each tomogram, by name, over all starts below a folder.

    A tomogram that one start could not pick and another could is done; of two failures the last one counts.
    """
    found: Dict[str, Dict[str, Any]] = {}
    for path in batches(folder):
        for name, item in itemsOf(path).items():
            if name not in found or found[name]["status"] == "failed":
                found[name] = item
    return found


def done(folder: str) -> Set[str]:
    """Return the tsIds of the tomograms that were picked by any start below a folder."""
    return {name for name, item in items(folder).items() if item["status"] == "done"}


def stale(folder: str, now: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return the tsIds of tomograms whose file or mask, or tables, hold something else than when they were picked.

    Parameters
    ----------
    folder : str
        Folder of all starts.
    now : mapping
        The engine's items of tomograms that were picked, by tsId.
    """
    found = set()
    for path in batches(folder):
        records = Records(path)
        for name, record in records.read().items():
            files = [(now[name].get(key), record["made"].get(key)) for key in ("tomogram", "mask") if name in now]
            if any(file and known and isExchanged(file, known) for file, known in files) or (
                    record["item"]["status"] == "done" and not records.is_whole(record)):
                found.add(name)
    return sorted(found)


def setAside(folder: str, tsIds: Sequence[str]) -> None:
    """Let what was picked in some tomograms not count any more; each start keeps it in a folder of its own."""
    for path in batches(folder):
        records = Records(path)
        for tsId in tsIds:
            records.forget(tsId)  # first: without it the tables count no more
            records.set_aside(tsId)


def asideLines(folder: str) -> List[str]:
    """Return for which tomograms picks were set aside."""
    ending = "_candidates.csv"
    names = {os.path.basename(path)[:-len(ending)] for batch in batches(folder)
             for path in glob.glob(os.path.join(glob.escape(batch), EARLIER, f"*{ending}"))}
    return [f"_{name}: its file was exchanged, or its tables were changed, after it had been picked; what was found "
            "before was set aside_"
            for name in sorted(names)]


def recordFailure(folder: str, tsId: str, reason: str) -> None:
    """Write down in a start's folder that a tomogram could not be given to the engine, or ended it."""
    manifest = Manifest("pick", {})
    for item in (readManifest(os.path.join(folder, CRASH_FILE)) or {}).get("items", []):
        manifest.add_item(item["name"], item["status"], item["reason"])
    manifest.add_item(tsId, "failed", reason)
    manifest.write(os.path.join(folder, CRASH_FILE))


def outputNames(start: str, ids: Sequence[int], names: Sequence[str]) -> Dict[int, str]:
    """Return an attribute name per class: ``coordinates_ring``; by id where names would collide."""
    words = [re.sub(r"\W+", "_", name) for name in names]
    unique = len(set(words)) == len(words) and all(words)
    return {i: f"{start}_{word if unique else i}" for i, word in zip(ids, words)}


def suffix(output: str) -> str:
    """Return the end of the file name of an output: two sets of one protocol must not share a file."""
    return "" if output == COORDINATES else "_" + output.lower()


def isReadable(tomogram: Tomogram) -> bool:
    """Tell whether a tomogram's file is there and has a header with a size."""
    try:
        return tomogram.getDim() is not None
    except Exception:  # whatever Scipion's reader of this format makes of a damaged file
        return False


def maskOf(tomogram: Tomogram, fileName: str) -> TomoMask:
    """Return the probability map of a tomogram as a mask.

    The map may be coarser than the tomogram. Both start at the same outer edge, so that its first voxel lies half the
    difference of the voxel sizes further in; the origin says so.
    """
    volume = open_volume(fileName)
    place = convert.Place.of(tomogram)
    mask = TomoMask()
    mask.copyInfo(tomogram)
    mask.setLocation(fileName)
    mask.setVolName(place.fileName)
    mask.setSamplingRate(volume.voxel_size_ang)
    inset = (volume.voxel_size_ang - place.samplingRate) / 2
    origin = Transform()
    origin.setShifts(*(shift + inset for shift in place.shifts))
    mask.setOrigin(origin)
    return mask


def scoresOf(item: Dict[str, Any]) -> str:
    """Return the thresholds of a picked tomogram as text: one number, or one per group id where they differ."""
    each = item.get("thresholds") or {"0": item["threshold"]}
    return text_of({int(key): value for key, value in each.items()})


def chosenBy(done: Sequence[Dict[str, Any]], rate: float) -> str:
    """Return what the picks of tomograms were chosen by: a false-discovery rate, or their thresholds."""
    if rate:
        return f"at an estimated false-discovery rate of at most {rate:g} in each tomogram"
    return f"score at or above {scoresOf(done[0])}"


def expectedLines(done: Sequence[Dict[str, Any]]) -> List[str]:
    """Return how many of the picks of tomograms are expected to be false, where their scores are probabilities."""
    rates: Dict[str, List[float]] = {}
    for item in done:
        for classId, rate in (item.get("expected_fdr") or {}).items():
            rates.setdefault(classId, []).extend([] if rate is None else [rate])
    return [f"Group {classId}: {sum(found) / len(found):.1%} of the picks are expected to be false (mean over the "
            "tomograms)" for classId, found in rates.items() if found]


def faintLines(done: Sequence[Dict[str, Any]]) -> List[str]:
    """Return how many finds stood out too little to be particles."""
    count = sum(n for item in done for n in (item.get("n_faint") or {}).values())
    if not count:
        return []
    return [f"{count} more stood out of {'its tomogram' if count == 1 else 'their tomograms'} less than half as far as "
            "the faintest annotated particle: left out (*Faint picks*: keep shows them)"]


def verdictLines(done: Sequence[Dict[str, Any]]) -> List[str]:
    """Return the verdict on the picks of all starts together, with what is to be looked at."""
    if not any(item.get("verdict") for item in done):  # picked before there were verdicts
        return []
    found = of_run(done)
    return [f"Verdict: *{found['text']}*", *found["doubts"], *found["unusual"]]
