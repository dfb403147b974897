"""OME-Zarr tomograms and copick projects that somebody hands over: nothing waits, unpacks without end, or leads out."""

from __future__ import annotations

import dataclasses
import json
import lzma
import os
import struct
import zlib

import fuzz
import numcodecs
import numpy as np
import pytest
import readers
import stores

from deepetpicker.errors import DeepETPickerError, FormatError, InputError
from deepetpicker.io.coordinates.copick import open_project
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.volumes import blocks, open_volume
from tests import zarrs

BOMBS = stores.bombs()
PACKERS = {"gzip": numcodecs.GZip(), "zlib": numcodecs.Zlib(), "lzma": numcodecs.LZMA(), "bz2": numcodecs.BZ2(),
           "zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc()}


def made(folder, version=2, **how):
    """Write a tomogram of 2 x 2 x 2 chunks and return its folder."""
    stores._write_zarr(folder, version=version, **how)
    return folder


def chunks(folder):
    """Return the files of chunks of the finest level."""
    return [path for path in sorted((folder / "0").rglob("*")) if path.is_file() and path.name[-1].isdigit()]


def edit(path, **members):
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def summed(index):
    """Return the index of a shard with its check sum."""
    return bytes(numcodecs.CRC32C().encode(index.tobytes()))


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_a_chunk_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path, packer):
    folder = made(tmp_path / "v.zarr", compressors=PACKERS[packer])
    assert len(BOMBS[packer]) < 3_000_000
    expected = np.asarray(open_volume(folder).data_zyx)
    chunks(folder)[0].write_bytes(BOMBS[packer])
    edit(folder / "0" / ".zarray", shape=[60, 200, 200], chunks=[30, 200, 100])  # room for a file of that length
    with fuzz.limits(), pytest.raises(FormatError, match="unpacks to more"):
        open_volume(folder).read(0, 1)
    assert expected.shape == stores.SHAPE


RAW = [{"id": lzma.FILTER_LZMA2, "preset": 1}]


def test_lzma_without_a_head_is_refused_for_it_says_nothing_of_its_end(tmp_path):
    folder = made(tmp_path / "v.zarr", compressors=numcodecs.LZMA(format=lzma.FORMAT_RAW, check=-1, filters=RAW))
    chunks(folder)[0].write_bytes(lzma.compress(bytes(1 << 20), format=lzma.FORMAT_RAW, filters=RAW) * 9)
    with fuzz.limits(), pytest.raises(FormatError, match="expected lzma in its format 1"):
        open_volume(folder).read(0, 1)


def test_lzma_that_asks_for_a_dictionary_of_a_gigabyte_is_refused(tmp_path):
    folder = made(tmp_path / "v.zarr", compressors=numcodecs.LZMA())
    chunk = chunks(folder)[0]
    content = bytearray(lzma.compress(bytes(420), format=lzma.FORMAT_ALONE))
    content[1:5] = struct.pack("<I", 1 << 30)
    chunk.write_bytes(bytes(content))
    with fuzz.limits(), pytest.raises(FormatError, match=r"chunk of at most .* bytes, found one that unpacks to more"):
        open_volume(folder).read(0, 1)


SEVERAL = [(2, {"filters": [numcodecs.Zlib()], "compressors": numcodecs.Blosc()}),
           (2, {"filters": [numcodecs.Shuffle(4), numcodecs.Zstd(), numcodecs.BZ2()], "compressors": numcodecs.LZ4(),
                "order": "F"}),
           (3, ["ZstdCodec", "GzipCodec"]),
           (3, ["GzipCodec", "Crc32cCodec", "BloscCodec", "Crc32cCodec"])]


@pytest.mark.parametrize(("version", "how"), SEVERAL)
def test_what_is_packed_several_times_is_read_and_bombs_in_it_are_refused(tmp_path, version, how):
    expected = np.asarray(open_volume(made(tmp_path / "plain.zarr", version, compressors=None)).data_zyx)
    folder = made(tmp_path / "v.zarr", version, **(how if version == 2 else {"compressors": zarrs.codecs(*how)}))
    assert np.array_equal(np.asarray(open_volume(folder).data_zyx), expected)
    path = chunks(folder)[0]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2:] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(bytes(damaged))
    with pytest.raises(FormatError, match=r"cannot be read|unpacks to more"):
        open_volume(folder).read(0, 1)


