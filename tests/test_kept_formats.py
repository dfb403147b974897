"""Files that earlier versions wrote are read for ever, with what is in them (tests/fixtures/formats).

``scripts/keep_formats.py LABEL`` adds those of this version. What is there is never changed: a version that cannot read
it any more has broken its users' files.
"""

from __future__ import annotations

import json
import lzma
import pathlib
import re
import runpy
import shutil

import numpy as np
import pytest
import torch

import deepetpicker
from deepetpicker.annotation.session import Session
from deepetpicker.config import NetworkOptions, from_mapping
from deepetpicker.io.classes import read_classes
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import format_info, info, read_card
from deepetpicker.io.records import Records
from deepetpicker.io.regions import read_negatives, read_regions
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.report.run import report
from deepetpicker.training.loop.callbacks import is_readable

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "fixtures" / "formats"
LABELS = sorted(path.name for path in FOLDER.iterdir())
MODELS = [label for label in LABELS if (FOLDER / label / "model.safetensors").exists()]
SESSIONS = [label for label in LABELS if (FOLDER / label / "annotation" / "killed").exists()]
output_of = runpy.run_path(str(ROOT / "scripts" / "keep_formats.py"), run_name="kept")["output_of"]


@pytest.fixture
def kept(request, tmp_path):
    """Return a copy of the files of a version, and what is to be read from them."""
    folder = shutil.copytree(FOLDER / request.param, tmp_path / request.param)
    return folder, json.loads((folder / "expected.json").read_text())


def test_this_version_is_kept_and_all_of_them_are_small():
    assert deepetpicker.__version__ in LABELS, "run scripts/keep_formats.py with the version as the label"
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    texts = [path.read_text("utf-8") for path in files if path.suffix in (".json", ".jsonl", ".csv")]
    assert not [text for text in texts if re.search(r"/home|/root|/Users", text)]


@pytest.mark.parametrize("kept", MODELS, indirect=True)
def test_a_model_loads_and_its_network_gives_what_it_gave(kept):
    folder, expected = kept
    network, card = load_model(folder / "model.safetensors")
    assert output_of(network) == pytest.approx(expected["output"], abs=1e-4)
    assert card == read_card(folder / "model.safetensors")
    assert card.threshold == pytest.approx(expected["threshold"])
    assert [one.diameter_ang for one in card.classes] == expected["diameters_angstrom"]
    told = [one.calibration and float(one.calibration(np.array([0.2]))[0]) for one in card.classes]
    assert told == [None if value is None else pytest.approx(value) for value in expected["calibrated"]]
    assert info(folder / "model.safetensors")["parameters"] == sum(
        values.numel() for values in network.state_dict().values())
    assert "ball" in format_info(card)


@pytest.mark.long
@pytest.mark.parametrize("kept", MODELS, indirect=True)
def test_the_run_folder_of_a_training_is_read_and_its_checkpoint_holds_that_network(kept):
    folder, expected = kept
    manifest = read_manifest(folder / "model_run" / "manifest.json")
    assert [item["name"] for item in manifest["items"]] == ["t0", "t1"]
    assert {item["status"] for item in manifest["items"]} == {"done"}
    checkpoint = folder / "model_run" / "last.ckpt"
    checkpoint.write_bytes(lzma.decompress(checkpoint.with_suffix(".ckpt.xz").read_bytes()))
    assert is_readable(checkpoint) is expected["goes_on"]  # else the training begins afresh, and says so
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.partition("network.")[2] or name.partition("model.")[2]: value for name, value in state.items()}
    network = ResUNet3D(from_mapping(NetworkOptions, read_card(folder / "model.safetensors").network))
    network.load_state_dict({name: value for name, value in weights.items() if name}, strict=True)
    assert "<html" in report([folder / "model_run"], folder / "page.html").read_text("utf-8")


@pytest.mark.parametrize("kept", MODELS, indirect=True)
def test_picks_are_read_with_their_manifest_records_and_classes(kept):
    folder, expected = kept
    manifest = read_manifest(folder / "picks" / "manifest.json")
    assert [(item["name"], item["status"], item["n_picks"]) for item in manifest["items"]] == [
        ("t0", "done", expected["picks"])]
    table = read_coordinates(folder / "picks" / "t0.csv")
    assert len(table) == expected["picks"]
    assert np.isfinite(table.scores).all()
    for record in Records(folder / "picks").read().values():
        assert record["item"]["n_picks"] == expected["picks"]
    assert read_classes(folder)[0][0].diameter_ang == 80.0
    assert "<html" in report([folder / "picks"], folder / "page.html").read_text("utf-8")


@pytest.mark.parametrize("kept", SESSIONS, indirect=True)
def test_annotations_are_read_from_journal_snapshot_and_version(kept):
    folder, expected = kept
    for state in ("closed", "killed"):
        with Session(folder / "annotation" / state) as session:
            found = {kind: len(getattr(session, kind)("t0")) for kind in ("particles", "negatives", "regions")}
            assert found == expected["annotation"]
            last = [one for one in session.particles("t0").values() if one.position_zyx_vox[0] == 20.0]
            assert (last[0].class_id, last[0].position_zyx_vox) == (4, (20.0, 34.0, 35.0))
    version = folder / "annotation" / "closed" / "version_001"
    assert read_coordinates(version / "t0.csv").positions_zyx_vox[0].tolist() == [9.5, 10.25, 8.0]
    assert read_negatives(version / "t0_negatives.csv").tolist() == [[30.0, 31.5, 32.0]]
    assert read_regions(version / "t0_regions.csv")[0].high_zyx_vox == (39, 47, 27)
    assert [one.name for one in read_classes(version)[0]] == ["ball", "rod"]
