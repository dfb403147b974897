"""Commands need no network and no links, outputs are as the umask says, and what is temporary is for the user alone."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
from typing import Sequence

import pytest
import torch

from deepetpicker.picking.picker import working_folder
from deepetpicker.picking.store import ProbabilityStore

# In a child process, so that nothing of the test's own process counts; a socket of any kind but a local one ends it.
BLOCKED = """
import json, os, sys
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") \\
            and not (args[1:] and isinstance(args[1], str)):
        os.write(2, f"NETWORK {event} {args[1:]}".encode())
        os._exit(99)
    if event in ("os.link", "os.symlink"):  # as on FAT and some network file systems
        raise PermissionError(1, "Operation not permitted")
sys.addaudithook(hook)
os.umask(int(sys.argv.pop(1), 8))
from deepetpicker.__main__ import main
for words in json.loads(sys.argv[1]):
    status = main(words)
    if status:
        sys.exit(status)
"""


def run(umask: str, *commands: Sequence[object]) -> None:
    """Run verbs without network and links, one after the other in one process, which loads their packages once."""
    words = json.dumps([[*map(str, command)] for command in commands])
    result = subprocess.run([sys.executable, "-c", BLOCKED, umask, words], capture_output=True, text=True, timeout=300,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-2000:]


def modes(folder: pathlib.Path) -> set:
    """Return the permissions of all files below a folder."""
    return {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}


def test_the_block_blocks():
    begun = BLOCKED.split("from deepetpicker")[0]
    for code, status, said in (("import socket; socket.create_connection(('127.0.0.1', 9), 1)", 99, "NETWORK"),
                               ("os.link('a', 'b')", 1, "not permitted"), ("os.symlink('a', 'b')", 1, "not permitted")):
        result = subprocess.run([sys.executable, "-c", begun + code, "022"], capture_output=True, text=True, timeout=60)
        assert result.returncode == status
        assert said in result.stderr


@pytest.mark.long
@pytest.mark.parametrize("umask", ["027"])
def test_every_verb_of_a_project_needs_no_network_and_no_links_and_keeps_to_the_umask(tmp_path, umask):
    data, model, picks = tmp_path / "data", tmp_path / "run/m.safetensors", tmp_path / "picks"
    run(umask,
        ["simulate", data, "--n", 2, "--shape", "32,48,64", "--particles", 8, "--voxel-size", 20, "--phantoms", "ring",
         "--gold", 0, "--membranes", 0],
        ["train", "--data", data, "--out", model, "--epochs", 1, "--patch", 32, "--widths", "4,6",
         "--patches-per-epoch", 8, "--device", "cpu", "--no-check"],
        ["pick", model, data / "tomo_00.mrc", data / "tomo_01.mrc", "--out", picks, "--device", "cpu"],
        ["evaluate", "--truth", data, "--picks", picks, "--out", tmp_path / "scores"],
        ["check", "--data", data],
        ["convert", data / "tomo_00.csv", picks / "tomo_00.star", "--tomogram", "tomo_00"],
        ["propose", data / "tomo_00.mrc", "--out", tmp_path / "found", "--diameter-angstrom", 160, "--method", "blob"],
        ["info", model, "--anonymous"],
        ["report", tmp_path / "run/m_run"])
    for folder in (data, model.parent, picks, tmp_path / "scores", tmp_path / "found"):
        assert modes(folder) == {"0o640"}, folder
    assert (picks / "tomo_00.csv").is_file()
    assert list((tmp_path / "scores").rglob("*.html"))


def test_what_is_temporary_is_for_the_user_alone(tmp_path, monkeypatch):
    """A map and a resampled tomogram too large for memory, while they are there, under a umask that hides nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        with working_folder(tmp_path) as work, ProbabilityStore((1, 8, 9, 10), in_memory_bytes=0) as store:
            store.write(0, 0, torch.ones((1, 8, 9, 10)))
            assert stat.S_IMODE(os.stat(work).st_mode) == 0o700
            assert [path.name for path in tmp_path.iterdir()] == [pathlib.Path(work).name]  # the map has no name
        assert list(tmp_path.iterdir()) == []
    finally:
        os.umask(before)
