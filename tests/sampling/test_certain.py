"""What is certain beside the particles: places without one, and boxes in which everything was annotated."""

from __future__ import annotations

import json
import logging
import pathlib
import tracemalloc

import numpy as np
import pytest

from deepetpicker.annotation.records import AnnotatedTomogram, Negative, Particle
from deepetpicker.annotation.session import Session
from deepetpicker.annotation.versions import save_version
from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.items import items_from_folder
from deepetpicker.io.regions import Region, write_negatives, write_regions
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.preparation.resample import open_working_volume, whole
from deepetpicker.sampling.augment import Augmentation
from deepetpicker.sampling.certain import Certain
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.sampling.patches import Annotated, ParticlePatches, PatchRule, drawn

SHAPE, VOXEL, DIAMETER = (40, 48, 56), 10.0, 80.0
EVERYWHERE = whole(SHAPE)


def tomogram(particles, negatives=(), boxes=()) -> Annotated:
    """Return a tomogram of noise with particles of one class, places without one, and complete boxes (low, high)."""
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    certain = Certain(np.array(negatives, float).reshape(-1, 3), np.array(boxes, float).reshape(-1, 2, 3))
    places = np.array(particles, float).reshape(-1, 3)
    return Annotated("TS", open_working_volume(volume, WorkingGrid(SHAPE, 10.0, 10.0)), places,
                     np.ones(len(places), int), EVERYWHERE, certain)


def rule(negatives: float = 0.0, is_unknown: bool = True) -> PatchRule:
    """Return a rule for two classes of 14 and 20 voxels with labels of 7 and 9, without random changes."""
    return PatchRule(32, 0.0, 0.0, "tball", {1: 7.0, 2: 9.0}, {1: 14.0, 2: 20.0}, is_unknown,
                     Augmentation(False, 0.0, 0.0, 0.0, 0.0), negatives)


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
    """Return a folder with two tomograms of noise, one particle in each."""
    for name in ("a", "b"):
        noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
        write_volume(tmp_path / f"{name}.mrc", noise, VOXEL)
        (tmp_path / f"{name}.csv").write_text("class,x,y,z\n1,30,20,10\n")
    return tmp_path


def gathered(folder: pathlib.Path, **changes):
    """Return what a training on a folder is made of."""
    return gather(folder, TrainOptions(diameter_angstrom=(DIAMETER,), **changes))


def test_a_ball_about_a_negative_is_certain_background_also_where_much_is_not_annotated():
    label, weight = drawn(tomogram([[10, 10, 10]], [[30, 30, 40]]), rule(), EVERYWHERE)
    ball = sum((a - c) ** 2 for a, c in zip(np.indices(SHAPE), (30, 30, 40))) <= 7.0 ** 2
    assert weight[ball].all()
    assert not label[ball].any()
    assert not weight[20, 40, 20]
    np.testing.assert_array_equal(weight, drawn(tomogram([[10, 10, 10]]), rule(), EVERYWHERE)[1] | ball)


def test_a_negative_beside_a_particle_takes_nothing_from_its_label():
    alone, beside = (drawn(tomogram([[10, 10, 10]], n), rule(), EVERYWHERE)[0] for n in ([], [[10, 10, 16]]))
    np.testing.assert_array_equal(alone, beside)


def test_in_a_complete_box_everything_is_certain_and_outside_of_it_nothing():
    label, weight = drawn(tomogram([], boxes=[[[4.5, 9.5, -0.5], [20.5, 30.5, 12.5]]]), rule(), EVERYWHERE)
    wanted = np.zeros(SHAPE, bool)
    wanted[5:21, 10:31, 0:13] = True
    np.testing.assert_array_equal(weight, wanted)
    assert not label.any()


def test_patches_are_drawn_about_negatives_as_often_as_there_are_some_up_to_a_share():
    many = [[20, 20, x] for x in (20, 24, 28, 32)]
    for places, share in ((many, 12), (many[:1], 8), ([], 0)):
        patches = ParticlePatches([tomogram([[12, 20, 20]] * 4, places)], rule(0.3, False), 40, 3)
        drawn_at = [patches._place(0, k)[1].tolist() for k in range(40)]
        assert sum(one in many for one in drawn_at) == share
        assert all(one in drawn_at for one in places)
        assert {patches[0, k][1].any().item() for k in range(40)} == {True}  # the particles are near: no patch is empty


