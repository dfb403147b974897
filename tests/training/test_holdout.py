"""What is held out for validation: of every class some, of none all, the same every time."""

from __future__ import annotations

from typing import List, Sequence

import numpy as np
import pytest
from balls import small, write_set

from deepetpicker.errors import InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates
from deepetpicker.io.modelcard import ClassCard, read_card
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.sampling.holdout import choose_whole, count, split, split_slab
from deepetpicker.sampling.patches import Annotated
from deepetpicker.training.run import train

SHAPE = (30, 40, 100)
NONE = np.zeros(1, int)
BALL, ROD, DISC = ClassCard(1, "ball", 80.0, 5.0), ClassCard(2, "rod", 80.0, 5.0), ClassCard(5, "disc", 80.0, 5.0)


def annotated(positions, channels=1, name="TS") -> Annotated:
    """Return a tomogram of noise with particles."""
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    positions = np.asarray(positions, float).reshape(-1, 3)
    channels = np.broadcast_to(channels, len(positions)).astype(int)
    return Annotated(name, open_working_volume(volume, WorkingGrid(SHAPE, 10.0, 10.0)), positions, channels,
                     whole(SHAPE))


def scattered(seed: int, *counts: int) -> Annotated:
    """Return a tomogram with so many particles of each class at random places."""
    channels = np.repeat(np.arange(1, len(counts) + 1), counts)
    places = np.random.default_rng(seed).uniform(0, 1, (len(channels), 3)) * [29, 39, 99]
    return annotated(places, channels, f"TS_{seed}")


def numbers(parts: Sequence[Annotated], n_classes: int) -> List[int]:
    """Return the particles of each class in several regions together."""
    return sum(count(t, n_classes) for t in parts).tolist()


def test_the_held_out_slab_has_about_a_fifth_and_nothing_in_common():
    kept, held = split_slab(scattered(1, 40), NONE, NONE)
    assert len(kept.inside) + len(held.inside) == 40
    assert 5 <= len(held.inside) <= 11
    a, b = kept.region_zyx[2], held.region_zyx[2]
    assert (a.stop <= b.start) or (b.stop <= a.start)
    assert 15 <= b.stop - b.start <= 35


def test_particles_in_one_plane_cannot_be_parted():
    one, warnings = annotated([[5, 5, 50], [20, 30, 50]]), []
    assert split_slab(one, NONE, NONE) is None
    kept, held = split([one], (), [BALL], warnings)
    assert kept == held == [one]
    assert "too good" in warnings[0]


def test_of_equal_tomograms_the_last_fifth_is_held_out():
    tomograms = [annotated([[5, 5, k + 5]]) for k in range(10)]
    train_part, held = split(tomograms, (), [BALL], [])
    assert held == tomograms[8:]
    assert train_part == tomograms[:8]


def test_the_tomograms_that_the_user_names_are_held_out_and_no_others():
    tomograms = [annotated([[5, 5, 20]], name=f"TS_{k}") for k in (1, 2, 11, 3)]
    train_part, held = split(tomograms, ("TS_11", "TS_2"), [BALL], [])
    assert [t.name for t in held] == ["TS_2", "TS_11"]
    assert [t.name for t in train_part] == ["TS_1", "TS_3"]


def test_a_class_of_the_last_tomogram_alone_is_trained():
    """It was held out whole and never trained, without a word."""
    tomograms = [scattered(k, 10, 0) for k in range(4)] + [scattered(4, 10, 8)]
    warnings: list = []
    train_part, held = split(tomograms, (), [BALL, ROD], warnings)
    assert numbers(train_part, 2)[1] >= 4
    assert numbers(held, 2)[1] >= 1
    assert np.array(numbers(train_part, 2)) + numbers(held, 2) == pytest.approx([50, 8])
    assert warnings == []


def test_each_class_in_a_tomogram_of_its_own_gives_a_slab_of_each():
    tomograms = [scattered(1, 20, 0), scattered(2, 0, 20)]
    warnings: list = []
    train_part, held = split(tomograms, (), [BALL, ROD], warnings)
    assert [t.name for t in held] == ["TS_1", "TS_2"]
    assert all(2 <= n <= 6 for n in numbers(held, 2))
    assert numbers(train_part, 2) == [20 - n for n in numbers(held, 2)]
    assert warnings == []


@pytest.mark.parametrize("seed", range(5))
def test_the_slab_of_a_single_tomogram_has_some_of_every_class_and_all_of_none(seed):
    train_part, held = split([scattered(seed, 30, 12, 5)], (), [BALL, ROD, DISC], [])
    assert min(numbers(held, 3)) >= 1
    assert min(numbers(train_part, 3)) >= 1
    assert sum(numbers(held, 3)) + sum(numbers(train_part, 3)) == 47


