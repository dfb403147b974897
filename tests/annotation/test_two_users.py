"""Two who annotate in one folder: one at a time where locks work, and nothing lost where they do not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import pwd
import subprocess
import sys
import tempfile
from typing import Iterator, List

import pytest

from deepetpicker.annotation.records import AnnotatedTomogram, Particle
from deepetpicker.annotation.session import JOURNAL_FILE, SNAPSHOT_FILE, Session
from deepetpicker.annotation.versions import save_version, versions
from deepetpicker.errors import InputError, OutputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import read_coordinates

NOBODY = 65534
FILES = ("session.lock", JOURNAL_FILE, SNAPSHOT_FILE)

# Annotates as a person of its own and says how each try ended; tries again until the other has closed the window. Who
# is first keeps it open until the other has been told, however late that one begins.
PERSON = """
import pathlib, sys, time
from deepetpicker.annotation.records import AnnotatedTomogram, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
left, met = 4, pathlib.Path(sys.argv[3])
while left:
    try:
        with Session(sys.argv[1]) as session:
            session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))])
            session.set_classes([ParticleClass(1, "ring", 100.0)])
            for _ in range(5):
                session.add("a", Particle((1.0, float(sys.argv[2]), float(5 * left)), 1))
                time.sleep(0.01)
            while not met.exists():
                time.sleep(0.01)
            save_version(session)
        left -= 1
        print("done", flush=True)
    except InputError as error:
        assert "is open in another window (process " in str(error), error
        met.touch()
        print("told", flush=True)
    time.sleep(0.03)
"""


def begun(session: Session) -> Session:
    """Let a session know its tomogram and class."""
    session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))])
    session.set_classes([ParticleClass(1, "ring", 100.0)])
    return session


def click(session: Session, x: float) -> None:
    """Mark a particle."""
    session.add("a", Particle((1.0, 2.0, x), 1))


def clicked(folder: pathlib.Path) -> List[float]:
    """Return where particles are when the folder is opened."""
    with Session(folder) as session:
        return sorted(p.position_zyx_vox[2] for p in session.particles("a").values())


def left_open(session: Session) -> None:
    """Let go of a session as a kill does."""
    session._stack.close()


@pytest.fixture
def shared() -> Iterator[pathlib.Path]:
    """Yield a folder that every account can enter and write to."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = pathlib.Path(place, "annotation")
        folder.mkdir()
        folder.chmod(0o777)
        yield folder


@contextlib.contextmanager
def another_account() -> Iterator[None]:
    """Be another account, for files that give others no right; who is not root is kept out of files of its own."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def closed_to_others(folder: pathlib.Path) -> None:
    """Give the files of a folder the permissions that umask 022 leaves to others."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644 if os.geteuid() == 0 else 0o444)


@pytest.mark.long
def test_two_people_at_once_are_told_and_every_click_is_kept(tmp_path):
    folder, met = tmp_path / "annotation", tmp_path / "met"
    people = [subprocess.Popen([sys.executable, "-c", PERSON, str(folder), str(n), str(met)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True) for n in (1, 2)]
    ended = [person.communicate(timeout=60) for person in people]
    said = [out.split() for out, _ in ended]
    assert [words.count("done") for words in said] == [4, 4], [errors[-500:] for _, errors in ended]
    assert sum(words.count("told") for words in said) >= 1
    with Session(folder) as session:
        places = sorted(p.position_zyx_vox[1:] for p in session.particles("a").values())
    assert places == sorted((float(n), float(5 * m)) for n in (1, 2) for m in (1, 2, 3, 4) for _ in range(5))
    tables = [len(read_coordinates(version / "a.csv")) for version in versions(folder)]
    assert tables == [5, 10, 15, 20, 25, 30, 35, 40]


def test_another_account_is_told_whose_window_is_open(shared):
    with begun(Session(shared)) as session:
        click(session, 1.0)
        closed_to_others(shared)
        with another_account(), pytest.raises(InputError) as told:
            Session(shared)
        me = pwd.getpwuid(os.getuid()).pw_name
        assert (f"is open in another window (process {os.getpid()} on {platform.node()}, of {me}, since"
                in str(told.value))
        for path in shared.iterdir():
            path.chmod(0o644)
        click(session, 2.0)  # and the first goes on
    assert clicked(shared) == [1.0, 2.0]


@pytest.mark.parametrize("only", [FILES, (JOURNAL_FILE,)])
def test_another_account_is_told_whose_files_they_are_and_how_to_go_on(shared, only):
    with begun(Session(shared)) as session:
        click(session, 1.0)
        save_version(session)
    for path in shared.iterdir():
        if path.is_file():
            path.chmod(0o666)
    closed_to_others(shared) if only == FILES else (shared / only[0]).chmod(0o444)
    before = {name: (shared / name).read_bytes() for name in FILES}
    with another_account(), pytest.raises(OutputError) as told:
        Session(shared)
    assert "Permission denied" in str(told.value)
    if os.geteuid() == 0:
        assert f"belongs to {pwd.getpwuid(0).pw_name}" in str(told.value)
    assert f"annotate --start {shared / 'version_001'}" in str(told.value)
    assert {name: (shared / name).read_bytes() for name in FILES} == before


def test_accounts_of_one_group_take_turns(shared):
    before = os.umask(0)  # as umask 002 in a group of both
    try:
        for number, account in enumerate((contextlib.nullcontext, another_account, contextlib.nullcontext)):
            with account(), begun(Session(shared)) as session:
                click(session, float(number))
                save_version(session)
    finally:
        os.umask(before)
    assert clicked(shared) == [0.0, 1.0, 2.0]
    assert [len(read_coordinates(folder / "a.csv")) for folder in versions(shared)] == [1, 2, 3]


@pytest.fixture
def blind(monkeypatch):
    """Let locks be seen by nobody, as on network file systems that keep them to one machine."""
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)


