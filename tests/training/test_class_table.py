"""The id of a class is the user's own, from 0; names and diameters stay with it through training and a warm start."""

import json
import logging

import numpy as np
import pytest
import torch
from test_training import small, weights_of, write_set

from deepetpicker.__main__ import main
from deepetpicker.errors import InputError
from deepetpicker.io.modelcard import read_card
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.training.run import train

SHAPE = (40, 48, 56)


def numbered_from_zero(folder):
    """Turn the classes 1 and 2 of a data folder into 0 and 1, without classes.json."""
    (folder / "classes.json").unlink()
    for table in folder.glob("*.csv"):
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([head, *(f"{int(row[0]) - 1}{row[1:]}" for row in rows)]) + "\n")
    return folder


@pytest.fixture
def zero(tmp_path):
    """Return a folder of two tomograms with the classes 0 and 1, five particles of each."""
    return numbered_from_zero(write_set(tmp_path / "zero", [SHAPE] * 2, [10, 10], n_classes=2))


@pytest.mark.long
def test_class_zero_is_a_class_and_diameters_follow_the_ascending_ids(zero, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(zero, tmp_path / "m.safetensors", small(epochs=1, diameter_angstrom=(80.0, 120.0)), quiet=True)
    card = read_card(tmp_path / "m.safetensors")
    assert [(c.id, c.name, c.diameter_ang) for c in card.classes] == [(0, "ball_1", 80.0), (1, "ball_2", 120.0)]
    assert card.training["particles"] == {"0": 10, "1": 10}
    assert "class 0 (ball_1): 80 angstrom, class 1 (ball_2): 120 angstrom" in caplog.text


def test_channels_are_internal(zero):
    gathered = gather(zero, small(diameter_angstrom=(80.0, 120.0)))
    for table, tomogram in zip(gathered.tables, annotate(gathered, zero)):
        np.testing.assert_array_equal(tomogram.channels, table.class_ids + 1)


def test_a_listed_class_zero(zero):
    classes = [{"id": 1, "name": "rod", "diameter_angstrom": 120}, {"id": 0, "name": "ring", "diameter_angstrom": 80}]
    (zero / "classes.json").write_text(json.dumps({"classes": classes}))
    assert [(c.id, c.name, c.diameter_ang) for c in gather(zero, small()).classes] == [(0, "ring", 80), (1, "rod", 120)]


@pytest.mark.long
def test_warm_start_keeps_the_output_of_a_class_only_if_id_name_and_diameter_agree(zero, tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    train(zero, old, small(epochs=1, diameter_angstrom=(80.0, 120.0)), quiet=True)
    frozen = {"epochs": 1, "init": str(old), "learning_rate": 1e-12, "weight_decay": 0.0}
    before = weights_of(old)["head.weight"]

    manifest = train(zero, new, small(**frozen, diameter_angstrom=(80.0, 120.0)), quiet=True)
    assert not any("output" in w for w in manifest["warnings"])
    torch.testing.assert_close(weights_of(new)["head.weight"], before)

    manifest = train(zero, new, small(**frozen, diameter_angstrom=(120.0, 80.0)), quiet=True)
    said = next(w for w in manifest["warnings"] if "output" in w)
    assert "class 0 (ball_1): 80 angstrom in the model, 120 in the data" in said
    after = weights_of(new)["head.weight"]
    torch.testing.assert_close(after[0], before[0])
    for channel in (1, 2):
        assert not torch.allclose(after[channel], before[channel])

    classes = [{"id": 5, "name": "ball_2", "diameter_angstrom": 120}, {"id": 7, "name": "new", "diameter_angstrom": 80}]
    for table in zero.glob("*.csv"):
        text = table.read_text().replace("\n1,ball_2", "\n5,ball_2").replace("\n0,ball_1", "\n7,new")
        table.write_text(text)
    (zero / "classes.json").write_text(json.dumps({"classes": classes}))
    manifest = train(zero, new, small(**frozen), quiet=True)
    assert "class 7 (new) is not in the model" in next(w for w in manifest["warnings"] if "output" in w)
    after = weights_of(new)["head.weight"]
    torch.testing.assert_close(after[1], before[2])  # ball_2 goes on, under another id and in another channel
    assert not torch.allclose(after[2], before[1])


@pytest.mark.parametrize(("given", "word"), [((80.0, 90.0, 100.0), "expected 1 or 2 diameters"),
                                            ((), r"diameter for class 0 .*, class 1 .*, got none")])
def test_wrong_number_of_diameters_shows_the_classes(zero, given, word):
    with pytest.raises(InputError, match=word):
        gather(zero, small(diameter_angstrom=given))


@pytest.mark.long
def test_the_command_takes_the_whole_table(zero, tmp_path):
    words = ["train", "--data", str(zero), "--out", str(tmp_path / "m"), "--epochs", "1", "--patch", "32", "--widths",
             "4", "--patches-per-epoch", "4", "--batch", "2", "--validation-tiles", "4", "--device", "cpu", "--quiet"]
    assert main([*words, "--classes", "0:ring:80,1:big ring:120"]) == 0
    classes = read_card(tmp_path / "m.safetensors").classes
    assert [(c.id, c.name, c.diameter_ang) for c in classes] == [(0, "ring", 80.0), (1, "big ring", 120.0)]
    assert main([*words, "--classes", "0:ring:80"]) == 2
