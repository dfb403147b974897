"""What reaches a terminal: nothing that others wrote into names, notes and metadata splits lines or steers it."""

from __future__ import annotations

import json
import logging
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.config import NetworkOptions
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.terminal import OneLine, printable, progress, show

EVIL = "ring\n\x1b[2J\x1b]0;title\x07\r\u202egnir\x9b31m\u2028end"
SHOWN = r"ring\n\x1b[2J\x1b]0;title\x07\r\u202egnir\x9b31m\u2028end"


def run(*words: Any) -> int:
    """Run the command line with the messages on standard error, as in a process of its own; return the status."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        return main([str(word) for word in words])
    finally:
        root.handlers = before


def steers(text: str) -> str:
    """Return what of a text would steer a terminal."""
    return "".join(one for one in text if one != "\n" and (one != printable(one)))


@pytest.mark.parametrize(("text", "shown"), [
    (EVIL, SHOWN), ("a\tb\0c\x7f", r"a\tb\x00c\x7f"), ("caf\u00e9 \u7c92\u5b50 \\n", "caf\u00e9 \u7c92\u5b50 \\n"),
    ("\ud800\udcff", r"\ud800\udcff"), ("\u200e\u2066x\u2069", r"\u200e\u2066x\u2069"), (3.5, "3.5"), ("", "")])
def test_what_steers_a_terminal_is_shown_as_escapes(text: Any, shown: str):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_are_written_each_on_its_own_whatever_the_encoding(tmp_path: pathlib.Path,
                                                                 monkeypatch: pytest.MonkeyPatch):
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        show("one\ntwo", "\u7c92", 3)
        show()
    assert (tmp_path / "out").read_text() == "one\\ntwo\n\\u7c92\n3\n"


def test_a_message_is_one_line_and_a_traceback_keeps_its_lines():
    try:
        raise ValueError("a\x1b[31m\nb")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "%s: %s", ("a\nb", "\x1b"), sys.exc_info())
    first, *rest = OneLine("%(message)s").format(record).split("\n")
    assert first == r"a\nb: \x1b"
    assert rest[0].startswith("Traceback")
    assert rest[-2:] == [r"ValueError: a\x1b[31m", "b"]


def test_a_progress_bar_shows_a_name_on_one_line(capfd: Any):
    with progress(2, f"{EVIL}: scanning") as bar:
        bar.update(2)
    text = capfd.readouterr().err
    assert f"{SHOWN}: scanning" in text
    assert steers(text.replace("\r", "")) == ""


def model(path: pathlib.Path) -> pathlib.Path:
    """Write a model of which class, notes and warnings are meant to steer a terminal."""
    modelfile = pytest.importorskip("deepetpicker.network.modelfile")
    from deepetpicker.network.resunet import ResUNet3D

    options = NetworkOptions(widths=(4, 6))
    card = ModelCard(network=options.to_dict(), classes=(ClassCard(1, EVIL, 80.0, 7.0),), voxel_size_ang=10.0,
                     patch_vox=32, border_vox=8, label="tball", normalisation="robust", threshold=0.0, score_floor=0.1,
                     notes={EVIL: EVIL}, warnings=(EVIL,), training={EVIL: [EVIL], "verdict": {"text": EVIL}})
    modelfile.save_model(path, ResUNet3D(options), card)
    return path


@pytest.mark.long
def test_a_model_of_others_does_not_steer_the_terminal(tmp_path: pathlib.Path, capfd: Any):
    path = model(tmp_path / "m.safetensors")
    assert run("info", path) == 0
    text = capfd.readouterr().out
    assert [line for line in text.split("\n") if line.startswith("warning ")] == [f"warning             {SHOWN}"]
    assert f"\n  {SHOWN}: {SHOWN}\n" in text
    assert steers(text) == ""
    write_volume(tmp_path / f"{EVIL}.mrc", np.random.default_rng(0).normal(0, 1, (16, 24, 20)).astype("f4"), 10.0)
    words = ("--out", tmp_path / "picks", "--device", "cpu")
    assert run("pick", path, tmp_path / f"{EVIL}.mrc", *words) == 0
    seen = capfd.readouterr()
    assert f"\n{SHOWN}: " in seen.err
    assert steers(seen.out + seen.err.replace("\r", "")) == ""
    assert run("info", tmp_path / f"{EVIL}.mrc") == 0
    assert capfd.readouterr().out.startswith(f"{SHOWN}\n  type       float32\n")


def test_tables_keep_a_row_to_each_class_and_tomogram(tmp_path: pathlib.Path, capfd: Any):
    table = CoordinateTable.from_positions(np.array([[8.0, 12, 10], [4, 5, 6]]))
    for folder in ("truth", "picks"):
        (tmp_path / folder).mkdir()
        write_coordinates(tmp_path / folder / f"{EVIL}.csv", table)
        (tmp_path / folder / "classes.json").write_text(json.dumps({"voxel_size_angstrom": 10.0, "classes": [
            {"id": 1, "name": EVIL, "diameter_angstrom": 40}, {"id": 2, "name": "rod", "diameter_angstrom": 40}]}))
    assert run("evaluate", "--truth", tmp_path / "truth", "--picks", tmp_path / "picks") == 0
    text = capfd.readouterr().out
    rows = [line for line in text.split("\n") if line.startswith(SHOWN)]
    assert len(rows) == 2  # of the tomogram and of the class
    assert len({len(line.rstrip()) for line in rows[1:]}) == 1
    assert steers(text) == ""


@pytest.mark.parametrize("words", [
    ("info", f"/nowhere/{EVIL}.mrc"), (f"pick{EVIL}",), ("info", f"--{EVIL}"), ("info", "a", EVIL),
    ("check", "--data", f"/nowhere/{EVIL}"), ("convert", f"/nowhere/{EVIL}.csv", f"{EVIL}.star"),
    ("check", "--data", "x", "--classes", EVIL), ("--debug", "info", f"/nowhere/{EVIL}.safetensors")])
def test_an_error_quotes_what_was_given_without_obeying_it(words: Any, capfd: Any):
    assert run(*words) == 2
    seen = capfd.readouterr()
    assert seen.out == ""
    assert steers(seen.err) == ""
    assert seen.err.count("\n") == 1 or "--debug" in words


def test_metadata_of_zarr_does_not_steer_the_terminal(tmp_path: pathlib.Path, capfd: Any):
    pytest.importorskip("zarr")
    folder = tmp_path / "a.zarr"
    (folder / "0").mkdir(parents=True)
    axes = [{"name": EVIL, "type": EVIL, "unit": EVIL}] * 3
    scales = [{"path": EVIL, "coordinateTransformations": [{"type": EVIL, "scale": [EVIL]}]}]
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"version": EVIL, "axes": axes, "datasets": scales}]}))
    assert run("info", folder) == 2
    assert steers(capfd.readouterr().err) == ""
