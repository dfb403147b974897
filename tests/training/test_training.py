"""Training as a whole, on tiny tomograms with bright balls in noise."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from balls import VOXEL, small, write_set
from torch.nn.modules.module import register_module_forward_hook

from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation import match_by_distance
from deepetpicker.io.coordinates import read_coordinates, write_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, read_card
from deepetpicker.io.volumes import open_volume
from deepetpicker.network.generic import load_generic
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.run import pick
from deepetpicker.sampling.gather import gather
from deepetpicker.training.loop.module import GlobalBatchNorm3d, use_global_statistics
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import METRICS, RunFolder, read_metrics
from tests.detectors import write_detector
from tests.moments import steps_of_training


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    """Return a folder of two tomograms with ten balls each."""
    return write_set(tmp_path_factory.mktemp("data"), [(40, 48, 56)] * 2, [10, 10])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> pathlib.Path:
    """Return the folder of a finished training of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(data, folder / "m.safetensors", small(epochs=1), quiet=True)
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> pathlib.Path:
    """Return the model of a copy of that training."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "m.safetensors"


def weights_of(path) -> dict:
    """Return the tensors of a model file."""
    return safetensors.torch.load_file(str(path))


def assert_same_weights(a, b) -> None:
    """Assert that two model files hold the same weights, to the bit."""
    first, second = weights_of(a), weights_of(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_held_out(manifest, data, folder, names) -> None:
    """Assert that the tables of the held-out part lie in the tomograms' voxels and give the figures of the run."""
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{n}{end}.csv" for n in names for end in ("", "_truth"))
    score, hits, n_true = manifest["outputs"]["classes"][0], 0, 0
    for name in names:
        found, truth = (read_coordinates(folder / f"{name}{end}.csv") for end in ("", "_truth"))
        np.testing.assert_allclose(truth.positions_zyx_vox, read_coordinates(data / f"{name}.csv").positions_zyx_vox,
                                   atol=1e-3)
        radius = 40 / open_volume(data / f"{name}.mrc").voxel_size_ang
        hits += match_by_distance(truth, found.select(found.scores >= score["threshold"]), radius).tp
        n_true += len(truth)
    assert n_true == score["n_true"]
    assert hits / n_true == pytest.approx(score["recall"])


@pytest.mark.long
def test_training_finds_the_balls(data, tmp_path):
    manifest = train(data, tmp_path / "m.safetensors", small(epochs=5, patches_per_epoch=32, batch=4,
                                                             widths=(6, 8), learning_rate=1e-2), quiet=True)
    rows = read_metrics(tmp_path / "m_run/metrics.csv")
    assert [row["epoch"] for row in rows] == list(range(5))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert max(row["pick_f1"] for row in rows) >= 0.9
    kept = rows[manifest["outputs"]["kept_epoch"]]
    best = max(rows, key=lambda r: (r["pick_f1"], r["pick_average_precision"], r["f_alpha"]))
    assert manifest["outputs"]["kept_epoch"] == best["epoch"] == [row for row in rows if row["kept"]][-1]["epoch"]
    assert kept["pick_distance_vox"] < 1.0
    one = read_card(tmp_path / "m.safetensors").classes[0]
    assert (one.calibration.n_particles, one.calibration.method, one.calibration.is_shared) == (10, "logistic", False)
    assert one.threshold == manifest["outputs"]["classes"][0]["threshold"]
    assert 0 < one.calibration(np.array([0.1]))[0] < one.threshold < one.calibration(np.array([0.75]))[0] < 1
    assert all(row["patches_per_second"] > 0 for row in rows)
    speed = sorted(row["patches_per_second"] for row in rows)[2]
    assert manifest["outputs"]["patches_per_second"] == pytest.approx(speed, rel=1e-3, abs=1e-3)
    assert (tmp_path / "m_run/metrics.csv").read_text().splitlines()[0] == ",".join(METRICS)
    assert list((tmp_path / "m_run/tensorboard").glob("events*"))


