"""The model of an annotation session: what is done, undone, found, and kept on disk at every moment."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepetpicker.annotation.annotations import moved
from deepetpicker.annotation.records import AnnotatedTomogram, ClassLook, Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.regions import Region

A = AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))
B = AnnotatedTomogram("b", "/data/b.mrc", 12.5, (20, 64, 48))
RING, ROD = ParticleClass(0, "ring", 168.0), ParticleClass(2, "rod", 253.0)
BOX = Region((0, 5, 5), (23, 30, 40))


@pytest.fixture
def session(tmp_path):
    """Yield a session of two tomograms and two classes."""
    with Session(tmp_path / "out") as opened:
        opened.set_tomograms([A, B])
        opened.set_classes([RING, ROD])
        yield opened


def content(session):
    """Return everything a session holds, to be compared."""
    return ({t.name: (session.particles(t.name), session.negatives(t.name), session.regions(t.name))
             for t in session.tomograms}, session.classes, session.tomograms)


def reopened(session):
    """Return what a session of the same folder holds, without closing this one as a window would be closed."""
    folder = session.folder
    session._stack.close()  # what a kill does: the lock and the file are gone, nothing is written
    other = Session(folder)
    found = content(other)
    other._stack.close()
    return found


def test_particles_are_added_moved_given_another_class_and_removed(session):
    key = session.add("a", Particle((3.25, 7.5, 11.0), 0))
    session.change("a", key, moved(session.particles("a")[key], (4, 8, 12.5)))
    session.change("a", key, Particle((4.0, 8.0, 12.5), 2))
    assert session.particles("a") == {key: Particle((4.0, 8.0, 12.5), 2)}
    session.remove("particle", "a", key)
    assert session.particles("a") == {}
    with pytest.raises(InputError, match=f"no particle {key} in a"):
        session.remove("particle", "a", key)


def test_undo_and_redo_have_no_limit(session):
    states = [content(session)]
    rng, key = np.random.default_rng(0), 0
    for number in range(90):
        if number % 3 == 2:
            session.change("a", key, moved(session.particles("a")[key], rng.random(3) * 20))
        else:
            key = session.add("a", Particle(tuple(rng.random(3) * 20), int(rng.choice([0, 2]))))
        states.append(content(session))
    for state in reversed(states[:-1]):
        assert session.undo()
        assert content(session) == state
    assert session.undo() == []
    for state in states[1:]:
        assert session.redo()
        assert content(session) == state
    assert session.redo() == []


def test_a_new_change_ends_redoing(session):
    session.add("a", Particle((1.0, 2.0, 3.0), 0))
    session.undo()
    session.add("a", Particle((4.0, 5.0, 6.0), 0))
    assert session.redo() == []
    assert [p.position_zyx_vox for p in session.particles("a").values()] == [(4.0, 5.0, 6.0)]


def test_this_is_not_one_makes_a_negative_in_one_step(session):
    key = session.add("a", Particle((1.0, 2.0, 3.0), 0))
    session.refuse("a", key)
    assert session.particles("a") == {}
    assert list(session.negatives("a").values()) == [Negative((1.0, 2.0, 3.0))]
    session.undo()
    assert list(session.particles("a")) == [key]
    assert session.negatives("a") == {}


def test_regions_and_classes_are_undone_too(session):
    key = session.add("b", BOX)
    session.change("b", key, Region((2, 5, 5), (19, 30, 40)))
    new = session.new_class("disc", 120.0)
    assert new.kind.id == 3
    session.set_class(ClassLook(ParticleClass(3, "plate", 130.0), "#ff0000"))
    for _ in range(3):
        session.undo()
    assert session.regions("b") == {key: BOX}
    assert [one.kind for one in session.classes] == [RING, ROD]


def test_classes_need_names_of_their_own_and_no_particles_to_be_removed(session):
    with pytest.raises(InputError, match="'ring' is given twice"):
        session.new_class("ring", 10.0)
    with pytest.raises(InputError, match="needs a name"):
        session.new_class("  ", 10.0)
    session.add("b", Particle((1.0, 2.0, 3.0), 0))
    with pytest.raises(InputError, match="class 0 has 1 particles"):
        session.remove_class(0)
    session.remove_class(2)
    assert [one.kind for one in session.classes] == [RING]


def test_counts_per_class_and_tomogram(session):
    for position in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)):
        session.add("a", Particle(position, 2))
    session.add("b", Particle((1.0, 2.0, 3.0), 0))
    assert session.counts("a") == {0: 0, 2: 2}
    assert session.counts("b") == {0: 1, 2: 0}


def test_the_start_is_unreviewed_and_cannot_be_undone(session):
    start = CoordinateTable(np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), np.array([0, 0, 2]),
                            np.array([0.2, 0.9, 0.5]))
    session.set_start({"a": start})
    assert session.undo() == []
    order = session.ordered("a")
    assert [session.particles("a")[key].score for key in order] == [0.9, 0.5, 0.2]
    first = order[0]
    session.change("a", first, moved(session.particles("a")[first], (4.0, 5.0, 6.0)))
    assert session.ordered("a", only_unreviewed=True) == order[1:]
    assert len(session.unreviewed("a")) == 2


def test_the_nearest_mark_is_found_within_reach(session):
    far = session.add("a", Particle((10.0, 10.0, 10.0), 0))
    near = session.add("a", Negative((10.0, 10.0, 14.0)))
    assert session.nearest("a", (10, 10, 11), 5.0) == ("particle", far)
    assert session.nearest("a", (10, 10, 13), 5.0) == ("negative", near)
    assert session.nearest("a", (10, 30, 13), 5.0) is None
    assert session.nearest("b", (10, 10, 11), 5.0) is None


def test_everything_is_on_disk_after_each_change(session):
    key = session.add("a", Particle((1 / 3, math.pi, 1e-7), 2))
    session.add("b", Negative((1.5, 2.5, 3.5)))
    session.add("b", BOX)
    session.undo()
    session.change("a", key, moved(session.particles("a")[key], (0.1, 0.2, 0.3)))
    session.set_class(ClassLook(ParticleClass(2, "bâton", 250.5), "#123456"))
    assert reopened(session) == content(session)


def test_undo_goes_on_after_a_kill(session):
    session.add("a", Particle((1.0, 2.0, 3.0), 0))
    session.add("a", Particle((4.0, 5.0, 6.0), 0))
    session.undo()
    folder = session.folder
    session._stack.close()
    with Session(folder) as other:
        assert len(other.particles("a")) == 1
        assert other.redo()
        assert len(other.particles("a")) == 2
        other.undo()
        other.undo()
        assert other.particles("a") == {}


def test_closing_keeps_everything_in_a_snapshot_and_keys_are_never_used_again(tmp_path):
    with Session(tmp_path) as session:
        session.set_tomograms([A])
        session.set_classes([RING])
        session.add("a", Particle((1.0, 2.0, 3.0), 0, 0.25, False))
        last = session.add("a", Particle((4.0, 5.0, 6.0), 0))
        session.remove("particle", "a", last)
        before = content(session)
    assert (tmp_path / "journal.jsonl").read_bytes() == b""
    with Session(tmp_path) as session:
        assert content(session) == before
        assert session.add("a", Particle((7.0, 8.0, 9.0), 0)) > last


def test_another_binning_under_the_same_name_is_refused(session):
    with pytest.raises(InputError, match="annotated as 56 x 40 x 24 voxels of 10 angstrom and is now 28 x 20 x 12"):
        session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 20.0, (12, 20, 28))])
    assert session.set_tomograms([AnnotatedTomogram("a", "/moved/a.mrc", 10.0, (24, 40, 56))]) == []
    assert session.tomogram("a").path == "/moved/a.mrc"
    with pytest.raises(InputError, match="no tomogram 'c'"):
        session.tomogram("c")
