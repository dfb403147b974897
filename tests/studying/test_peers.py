"""Other ways to pick: templates in any orientation, clusters of voxels, blobs, and thresholds from labels."""

from __future__ import annotations

import csv
import pathlib
from typing import Dict

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepetpicker.config import StudyOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.studying import study, template
from deepetpicker.studying.clusters import mean_shift, segmented
from deepetpicker.studying.data import open_data
from deepetpicker.studying.methods import Task
from deepetpicker.studying.peers import by_template, by_turns, thresholds
from deepetpicker.studying.variants import Variant

CPU = torch.device("cpu")


def balls(shape, centres, radius: float) -> np.ndarray:
    """Return a mask of balls."""
    grid = np.indices(shape)
    return np.any([sum((g - c) ** 2 for g, c in zip(grid, centre)) <= radius ** 2 for centre in centres], axis=0)


def test_touching_balls_are_two_clusters_at_their_centres():
    centres = [(10, 12, 12), (10, 12, 20), (16, 30, 8)]
    found = mean_shift(balls((24, 40, 32), centres, 4.2), 4.0)
    assert len(found) == 3
    for centre in centres:
        assert np.linalg.norm(found.positions_zyx_vox - np.array(centre), axis=1).min() < 0.7
    assert found.scores == pytest.approx(0.5, abs=0.1)


def test_a_smaller_cluster_scores_less_and_nothing_gives_nothing():
    mask = balls((24, 40, 32), [(8, 10, 10)], 5.0) | balls((24, 40, 32), [(14, 30, 20)], 2.0)
    found = mean_shift(mask, 4.0)
    assert found.positions_zyx_vox.round().tolist() == [[8, 10, 10], [14, 30, 20]]
    assert found.scores[0] > 2 * found.scores[1]
    assert len(mean_shift(np.zeros((8, 9, 10), bool), 4.0)) == 0


def test_a_voxel_is_of_its_most_probable_class_unless_background_is_more_probable():
    probability = np.array([[0.6, 0.2, 0.35, 0.1], [0.1, 0.5, 0.35, 0.2]]).reshape(2, 1, 1, 4)
    assert segmented(probability).ravel().tolist() == [1, 2, 1, 0]
    assert segmented(np.array([0.49, 0.51]).reshape(1, 1, 1, 2)).ravel().tolist() == [0, 1]


def test_orientations_leave_no_gap():
    turns = Rotation.from_matrix(template.orientations(300))
    asked = Rotation.random(200, random_state=1)
    away = [np.rad2deg((turns * one.inv()).magnitude().min()) for one in asked]
    assert max(away) < 35
    assert np.mean(away) < 22


