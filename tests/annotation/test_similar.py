"""Find more like these, without a window: the engine in the background, the ranking, and that every answer counts."""

from __future__ import annotations

import time

import numpy as np
import pytest
from shells import DIAMETER, HOLLOW, SHAPE, SPOTS, VOXEL, grey, is_hollow

from deepetpicker.annotation.records import AnnotatedTomogram, Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.similar import Similar
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.volumes import write_volume

pytest.importorskip("torch")  # the engine beside the window, which Python 3.8 goes without
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tomograms(tmp_path_factory):
    """Return two tomograms with balls and shells, and one that is damaged."""
    folder = tmp_path_factory.mktemp("similar")
    for seed, (name, hollow) in enumerate(HOLLOW.items()):
        write_volume(folder / f"{name}.mrc", grey(seed, hollow), VOXEL)
    (folder / "TS_3.mrc").write_bytes((folder / "TS_1.mrc").read_bytes()[:3000])
    return [AnnotatedTomogram(name, str(folder / f"{name}.mrc"), VOXEL, SHAPE) for name in ("TS_1", "TS_2", "TS_3")]


def waited(similar, until=lambda one: one.is_complete, seconds=180.0):
    """Wait for the background."""
    end = time.monotonic() + seconds
    while not until(similar):
        similar.poll()
        assert time.monotonic() < end, similar.problem
        time.sleep(0.02)
    return similar


@pytest.fixture(scope="module")
def opened(tomograms, tmp_path_factory):
    """Yield a session with four marked shells, and the list of what is like them."""
    with Session(tmp_path_factory.mktemp("session") / "out") as session:
        session.set_tomograms(tomograms)
        session.set_classes([ParticleClass(1, "shell", DIAMETER), ParticleClass(2, "ball", DIAMETER)])
        similar = Similar(session)
        with pytest.raises(InputError, match=r"mark at least 3 particles of the class shell first \(there are 0\)"):
            similar.begin(1)
        for spot in SPOTS[HOLLOW["TS_1"]][:4] + [0.4, -0.5, 0.3]:
            session.add("TS_1", Particle(tuple(spot), 1))
        similar.begin(1, first="TS_2")
        yield session, waited(similar)
        similar.close()


@pytest.fixture
def similar(opened):
    """Return both; what a test changes is undone behind it."""
    session, found = opened
    count = len(session._done)
    yield session, found
    while len(session._done) > count:
        session.undo()


def test_what_is_like_the_marked_comes_first_in_all_tomograms(similar):
    session, found = similar
    assert found.names[0] == "TS_2"
    assert set(found.failed) == {"TS_3"}
    first = found.ranked()[:14]
    assert sum(map(is_hollow, first)) >= 13
    assert {one.tomogram for one in first} == {"TS_1", "TS_2"}
    assert all(np.linalg.norm(np.array(p.position_zyx_vox) - one.position_zyx_vox) > 0.7 * DIAMETER / VOXEL
               for p in session.particles("TS_1").values() for one in found.ranked() if one.tomogram == "TS_1")


def test_every_answer_ranks_anew_and_undo_takes_it_back(similar):
    session, found = similar
    before = found.ranked()
    first, ball = before[0], next(one for one in before if not is_hollow(one))
    session.add(first.tomogram, Particle(first.position_zyx_vox, 1))
    session.add(ball.tomogram, Negative(ball.position_zyx_vox))
    after = found.ranked()
    assert {(one.tomogram, one.row) for one in (first, ball)}.isdisjoint((one.tomogram, one.row) for one in after)
    assert [one.likeness for one in after] == sorted((one.likeness for one in after), reverse=True)
    session.undo()
    session.undo()
    assert found.ranked() == before
    found.later(first)
    assert found.ranked()[-1].row == first.row
    assert len(found.ranked()) == len(before)


def test_particles_to_start_from_are_asked_about_until_somebody_looked_at_them(similar):
    session, found = similar
    before = found.ranked()
    first = before[0]
    key = session.add(first.tomogram, Particle(first.position_zyx_vox, 2, score=0.4, reviewed=False))
    assert found.ranked() == before
    assert found.unseen(first, True) == found.unseen(first, False) == key
    assert found.unseen(before[1], True) is None
    session.change(first.tomogram, key, Particle(first.position_zyx_vox, 1))
    assert found.unseen(first, True) is None
    assert (first.tomogram, first.row) not in {(one.tomogram, one.row) for one in found.ranked()}


def test_a_mark_beside_all_candidates_is_asked_for(similar):
    session, found = similar
    at = (20.0, 22.0, 22.0)  # between the spots
    session.add("TS_2", Negative(at))
    found.ranked()
    assert found._known["TS_2", at] is None
    waited(found, lambda one: one._known["TS_2", at] is not None)
    assert found._known["TS_2", at].shape == (found._found["TS_2"].features.shape[1],)
    assert found.ranked()


def test_each_class_has_its_own_list_and_candidates_are_made_once(similar):
    session, found = similar
    for spot in SPOTS[~HOLLOW["TS_1"]][:4]:
        session.add("TS_1", Particle(tuple(spot), 2))
    background = found.background
    found.begin(2)
    assert found.background is background  # the diameter is the same
    assert sum(map(is_hollow, found.ranked()[:10])) <= 2
    path = background.folder / "TS_1.npz"
    before = path.stat().st_mtime_ns
    other = Similar(session)
    other.begin(2)
    waited(other)
    assert path.stat().st_mtime_ns == before
    assert other.ranked() == found.ranked()
    other.background._process.kill()
    waited(other, lambda one: one.problem)
    assert "status -9" in other.problem or other.problem
    other.begin(2)  # begins anew
    assert waited(other).ranked() == found.ranked()
    other.close()
    found.begin(1)