@pytest.mark.parametrize("inner", ["gzip", "lzma", "bz2", "zstd", "blosc", "lz4"])
def test_a_bomb_within_another_codec_is_refused(tmp_path, inner):
    folder = made(tmp_path / "v.zarr", filters=[PACKERS[inner]], compressors=numcodecs.Zlib())
    edit(folder / "0" / ".zarray", shape=[60, 200, 200], chunks=[30, 200, 100])  # room for a file of that length
    for bomb in (zlib.compress(BOMBS[inner]), BOMBS["zlib"]):
        chunks(folder)[0].write_bytes(bomb)
        with fuzz.limits(), pytest.raises(FormatError, match="unpacks to more"):
            open_volume(folder).read(0, 1)


@pytest.mark.parametrize("packer", ["gzip", "zlib", "lzma", "bz2"])
@pytest.mark.parametrize("change", ["cut", "bit", "behind", "empty"])
def test_damaged_streams_are_refused_and_what_follows_them_does_no_harm(tmp_path, packer, change):
    folder = made(tmp_path / "v.zarr", compressors=PACKERS[packer])
    expected = open_volume(folder).read(0, 1)
    path = chunks(folder)[0]
    content = bytearray(path.read_bytes())
    if change == "bit":
        content[len(content) // 2] ^= 4
    changed = {"cut": content[:-9], "behind": content + bytes(40), "empty": b"", "bit": content}[change]
    path.write_bytes(bytes(changed))
    if change == "behind":
        assert np.array_equal(open_volume(folder).read(0, 1), expected)
        return
    with pytest.raises(FormatError, match=r"cannot be read.*copy the tomogram again"):
        open_volume(folder).read(0, 1)


@pytest.mark.parametrize(("packer", "codec"), [("gzip", "GzipCodec"), ("zstd", "ZstdCodec")])
@pytest.mark.parametrize("where", ["start", "end"])
def test_a_shard_whose_chunk_unpacks_to_gigabytes_is_refused(tmp_path, packer, codec, where):
    (config,) = zarrs.codecs("ShardingCodec", chunk_shape=(3, 5, 7), codecs=zarrs.codecs("BytesCodec", codec),
                             index_location=where)
    folder = made(tmp_path / "v.zarr", 3, serializer=config, chunks=stores.SHAPE, compressors=None)
    edit(folder / "zarr.json", attributes={"ome": {"multiscales": [{"axes": list("zyx"), "datasets": [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [10.0] * 3}]}]}]}})
    assert np.abs(open_volume(folder, 10.0).data_zyx[:]).min() > 0
    (path,), bomb = chunks(folder), stores.bombs(60 << 20)[packer]
    index = np.full((8, 2), 2 ** 64 - 1, "<u8")
    index[0] = 132 if where == "start" else 0, len(bomb)
    path.write_bytes(summed(index) + bomb if where == "start" else bomb + summed(index))
    with fuzz.limits(), pytest.raises(FormatError, match="unpacks to more"):
        open_volume(folder, 10.0).read(0, 1)
    index[0] = 2 ** 63, 2 ** 62
    path.write_bytes(summed(index) + bomb if where == "start" else bomb + summed(index))
    with pytest.raises(FormatError, match="names bytes"):
        open_volume(folder, 10.0).read(0, 1)


@pytest.mark.parametrize("filters", [
    [{"id": "astype", "encode_dtype": "u1", "decode_dtype": "S1000000000"}], [{"id": "delta", "dtype": "<U99999"}],
    [{"id": "gzip"}] * 5, [{"id": "gzip", "level": 1}, {"id": "delta", "dtype": "<f4"}],
    [{"id": "astype", "encode_dtype": "u1", "decode_dtype": "<f8"}] * 2])
def test_filters_that_make_more_and_more_of_a_chunk_are_refused(tmp_path, filters):
    folder = made(tmp_path / "v.zarr", compressors=None)
    edit(folder / "0" / ".zarray", filters=filters)
    with pytest.raises(FormatError, match=r"expected (filters|codecs that compress)"):
        open_volume(folder)


