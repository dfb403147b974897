"""The review window, used by keys and mouse on a virtual screen, and the command that opens it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from virtual_screen import pump, pumpUntil

from deepetpicker import __main__ as command
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.cli.review import candidates, thresholds
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.regions import read_negatives
from deepetpicker.io.volumes import write_volume
from deepetpicker.windows.inputs import find_tomograms, prepare_session, read_tables
from deepetpicker.windows.linked import annotate_window, review_window
from deepetpicker.windows.scene import Scene
from tests.windows.hands import window_named

pytestmark = pytest.mark.gui
SHAPE, CENTRE = (24, 40, 56), np.array([11.0, 20.0, 30.0])
CLASSES = [ParticleClass(1, "ring", 60.0), ParticleClass(2, "rod", 90.0)]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two tomograms, the first with a ball, and 200 and 40 picks of them in ``picks``."""
    rng = np.random.default_rng(0)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, SHAPE))], CENTRE)))
    volume = 5 / (1 + np.exp(2 * (distance - 3.0))) + rng.normal(0, 0.1, SHAPE)
    (tmp_path / "picks").mkdir()
    for name, count in (("a", 200), ("b", 40)):
        write_volume(tmp_path / f"{name}.mrc", volume.astype(np.float32), 10.0)
        table = CoordinateTable(rng.uniform(0, 1, (count, 3)) * np.subtract(SHAPE, 1), rng.integers(1, 3, count),
                                rng.uniform(0.3, 0.9, count))
        if name == "a":  # the best one lies beside the ball
            table.positions_zyx_vox[0], table.scores[0], table.class_ids[0] = CENTRE + [1, -1, 1], 0.99, 1
        write_coordinates(tmp_path / "picks" / f"{name}.csv", table)
    return tmp_path


@pytest.fixture
def window(root, folder):
    """Yield the open window."""
    scene = Scene(find_tomograms([str(folder)]), [])
    picks = read_tables(list(scene.files.values()), [str(folder / "picks")])
    with Session(folder / "out") as session:
        prepare_session(session, scene, picks, CLASSES)
        opened = review_window(session, scene, parent=root, thresholds={1: 0.6}).open()
        pump(opened.top, 0.3)
        opened.top.focus_force()
        yield opened
        opened.close()


def key(window, *names):
    """Press keys one after the other."""
    for name in names:
        window.top.event_generate(f"<{name}>")
        pump(window.top, 0.03)


def answers(window):
    """Return what the tiles of the page say."""
    return [tile.answer for tile in window.sheet.tiles]


def test_single_picks_and_rows_are_answered_by_keys(window):
    columns, session = window.sheet.columns, window.session
    assert len(window.sheet.tiles) == window.capacity >= 60
    key(window, "space", "Key-x", "Right", "Key-2")
    assert answers(window)[:5] == ["right", "refused", "", "right", ""]
    assert window.review.now(3).class_id == 2
    assert window.cursor == 4
    key(window, "Down", "Key-r", "Key-x")
    assert answers(window)[columns:2 * columns] == ["refused"] * columns
    assert "ring" in window._class_buttons[0].cget("text")
    key(window, "Control-z")
    assert answers(window)[columns:2 * columns] == [""] * columns
    key(window, "Control-y", "Down", "Shift-Right", "Shift-Right", "space")
    assert answers(window).count("right") == 5
    assert answers(window).count("refused") == columns + 1
    seen = window.capacity
    key(window, "Return")  # the rest of the page
    assert window.page == 1
    assert len(session.unreviewed("a")) + len(session.unreviewed("b")) == 240 - seen
    assert f"{seen - columns - 1} right, {columns + 1} refused, {240 - seen} not yet seen" in window.place.get()


def test_keys_change_how_crops_look(window):
    window.clipped.set(2.0)
    key(window, "period", "Key-i")
    pumpUntil(window.top, lambda: window.sheet.look.clipped_percent == pytest.approx(2.5))
    assert window.sheet.look.inverted
    key(window, "comma", "Key-i")
    pumpUntil(window.top, lambda: window.sheet.look.clipped_percent == pytest.approx(2.0))
    assert not window.sheet.look.inverted


