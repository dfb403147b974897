"""Data folders, parameter files, classes and manifests."""

import json
import pathlib
import sys

import numpy as np
import pytest

from deepetpicker import __version__
from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.classes import ParticleClass, classes_from_params, read_classes, write_classes
from deepetpicker.io.items import DataItem, items_from_folder, items_from_params
from deepetpicker.io.manifest import Manifest, read_manifest
from deepetpicker.io.volumes import open_volume, write_volume


def touch(folder, *names):
    for name in names:
        (folder / name).write_text("")


def test_folder_pairs_by_exact_stem_and_passes_over_the_rest(tmp_path, caplog):
    touch(tmp_path, "b.mrc", "b.csv", "a.1.rec", "a.1.coords", "a.1.coords:Zone.Identifier", "b_instances.mrc",
          "b_probability_1.mrc", ".b.mrc", "classes.json", "lonely.map", "notes.md", "b.mrc~", "model.mrcx")
    (tmp_path / "folder.mrc").mkdir()
    items = items_from_folder(tmp_path)
    assert [(i.name, i.tomogram, i.coordinates) for i in items] == [
        ("a.1", str(tmp_path / "a.1.rec"), str(tmp_path / "a.1.coords")),
        ("b", str(tmp_path / "b.mrc"), str(tmp_path / "b.csv"))]
    assert "lonely: no coordinates" in caplog.text
    assert [i.name for i in items_from_folder(tmp_path, need_coordinates=False)] == ["a.1", "b", "lonely"]


def test_a_folder_is_listed_once_whatever_it_holds(tmp_path, monkeypatch):
    touch(tmp_path, *(f"TS_{number}.{suffix}" for number in range(30) for suffix in ("mrc", "csv")))
    listed, original = [], pathlib.Path.iterdir
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda folder: listed.append(folder) or original(folder))
    assert len(items_from_folder(tmp_path)) == 30
    assert listed == [tmp_path]


def test_folder_errors_say_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        items_from_folder(tmp_path / "none")
    with pytest.raises(InputError, match=r"no tomograms.*\.mrc, \.rec, \.map"):
        items_from_folder(tmp_path)
    touch(tmp_path, "a.mrc")
    with pytest.raises(InputError, match=r"has coordinates: looked beside a .*\.csv.*\.star"):
        items_from_folder(tmp_path)
    with pytest.raises(InputError, match="got a file"):
        items_from_folder(tmp_path / "a.mrc")
    touch(tmp_path, "a.rec")
    with pytest.raises(InputError, match=r"a\.mrc and a\.rec.*same name"):
        items_from_folder(tmp_path)


def test_params_items_keep_their_order_and_names():
    params = {"items": [{"name": "TS_1", "tomogram": "x/a.mrc", "coordinates": "b.csv", "voxel_size": 10, "mask": None},
                        {"tomogram": "y/TS_11.rec"}]}
    assert items_from_params(params) == [DataItem("TS_1", "x/a.mrc", "b.csv", 10.0), DataItem("TS_11", "y/TS_11.rec")]
    assert items_from_params({}) == []


@pytest.mark.parametrize(("items", "message"), [
    ([{"name": "a"}], "item 1 needs a 'tomogram'"),
    ([{"tomogram": "a.mrc", "coordinate": "b"}], "did you mean 'coordinates'"),
    ([{"tomogram": "a.mrc"}, {"tomogram": "b/a.mrc"}], "two items are named 'a'"),
    ([{"tomogram": "a.mrc", "voxel_size": "big"}], "voxel_size must be a number"),
    ([{"tomogram": "a.mrc", "voxel_size": -1}], "voxel_size must be a number >= 0"),
    ("a.mrc", "list of objects"), (["a.mrc"], "list of objects")])
def test_params_items_are_checked(items, message):
    with pytest.raises(InputError, match=message):
        items_from_params({"items": items})


def test_classes_round_trip_and_absence(tmp_path):
    assert read_classes(tmp_path) == ((), 0.0)
    classes = (ParticleClass(1, "ring", 200.0), ParticleClass(2, "röd", 0.0))
    write_classes(tmp_path, classes[::-1], 10.0)
    assert read_classes(tmp_path) == (classes, 10.0)
    content = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    assert content["voxel_size_angstrom"] == 10.0
    assert content["classes"][1] == {"id": 1, "name": "ring", "diameter_angstrom": 200.0}


@pytest.mark.parametrize(("text", "message"), [
    ("{", "not a valid list"), ("[]", "expected an object"), ('{"classes": [{"name": "a"}]}', "id must be"),
    ('{"classes": [{"id": -1}]}', "whole number >= 0"), ('{"classes": [{"id": 1}, {"id": 1}]}', "ids must differ"),
    ('{"classes": [{"id": 1, "diameter_angstrom": "x"}]}', "diameter_angstrom must be")])
def test_damaged_classes_name_the_file(tmp_path, text, message):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(FormatError, match=rf"classes\.json.*{message}"):
        read_classes(tmp_path)


def test_class_without_a_name_gets_one():
    assert classes_from_params({"classes": [{"id": 3, "diameter_angstrom": 150}]}) == (
        ParticleClass(3, "class_3", 150.0),)


def test_manifest_holds_the_agreed_members(tmp_path):
    write_volume(tmp_path / "t.mrc", np.zeros((4, 5, 6), np.float32), 12.0)
    manifest = Manifest("pick", {"threshold": 0.5}, argv=["deepetpicker", "pick"], seed=7)
    manifest.add_input(open_volume(tmp_path / "t.mrc", 10.0, "TS_01"))
    manifest.add_item("TS_01", "done", seconds=np.float32(1.5), n_picks=np.int64(3), picks=tmp_path / "a.csv",
                      f1=np.nan)
    manifest.add_item("TS_02", "failed", "no such tomogram")
    manifest.warn("odd")
    manifest.warn("odd")
    manifest.outputs["folder"] = tmp_path
    manifest.write(tmp_path / "manifest.json")
    content = read_manifest(tmp_path / "manifest.json")
    assert set(content) == {"format_version", "command", "version", "argv", "options", "seed", "started", "seconds",
                            "directory", "machine", "inputs", "items", "outputs", "warnings"}
    assert content["version"] == __version__
    digest = content["inputs"][0].pop("sample_sha256")
    assert (len(digest), content["inputs"][0].pop("bytes")) == (32, (tmp_path / "t.mrc").stat().st_size)
    assert content["inputs"] == [{"path": str(tmp_path / "t.mrc"), "shape_zyx": [4, 5, 6], "voxel_size_angstrom": 10.0}]
    assert content["items"][0] == {"name": "TS_01", "status": "done", "reason": "", "seconds": 1.5, "n_picks": 3,
                                   "picks": str(tmp_path / "a.csv"), "f1": None}
    assert content["items"][1]["reason"] == "no such tomogram"
    assert [w.split(":")[0] for w in content["warnings"]] == ["TS_01", "odd"]
    assert content["outputs"] == {"folder": str(tmp_path)}
    assert content["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert manifest.n_failed == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_manifest_refuses_other_versions_and_statuses(tmp_path):
    with pytest.raises(InputError, match="done, failed"):
        Manifest("pick", {}).add_item("a", "ok")
    with pytest.raises(InputError, match="cannot read"):
        read_manifest(tmp_path / "none.json")
    for text, message in (('{"format_version": 2}', "found 2"), ("[]", "found None"), ("{", "not a manifest")):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(FormatError, match=message):
            read_manifest(tmp_path / "m.json")
