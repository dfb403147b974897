"""Runs that share an output folder: by several processes, one after the other, killed, resumed, with other files."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from deepetpicker import pick
from deepetpicker.__main__ import main
from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.picking.run import shard_of
from tests.detectors import write_detector
from tests.moments import SCANS, heard, interrupted_at

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPE = (24, 32, 40)
NAMES = ["TS_3", "TS_1", "a b", "TS_2", "last"]  # sorted by nothing
SET = {"device": "cpu", "precision": "float32", "threshold": 0.2, "tile": 32, "border": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a model that takes bumps of noise for particles, and five tomograms."""
    folder = tmp_path_factory.mktemp("data")
    write_detector(folder / "m.safetensors", ClassCard(1, "blob", 60.0, 5.0), gain=25.0, patch_vox=32, border_vox=4,
                   threshold=0.2)
    random_zyx = np.random.default_rng(0)
    for name in NAMES:
        write_volume(folder / f"{name}.mrc", random_zyx.normal(size=SHAPE).astype(np.float32), 10.0)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch, caplog):
    """An empty working folder: output folders have the same relative name in every one. All messages are kept."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "deepetpicker")
    return tmp_path


def run(data, shard="", names=NAMES, out="picks", **values):
    """Pick in this process; return the manifest that pick returns."""
    return pick(data / "m.safetensors", [data / f"{n}.mrc" for n in names], out,
                PickOptions(**{**SET, "shard": shard, **values}), quiet=True)


def tables(out="picks"):
    """Return the bytes of every table in an output folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(out).glob("*.csv"))}


def whole(out="picks"):
    """Return manifest.json without times, and the names that it says are missing."""
    content = read_manifest(pathlib.Path(out, "manifest.json"))
    for key in ("started", "seconds", "argv", "directory"):
        del content[key]
    content["options"].pop("resume")
    content["outputs"].pop("device", None)  # of what was computed; a run that finds all done computes nothing
    for item in content["items"]:
        del item["seconds"]
    return content, content["outputs"].pop("missing")


