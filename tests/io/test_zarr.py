"""OME-Zarr tomograms: what every writer of the field makes is read, by chunks; what is strange is refused."""

import json
import os
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest
import zarr  # noqa: F401  (the file is skipped where there is none)

from deepetpicker.__main__ import main
from deepetpicker.errors import FormatError, InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates, write_coordinates
from deepetpicker.io.items import items_from_files, items_from_folder
from deepetpicker.io.records import identity
from deepetpicker.io.volumes import blocks, open_volume, write_volume
from deepetpicker.preparation.resample import open_working_volume
from tests import zarrs

SHAPE = (40, 48, 70)
AXES = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]


@pytest.fixture(scope="module")
def ramp():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def halved(volume_zyx):
    """Return means of blocks of 2 x 2 x 2 voxels; what is left over at the end is dropped."""
    z, y, x = (n // 2 for n in volume_zyx.shape)
    return volume_zyx[:2 * z, :2 * y, :2 * x].reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))


def dataset(path, voxel, n=3, **more):
    return {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [voxel] * n}], **more}


def write(folder, levels, version=2, axes=AXES, voxel=1.0, chunks=(16, 16, 32), datasets=None, **how):
    """Write arrays as the resolutions of an OME-Zarr folder, each of them half as fine as the one before."""
    group = zarrs.open_group(folder, version)
    how = {"chunk_key_encoding": {"name": "v2", "separator": "/"}, **how} if version == 2 else how
    for number, data in enumerate(levels):
        group.create_array(str(number), shape=data.shape, dtype=data.dtype, chunks=chunks, **how)[:] = data
    listed = datasets or [dataset(str(k), voxel * 2 ** k, len(axes or "tczyx")) for k in range(len(levels))]
    image = {"version": "0.4", "axes": axes, "datasets": listed}
    image = {"multiscales": [image]}
    group.attrs.update(image if version == 2 else {"ome": {"version": "0.5", **image}})
    return folder


@pytest.fixture
def tomo(tmp_path, ramp):
    return write(tmp_path / "TS_01.zarr", [ramp, halved(ramp)])


@pytest.mark.parametrize("how", [
    {"version": 2}, {"version": 3}, {"version": 3, "shards": (32, 32, 64)}, {"version": 2, "compressors": None},
    {"version": 3, "chunks": (7, 11, 13)}, {"version": 2, "chunk_key_encoding": {"name": "v2", "separator": "."}}],
    ids=str)
def test_both_versions_and_every_layout_give_the_voxels_that_were_written(tmp_path, ramp, how):
    volume = open_volume(write(tmp_path / "TS_01.zarr", [ramp], **how))
    assert (volume.name, volume.shape_zyx, volume.warnings) == ("TS_01", SHAPE, ())
    assert volume.voxel_size_ang == pytest.approx(10.0)
    assert np.array_equal(np.asarray(volume.data_zyx), ramp)
    assert np.array_equal(volume.read(3, 21), ramp[3:21])
    again = pickle.loads(pickle.dumps(volume))
    assert np.array_equal(again.read(0, 2), ramp[:2])


def test_it_is_indexed_as_a_memory_map_is(tomo, ramp):
    data, rng = open_volume(tomo).data_zyx, np.random.default_rng(1)
    points = tuple(rng.integers(0, n, 50) for n in SHAPE)
    mesh = np.ix_([3, 2, 39], [0, 47], [5, 5, 69, 1])
    for index in (5, -1, slice(3, 30, 4), (slice(None), 7), (slice(0, 9), slice(40, 99), slice(69, 2, -3)), (2, 3, 4),
                  (np.int64(3), slice(1, 40, 3)), points, mesh, slice(5, 5)):
        assert np.array_equal(data[index], ramp[index]), index
    with pytest.raises(IndexError):
        data[40]
    assert (len(data), data.ndim, data.size, data.nbytes) == (40, 3, ramp.size, ramp.nbytes)


