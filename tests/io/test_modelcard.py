"""The model card: what picking needs, readable without torch, refused when it cannot be trusted."""

import argparse
import dataclasses
import json
import math
import struct

import numpy as np
import pytest

from deepetpicker.calibration import Calibration
from deepetpicker.cli import info as info_command
from deepetpicker.errors import ModelFileError
from deepetpicker.io.modelcard import FORMAT_VERSION, ClassCard, ModelCard, format_info, info, read_card


@pytest.fixture
def card():
    return ModelCard(
        network={"n_classes": 2, "widths": [24, 48]}, voxel_size_ang=10.0, patch_vox=72, border_vox=12,
        classes=(ClassCard(1, "ring", 200.0, 9.0), ClassCard(3, "rod", 120.0, 7.0, 0.55)), label="tball",
        normalisation="robust", threshold=0.4, score_floor=0.1, intensity={"0.5": 0.01},
        training={"tomograms": ["TS_01"], "epochs": 60, "items": [{"name": "TS_01", "role": "training"}], "picks": [
            {"class_id": 1, "name": "ring", "n_true": 12, "f1": 0.75, "precision": 1.0, "recall": 0.6},
            {"class_id": 3, "name": "rod", "n_true": 0, "f1": None, "precision": None, "recall": None}]},
        validation=[{"epoch": 0, "loss": 0.5}], seed=3,
        version="0.1.0", created="2026-01-31T12:00:00", notes={"origin": "test"},
        warnings=["class 3 (rod): pick F1 0.40"])


def save(path, metadata, tensors=None, cut=0):
    """Write a safetensors file by hand: 8 bytes of header length, JSON, data."""
    tensors = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}} if tensors is None else tensors
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    raw = struct.pack("<Q", len(header)) + header + b"\0" * 24
    path.write_bytes(raw[:len(raw) - cut])
    return path


def test_card_round_trip_through_a_file(tmp_path, card):
    path = save(tmp_path / "m.safetensors", {"deepetpicker": card.to_json()})
    assert read_card(path) == card
    content = info(path)
    assert content["parameters"] == 6
    assert content["classes"][1] == {"id": 3, "name": "rod", "diameter_ang": 120.0, "label_diameter_vox": 7.0,
                                     "threshold": 0.55, "calibration": None, "apart_ang": None}
    assert content["format_version"] == FORMAT_VERSION


def test_a_file_that_safetensors_wrote_is_read(tmp_path, card):
    numpy = pytest.importorskip("numpy")
    saver = pytest.importorskip("safetensors.numpy")
    saver.save_file({"w": numpy.zeros((3, 4), numpy.float32)}, str(tmp_path / "m.safetensors"),
                    metadata={"deepetpicker": card.to_json()})
    assert read_card(tmp_path / "m.safetensors") == card
    assert info(tmp_path / "m.safetensors")["parameters"] == 12


def test_nan_becomes_null_and_unknown_members_are_ignored(card):
    odd = dataclasses.replace(card, validation=[{"f1": math.nan, "loss": math.inf}])
    text = odd.to_json()
    assert "NaN" not in text
    assert ModelCard.from_json(text).validation == [{"f1": None, "loss": None}]
    content = {**json.loads(text), "later": 1}
    assert ModelCard.from_json(json.dumps(content)).classes == card.classes


@pytest.mark.parametrize(("raw", "message"), [
    (b"", r"is empty \(0 bytes\)"), (b"abc", "not a safetensors file"),
    (b"PK\x03\x04" + b"\0" * 60, "not a safetensors"),
    (struct.pack("<Q", 2 ** 63) + b"{}", "not a safetensors"), (struct.pack("<Q", 90_000_000) + b"{}", "truncated"),
    (struct.pack("<Q", 5) + b"{bad}", "damaged safetensors header"),
    (struct.pack("<Q", 9) + b'{"w": 12}', "damaged safetensors header"),
    (struct.pack("<Q", 22) + b'{"__metadata__": [1]} ', "metadata must map"),
    (struct.pack("<Q", 2) + b"{}", "without a DeepETPicker model card"),
    (struct.pack("<Q", 100_000) + b"[" * 100_000, "not a safetensors")])
def test_files_that_are_no_models(tmp_path, raw, message):
    (tmp_path / "m.safetensors").write_bytes(raw)
    with pytest.raises(ModelFileError, match=message):
        read_card(tmp_path / "m.safetensors")


def test_deeply_nested_json_is_refused_not_fatal(tmp_path):
    nested = b'{"a":' + b"[" * 200_000
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(nested)) + nested)
    with pytest.raises(ModelFileError, match="damaged safetensors header"):
        read_card(tmp_path / "m.safetensors")


