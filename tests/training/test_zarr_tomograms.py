"""The verbs on OME-Zarr folders: what they make of one is what they make of the same tomogram as an MRC file."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import zarr  # noqa: F401  (the file is skipped where there is none)
from balls import small, write_set

from deepetpicker.__main__ import main
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.training.run import train
from deepetpicker.windows.inputs import find_tomograms
from deepetpicker.windows.scene import Scene
from tests import zarrs
from tests.detectors import write_detector

SHAPE = (40, 48, 56)


def as_zarr(mrc, folder, n_levels=1):
    """Write an MRC file as an OME-Zarr folder with several resolutions; return it."""
    volume = open_volume(mrc, quiet=True)
    data, group, listed = np.asarray(volume.data_zyx), zarrs.open_group(folder), []
    for level in range(n_levels):
        group.create_array(str(level), shape=data.shape, dtype="f4", chunks=(16, 16, 16))[:] = data
        listed.append({"path": str(level), "coordinateTransformations": [
            {"type": "scale", "scale": [volume.voxel_size_ang * 2 ** level] * 3}]})
        z, y, x = (n // 2 for n in data.shape)
        data = data[:2 * z, :2 * y, :2 * x].reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": listed}]
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with two tomograms as MRC files and as OME-Zarr folders, and with models (one finds balls)."""
    folder = tmp_path_factory.mktemp("zarr")
    write_set(folder / "mrc", [SHAPE] * 2, [10, 10])
    (folder / "zarr").mkdir()
    for path in (folder / "mrc").iterdir():
        if path.suffix == ".mrc":
            as_zarr(path, folder / "zarr" / f"{path.stem}.zarr")
        else:
            shutil.copy(path, folder / "zarr")
    train(folder / "zarr", folder / "m.safetensors", small(epochs=1), quiet=True)
    write_detector(folder / "balls.safetensors", ClassCard(1, "ball_1", 80.0, 7.0), signs=(-1,), gain=6.0,
                   patch_vox=32, border_vox=8)  # finds them without training
    return folder


def words(place, kind, verb):
    tomograms = sorted(str(p) for p in (place / kind).iterdir() if p.suffix == f".{kind}")
    if verb == "propose":
        return ["propose", *tomograms, "--diameter-angstrom", "80", "--method", "blob", "--most", "20", "--quiet"]
    how = ["--device", "cpu", "--precision", "float32", "--quiet"]
    return ["pick", str(place / "balls.safetensors"), *tomograms, *how]


@pytest.mark.long
@pytest.mark.parametrize("verb", ["pick", "propose"])
def test_a_folder_gives_the_same_tables_as_the_file(place, tmp_path, verb):
    for kind in ("mrc", "zarr"):
        assert main([*words(place, kind, verb), "--out", str(tmp_path / kind)]) == 0
    tables = sorted(p.name for p in (tmp_path / "mrc").glob("t*.csv"))
    assert len(tables) >= 2
    assert sum(len((tmp_path / "mrc" / name).read_text().splitlines()) for name in tables) > 20
    for name in tables:
        assert (tmp_path / "zarr" / name).read_bytes() == (tmp_path / "mrc" / name).read_bytes()


def test_training_sees_the_same_voxels_and_its_manifest_names_the_folder(place, tmp_path):
    pairs = zip(*(annotate(gather(place / kind, small()), tmp_path / kind) for kind in ("mrc", "zarr")))
    for mrc, folder in pairs:
        assert np.array_equal(mrc.source.planes(0, 40), folder.source.planes(0, 40))
        assert np.array_equal(mrc.positions_zyx_vox, folder.positions_zyx_vox)
    inputs = read_manifest(place / "m_run" / "manifest.json")["inputs"]
    known = [one for one in inputs if one["path"].endswith("t0.zarr")]
    assert known[0]["shape_zyx"] == list(SHAPE)
    assert known[0]["bytes"] > 0
    assert len(known[0]["sample_sha256"]) == 32


def test_picks_count_the_voxels_of_the_finest_resolution_and_read_a_coarser_one(place, tmp_path):
    """The finest is twice as fine as the model; most of its chunks are gone, and nobody asks for them."""
    own = open_volume(place / "mrc" / "t0.mrc")
    write_volume(tmp_path / "t0.mrc", np.kron(own.data_zyx, np.ones((2, 2, 2), np.float32)), own.voxel_size_ang / 2)
    folder = as_zarr(tmp_path / "t0.mrc", tmp_path / "t0.zarr", n_levels=2)
    for k in range(1, 5):
        shutil.rmtree(folder / "0" / str(k), ignore_errors=True)
    how = ["--device", "cpu", "--precision", "float32", "--quiet", "--out"]
    for path, out in ((folder, "fine"), (place / "mrc" / "t0.mrc", "own")):
        assert main(["pick", str(place / "balls.safetensors"), str(path), *how, str(tmp_path / out)]) == 0
    fine, own = (np.loadtxt(tmp_path / out / "t0.csv", delimiter=",", skiprows=1) for out in ("fine", "own"))
    assert len(own) > 5
    assert fine[:, 1:4] == pytest.approx((own[:, 1:4] + 0.5) * 2 - 0.5, abs=0.02)


def test_a_picked_folder_is_skipped_when_it_is_as_it_was_and_picked_again_when_not(place, tmp_path, caplog):
    folder = shutil.copytree(place / "zarr" / "t0.zarr", tmp_path / "t0.zarr")
    caplog.set_level("INFO", "deepetpicker")
    again = [*words(place, "zarr", "pick")[:2], str(folder), "--device", "cpu", "--precision", "float32", "--out",
             str(tmp_path / "out"), "--resume"]
    assert [main(again), main(again)] == [0, 0]
    assert caplog.text.count("t0: done before, skipped") == 1
    chunks = sorted(path for path in (folder / "0").iterdir() if path.name[0].isdigit())
    chunks[5].write_bytes(chunks[0].read_bytes())
    assert main(again) == 0
    assert caplog.text.count("t0: done before, skipped") == 1
    chunks[7].write_bytes(b"damaged")
    assert main(again) == 2  # none could be picked
    assert "t0: failed: " in caplog.text
    assert "cannot be read" in caplog.text


def test_without_zarr_pick_says_what_to_install(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert main([*words(place, "zarr", "pick"), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'deepetpicker[zarr]'" in capsys.readouterr().err


def test_a_window_shows_a_resolution_that_fits_and_counts_voxels_of_the_finest(place, tmp_path):
    folder = as_zarr(place / "mrc" / "t0.mrc", tmp_path / "t0.ome.zarr", n_levels=3)
    scene = Scene(find_tomograms([str(folder)]), [])
    assert scene.names == ["t0"]
    assert scene.volume("t0").shape == SHAPE
    large = zarrs.open_group(folder, mode="a")
    for level in range(3):  # of 1.9 GB at the finest, of which one chunk is there: the rest has the fill value
        shape = tuple(n // 2 ** level for n in (640, 768, 960))
        array = large.create_array(str(level), shape=shape, dtype="f4", chunks=(16, 16, 16), overwrite=True)
        array[:16, :16, :16] = 1
    scene = Scene(find_tomograms([str(folder)]), [])
    assert (scene.volume("t0").shape, scene.shape_zyx("t0")) == ((320, 384, 480), (640, 768, 960))
    assert scene.factor_zyx("t0").tolist() == [0.5, 0.5, 0.5]
