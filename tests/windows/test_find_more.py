"""Find more like these, in the window with its keys: yes, no, next, back, pull, undo, another class, no engine."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from shells import DIAMETER, HOLLOW, SPOTS, VOXEL, grey, is_hollow
from virtual_screen import pump, pumpUntil, touch

from deepetpicker.annotation.records import Particle
from deepetpicker.annotation.session import Session
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.volumes import write_volume
from deepetpicker.windows.inputs import find_tomograms, prepare_session
from deepetpicker.windows.linked import annotate_window
from deepetpicker.windows.scene import Scene

pytestmark = pytest.mark.gui


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two tomograms; what was looked for once is kept in it."""
    made = tmp_path_factory.mktemp("more")
    for seed, (name, hollow) in enumerate(HOLLOW.items()):
        write_volume(made / f"{name}.mrc", grey(seed, hollow), VOXEL)
    return made


@pytest.fixture
def window(root, folder):
    """Yield the window on a session with four marked shells."""
    with Session(folder / "out") as session:
        scene = Scene(find_tomograms([str(folder)]), [])
        prepare_session(session, scene, {}, [ParticleClass(1, "shell", DIAMETER), ParticleClass(2, "ball", DIAMETER)])
        opened = annotate_window(session, scene, parent=root).open()
        pump(opened.top, 0.3)
        opened.top.focus_force()
        for spot in SPOTS[HOLLOW["TS_1"]][:4]:
            session.add("TS_1", Particle(tuple(spot), 1))
        before = len(session._done)
        opened._refresh()
        yield opened
        opened.close()
        while len(session._done) > before - 4:
            session.undo()


def key(window, name):
    """Press a key."""
    window.top.event_generate(f"<{name}>")
    pump(window.top, 0.05)


def total(session, records):
    """Return how many records all tomograms have."""
    return sum(len(getattr(session, records)(name)) for name in HOLLOW)


def begun(window):
    """Begin to look for more and wait until all candidates are there."""
    key(window, "Key-f")
    pumpUntil(window.top, lambda: window.more.similar.is_complete and window.more.current is not None, 60)
    return window.more


@pytest.mark.long
def test_the_list_is_walked_by_keyboard(window):
    session, more = window.session, begun(window)
    assert window.book.index("current") == 1
    assert is_hollow(more.current)
    assert window.panel.tomogram == more.current.tomogram
    np.testing.assert_array_equal(window.panel.position, np.rint(more.current.position_zyx_vox))
    first = more.current
    key(window, "space")
    assert total(session, "particles") == 5
    assert session.particles(first.tomogram)[max(session.particles(first.tomogram))] == Particle(
        first.position_zyx_vox, 1)
    second = more.current
    assert (second.tomogram, second.row) != (first.tomogram, first.row)
    key(window, "Key-x")
    assert [n.position_zyx_vox for n in session.negatives(second.tomogram).values()] == [second.position_zyx_vox]
    assert "Of the last 2 answers 1 were yes" in more.question.get()
    key(window, "Control-z")
    assert total(session, "negatives") == 0
    assert (more.current.tomogram, more.current.row) == (second.tomogram, second.row)  # it is asked again
    key(window, "Key-n")
    third = more.current
    assert (third.tomogram, third.row) != (second.tomogram, second.row)
    key(window, "Key-p")
    assert (more.current.tomogram, more.current.row) == (second.tomogram, second.row)
    assert len(more.sheet.tiles) >= 8
    key(window, "Key-f")
    assert not more.active
    key(window, "space")  # keys mean particles again
    assert total(session, "particles") == 5


@pytest.mark.long
def test_particles_to_start_from_become_what_was_answered(window):
    session, more = window.session, begun(window)
    first, second = more.ranked()[:2]
    for one in (first, second):
        session.add(one.tomogram, Particle(one.position_zyx_vox, 2, score=0.4, reviewed=False))
    window._refresh()
    assert more.current == first
    key(window, "space")
    assert Particle(first.position_zyx_vox, 1, score=0.4) in session.particles(first.tomogram).values()
    assert total(session, "particles") == 6
    more._ask(second)
    key(window, "Key-x")
    assert total(session, "particles") == 5
    assert [one.position_zyx_vox for one in session.negatives(second.tomogram).values()] == [second.position_zyx_vox]
    key(window, "Control-z")
    assert total(session, "particles") == 6


@pytest.mark.long
def test_a_candidate_is_pulled_refused_by_the_right_button_and_clicks_beside_it_still_add(window):
    session, more = window.session, begun(window)
    z, y, x = more.centre
    touch(window.panel, 0, (x, y), "<ButtonPress-1>")
    touch(window.panel, 0, (x + 1, y), "<B1-Motion>")
    touch(window.panel, 0, (x + 2, y - 1), "<B1-Motion>")
    touch(window.panel, 0, (x + 2, y - 1), "<ButtonRelease-1>")
    pump(window.top, 0.05)
    assert total(session, "particles") == 4
    key(window, "space")
    added = max(key for name in HOLLOW for key in session.particles(name))
    place = next(session.particles(name)[added] for name in HOLLOW if added in session.particles(name))
    assert np.abs(np.subtract(place.position_zyx_vox, (z, y - 1, x + 2))).max() < 0.6
    refused = more.current
    touch(window.panel, 0, refused.position_zyx_vox[:0:-1], "<ButtonPress-3>")
    pump(window.top, 0.05)
    assert total(session, "negatives") == 1
    z, y, x = more.centre
    beside = (x + 30 if x < 50 else x - 30, y)
    before = total(session, "particles")
    touch(window.panel, 0, beside, "<ButtonPress-1>")
    touch(window.panel, 0, beside, "<ButtonRelease-1>")
    pump(window.top, 0.05)
    assert total(session, "particles") == before + 1


@pytest.mark.long
def test_a_click_in_two_views_puts_a_candidate_at_its_centre(window):
    session, more = window.session, begun(window)
    asked, (z, y, x) = more.current, more.centre
    for axis, at in ((0, (x + 3, y - 2)), (1, (x + 3, z + 2))):
        touch(window.panel, axis, at, "<ButtonPress-1>")
        touch(window.panel, axis, at, "<ButtonRelease-1>")
        pump(window.top, 0.05)
    assert total(session, "particles") == 4
    assert np.abs(more.centre - (z + 2, y - 2, x + 3)).max() < 0.6
    np.testing.assert_array_equal(window.panel.position, np.rint(more.centre))  # all views cut through it
    key(window, "space")
    found = session.particles(asked.tomogram)
    assert np.abs(np.subtract(found[max(found)].position_zyx_vox, (z + 2, y - 2, x + 3))).max() < 0.6
    assert (more.current.tomogram, more.current.row) != (asked.tomogram, asked.row)


def test_too_few_marks_and_an_engine_that_does_not_start_are_said(window):
    key(window, "Key-2")
    key(window, "Key-f")
    assert "mark at least 3 particles of the class ball first" in window.error.get()
    assert not window.more.active
    key(window, "Key-1")
    window.more.similar._start = lambda words: [sys.executable, "-c", "import sys; sys.exit('error: no torch here')"]
    window.more.similar.close()
    key(window, "Key-f")
    pumpUntil(window.top, lambda: window.more.similar.problem)
    pump(window.top, 0.3)
    assert "error: no torch here" in window.more.status.get()
