"""The model that comes with the package: what it says of particles, whatever their contrast, and of several classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.io.classes import ParticleClass
from deepetpicker.network.generic import (
    ACROSS_VOX,
    GENERIC,
    WIDTHS,
    for_classes,
    for_diameter,
    invert_input,
    load_generic,
)
from deepetpicker.network.resunet import ResUNet3D, probabilities


def probability_of(network: ResUNet3D, tile_zyx: np.ndarray) -> torch.Tensor:
    """Return the probabilities of the classes (C, Z, Y, X)."""
    with torch.inference_mode():
        return probabilities(network(torch.from_numpy(tile_zyx)[None, None]))[0]


def balls(sign: float, seed: int = 0) -> np.ndarray:
    """Return noise (48, 64, 72) with two balls of 20 voxels in it, at (24, 20, 20) and (24, 44, 50)."""
    z, y, x = np.meshgrid(*map(np.arange, (48, 64, 72)), indexing="ij")
    out = np.random.default_rng(seed).standard_normal((48, 64, 72))
    for centre in ((24, 20, 20), (24, 44, 50)):
        out += sign * 1.5 * (((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) < 10 ** 2)
    return out.astype(np.float32)


def test_it_is_small_and_finds_dark_balls_in_noise() -> None:
    """Both balls are found with confidence and little else; the file is a few megabytes at most."""
    assert GENERIC.stat().st_size < 8e6
    network, card = load_generic()
    assert tuple(network.options.widths) == WIDTHS
    assert len(card.classes) == 1
    probability = probability_of(network, balls(-1))[0].clone()
    assert min(probability[24, 20, 20], probability[24, 44, 50]) > 0.5
    probability[:, 10:30, 10:30] = probability[:, 34:54, 40:60] = 0
    assert (probability > 0.5).float().mean() < 0.02


@pytest.mark.long
def test_turned_round_it_sees_bright_particles_as_it_saw_dark_ones() -> None:
    """The same tile with the opposite sign gives the same probabilities, to the last bits."""
    tile = balls(-1)
    dark, bright = (probability_of(load_generic(is_bright)[0], t) for is_bright, t in ((False, tile), (True, -tile)))
    torch.testing.assert_close(dark, bright, atol=1e-5, rtol=0)


def test_turning_round_twice_changes_nothing() -> None:
    """Also without an image pyramid."""
    for pyramid in (True, False):
        network = ResUNet3D(NetworkOptions(widths=(4, 8, 8), pyramid=pyramid)).eval()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        invert_input(network)
        assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())
        invert_input(network)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.long
def test_classes_share_what_it_takes_for_a_particle() -> None:
    """For three classes the probabilities are equal and add up to the one of the single class."""
    generic, _ = load_generic()
    three = ResUNet3D(NetworkOptions(n_classes=3, widths=WIDTHS)).eval()
    three.load_state_dict(for_classes(generic, three))
    one, parts = probability_of(generic, balls(-1)), probability_of(three, balls(-1))
    torch.testing.assert_close(parts.sum(0), one[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(parts[0], parts[2], atol=1e-6, rtol=0)


def test_its_card_for_a_particle_brings_it_to_the_scale_it_knows() -> None:
    """A particle of 300 angstrom is looked for at 15 angstrom per voxel, under its own name."""
    card = for_diameter(load_generic()[1], ParticleClass(4, "fas", 300.0))
    assert card.voxel_size_ang == 300.0 / ACROSS_VOX
    assert [(c.id, c.name, c.diameter_ang) for c in card.classes] == [(4, "fas", 300.0)]