def test_orders_tomograms_and_what_is_shown(window):
    window.order.set("doubt")
    window.arrange()
    scores = np.array([window.review.now(n).score for n in range(20)])
    low = np.array([window.review.thresholds()[window.review.now(n).class_id] for n in range(20)])
    assert (np.diff(np.abs(scores - low)) >= 0).all()
    window.tomograms.selection_clear(0, "end")
    window.tomograms.selection_set(window.names.index("b") + 1)
    window.tomograms.event_generate("<<ListboxSelect>>")
    pumpUntil(window.top, lambda: len(window.review.entries) == 40)
    key(window, "Key-x", "Key-x")
    window.shown.set("refused")
    window.arrange()
    assert answers(window) == ["refused", "refused"]
    key(window, "space")
    assert answers(window) == ["right", "refused"]
    assert "b (39, 38 new)" in window.tomograms.get(window.names.index("b") + 1)


def test_a_pick_is_moved_by_keys_by_a_pull_and_to_the_density(window):
    place = np.array(window.review.now(0).position_zyx_vox)
    key(window, "Control-Right", "Control-Up", "Control-Prior")
    np.testing.assert_allclose(window.review.now(0).position_zyx_vox, place + 1)
    x, y = window.sheet.corner(0)
    middle, canvas = window.sheet.edge_px // 2, window.sheet.canvas
    pixel = 2 * 1.8 * 3.0 / window.sheet.edge_px  # voxels; the ring has a radius of 3
    for kind, a, b in (("<ButtonPress-1>", 0, 0), ("<B1-Motion>", 8, 4), ("<ButtonRelease-1>", 16, 8)):
        canvas.event_generate(kind, x=x + middle + a, y=y + middle + b, state=0 if "Press" in kind else 256)
        pump(window.top, 0.03)
    np.testing.assert_allclose(window.review.now(0).position_zyx_vox,
                               place + 1 + [0, 8 * pixel, -16 * pixel], atol=1e-6)
    key(window, "Control-Next", "Key-s")  # from within reach: a click two voxels off stays where it is
    assert np.abs(np.array(window.review.now(0).position_zyx_vox) - CENTRE).max() < 0.3
    assert window.sheet.tiles[0].position_zyx_vox == window.review.now(0).position_zyx_vox


def test_three_cuts_and_the_slices_show_the_same_pick(window):
    width = window.sheet.width_px
    key(window, "Key-k")
    assert window.sheet.width_px == 3 * width + 4
    assert window.sheet.picture(window.sheet.tiles[0]).shape == (window.sheet.edge_px, window.sheet.width_px)
    key(window, "Key-g")
    pumpUntil(window.top, lambda: window.slices.panel.tomogram)
    assert window.slices.tool.selected == ("particle", window.review.entries[0].key)
    np.testing.assert_array_equal(window.slices.panel.position,
                                  np.rint(window.review.now(0).position_zyx_vox))
    window.slices.remove_selected()  # done there, seen here
    window.slices.close()
    window.top.focus_force()
    pumpUntil(window.top, lambda: answers(window)[0] == "refused")
    assert window.sheet.tiles[0].text.startswith("removed")
    key(window, "Control-z")
    assert answers(window)[0] == ""


def test_a_page_of_many_is_drawn_anew(window):
    window.sheet.edge_px = 60
    window.fit()
    assert len(window.sheet.tiles) >= 100
    window.turn(0)
    window.top.update()
    assert len(window.sheet.tiles) >= 100


@pytest.mark.long
def test_the_command_reviews_is_killed_and_goes_on(folder, display):
    def start(*words):
        line = [sys.executable, "-m", "deepetpicker", "review", *words, "--tomograms", str(folder), "--out",
                str(folder / "out"), "--classes", "1:ring:60,2:rod:90"]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        window_named("DeepETPicker: review")
        time.sleep(0.8)
        return process

    process = start(str(folder / "picks"))
    journal = folder / "out" / "journal.jsonl"
    for name in ("space", "x", "r", "x"):
        before = journal.stat().st_size
        subprocess.run(["xdotool", "key", name], check=True)
        end = time.monotonic() + 10
        while name != "r" and journal.stat().st_size == before and time.monotonic() < end:
            time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Session(folder / "out") as session:
        refused = sum(len(session.negatives(name)) for name in "ab")
        assert refused >= 8  # a row
        assert sum(len(session.particles(name)) for name in "ab") == 240 - refused
    process = start()  # without picks: it goes on
    subprocess.run(["xdotool", "key", "ctrl+w"], check=True)
    assert "train --data" in process.communicate(timeout=60)[1]
    assert process.returncode == 0
    version = folder / "out" / "version_001"
    assert sum(len(read_coordinates(version / f"{name}.csv")) for name in "ab") == 240 - refused
    assert sum(len(read_negatives(path)) for path in version.glob("*_negatives.csv")) == refused


