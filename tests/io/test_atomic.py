"""Outputs are complete or absent, whatever goes wrong."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from deepetpicker.errors import InputError, OutputError
from deepetpicker.io.atomic import atomic_output, whole, write_text


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def test_success_renames_a_hidden_sibling_with_the_same_suffix(tmp_path):
    target = tmp_path / "deep" / "er" / "a.b.mrc"
    with atomic_output(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".mrc"
        assert not target.exists()
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"
    assert listing(target.parent) == ["a.b.mrc"]


def test_two_writers_of_one_name_use_different_temporaries(tmp_path):
    with atomic_output(tmp_path / "a.csv") as one, atomic_output(tmp_path / "a.csv") as two:
        assert one != two
        assert str(os.getpid()) in one.name
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a.csv").read_text() == "1"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, InputError])
def test_failure_keeps_the_old_file_and_removes_the_temporary(tmp_path, failure):
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(failure), atomic_output(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise failure("stop")
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["a.csv"]


def test_disk_full_says_which_file_and_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.csv: No space left.*free some space"):
        write_text(tmp_path / "a.csv", "x")
    assert listing(tmp_path) == []


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="disk is full"), \
            atomic_output(tmp_path / "a.csv") as temporary:  # noqa: PT012
        temporary.write_text("half")
        with open("/dev/full", "w") as stream:
            stream.write("x" * 100000)
    assert listing(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs a file size limit")
def test_a_really_limited_file_size_is_an_output_error(tmp_path):
    import resource
    import signal
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(OutputError, match="larger than allowed"):
            write_text(tmp_path / "a.csv", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path) == []


def test_a_folder_or_a_file_in_the_way_is_an_output_error(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="folder of that name"):
        write_text(tmp_path / "folder.csv", "x")
    with pytest.raises(OutputError, match="choose another folder"):
        write_text(tmp_path / "file" / "a.csv", "x")
    assert listing(tmp_path) == ["file", "folder.csv"]


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    (tmp_path / "input.csv").write_text("precious")
    (tmp_path / "out.csv").symlink_to(tmp_path / "input.csv")
    write_text(tmp_path / "out.csv", "new")
    assert (tmp_path / "input.csv").read_text() == "precious"
    assert (tmp_path / "out.csv").read_text() == "new"


def test_an_error_of_another_file_is_not_blamed_on_the_output(tmp_path):
    missing = tmp_path / "elsewhere" / "input.mrc"
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "out" / "a.csv") as temporary:  # noqa: PT012
        temporary.write_text("x")
        missing.read_text()
    assert listing(tmp_path / "out") == []


def test_a_block_that_writes_nothing_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*a\.csv"), atomic_output(tmp_path / "a.csv"):
        pass


def test_what_a_killed_writer_leaves_is_no_file_of_the_folder(tmp_path):
    killed = ("import os, signal, sys\nfrom deepetpicker.io.atomic import atomic_output\n"
              "with atomic_output(sys.argv[1]) as path:\n"
              "    path.write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)")
    for name in ("b.csv", "a.csv"):
        write_text(tmp_path / name, "x")
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "c.csv")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.csv"))) == 3
    assert whole(tmp_path.glob("*.csv")) == [tmp_path / "a.csv", tmp_path / "b.csv"]
