"""Model files: what is written comes back; what does not fit is refused."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.errors import ModelFileError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.modelcard import ClassCard, ModelCard, read_card
from deepetpicker.network.modelfile import carry_over, load_model, save_model
from deepetpicker.network.resunet import ResUNet3D


def small_model(n_classes=1, **card):
    """Return a small network and a card that fits it."""
    torch.manual_seed(0)
    options = NetworkOptions(n_classes=n_classes, widths=(4, 6, 8, 10))
    classes = tuple(ClassCard(i + 1, f"kind {i}", 200.0, 7.0) for i in range(n_classes))
    facts = {"voxel_size_ang": 10.0, "patch_vox": 32, "border_vox": 8, "label": "tball", "normalisation": "robust",
             "threshold": 0.4, "score_floor": 0.1, **card}
    return ResUNet3D(options).eval(), ModelCard(network=options.to_dict(), classes=classes, **facts)


@pytest.mark.parametrize("n_classes", [1, 3])
def test_weights_and_card_come_back(tmp_path, n_classes):
    network, card = small_model(n_classes)
    save_model(tmp_path / "m.safetensors", network, card)
    again, card_again = load_model(tmp_path / "m.safetensors")
    assert card_again == card
    x = torch.randn(1, 1, 16, 24, 32)
    with torch.inference_mode():
        assert torch.equal(again(x), network(x))


def test_a_card_that_does_not_fit_the_weights_is_refused(tmp_path):
    network, _ = small_model(1)
    _, card = small_model(2)
    save_model(tmp_path / "m.safetensors", network, card)
    with pytest.raises(ModelFileError, match="do not fit the model card"):
        load_model(tmp_path / "m.safetensors")


def test_a_missing_weight_is_refused(tmp_path):
    network, card = small_model()
    save_model(tmp_path / "m.safetensors", network, card)
    tensors = safetensors.torch.load_file(tmp_path / "m.safetensors")
    tensors.pop("head.weight")
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", {"deepetpicker": card.to_json()})
    with pytest.raises(ModelFileError, match="do not fit"):
        load_model(tmp_path / "m.safetensors")


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    network, card = small_model()
    network.head.bias.data.fill_(float("nan"))
    save_model(tmp_path / "m.safetensors", network, card)
    with pytest.raises(ModelFileError, match="NaN"):
        load_model(tmp_path / "m.safetensors")


def test_another_format_version_is_refused(tmp_path):
    network, card = small_model(format_version=999)
    save_model(tmp_path / "m.safetensors", network, card)
    with pytest.raises(ModelFileError, match="newer version"):
        load_model(tmp_path / "m.safetensors")


def test_a_failed_write_leaves_the_old_model(tmp_path, monkeypatch):
    network, card = small_model()
    path = tmp_path / "m.safetensors"
    save_model(path, network, card)
    before = path.read_bytes()

    def broken(*args, **kwargs):
        raise RuntimeError("power cut")

    monkeypatch.setattr(safetensors.torch, "save", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        save_model(path, network, card)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_card_is_read_without_the_weights(tmp_path):
    network, card = small_model()
    save_model(tmp_path / "m.safetensors", network, card)
    assert read_card(tmp_path / "m.safetensors").classes[0].diameter_ang == 200.0


@pytest.mark.parametrize(("known", "wanted", "kept"), [
    ([1], [1], {0: 0}), ([1], [1, 2], {1: 0}), ([1, 2], [2], {0: 2}), ([1, 2], [2, 1], {0: 0, 1: 2, 2: 1}),
    ([1, 2], [3, 2], {0: 0, 2: 2}), ([1], [2], {})])
def test_a_warm_start_keeps_the_outputs_of_known_classes_and_no_others(known, wanted, kept):
    old, new = (ResUNet3D(NetworkOptions(n_classes=len(ids), widths=(4, 6, 8, 10))) for ids in (known, wanted))
    classes = [[ParticleClass(i, f"kind {i}", 100.0 * i) for i in ids] for ids in (known, wanted)]
    fresh, state = new.state_dict()["head.weight"], carry_over(old, new, *classes)
    for output in range(len(fresh)):
        source = old.state_dict()["head.weight"][kept[output]] if output in kept else fresh[output]
        assert torch.equal(state["head.weight"][output], source), output
    new.load_state_dict(state)


@pytest.mark.parametrize("place", ["weights", "card"])
def test_a_bit_that_changed_on_the_disk_is_noticed(tmp_path, place):
    path = tmp_path / "m.safetensors"
    save_model(path, *small_model())
    content = bytearray(path.read_bytes())
    at = len(content) - 3 if place == "weights" else content.index(b"200.0")
    content[at] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match="is damaged: its weights or its card are not those that were written"):
        load_model(path)


def test_a_model_of_before_has_no_digest_and_is_loaded(tmp_path):
    network, card = small_model()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "m.safetensors", {"deepetpicker": card.to_json()})
    assert load_model(tmp_path / "m.safetensors")[1] == card
