"""One small file per picked tomogram: what tells results apart, and manifests made from them by any writer."""

from __future__ import annotations

import itertools
import os

import pytest

from deepetpicker.io.manifest import Manifest, read_manifest, write_content
from deepetpicker.io.records import Records, identity, is_same, made_from, with_records

NAMES = ["b", "a", "d", "c"]
OPTIONS = {"threshold": 0.5, "widths": (1, 2), "shard": "1/2", "device": "cpu"}


def made(path, **changed):
    """Return what decides the picks of a tomogram, with some of it changed."""
    given = {"voxel_size_ang": 0.0, "mask": None, "model_sha256": "abc", "options": OPTIONS, **changed}
    return made_from(path, **given)


def record_of(folder, name, status="done", **changed):
    """Return a record of a tomogram whose table is in the folder."""
    (folder / f"{name}.csv").write_text("class,x,y,z,score\n", encoding="utf-8")
    item = {"name": name, "status": status, "picks": str(folder / f"{name}.csv"), "tomogram": f"/data/{name}.mrc"}
    return {"made": made(f"/data/{name}.mrc", **changed), "item": item, "warnings": [f"{name}: odd"],
            "inputs": [{"path": f"/data/{name}.mrc"}]}


def manifest(names=tuple(NAMES)):
    """Return the manifest of a run."""
    content = Manifest("pick", OPTIONS, argv=[])
    content.outputs.update(names=list(names), model_sha256="abc")
    return content


def test_a_file_is_the_same_by_size_time_and_content_wherever_it_is(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(bytes(range(256)) * 1000)
    os.utime(path, ns=(5, 5))
    first = made(path)
    path.rename(tmp_path / "moved.mrc")
    assert is_same(first, made(tmp_path / "moved.mrc"))
    data = bytearray(bytes(range(256)) * 1000)
    for at in (0, len(data) // 2, len(data) - 1):  # of the same size and time
        changed = data[:]
        changed[at] ^= 1
        path.write_bytes(changed)
        os.utime(path, ns=(5, 5))
        assert is_same(first, made(path)) == (at == len(data) // 2), at  # samples are what they are
    path.write_bytes(data)
    assert not is_same(first, made(path))  # another time
    assert identity(tmp_path / "none")["size"] == -1
    path.write_bytes(b"")
    assert identity(path)["size"] == 0


@pytest.mark.parametrize("change", [{"voxel_size_ang": 5.0}, {"mask": __file__}, {"model_sha256": "def"},
                                    {"options": {**OPTIONS, "threshold": 0.4}}])
def test_what_decides_the_picks_is_compared(change):
    assert not is_same(made(__file__), made(__file__, **change))


@pytest.mark.parametrize(("now", "is_kept"), [({"faint": "auto", "fdr": 0.0}, True), ({"faint": "drop"}, False),
                                              ({"fdr": 0.05}, False)])
def test_options_that_a_record_of_before_does_not_have_stand_for_what_was_done_then(now, is_kept):
    """No model of before says how far its particles stand out, so auto leaves nothing out with it."""
    assert is_same(made("a.mrc"), made("a.mrc", options={**OPTIONS, **now})) == is_kept


def test_what_does_not_decide_them_is_not():
    assert is_same(made(__file__), made(__file__, options={**OPTIONS, "shard": "", "device": "cuda"}))


def writer(folder, names):
    """Do what a process does with its tomograms, one access to the folder at a time."""
    records, content = Records(folder), manifest().to_dict()
    for name in names:
        records.write(name, record_of(folder, name))
        yield
        merged = with_records(content, records.read())
        yield
        write_content(folder / "manifest.json", merged)
        yield


def test_two_writers_in_any_interleaving_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds would take long
    plays = 0
    for turns in itertools.combinations(range(9), 3):
        folder = tmp_path / str(plays)
        folder.mkdir()
        both = writer(folder, NAMES[:2]), writer(folder, NAMES[2:3])
        for turn in range(9):
            next(both[turn in turns])
        content = read_manifest(folder / "manifest.json")
        assert [item["name"] for item in content["items"]] == NAMES[:3], turns
        assert content["outputs"]["missing"] == ["c"]
        assert content["warnings"] == [f"{name}: odd" for name in NAMES[:3]]
        plays += 1
    assert plays == 84


def test_records_that_are_damaged_or_without_their_table_do_not_count(tmp_path):
    records = Records(tmp_path)
    for name in NAMES:
        records.write(name, record_of(tmp_path, name))
    assert list(records.read()) == sorted(NAMES)
    (tmp_path / "a.csv").unlink()
    records.path("b").write_text("{half", encoding="utf-8")
    records.path("c").write_text('{"format_version": 1, "item": {"name": "c"}}', encoding="utf-8")
    (tmp_path / "records" / ".d.1-2.json").write_text("{}", encoding="utf-8")
    assert list(records.read()) == ["d"]
    assert with_records(manifest().to_dict(), records.read())["outputs"]["missing"] == ["b", "a", "c"]
    records.forget("d")
    records.forget("d")
    assert records.read() == {}


def test_the_run_comes_first_and_others_follow_by_name(tmp_path):
    records = Records(tmp_path)
    for name in NAMES:
        records.write(name, record_of(tmp_path, name, model_sha256="abc" if name != "a" else "old"))
    content = with_records(manifest(["d", "e"]).to_dict(), records.read())
    assert [item["name"] for item in content["items"]] == ["d", "a", "b", "c"]
    assert content["outputs"]["missing"] == ["e"]
    assert content["warnings"][-1] == "a: picked with another model"
    assert [item["picks"] for item in content["items"]] == ["d.csv", "a.csv", "b.csv", "c.csv"]  # beside the manifest


def test_a_record_with_another_digit_does_not_count(tmp_path):
    records = Records(tmp_path)
    records.write("a", record_of(tmp_path, "a"))
    text = records.path("a").read_text()
    records.path("a").write_text(text.replace("a: odd", "a: old"))
    assert records.read() == {}
    records.path("a").write_text(text)
    assert list(records.read()) == ["a"]


def test_a_record_knows_its_tables_and_one_of_before_does_not(tmp_path):
    records = Records(tmp_path)
    records.write("a", record_of(tmp_path, "a"))
    record = records.read()["a"]
    assert records.is_whole(record)
    (tmp_path / "a.csv").write_text("class,x,y,z,scope\n")
    assert not records.is_whole(record)
    assert records.is_whole({key: value for key, value in record.items() if key != "files"})
