"""The annotation window, used with mouse and keys on a virtual screen; the command that opens it; kills."""

from __future__ import annotations

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from virtual_screen import picture, pump, pumpUntil, touch

from deepetpicker import __main__ as command
from deepetpicker.annotation.records import Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.regions import Region
from deepetpicker.io.volumes import write_volume
from deepetpicker.windows.inputs import find_tomograms, prepare_session
from deepetpicker.windows.linked import annotate_window
from deepetpicker.windows.render import Look
from deepetpicker.windows.scene import AXES, Scene
from tests.windows.hands import window_named, xdotool

pytestmark = pytest.mark.gui
SHAPE = (24, 40, 56)
CENTRE = np.array([11.0, 20.0, 30.0])
CLASSES = [ParticleClass(1, "ring", 60.0), ParticleClass(2, "rod", 90.0)]
START = CoordinateTable(np.array([[4.0, 5, 6], [18, 30, 45], [12, 8, 46]]), np.array([1, 2, 1]),
                        np.array([0.3, 0.9, 0.6]))


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two tomograms: a ball in the first, noise of another size in the second."""
    grids = np.ogrid[tuple(map(slice, SHAPE))]
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grids, CENTRE)))
    ball = 1 / (1 + np.exp(2 * (distance - 3.0)))
    write_volume(tmp_path / "a.mrc", ball.astype(np.float32), 10.0)
    write_volume(tmp_path / "b.mrc", np.random.default_rng(0).normal(size=(20, 64, 48)).astype(np.float32), 12.0)
    return tmp_path


@pytest.fixture
def session(folder):
    """Yield a session on the tomograms that knows two classes."""
    with Session(folder / "out") as opened:
        prepare_session(opened, Scene(find_tomograms([str(folder)]), []), {"b": START}, CLASSES)
        yield opened


@pytest.fixture
def window(root, folder, session):
    """Yield the open window."""
    opened = annotate_window(session, Scene(find_tomograms([str(folder)]), []), parent=root).open()
    pump(opened.top, 0.4)
    opened.top.focus_force()
    yield opened
    opened.close()


def click(window, point, axis=0, button=1, state=0):
    """Press and let go a button at a point (right, up, in voxels) of a view."""
    touch(window.panel, axis, point, f"<ButtonPress-{button}>", state)
    touch(window.panel, axis, point, f"<ButtonRelease-{button}>", state)
    pump(window.top, 0.05)


def drag(window, points, axis=0, state=0):
    """Drag with the left button through points of a view."""
    touch(window.panel, axis, points[0], "<ButtonPress-1>", state)
    for point in points[1:]:
        touch(window.panel, axis, point, "<B1-Motion>", state)
        pump(window.top, 0.03)
    touch(window.panel, axis, points[-1], "<ButtonRelease-1>", state)
    pump(window.top, 0.05)


def key(window, name):
    """Press a key."""
    window.top.event_generate(f"<{name}>")
    pump(window.top, 0.05)


def pixel(window):
    """Return the largest error of a click at a whole pixel, in voxels."""
    return 0.51 / window.panel.viewport.scale_px


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_click_adds_a_particle_in_each_view_where_it_was(window, axis):
    window.panel.move_to(z=9, y=15, x=25)
    pump(window.top)
    right, up = AXES[axis]
    wanted = np.array([9.0, 15, 25])
    wanted[right], wanted[up] = 13.4, 17.7
    click(window, (13.4, 17.7), axis)
    (one,) = window.session.particles("a").values()
    assert one.class_id == 1
    assert np.abs(np.array(one.position_zyx_vox) - wanted).max() <= pixel(window)
    assert one.position_zyx_vox[axis] == wanted[axis]
    assert "a (1)" in window.tomograms.get(0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_drag_moves_and_a_right_click_removes_in_each_view(window, axis):
    window.panel.move_to(z=11, y=20, x=30)
    pump(window.top)
    right, up = AXES[axis]
    start, end = CENTRE[[right, up]], CENTRE[[right, up]] + [5.0, -3.5]
    click(window, start, axis)
    before = np.array(next(iter(window.session.particles("a").values())).position_zyx_vox)
    drag(window, [start, start + [2, -1], end], axis)
    (one,) = window.session.particles("a").values()
    shift = np.array(one.position_zyx_vox) - before
    assert shift[axis] == 0
    assert np.abs(shift[[right, up]] - [5.0, -3.5]).max() <= 2 * pixel(window)
    click(window, end, axis, button=3)
    assert window.session.particles("a") == {}
    key(window, "Control-z")
    key(window, "Control-z")
    (one,) = window.session.particles("a").values()
    np.testing.assert_array_equal(one.position_zyx_vox, before)
    key(window, "Control-y")
    assert next(iter(window.session.particles("a").values())).position_zyx_vox != tuple(before)


def test_keys_choose_the_class_and_delete_removes(window):
    key(window, "Key-2")
    click(window, (20, 10))
    key(window, "Key-1")
    click(window, (40, 30))
    found = list(window.session.particles("a").values())
    assert [one.class_id for one in found] == [2, 1]
    key(window, "Key-2")
    key(window, "Key-c")  # the selected one gets the chosen class
    assert [one.class_id for one in window.session.particles("a").values()] == [2, 2]
    key(window, "Delete")
    assert [round(one.position_zyx_vox[2]) for one in window.session.particles("a").values()] == [20]
    lines = [window.classes.lines[1].get(), window.classes.lines[2].get()]
    assert lines == ["1: ring (0)", "2: rod (1)"]


def test_shift_looks_and_adds_nothing(window):
    click(window, (41, 13), state=1)
    assert window.session.particles("a") == {}
    assert window.panel.position[1:] == [13, 41]


def test_negatives_are_marked_and_made_of_particles(window):
    key(window, "Key-x")
    assert window.mode.get() == "negative"
    click(window, (15, 12))
    assert len(window.session.negatives("a")) == 1
    key(window, "Key-a")
    click(window, (40, 30))
    key(window, "Key-x")
    assert window.session.particles("a") == {}
    assert len(window.session.negatives("a")) == 2
    click(window, (15, 12), button=3)
    assert [round(n.position_zyx_vox[2]) for n in window.session.negatives("a").values()] == [40]
    assert "not one: 1" in window.marks_text.get()


def test_a_tick_says_that_a_tomogram_is_annotated_completely(window, monkeypatch):
    whole = Region((0, 0, 0), tuple(n - 1 for n in SHAPE))
    assert not window.complete.is_set.get()
    window.complete.invoke()
    assert list(window.session.regions("a").values()) == [whole]
    assert window.session.regions("b") == {}
    key(window, "Control-z")
    assert window.session.regions("a") == {}
    assert not window.complete.is_set.get()
    window.complete.invoke()
    window.complete.invoke()
    assert window.session.regions("a") == {}
    monkeypatch.setattr(window.session, "add", lambda *words: (_ for _ in ()).throw(OSError("disk full")))
    window.complete.invoke()
    assert not window.complete.is_set.get()
    assert "disk full" in window.error.get()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_boxes_are_drawn_pulled_and_removed_in_each_view(window, axis):
    key(window, "Key-b")
    right, up = AXES[axis]
    drag(window, [(5, 6), (9, 9), (19, 17)], axis)
    (box,) = window.session.regions("a").values()
    low, high = [0, 0, 0], [n - 1 for n in SHAPE]
    low[right], low[up], high[right], high[up] = 5, 6, 19, 17
    assert box == Region(tuple(low), tuple(high))
    drag(window, [(19.5, 11), (18, 11), (14, 11)], axis)  # its right edge
    (box,) = window.session.regions("a").values()
    assert box.high_zyx_vox[right] == 14
    assert box.low_zyx_vox == tuple(low)
    click(window, (10, 10), axis, button=3)
    assert window.session.regions("a") == {}
    key(window, "Control-z")
    assert list(window.session.regions("a").values()) == [box]
    assert window.session.particles("a") == {}


def test_a_click_snaps_to_the_centre_of_density_when_wanted(window):
    window.panel.move_to(z=10)
    pump(window.top)
    key(window, "Key-s")
    click(window, CENTRE[[2, 1]] + [1.0, -1.0])
    (one,) = window.session.particles("a").values()
    assert np.abs(np.array(one.position_zyx_vox) - CENTRE).max() < 0.3
    assert window.error.get() == ""
    click(window, CENTRE[[2, 1]] + [4.0, -3.0])
    assert "the click was not moved" in window.error.get()


def test_walking_through_what_nobody_has_looked_at(window):
    window.tomograms.selection_clear(0, "end")
    window.tomograms.selection_set(1)
    window.tomograms.event_generate("<<ListboxSelect>>")
    pumpUntil(window.top, lambda: window.panel.tomogram == "b")
    assert "b (3, 3 new)" in window.tomograms.get(1)
    key(window, "space")  # best score first
    assert window.panel.position == [18, 30, 45]
    key(window, "space")
    assert window.panel.position == [12, 8, 46]
    assert "b (3, 2 new)" in window.tomograms.get(1)
    key(window, "Key-x")  # this one is none
    assert window.panel.position == [4, 5, 6]
    assert "b (2, 1 new)" in window.tomograms.get(1)
    key(window, "Key-n")
    assert window.panel.position == [18, 30, 45]
    key(window, "Key-u")
    assert window.panel.position == [4, 5, 6]


def test_name_diameter_and_number_of_classes_change_and_keys_stay_letters_while_typing(window):
    window.classes.name_field.focus_force()
    pump(window.top, 0.1)
    window.classes.name.set("")
    for letter in "ax1":
        window.classes.name_field.event_generate(f"<Key-{letter}>")
    window.classes.diameter.set("84")
    window.classes.name_field.event_generate("<Return>")
    pump(window.top, 0.1)
    assert window.session.classes[0].kind == ParticleClass(1, "ax1", 84.0)
    assert window.mode.get() == "particle"
    assert "8.4 voxels" in window.classes.voxels.get()
    assert window.scene.layers[0].diameter_ang == 84.0
    window.classes.buttons[0].invoke()
    pump(window.top, 0.1)
    assert [one.kind.name for one in window.session.classes] == ["ax1", "rod", "class_1"]
    click(window, (30, 20))
    assert next(iter(window.session.particles("a").values())).class_id == 3
    window.classes.buttons[1].invoke()
    assert "class 3 has 1 particles" in window.error.get()


def test_a_full_disk_is_shown_and_nothing_is_pretended(window):
    size = (window.session.folder / "journal.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        click(window, (30, 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert window.session.particles("a") == {}
    assert "not saved, and not done" in window.error.get()
    click(window, (30, 20))
    assert len(window.session.particles("a")) == 1
    assert window.error.get() == ""


def test_a_vanished_folder_is_shown_and_a_copy_can_be_saved(window, tmp_path):
    click(window, (30, 20))
    shutil.rmtree(window.session.folder)
    click(window, (10, 10))
    assert "has vanished; save a copy elsewhere" in window.error.get()
    window.save_copy(tmp_path / "copy")
    assert len(read_coordinates(tmp_path / "copy" / "a.csv")) == 1
    with Session(tmp_path / "copy") as copy:
        assert len(copy.particles("a")) == 1
    window.session._stack.close()


def test_tables_are_saved_from_the_window_and_say_what_was_clicked(window):
    window.panel.move_to(z=9)
    pump(window.top)
    click(window, (30.3, 20.6))
    key(window, "Control-s")
    assert "version_001" in window.status.get()
    (one,) = window.session.particles("a").values()
    table = read_coordinates(window.session.folder / "version_001" / "a.csv")
    np.testing.assert_allclose(table.positions_zyx_vox, [one.position_zyx_vox], atol=1e-9)
    assert np.abs(table.positions_zyx_vox - [[9, 20.6, 30.3]]).max() <= pixel(window)


def test_gallery_and_overview_of_what_is_annotated(window):
    click(window, (30, 20))
    click(window, (12, 10))
    window.open_gallery()
    pump(window.gallery.top, 0.3)
    assert "2 picks of a" in window.gallery.text.get()
    x, y = window.gallery._corner(0)
    window.gallery.tiles.event_generate("<Button-1>", x=x + 20, y=y + 20)
    pumpUntil(window.top, lambda: round(window.panel.position[2]) == 30)
    window.gallery.close()
    picture(window.top, "annotate_test")


# ---- the command

def annotate(folder, *words, **options):
    """Start the command in a process of its own."""
    start = [sys.executable, "-m", "deepetpicker", "annotate", str(folder), "--out", str(folder / "out"), *words]
    return subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=dict(os.environ), **options)


def found_window(name="DeepETPicker: annotate"):
    """Wait until the window is there and return its number."""
    return window_named(name)


@pytest.mark.long
def test_the_command_annotates_and_goes_on(folder, display):
    write_coordinates(folder / "picks.csv", START)
    shutil.move(folder / "picks.csv", folder / "b.csv")
    with annotate(folder, "--start", str(folder / "b.csv"), "--classes", "1:ring:60,2:rod:90") as process:
        window = found_window()
        pumping = time.monotonic() + 20
        while time.monotonic() < pumping and not (folder / "out" / "journal.jsonl").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        for x, y in ((600, 200), (700, 300)):
            xdotool("mousemove", "--window", window, x, y, "click", "1")
            time.sleep(0.4)
        second = annotate(folder)
        assert second.wait(timeout=60) == 2
        assert second.stderr is not None
        assert "open in another window" in second.stderr.read()
        second.stderr.close()
        xdotool("key", "ctrl+w")
        assert process.wait(timeout=30) == 0
        assert "train --data" in process.stderr.read()
    assert len(read_coordinates(folder / "out" / "version_001" / "a.csv")) == 2
    assert len(read_coordinates(folder / "out" / "version_001" / "b.csv")) == 3
    with annotate(folder) as process:
        found_window()
        time.sleep(0.5)
        xdotool("key", "ctrl+w")
        assert process.wait(timeout=30) == 0
        assert "says everything already" in process.stderr.read()
    assert command.main(["annotate", "--out", str(folder / "out"), "--tables-only"]) == 0
    assert not (folder / "out" / "version_002").exists()


def clicks_before_kill(folder, seconds):
    """Annotate with real clicks, kill the window at some moment; return the least number that must be there."""
    with annotate(folder, stdout=subprocess.DEVNULL) as process:
        window = found_window()
        time.sleep(1.0)
        journal = folder / "out" / "journal.jsonl"
        end = time.monotonic() + seconds
        number = seen = 0
        while time.monotonic() < end:
            x, y = 420 + number % 9 * 55, 80 + number // 9 % 6 * 60
            xdotool("mousemove", "--window", window, x, y, "click", "1")
            number += 1
            seen = journal.read_bytes().count(b'"do"')
        process.send_signal(signal.SIGKILL)
    return seen


def check_reopened(folder, at_least):
    """Check that nothing of what was there is lost, and nothing torn."""
    with Session(folder / "out") as session:
        particles = session.particles("a")
        assert len(particles) >= at_least
        assert all(isinstance(one, Particle) for one in particles.values())
        lines = (folder / "out" / "journal.jsonl").read_text().splitlines()
        assert [json.loads(line)["n"] for line in lines] == sorted(json.loads(line)["n"] for line in lines)
    return len(particles)


@pytest.mark.long
def test_a_killed_window_loses_nothing(folder, display):
    at_least = clicks_before_kill(folder, 1.0)
    assert check_reopened(folder, at_least) >= 1


@pytest.mark.slow
def test_twenty_windows_killed_at_random_moments_lose_nothing(folder, display):
    rng = random.Random(2)
    before = 0
    for _ in range(20):
        before = check_reopened(folder, before + clicks_before_kill(folder, rng.uniform(0.2, 1.5)))
        with Session(folder / "out") as session:  # begin the next with a free tomogram
            for one in list(session.particles("a")):
                session.remove("particle", "a", one)
        before = 0


def test_what_cannot_be_annotated_is_one_line_and_status_2(folder, display, capfd, monkeypatch):
    assert command.main(["annotate", str(folder), "--out", str(folder / "a.mrc" / "x")]) == 2
    assert "a file stands where a folder is needed" in capfd.readouterr().err
    assert command.main(["annotate", str(folder / "gone.mrc"), "--out", str(folder / "out")]) == 2
    assert "no such tomogram" in capfd.readouterr().err
    assert not (folder / "out").exists()
    assert command.main(["annotate", "--out", str(folder / "nothing"), "--tables-only"]) == 2
    assert "nothing was annotated" in capfd.readouterr().err
    monkeypatch.delenv("DISPLAY")
    assert command.main(["annotate", str(folder), "--out", str(folder / "new")]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert not pathlib.Path(folder / "new").exists()


def test_the_start_is_for_new_tomograms_only(folder, session):
    scene = Scene(find_tomograms([str(folder)]), [])
    assert len(session.particles("b")) == 3
    assert prepare_session(session, scene, {"b": START}, CLASSES) == ["b"]
    assert len(session.particles("b")) == 3
    assert save_version(session) is not None
    write_volume(folder / "a.mrc", np.zeros((12, 20, 28), np.int8), 20.0)
    with pytest.raises(InputError, match="a was annotated as 56 x 40 x 24 voxels of 10 angstrom"):
        prepare_session(session, Scene(find_tomograms([str(folder)]), []), {}, CLASSES)


@pytest.mark.long
def test_the_benchmark_of_the_windows_runs(display, tmp_path):
    script = pathlib.Path(__file__).parents[2] / "benchmarks" / "windows.py"
    words = [sys.executable, script, "--shape", "20,30,40", "--types", "int8", "--steps", "2",
             "--folder", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["int8", "20,30,40"]]
    assert all(word in lines[0] for word in ("open s", "step x ms (CPU)", "circles ms (CPU)", "peak MB"))


@pytest.mark.long
def test_the_next_window_begins_where_the_last_one_was(root, folder, session):
    def opened():
        window = annotate_window(session, Scene(find_tomograms([str(folder)]), []), parent=root).open()
        pump(window.top, 0.4)
        window.top.focus_force()
        return window

    first = opened()
    key(first, "Key-t")
    key(first, "Key-l")
    key(first, "Key-l")
    key(first, "Key-L")
    key(first, "Key-s")
    key(first, "period")  # the sliders are on a page that was never shown
    assert first.panel.look == Look(2, 0.25, 0.6)
    first._open("b")
    first.panel.zoom(2.0)
    first.panel.centre_on((5, 40, 20))
    pump(first.top, 0.1)
    scale = first.panel.viewport.scale_px
    first.close()
    again = opened()
    assert (again.panel.tomogram, again.panel.position) == ("b", [5, 40, 20])
    assert again.tomograms.curselection() == (1,)
    assert again.panel.look == Look(2, 0.25, 0.6)
    assert (again.average.get(), again.smooth.get(), again.clipped.get()) == (2, 0.25, 0.6)
    assert again.snapping.get()
    assert again.panel.viewport.scale_px == pytest.approx(scale)
    again.close()


@pytest.mark.parametrize("text", ["", "[]", '{"tomogram": "gone"}',
                                  '{"tomogram": "gone", "position_zyx_vox": [1, 2, 3], "scale_px": 1, "snapping": 0, '
                                  '"look": {"average": 1}}',
                                  '{"tomogram": "b", "position_zyx_vox": [NaN, 2, 3], "scale_px": 1, "snapping": 0, '
                                  '"look": {"average": 1}}',
                                  '{"tomogram": "b", "position_zyx_vox": [1, 2, 3], "scale_px": 1, "snapping": 0, '
                                  '"look": {"average": "x"}}'])
def test_a_view_that_cannot_be_recalled_does_no_harm(root, folder, session, text):
    (session.folder / "view.json").write_text(text)
    window = annotate_window(session, Scene(find_tomograms([str(folder)]), []), parent=root).open()
    pump(window.top, 0.2)
    assert window.panel.tomogram == "a"
    window.close()
