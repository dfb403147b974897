"""One run shared by several processes: every item once, the result of one process, whoever writes last."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import pathlib
import queue
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from deepetpicker import pick
from deepetpicker.__main__ import main
from deepetpicker.config import NetworkOptions, PickOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import Manifest, read_manifest
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking import picker, run as pick_run, sharding
from deepetpicker.picking.sharding import RunRecord, Shard, combine

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPE = (24, 32, 40)
NAMES = ["TS_3", "TS_1", "a b", "TS_2", "last"]  # sorted by nothing
SET = {"device": "cpu", "precision": "float32", "threshold": 0.2, "tile": 32, "border": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a small untrained model and five tomograms, one of them with a warning."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    network = NetworkOptions(widths=(4, 6, 8, 10))
    card = ModelCard(network=network.to_dict(), classes=(ClassCard(1, "blob", 60.0, 5.0),), voxel_size_ang=10.0,
                     patch_vox=32, border_vox=4, label="tball", normalisation="robust", threshold=0.2, score_floor=0.1)
    save_model(folder / "m.safetensors", ResUNet3D(network), card)
    random_zyx = np.random.default_rng(0)
    for name in NAMES:
        write_volume(folder / f"{name}.mrc", random_zyx.normal(size=SHAPE).astype(np.float32), 10.0)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working folder: output folders have the same relative name in every one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(data, shard="", names=NAMES, out="picks", **values):
    """Pick in this process; return the manifest that pick returns."""
    return pick(data / "m.safetensors", [data / f"{n}.mrc" for n in names], out,
                PickOptions(**{**SET, "shard": shard, **values}), quiet=True)


def tables(out="picks"):
    """Return the bytes of every table in an output folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(out).glob("*.csv"))}


