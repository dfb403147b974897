"""No file that somebody hands over makes a reader hang, run something, eat the memory, or fail without saying why."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pickle
import resource
import struct
import zipfile

import fuzz
import numpy as np
import pytest
import readers
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from deepetpicker import options
from deepetpicker.errors import DeepETPickerError, FormatError, InputError, ModelFileError
from deepetpicker.io.classes import classes_from_params, read_classes
from deepetpicker.io.coordinates import Frame, read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import format_info, read_card, read_header
from deepetpicker.io.regions import read_negatives, read_regions
from deepetpicker.io.volumes import open_volume
from deepetpicker.network.modelfile import load_model
from deepetpicker.network.reference import network_from_reference, read_checkpoint

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", sorted(readers.READERS))
def test_a_broken_file_is_read_or_refused_with_a_documented_error(tmp_path, name):
    reader = readers.READERS[name]
    found = fuzz.attack(reader, readers.seeds(reader, tmp_path), 100 if reader.mutate else 200, seed=12)
    assert set(found) <= {"read", "refused"}
    assert found.get("refused", 0) > 20 or name == "record"  # a damaged record counts as none


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(readers.READERS))
def test_thousands_of_broken_files_are_read_or_refused(tmp_path, name):
    reader = readers.READERS[name]
    found = fuzz.attack(reader, readers.seeds(reader, tmp_path), int(10000 * reader.weight), seed=13)
    assert set(found) <= {"read", "refused"}


@QUICK
@given(text=st.text(max_size=300), suffix=st.sampled_from([".csv", ".coords", ".box", ".pts", ".star", ".cbox"]))
def test_any_text_is_a_table_or_is_refused(tmp_path, text, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(DeepETPickerError):
        table = read_coordinates(path, Frame(10.0, (24, 32, 40), 8))
        assert np.isfinite(table.positions_zyx_vox).all()
        assert table.class_ids.dtype == np.int64


KEYS = st.sampled_from(["id", "name", "items", "classes", "tomogram", "outputs", "format_version"])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), max_leaves=12,
                    extend=lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@QUICK
@given(content=JSON)
def test_any_json_is_parameters_classes_and_a_manifest_or_is_refused(tmp_path, content):
    for name, read in (("params.json", lambda p: options.read_params(str(p))), ("manifest.json", read_manifest),
                       ("classes.json", lambda p: read_classes(p.parent))):
        (tmp_path / name).write_text(json.dumps(content))
        with contextlib.suppress(DeepETPickerError):
            assert read(tmp_path / name) is not None


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_header_of_10_to_the_12_voxels_is_refused_before_anything_is_allocated(tmp_path, order):
    header = bytearray(1024)
    struct.pack_into(order + "10i", header, 0, 10 ** 4, 10 ** 4, 10 ** 4, 2, 0, 0, 0, 10, 10, 10)
    struct.pack_into(order + "3f", header, 40, 1e5, 1e5, 1e5)
    struct.pack_into(order + "3i", header, 64, 1, 2, 3)
    header[208:214] = b"MAP " + (b"DD" if order == "<" else b"\x11\x11")
    (tmp_path / "v.mrc").write_bytes(bytes(header) + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match="truncated: expected 4000000001024 bytes"):
        open_volume(tmp_path / "v.mrc")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def everything_that_reads(path):
    """Yield calls that read a path."""
    yield lambda: open_volume(path)
    yield lambda: read_coordinates(path, format="csv")
    yield lambda: options.read_params(str(path))
    yield lambda: read_manifest(path)
    yield lambda: read_card(path)
    yield lambda: read_negatives(path)
    yield lambda: read_checkpoint(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "NUL", "long", "link to itself"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, kind):
    path: object = tmp_path / "x.mrc"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        path = {"device": "/dev/zero", "NUL": f"{tmp_path}/a\0b.mrc", "long": f"{tmp_path}/{'x' * 300}.mrc"}[kind]
    for read in everything_that_reads(path):
        with fuzz.limits(), pytest.raises(DeepETPickerError, match=r"\w+"):
            read()


def test_brackets_nested_without_end_are_refused(tmp_path):
    text = "[" * 100_000
    (tmp_path / "p.json").write_text(text)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(InputError, match="readable JSON"):
        options.read_params(str(tmp_path / "p.json"))
    with pytest.raises(FormatError, match="not a manifest"):
        read_manifest(tmp_path / "p.json")
    with pytest.raises(FormatError, match="not a valid list of classes"):
        read_classes(tmp_path)


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(InputError, match="diameter_angstrom must be a number >= 0"):
        classes_from_params({"classes": [{"id": 1, "diameter_angstrom": 10 ** 400}]})


def test_a_class_beyond_64_bits_is_refused_with_its_line(tmp_path):
    (tmp_path / "t.csv").write_text("class,x,y,z\n1e19,1,2,3\n")
    with pytest.raises(FormatError, match="line 2: the class must be"):
        read_coordinates(tmp_path / "t.csv")


def test_a_star_file_that_is_not_utf_8_is_refused_and_not_read_as_empty(tmp_path):
    columns = b"".join(b"_rlnCoordinate%s\n" % axis for axis in (b"X", b"Y", b"Z"))
    (tmp_path / "t.star").write_bytes(b"# \xff\ndata_\n\nloop_\n" + columns + b"1 2 3\n")
    with pytest.raises(FormatError, match="expected text in UTF-8, found the byte 0xff at 2: save it"):
        read_coordinates(tmp_path / "t.star")


def test_a_number_of_400_digits_in_a_star_file_is_refused(tmp_path):
    columns = "".join(f"_rlnCoordinate{axis}\n" for axis in "XYZ")
    (tmp_path / "t.star").write_text(f"data_\n\nloop_\n{columns}1 2 3\n1 2 {'1' * 400}\n")
    with pytest.raises(FormatError, match=r"damaged STAR file|too large|must be a finite number"):
        read_coordinates(tmp_path / "t.star")


@pytest.mark.parametrize(("name", "labels"), [
    ("t.star", [f"rlnCoordinate{axis}" for axis in "XYZX"]), ("t.cbox", [
        "CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "CoordinateZ"])])
def test_a_star_file_with_a_column_twice_is_refused(tmp_path, name, labels):
    rows = (" ".join(map(str, range(len(labels)))) + "\n") * 2
    (tmp_path / name).write_text("data_cryolo\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + rows)
    with pytest.raises(FormatError, match=r"the column _\w+ is there twice"):
        read_coordinates(tmp_path / name)


@pytest.mark.parametrize("text", ["-100.3001e3086915569664", "1E-999999999", ".5e+2147483648", "'1.e0000000001'"])
def test_a_number_in_a_star_file_that_crashes_its_parser_is_refused(tmp_path, text):
    loop = "data_\n\nloop_\n_rlnTomoName\n" + "".join(f"_rlnCoordinate{axis}\n" for axis in "XYZ")
    (tmp_path / "t.star").write_text(f"{loop}1e20251129 4 5 6\nTS_1e999999999 1 2e3 1e9\n")
    assert read_coordinates(tmp_path / "t.star", Frame(tomogram="TS_1e999999999")).positions_zyx_vox[0, 1] == 2e3
    (tmp_path / "t.star").write_text(f"{loop}TS_1 4 5 6\nTS_1 1 {text} 3\n")
    with pytest.raises(FormatError, match=r"line 9: expected numbers, found \S+, which none can be"):
        read_coordinates(tmp_path / "t.star")


def test_a_cell_of_140000_characters_is_refused_with_its_line(tmp_path):
    (tmp_path / "t.csv").write_text(f"x,y,z\n1,2,{'x' * 140_000}\n")
    with pytest.raises(FormatError, match="line 2: z must be a finite number"):
        read_coordinates(tmp_path / "t.csv")
    for read, columns in ((read_negatives, "x,y,z"), (read_regions, "x_min,y_min,z_min,x_max,y_max,z_max")):
        (tmp_path / "r.csv").write_text(f"{columns}\n{'1' * 140_000}\n")
        with pytest.raises(FormatError, match="not a table"):
            read(tmp_path / "r.csv")
        (tmp_path / "r.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(FormatError, match="not a table"):
            read(tmp_path / "r.csv")


def model_file(path, **changes):
    """Write a model file of one weight whose card has other members."""
    card = {**json.loads(readers._card().to_json()), **changes}
    head = json.dumps({"__metadata__": {"deepetpicker": json.dumps(card)},
                       "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    return path


@pytest.mark.parametrize("changes", [
    {"training": []}, {"notes": "x"}, {"intensity": 1.0}, {"validation": {}}, {"training": {"items": [None]}},
    {"training": {"picks": [{"n_true": 3}]}}, {"training": {"tomograms": 5}}, {"training": {"seen": [1]}},
    {"training": {"seen": {"portraits": [{"grain": ["a"], "standing_out": []}]}}},
    {"training": {"seen": {"density": 3}}}, {"classes": ["x"]}, {"classes": "x"},
    {"voxel_size_ang": 10 ** 400}, {"patch_vox": float("inf")}, {"border_vox": 10 ** 400}, {"seed": {}}])
def test_a_card_with_a_strange_member_is_refused_and_not_half_shown(tmp_path, changes):
    with pytest.raises(ModelFileError, match="the model card is damaged"):
        format_info(read_card(model_file(tmp_path / "m.safetensors", **changes)))


def test_a_small_model_file_makes_no_large_network(tmp_path):
    network = {**readers._card().network, "widths": [60_000, 60_000, 60_000]}  # 10^11 weights
    with fuzz.limits(), pytest.raises(ModelFileError, match="do not fit the model card"):
        load_model(model_file(tmp_path / "m.safetensors", network=network))


def test_a_shape_below_zero_in_a_model_file_is_refused(tmp_path):
    head = b'{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(ModelFileError, match="damaged safetensors header"):
        read_header(tmp_path / "m.safetensors")


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_runs_nothing(tmp_path, zipped):
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": Evil(tmp_path / "ran")}, tmp_path / "c.ckpt",
               _use_new_zipfile_serialization=zipped)
    (tmp_path / "d.ckpt").write_bytes(pickle.dumps({"state_dict": Evil(tmp_path / "ran")}))
    for name in ("c.ckpt", "d.ckpt"):
        with contextlib.suppress(ModelFileError):
            read_checkpoint(tmp_path / name)
        assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(5_000_000)}}, tmp_path / "c.ckpt")
    with zipfile.ZipFile(tmp_path / "c.ckpt") as plain, \
            zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    assert (tmp_path / "bomb.ckpt").stat().st_size < 50_000
    with pytest.raises(ModelFileError, match="a compressed archive"):
        read_checkpoint(tmp_path / "bomb.ckpt")


def test_a_checkpoint_whose_weights_repeat_one_number_makes_no_large_network(tmp_path):
    weight = torch.zeros(1).expand(200_000, 4, 300, 300, 300)  # 86 TB in a file of 1 kB
    torch.save({"state_dict": {"model.encoders.0.basic_module.conv1.conv.weight": weight}}, tmp_path / "c.ckpt")
    with fuzz.limits(), pytest.raises(ModelFileError, match="does not hold all of the weights"):
        read_checkpoint(tmp_path / "c.ckpt")
    flat = {f"model.encoders.{k}.basic_module.conv1.conv.weight": torch.zeros(60_000, 4) for k in range(3)}
    torch.save({"state_dict": {**flat, "model.final_conv.weight": torch.zeros(2, 2)}}, tmp_path / "d.ckpt")
    with fuzz.limits(), pytest.raises(ModelFileError, match="not those of the reference"):
        network_from_reference(read_checkpoint(tmp_path / "d.ckpt"), "d.ckpt")


@pytest.mark.parametrize("record", [
    json.dumps({**readers._record(), "item": {"name": "a", "status": "done", "picks": "x" * 999}}).encode(),
    b"{", b"[]",    b'{"format_version": 1, "item": {"name": [], "status": "done"}}', b"[" * 100_000])
def test_a_damaged_record_counts_as_none(tmp_path, record):
    path = pathlib.Path(tmp_path, "records", "a.json")
    path.parent.mkdir()
    path.write_bytes(record)
    (tmp_path / "manifest.json").write_text(json.dumps(readers._manifest()))
    assert read_manifest(tmp_path / "manifest.json")["outputs"]["missing"] == ["a"]


@pytest.mark.parametrize("outputs", [5, [], {"names": 5}, {"names": [None]}, {"names": ["a"]}])
def test_a_manifest_with_strange_outputs_is_refused(tmp_path, outputs):
    (tmp_path / "manifest.json").write_text(json.dumps({**readers._manifest(), "outputs": outputs, "options": None}))
    if outputs == []:
        assert read_manifest(tmp_path / "manifest.json")["items"]
        return
    with pytest.raises(FormatError, match="damaged manifest"):
        read_manifest(tmp_path / "manifest.json")