def test_the_card_says_what_the_model_is(data, copy, tmp_path):
    manifest = read_manifest(tmp_path / "m_run/manifest.json")
    network, card = load_model(copy)
    assert network.options.widths == (4,)
    assert card.voxel_size_ang == VOXEL
    assert card.classes[0].diameter_ang == 80
    assert card.classes[0].label_diameter_vox == 5
    assert (card.patch_vox, card.seed, card.training["validation"]) == (32, 0, ["t1"])
    assert 0.1 < card.threshold < 1
    assert 0.1 < card.thresholds[1] < 1
    assert len(card.validation) == 1
    assert len(card.intensity) == 9
    assert {i["name"]: i["role"] for i in manifest["items"]} == {"t0": "training", "t1": "validation"}
    assert manifest["inputs"][0]["shape_zyx"] == [40, 48, 56]
    assert not (tmp_path / "m_run/cache").exists()
    assert_held_out(manifest, data, tmp_path / "m_run/held_out", ["t1"])


@pytest.mark.long
def test_the_same_seed_gives_the_same_model_and_another_one_another(data, copy, tmp_path):
    for name, seed in (("b", 0), ("c", 1)):
        train(data, tmp_path / f"{name}.safetensors", small(epochs=1, seed=seed), quiet=True)
    assert_same_weights(copy, tmp_path / "b.safetensors")
    a, c = weights_of(copy), weights_of(tmp_path / "c.safetensors")
    assert not torch.equal(a["head.weight"], c["head.weight"])