def whole(out="picks"):
    """Return manifest.json without times, and what it says of shards."""
    content = read_manifest(pathlib.Path(out, "manifest.json"))
    for key in ("started", "seconds", "argv"):
        del content[key]
    content["options"].pop("resume")
    for item in content["items"]:
        del item["seconds"]
    return content, content["outputs"].pop("shards", None)


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """Tables and manifest of a run without shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("expected"))
        run(data)
        assert whole()[1] is None
        assert not pathlib.Path("picks/shards").exists()
        assert all(len(read_coordinates(f"picks/{name}.csv")) for name in NAMES)
        return tables(), whole()[0]


def picked(monkeypatch):
    """Return a list that fills with the names of the tomograms that are picked from now on, or cannot be opened."""
    seen, original = [], pick_run.open_volume

    def opening(path, voxel_size_ang, name, quiet):
        if not quiet:  # else only planned
            seen.append(pathlib.Path(path).stem)
        return original(path, voxel_size_ang, name, quiet)

    monkeypatch.setattr(pick_run, "open_volume", opening)
    return seen


def killed(data, shard, at):
    """Run a shard that is killed when it begins with the tomogram named at."""
    original = pick_run.Picker.candidates

    def beginning(self, volume, *more, **named):
        if volume.name == at:
            raise KeyboardInterrupt
        return original(self, volume, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pick_run.Picker, "candidates", beginning)
        with pytest.raises(KeyboardInterrupt):
            run(data, shard)


# ---- which items

@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "-1/3", "1", "1/", "/3", "a/b", "1/2/3", "1.0/2", "1 2", " "])
def test_a_wrong_shard_is_refused_with_advice(text):
    with pytest.raises(InputError, match="1 <= i <= n, such as 2/4") as error:
        Shard.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(("text", "index", "count"), [("1/1", 1, 1), ("3/8", 3, 8), (" 08 / 12 ", 8, 12)])
def test_shards_are_counted_from_one(text, index, count):
    assert Shard.parse(text) == Shard(index, count)
    assert str(Shard.parse(text)) == f"{index}/{count}"


def test_every_item_is_in_exactly_one_shard():
    for length in range(12):
        for count in range(1, 15):
            parts = [Shard(index, count).choose(range(length)) for index in range(1, count + 1)]
            assert sorted(number for part in parts for number in part) == list(range(length))
            assert parts == [list(range(index, length, count)) for index in range(count)]
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_command_line_refuses_a_wrong_shard_before_anything_else(work, capsys):
    assert main(["pick", "none.safetensors", "none.mrc", "--out", "picks", "--shard", "3/1"]) == 2
    assert "got '3/1'" in capsys.readouterr().err
    assert not pathlib.Path("picks").exists()


# ---- the result

@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_together_give_what_one_run_gives(data, work, expected, count):
    order = list(range(count, 0, -1))
    for done, index in enumerate(order, start=1):
        own = run(data, f"{index}/{count}")
        assert [item["name"] for item in own["items"]] == NAMES[index - 1::count]
        assert whole()[1] == {"n": count, "done": sorted(order[:done])}
    assert tables() == expected[0]
    assert whole()[0] == expected[1]


def test_one_of_one_is_a_run_without_shards(data, work, expected):
    run(data, "1/1")
    content, shards = whole()
    assert (tables(), content["items"], shards) == (expected[0], expected[1]["items"], None)
    assert not pathlib.Path("picks/shards").exists()


def test_a_shard_without_tomograms_ends_well_and_says_so(data, work, expected, caplog):
    caplog.set_level(logging.INFO, "deepetpicker")
    assert main(["pick", str(data / "m.safetensors"), str(data / "TS_1.mrc"), "--out", "picks", "--shard", "3/3",
                 "--device", "cpu"]) == 0
    assert "shard 3/3: no tomogram, there are only 1; done so far: 1 of 3 shards (3)" in caplog.messages
    for index in range(1, 8):
        run(data, f"{index}/7")
    assert whole() == (expected[1], {"n": 7, "done": [1, 2, 3, 4, 5, 6, 7]})


def test_a_shard_reports_its_own_failures_and_no_others(data, work):
    pathlib.Path("bad.mrc").write_bytes(b"")
    words = ["pick", str(data / "m.safetensors"), "bad.mrc", str(data / "TS_1.mrc"), str(data / "TS_2.mrc"),
             "--out", "picks", "--device", "cpu", "--tile", "32", "--quiet", "--shard"]
    assert main([*words, "1/3"]) == 2
    assert main([*words, "2/3"]) == 0
    assert main([*words, "1/2"]) == 1
    assert main([*words, "2/2"]) == 0
    content, shards = whole()
    assert [item["status"] for item in content["items"]] == ["failed", "done", "done"]
    assert shards == {"n": 2, "done": [1, 2]}


def test_a_bad_start_leaves_earlier_manifests_alone(data, work):
    for index in (1, 2):
        run(data, f"{index}/2")
    before = {path: path.read_bytes() for path in pathlib.Path("picks").rglob("*.json")}
    pathlib.Path("m.safetensors").write_bytes(b"no model")
    for shard in ("", "1/2", "1/3"):
        with pytest.raises(InputError, match=r"m\.safetensors"):
            pick("m.safetensors", [data / "TS_1.mrc"], "picks", PickOptions(**{**SET, "shard": shard}), quiet=True)
    assert {path: path.read_bytes() for path in pathlib.Path("picks").rglob("*.json")} == before
    assert len(before) == 3


def test_warnings_and_inputs_come_in_the_order_of_the_items():
    def content(*names):
        return {"items": [{"name": n, "tomogram": f"./{n}.mrc"} for n in names],
                "inputs": [{"path": f"{n}.mrc", "voxel": n} for n in names if n != "c"],
                "warnings": [f"{n}: {k}" for n in names for k in (2, 1)]}

    found = combine([content("b", "d"), content("c", "a"), content("a")], ["a", "b", "c", "d"])
    assert [item["name"] for item in found["items"]] == ["a", "b", "c", "d"]
    assert [one["voxel"] for one in found["inputs"]] == ["a", "b", "d"]
    assert found["warnings"] == ["a: 2", "a: 1", "b: 2", "b: 1", "c: 2", "c: 1", "d: 2", "d: 1"]


# ---- going on

def test_a_killed_shard_goes_on_where_it_was(data, work, expected, monkeypatch):
    run(data, "2/2")
    killed(data, "1/2", "a b")
    content, shards = whole()
    assert [item["name"] for item in content["items"]] == ["TS_3", "TS_1", "TS_2"]
    assert shards == {"n": 2, "done": [2]}
    seen = picked(monkeypatch)
    run(data, "1/2", resume=True)
    assert seen == ["a b", "last"]
    assert whole() == (expected[1], {"n": 2, "done": [1, 2]})
    assert tables() == expected[0]


@pytest.mark.parametrize(("first", "names", "then"), [
    (["1/2"], NAMES, ["2/3", "1/3", "3/3"]), (["2/3", "3/3"], NAMES, ["1/2", "2/2"]), (["1/2"], NAMES, ["1/1"]),
    (["1/1"], NAMES[1:4], ["2/2", "1/2"]), (["2/4", "1/4"], NAMES, ["4/4", "3/4"])])
def test_resume_takes_over_what_was_done_with_another_number_of_shards(data, work, expected, monkeypatch, first, names,
                                                                       then):
    for shard in first:
        run(data, shard, names=names)
    done = {path.name[:-len("_candidates.csv")] for path in pathlib.Path("picks").glob("*_candidates.csv")}
    assert 2 <= len(done) <= 4
    seen = picked(monkeypatch)
    for shard in then:
        run(data, shard, resume=True)
    assert sorted(seen) == sorted(set(NAMES) - done)
    content, shards = whole()
    content["options"]["shard"] = ""
    assert content == expected[1]
    count = int(then[0][2:])
    assert shards == ({"n": count, "done": list(range(1, count + 1))} if count > 1 else None)
    left = sorted(path.name for path in pathlib.Path("picks").glob("shards/*"))
    assert left == [f"manifest_{index}_of_{count}.json" for index in range(1, count + 1) if count > 1]


def test_resume_picks_again_what_failed_or_lost_its_table(data, work, monkeypatch):
    pathlib.Path("bad.mrc").write_bytes(b"")
    tomograms = ["bad.mrc", data / "TS_1.mrc", data / "TS_2.mrc"]
    for index in (1, 2):
        pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, shard=f"{index}/2"), quiet=True)
    pathlib.Path("picks/TS_1.csv").unlink()
    seen = picked(monkeypatch)
    with pytest.raises(InputError, match="none of 1 tomogram"):
        pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, shard="1/3", resume=True), quiet=True)
    for index in (2, 3):
        pick(data / "m.safetensors", tomograms, "picks", PickOptions(**SET, shard=f"{index}/3", resume=True),
             quiet=True)
    assert seen == ["bad", "TS_1"]


@pytest.mark.parametrize("change", [{"threshold": 0.25}, {"tile": 40}, {"floor": 0.11}])
def test_shards_with_other_options_are_not_mixed_in(data, work, change, monkeypatch):
    run(data, "1/2", **change)
    run(data, "2/2")
    content, shards = whole()
    assert [item["name"] for item in content["items"]] == NAMES[1::2]
    assert shards == {"n": 2, "done": [2]}
    seen = picked(monkeypatch)
    run(data, "1/2", resume=True)
    assert seen == NAMES[::2]
    assert whole()[1] == {"n": 2, "done": [1, 2]}


def test_shards_of_another_model_or_list_are_not_mixed_in(data, work):
    run(data, "1/2")
    run(data, "2/2", names=NAMES[:4])
    assert whole()[1] == {"n": 2, "done": [2]}
    (work / "m.safetensors").write_bytes((data / "m.safetensors").read_bytes())
    network = NetworkOptions(widths=(4, 6, 8, 10))
    card = picker.load_model(data / "m.safetensors")[1]
    save_model(work / "m.safetensors", ResUNet3D(network), card)
    pick("m.safetensors", [data / f"{n}.mrc" for n in NAMES], "picks", PickOptions(**SET, shard="2/2"), quiet=True)
    assert whole()[1] == {"n": 2, "done": [2]}


def test_a_new_run_with_another_number_of_shards_forgets_the_old_one(data, work, expected, monkeypatch):
    for index in (1, 2, 3):
        run(data, f"{index}/3")
    killed(data, "1/2", "a b")
    assert [path.name for path in pathlib.Path("picks/shards").iterdir()] == ["manifest_1_of_2.json"]
    assert whole()[1] == {"n": 2, "done": []}
    seen = picked(monkeypatch)
    run(data, "2/2", resume=True)  # nothing of the old run counts any more, although its tables are there
    assert seen == NAMES[1::2]
    run(data, "1/2", resume=True)
    assert whole() == (expected[1], {"n": 2, "done": [1, 2]})


def test_a_shard_run_again_replaces_its_part_and_leaves_the_others(data, work, expected, monkeypatch):
    for index in (1, 2, 3):
        run(data, f"{index}/3")
    seen = picked(monkeypatch)
    run(data, "2/3")
    assert seen == NAMES[1::3]
    assert whole() == (expected[1], {"n": 3, "done": [1, 2, 3]})


def test_a_run_without_shards_removes_what_shards_left(data, work, expected):
    run(data, "1/3")
    run(data)
    assert not pathlib.Path("picks/shards").exists()
    assert whole() == (expected[1], None)


def test_what_else_lies_in_the_folder_of_shards_stays(data, work, expected):
    pathlib.Path("picks/shards").mkdir(parents=True)
    pathlib.Path("picks/shards/manifest_9_of_9.json").write_text("{half", encoding="utf-8")
    for name in ("notes.txt", "manifest_a_of_b.json"):
        pathlib.Path("picks/shards", name).write_text("mine", encoding="utf-8")
    run(data, resume=True)
    assert sorted(path.name for path in pathlib.Path("picks/shards").iterdir()) == ["manifest_a_of_b.json", "notes.txt"]
    assert whole() == (expected[1], None)


# ---- at the same time

def test_two_processes_at_the_same_time(data, work, expected):
    words = [sys.executable, "-m", "deepetpicker", "pick", str(data / "m.safetensors"),
             *(str(data / f"{n}.mrc") for n in NAMES), "--out", "picks", "--device", "cpu", "--precision", "float32",
             "--threshold", "0.2", "--tile", "32", "--border", "4", "--shard"]
    both = [subprocess.Popen([*words, f"{index}/2"], stderr=subprocess.PIPE, text=True) for index in (1, 2)]
    messages = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert tables() == expected[0]
    assert whole() == (expected[1], {"n": 2, "done": [1, 2]})
    assert sum("done so far: 2 of 2 shards (1, 2)" in text for text in messages) >= 1


class SharedFolder:
    """Files in memory; each access waits for its turn, so that any interleaving of processes can be played."""

    def __init__(self, monkeypatch):
        self.files, self.mine = {}, threading.local()
        monkeypatch.setattr(sharding, "write_content", self.write)
        monkeypatch.setattr(sharding, "read_manifest", self.read)

    def write(self, path, content):
        self.turn("write", path)
        self.files[pathlib.Path(path).name] = json.dumps(content)

    def read(self, path):
        self.turn("read", path)
        if pathlib.Path(path).name not in self.files:
            raise InputError("missing")
        return json.loads(self.files[pathlib.Path(path).name])

    def turn(self, what, path):
        """Wait until the schedule says that this thread goes on."""
        self.mine.wait((what, pathlib.Path(path).name))

    def play(self, processes, choose):
        """Run functions as if at the same time.

        Before each access choose gets {number of the process: what it waits for} and returns the number of the next.
        """
        arrivals, gates = queue.Queue(), [threading.Semaphore(0) for _ in processes]

        def body(number):
            self.mine.wait = lambda access: (arrivals.put((number, access)), gates[number].acquire(timeout=60))
            try:
                processes[number]()
            finally:
                arrivals.put((number, None))

        with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
            futures = [pool.submit(body, number) for number in range(len(processes))]
            waiting = dict(arrivals.get(timeout=60) for _ in processes)
            while any(waiting.values()):
                number = choose({number: access for number, access in sorted(waiting.items()) if access})
                gates[number].release()
                waiting.update([arrivals.get(timeout=60)])
            return [future.result() for future in futures]


def record_of(folder, index, count, names):
    """Return manifest and record of a shard that has no items yet."""
    manifest = Manifest("pick", {"shard": f"{index}/{count}", "resume": False, "threshold": 0.5}, argv=[])
    manifest.outputs["model_sha256"] = "abc"
    return manifest, RunRecord(folder, manifest, names, Shard(index, count))


def shard_process(*args):
    """Return a function that does what a shard does, without picking."""
    def process():
        manifest, record = record_of(*args)
        record.begin(resume=False)
        for name in Shard(*args[1:3]).choose(args[3]):
            manifest.add_item(name, "done", tomogram=f"{name}.mrc")
            record.write()
        record.end()

    return process


def last_write(*args):
    """Return a function that does what a shard does after its last item: the moment that decides."""
    manifest, record = record_of(*args)
    for name in Shard(*args[1:3]).choose(args[3]):
        manifest.add_item(name, "done", tomogram=f"{name}.mrc")
    return record.write


def is_whole(folder, names, count):
    """Return whether manifest.json in a folder lists every item in order and every shard as done."""
    content = json.loads(folder.files["manifest.json"])
    return ([item["name"] for item in content["items"]] == names
            and content["outputs"]["shards"] == {"n": count, "done": list(range(1, count + 1))})


class Schedules:
    """Goes through every choice that can be made, one whole play after the other."""

    def __init__(self):
        self.trail, self.at = [], 0

    def __iter__(self):
        while True:
            self.at = 0
            yield self.choose
            while self.trail and self.trail[-1][0] == self.trail[-1][1] - 1:
                self.trail.pop()
            if not self.trail:
                return
            self.trail[-1][0] += 1

    def choose(self, waiting):
        if self.at == len(self.trail):
            self.trail.append([0, len(waiting)])
        self.at += 1
        return list(waiting)[self.trail[self.at - 1][0]]


def test_whoever_writes_last_the_manifest_is_whole(tmp_path, monkeypatch):
    names, plays = ["a", "b"], 0
    folder = SharedFolder(monkeypatch)
    for choose in Schedules():
        folder.files.clear()
        folder.play([last_write(tmp_path, index, 2, names) for index in (1, 2)], choose)
        assert is_whole(folder, names, 2), plays
        plays += 1
    assert plays > 200


@pytest.mark.parametrize("seed", range(40))
def test_three_shards_in_any_order_end_with_a_whole_manifest(tmp_path, monkeypatch, seed):
    names = ["c", "a", "b", "e", "d"]
    folder = SharedFolder(monkeypatch)
    rng = random.Random(seed)
    pace = [rng.random() + 0.02 for _ in range(3)]
    folder.play([shard_process(tmp_path, index, 3, names) for index in (1, 2, 3)],
                lambda waiting: rng.choices(list(waiting), [pace[number] for number in waiting])[0])
    assert is_whole(folder, names, 3)


def test_a_shard_that_sleeps_over_the_end_of_the_others_mends_what_it_writes(tmp_path, monkeypatch):
    names = ["a", "b", "c", "d"]
    folder = SharedFolder(monkeypatch)
    seen = []

    def choose(waiting):
        """Run shard 1 up to its manifest.json, then the others to their ends, then shard 1 again."""
        seen.append((sorted(waiting), "manifest.json" in folder.files and is_whole(folder, names, 3)))
        return max(waiting) if waiting[0] == ("write", "manifest.json") else 0

    folder.play([last_write(tmp_path, 1, 3, names), *(shard_process(tmp_path, n, 3, names) for n in (2, 3))], choose)
    alone = [is_it for left, is_it in seen if left == [0]]
    assert alone[:2] == [True, False]  # the others had finished it, and shard 1 writes what it knew before
    assert is_whole(folder, names, 3)
