"""What a training starts from when the user says nothing, and when he does."""

from __future__ import annotations

import pytest

from deepetpicker.config import TrainOptions
from deepetpicker.errors import ModelFileError
from deepetpicker.network.generic import WIDTHS
from deepetpicker.training.start import choose_start


def test_the_default_recipe_on_a_cpu_starts_from_the_generic_model() -> None:
    start = choose_start(TrainOptions(), on_gpu=False)
    assert start.is_generic
    assert (start.widths, len(start.digest)) == (WIDTHS, 64)


@pytest.mark.parametrize(("options", "on_gpu"), [
    (TrainOptions(init="none"), False), (TrainOptions(recipe="published"), False), (TrainOptions(), True),
    (TrainOptions(widths=(8, 16, 24)), False), (TrainOptions(pyramid=False), False),
    (TrainOptions(residual=False), False)])
def test_chance_where_it_was_asked_for_or_the_networks_differ(options: TrainOptions, on_gpu: bool) -> None:
    start = choose_start(options, on_gpu)
    assert not start.is_generic
    assert (start.network, start.digest) == (None, "")


def test_the_generic_model_can_be_asked_for_anywhere() -> None:
    for options in (TrainOptions(init="generic", recipe="published"), TrainOptions(init="generic", widths=(8, 16))):
        assert choose_start(options, on_gpu=True).is_generic


def test_any_other_word_is_a_file() -> None:
    with pytest.raises(ModelFileError):
        choose_start(TrainOptions(init="genric"), on_gpu=False)
