"""``rerun``: the same result from a manifest, and what has changed since is noticed before anything starts."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.cli.rerun import changed_inputs, command_of, differences, replaced
from deepetpicker.errors import InputError
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.volumes import write_volume
from tests.detectors import write_detector


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """A run of ``propose`` on a small tomogram; the working directory, and the arguments that it was given."""
    folder = tmp_path_factory.mktemp("proposed")
    volume = np.random.default_rng(0).normal(size=(24, 40, 32)).astype(np.float32)
    write_volume(folder / "a.mrc", volume, 10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["propose", "a.mrc", "--out", "found", "--diameter-angstrom", "80", "--method", "blob", "--quiet"]
        patch.setattr("sys.argv", ["deepetpicker", *words])
        assert main(words) == 0
    return folder


@pytest.fixture
def run(proposed, tmp_path):
    """A copy of that run whose manifest says that it was made there."""
    shutil.copytree(proposed, tmp_path / "w")
    path = tmp_path / "w" / "found" / "manifest.json"
    content = json.loads(path.read_text())
    assert content["directory"] == str(proposed)
    path.write_text(json.dumps({**content, "directory": str(tmp_path / "w")}))
    return path


@pytest.mark.long
def test_a_run_is_repeated_to_the_same_bytes_and_a_difference_is_named(run, caplog, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the run's own directory counts
    with caplog.at_level("INFO", "deepetpicker"):
        assert main(["rerun", str(run)]) == 0
        assert f"the same result, bit for bit, in {run.parent / 'rerun'}" in caplog.text
        assert main(["rerun", str(run)]) == 2  # its folder is there
    (run.parent / "a.csv").write_text("class,x,y,z,score\n")
    again = read_manifest(run.parent / "rerun" / "manifest.json")
    assert differences(read_manifest(run), again)[0].startswith("a: another table of picks")


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_changed_or_missing_input_is_noticed_before_the_start(run, capsys, change):
    path = run.parents[1] / "a.mrc"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    assert main(["rerun", str(run)]) == 2
    told = capsys.readouterr().err
    assert f"cannot repeat the run of {run}: {path} {'is gone' if change == 'gone' else 'has changed'}" in told
    assert not (run.parent / "rerun").exists()


def test_models_and_tables_count_as_a_whole(tmp_path):
    (tmp_path / "m").write_bytes(b"model")
    content = {"command": "pick", "directory": str(tmp_path), "outputs": {"model": "m", "model_sha256": "0" * 64}}
    assert changed_inputs(content) == [f"{pathlib.Path(tmp_path, 'm')} has changed"]


@pytest.mark.parametrize("words", [["--params", "p.json"], ["--params=p.json"]])
def test_masks_and_the_file_of_params_are_named_and_their_changes_noticed(tmp_path, monkeypatch, words):
    write_detector(tmp_path / "m.safetensors")
    write_volume(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(24, 40, 32)).astype(np.float32), 10.0)
    write_volume(tmp_path / "mask.mrc", np.ones((24, 40, 32), np.int8), 10.0)
    (tmp_path / "p.json").write_text('{"items": [{"name": "a", "tomogram": "a.mrc", "mask": "mask.mrc"}]}')
    monkeypatch.chdir(tmp_path)
    command = ["pick", "m.safetensors", *words, "--out", "out", "--device", "cpu", "--quiet"]
    monkeypatch.setattr("sys.argv", ["deepetpicker", *command])
    assert main(command) == 0
    content = read_manifest("out/manifest.json")
    assert changed_inputs(content) == []
    assert len(content["inputs"]) == 2
    write_volume(tmp_path / "mask.mrc", np.zeros((24, 40, 32), np.int8), 10.0)
    (tmp_path / "p.json").write_text("{}")
    assert changed_inputs(content) == [f"{tmp_path / name} has changed" for name in ("mask.mrc", "p.json")]


@pytest.mark.parametrize(("content", "message"), [
    ({"command": "evaluate"}, "expected the manifest of train, pick, propose, got one of 'evaluate'"),
    ({"command": "pick", "argv": ["x", "pick", "m"]}, r"older version, .* by hand: pick m"),
    ({"command": "pick", "argv": ["notebook"], "directory": "/"}, "was not started by the command line")])
def test_a_manifest_that_cannot_be_repeated_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        command_of(content)


def test_the_output_is_replaced_however_it_was_given():
    assert replaced(["pick", "m", "--out", "a", "t.mrc"], "b") == ["pick", "m", "t.mrc", "--out", "b"]
    assert replaced(["pick", "--out=a", "m"], "b") == ["pick", "m", "--out", "b"]
