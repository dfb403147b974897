"""What studies compare, and the labels, noise and budgets that their variants get."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Dict

import numpy as np
import pytest

from deepetpicker.config import StudyOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.studying.data import StudyData, added_noise, drawn_labels, open_data, shifted, with_noise
from deepetpicker.studying.methods import Task, training_options
from deepetpicker.studying.run import completed
from deepetpicker.studying.variants import KINDS, Facts, Variant

FACTS = Facts(n_labels=30, n_classes=2, smallest_vox=8.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """Return two tiny simulated tomograms, one labelled and one scored."""
    return open_data("", tmp_path_factory.mktemp("data"), StudyOptions(quick=True), quiet=True)


def task_of(data: StudyData, variant: Variant, **options: Any) -> Task:
    """Return a variant of a study of the data with all labels."""
    return Task(variant, 0, data, drawn_labels(data, variant.labels, 0), completed(StudyOptions(**options)),
                pathlib.Path("."))


@pytest.mark.parametrize("kind", list(KINDS))
def test_variants_have_names_that_files_can_have(kind: str):
    variants = KINDS[kind].make((), FACTS)
    assert len({v.name for v in variants}) == len({v.title for v in variants}) == len(variants) >= 4
    assert all(v.name.replace("_", "").replace(".", "").isalnum() for v in variants)


def test_numbers_of_labels_go_up_to_all_there_are():
    assert [v.labels for v in KINDS["number"].make((), FACTS)] == [5, 10, 20, 30]
    assert [v.labels for v in KINDS["number"].make(("all", "7", "99"), FACTS)] == [7, 30]
    with pytest.raises(InputError, match="each of 2 classes a label, got 1"):
        KINDS["number"].make(("1",), FACTS)


def test_labels_are_not_larger_than_the_smallest_particle():
    sizes = [v.train.get("label_diameter", 0) for v in KINDS["labels"].make((), FACTS)]
    assert sizes == [0, 0, 0, 3, 5, 7]
    assert max(v.train.get("label_diameter", 0) for v in KINDS["peers"].make((), FACTS)) == 7


def test_the_ablation_adds_a_part_at_a_time_from_nothing_to_ours(data: StudyData):
    variants = KINDS["ablation"].make((), FACTS)
    options = [training_options(task_of(data, v)) for v in variants]
    parts = [(o.residual, o.coordinates, o.pyramid, o.mirror and o.rotation > 0 and o.elastic > 0 and o.scaling > 0)
             for o in options]
    assert parts == [tuple(n > k for k in range(4)) for n in (0, 1, 2, 3, 4, 4, 4)]
    ours = training_options(task_of(data, Variant("ours", "ours")))
    assert options[4] == options[5] == options[6] == ours, "what only matters to picking trains nothing else"
    picks = [(v.pick["border"], v.pick.get("min_distance_angstrom", -1.0)) for v in variants]
    assert picks == [(0, 0.0)] * 5 + [(12, 0.0), (12, -1.0)]
    assert len({v.pick["tile"] for v in variants}) == 1


def test_only_named_variants_are_made_and_a_wrong_name_has_advice():
    assert [v.name for v in KINDS["peers"].make(("ours", "blobs"), FACTS)] == ["blobs", "ours"]
    with pytest.raises(InputError, match="did you mean 'published'"):
        KINDS["peers"].make(("publshed",), FACTS)
    with pytest.raises(InputError, match="numbers from 0"):
        KINDS["shift"].make(("-1",), FACTS)


@pytest.mark.parametrize("change", [{}, {"recipe": "published"}, {"label": "cubic"}])
def test_every_training_sees_the_voxels_of_the_budget(data: StudyData, change: Dict[str, Any]):
    options = training_options(task_of(data, Variant("a", "a", train=change), megavoxels=60.0))
    patch, batch = (72, 8) if "recipe" in change else (32, 8)
    assert options.epochs * options.patches_per_epoch * patch ** 3 / 1e6 == pytest.approx(60, rel=0.1)
    assert options.patches_per_epoch % batch == 0
    assert options.patience == 0, "none ends before the others"


def test_minutes_are_the_same_for_all_and_leave_the_epochs_open(data: StudyData):
    options = training_options(task_of(data, Variant("a", "a"), minutes=3.0))
    assert (options.minutes, options.epochs, options.patience) == (3.0, 0, 0)


def test_fewer_labels_than_particles_leave_the_others_unknown(data: StudyData):
    assert training_options(task_of(data, Variant("a", "a", labels=4))).unannotated == "unknown"
    assert training_options(task_of(data, Variant("a", "a"))).unannotated == TrainOptions().unannotated != "unknown"


def test_shifted_labels_are_off_by_the_share_of_the_radius_in_the_same_directions(data: StudyData):
    labels = drawn_labels(data, 0, 0)
    before = labels["tomo_00"].positions_zyx_vox
    moved = [shifted(data, labels, share, 3)["tomo_00"].positions_zyx_vox - before for share in (0.2, 0.4)]
    radius = data.classes[0].diameter_ang / 2 / data.labelled[0].volume.voxel_size_ang
    np.testing.assert_allclose(np.linalg.norm(moved[0], axis=1), 0.2 * radius, rtol=1e-9)
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-9)
    assert not np.allclose(shifted(data, labels, 0.2, 4)["tomo_00"].positions_zyx_vox - before, moved[0])


def test_added_noise_has_the_spectrum_of_the_tomogram_and_the_strength_asked_for():
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(24, 32, 40))
    smooth = np.fft.irfftn(np.fft.rfftn(rough) * np.exp(-40 * np.fft.fftfreq(24) ** 2)[:, None, None], s=rough.shape)
    noise = [added_noise(smooth.astype(np.float32), share, np.random.default_rng(1)) - smooth for share in (0.5, 2.0)]
    assert noise[0].std() == pytest.approx(0.5 * smooth.std(), rel=1e-3)
    np.testing.assert_allclose(noise[1], 4 * noise[0], atol=1e-4)
    assert abs(np.corrcoef(noise[0].ravel(), smooth.ravel())[0, 1]) < 0.05
    power = [(np.abs(np.fft.fftn(one)) ** 2).mean((1, 2)) for one in (noise[0], smooth)]
    assert power[0][0] / power[0][12] == pytest.approx(power[1][0] / power[1][12], rel=0.3)


def test_noise_reaches_labelled_and_scored_tomograms_and_is_kept_for_a_training_that_goes_on(data: StudyData, tmp_path):
    noisy = with_noise(data, 1.0, 0, tmp_path)
    for before, after in zip((*data.labelled, *data.scored), (*noisy.labelled, *noisy.scored)):
        assert after.name == before.name
        assert after.table.equals(before.table)
        assert np.std(after.volume.data_zyx) == pytest.approx(np.sqrt(2) * np.std(before.volume.data_zyx), rel=0.1)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    with_noise(dataclasses.replace(data), 1.0, 0, tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times