def test_missing_folder_and_truncated(tmp_path, card):
    with pytest.raises(ModelFileError, match="no such model file"):
        read_card(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="got a folder"):
        read_card(tmp_path)
    path = save(tmp_path / "m.safetensors", {"deepetpicker": card.to_json()}, cut=1)
    with pytest.raises(ModelFileError, match=r"truncated: expected \d+ bytes, found \d+"):
        read_card(path)


@pytest.mark.parametrize(("change", "message"), [
    ({"format_version": 2}, "newer version.*update"), ({"format_version": 0}, "older version"),
    ({"format_version": "1"}, "no valid format_version"), ({"format_version": True}, "no valid format_version"),
    ({"classes": []}, "damaged"), ({"classes": [{"id": 1}]}, "damaged.*name"), ({"voxel_size_ang": 0}, "damaged"),
    ({"classes": [{"id": 1, "name": "a", "diameter_ang": 9, "label_diameter_vox": 5, "threshold": "x"}]}, "damaged"),
    ({"classes": [{"id": 1, "name": "a", "diameter_ang": 9, "label_diameter_vox": 5,
                   "calibration": {"peaks": [1, 0]}}]}, "damaged.*calibration must rise"),
    ({"threshold": "high"}, "damaged"), ({"network": None}, "damaged"), ({"patch_vox": None}, "damaged")])
def test_cards_that_cannot_be_trusted(tmp_path, card, change, message):
    text = json.dumps({**json.loads(card.to_json()), **change})
    with pytest.raises(ModelFileError, match=rf"m\.safetensors.*{message}"):
        read_card(save(tmp_path / "m.safetensors", {"deepetpicker": text}))


def test_a_card_lacking_a_member_names_it(card):
    content = json.loads(card.to_json())
    del content["border_vox"]
    with pytest.raises(ModelFileError, match="lacks border_vox"):
        ModelCard.from_json(json.dumps(content), "m")
    for text in ("{", "[]"):
        with pytest.raises(ModelFileError):
            ModelCard.from_json(text, "m")


def test_each_class_has_its_threshold_and_older_models_have_one_for_all(card):
    assert card.thresholds == {1: 0.4, 3: 0.55}
    content = json.loads(card.to_json())
    for one in content["classes"]:
        del one["threshold"]
    del content["warnings"]
    old = ModelCard.from_json(json.dumps(content))
    assert old.thresholds == {1: 0.4, 3: 0.4}
    assert old.warnings == []


def test_a_calibration_is_kept_and_said_and_older_models_have_none(card):
    scale = Calibration((0.0, 0.5, 1.0), (0.01, 0.4, 0.98), 40, 61, "logistic")
    new = dataclasses.replace(card, classes=(dataclasses.replace(card.classes[0], calibration=scale), card.classes[1]))
    again = ModelCard.from_json(new.to_json())
    assert again.classes == new.classes
    assert again.classes[0].calibration(np.array([0.25, 0.75])) == pytest.approx([0.205, 0.69])
    text = format_info(again)
    assert "scores are probabilities (logistic, from 40 held-out particles of its own and 61 candidates)" in text
    assert "scores are peak heights: not calibrated" in text
    content = json.loads(card.to_json())
    for one in content["classes"]:
        del one["calibration"]
    assert ModelCard.from_json(json.dumps(content)).classes[0].calibration is None


def test_text_for_people_gives_angstrom_and_voxels(card):
    text = format_info(card)
    assert "working voxel size  10 angstrom" in text
    assert "diameter 200 angstrom (20.0 voxels), label 9 voxels (90 angstrom)" in text
    assert "training patch      72 voxels (720 angstrom), border 12 voxels" in text
    assert "tomograms: TS_01" in text
    assert "held-out particles  class 1 (ring): F1 0.750, precision 1.000, recall 0.600 on 12\n" in text
    assert "class 3 (rod): F1" not in text
    assert "role" not in text
    assert "label 7 voxels (70 angstrom), threshold 0.55" in text
    assert "warning             class 3 (rod): pick F1 0.40" in text


def test_info_command(tmp_path, card, capsys):
    path = save(tmp_path / "m.safetensors", {"deepetpicker": card.to_json()})
    parser = argparse.ArgumentParser()
    info_command.add_arguments(parser)
    assert info_command.main(parser.parse_args([str(path)])) == 0
    assert "ring" in capsys.readouterr().out
    assert info_command.main(parser.parse_args([str(path), "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3
    with pytest.raises(ModelFileError):
        info_command.main(parser.parse_args([str(tmp_path / "none")]))
