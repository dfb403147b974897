"""Import of the reference's checkpoints: the same network, and nothing from the file is run."""

from __future__ import annotations

import argparse
import os
import pickle
import re

import pytest
import torch

from deepetpicker import import_reference
from deepetpicker.__main__ import main
from deepetpicker.config import NetworkOptions
from deepetpicker.errors import InputError, ModelFileError
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.reference import read_checkpoint
from deepetpicker.network.resunet import ResUNet3D


def reference_name(key):
    """Return the reference's name of one of our weights."""
    key = re.sub(r"\.unit(\d)\.conv\.", r".basic_module.conv\1.conv.", key)
    key = re.sub(r"\.unit(\d)\.norm\.", r".basic_module.conv\1.batchnorm.", key)
    key = re.sub(r"^upsamplers\.(\d)\.", r"decoders.\1.upsampling.upsample.", key)
    return "model." + key.replace("head.", "final_conv.")


class TrainerState:
    """A class of the checkpoint that this package does not know."""

    def __init__(self):
        self.block_size, self.pad_size = 56, 12


def checkpoint(path, n_classes=1, hyper=None, **options):
    """Write a checkpoint as the reference lays it out and return the network it holds."""
    torch.manual_seed(0)
    network = ResUNet3D(NetworkOptions(n_classes=n_classes, widths=(4, 6, 8, 10), **options)).eval()
    state = {reference_name(k): v for k, v in network.state_dict().items()}
    hyper = hyper or {"args": argparse.Namespace(block_size=48, pad_size=10)}
    torch.save({"epoch": 7, "state_dict": state, "hyper_parameters": hyper}, path)
    return network


@pytest.mark.parametrize(("n_classes", "options"), [(1, {}), (3, {}), (2, {"pyramid": False}),
                                                    (1, {"coordinates": False})])
def test_the_imported_network_gives_the_same_output(tmp_path, n_classes, options):
    network = checkpoint(tmp_path / "a.ckpt", n_classes, **options)
    result = import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)
    imported, card = load_model(tmp_path / "a.safetensors")
    x = torch.randn(1, 1, 16, 24, 32)
    with torch.inference_mode():
        assert torch.equal(imported(x), network(x))
    assert result["classes"] == n_classes
    assert (card.patch_vox, card.border_vox, card.training["epochs"]) == (48, 10, 7)
    assert card.classes[0].label_diameter_vox == 7.0


def test_unknown_classes_in_the_checkpoint_are_inert(tmp_path):
    checkpoint(tmp_path / "a.ckpt", hyper={"state": TrainerState()})
    content = read_checkpoint(tmp_path / "a.ckpt")
    assert type(content["hyper_parameters"]["state"]).__name__ == "_Inert"
    import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)
    assert load_model(tmp_path / "a.safetensors")[1].patch_vox == 56


class Attack:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, call, argument):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_code_in_a_checkpoint_is_never_run(tmp_path, call):
    trace = tmp_path / "trace"
    text = f"touch {trace}" if call is os.system else f"open({str(trace)!r}, 'w')"
    torch.save({"state_dict": {}, "x": Attack(call, text)}, tmp_path / "a.ckpt")
    with pytest.raises(ModelFileError):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)
    assert not trace.exists()
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1}), b"PK\x03\x04broken"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ModelFileError):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, tmp_path / "a.ckpt")
    with pytest.raises(ModelFileError, match="no checkpoint of the reference"):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)
    with pytest.raises(ModelFileError, match="no file"):
        import_reference(tmp_path / "none.ckpt", tmp_path / "a.safetensors", [200.0], 10.0)


def test_classes_of_a_checkpoint_get_ids_and_names(tmp_path):
    checkpoint(tmp_path / "a.ckpt", 2)
    words = ["import-reference", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "a.safetensors"), "--voxel-size",
             "10"]
    assert main([*words, "--classes", "3:proteasome:140,0:ribosome:250"]) == 0
    classes = load_model(tmp_path / "a.safetensors")[1].classes
    assert [(c.id, c.name, c.diameter_ang) for c in classes] == [(0, "ribosome", 250.0), (3, "proteasome", 140.0)]
    for wrong in ([], ["--classes", "1:ribosome:250"], ["--classes", "1:a:250,2:b"]):
        assert main([*words, *wrong]) == 2


def test_diameters_and_voxel_size_are_checked(tmp_path):
    checkpoint(tmp_path / "a.ckpt", 3)
    with pytest.raises(InputError, match="1 or 3"):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0, 100.0], 10.0)
    with pytest.raises(InputError, match="angstrom"):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [20.0], 10.0)
    with pytest.raises(InputError, match="--voxel-size"):
        import_reference(tmp_path / "a.ckpt", tmp_path / "a.safetensors", [200.0], 0.0)
