"""Where tiles are cut, and whether their edges are equal, does not change what is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.config import PickOptions
from deepetpicker.evaluation import match_by_distance
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.volumes import open_volume
from deepetpicker.network.generic import load_generic
from deepetpicker.picking.picker import Picker
from deepetpicker.preparation.tiling import TilePlan

TILES = {1: (48, 80, 104), 18: (32, 48, 64), 16: (40, 64, 48)}


class Cut(Picker):
    """Picks with tiles of given edges.

    Parameters
    ----------
    edges_zyx : (3,) int
        Edges of the tiles in voxels.
    """

    def __init__(self, edges_zyx, *given, **options):
        self._edges = edges_zyx
        super().__init__(*given, **options)

    def plan(self, volume, quiet=False):
        """Return the plan with other tiles."""
        plan = super().plan(volume, quiet)
        tiles = TilePlan.cover(plan.tiles.shape_zyx, self._edges, self.options.border, self.predictor.stride)
        return dataclasses.replace(plan, tiles=tiles)


@pytest.mark.slow
def test_one_tile_16_and_18_unequal_ones_find_the_same_particles(tmp_path):
    assert main(["simulate", str(tmp_path), "--n", "1", "--shape", "48,80,104", "--particles", "14", "--voxel-size",
                 "10", "--phantoms", "ring", "--gold", "0", "--membranes", "0", "--quiet"]) == 0
    diameter = json.loads((tmp_path / "classes.json").read_text())["classes"][0]["diameter_angstrom"]
    truth, volume = read_coordinates(tmp_path / "tomo_00.csv"), open_volume(tmp_path / "tomo_00.mrc", quiet=True)
    network, card = load_generic()
    model, found = (network, dataclasses.replace(card, voxel_size_ang=10.0)), {}
    options = PickOptions(device="cpu", precision="float32", max_resampling=100)
    for count, edges in TILES.items():
        picker = Cut(edges, model, options, quiet=True)
        table = picker.candidates(volume)
        assert len(picker.plan(volume, quiet=True).tiles) == count
        found[count] = table.select(table.scores >= 0.5)
        match = match_by_distance(truth, found[count], diameter / 20)
        assert 2 * match.tp / (len(truth) + len(found[count])) == 1.0, count
    for other in (16, 18):
        one, two = found[1].positions_zyx_vox, found[other].positions_zyx_vox
        nearest = [np.argmin(np.linalg.norm(two - position, axis=1)) for position in one]
        np.testing.assert_allclose(two[nearest], one, atol=1.0)
