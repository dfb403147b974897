"""Strange numbers in tomograms and tables give a result or a message, in training and in picking."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.modelcard import read_card

SHAPE = (32, 40, 36)
SMALL = ["--patch", "32", "--widths", "4,6", "--epochs", "1", "--patches-per-epoch", "4", "--batch", "2", "--device",
         "cpu", "--precision", "float32", "--validation-tiles", "4", "--seed", "1", "--quiet"]


def noise(seed=0):
    """Return a tomogram (32, 40, 36) of noise."""
    return np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)


def slabs(value):
    """Return a tomogram with four planes that hold one value."""
    volume = noise()
    volume[10:14] = value
    return volume


VOLUMES = {
    "NaN slab": slabs(np.nan), "infinite slab": slabs(np.inf), "constant slab": slabs(7.0), "one hot slab": slabs(3e38),
    "zeros": np.zeros(SHAPE, "f4"), "constant": np.full(SHAPE, 3.0, "f4"), "all NaN": np.full(SHAPE, np.nan, "f4"),
    "float16": slabs(6e4).astype(np.float16), "float16 infinite": slabs(np.inf).astype(np.float16),
    "huge": noise() * np.float32(1e37), "tiny": noise() * np.float32(1e-40), "int8": (noise() * 20).astype(np.int8)}
CENTRES = np.array([[8, 10, 9], [20, 30, 9], [8, 30, 27], [20, 10, 27], [26, 20, 18],
                    [16, 20, 30], [24, 34, 30], [6, 20, 18]])


def write(folder, volume, centres=CENTRES, classes=None, diameters=(80.0,)):
    """Write a data folder with one tomogram, its table (positions zyx in voxels) and classes.json."""
    folder.mkdir(exist_ok=True)
    with mrcfile.new(folder / "t.mrc", volume, overwrite=True) as mrc:
        mrc.voxel_size = 10.0
    kinds = np.ones(len(centres), int) if classes is None else classes
    rows = [f"{kind},{x},{y},{z}" for kind, (z, y, x) in zip(kinds, centres)]
    (folder / "t.csv").write_text("\n".join(["class,x,y,z", *rows]) + "\n")
    table = [{"id": k, "name": f"p{k}", "diameter_angstrom": d} for k, d in enumerate(diameters, start=1)]
    (folder / "classes.json").write_text(json.dumps({"classes": table}))
    return folder


def train_and_pick(tmp_path, capsys, data):
    """Train and pick on a data folder; return both statuses, and see that a failure was told in one line."""
    trained = main(["train", "--data", str(data), "--out", str(tmp_path / "m.safetensors"), *SMALL])
    told = capsys.readouterr().err.strip().splitlines()
    if trained:
        assert trained == 2
        assert any("error: " in line for line in told)
        return trained, None
    assert np.isfinite(read_card(tmp_path / "m.safetensors").threshold)
    picked = main(["pick", str(tmp_path / "m.safetensors"), str(data / "t.mrc"), "--out", str(tmp_path / "out"),
                   "--device", "cpu", "--threshold", "0", "--floor", "0.001", "--quiet"])
    assert picked in (0, 2)
    if not picked:
        table = read_coordinates(tmp_path / "out" / "t.csv")
        assert np.isfinite(table.scores).all()
    return trained, picked


@pytest.mark.long
@pytest.mark.parametrize("name", ["NaN slab", "zeros", "float16 infinite",
                                  *(pytest.param(n, marks=pytest.mark.slow) for n in VOLUMES
                                    if n not in ("NaN slab", "zeros", "float16 infinite"))])
def test_a_strange_tomogram_is_trained_on_and_picked_or_refused_in_one_line(tmp_path, capsys, name):
    trained, picked = train_and_pick(tmp_path, capsys, write(tmp_path / "d", VOLUMES[name]))
    expected = (2, None) if name in ("zeros", "constant", "all NaN") else (0, 0)
    assert (trained, picked) == expected


@pytest.fixture(scope="module")
def good_model(tmp_path_factory):
    """A model that was trained on a tomogram with nothing strange in it."""
    folder = tmp_path_factory.mktemp("good")
    assert main(["train", "--data", str(write(folder / "d", noise())), "--out", str(folder / "m.safetensors"),
                 *SMALL]) == 0
    return folder / "m.safetensors"


@pytest.mark.parametrize("name", ["zeros", "constant", "all NaN", "infinite slab"])
def test_a_strange_tomogram_is_picked_with_a_good_model_or_refused(tmp_path, good_model, name):
    write(tmp_path / "d", VOLUMES[name])
    status = main(["pick", str(good_model), str(tmp_path / "d/t.mrc"), "--out", str(tmp_path / "o"),
                   "--device", "cpu", "--quiet"])
    assert status == (0 if name == "infinite slab" else 2)
    assert (tmp_path / "o" / "t.csv").is_file() == (status == 0)


@pytest.mark.long
def test_particles_exactly_on_the_border_are_trained_on(tmp_path, capsys):
    edge = np.array(SHAPE) - 0.5
    on_it = np.array([[-0.5, 20, 18], [edge[0], 20, 18], [16, -0.5, 18], [16, edge[1], 18], [16, 20, -0.5],
                      [16, 20, edge[2]], [-0.5, -0.5, -0.5], edge])
    data = write(tmp_path / "d", noise(), np.concatenate([on_it, CENTRES]))
    assert train_and_pick(tmp_path, capsys, data) == (0, 0)


def test_particles_of_one_voxel_are_refused_in_one_line(tmp_path, capsys):
    assert train_and_pick(tmp_path, capsys, write(tmp_path / "d", noise(), diameters=(10.0,))) == (2, None)


@pytest.mark.slow
def test_batches_of_background_alone_are_trained_on(tmp_path, capsys):
    data = write(tmp_path / "d", noise(), CENTRES[:2])
    SMALL.extend(["--background-fraction", "0.9"])
    try:
        assert train_and_pick(tmp_path, capsys, data) == (0, 0)
    finally:
        del SMALL[-2:]


@pytest.mark.long
def test_a_class_that_the_held_out_part_lacks_is_trained_on(tmp_path, capsys):
    kinds = [1, 1, 1, 1, 1, 1, 1, 2]
    data = write(tmp_path / "d", noise(), CENTRES, kinds, (80.0, 60.0))
    assert train_and_pick(tmp_path, capsys, data) == (0, 0)
