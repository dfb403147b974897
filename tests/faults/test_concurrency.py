"""Several runs in one folder, clocks that differ, file systems that show late what others wrote, names within names."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import time
from typing import Any, Iterator

import numpy as np
import pytest

from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.items import items_from_files, items_from_folder
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.records import RECORDS
from deepetpicker.io.volumes import write_volume
from deepetpicker.picking.run import pick
from tests.detectors import write_detector
from tests.moments import SCANS, heard

NAMES = ("TS_1", "TS_10", "TS_1_2", "S_1", "1", "TS_1.mrc")  # each within another
SHAPE, A_DAY = (20, 24, 28), 86400.0


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    """Return a folder with a model that finds blobs, and tomograms of one to six of them."""
    folder = tmp_path_factory.mktemp("data")
    write_detector(folder / "m.safetensors")
    for number, name in enumerate(NAMES, start=1):
        (folder / name).mkdir()
        write_volume(folder / name / f"{name}.mrc", blobs(number), 10.0)
    return folder


def blobs(count: int) -> np.ndarray:
    """Return a tomogram (20, 24, 28) of weak noise with some bright blobs of 7 voxels."""
    grey = np.random.default_rng(count).normal(0, 0.1, SHAPE).astype(np.float32)
    places = [(5, 6, 6), (14, 17, 21), (5, 17, 21), (14, 6, 6), (5, 6, 21), (14, 17, 6)][:count]
    for zyx in places:
        square = sum((axis - at) ** 2 for axis, at in zip(np.indices(SHAPE), zyx))
        grey[square <= 12] += 3
    return grey


def run(data: pathlib.Path, out: pathlib.Path, shard: str = "", **values: Any) -> Any:
    """Pick the tomograms, or a shard of them."""
    return pick(data / "m.safetensors", [data / name / f"{name}.mrc" for name in NAMES], out,
                PickOptions(**{"device": "cpu", "precision": "float32", "shard": shard, **values}), quiet=True)


def tables(out: pathlib.Path) -> dict:
    """Return the bytes of all tables of a folder."""
    return {path.name: path.read_bytes() for path in out.glob("*.csv")}


def listed(out: pathlib.Path) -> list:
    """Return the names that the manifest of a folder lists as done."""
    return [item["name"] for item in read_manifest(out / "manifest.json")["items"] if item["status"] == "done"]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> dict:
    """Return the tables of a run that has the folder for itself."""
    out = tmp_path_factory.mktemp("alone")
    run(data, out)
    assert listed(out) == list(NAMES)
    counts = [len(read_coordinates(out / f"{name}.csv")) for name in NAMES]
    assert counts == [1, 2, 3, 4, 5, 6]  # none got the picks of a name that holds its own
    return tables(out)


def test_two_runs_of_the_same_shard_at_once_write_what_one_writes(data, alone, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(run, data, tmp_path, shard) for shard in ("1/2", "1/2", "2/2")]:
            done.result()
    assert tables(tmp_path) == alone
    assert listed(tmp_path) == list(NAMES)
    assert not list(tmp_path.rglob(".*"))


def test_a_reader_sees_whole_tables_alone_and_never_fewer_while_a_writer_works(data, alone, tmp_path):
    seen = []
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        work = threads.submit(run, data, tmp_path)
        while not work.done():
            if (tmp_path / "manifest.json").exists():
                seen.append(listed(tmp_path))
                for name in seen[-1]:
                    assert (tmp_path / f"{name}.csv").read_bytes() == alone[f"{name}.csv"]
            time.sleep(0.005)
        work.result()
    assert [len(names) for names in seen] == sorted(len(names) for names in seen)
    assert len(seen) > 1


@contextlib.contextmanager
def hidden(names: set) -> Iterator[None]:
    """Hide records and tables of some tomograms, as a network file system does for a while from other machines."""
    scan, is_file = os.scandir, os.path.isfile

    def late_scan(path: Any = ".") -> Any:
        if isinstance(path, int) or os.path.basename(path) != RECORDS:
            return scan(path)
        return [one for one in scan(path) if os.path.splitext(one.name)[0] not in names]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", late_scan)
        patch.setattr(os.path, "isfile", lambda path: is_file(path) and pathlib.Path(path).stem not in names)
        yield


@pytest.mark.long
@pytest.mark.parametrize("late", [set(NAMES[::2]), set(NAMES[:1])])
def test_what_others_wrote_may_be_seen_late_and_nothing_is_lost(data, alone, tmp_path, late):
    """The second shard, and then a run that resumes, do not see all that the first has written."""
    run(data, tmp_path, "1/2")
    with hidden(late):
        run(data, tmp_path, "2/2")
        assert set(listed(tmp_path)) == set(NAMES) - late
    assert listed(tmp_path) == list(NAMES)  # whoever reads puts all records together
    with hidden(late):
        run(data, tmp_path, resume=True)  # picks again what it does not see
    assert listed(tmp_path) == list(NAMES)
    assert tables(tmp_path) == alone
    assert not (tmp_path / "earlier").exists()


@pytest.mark.long
@pytest.mark.parametrize("ahead", [A_DAY, -A_DAY])
def test_clocks_of_machines_may_differ(data, alone, tmp_path, ahead):
    """What one machine has written bears times of tomorrow, or of yesterday; it is neither lost nor done again."""
    run(data, tmp_path, "1/2")
    for path in tmp_path.rglob("*"):
        os.utime(path, (time.time() + ahead,) * 2)
    scanned = []
    with heard(lambda text: scanned.append(text.partition(": ")[0]) if SCANS in text else None):
        run(data, tmp_path, resume=True)
    assert scanned == list(NAMES[1::2])
    assert tables(tmp_path) == alone
    assert listed(tmp_path) == list(NAMES)


def test_the_same_tomogram_under_two_names_is_picked_for_both_and_twice_under_one_is_refused(data, tmp_path):
    grey = blobs(3)
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.mrc", grey, 10.0)
    (tmp_path / "c.mrc").symlink_to(tmp_path / "a.mrc")
    pick(data / "m.safetensors", [tmp_path / f"{name}.mrc" for name in "abc"], tmp_path / "out",
         PickOptions(device="cpu"), quiet=True)
    assert len({(tmp_path / "out" / f"{name}.csv").read_bytes() for name in "abc"}) == 1
    with pytest.raises(InputError, match="two tomograms are named"):
        items_from_files([tmp_path / "a.mrc", tmp_path / "a.mrc"])


def test_each_tomogram_gets_the_table_of_its_own_name(tmp_path):
    for number, name in enumerate(NAMES[:-1], start=1):
        write_volume(tmp_path / f"{name}.mrc", blobs(number), 10.0)
        if name != "TS_1":  # its table is missing: that of no other name takes its place
            write_coordinates(tmp_path / f"{name}.csv", CoordinateTable.from_positions(np.ones((number, 3))))
    found = {item.name: item.coordinates for item in items_from_folder(tmp_path, need_coordinates=False)}
    assert not found.pop("TS_1")
    assert {name: len(read_coordinates(path)) for name, path in found.items()} == {
        name: number for number, name in enumerate(NAMES[:-1], start=1) if name != "TS_1"}
