"""copick projects: their picks and tomograms become a data folder, and picks of ours become theirs."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.errors import DeepETPickerError
from deepetpicker.io.classes import ParticleClass, read_classes, write_classes
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.coordinates.copick import Wanted, export_folder, open_project
from deepetpicker.io.items import items_from_folder, items_from_params
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.volumes import open_volume

OBJECTS = [{"name": "ribosome", "is_particle": True, "label": 3, "radius": 120.0},
           {"name": "proteasome", "is_particle": True, "label": 7, "radius": 65.0},
           {"name": "membrane", "is_particle": False, "label": 3}]
SHIFTED = [[1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, -2.5], [0, 0, 0, 1]]


def point(x, y, z, **more):
    return {"location": {"x": x, "y": y, "z": z}, "instance_id": 0, "score": 1.0, **more}


def put(folder, run, user, name, points, session="1", **more):
    path = folder / "ExperimentRuns" / run / "Picks" / f"{user}_{session}_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pickable_object_name": name, "user_id": user, "session_id": session, "run_name": run,
                                "unit": "angstrom", "points": points, **more}))
    return path


@pytest.fixture
def project(tmp_path):
    """A project of two runs; what is given and what is added lie apart."""
    static, overlay = tmp_path / "static", tmp_path / "overlay"
    (tmp_path / "config.json").write_text(json.dumps({
        "config_type": "filesystem", "pickable_objects": OBJECTS, "overlay_root": f"local://{overlay}",
        "static_root": str(static)}))
    put(static, "TS_01", "anna", "ribosome", [point(100, 205, 52.5), point(30, 40, 80, transformation_=SHIFTED)])
    put(overlay, "TS_01", "anna", "proteasome", [point(10, 20, 30, score=None)])
    put(overlay, "TS_02", "anna", "ribosome", [])
    put(overlay, "TS_02", "bert", "ribosome", [point(1, 2, 3)])
    for run, kind in (("TS_01", "wbp"), ("TS_02", "wbp"), ("TS_02", "wbp_features")):
        (static / "ExperimentRuns" / run / "VoxelSpacing10.000" / f"{kind}.zarr").mkdir(parents=True)
    return tmp_path / "config.json"


def test_picks_become_tables_in_voxels_with_the_classes_of_the_project(project, tmp_path):
    assert main(["convert", str(project), str(tmp_path / "data"), "--user", "anna"]) == 0
    table = read_coordinates(tmp_path / "data" / "TS_01.csv")
    assert table.class_ids.tolist() == [7, 3, 3]
    assert table.positions_zyx_vox.tolist() == [[3, 2, 1], [5.25, 20.5, 10], [7.75, 4, 3.5]]
    assert np.isnan(table.scores[0])
    assert len(read_coordinates(tmp_path / "data" / "TS_02.csv")) == 0
    assert read_classes(tmp_path / "data") == ((ParticleClass(3, "ribosome", 240.0),
                                                ParticleClass(7, "proteasome", 130.0)), 10.0)
    items = items_from_folder(tmp_path / "data")
    assert [(i.name, pathlib.Path(i.tomogram).resolve().name) for i in items] == [("TS_01", "wbp.zarr"),
                                                                                ("TS_02", "wbp.zarr")]


def test_what_is_meant_must_be_clear_and_nothing_is_written_over(project, tmp_path, capsys):
    out = str(tmp_path / "data")
    assert main(["convert", str(project), out]) == 2
    assert "--user anna --session 1; --user bert --session 1" in capsys.readouterr().err
    assert main(["convert", str(project), out, "--user", "carl"]) == 2
    assert "expected one kind, found 0: choose one of --user anna" in capsys.readouterr().err
    (tmp_path / "static" / "ExperimentRuns" / "TS_01" / "VoxelSpacing5.000" / "wbp.zarr").mkdir(parents=True)
    assert main(["convert", str(project), out, "--user", "anna"]) == 2
    assert "--voxel-size 5.0 --tomo-type wbp; --voxel-size 10.0 --tomo-type wbp" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert main(["convert", str(project), out, "--user", "anna", "--voxel-size", "5"]) == 0
    assert read_coordinates(tmp_path / "data" / "TS_01.csv").positions_zyx_vox[0].tolist() == [6, 4, 2]
    assert main(["convert", str(project), out, "--user", "anna", "--voxel-size", "5"]) == 2
    assert "TS_01.csv is there already" in capsys.readouterr().err


def test_where_there_are_no_links_a_file_names_the_tomograms(project, tmp_path, monkeypatch, caplog):
    def no_link(target, *rest):
        raise PermissionError(errno.EPERM, "Operation not permitted", target)

    monkeypatch.setattr(os, "symlink", no_link)
    data = tmp_path / "data"
    assert main(["convert", str(project), str(data), "--user", "anna"]) == 0
    assert sorted(path.name for path in data.iterdir()) == ["TS_01.csv", "TS_02.csv", "classes.json", "params.json"]
    params = json.loads((data / "params.json").read_text())
    found = [(item["name"], pathlib.Path(item["tomogram"]).is_dir(), item["voxel_size"]) for item in params["items"]]
    assert found == [("TS_01", True, 10.0), ("TS_02", True, 10.0)]
    assert [pathlib.Path(item["coordinates"]) for item in params["items"]] == [data / "TS_01.csv", data / "TS_02.csv"]
    assert f"train --params {data / 'params.json'}" in caplog.text
    items = items_from_params({"items": params["items"]})
    assert [item.name for item in items] == ["TS_01", "TS_02"]


def picked(folder, voxel=10.0):
    """Write what pick writes: tables, classes and a manifest that says the voxel size."""
    folder.mkdir()
    table = CoordinateTable(np.array([[3.0, 2, 1], [5.25, 20.5, 10]]), np.array([7, 3]), np.array([0.25, 0.75]))
    write_coordinates(folder / "TS_01.csv", table)
    write_classes(folder, [ParticleClass(3, "ribosome", 240.0), ParticleClass(7, "proteasome", 130.0)])
    manifest = Manifest("pick", {})
    manifest._inputs.append({"path": "/data/TS_01.mrc", "voxel_size_angstrom": voxel})
    manifest.add_item("TS_01", "done", tomogram="/data/TS_01.mrc", picks=str(folder / "TS_01.csv"))
    manifest.add_item("TS_09", "failed", "no contrast")
    manifest.write(folder / "manifest.json")
    return folder


def test_picks_go_into_a_project_under_a_user_and_come_back_as_they_were(project, tmp_path, capsys):
    folder = picked(tmp_path / "picks")
    assert main(["convert", str(folder), str(project)]) == 0
    path = tmp_path / "overlay/ExperimentRuns/TS_01/Picks/deepetpicker_0_ribosome.json"
    content = json.loads(path.read_text())
    assert content["points"][0]["location"] == {"x": 100.0, "y": 205.0, "z": 52.5}
    assert content["points"][0]["score"] == 0.75
    assert (content["trust_orientation"], content["voxel_spacing"]) == (False, 10.0)
    assert main(["convert", str(project), str(tmp_path / "back"), "--user", "deepetpicker"]) == 0
    assert (tmp_path / "back" / "TS_01.csv").read_text() == (folder / "TS_01.csv").read_text()
    assert main(["convert", str(folder), str(project)]) == 2
    assert "is there already: give another --session" in capsys.readouterr().err
    assert main(["convert", str(folder), str(project), "--session", "2"]) == 0


def test_what_a_killed_writer_left_is_no_table(project, tmp_path):
    folder = picked(tmp_path / "picks")
    (folder / "manifest.json").unlink()
    (folder / ".TS_02.123-0a1b2c3d.csv").write_text("x,y")
    assert main(["convert", str(folder), str(project), "--voxel-size", "10"]) == 0


def test_unknown_runs_and_objects_and_strange_words_are_refused_before_anything_is_written(project, tmp_path, capsys):
    folder = picked(tmp_path / "picks")
    for words, said in (([], "no object 'ribosom'; did you mean 'ribosome'?"), (["--user", "../x"], "--user: expected"),
                        (["--session", "a_b"], "--session: expected")):
        write_classes(folder, [ParticleClass(3, "ribosom"), ParticleClass(7, "proteasome")])
        assert main(["convert", str(folder), str(project), *words]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "static/ExperimentRuns/TS_01").rename(tmp_path / "static/ExperimentRuns/TS_03")
    (tmp_path / "overlay/ExperimentRuns/TS_01").rename(tmp_path / "overlay/ExperimentRuns/TS_03")
    assert main(["convert", str(folder), str(project)]) == 2
    assert "no run 'TS_01'; did you mean 'TS_0" in capsys.readouterr().err
    assert not list(tmp_path.glob("overlay/**/deepetpicker*"))


@pytest.mark.parametrize("config", [
    "[]", "{", '{"pickable_objects": []}', '{"overlay_root": 3}', '{"overlay_root": "s3://bucket/x"}',
    '{"overlay_root": "/x", "config_type": "cryoet_data_portal"}', '{"overlay_root": "/x", "pickable_objects": 3}',
    '{"overlay_root": "/x", "pickable_objects": [{"is_particle": true, "name": "../x"}]}',
    '{"overlay_root": "/x", "pickable_objects": [{"is_particle": true, "name": "a", "radius": -1}]}',
    '{"overlay_root": "/x", "pickable_objects": [{"is_particle": true, "name": "a", "label": 1.5}]}',
    '{"overlay_root": "/x", "pickable_objects": [{"is_particle": 1, "name": "a"}, {"is_particle": 1, "name": "b"}]}'])
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path, config):
    (tmp_path / "c.json").write_text(config)
    with pytest.raises(DeepETPickerError, match=r"expected|give each its own|must be"):
        open_project(tmp_path / "c.json")


@pytest.mark.parametrize("changes", [
    {"points": 3}, {"points": [3]}, {"points": [{}]}, {"points": [point(1, 2, float("nan"))]}, {"unit": "nanometer"},
    {"points": [point(1, 2, 10 ** 400)]}, {"points": [point(1, 2, "x")]}, {"pickable_object_name": "membrane"},
    {"points": [point(1, 2, 3, transformation_=[[1]])]}, {"pickable_object_name": ["a"]}])
def test_damaged_picks_are_refused(project, tmp_path, changes):
    put(tmp_path / "overlay", "TS_01", "bert", "ribosome", [point(1, 2, 3)], **changes) if "points" not in changes \
        else put(tmp_path / "overlay", "TS_01", "bert", "ribosome", changes["points"])
    with pytest.raises(DeepETPickerError, match="expected"):
        export_folder(open_project(project), tmp_path / "data", Wanted("bert"))


@pytest.mark.slow
def test_the_copick_library_and_we_read_each_others_projects(tmp_path):
    """With copick in an environment of its own: it wants a newer numpy than Scipion has, and an older zarr."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python, helper = tmp_path / "env" / "bin" / "python", pathlib.Path(__file__).with_name("copick_library.py")
    subprocess.run([python, "-m", "pip", "install", "-q", "copick>=1.20"], check=True)
    place = tmp_path / "project"
    subprocess.run([python, helper, "make", place], check=True)
    assert main(["convert", str(place / "config.json"), str(tmp_path / "data"), "--user", "anna"]) == 0
    for name in ("TS_01", "TS_02"):
        volume = open_volume(tmp_path / "data" / f"{name}.zarr")
        assert (volume.voxel_size_ang, len(volume.coarser)) == (pytest.approx(10.0), 2)
        assert np.array_equal(np.asarray(volume.data_zyx), np.load(place / f"{name}.npy"))
        table = read_coordinates(tmp_path / "data" / f"{name}.csv")
        assert table.positions_zyx_vox[:, ::-1].tolist() == [[1.2, 2.4, 3.6], [10.0, 20.5, 5.25], [33.0, 4.0, 8.1]]
    assert main(["convert", str(picked(tmp_path / "picks")), str(place / "config.json")]) == 0
    said = subprocess.run([python, helper, "read", place], check=True, capture_output=True, text=True).stdout
    assert json.loads(said) == {"TS_01 ribosome 0": [[[100.0, 205.0, 52.5]], [0.75]],
                                "TS_01 proteasome 0": [[[10.0, 20.0, 30.0]], [0.25]]}
