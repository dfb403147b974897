"""The page docs/when_something_goes_wrong.rst: what it quotes is what the program says, and none is left out."""

from __future__ import annotations

import errno
import os
import pathlib
import re
import sys
import threading

import numpy as np
import pytest
from test_names import model, tomogram

from deepetpicker import __main__ as command
from deepetpicker.__main__ import main
from deepetpicker.annotation.journal import folder_lock
from deepetpicker.annotation.session import Session
from deepetpicker.errors import OutputError
from deepetpicker.io.volumes import write_volume
from tests.moments import SCANS, heard

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "when_something_goes_wrong.rst"
MESSAGES = re.findall(r"^``(.+)``$", PAGE.read_text("utf-8"), re.MULTILINE)


def pick(work, *tomograms, out="picks", more=("--quiet",)):
    """Run ``pick``; without tomograms with one that is all right."""
    if not (work / "m.safetensors").exists():
        model(work / "m.safetensors")
    files = tomograms or [work / "a.mrc" if (work / "a.mrc").exists() else tomogram(work / "a.mrc")]
    return main(["pick", str(work / "m.safetensors"), *map(str, files), "--out", str(work / out), "--device", "cpu",
                 "--resume", *more])


def write(path, content):
    """Write bytes and return the path."""
    path.write_bytes(content)
    return path


def cut(path):
    """Cut a file by ten bytes and return its path."""
    return write(path, path.read_bytes()[:-10])


def damaged_model(work, patch):
    """Pick with a model of which one bit changed."""
    content = bytearray(model(work / "m.safetensors").read_bytes())
    content[-3] ^= 1
    write(work / "m.safetensors", bytes(content))
    pick(work)


def coarse(work, patch):
    """Pick in a tomogram of twice the model's voxel size."""
    write_volume(work / "c.mrc", np.zeros((16, 24, 20), np.float32), 20.0)
    pick(work, work / "c.mrc")


def train(work, table, *words):
    """Train on a tomogram with a table."""
    (work / "d").mkdir()
    tomogram(work / "d" / "a.mrc")
    (work / "d" / "a.csv").write_text(table)
    main(["train", "--data", str(work / "d"), "--out", str(work / "n"), "--device", "cpu", *words, "--quiet"])


def failing(error):
    """Return a situation in which picking a tomogram ends with an error."""
    def situation(work, patch):
        def end(text):
            if SCANS in text:  # of the scan that begins
                raise error

        with heard(end):
            pick(work, more=())

    return situation


def changed(work, patch):
    """Touch the tomogram while it is picked."""
    with heard(lambda text: os.utime(work / "a.mrc", ns=(1, 1)) if SCANS in text else None):
        pick(work, more=())


def other_table(work, patch):
    """Change a pick table by hand and resume."""
    pick(work)
    (work / "picks" / "a.csv").write_text("class,x,y,z,score\n")
    pick(work)


def hanging(work, patch):
    """Let what an interrupt waits for take longer than it waits."""
    given_up, over = [], threading.Event()
    patch.setattr(command, "STUCK_S", 0.05)
    patch.setattr(command.os, "_exit", lambda status: (given_up.append(status), over.set()))
    interrupts = command.Interrupts("pick")
    with pytest.raises(KeyboardInterrupt):
        interrupts(2, None)
    assert over.wait(10)
    assert given_up == [130]


def lost(work, patch):
    """Lose a file that is mapped into memory (that the signal comes is tested in tests/test_cli.py)."""
    patch.setattr(command.os, "_exit", lambda status: None)
    command.lost("a.mrc")


def second_window(work, patch):
    """Open an annotation twice."""
    with folder_lock(work / "s"):
        main(["annotate", "a.mrc", "--out", str(work / "s"), "--tables-only"])


def changed_journal(work, patch):
    """Write into the journal of an annotation that is open."""
    session = Session(work / "s")
    (work / "s" / "journal.jsonl").write_text('{"n": 1, "saved": true}\n')
    try:
        session.new_class("ring", 80.0)
    except OutputError as error:
        sys.stderr.write(str(error))  # where the window shows it
    session._stack.close()


def bad_journal(work, patch):
    """Open an annotation whose journal has a damaged line."""
    (work / "s").mkdir()
    (work / "s" / "journal.jsonl").write_text('{"n": 1, "saved": true}\nnonsense\n')
    main(["annotate", "a.mrc", "--out", str(work / "s"), "--tables-only"])


SITUATIONS = {
    "no such tomogram": lambda work, patch: pick(work, work / "none.mrc"),
    "is truncated: expected": lambda work, patch: pick(work, cut(tomogram(work / "c.mrc"))),
    "is compressed: unpack it first": lambda work, patch: pick(work, write(work / "c.mrc", b"\x1f\x8b" + bytes(2000))),
    "is not an MRC file": lambda work, patch: pick(work, write(work / "c.mrc", b"PK" * 2000)),
    "no such model file": lambda work, patch: main(["pick", "none.safetensors", "a.mrc", "--out", str(work / "o")]),
    "is damaged: its weights or its card are not those that were written": damaged_model,
    "cannot write": lambda work, patch: pick(work, out=write(work / "file", b"").name),
    "no space left": failing(OSError(errno.ENOSPC, "No space left on device")),
    "Permission denied": failing(PermissionError(errno.EACCES, "Permission denied", "x")),
    "expected a voxel size of at most": coarse,
    "expected a particle diameter": lambda work, patch: train(work, "class,x,y,z\n1,8,9,8\n"),
    "expected at least one particle": lambda work, patch: train(work, "class,x,y,z\n", "--classes", "1:ring:80"),
    "two tomograms are named": lambda work, patch: pick(work, work / "x" / "a.mrc", work / "y" / "a.mrc"),
    "interrupted:": failing(KeyboardInterrupt()),
    "did not wait for what hangs": hanging,
    "any more: it was cut or overwritten while it was used": lost,
    "was changed while it was picked": changed,
    "done before, but its tables were changed since or are damaged": other_table,
    "not enough memory": failing(MemoryError("no room")),
    "is open in another window": second_window,
    "another program has changed": changed_journal,
    "line 2 is damaged": bad_journal,
    "unknown option": lambda work, patch: main(["pick", "m", "a.mrc", "--out", "o", "--treshold", "0.3"]),
}


def test_the_page_and_the_situations_name_the_same_messages():
    assert sorted(MESSAGES) == sorted(SITUATIONS)


@pytest.mark.parametrize("message", SITUATIONS)
def test_a_message_of_the_page_is_what_the_program_says(tmp_path, monkeypatch, capfd, caplog, message):
    SITUATIONS[message](tmp_path, monkeypatch)
    assert message in " ".join((capfd.readouterr().err + caplog.text).split())
