"""MRC files in and out, sound and damaged."""

import errno
import gzip
import mmap
import os
import pathlib
import pickle
import sys

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from deepetpicker import __version__
from deepetpicker.errors import FormatError, InputError, OutputError
from deepetpicker.io.volumes import VolumeWriter, open_volume, write_volume

SHAPE = (6, 8, 10)


@pytest.fixture
def ramp():
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def mrc(tmp_path, ramp):
    path = tmp_path / "tomo.mrc"
    write_volume(path, ramp, 10.0)
    return path


def patch(path, offset, data):
    raw = bytearray(path.read_bytes())
    raw[offset:offset + len(data)] = data
    path.write_bytes(bytes(raw))


def i4(*values, order="<"):
    return np.array(values, order + "i4").tobytes()


def test_a_volume_reads_back_mapped_with_its_voxel_size(mrc, ramp):
    volume = open_volume(mrc)
    assert isinstance(volume.data_zyx, np.memmap)
    assert volume.name == "tomo"
    assert volume.shape_zyx == SHAPE
    assert volume.voxel_size_ang == pytest.approx(10.0)
    assert volume.warnings == ()
    assert np.array_equal(volume.data_zyx, ramp)
    assert np.array_equal(volume.read(2, 5), ramp[2:5])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "i2", "u2", "f2", "f4"])
def test_every_real_mode_and_byte_order_reads_as_native_float32(tmp_path, kind, order):
    data = np.random.default_rng(0).integers(-100 if kind[0] != "u" else 0, 100, SHAPE).astype(order + kind)
    path = tmp_path / "t.rec"
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data.astype(kind))
        file.voxel_size = 4.0
    raw = bytearray(path.read_bytes())
    if order == ">":
        header = np.frombuffer(bytes(raw[:1024]), HEADER_DTYPE)
        raw[:1024] = header.astype(HEADER_DTYPE.newbyteorder(">")).tobytes()
        raw[212:216] = b"\x11\x11\x00\x00"
        raw[1024:] = data.astype(">" + kind).tobytes()
        path.write_bytes(bytes(raw))
    volume = open_volume(path)
    plane = volume.read(0, SHAPE[0])
    assert plane.dtype == np.dtype("=f4")
    assert plane.dtype.isnative
    assert volume.voxel_size_ang == pytest.approx(4.0)
    assert np.array_equal(plane, data.astype(np.float32))


def test_nan_and_infinity_are_kept(tmp_path, ramp):
    ramp[1, 2, 3], ramp[4, 5, 6] = np.nan, np.inf
    write_volume(tmp_path / "t.mrc", ramp, 1.5)
    back = open_volume(tmp_path / "t.mrc").read(0, 6)
    assert np.isnan(back[1, 2, 3])
    assert np.isposinf(back[4, 5, 6])
    with mrcfile.open(tmp_path / "t.mrc") as file:
        assert np.isfinite([file.header.dmin, file.header.dmax, file.header.dmean, file.header.rms]).all()


def test_planes_outside_are_an_input_error(mrc):
    volume = open_volume(mrc)
    assert volume.read(3, 3).shape == (0, 8, 10)
    with pytest.raises(InputError, match="planes 5 to 7"):
        volume.read(5, 7)


def test_imod_unsigned_bytes_are_honoured(tmp_path):
    path = tmp_path / "b.mrc"
    write_volume(path, np.full(SHAPE, -1, np.int8), 10.0)
    assert open_volume(path).read(0, 1).max() == -1
    patch(path, 152, i4(1146047817, 0))
    assert open_volume(path).read(0, 1).max() == 255
    patch(path, 152, i4(1146047817, 1))
    assert open_volume(path).read(0, 1).max() == -1


def test_given_voxel_size_wins_and_warns_over_one_percent(mrc, caplog):
    assert open_volume(mrc, 10.05).warnings == ()
    volume = open_volume(mrc, 13.48, name="TS_01")
    assert volume.voxel_size_ang == 13.48
    assert "header says 10 angstrom per voxel, 13.48 was given" in volume.warnings[0]
    assert "TS_01" in caplog.text


def test_unknown_voxel_size_asks_for_the_flag(tmp_path, ramp):
    write_volume(tmp_path / "t.mrc", ramp, 0.0)
    with pytest.raises(InputError, match="--voxel-size"):
        open_volume(tmp_path / "t.mrc")
    volume = open_volume(tmp_path / "t.mrc", 7.0)
    assert volume.voxel_size_ang == 7.0
    assert volume.warnings == ()


