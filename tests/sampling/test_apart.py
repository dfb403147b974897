"""How near picks may come to each other follows from the nearest particles of a complete annotation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from deepetpicker.config import PickOptions
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.modelcard import ClassCard, ModelCard, format_info
from deepetpicker.picking.peaks import deduplicate, find_peaks
from deepetpicker.picking.picker import Picker, peak_rule
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.labels import draw_label
from deepetpicker.sampling.apart import nearest_ang, with_distances
from tests.detectors import blob_detector, detector_card

BIG = ClassCard(3, "big", 200.0, 9.0)


def row(step_vox: float, n: int = 20, class_id: int = 3) -> CoordinateTable:
    """Return particles in a row."""
    places = np.zeros((n, 3))
    places[:, 2] = step_vox * np.arange(n)
    return CoordinateTable.from_positions(places, class_id)


@pytest.mark.parametrize(("step_vox", "expected_ang"), [
    (40.0, 120.0),  # far from each other: no more than 0.6 diameters
    (11.5, 103.5),  # 115 angstrom, and a tenth less
    (10.0, 100.0),  # stacked at half the diameter: as without an annotation
    (2.0, 100.0),  # marked twice
])
def test_the_nearest_pair_says_it_within_limits(step_vox, expected_ang):
    (found,) = with_distances([BIG], [row(step_vox)], [10.0], True)
    assert found.least_distance_ang == pytest.approx(expected_ang)
    assert dataclasses.replace(found, apart_ang=None) == BIG


def test_few_or_incomplete_particles_say_nothing_unless_an_earlier_model_knew():
    for table, is_complete in ((row(40.0, 19), True), (row(40.0), False), (row(40.0, class_id=4), True)):
        assert with_distances([BIG], [table], [10.0], is_complete) == (BIG,)
        earlier = dataclasses.replace(BIG, id=7, apart_ang=111.0)
        assert with_distances([BIG], [table], [10.0], is_complete, [earlier])[0].apart_ang == 111.0
    assert BIG.least_distance_ang == 100.0


def test_distances_are_within_a_tomogram_and_in_angstrom():
    tables = [row(30.0), row(20.0), row(1.0, 1), row(1.0, class_id=4), CoordinateTable.empty()]
    assert nearest_ang(3, tables, [10.0, 13.0, 10.0, 10.0, 10.0]) == pytest.approx(260.0)
    assert nearest_ang(5, tables, [10.0] * 5) == float("inf")


def test_the_card_keeps_it_and_says_it():
    card = detector_card(dataclasses.replace(BIG, apart_ang=117.0))
    again = ModelCard.from_json(card.to_json())
    assert again.classes[0].apart_ang == 117.0
    assert "picks are at least 117 angstrom apart" in format_info(again)
    for damage in ("-1", "0", "1e9", "NaN", '"x"'):
        with pytest.raises(Exception, match="damaged"):
            ModelCard.from_json(card.to_json().replace("117.0", damage))


def test_a_phantom_between_two_particles_is_no_third_one():
    """Peaks 11 voxels from each of two particles, more than half of the diameter of 20: the nearest pair tells."""
    centres = np.array([[20.0, 20, 20], [20, 20, 42]])
    volume = draw_label((40, 40, 64), centres, np.array([1, 1]), {1: 9.0}, "tball").astype(np.float32)
    volume += 0.8 * (draw_label((40, 40, 64), np.array([[20.0, 20, 31]]), np.array([1]), {1: 9.0}, "tball") > 0)
    store = ProbabilityStore((1, *volume.shape))
    store.write(0, 0, torch.from_numpy(np.minimum(volume, 1)[None]))
    for apart, n in ((None, 3), (120.0, 2)):
        one = dataclasses.replace(BIG, apart_ang=apart)
        found = find_peaks(store, [peak_rule(one, 10.0, "tball")])
        assert (found.scores > 0.3).sum() == n
        picker = Picker((blob_detector(), detector_card(one)), PickOptions(device="cpu"), quiet=True)
        assert len(deduplicate(found, {3: picker.distances_ang[3] / 10})) == len(found)