@pytest.mark.long
@pytest.mark.parametrize(("step", "epochs"), [pytest.param(4, 1, marks=pytest.mark.slow), (5, 2)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(data, tmp_path, step, epochs):
    """At the end of the second epoch, before it is validated and kept; in the middle of the third."""
    options = small(epochs=4, background_fraction=0.25)
    train(data, tmp_path / "whole.safetensors", options, quiet=True)
    with steps_of_training(interrupted_after=step), pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "parts.safetensors", options, quiet=True)
    assert not (tmp_path / "parts.safetensors").exists()
    assert len(read_metrics(tmp_path / "parts_run/metrics.csv")) == epochs
    with steps_of_training() as steps:
        train(data, tmp_path / "parts.safetensors", options, quiet=True)
    assert len(steps) == 2 * (4 - epochs), "only the epochs that were left"
    assert_same_weights(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors")
    curves = [read_metrics(tmp_path / f"{n}_run/metrics.csv") for n in ("whole", "parts")]
    for a, b in zip(*curves):
        same = [n for n in METRICS if n not in ("seconds", "patches_per_second")]
        np.testing.assert_equal([a[n] for n in same], [b[n] for n in same])
    assert len(curves[1]) == 4
    for name in ("t1.csv", "t1_truth.csv"):
        first, second = ((tmp_path / f"{n}_run/held_out" / name).read_text() for n in ("whole", "parts"))
        assert first == second


def test_a_finished_run_is_not_run_again(data, copy, tmp_path, caplog):
    stamp = copy.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "deepetpicker"):
        again = train(data, copy, small(epochs=1), quiet=True)
    assert again == read_manifest(tmp_path / "m_run/manifest.json")
    assert copy.stat().st_mtime_ns == stamp
    assert "nothing to do" in caplog.text


def test_a_model_lost_after_the_last_epoch_is_written_from_the_checkpoint(data, trained, copy, tmp_path):
    copy.unlink()
    stamp = (tmp_path / "m_run/last.ckpt").stat().st_mtime_ns
    train(data, copy, small(epochs=1), quiet=True)
    assert_same_weights(copy, trained / "m.safetensors")
    assert (tmp_path / "m_run/last.ckpt").stat().st_mtime_ns == stamp


@pytest.mark.long
def test_other_options_start_afresh_and_lose_nothing(data, copy, tmp_path, caplog):
    before = weights_of(copy)
    with caplog.at_level(logging.WARNING, "deepetpicker"):
        train(data, tmp_path / "m.safetensors", small(epochs=1, learning_rate=3e-3), quiet=True)
    assert "learning_rate 0.004 -> 0.003" in caplog.text
    assert "m_run_1" in caplog.text
    assert torch.equal(weights_of(tmp_path / "m_run_1/m.safetensors")["head.weight"], before["head.weight"])
    assert not torch.equal(weights_of(tmp_path / "m.safetensors")["head.weight"], before["head.weight"])
    train(data, tmp_path / "m.safetensors", small(epochs=1, learning_rate=2e-3, resume=False), quiet=True)
    assert (tmp_path / "m_run_2/last.ckpt").exists()


@pytest.mark.long
def test_a_damaged_checkpoint_is_put_aside(data, copy, tmp_path, caplog):
    copy.unlink()
    (tmp_path / "m_run/last.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with caplog.at_level(logging.WARNING, "deepetpicker"):
        train(data, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    assert "m_run_1" in caplog.text
    assert (tmp_path / "m.safetensors").exists()


@pytest.mark.long
def test_a_run_ends_early_when_the_held_out_picks_no_longer_improve(data, tmp_path):
    """It begins with a model that finds all balls and nothing else."""
    write_detector(tmp_path / "sure.safetensors", ClassCard(1, "ball_1", 80.0, 5.0), signs=(-1,), patch_vox=32,
                   border_vox=8)
    options = small(epochs=30, patience=2, validate_every=1, init=str(tmp_path / "sure.safetensors"), widths=())
    manifest = train(data, tmp_path / "m.safetensors", options, quiet=True)
    rows = read_metrics(tmp_path / "m_run/metrics.csv")
    assert rows[0]["pick_f1"] == 1
    assert len(rows) == manifest["outputs"]["epochs"] == 4
    assert rows[-1]["learning_rate"] < 1e-5 < rows[-2]["learning_rate"]
    (tmp_path / "m.safetensors").unlink()
    train(data, tmp_path / "m.safetensors", options, quiet=True)
    assert len(read_metrics(tmp_path / "m_run/metrics.csv")) == 4


@pytest.mark.long
def test_validation_every_second_epoch(data, tmp_path):
    train(data, tmp_path / "m.safetensors", small(epochs=3, validate_every=2), quiet=True)
    validated = [row["val_loss"] == row["val_loss"] for row in read_metrics(tmp_path / "m_run/metrics.csv")]
    assert validated == [False, True, True]


@pytest.mark.long
@pytest.mark.parametrize(("shape", "count"), [((20, 200, 150), 12), ((61, 67, 71), 6), ((40, 48, 56), 1)])
def test_shapes_and_a_single_particle(shape, count, tmp_path):
    folder = write_set(tmp_path / "data", [shape], [count])
    manifest = train(folder, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    assert read_card(tmp_path / "m.safetensors").training["particles"] == {"1": count}
    assert manifest["items"][0]["role"] == "both"
    assert any("too few particles" in w for w in manifest["warnings"]) == (count == 1)


@pytest.mark.long
def test_one_of_two_tables_is_empty(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [6, 0])
    manifest = train(folder, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    assert any("t1: no particles" in w for w in manifest["warnings"])
    assert {i["name"]: i["role"] for i in manifest["items"]} == {"t0": "both", "t1": "training"}


@pytest.mark.long
def test_a_network_of_five_levels_is_validated_and_picks(tmp_path):
    """It takes tiles of multiples of 16 voxels; the held-out part has 48 x 72 x 29."""
    folder = write_set(tmp_path / "data", [(48, 72, 140)], [30])
    manifest = train(folder, tmp_path / "m.safetensors", small(epochs=1, widths=(4, 4, 4, 4, 6), validation_tiles=1),
                     quiet=True)
    assert np.isfinite(manifest["outputs"]["pick_f1"])
    pick(tmp_path / "m.safetensors", [folder / "t0.mrc"], tmp_path / "out", PickOptions(device="cpu"), quiet=True)
    assert read_manifest(tmp_path / "out" / "manifest.json")["items"][0]["status"] == "done"


@pytest.mark.long
@pytest.mark.parametrize(("init", "widths"), [("none", (4, 6)), ("generic", ())])
def test_it_starts_from_chance_or_from_the_generic_model(tmp_path, init, widths):
    folder = write_set(tmp_path / "data", [(40, 48, 56)], [10])
    manifest = train(folder, tmp_path / "m.safetensors",
                     small(epochs=1, patches_per_epoch=4, init=init, widths=widths, learning_rate=1e-9), quiet=True)
    network, card = load_model(tmp_path / "m.safetensors")
    assert "started_from" not in card.training
    assert not any(init in str(one["path"]) for one in manifest["inputs"])
    known = load_generic()[0].state_dict()["encoders.0.unit1.conv.weight"].abs()
    ours = network.state_dict()["encoders.0.unit1.conv.weight"].abs()
    assert (ours.shape == known.shape and torch.allclose(ours, known, atol=1e-3)) == (init == "generic")


@pytest.mark.long
def test_two_classes_unknown_background_and_another_voxel_size(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [8, 8], n_classes=2)
    options = small(epochs=1, unannotated="unknown", working_diameter=5.0, cross_entropy=0.1)
    train(folder, tmp_path / "m.safetensors", options, quiet=True)
    network, card = load_model(tmp_path / "m.safetensors")
    assert card.voxel_size_ang == pytest.approx(16.0)
    assert [c.id for c in card.classes] == [1, 2]
    assert network.head.out_channels == 3
    kept, given = (read_coordinates(path) for path in (tmp_path / "m_run/held_out/t1_truth.csv", folder / "t1.csv"))
    np.testing.assert_allclose(kept.positions_zyx_vox, given.positions_zyx_vox, atol=1e-3)
    assert kept.class_ids.tolist() == given.class_ids.tolist()


@pytest.mark.long
def test_tomograms_of_different_voxel_sizes_train_together(tmp_path):
    write_set(tmp_path / "data", [(40, 48, 56)], [6])
    fine = write_set(tmp_path / "fine", [(40, 60, 56)], [6], voxel=5.0)
    for suffix in ("mrc", "csv"):
        (fine / f"t0.{suffix}").rename(tmp_path / "data" / f"fine.{suffix}")
    classes = tmp_path / "data" / "classes.json"  # says no voxel size: it would be that of all
    classes.write_text(json.dumps({"classes": json.loads(classes.read_text())["classes"]}))
    manifest = train(tmp_path / "data", tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    assert read_card(tmp_path / "m.safetensors").voxel_size_ang == 10
    assert [i["voxel_size_angstrom"] for i in manifest["inputs"] if "shape_zyx" in i] == [5, 10]


@pytest.mark.long
def test_warm_start_takes_weights_and_voxel_size(data, copy, tmp_path):
    frozen = small(epochs=1, init=str(copy), learning_rate=1e-12, weight_decay=0.0)
    train(data, tmp_path / "new.safetensors", frozen, quiet=True)
    old, new = weights_of(copy), weights_of(tmp_path / "new.safetensors")
    torch.testing.assert_close(old["head.weight"], new["head.weight"])
    two = write_set(tmp_path / "two", [(40, 48, 56)] * 2, [6, 6], n_classes=2)
    manifest = train(two, tmp_path / "two.safetensors", frozen, quiet=True)
    assert any("class 2 (ball_2) is not in the model" in w for w in manifest["warnings"])
    other = weights_of(tmp_path / "two.safetensors")
    torch.testing.assert_close(other["head.weight"][1], old["head.weight"][0])
    torch.testing.assert_close(old["encoders.0.unit1.conv.weight"], other["encoders.0.unit1.conv.weight"])
    torch.testing.assert_close(old["head.weight"][0], other["head.weight"][1])


@pytest.mark.long
def test_params_name_every_file(data, tmp_path):
    params = {"items": [{"name": n, "tomogram": str(data / f"{n}.mrc"), "coordinates": str(data / f"{n}.csv"),
                         "voxel_size": 10.0} for n in ("t0", "t1")],
              "classes": [{"id": 1, "name": "ball", "diameter_angstrom": 80.0}]}
    manifest = train("", tmp_path / "m.safetensors", small(epochs=1, validation=("t0",)), quiet=True, params=params)
    assert {i["name"]: i["role"] for i in manifest["items"]} == {"t0": "validation", "t1": "training"}


def test_every_problem_is_reported_at_once_and_nothing_is_written(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 3, [4, 4, 4])
    (folder / "t0.mrc").write_bytes(b"")
    (folder / "t1.csv").write_text("class_id,class_name,x,y,z\n" + "1,ball,900,900,900\n" * 3)
    (folder / "t2.csv").write_text("class_id,class_name,x,y,z\n7,odd,20,20,20\n")
    with pytest.raises(InputError, match="3 problems") as error:
        train(folder, tmp_path / "m.safetensors", small(), quiet=True)
    for word in ("t0.mrc is empty", "t1: 3 of 3", "class 7"):
        assert word in str(error.value)
    assert not (tmp_path / "m_run").exists()


@pytest.mark.parametrize(("changes", "word"), [
    ({"diameter_angstrom": (8.0,)}, "must be in angstrom"),
    ({"diameter_angstrom": (80.0, 90.0)}, "expected 1 or 1 diameters"),
    ({"label_diameter": 9.0}, "at most the particle's diameter"),
    ({"validation": ("t0x",)}, "did you mean"),
    ({"validation": ("t0", "t1")}, "none"),
    ({"patch": 40, "widths": (4, 4, 4, 4, 4)}, "multiple of 16"),
    ({"devices": 3}, "multiple of the number of processes"),
    ({"precision": "float16"}, "needs a GPU"),
])
def test_bad_options(data, tmp_path, changes, word):
    with pytest.raises(InputError, match=word):
        train(data, tmp_path / "m.safetensors", small(**changes), quiet=True)
    assert not (tmp_path / "m.safetensors").exists()
    assert not (tmp_path / "m_run").exists()


def test_no_particles_at_all(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)], [0])
    with pytest.raises(InputError, match="at least one particle"):
        train(folder, tmp_path / "m.safetensors", small(), quiet=True)


def test_unusual_diameters_are_warned_about(data):
    assert any("work best" in w for w in gather(data, small(diameter_angstrom=(50.0,))).warnings)
    assert not gather(data, small()).warnings


@pytest.mark.long
def test_a_loss_that_is_not_a_number_stops_with_advice(data, tmp_path):
    with pytest.raises(InputError, match="learning-rate"):
        train(data, tmp_path / "m.safetensors", small(epochs=6, learning_rate=1e30), quiet=True)


@pytest.mark.long
def test_a_single_bad_step_is_left_out(data, tmp_path, caplog):
    spoilt = []

    def spoil(module, inputs, output):
        if isinstance(module, ResUNet3D) and module.training and len(steps) == 1 and not spoilt:
            spoilt.append(module)
            return output * float("nan")
        return None

    with steps_of_training() as steps:
        hook = register_module_forward_hook(spoil)
        try:
            train(data, tmp_path / "m.safetensors", small(epochs=2), quiet=True)
        finally:
            hook.remove()
    assert len(spoilt) == 1
    assert all(torch.isfinite(t).all() for t in weights_of(tmp_path / "m.safetensors").values())
    assert "left out" in caplog.text


def test_global_batch_norm_equals_the_usual_one_in_a_single_process():
    torch.manual_seed(0)
    usual = torch.nn.Sequential(torch.nn.Conv3d(2, 5, 3), torch.nn.BatchNorm3d(5))
    ours = torch.nn.Sequential(torch.nn.Conv3d(2, 5, 3), torch.nn.BatchNorm3d(5))
    ours.load_state_dict(usual.state_dict())
    use_global_statistics(ours)
    assert isinstance(ours[1], GlobalBatchNorm3d)
    x = torch.randn(3, 2, 6, 7, 8)
    a, b = usual(x), ours(x)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    (a**2 * torch.arange(a.numel()).view(a.shape)).mean().backward()
    (b**2 * torch.arange(b.numel()).view(b.shape)).mean().backward()
    torch.testing.assert_close(usual[0].weight.grad, ours[0].weight.grad, atol=1e-2, rtol=1e-3)
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(usual.eval()(x), ours.eval()(x))


def test_run_folder_lies_beside_the_model(tmp_path):
    assert RunFolder(tmp_path / "a.b.safetensors").path == tmp_path / "a.b_run"


TINY = ("--patch", "32", "--widths", "4,6", "--batch", "4", "--device", "cpu", "--precision", "float32",
        "--validation-tiles", "4", "--quiet")


def command(data, out, *more) -> list:
    """Return the command line of a tiny training."""
    return [sys.executable, "-m", "deepetpicker", "train", "--data", str(data), "--out", str(out), *TINY, *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_goes_on_and_ends_with_the_same_model(data, tmp_path, number):
    more = ("--epochs", "4", "--patches-per-epoch", "32")
    subprocess.run(command(data, tmp_path / "whole", *more), check=True)
    metrics = tmp_path / "parts_run/metrics.csv"
    process = subprocess.Popen(command(data, tmp_path / "parts", *more))
    while process.poll() is None and len(read_metrics(metrics)) < 2:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait() == (-9 if number == signal.SIGKILL else 130)
    assert not (tmp_path / "parts.safetensors").exists()
    subprocess.run(command(data, tmp_path / "parts", *more), check=True)
    assert_same_weights(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors")
    assert [row["epoch"] for row in read_metrics(metrics)] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_train_the_model_of_one(data, tmp_path, launcher):
    more = ("--epochs", "2", "--patches-per-epoch", "16")
    subprocess.run(command(data, tmp_path / "one", *more), check=True)
    both = command(data, tmp_path / "two", *more)
    if launcher == "lightning":
        both += ["--devices", "2"]
    else:
        both[1:2] = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    subprocess.run(both, check=True)
    one, two = (weights_of(tmp_path / f"{n}.safetensors") for n in ("one", "two"))
    for name, value in one.items():
        if name.endswith("weight"):  # biases before a normalisation have no effect, and their gradient is noise
            assert float((two[name] - value).norm() / value.norm()) < 1e-3, name
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        a, b = (load_model(tmp_path / f"{n}.safetensors")[0](x) for n in ("one", "two"))
    assert float((a - b).norm() / a.norm()) < 1e-2
    assert len(read_metrics(tmp_path / "two_run/metrics.csv")) == 2


@pytest.mark.long
def test_coordinates_that_do_not_fit_are_said_before_the_training(data, tmp_path):
    folder = tmp_path / "flipped"
    shutil.copytree(data, folder)
    for table in folder.glob("*.csv"):
        rows = read_coordinates(table)
        depth = open_volume(table.with_suffix(".mrc")).shape_zyx[0]
        flipped = rows.positions_zyx_vox * [-1, 1, 1] + [depth - 1, 0, 0]
        write_coordinates(table, dataclasses.replace(rows, positions_zyx_vox=flipped))
    told = train(folder, tmp_path / "m.safetensors", small(epochs=1, check=True), quiet=True)["warnings"]
    assert any("t0: class 1" in text and "z flipped" in text for text in told)
    quiet = train(folder, tmp_path / "n.safetensors", small(epochs=1, check=False), quiet=True)["warnings"]
    assert not any("flipped" in text for text in quiet)
    fitting = train(data, tmp_path / "o.safetensors", small(epochs=1, check=True), quiet=True)["warnings"]
    assert not any("fit" in text for text in fitting)