def test_a_rare_class_at_the_end_of_the_axis_stays_in_training():
    """A fifth of all particles, taken from the end of the axis whatever their class, would be all the rods."""
    balls = np.random.default_rng(0).uniform(0, 1, (16, 3)) * [29, 39, 25] + [0, 0, 45]
    one = annotated([*balls, [10, 5, 75], [3, 20, 80], [20, 9, 83], [10, 30, 88]], [1] * 16 + [2] * 4)
    train_part, held = split([one], (), [BALL, ROD], [])
    assert numbers(train_part, 2)[1] >= 1
    assert numbers(train_part, 2)[0] >= 10
    assert len(held[0].inside) >= 1


@pytest.mark.parametrize("seed", range(20))
def test_whole_tomograms_are_chosen_class_by_class(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, (rng.integers(2, 40), 4)) * (rng.random(4) < [1, 0.9, 0.5, 0.3])
    chosen = choose_whole(counts)
    total, held = counts.sum(0), counts[chosen].sum(0)
    assert (held[total > 0] < total[total > 0]).all()
    assert len(chosen) <= max(1, round(len(counts) / 5))
    assert chosen == choose_whole(counts.copy())


def test_classes_without_particles_on_one_side_are_named():
    warnings: list = []
    split([scattered(0, 6, 0, 1), scattered(1, 6, 0, 0)], (), [BALL, ROD, DISC], warnings)
    assert len(warnings) == 2
    assert "class 2 (rod): no particles" in warnings[0]
    assert "class 5 (disc): no particle is held out to judge its picks by (1 trained on)" in warnings[1]


def test_the_users_choice_must_leave_some_of_every_class(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 3, [4, 4, 6], n_classes=2)
    for name in ("t0.csv", "t1.csv"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(line for line in lines if not line.startswith("2")) + "\n")
    with pytest.raises(InputError, match=r"class 2 in the tomograms to train on.*in t2, kept for validation"):
        gather(folder, small(validation=("t2",)))
    assert gather(folder, small(validation=("t1",))).warnings == []


def test_the_model_knows_what_it_was_trained_on(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 2, [9, 8])
    manifest = train(folder, tmp_path / "m.safetensors", small(epochs=1), quiet=True)
    card = read_card(tmp_path / "m.safetensors")
    table = read_coordinates(folder / "t0.csv")
    assert card.use_of("t0") == "training"
    assert card.use_of("t1") == "validation"
    assert card.use_of("TS_9") == ""
    renamed = CoordinateTable.from_positions(table.positions_zyx_vox[::-1] + 1e-4, class_id=7)
    assert card.use_of("TS_9", renamed.fingerprint()) == "training"
    assert card.use_of("TS_9", CoordinateTable.from_positions(table.positions_zyx_vox[:, ::-1]).fingerprint()) == ""
    assert card.use_of("TS_9", CoordinateTable.empty().fingerprint()) == ""
    assert [{k: i[k] for k in ("name", "role", "particles")} for i in manifest["items"]] == [
        {"name": "t0", "role": "training", "particles": 9}, {"name": "t1", "role": "validation", "particles": 8}]


@pytest.mark.long
def test_of_a_single_tomogram_the_model_knows_the_slab_that_was_held_out(tmp_path):
    """The tomogram has voxels of half the working size."""
    folder = write_set(tmp_path / "data", [(44, 48, 128)], [12], voxel=10.0)
    train(folder, tmp_path / "m.safetensors", small(epochs=1, working_diameter=4.0), quiet=True)
    card = read_card(tmp_path / "m.safetensors")
    item = card.training["items"][0]
    assert card.voxel_size_ang == 20.0
    assert card.use_of("t0") == item["role"] == "both"
    (z, y, x) = item["held_out_zyx_vox"]
    assert (z, y) == ([0, 44], [0, 48])
    assert x[0] == 0 or x[1] == 128
    assert 0.1 * 128 < x[1] - x[0] < 0.5 * 128
    along = read_coordinates(folder / "t0.csv").positions_zyx_vox[:, 2]
    n_held = int(((along >= x[0]) & (along < x[1])).sum())
    assert n_held == sum(one["n_true"] for one in card.training["picks"])


def test_the_default_split_of_a_folder_trains_on_every_class(tmp_path):
    folder = write_set(tmp_path / "data", [(40, 48, 56)] * 3, [4, 4, 6], n_classes=2)
    for name in ("t0.csv", "t1.csv"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(line for line in lines if not line.startswith("2")) + "\n")
    gathered = gather(folder, small())
    train_part, held = split(annotate(gathered, tmp_path), (), gathered.classes, gathered.warnings)
    assert numbers(train_part, 2)[1] == 2
    assert numbers(held, 2)[1] == 1
