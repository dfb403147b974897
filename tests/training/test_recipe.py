"""What a recipe fills in, and what it leaves to the user."""

from __future__ import annotations

import dataclasses

import pytest

from deepetpicker.config import TrainOptions
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.sampling.augment import Augmentation
from deepetpicker.sampling.gather import Gathered
from deepetpicker.sampling.patches import PatchRule
from deepetpicker.training.job import patch_rule
from deepetpicker.training.recipe import RECIPES, epochs_for, filled_in, patch_for

OURS = {"cpu_widths", "patches_per_class", "starts_generic", "warm_learning_rate", "trains_itself",
        "second_learning_rate", "refits"}  # not options of the user


def test_the_published_recipe_is_one_switch():
    made = filled_in(TrainOptions(recipe="published"), [27.0])
    assert (made.patch, made.batch, made.epochs, made.learning_rate) == (72, 8, 60, 1e-3)
    assert (made.cross_entropy, made.balance, made.prior, made.averaging) == (0.0, 0.0, 0.0, 0.0)
    assert (made.patience, made.validate_every) == (0, 1)


def test_what_the_user_gives_wins_over_any_recipe():
    given = {"patch": 64, "batch": 3, "epochs": 5, "learning_rate": 0.5, "cross_entropy": 0.0, "balance": 0.0,
             "prior": 0.0, "averaging": 0.0, "patience": 0, "validate_every": 2, "widths": (4, 6)}
    assert {*given, *OURS} == {f.name for f in dataclasses.fields(RECIPES["default"])}
    for name in RECIPES:
        made = filled_in(TrainOptions(recipe=name, **given), [27.0])
        assert {key: getattr(made, key) for key in given} == given


def test_nothing_else_is_changed():
    options = TrainOptions(seed=3, jitter=0.1, diameter_angstrom=(120.0,))
    made = filled_in(options, [12.0])
    left = {f.name for f in dataclasses.fields(TrainOptions)} - {f.name for f in dataclasses.fields(RECIPES["default"])}
    assert all(getattr(made, name) == getattr(options, name) for name in left)


def test_what_the_user_asks_of_patches_is_how_they_are_drawn():
    classes = ClassCard(5, "ball", 80.0, 5.0), ClassCard(0, "rod", 200.0, 9.0)
    options = TrainOptions(patch=40, jitter=0.3, background_fraction=0.4, label="cubic", unannotated="unknown",
                           mirror=False, rotation=7.0, elastic=0.01, scaling=0.02, negative_fraction=0.5)
    assert patch_rule(options, Gathered([], [], [], [], classes, 8.0, [])) == PatchRule(
        40, 0.3, 0.4, "cubic", {1: 5.0, 2: 9.0}, {1: 10.0, 2: 25.0}, True, Augmentation(False, 7.0, 0.01, 0.02), 0.5)


def test_a_cpu_trains_a_narrower_network_unless_it_starts_from_a_model():
    wide, narrow = (24, 48, 72, 108), (16, 32, 48, 64)
    assert filled_in(TrainOptions(), [20.0]).widths == narrow
    assert filled_in(TrainOptions(), [20.0], on_gpu=True).widths == wide
    assert filled_in(TrainOptions(recipe="published"), [20.0]).widths == wide
    assert filled_in(TrainOptions(), [20.0], widths=(4, 6)).widths == (4, 6)


def test_minutes_take_the_place_of_the_published_number_of_epochs():
    assert filled_in(TrainOptions(recipe="published", minutes=10), [27.0]).epochs == 0


@pytest.mark.parametrize(("diameter", "edge"), [(8.0, 32), (20.0, 32), (27.0, 32), (32.0, 40), (40.0, 48), (62.0, 72)])
def test_the_patch_follows_the_largest_particle(diameter, edge):
    assert patch_for(diameter) == edge
    assert filled_in(TrainOptions(), [6.0, diameter]).patch == edge


def test_refining_is_shorter_and_gentler():
    ours, refining = RECIPES["default"], RECIPES["refine"]
    assert epochs_for(2, 64, "refine") < 0.5 * epochs_for(2, 64)
    assert refining.learning_rate == ours.learning_rate / 4


def test_from_the_generic_model_the_default_recipe_learns_with_a_rate_of_its_own_unless_the_user_gives_one():
    recipe = RECIPES["default"]
    assert filled_in(TrainOptions(), [20.0], starts_generic=True).learning_rate == recipe.warm_learning_rate
    assert filled_in(TrainOptions(), [20.0, 30.0], starts_generic=True).learning_rate == recipe.learning_rate
    many = filled_in(TrainOptions(), [20.0], starts_generic=True, n_particles=40)
    assert many.learning_rate == recipe.learning_rate
    assert filled_in(TrainOptions(learning_rate=0.3), [20.0], starts_generic=True).learning_rate == 0.3
    assert filled_in(TrainOptions(), [20.0]).learning_rate == recipe.learning_rate