def test_negatives_of_the_held_out_part_are_not_trained_on():
    one = tomogram([[12, 20, 20]], [[20, 20, 20], [20, 20, 50]])
    kept = Annotated(one.name, one.source, one.positions_zyx_vox, one.channels, (slice(0, 40), slice(0, 48),
                                                                                slice(0, 40)), one.certain)
    assert ParticlePatches([kept], rule(0.5), 8, 0)._negatives == [(0, 0)]


def test_a_box_means_the_same_on_a_coarser_grid_and_as_a_mask(data):
    box = Region((8, 12, 20), (23, 31, 43))
    mask = np.zeros(SHAPE, np.int8)
    mask[8:24, 12:32, 20:44] = 1
    write_regions(data / "a_regions.csv", [box])
    write_volume(data / "b_regions.mrc", mask, VOXEL)
    for working in (8, 4):
        tables = annotate(gathered(data, working_diameter=working), data / "cache")
        masks = [one.certain.background(one.source.shape_zyx, 1, (0, 0, 0)) for one in tables]
        np.testing.assert_array_equal(*masks)
        assert int(masks[0].sum()) == 16 * 20 * 24 * (working / 8) ** 3
        places = np.random.default_rng(0).uniform(0, 1, (200, 3)) * [39, 47, 55] * (working / 8)
        inside = [one.certain.covers(np.round(places)) for one in tables]
        np.testing.assert_array_equal(*inside)
        assert 5 < inside[0].sum() < 50


def test_what_annotate_writes_is_what_train_reads(tmp_path):
    """As a folder and by its params.json; a tomogram with a box and no particle is there to learn background from."""
    with Session(tmp_path / "out") as session:
        for name in ("a", "b"):
            noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
            write_volume(tmp_path / f"{name}.mrc", noise, VOXEL)
            session.set_tomograms([AnnotatedTomogram(name, str(tmp_path / f"{name}.mrc"), VOXEL, SHAPE)])
        session.set_classes([ParticleClass(3, "ring", DIAMETER)])
        session.add("a", Particle((10.0, 20.0, 30.0), 3))
        session.add("a", Negative((1.5, 2.5, 3.125)))
        session.add("b", Region((0, 1, 2), (10, 20, 30)))
        folder = save_version(session)
    params = json.loads((folder / "params.json").read_text())
    by_folder, by_params = gather(folder, TrainOptions()), gather("", TrainOptions(), params)
    for found in (by_folder, by_params):
        assert [one.counts() for one in found.certain] == [{"negatives": 1}, {"regions": 1}]
        np.testing.assert_array_equal(found.certain[0].negatives_zyx_vox, [[1.5, 2.5, 3.125]])
        np.testing.assert_array_equal(found.certain[1].boxes_zyx_vox, [[[-0.5, 0.5, 1.5], [10.5, 20.5, 30.5]]])
        assert found.unannotated == "unknown"
    assert [one.digest() for one in by_folder.certain] == [one.digest() for one in by_params.certain]


def test_tables_by_hand_are_found_and_belong_to_one_tomogram(data):
    (data / "a_negatives.txt").write_text("5 6 7\n")
    (data / "b.csv").unlink()
    write_regions(data / "b_regions.csv", [Region((0, 0, 0), (9, 9, 9))])
    items = {item.name: item for item in items_from_folder(data)}
    assert pathlib.Path(items["a"].negatives).name == "a_negatives.txt"
    assert (items["b"].coordinates, pathlib.Path(items["b"].regions).name) == ("", "b_regions.csv")
    found = gathered(data)
    np.testing.assert_array_equal(found.certain[0].negatives_zyx_vox, [[7, 6, 5]])
    write_volume(data / "a_negatives.mrc", np.zeros(SHAPE, np.float32), VOXEL)  # a tomogram of its own, with its table
    items = {item.name: item for item in items_from_folder(data)}
    assert items["a"].negatives == ""
    assert pathlib.Path(items["a_negatives"].coordinates).name == "a_negatives.txt"