def test_axes_go_by_their_names_and_units_become_angstrom(tmp_path, ramp):
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "xzy")]
    stored = ramp.transpose(2, 0, 1)[None]
    folder = write(tmp_path / "a.zarr", [stored], axes=axes, voxel=1.3e-3, chunks=(1, 32, 16, 16))
    volume = open_volume(folder)
    assert volume.voxel_size_ang == pytest.approx(13.0)
    assert np.array_equal(volume.data_zyx[4:9, 20], ramp[4:9, 20])


def test_a_voxel_size_that_is_not_said_must_be_given_and_a_given_one_scales_all_resolutions(tmp_path, ramp):
    axes = [{"name": n, "type": "space"} for n in "zyx"]
    folder = write(tmp_path / "a.zarr", [ramp, halved(ramp)], axes=axes)
    with pytest.raises(InputError, match=r"does not say its voxel size.*--voxel-size"):
        open_volume(folder)
    volume = open_volume(folder, 8.0)
    assert [volume.voxel_size_ang, *(one.voxel_size_ang for one in volume.coarser)] == [8.0, 16.0]
    other = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]}]
    with pytest.raises(InputError, match="not cubes"):
        open_volume(write(tmp_path / "b.zarr", [ramp], datasets=other))


def test_the_resolution_is_the_coarsest_that_is_not_coarser_than_the_work(tmp_path, ramp):
    levels = [ramp, halved(ramp), halved(halved(ramp))]
    volume = open_volume(write(tmp_path / "a.zarr", levels))
    chosen = [volume.level(v).voxel_size_ang for v in (10, 15, 20, 39, 40, 200)]
    assert chosen == pytest.approx([10, 10, 20, 20, 40, 40])
    assert np.array_equal(volume.level(40).data_zyx, levels[2][:, :, [*range(17), 16]])  # covers the same box
    grid = WorkingGrid(SHAPE, 10.0, 20.0)
    shutil.rmtree(tmp_path / "a.zarr" / "0" / "1")  # not touched
    working = open_working_volume(volume, grid)
    expected = (levels[1] - working.intensity.mean) / working.intensity.std
    assert working.planes(0, 20) == pytest.approx(expected, abs=1e-5)


def test_a_coarser_resolution_gives_the_same_places(tmp_path):
    """A ball of ten voxels, read at half and at full resolution: its centre in working voxels is the same."""
    zyx = np.indices((60, 64, 70)).reshape(3, -1)
    centre = np.array([31.0, 22.5, 40.0])
    ball = np.exp(-((zyx - centre[:, None]) ** 2).sum(0) / 50).reshape(60, 64, 70).astype(np.float32)
    noisy = ball + np.random.default_rng(0).normal(0, 1e-3, ball.shape).astype(np.float32)
    grid = WorkingGrid(noisy.shape, 10.0, 30.0)
    folder = write(tmp_path / "a.zarr", [noisy, halved(noisy)])
    for volume in (open_volume(folder), noisy):
        planes = open_working_volume(volume, grid).planes(0, grid.shape_zyx[0])
        weights = np.clip(planes - planes.max() / 4, 0, None)
        found = (np.indices(planes.shape) * weights).sum((1, 2, 3)) / weights.sum()
        assert grid.to_input(found[None])[0] == pytest.approx(centre, abs=0.1)


@pytest.mark.parametrize(("shift", "used"), [(0.0, True), (0.5, True), (0.25, False)])
def test_a_resolution_whose_translation_says_that_it_lies_elsewhere_is_not_used(tmp_path, ramp, shift, used):
    second = dataset("1", 2.0)
    second["coordinateTransformations"].append({"type": "translation", "translation": [shift] * 3})
    volume = open_volume(write(tmp_path / "a.zarr", [ramp, halved(ramp)], datasets=[dataset("0", 1.0), second]))
    assert bool(volume.coarser) is used
    assert any("translation" in text for text in volume.warnings) is not used


