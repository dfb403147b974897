"""Tables of an annotation: what train reads, each time a new folder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.annotation.annotations import moved
from deepetpicker.annotation.records import AnnotatedTomogram, Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version, versions
from deepetpicker.errors import OutputError
from deepetpicker.io.classes import ParticleClass, read_classes
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.items import items_from_folder, items_from_params
from deepetpicker.io.regions import Region, read_negatives, read_regions
from deepetpicker.io.volumes import write_volume

CLASSES = [ParticleClass(0, "ring", 168.0), ParticleClass(2, "rod", 253.0)]


@pytest.fixture
def session(tmp_path):
    """Yield a session of three tomograms, of which the third is not annotated."""
    made = []
    for name, voxel in (("a", 10.0), ("b", 10.0), ("c", 10.0)):
        write_volume(tmp_path / f"{name}.mrc", np.zeros((24, 40, 56), np.int8), voxel)
        made.append(AnnotatedTomogram(name, str(tmp_path / f"{name}.mrc"), voxel, (24, 40, 56)))
    with Session(tmp_path / "out") as opened:
        opened.set_tomograms(made)
        opened.set_classes(CLASSES)
        opened.add("a", Particle((1 / 3, 7.25, 11.0), 2))
        opened.add("a", Particle((5.0, 6.0, 7.0), 0, 0.75))
        opened.add("b", Negative((1.5, 2.5, 3.125)))
        opened.add("b", Region((0, 1, 2), (10, 20, 30)))
        yield opened


def test_a_version_is_a_data_folder(session):
    folder = save_version(session)
    assert folder == session.folder / "version_001"
    table = read_coordinates(folder / "a.csv")
    np.testing.assert_array_equal(table.positions_zyx_vox, [[1 / 3, 7.25, 11.0], [5, 6, 7]])
    np.testing.assert_array_equal(table.class_ids, [2, 0])
    np.testing.assert_array_equal(table.scores, [np.nan, 0.75])
    assert read_classes(folder) == (tuple(CLASSES), 10.0)
    assert len(read_coordinates(folder / "b.csv")) == 0
    np.testing.assert_array_equal(read_negatives(folder / "b_negatives.csv"), [[1.5, 2.5, 3.125]])
    assert read_regions(folder / "b_regions.csv") == [Region((0, 1, 2), (10, 20, 30))]
    assert not (folder / "c.csv").exists()
    assert read_regions(folder / "a_regions.csv") == []  # so nothing of it is said to be complete


def test_train_finds_tomograms_and_tables(session):
    folder = save_version(session)
    assert [(item.name, os.path.basename(item.coordinates)) for item in items_from_folder(folder)] == [
        ("a", "a.csv"), ("b", "b.csv")]
    items = items_from_params(json.loads((folder / "params.json").read_text()))
    assert [item.tomogram for item in items] == [session.tomogram("a").path, session.tomogram("b").path]
    assert all(os.path.isabs(item.coordinates) and os.path.exists(item.coordinates) for item in items)


def test_earlier_versions_are_never_touched(session):
    first = save_version(session)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    assert save_version(session) is None  # nothing has changed
    key = next(iter(session.particles("a")))
    session.change("a", key, moved(session.particles("a")[key], (2, 3, 4)))
    second = save_version(session)
    assert second.name == "version_002"
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert versions(session.folder) == [first, second]
    session.close()
    with Session(session.folder) as again:
        assert save_version(again) is None
        again.add("a", Particle((9.0, 9.0, 9.0), 0))
        assert save_version(again).name == "version_003"


def test_nothing_annotated_makes_no_version(tmp_path):
    with Session(tmp_path) as session:
        session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))])
        session.set_classes(CLASSES)
        assert save_version(session) is None
        key = session.add("a", Particle((1.0, 2.0, 3.0), 0))
        assert save_version(session).name == "version_001"
        session.remove("particle", "a", key)  # but what was said before is corrected
        assert save_version(session).name == "version_002"


def test_tomograms_of_different_voxel_sizes_keep_theirs(session, tmp_path):
    write_volume(tmp_path / "d.mrc", np.zeros((12, 20, 28), np.int8), 20.0)
    session.set_tomograms([AnnotatedTomogram("d", str(tmp_path / "d.mrc"), 20.0, (12, 20, 28))])
    session.add("d", Particle((1.0, 2.0, 3.0), 0))
    folder = save_version(session)
    assert read_classes(folder)[1] == 0.0
    items = items_from_params(json.loads((folder / "params.json").read_text()))
    assert {item.name: item.voxel_size_ang for item in items} == {"a": 10.0, "b": 10.0, "d": 20.0}


def test_a_version_that_cannot_be_written_leaves_nothing_and_is_not_called_saved(session, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="the disk is full"):
            save_version(session)
    assert versions(session.folder) == []
    assert not list(session.folder.glob(".version*"))
    assert save_version(session) is not None


def test_what_nobody_has_looked_at_can_stay_out(session, caplog):
    session.set_start({"b": CoordinateTable.from_positions(np.array([[1.0, 2, 3], [4.0, 5, 6]]), 2),
                       "c": CoordinateTable.from_positions(np.array([[7.0, 8, 9]]), 2)})
    key = session.unreviewed("b")[1]
    session.change("b", key, dataclasses.replace(session.particles("b")[key], reviewed=True))
    session.close()
    assert main(["annotate", "--out", str(session.folder), "--tables-only", "--only-reviewed"]) == 0
    folder = session.folder / "version_001"
    assert f"{folder}: 3 particles" in caplog.text
    np.testing.assert_array_equal(read_coordinates(folder / "b.csv").positions_zyx_vox, [[4, 5, 6]])
    assert len(read_coordinates(folder / "a.csv")) == 2  # both were clicked
    assert not (folder / "c.csv").exists()  # a tomogram of which nobody has seen anything teaches nothing
    assert "c" not in [item["name"] for item in json.loads((folder / "params.json").read_text())["items"]]
    with Session(session.folder) as again:
        assert len(again.unreviewed("b")) == 1  # still there to be looked at
        again.add("a", Particle((9.0, 9.0, 9.0), 0))
        assert len(read_coordinates(save_version(again) / "c.csv")) == 1


def no_link(*args, **settings):
    """Refuse as FAT does."""
    raise PermissionError(errno.EPERM, "Operation not permitted", *map(str, args[:1]))


def test_where_there_are_no_links_the_advice_is_one_that_works(session, monkeypatch, caplog):
    monkeypatch.setattr(os, "symlink", no_link)
    monkeypatch.setattr(os, "link", no_link)
    session.close()
    caplog.set_level("INFO")
    assert main(["annotate", "a.mrc", "--out", str(session.folder), "--tables-only"]) == 0
    folder = session.folder / "version_001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.csv", "a_regions.csv", "b.csv", "b_negatives.csv", "b_regions.csv", "classes.json", "params.json"]
    assert f"deepetpicker train --params {folder / 'params.json'} --out" in caplog.text
    assert [item.tomogram for item in items_from_params(json.loads((folder / "params.json").read_text()))] == [
        session.tomogram("a").path, session.tomogram("b").path]