def test_thousands_of_places_and_particles_take_little_memory():
    rng = np.random.default_rng(0)
    certain, places = Certain(rng.uniform(0, 900, (4000, 3))), rng.uniform(0, 900, (4000, 3))
    places[:7] = certain.negatives_zyx_vox[10:17] + [0, 1, 0]
    table = CoordinateTable(places, np.ones(4000, int), np.full(4000, np.nan))
    tracemalloc.start()
    kept, n = certain.without(table, 8.0)
    is_background = kept.is_background(places, 1.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    apart = np.linalg.norm(certain.negatives_zyx_vox[:40, None] - places, axis=2).min(1)
    assert 7 <= n == 4000 - len(kept.negatives_zyx_vox)
    assert np.array_equal(kept.negatives_zyx_vox[:20], certain.negatives_zyx_vox[:40][apart > 2][:20])
    assert not is_background[:7].any()
    assert certain.is_background(places[:7], 1.5).all()
    assert not Certain().is_background(places, 1.5).any()


def test_a_negative_on_a_particle_is_left_out_and_said(data):
    write_negatives(data / "a_negatives.csv", np.array([[10, 20, 31], [10, 20, 45.0]]))
    found = gathered(data)
    np.testing.assert_array_equal(found.certain[0].negatives_zyx_vox, [[10, 20, 45]])
    assert any("a: 1 of 2 places without a particle are those of particles" in text for text in found.warnings)


def test_what_lies_outside_the_tomogram_is_refused(data):
    write_regions(data / "a_regions.csv", [Region((0, 0, 100), (9, 9, 120))])
    with pytest.raises(InputError, match=r"a_regions\.csv: .*outside the tomogram of \(40, 48, 56\)"):
        gathered(data)
    (data / "a_regions.csv").unlink()
    write_volume(data / "a_regions.mrc", np.zeros((8, 9, 10), np.int8), VOXEL)
    with pytest.raises(InputError, match=r"a_regions\.mrc: expected a mask of the tomogram's shape"):
        gathered(data)
    (data / "a_regions.mrc").unlink()
    write_negatives(data / "a_negatives.csv", np.array([[90.0, 90, 90]]))
    with pytest.raises(InputError, match="places without a particle: 1 of 1 positions are outside"):
        gathered(data)


def test_regions_decide_what_is_not_annotated_unless_the_user_does(data, caplog):
    from deepetpicker.training.given import decided

    assert decided(TrainOptions(), gathered(data)).unannotated == "background"
    write_regions(data / "a_regions.csv", [Region((0, 0, 0), (9, 9, 9))])
    with caplog.at_level(logging.INFO, "deepetpicker"):
        assert decided(TrainOptions(), gathered(data)).unannotated == "unknown"
    assert ("1 tomogram(s) are annotated completely in regions alone, 1 with regions of complete annotation: outside "
            "of them, what is not annotated is taken for unknown") in caplog.text
    assert decided(TrainOptions(unannotated="background"), gathered(data)).unannotated == "background"


def test_a_table_of_no_region_says_that_nothing_is_complete(data, caplog):
    from deepetpicker.training.given import decided

    write_regions(data / "a_regions.csv", [])
    found = gathered(data)
    assert [one.counts() for one in found.certain] == [{}, {}]
    with caplog.at_level(logging.INFO, "deepetpicker"):
        assert decided(TrainOptions(), found).unannotated == "unknown"
    assert "1 tomogram(s) are annotated completely in regions alone, none with such a region" in caplog.text


def test_a_mask_counts_from_the_tomogram_s_first_voxel(data):
    mask = np.zeros(SHAPE, np.int8)
    mask[3, 4, 5] = 1
    write_volume(data / "b_regions.mrc", mask, VOXEL)
    certain = Certain(mask=open_volume(data / "b_regions.mrc"))
    found = certain.background((5, 5, 5), 1, (2, 2, 2))
    assert np.argwhere(found).tolist() == [[1, 2, 3]]