def test_of_the_blocks_that_were_read_those_used_last_are_kept():
    kept = blocks.KeptBlocks(3 << 20)
    for k in range(9):
        kept.put((k,), np.full((64, 64, 64), k, np.float32))
        assert kept.get((0,)) is not None  # in use all the time
        assert kept.nbytes <= 3 << 20
    assert [k for k in range(9) if kept.get((k,)) is not None] == [0, 7, 8]
    kept.put((9,), np.zeros(1 << 20, np.float32))  # larger than all that may be kept
    assert kept.get((9,)) is not None
    assert kept.get((0,)) is None
    kept.clear()
    assert kept.nbytes == 0


def test_only_the_chunks_in_use_are_read(tmp_path):
    data = np.random.default_rng(0).normal(size=(256, 64, 128)).astype(np.float32)
    folder = write(tmp_path / "a.zarr", [data], chunks=(64, 64, 64))
    volume = open_volume(folder)
    for path in (folder / "0" / "3").rglob("*"):
        path.write_bytes(b"damaged") if path.is_file() else None
    assert np.array_equal(volume.read(0, 192), data[:192])
    with pytest.raises(FormatError, match=r"cannot be read.*copy the tomogram again"):
        volume.read(191, 193)


def test_missing_chunks_have_the_fill_value_and_are_told_of(tomo, ramp):
    (tomo / "0" / "0" / "1" / "2").unlink()
    volume = open_volume(tomo)
    assert volume.warnings[0].startswith("1 of 27 chunks are missing")
    expected = ramp.copy()
    expected[:16, 16:32, 64:] = 0
    assert np.array_equal(np.asarray(volume.data_zyx), expected)
    for place in "012":
        shutil.rmtree(tomo / "0" / place)
    with pytest.raises(FormatError, match="none of its 27 chunks"):
        open_volume(tomo)


def edited(path, **members):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **members}))


@pytest.mark.parametrize(("members", "message"), [
    ({"shape": [10 ** 4, 10 ** 4, 10 ** 4]}, "at most 1e.11 voxels"),
    ({"shape": [-40, 48, 70]}, "whole numbers from 1"), ({"shape": [40, 48, True]}, "whole numbers"),
    ({"shape": [40, 48]}, "as many axes"), ({"shape": "many"}, "whole numbers"), ({"shape": [2.5, 48, 70]}, "whole"),
    ({"chunks": [10 ** 4, 10 ** 4, 10 ** 4]}, "chunks of at most 512 MiB"), ({"chunks": [0, 1, 1]}, "whole numbers"),
    ({"shape": [10 ** 3, 10 ** 4, 10 ** 4], "chunks": [1, 1, 1]}, "chunks"),
    ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "data type"), ({"dtype": "<c8"}, "data type"),
    ({"dtype": [["a", "<f4"]]}, "data type"), ({"filters": [{"id": "pickle"}]}, "codec.*'pickle'"),
    ({"compressor": {"id": "json2"}}, "codec"), ({"compressor": 3}, "damaged metadata"),
    ({"zarr_format": 7}, "format version 2"), ({"dimension_separator": "/../../"}, "separator")], ids=str)
def test_metadata_that_cannot_be_true_are_refused_before_anything_is_read(tomo, members, message):
    edited(tomo / "0" / ".zarray", **members)
    with pytest.raises(FormatError, match=message):
        open_volume(tomo)


@pytest.mark.parametrize("image", [
    None, [], 3, [{}], [{"datasets": [dataset("0", 1.0, 5)]}], *([{"axes": AXES, "datasets": listed}] for listed in (
        [], [{"path": 3}], [dataset("../other.zarr/0", 1.0)], [dataset("/etc", 1.0)], [dataset("gone", 1.0)],
        [dataset("0", float("nan"))], [dataset("0", -1.0)], [dataset("0", 1.0, 2)], [dataset("0", 1.0)] * 99)),
    *([{"axes": axes, "datasets": [dataset("0", 1.0)]}] for axes in (AXES[:2], [*AXES[:2], AXES[1]], "zyx"))], ids=str)
def test_strange_images_are_refused_in_one_line(tomo, image):
    (tomo / ".zattrs").write_text(json.dumps({"multiscales": image}))
    with pytest.raises((FormatError, InputError), match=r"expected|found|does not say|must be"):
        open_volume(tomo)