@pytest.mark.parametrize("name", [".zattrs", ".zgroup", ".zmetadata", "zarr.json"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_metadata_that_only_zarr_reads_are_plain_files_in_the_folder(tmp_path, name, kind):
    folder = made(tmp_path / "v.zarr", compressors=None)
    (folder / "0" / name).unlink(missing_ok=True)
    os.mkfifo(folder / "0" / name) if kind == "pipe" else (folder / "0" / name).symlink_to("/etc/hostname")
    with fuzz.limits(), pytest.raises((FormatError, InputError), match=r"got a pipe|link out of"):
        open_volume(folder).read(0, 1)


def test_a_tomogram_in_planes_is_read_by_few_planes_and_not_by_64(tmp_path):
    folder = made(tmp_path / "v.zarr", compressors=None)
    edit(folder / "0" / ".zarray", shape=[64, 4096, 4096], chunks=[1, 4096, 4096])  # blocks of 64 would take 4 GB
    for path in chunks(folder):
        path.rename(path.with_name("9"))
    with fuzz.limits():
        assert open_volume(folder).data_zyx[0, :2, :2].tolist() == [[0, 0], [0, 0]]
    assert blocks._block_zyx((1, 4096, 4096), 4) == (1, 4096, 4096)
    assert blocks._block_zyx((1, 1024, 1024), 4) == (8, 1024, 1024)
    assert blocks._block_zyx((16, 16, 32), 4) == (64, 64, 64)


def test_chunks_of_single_voxels_and_shards_of_millions_are_refused(tmp_path):
    folder = made(tmp_path / "v.zarr", compressors=None)
    edit(folder / "0" / ".zarray", shape=[64, 64, 64], chunks=[1, 1, 1])
    with pytest.raises(FormatError, match="chunks of at least 64 voxels"):
        open_volume(folder)
    folder = made(tmp_path / "w.zarr", 3, shards=(6, 10, 14))
    content = json.loads((folder / "0" / "zarr.json").read_text())
    content["chunk_grid"]["configuration"]["chunk_shape"] = [3000, 5000, 7000]
    (folder / "0" / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="at most 262144 chunks in a shard"):
        open_volume(folder)


@pytest.mark.parametrize("path", ["x" * 5000, "\ud800", "0/" * 3000])
def test_a_path_that_no_folder_can_have_is_refused(tmp_path, path):
    folder = made(tmp_path / "v.zarr", compressors=None)
    content = json.loads((folder / ".zattrs").read_text())
    content["multiscales"][0]["datasets"][0]["path"] = path
    (folder / ".zattrs").write_text(json.dumps(content))
    with pytest.raises(DeepETPickerError, match=r"expected|damaged OME-Zarr metadata"):
        open_volume(folder)


@pytest.mark.parametrize("label", [1e308, 2 ** 63, 10 ** 30])
def test_a_label_of_copick_beyond_64_bits_is_refused(tmp_path, label):
    (tmp_path / "c.json").write_text(json.dumps({"overlay_root": "/x", "pickable_objects": [
        {"is_particle": True, "name": "a", "label": label}]}))
    with pytest.raises(FormatError, match=r"below 2\^63"):
        open_project(tmp_path / "c.json")


def test_a_folder_of_copick_with_a_name_too_long_holds_nothing(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"overlay_root": "x" * 5000, "static_root": str(tmp_path)}))
    (tmp_path / "ExperimentRuns" / "a").mkdir(parents=True)
    assert open_project(tmp_path / "c.json").picks("a") == {}


@pytest.mark.parametrize("root", ["\ud800", "local://\udfff/x"])
def test_a_folder_of_copick_with_a_name_that_none_can_have_is_refused(tmp_path, root):
    (tmp_path / "c.json").write_text(json.dumps({"overlay_root": root}))
    with pytest.raises(InputError, match="expected a local folder"):
        open_project(tmp_path / "c.json")


def test_json_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "c.json", "wb") as stream:
        stream.truncate(10 ** 10)
    for read in (open_project, read_manifest):
        with fuzz.limits(), pytest.raises(DeepETPickerError, match="of at most 128 MiB, got 9536 MiB"):
            read(tmp_path / "c.json")


@pytest.mark.parametrize("name", ["copick", "zarr", "csv"])
def test_inputs_that_made_trouble_are_kept_and_nothing_beside_them_is_lost(tmp_path, name):
    reader = readers.READERS[name]
    contents = readers.seeds(reader, tmp_path / "seeds")
    kinds = iter([ValueError, KeyError] * 2)

    def broken(path):
        raise next(kinds)("a defect")

    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "mine.txt").write_text("x")
    fuzz.attack(dataclasses.replace(reader, read=broken), contents, 4, seed=1, keep=str(keep))
    assert (keep / "mine.txt").read_text() == "x"
    assert {path.name for path in keep.iterdir()} == {"mine.txt", f"{name}_1", f"{name}_2"}
    assert all(any(place.iterdir()) for place in keep.iterdir() if place.is_dir())