@pytest.mark.parametrize("history", ["new", "closed before"])
def test_who_comes_second_is_told_at_the_first_click_where_locks_are_not_seen(tmp_path, blind, history):
    if history == "closed before":  # then the journal is empty and all is in the snapshot
        with begun(Session(tmp_path)) as session:
            click(session, 0.0)
    first, second = begun(Session(tmp_path)), Session(tmp_path)
    click(first, 1.0)
    with pytest.raises(OutputError, match="another program has changed"):
        click(second, 2.0)
    click(first, 3.0)
    with pytest.raises(OutputError, match="another program has changed"):
        second.close()
    first.close()
    assert clicked(tmp_path)[-2:] == [1.0, 3.0]


def test_what_was_closed_by_one_is_not_written_over_by_another(tmp_path, blind):
    with begun(Session(tmp_path)) as session:
        click(session, 0.0)
    first, second, third = Session(tmp_path), Session(tmp_path), Session(tmp_path)
    click(first, 1.0)
    first.close()  # its journal is as empty as it was when the others came
    with pytest.raises(OutputError, match="another program has changed"):
        click(second, 2.0)
    left_open(second)
    with pytest.raises(OutputError, match="another program has changed"):
        third.close()
    assert clicked(tmp_path) == [0.0, 1.0]


def test_a_copy_into_the_folder_itself_is_no_change_by_another_and_never_goes_over_one(tmp_path, blind):
    first = begun(Session(tmp_path))
    click(first, 1.0)
    first.write_snapshot(tmp_path)
    click(first, 2.0)
    second = Session(tmp_path)
    click(first, 3.0)
    before = (tmp_path / SNAPSHOT_FILE).read_bytes()
    with pytest.raises(OutputError, match="another program has changed"):
        second.write_snapshot(tmp_path / ".")
    assert (tmp_path / SNAPSHOT_FILE).read_bytes() == before
    left_open(second)
    first.close()
    assert clicked(tmp_path) == [1.0, 2.0, 3.0]


def test_a_window_of_another_machine_that_was_not_closed_is_mentioned(tmp_path, blind, monkeypatch, caplog):
    with monkeypatch.context() as there:
        there.setattr(platform, "node", lambda: "elsewhere")
        session = begun(Session(tmp_path))
    click(session, 1.0)
    assert clicked(tmp_path) == [1.0]  # where its lock is not seen, or it was killed
    assert f"process {os.getpid()} on elsewhere" in caplog.text
    assert "close it first" in caplog.text
    left_open(session)


def test_where_there_are_no_locks_the_note_of_the_owner_counts(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with begun(Session(tmp_path)) as session:
        click(session, 1.0)
        with pytest.raises(InputError, match="seems to be open in another window"):
            Session(tmp_path)
    assert clicked(tmp_path) == [1.0]