def listed(out="picks"):
    """Return the names that manifest.json lists, by status."""
    items = whole(out)[0]["items"]
    return {status: [i["name"] for i in items if i["status"] == status] for status in {i["status"] for i in items}}


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """Tables and manifest of a run without shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("expected"))
        run(data)
        assert whole()[1] == []
        assert all(len(read_coordinates(f"picks/{name}.csv")) for name in NAMES)
        return tables(), whole()[0]


def picked(caplog):
    """Return the names of the tomograms that were picked since the log was cleared, or could not be opened."""
    return [text.partition(": ")[0] for text in caplog.messages if SCANS in text or ": failed: " in text]


def killed(data, shard, at):
    """Run a shard that is killed when it begins with the tomogram named at."""
    with interrupted_at(f"{at}: ", SCANS), pytest.raises(KeyboardInterrupt):
        run(data, shard)


# ---- which items

@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "-1/3", "1", "1/", "/3", "a/b", "1/2/3", "1.0/2", "1 2", " "])
def test_a_wrong_shard_is_refused_with_advice(text):
    with pytest.raises(InputError, match="1 <= i <= n, such as 2/4") as error:
        shard_of([], text)
    assert repr(text) in str(error.value)


def test_every_item_is_in_exactly_one_shard():
    assert shard_of(range(3), "") == [0, 1, 2]
    assert shard_of(range(9), " 02 / 4 ") == [1, 5]  # counted from one
    for length in range(12):
        for count in range(1, 15):
            parts = [shard_of(range(length), f"{index}/{count}") for index in range(1, count + 1)]
            assert sorted(number for part in parts for number in part) == list(range(length))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_command_line_refuses_a_wrong_shard_before_anything_else(work, capsys):
    assert main(["pick", "none.safetensors", "none.mrc", "--out", "picks", "--shard", "3/1"]) == 2
    assert "got '3/1'" in capsys.readouterr().err
    assert not pathlib.Path("picks").exists()


# ---- the result

@pytest.mark.long
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_together_give_what_one_run_gives(data, work, expected, count):
    for index in range(count, 0, -1):
        own = run(data, f"{index}/{count}")
        assert [item["name"] for item in own["items"]] == NAMES[index - 1::count]
        assert set(whole()[1]) == {n for i in range(1, index) for n in NAMES[i - 1::count]}
    assert tables() == expected[0]
    assert whole() == (expected[1], [])


def test_a_shard_without_tomograms_ends_well_and_says_so(data, work, caplog):
    caplog.set_level(logging.INFO, "deepetpicker")
    assert main(["pick", str(data / "m.safetensors"), str(data / "TS_1.mrc"), "--out", "picks", "--shard", "3/3",
                 "--device", "cpu"]) == 0
    assert "shard 3/3: no tomogram, there are only 1; still missing: TS_1" in caplog.messages


def test_a_shard_reports_its_own_failures_and_no_others(data, work):
    pathlib.Path("bad.mrc").write_bytes(b"")
    words = ["pick", str(data / "m.safetensors"), "bad.mrc", str(data / "TS_1.mrc"), str(data / "TS_2.mrc"),
             "--out", "picks", "--device", "cpu", "--tile", "32", "--quiet", "--shard"]
    assert main([*words, "1/3"]) == 2
    assert main([*words, "2/3"]) == 0
    assert main([*words, "1/2"]) == 1
    assert listed() == {"failed": ["bad"], "done": ["TS_1", "TS_2"]}


def test_a_bad_start_leaves_earlier_results_alone(data, work):
    run(data, names=NAMES[:2])
    before = {path: path.read_bytes() for path in pathlib.Path("picks").rglob("*") if path.is_file()}
    pathlib.Path("m.safetensors").write_bytes(b"no model")
    for shard in ("", "1/2"):
        with pytest.raises(InputError, match=r"m\.safetensors"):
            pick("m.safetensors", [data / "TS_1.mrc"], "picks", PickOptions(**{**SET, "shard": shard}), quiet=True)
    assert {path: path.read_bytes() for path in pathlib.Path("picks").rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_two_processes_at_the_same_time(data, work, expected):
    words = [sys.executable, "-m", "deepetpicker", "pick", str(data / "m.safetensors"),
             *(str(data / f"{n}.mrc") for n in NAMES), "--out", "picks", "--device", "cpu", "--precision", "float32",
             "--threshold", "0.2", "--tile", "32", "--border", "4", "--shard"]
    both = [subprocess.Popen([*words, f"{index}/2"], stderr=subprocess.PIPE, text=True) for index in (1, 2)]
    messages = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert (tables(), whole()) == (expected[0], (expected[1], []))


# ---- one folder, several runs

def of_the_run(content):
    """Return the warnings of a manifest but for doubts about the picks themselves, whose network is a toy."""
    return [text for text in content["warnings"] if ": doubtful: " not in text]


def test_another_tomogram_joins_those_that_were_picked_before(data, work):
    run(data, names=["TS_1", "TS_2"])
    own = run(data, names=["TS_3"])
    assert [item["name"] for item in own["items"]] == ["TS_3"]
    content, missing = whole()
    assert [item["name"] for item in content["items"]] == ["TS_3", "TS_1", "TS_2"]
    assert [pathlib.Path(one["path"]).stem for one in content["inputs"]] == ["TS_3", "TS_1", "TS_2"]
    assert (of_the_run(content), missing) == ([], [])


def test_picks_made_with_other_options_are_listed_and_told_apart(data, work):
    run(data, "1/2", names=NAMES[:2], threshold=0.25)
    run(data, "2/2", names=NAMES[:2])
    content, missing = whole()
    assert [(item["name"], item["threshold"]) for item in content["items"]] == [("TS_3", 0.25), ("TS_1", 0.2)]
    assert of_the_run(content) == ["TS_3: picked with threshold 0.25 instead of 0.2"]
    assert missing == ["TS_3"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_tomogram_that_fails_on_a_second_run_keeps_no_table_under_its_name(data, work, caplog, resume):
    shutil.copy(data / "TS_1.mrc", "TS_1.mrc")
    tomograms = ["TS_1.mrc", data / "TS_2.mrc"]
    pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, save_map=True), quiet=True)
    before = tables()
    pathlib.Path("TS_1.mrc").write_bytes(b"cut")
    pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, save_map=True, resume=resume), quiet=True)
    assert set(tables()) == {"TS_2.csv", "TS_2_candidates.csv"}
    assert not pathlib.Path("picks/TS_1_probability_1.mrc").exists()
    assert {name: before[name] for name in tables("picks/earlier")} == tables("picks/earlier")
    assert listed() == {"failed": ["TS_1"], "done": ["TS_2"]}
    said = "TS_1: failed this time; what an earlier run found is now in earlier/ (TS_1_candidates.csv, TS_1.csv, " \
           "TS_1_probability_1.mrc)"
    assert said in caplog.messages
    assert said in whole()[0]["warnings"]


def test_a_table_that_is_not_ours_is_left_alone(data, work):
    pathlib.Path("bad.mrc").write_bytes(b"")
    pathlib.Path("bad.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    with pytest.raises(InputError, match="none of 1"):
        pick(data / "m.safetensors", ["bad.mrc"], ".", PickOptions(**SET), quiet=True)
    assert pathlib.Path("bad.csv").read_text(encoding="utf-8") == "x,y,z\n1,2,3\n"


# ---- going on

@pytest.mark.long
def test_a_killed_process_loses_its_current_tomogram_alone(data, work, expected, caplog):
    run(data, "2/2")
    killed(data, "1/2", "a b")
    assert listed() == {"done": ["TS_3", "TS_1", "TS_2"]}
    assert whole()[1] == ["a b", "last"]
    caplog.clear()
    run(data, "1/2", resume=True)
    assert picked(caplog) == ["a b", "last"]
    assert (tables(), whole()) == (expected[0], (expected[1], []))


@pytest.mark.long
@pytest.mark.parametrize(("first", "names", "then"), [
    (["1/2"], NAMES, ["2/3", "1/3", "3/3"]), (["1/2"], NAMES, ["1/1"]), (["1/1"], NAMES[1:4], ["2/2", "1/2"])])
def test_resume_takes_over_what_was_done_with_another_number_of_shards(data, work, expected, caplog, first, names,
                                                                       then):
    for shard in first:
        run(data, shard, names=names)
    done = set(listed()["done"])
    assert 2 <= len(done) <= 4
    caplog.clear()
    for shard in then:
        run(data, shard, resume=True)
    assert sorted(picked(caplog)) == sorted(set(NAMES) - done)
    assert (tables(), whole()) == (expected[0], (expected[1], []))


def test_resume_picks_again_what_failed_or_lost_its_table(data, work, caplog):
    pathlib.Path("bad.mrc").write_bytes(b"")
    tomograms = ["bad.mrc", data / "TS_1.mrc", data / "TS_2.mrc"]
    pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET), quiet=True)
    pathlib.Path("picks/TS_1.csv").unlink()
    caplog.clear()
    pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, resume=True), quiet=True)
    assert picked(caplog) == ["bad", "TS_1"]


def test_a_manifest_that_takes_long_to_write_is_written_rarely_and_is_complete_in_the_end(data, work, monkeypatch):
    real, written = os.replace, []

    def slowly(source, target):
        if pathlib.Path(target).name == "manifest.json":
            time.sleep(0.3)
            written.append(len(json.loads(pathlib.Path(source).read_text("utf-8"))["items"]))
        real(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    run(data)
    assert written[0] == 0
    assert written[-1] == len(NAMES)
    assert len(written) <= 4
    assert listed() == {"done": NAMES}


def test_what_is_left_is_said_after_each_tomogram_but_the_last(data, work, caplog):
    with caplog.at_level(logging.INFO, "deepetpicker"):
        run(data, names=NAMES[:3])
    said = [message for message in caplog.messages if "tomograms done" in message]
    assert [text.partition(", about")[0] for text in said] == ["1 of 3 tomograms done", "2 of 3 tomograms done"]
    assert all(text.endswith(" left") for text in said)


@pytest.mark.parametrize("damage", ["TS_1.csv", "TS_1_candidates.csv", "records/TS_1.json"])
def test_resume_picks_again_where_a_table_or_a_record_is_damaged(data, work, caplog, damage):
    run(data, names=["TS_1", "TS_2"])
    before, path = tables(), pathlib.Path("picks", damage)
    text = path.read_text()
    path.write_text(text.replace("0", "1") if damage.endswith(".csv") else text.replace('"n_picks": ', '"n_picks": 1'))
    caplog.clear()
    run(data, names=["TS_1", "TS_2"], resume=True)
    assert picked(caplog) == ["TS_1"]
    assert tables() == before


def test_a_tomogram_that_is_changed_while_it_is_picked_is_not_picked_by_halves(data, work):
    shutil.copy(data / "TS_1.mrc", "A.mrc")

    def change(text):
        if SCANS in text:  # once it is open
            shutil.copy(data / "TS_2.mrc", "A.mrc")

    said = r"A.mrc .* was changed while it was picked: wait until it is complete"
    with heard(change), pytest.raises(InputError, match=said):
        pick(data / "m.safetensors", ["A.mrc"], "picks", PickOptions(**SET), quiet=True)
    assert tables() == {}


@pytest.mark.parametrize("change", ["another file of the name", "touched", "voxel size", "mask", "the mask's content",
                                    "threshold", "nothing"])
def test_resume_picks_again_when_what_picks_depend_on_changed(data, work, caplog, change):
    for folder in ("raw", "denoised"):
        pathlib.Path(folder).mkdir()
        shutil.copy(data / f"{'TS_1' if folder == 'raw' else 'TS_2'}.mrc", f"{folder}/A.mrc")
    for name in ("mask", "other"):
        write_volume(f"{name}.mrc", np.full(SHAPE, name == "mask", np.int8), 10.0)
    item, options = {"tomogram": "raw/A.mrc", "mask": "mask.mrc", "voxel_size": 10.0}, dict(SET)
    pick(data / "m.safetensors", out="picks", options=PickOptions(**options), params={"items": [item]}, quiet=True)
    if change == "touched":
        os.utime("raw/A.mrc", ns=(1, 1))
    elif change == "the mask's content":
        shutil.copy("other.mrc", "mask.mrc")
    elif change == "threshold":
        options["threshold"] = 0.25
    else:
        item.update({"another file of the name": {"tomogram": "denoised/A.mrc"}, "voxel size": {"voxel_size": 10.5},
                     "mask": {"mask": "other.mrc"}}.get(change, {}))
    caplog.clear()
    pick(data / "m.safetensors", out="picks", options=PickOptions(**options, resume=True), params={"items": [item]},
         quiet=True)
    assert picked(caplog) == ([] if change == "nothing" else ["A"])


def test_the_working_directory_does_not_matter(data, work, monkeypatch, caplog):
    shutil.copy(data / "TS_1.mrc", "TS_1.mrc")
    pathlib.Path("deep/down").mkdir(parents=True)
    pick(data / "m.safetensors", ["TS_1.mrc"], "picks", PickOptions(**SET), quiet=True)
    monkeypatch.chdir("deep/down")
    item = read_manifest("../../picks/manifest.json")["items"][0]
    assert len(read_coordinates(item["picks"])) == item["n_picks"]
    caplog.clear()
    pick(data / "m.safetensors", [work / "TS_1.mrc"], work / "picks", PickOptions(**SET, resume=True), quiet=True)
    assert picked(caplog) == []
    assert len(read_coordinates(read_manifest(work / "picks/manifest.json")["items"][0]["picks"])) == item["n_picks"]
    shutil.move(work / "picks", work / "elsewhere")
    assert pathlib.Path(read_manifest(work / "elsewhere/manifest.json")["items"][0]["candidates"]).is_file()