@pytest.mark.long
def test_a_turned_particle_is_found_where_it_is():
    rng = np.random.default_rng(0)
    radius, edge = 5.0, template.box_edge(5.0)
    parts = balls((15, 15, 15), [(7, 4, 6), (7, 10, 6), (7, 7, 9)], 2.0).astype(np.float32)
    density = template.in_box(ndimage.gaussian_filter(parts, 0.7), edge)
    turn = Rotation.random(random_state=3).as_matrix()
    middle = (edge - 1) / 2
    turned = ndimage.affine_transform(density, turn, middle - turn @ np.full(3, middle), order=3)
    volume = rng.normal(0, 0.1, (24, 40, 32)).astype(np.float32)
    corner = np.array([6, 20, 4])
    volume[tuple(slice(c, c + edge) for c in corner)] += turned
    score = template.correlation(volume, template.rotated(density, 400), radius, CPU)
    assert score.shape == volume.shape
    assert np.abs(np.array(np.unravel_index(score.argmax(), score.shape)) - corner - edge // 2).max() <= 1
    assert 0.6 < score.max() <= 1.001
    one = template.correlation(volume, template.rotated(density, 1), radius, CPU)
    assert one[tuple(corner + edge // 2)] < score.max() - 0.1, "another orientation fits less"


def test_a_score_knows_neither_brightness_nor_contrast_of_the_tomogram():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(20, 24, 28)).astype(np.float32)
    box = rng.normal(size=(11,) * 3)
    plain, changed = (template.correlation(v, iter([box]), 4.0, CPU)[6:-6, 6:-6, 6:-6]
                      for v in (volume, 3 * volume + 5))
    np.testing.assert_allclose(changed, plain, atol=2e-3)
    z, y, x = 9, 11, 13
    mask = template.ball(4.0)
    part = volume[z - 5:z + 6, y - 5:y + 6, x - 5:x + 6][mask]
    assert plain[z - 6, y - 6, x - 6] == pytest.approx(np.corrcoef(part, box[mask])[0, 1], abs=1e-3)


def test_the_wedge_takes_what_a_tilt_series_does_not_see():
    rng = np.random.default_rng(0)
    box = rng.normal(size=(15, 15, 15))
    seen = np.abs(np.fft.fftn(template.behind_wedge(box, 60.0)))
    assert seen[7, 0, 1] < 1e-9, "steep along z"
    assert seen[1, 0, 5] == pytest.approx(np.abs(np.fft.fftn(box))[1, 0, 5])
    assert template.behind_wedge(box, 90.0) is box


def test_a_threshold_keeps_what_the_labels_say(tmp_path: pathlib.Path):
    data = open_data("", tmp_path, StudyOptions(quick=True), quiet=True)
    true = data.labelled[0].table
    false = true.positions_zyx_vox[::-1] * 0 + [[2.0, 2.0, 2.0 + 7 * k] for k in range(len(true))]
    found = CoordinateTable(np.concatenate([true.positions_zyx_vox, false]), np.ones(2 * len(true), int),
                            np.concatenate([np.full(len(true), 0.8), np.full(len(true), 0.4)]))
    task = Task(Variant("a", "a"), 0, data, {data.labelled[0].name: true}, StudyOptions(), tmp_path)
    assert thresholds(task, {data.labelled[0].name: found}) == {1: pytest.approx(0.6)}
    wrong = Task(Variant("a", "a"), 0, data, {}, StudyOptions(maps=("a.mrc", "b.mrc")), tmp_path)
    with pytest.raises(InputError, match="a map for each of 1 classes"):
        by_template(wrong)


def test_blobs_of_two_classes_at_one_place_are_of_the_class_whose_turn_is_first():
    table = CoordinateTable(np.array([[5, 5, 5], [5, 5, 6], [5, 20, 5], [5, 21, 5.0]]), np.array([1, 2, 2, 2]),
                            np.array([0.4, 0.9, 0.7, 0.8]))
    kept = by_turns(table, [1, 2], {1: 4.0, 2: 4.0})
    assert sorted(zip(kept.class_ids.tolist(), kept.scores.round(6).tolist())) == [(1, 0.4), (2, 0.8)]


@pytest.mark.long
def test_blobs_and_templates_are_scored_side_by_side(tmp_path: pathlib.Path):
    study("peers", tmp_path, "", StudyOptions(quick=True, values=("template", "blobs"), orientations=60), quiet=True)
    with open(tmp_path / "study.csv", encoding="utf-8", newline="") as stream:
        rows: Dict[str, Dict[str, str]] = {row["variant"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["blobs", "template"]
    assert len({row["labels_sha256"] for row in rows.values()}) == 1, "both know the same labels"
    assert float(rows["template"]["F1"]) >= 0.9
    assert float(rows["template"]["distance_vox"]) < 1
    shape = open_data(tmp_path / "data", tmp_path, StudyOptions()).scored[0].volume.shape_zyx
    found = read_coordinates(tmp_path / "picks/blobs_seed0/tomo_01_candidates.csv").positions_zyx_vox
    assert len(found) > 8
    assert (found >= 0).all()
    assert (found <= np.array(shape) - 1).all()
    assert 0.3 <= float(rows["blobs"]["F1"]) <= float(rows["template"]["F1"])


@pytest.mark.long
def test_without_maps_the_mean_of_the_labels_is_the_template(tmp_path: pathlib.Path):
    open_data("", tmp_path / "data", StudyOptions(quick=True), quiet=True)
    study("peers", tmp_path / "s", tmp_path / "data", StudyOptions(quick=True, values=("template",)), quiet=True)
    with open(tmp_path / "s/study.csv", encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert float(row["F1"]) >= 0.7
    assert '"template": "mean of the labels"' in (tmp_path / "s/results/template_seed0.json").read_text("utf-8")
