"""``deepetpicker view``: what it is given, what it refuses, and the window it opens."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from virtual_screen import press, pump, pumpUntil

from deepetpicker import __main__ as command
from deepetpicker.cli import view
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import write_volume
from deepetpicker.windows.inputs import find_classes, find_tomograms, picks_scene, read_tables
from tests.windows.hands import window_named, xdotool

SHAPE = (20, 30, 40)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two tomograms, one with a table."""
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.mrc", np.zeros(SHAPE, np.int8), 10.0)
    table = CoordinateTable(np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([1, 3]), np.array([0.5, 0.25]))
    write_coordinates(tmp_path / "a.csv", table)
    return tmp_path


def test_folders_and_files_are_tomograms(folder):
    assert [one.name for one in find_tomograms([str(folder)])] == ["a", "b"]
    assert [one.name for one in find_tomograms([str(folder / "b.mrc")], 12.5)] == ["b"]
    params = {"items": [{"name": "TS", "tomogram": str(folder / "a.mrc"), "voxel_size": 8.0}]}
    (one,) = find_tomograms([], params=params)
    assert (one.name, one.voxel_size_ang) == ("TS", 8.0)


def test_two_tomograms_of_one_name_are_refused(folder):
    (folder / "other").mkdir()
    shutil.copy(folder / "a.mrc", folder / "other" / "a.mrc")
    with pytest.raises(InputError, match="two tomograms are named 'a'"):
        find_tomograms([str(folder / "a.mrc"), str(folder / "other" / "a.mrc")])


def test_tables_are_paired_by_name(folder):
    tomograms = find_tomograms([str(folder)])
    for given in ([str(folder)], [str(folder / "a.csv")]):
        tables = read_tables(tomograms, given)
        assert {name: len(table) for name, table in tables.items()} == {"a": 2}
    shutil.copy(folder / "a.csv", folder / "picks.csv")
    assert len(read_tables(tomograms[1:], [str(folder / "picks.csv")])["b"]) == 2
    with pytest.raises(InputError, match="belongs to none of the tomograms a, b"):
        read_tables(tomograms, [str(folder / "picks.csv")])


def test_particles_outside_are_refused_and_a_few_left_out(folder):
    tomograms = find_tomograms([str(folder / "a.mrc")])
    far = CoordinateTable.from_positions(np.array([[1.0, 2, 3], [500, 2, 3], [600, 2, 3]]))
    write_coordinates(folder / "a.csv", far)
    with pytest.raises(InputError, match="2 of 3 positions are outside"):
        read_tables(tomograms, [str(folder)])
    write_coordinates(folder / "a.csv", CoordinateTable.from_positions(np.array([[1.0, 2, 3], [2, 2, 3], [600, 2, 3]])))
    assert len(read_tables(tomograms, [str(folder)])["a"]) == 2


def test_classes_have_the_names_and_diameters_beside_the_picks(folder):
    tables = read_tables(find_tomograms([str(folder)]), [str(folder)])
    assert find_classes(tables, [str(folder)]) == [ParticleClass(1, "class_1"), ParticleClass(3, "class_3")]
    write_classes(folder, [ParticleClass(3, "rod", 253.0)], 10.0)
    found = find_classes(tables, [str(folder / "a.csv")])
    assert found == [ParticleClass(1, "class_1"), ParticleClass(3, "rod", 253.0)]
    given = (ParticleClass(0, "ring", 90.0), ParticleClass(3, "class_3", 80.0))
    told = find_classes(tables, [str(folder)], given, 70.0)
    assert told == [ParticleClass(0, "ring", 90.0), ParticleClass(1, "class_1", 70.0), ParticleClass(3, "rod", 80.0)]
    scene = picks_scene(find_tomograms([str(folder)]), tables, found)
    assert [(layer.name, layer.count()) for layer in scene.layers] == [("class_1", 1), ("rod", 1)]


def test_without_a_display_one_line_and_status_2(folder, monkeypatch, capfd):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert command.main(["view", str(folder / "a.mrc")]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "there is no display" in said


def test_without_tkinter_it_says_what_to_install(folder, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    assert command.main(["view", str(folder / "a.mrc")]) == 2
    assert "python3-tk" in capfd.readouterr().err


@pytest.mark.gui
def test_a_window_says_when_its_results_were_made_anew_and_shows_them_when_asked(folder, root, monkeypatch):
    monkeypatch.setattr("deepetpicker.windows.window.WATCH_MS", 20)
    parser = argparse.ArgumentParser()
    view.add_arguments(parser)
    window = view.picks_window(parser.parse_args([str(folder), "--picks", str(folder)]))
    window.parent = root
    window.open()
    window.top.geometry("900x700")
    pump(window.top, 0.2)
    assert window.news is None
    (folder / "a.csv").unlink()
    pumpUntil(window.top, lambda: window.news is not None)
    assert "has changed" in window.news.get()
    assert window.scene.layers[0].count() == 1  # nothing is exchanged unasked
    press(window.top, "Show what is there now")
    assert "no coordinates in" in window.news.get()  # as while a protocol is run again
    write_coordinates(folder / "a.csv", CoordinateTable.from_positions(np.ones((3, 3))))
    press(window.top, "Show what is there now")
    new = window.successor
    assert not window.top.winfo_exists()
    pump(new.top, 0.2)
    assert (new.scene.layers[0].count(), new.news) == (3, None)
    assert new.top.geometry().startswith("900x700")
    new.close()


@pytest.mark.long
@pytest.mark.gui
def test_the_command_opens_the_window_and_ends_with_it(folder, display):
    words = [sys.executable, "-m", "deepetpicker", "view", str(folder), "--picks", str(folder)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    if shutil.which("xdotool") is None:
        process.kill()
        pytest.skip("needs xdotool")
    xdotool("windowfocus", "--sync", window_named("DeepETPicker: 2 tomograms"), "key", "ctrl+w")
    assert process.wait(timeout=20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