def test_links_out_of_the_folder_and_what_is_no_file_are_refused(tmp_path, tomo, ramp):
    chunk, other = tomo / "0" / "0" / "0" / "0", tmp_path / "elsewhere"
    shutil.move(chunk, other)
    chunk.symlink_to(other)
    with pytest.raises(FormatError, match="link out of the tomogram's folder"):
        open_volume(tomo).read(0, 1)
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(FormatError, match="expected a file with a chunk"):
        open_volume(tomo).read(0, 1)
    chunk.unlink()
    chunk.write_bytes(bytes(10 ** 6))
    with pytest.raises(FormatError, match=r"expected at most .* bytes for a chunk"):
        open_volume(tomo).read(0, 1)
    shutil.copy(other, chunk)
    assert np.array_equal(open_volume(tomo).read(0, 1), ramp[:1])
    shutil.move(tomo / "0", tmp_path / "level")
    (tomo / "0").symlink_to(tmp_path / "level")
    with pytest.raises(FormatError, match="expected the path of an array within the folder"):
        open_volume(tomo)
    linked = tmp_path / "linked.zarr"
    linked.symlink_to(write(tmp_path / "TS_02.zarr", [ramp]))  # the tomogram itself may be a link, as in a project
    assert open_volume(linked).shape_zyx == SHAPE


def test_it_is_listed_named_and_paired_like_any_tomogram(tmp_path, tomo, ramp):
    write(tmp_path / "TS_02.ome.zarr", [ramp])
    table = CoordinateTable(np.array([[1.0, 2.0, 3.0]]), np.array([1]), np.array([np.nan]), {})
    for name in ("TS_01", "TS_02"):
        write_coordinates(tmp_path / f"{name}.csv", table)
    items = items_from_folder(tmp_path)
    assert {i.name: pathlib.Path(i.coordinates).name for i in items} == {"TS_01": "TS_01.csv", "TS_02": "TS_02.csv"}
    assert [i.name for i in items_from_files([tomo, tmp_path / "TS_02.ome.zarr"])] == ["TS_01", "TS_02"]
    (tmp_path / "p.star").write_text("data_particles\n\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n"
                                     "_rlnCoordinateZ\nraw/TS_02.ome.zarr 3 2 1\n")
    found = read_coordinates(tmp_path / "p.star", Frame(10.0, SHAPE, tomogram="TS_02"))
    assert found.positions_zyx_vox.tolist() == [[1, 2, 3]]
    write_volume(tmp_path / "TS_02.mrc", ramp, 10.0)
    with pytest.raises(InputError, match="same name"):
        items_from_folder(tmp_path)


def test_its_identity_notices_a_changed_chunk_and_changed_metadata(tomo, tmp_path):
    before = identity(tomo)
    assert before["size"] == sum(p.stat().st_size for p in tomo.rglob("*") if p.is_file())
    copy = shutil.copytree(tomo, tmp_path / "copy" / "TS_01.zarr")
    assert {**identity(copy), "path": ""} == {**before, "path": ""}
    (copy / "1" / "0" / "0" / "0").unlink()
    assert identity(copy)["sample"] != before["sample"]
    edited(tomo / ".zattrs", more=1)
    assert identity(tomo)["sample"] != before["sample"]


def test_info_says_what_a_folder_holds(tomo, capsys):
    assert main(["info", str(tomo)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "TS_01", "  type       float32", "  voxels     70 x 48 x 40 (x, y, z) of 10 angstrom",
        "  coarser    35 x 24 x 20 (x, y, z) of 20 angstrom"]


def test_without_zarr_it_is_said_what_to_install_before_anything_starts(tomo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert main(["info", str(tomo)]) == 2
    assert "pip install 'deepetpicker[zarr]'" in capsys.readouterr().err
    for listed in (items_from_files, lambda paths: items_from_folder(paths[0].parent, need_coordinates=False)):
        with pytest.raises(InputError, match="expected the package zarr"):
            listed([tomo])
