"""Kills, full disks, second windows, foreign hands: nothing is lost, and it is said."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deepetpicker.annotation.journal import Journal, folder_lock, read_journal
from deepetpicker.annotation.records import AnnotatedTomogram, Particle
from deepetpicker.annotation.session import JOURNAL_FILE, SNAPSHOT_FILE, Session
from deepetpicker.errors import FormatError, InputError, OutputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import read_coordinates

# Annotates without end and says after each change what a window would show now: the number of particles.
CLICKER = """
import sys
from deepetpicker.annotation.records import AnnotatedTomogram, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.io.classes import ParticleClass
number = 0
while True:
    with Session(sys.argv[1]) as session:
        session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))])
        session.set_classes([ParticleClass(1, "ring", 100.0)])
        number = max((p.position_zyx_vox[2] for p in session.particles("a").values()), default=0)
        print("open", len(session.particles("a")), flush=True)
        for _ in range(int(sys.argv[2])):
            number += 1
            session.add("a", Particle((1.0, 2.0, number), 1))
            print(int(number), flush=True)
        save_version(session)
"""


def session_in(folder) -> Session:
    """Return an open session with one tomogram and one particle."""
    session = Session(folder)
    session.set_tomograms([AnnotatedTomogram("a", "/data/a.mrc", 10.0, (24, 40, 56))])
    session.set_classes([ParticleClass(1, "ring", 100.0)])
    session.add("a", Particle((1.0, 2.0, 3.0), 1))
    return session


def kill_somewhere(folder: pathlib.Path, seconds: float, per_session: int) -> int:
    """Let a process annotate, kill it after some time, and return the last number it had shown."""
    process = subprocess.Popen([sys.executable, "-c", CLICKER, str(folder), str(per_session)], stdout=subprocess.PIPE,
                               text=True)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        shown = [line for line in process.stdout.read().splitlines() if line.isdigit()]
    return int(shown[-1]) if shown else 0


def check_after_kill(folder: pathlib.Path, shown: int) -> None:
    """Check that everything that was shown is there, each once, in journal and in every version."""
    with Session(folder) as session:
        numbers = sorted(int(p.position_zyx_vox[2]) for p in session.particles("a").values())
    assert numbers == list(range(1, len(numbers) + 1))
    assert shown <= len(numbers) <= shown + 1  # the last one may be on disk and not yet shown
    for version in folder.glob("version_*"):
        table = read_coordinates(version / "a.csv")
        assert table.positions_zyx_vox[:, 2].tolist() == list(range(1, len(table) + 1))


@pytest.mark.parametrize("per_session", [1000, 2])
def test_a_kill_loses_nothing(tmp_path, per_session):
    check_after_kill(tmp_path, kill_somewhere(tmp_path, 0.15, per_session))


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path):
    rng = random.Random(1)
    for _ in range(20):
        shown = kill_somewhere(tmp_path, rng.uniform(0.0, 0.5), rng.choice([1, 3, 1000]))
        if shown:
            check_after_kill(tmp_path, shown)
        else:
            Session(tmp_path).close()


def test_a_kill_between_snapshot_and_journal_counts_nothing_twice(tmp_path):
    session = session_in(tmp_path)
    session.write_snapshot(tmp_path)  # and now it dies, before the journal is emptied
    session._stack.close()
    with Session(tmp_path) as other:
        assert len(other.particles("a")) == 1
        other.add("a", Particle((4.0, 5.0, 6.0), 1))
    with Session(tmp_path) as other:
        assert len(other.particles("a")) == 2


def test_a_line_that_was_being_written_does_not_count(tmp_path):
    session_in(tmp_path)._stack.close()
    with open(tmp_path / JOURNAL_FILE, "ab") as stream:
        stream.write(b'{"n":4,"do":[{"what":"part')
    with Session(tmp_path) as session:
        assert len(session.particles("a")) == 1
        session.add("a", Particle((4.0, 5.0, 6.0), 1))
    with Session(tmp_path) as session:
        assert len(session.particles("a")) == 2


def test_a_damaged_line_is_named_and_nothing_is_thrown_away(tmp_path):
    session_in(tmp_path)._stack.close()
    lines = (tmp_path / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join([lines[0], b"nonsense\n", *lines[1:]]))
    with pytest.raises(FormatError, match=r"journal.jsonl, line 2 is damaged"):
        Session(tmp_path)
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join([lines[0], *lines[2:]]))
    with pytest.raises(FormatError, match="entry 2 is missing before entry 3"):
        Session(tmp_path)


def test_a_damaged_snapshot_is_named(tmp_path):
    session_in(tmp_path).close()
    content = json.loads((tmp_path / SNAPSHOT_FILE).read_text())
    (tmp_path / SNAPSHOT_FILE).write_text(json.dumps({**content, "format_version": 9}))
    with pytest.raises(FormatError, match="expected format version 1, found 9"):
        Session(tmp_path)
    (tmp_path / SNAPSHOT_FILE).write_text("{")
    with pytest.raises(FormatError, match="is damaged"):
        Session(tmp_path)


def test_a_second_window_is_told_who_has_the_folder(tmp_path):
    with session_in(tmp_path) as session:
        code = f"from deepetpicker.annotation.session import Session\nSession({str(tmp_path)!r})"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"is open in another window (process {os.getpid()} on " in second.stderr
        with pytest.raises(InputError, match="open in another window"):
            Session(tmp_path)
        session.add("a", Particle((4.0, 5.0, 6.0), 1))  # and the first goes on
    Session(tmp_path).close()


def test_a_lock_dies_with_its_process(tmp_path):
    code = (f"import os, pathlib\nfrom deepetpicker.annotation.journal import folder_lock\n"
            f"with folder_lock(pathlib.Path({str(tmp_path)!r})):\n    os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", code], check=False)
    assert b"pid" in (tmp_path / "session.lock").read_bytes()
    with folder_lock(tmp_path):
        pass


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path):
    session = session_in(tmp_path)
    size = (tmp_path / JOURNAL_FILE).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # the line begins to be written and does not fit
    try:
        with pytest.raises(OutputError, match="not saved, and not done: cannot write"):
            session.add("a", Particle((4.0, 5.0, 6.0), 1))
        assert len(session.particles("a")) == 1
        assert (tmp_path / JOURNAL_FILE).stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    session.add("a", Particle((7.0, 8.0, 9.0), 1))  # there is room again
    session._stack.close()
    with Session(tmp_path) as other:
        assert [p.position_zyx_vox for p in other.particles("a").values()] == [(1.0, 2.0, 3.0), (7.0, 8.0, 9.0)]


def test_a_journal_that_another_program_changed_is_left_alone(tmp_path):
    session = session_in(tmp_path)
    with open(tmp_path / JOURNAL_FILE, "ab") as stream:
        stream.write(b"{}\n")
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    with pytest.raises(OutputError, match="another program has changed"):
        session.add("a", Particle((4.0, 5.0, 6.0), 1))
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
    session._stack.close()


def test_a_vanished_folder_is_said_and_a_copy_can_be_saved(tmp_path):
    session = session_in(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="has vanished; save a copy elsewhere"):
        session.add("a", Particle((4.0, 5.0, 6.0), 1))
    session.write_snapshot(tmp_path / "copy")
    session._stack.close()
    with Session(tmp_path / "copy") as copy:
        assert len(copy.particles("a")) == 1
        assert copy.tomogram("a").path == "/data/a.mrc"


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        Session(tmp_path / "file" / "out")


def test_a_folder_without_permission_is_said(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="no permission: choose a folder you can write to"):
        Session(tmp_path)


def test_entries_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "j", tmp_path / "s")
    journal.append({"n": 1, "text": "ümlaut\nline"})
    journal.close()
    assert read_journal(tmp_path / "j")[0] == [{"n": 1, "text": "ümlaut\nline"}]


def test_ctrl_c_while_a_click_is_written_leaves_a_journal_that_can_be_closed(tmp_path, monkeypatch):
    session, real = session_in(tmp_path), os.fsync

    def interrupted(file):
        monkeypatch.setattr(os, "fsync", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.add("a", Particle((4.0, 5.0, 6.0), 1))
    session.close()
    with Session(tmp_path) as other:
        assert [p.position_zyx_vox for p in other.particles("a").values()] == [(1.0, 2.0, 3.0)]


@pytest.mark.parametrize("name", [JOURNAL_FILE, SNAPSHOT_FILE])
def test_a_digit_that_changed_on_the_disk_is_noticed(tmp_path, name):
    session = session_in(tmp_path)
    if name == SNAPSHOT_FILE:
        session.close()
    else:
        session._stack.close()
    content = (tmp_path / name).read_text()
    (tmp_path / name).write_text(content.replace("3.0", "7.0"))
    with pytest.raises(FormatError, match=r"is damaged .*its check sum differs"):
        Session(tmp_path)
    (tmp_path / name).write_text(re.sub(', ?"sum": ?[0-9]+', "", content))  # as written by earlier versions
    with Session(tmp_path) as other:
        assert len(other.particles("a")) == 1