def test_thresholds_come_from_the_command_or_the_manifest_beside_the_picks(tmp_path):
    assert thresholds("0.4,2:0.6", [], CLASSES) == {1: 0.4, 2: 0.6}
    manifest = Manifest("pick", {}, seed=0)
    manifest.add_item("a", "done", thresholds={"1": 0.35, "2": 0.5})
    manifest.write(tmp_path / "manifest.json")
    assert thresholds("", [str(tmp_path)], CLASSES) == {1: 0.35, 2: 0.5}
    assert thresholds("", [], CLASSES) == {}
    with pytest.raises(InputError, match="--threshold"):
        thresholds("nine", [], CLASSES)


def test_the_candidates_of_a_picking_are_offered_and_enter_with_an_answer_only(root, folder, tmp_path):
    scene = Scene(find_tomograms([str(folder / "b.mrc")]), [])
    write_coordinates(tmp_path / "all.csv", CoordinateTable(np.array([[12.0, 20, 28], [3, 4, 5]]), np.array([1, 2]),
                                                            np.array([0.29, 0.1])))
    manifest = Manifest("pick", {}, seed=0)
    manifest.add_item("b", "done", candidates=str(tmp_path / "all.csv"))
    manifest.write(tmp_path / "manifest.json")
    below = {"b": candidates([str(tmp_path)], scene.header("b"))}
    with pytest.raises(InputError, match=r"no manifest\.json beside the picks names candidates of b"):
        candidates([str(folder / "picks")], scene.header("b"))
    with Session(folder / "out") as session:
        prepare_session(session, scene, read_tables(list(scene.files.values()), [str(folder / "picks")]), CLASSES)
        window = review_window(session, scene, parent=root, below=below).open()
        pump(window.top, 0.3)
        window.top.focus_force()
        assert sum(tile.text.startswith("0.29 offered") for tile in window.sheet.tiles) == 1
        key(window, "Return")  # the rest of the page: the picks alone
        assert answers(window).count("right") == 40
        window.go(next(n for n, tile in enumerate(window.sheet.tiles) if "offered" in tile.text))
        key(window, "space")
        assert len(session.particles("b")) == 41
        window.close()


def test_sheets_open_from_the_slices_on_the_same_particles(root, folder):
    scene = Scene(find_tomograms([str(folder)]), [])
    with Session(folder / "out") as session:
        prepare_session(session, scene, read_tables(list(scene.files.values()), [str(folder / "picks")]), CLASSES)
        slices = annotate_window(session, scene, parent=root).open()
        pump(slices.top, 0.3)
        first = session.ordered("a")[0]
        slices.show_particle("a", first, session.particles("a")[first].position_zyx_vox)
        slices.open_sheets()
        pump(slices.top, 0.3)
        slices.sheets.top.focus_force()
        key(slices.sheets, "Key-x")  # the best of all, which is selected in the slices
        assert first not in session.particles("a")
        slices.sheets.close()
        slices.top.focus_force()
        pumpUntil(slices.top, lambda: slices.tool.selected is None)
        slices.close()


def test_what_cannot_be_reviewed_is_one_line_and_status_2(folder, display, capfd):
    words = ["review", "--tomograms", str(folder), "--out", str(folder / "new")]
    assert command.main(words) == 2
    assert "expected picks, or a folder in which some are being reviewed" in capfd.readouterr().err
    assert command.main([*words, "--tables-only"]) == 2
    assert "nothing was reviewed" in capfd.readouterr().err
    assert not (folder / "new").exists()
    with Session(folder / "new") as session:
        scene = Scene(find_tomograms([str(folder)]), [])
        prepare_session(session, scene, read_tables(list(scene.files.values()), [str(folder / "picks")]), CLASSES)
        assert save_version(session) is not None
