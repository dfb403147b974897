"""What the windows show, without any window."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.errors import InputError
from deepetpicker.io.volumes import write_volume
from deepetpicker.report import training_figure
from deepetpicker.windows.charts import training_summary, without_empty
from deepetpicker.windows.scene import Layer, Scene, TomogramFile, scale_bar


def layer():
    positions = {"a": np.array([[5.0, 10, 20], [8, 11, 21], [30, 1, 2]])}
    return Layer("ring", "white", 100.0, positions, {"a": np.array([0.9, 0.4, 0.7])})


def test_circles_shrink_with_the_distance():
    one = layer()
    np.testing.assert_allclose(one.circles("a", (0, 5), 5.0), [[20, 10, 5], [21, 11, 4]])
    np.testing.assert_allclose(one.circles("a", (0, 5), 5.0, low=0.5), [[20, 10, 5]])
    np.testing.assert_allclose(one.circles("a", (1, 10), 5.0)[0], [20, 5, 5])  # x to the right, z upwards
    np.testing.assert_allclose(one.circles("a", (2, 20), 5.0)[0], [5, 10, 5])  # z to the right, y upwards
    assert one.circles("b", (0, 5), 5.0).shape == (0, 3)
    assert (one.count(), one.count(0.5), one.count(0.95)) == (3, 2, 0)


def test_a_scene_begins_where_most_particles_are(scene):
    assert scene.busiest("a") == (8, 11, 21)
    assert scene.busiest("b") == (10, 32, 24)
    assert scene.voxel_size_ang("b") == pytest.approx(12.0)
    assert scene.radius_vox(scene.layers[0], "a") == pytest.approx(3.0)


def test_scene_without_diameter_draws_twenty_voxels(scene):
    assert scene.radius_vox(Layer("x", "white", 0.0, {}, {}), "b") == 10.0


def test_another_binning_is_shown_in_the_voxels_of_the_coordinates(tmp_path):
    write_volume(tmp_path / "a.mrc", np.zeros((24, 40, 56), np.int8), 10.0)
    write_volume(tmp_path / "denoised.mrc", np.ones((12, 20, 28), np.int8), 20.0)
    scene = Scene([TomogramFile("a", str(tmp_path / "a.mrc"), shown=str(tmp_path / "denoised.mrc"))], [])
    assert scene.shape_zyx("a") == (24, 40, 56)
    assert scene.volume("a").shape == (12, 20, 28)
    np.testing.assert_allclose(scene.factor_zyx("a"), 0.5)
    assert scene.voxel_size_ang("a") == pytest.approx(10.0)


def test_a_version_of_another_form_is_refused(tmp_path):
    write_volume(tmp_path / "a.mrc", np.zeros((24, 40, 56), np.int8), 10.0)
    write_volume(tmp_path / "other.mrc", np.ones((12, 20, 40), np.int8), 20.0)
    scene = Scene([TomogramFile("a", str(tmp_path / "a.mrc"), shown=str(tmp_path / "other.mrc"))], [])
    with pytest.raises(InputError, match="expected 56 x 40 x 24 voxels, or all of them scaled alike, got 40 x 20 x 12"):
        scene.volume("a")


def test_a_missing_tomogram_is_named(tmp_path):
    with pytest.raises(InputError, match="no such tomogram"):
        Scene([TomogramFile("a", str(tmp_path / "gone.mrc"))], []).volume("a")


def test_scale_bar_has_a_round_length():
    assert scale_bar(1000, 10.0) == (200.0, "200 nm")
    assert scale_bar(64, 10.0) == (10.0, "10 nm")


def test_where_particles_lack_an_annotation_a_training_is_told_by_recall():
    rows = [{"epoch": e, "train_loss": "0.2", "pick_f1": "0.1", "pick_precision": "0.06", "pick_recall": "0.95",
             "pick_average_precision": "0.1",
             "kept": str(e)} for e in range(2)]
    assert training_summary(rows, False, True).endswith("loss 0.2, kept epoch 1, picking recall 0.950.")
    right = training_figure(rows, True).axes[1]
    assert [line.get_label() for line in right.lines if not line.get_label().startswith("_")] == ["picking recall"]
    assert right.get_title() == "kept: epoch 1, picking recall 0.950"
    assert "picking F1 0.100" in training_figure(rows).axes[1].get_title()


def test_training_summary():
    rows = [{"epoch": "0", "train_loss": "0.5", "pick_f1": "0.2"},
            {"epoch": "1", "train_loss": "0.25", "pick_f1": ""}]
    assert "best picking F1 0.200 in epoch 0" in training_summary(rows, False)
    marked = [{**row, "pick_f1": f1, "kept": kept} for row, f1, kept in zip(rows, ("0.3", "0.2"), ("1", "1"))]
    assert "kept epoch 1, picking F1 0.200" in training_summary(marked, False)
    assert "follows" in training_summary([], True)
    assert without_empty(rows)[1] == {"epoch": "1", "train_loss": "0.25"}