def test_anisotropic_voxels_are_refused_unless_the_size_is_given(mrc):
    with mrcfile.open(mrc, "r+") as file:
        file.voxel_size = (10.0, 10.0, 12.0)
    with pytest.raises(InputError, match="not cubes"):
        open_volume(mrc)
    assert open_volume(mrc, 10.0).warnings


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_an_impossible_voxel_size_is_refused(mrc, bad):
    with pytest.raises(InputError, match="voxel size"):
        open_volume(mrc, bad)


def test_a_file_system_that_maps_no_files_is_told(tmp_path, monkeypatch):
    write_volume(tmp_path / "a.mrc", np.zeros((4, 6, 8), np.float32), 10.0)

    def refuse(*given, **options):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(InputError, match=r"a\.mrc in parts: expected .* \(No such device\): copy the"):
        open_volume(tmp_path / "a.mrc")


def test_a_file_that_is_cut_while_it_is_opened_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.mrc"
    write_volume(path, np.zeros((16, 24, 32), np.float32), 10.0)
    real = np.memmap

    def cut(*given, **options):
        os.truncate(path, 5000)
        return real(*given, **options)

    monkeypatch.setattr(np, "memmap", cut)
    with pytest.raises(FormatError, match=r"a\.mrc is truncated: it was cut while"):
        open_volume(path)


def test_missing_folder_empty_truncated_compressed_and_foreign_files(tmp_path, mrc):
    with pytest.raises(InputError, match="no such tomogram"):
        open_volume(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="got a folder"):
        open_volume(tmp_path)
    raw = mrc.read_bytes()
    cases = {b"": "0 bytes", raw[:500]: "at least 1024 bytes", raw[:-10]: r"expected 2944 bytes.*found 2934",
             raw[:1024]: "truncated", gzip.compress(raw): "compressed", b"hello world " * 400: "not an MRC file",
             b"\0" * 5000: "not an MRC file"}
    for content, message in cases.items():
        (tmp_path / "bad.mrc").write_bytes(content)
        with pytest.raises(FormatError, match=message):
            open_volume(tmp_path / "bad.mrc")


@pytest.mark.parametrize(("mode", "message"), [(3, "complex"), (4, "complex"), (16, "RGB"), (101, "4-bit"),
                                               (77, "not an MRC file")])
def test_other_modes_are_refused_with_the_reason(mrc, mode, message):
    patch(mrc, 12, i4(mode))
    with pytest.raises(FormatError, match=message):
        open_volume(mrc)


def test_single_planes_and_stacks_of_volumes_are_refused(tmp_path, mrc):
    with mrcfile.new(tmp_path / "flat.mrc") as file:
        file.set_data(np.zeros((20, 30), np.float32))
        file.voxel_size = 1.0
    with pytest.raises(FormatError, match="single plane"):
        open_volume(tmp_path / "flat.mrc")
    with mrcfile.new(tmp_path / "stack.mrc") as file:
        file.set_data(np.zeros((2, 3, 4, 5), np.float32))
        file.voxel_size = 1.0
    with pytest.raises(FormatError, match="stack of 2 volumes"):
        open_volume(tmp_path / "stack.mrc")


def test_permuted_axes_are_refused_and_unset_ones_accepted(mrc):
    patch(mrc, 64, i4(1, 3, 2))
    with pytest.raises(FormatError, match="order"):
        open_volume(mrc)
    patch(mrc, 64, i4(0, 0, 0))
    assert open_volume(mrc).shape_zyx == SHAPE


def test_slightly_wrong_headers_are_used_with_a_warning(mrc, ramp):
    patch(mrc, 212, b"\0\0\0\0")
    assert "machine stamp" in open_volume(mrc).warnings[0]
    patch(mrc, 212, b"\x11\x11\0\0")
    assert "does not match" in open_volume(mrc).warnings[0]
    patch(mrc, 208, b"XXXX")
    volume = open_volume(mrc)
    assert "map ID" in volume.warnings[0]
    assert np.array_equal(volume.data_zyx, ramp)
    mrc.write_bytes(mrc.read_bytes() + b"extra")
    with pytest.raises(FormatError, match="not an MRC file"):
        open_volume(mrc)


def test_extended_header_and_extra_bytes(mrc, ramp):
    raw = mrc.read_bytes()
    mrc.write_bytes(raw[:92] + i4(160) + raw[96:1024] + b"\7" * 160 + raw[1024:] + b"tail")
    volume = open_volume(mrc)
    assert np.array_equal(volume.data_zyx, ramp)
    assert "4 bytes longer" in volume.warnings[0]


def test_a_volume_pickles_as_its_path(mrc, ramp):
    big = pickle.dumps(open_volume(mrc, name="a"))
    assert len(big) < 1000
    assert np.array_equal(pickle.loads(big).data_zyx, ramp)


@pytest.mark.parametrize(("data", "expected"), [
    (np.full(SHAPE, True), "i1"), (np.full(SHAPE, 300, np.int64), "i2"), (np.full(SHAPE, 40000, np.int32), "u2"),
    (np.full(SHAPE, 70000, np.int32), "f4"), (np.full(SHAPE, 200, np.uint8), "i2"), (np.full(SHAPE, 2.5), "f4"),
    (np.full(SHAPE, 2.5, np.float16), "f2")])
def test_written_values_are_exact_in_the_smallest_type(tmp_path, data, expected):
    write_volume(tmp_path / "t.mrc", data, 10.0)
    volume = open_volume(tmp_path / "t.mrc")
    assert volume.data_zyx.dtype.str[1:] == expected
    assert np.array_equal(volume.data_zyx, data.astype(volume.data_zyx.dtype))


@pytest.mark.parametrize("data", [np.zeros(SHAPE, complex), np.zeros((3, 4)), np.zeros((0, 3, 4)),
                                  np.full(SHAPE, 2 ** 30)])
def test_what_mrc_cannot_hold_is_refused(tmp_path, data):
    with pytest.raises(InputError):
        write_volume(tmp_path / "t.mrc", data, 10.0)
    assert list(tmp_path.iterdir()) == []


def test_streamed_slabs_give_a_valid_file_with_true_statistics(tmp_path):
    data = np.random.default_rng(1).normal(1000.0, 0.5, SHAPE).astype(np.float32)
    with VolumeWriter(tmp_path / "t.mrc", SHAPE, np.float32, 13.48) as writer:
        writer.write(4, data[4:])
        writer.write(0, data[:1])
        writer.write(1, data[1:4])
        assert not (tmp_path / "t.mrc").exists()
    assert mrcfile.validate(tmp_path / "t.mrc")
    with mrcfile.open(tmp_path / "t.mrc") as file:
        assert np.array_equal(file.data, data)
        assert int(file.header.ispg) == 1
        assert float(file.voxel_size.z) == pytest.approx(13.48, rel=1e-6)
        found = [float(file.header[n]) for n in ("dmin", "dmax", "dmean", "rms")]
        assert found == pytest.approx([data.min(), data.max(), data.mean(dtype=float), data.std(dtype=float)], rel=1e-5)
        assert file.get_labels() == [f"deepetpicker {__version__}"]


def test_equal_volumes_are_equal_files(tmp_path, ramp):
    write_volume(tmp_path / "a.mrc", ramp, 2.0)
    write_volume(tmp_path / "b.mrc", ramp, 2.0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


def test_an_incomplete_or_interrupted_volume_leaves_nothing(tmp_path, ramp):
    with pytest.raises(OutputError, match="planes are missing"), \
            VolumeWriter(tmp_path / "t.mrc", SHAPE, np.float32, 1.0) as writer:
        writer.write(0, ramp[:2])
    with pytest.raises(KeyboardInterrupt), \
            VolumeWriter(tmp_path / "t.mrc", SHAPE, np.float32, 1.0) as writer:  # noqa: PT012
        writer.write(0, ramp)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_slabs_that_do_not_fit_or_come_twice_are_refused(tmp_path, ramp):
    with pytest.raises(InputError, match="does not fit"), \
            VolumeWriter(tmp_path / "t.mrc", SHAPE, np.float32, 1.0) as writer:
        writer.write(5, ramp[:2])
    with pytest.raises(InputError, match="written before"), \
            VolumeWriter(tmp_path / "t.mrc", SHAPE, np.float32, 1.0) as writer:  # noqa: PT012
        writer.write(0, ramp[:2])
        writer.write(1, ramp[1:3])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, ramp):
    import resource
    import signal
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, old[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*t\.mrc"):
            write_volume(tmp_path / "t.mrc", ramp, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED") or sys.platform != "linux", reason="needs Linux")
def test_reading_all_planes_holds_only_the_planes_in_memory(tmp_path):
    shape = (64, 512, 512)
    with VolumeWriter(tmp_path / "t.mrc", shape, np.float32, 10.0) as writer:
        for z in range(shape[0]):
            writer.write(z, np.full((1, *shape[1:]), z, np.float32))
    volume = open_volume(tmp_path / "t.mrc")

    def resident_mb():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6

    start = resident_mb()
    most = 0.0
    for z in range(shape[0]):
        assert volume.read(z, z + 1).min() == z
        most = max(most, resident_mb() - start)
    assert most < 20  # the file has 67 MB
