"""The measuring scripts run, without a GPU and on tiny sizes, and say what they did not measure."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from deepetpicker.annotation.session import Session
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, read_coordinates, write_coordinates
from deepetpicker.io.volumes import write_volume

SCRIPTS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPTS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.parametrize("parts", [pytest.param(("machine", "post_processing"), id="some"),
                                   pytest.param((), id="all", marks=pytest.mark.slow)])
def test_parts_of_the_gpu_benchmark_run_on_a_cpu(gpu, tmp_path, parts):
    out = tmp_path / "gpu.json"
    done = subprocess.run([sys.executable, SCRIPTS / "gpu.py", "--device", "cpu", "--shape", "24,32,40", "--quick",
                           "--json", out, *(["--parts", *parts] if parts else [])], capture_output=True, text=True)
    result = json.loads(out.read_text())
    reasons = {name: part.get("reason") for name, part in result["parts"].items() if part["status"] != "done"}
    assert reasons == {}, done.stderr[-2000:]
    assert done.returncode == 0
    assert tuple(result["parts"]) == (parts or gpu.PARTS)
    for part in result["parts"].values():
        assert part["figures"]
        for figure in part["figures"]:
            assert all(figure["min"] <= v <= figure["max"] for v in figure["values"])
            assert figure["what"].strip() in done.stdout
    if parts:
        return
    (whole,) = [f for f in result["parts"]["training"]["figures"] if f["what"].startswith("train,")]
    assert whole["facts"]["epochs_measured"] == 2
    assert [f["median"] for f in result["parts"]["equality"]["figures"][1:]] == [100, 100]


def test_an_error_is_reported_and_what_was_measured_before_it_stays(gpu, capsys):
    class Bench:
        left = 1.0

    def breaks(bench):
        yield argparse.Namespace(what="first", unit="s", values=[3, 1, 2], facts={}, target="<= 1.5")
        raise ValueError("no such kernel")

    assert gpu.measure("picking", breaks, Bench()) == ("failed", "ValueError: no such kernel")
    figure = json.loads(capsys.readouterr().out)["figure"]
    assert (figure["median"], figure["min"], figure["max"], figure["met"]) == (2, 1, 3, False)


def supervised(gpu, tmp_path, monkeypatch, code, seconds=60.0):
    """Return the parts' records after a measuring process of the given code."""
    script = tmp_path / "work.py"
    script.write_text("import json, os, sys, time\n" + code)
    monkeypatch.setattr(gpu, "__file__", str(script))
    names = ["machine", "ceiling", "picking"]
    args = argparse.Namespace(device="cpu", shape="1,1,1", quick=True, json=None, parts=names)
    result = {"parts": {name: {"status": "left out", "figures": []} for name in names}, "seconds": 1, "budget_s": 1}
    gpu.supervise(args, str(tmp_path), time.time() + seconds, result)
    return result


LOOP = """
for part in sys.argv[sys.argv.index("--parts") + 1:]:
    print(json.dumps({"part": part, "begins": True}), flush=True)
    if part == "ceiling":
        %s
    print(json.dumps({"part": part, "part_status": "done", "seconds": 0.1}), flush=True)
"""


@pytest.mark.parametrize(("crash", "reason"), [("os._exit(3)", "status 3"), ("time.sleep(60)", "too long")])
def test_a_part_that_ends_the_process_or_hangs_costs_only_itself(gpu, tmp_path, monkeypatch, crash, reason):
    monkeypatch.setitem(gpu.CAPS_S, "ceiling", 0.5)
    parts = supervised(gpu, tmp_path, monkeypatch, LOOP % crash)["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "machine": "done", "ceiling": "failed", "picking": "done"}
    assert reason in parts["ceiling"]["reason"]


def test_a_process_that_ends_between_two_parts_costs_none(gpu, tmp_path, monkeypatch):
    code = LOOP % "pass" + "    if part == 'ceiling':\n        os._exit(1)\n"
    parts = supervised(gpu, tmp_path, monkeypatch, code)["parts"]
    assert [part["status"] for part in parts.values()] == ["done"] * 3


def test_what_the_budget_left_out_is_named(gpu, tmp_path, monkeypatch):
    result = supervised(gpu, tmp_path, monkeypatch, LOOP % "pass", seconds=-1.0)
    assert "picking: left out" in gpu.summary(result)


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("loop_benchmark", SCRIPTS / "loop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_simulated_annotator_answers_as_the_truth_says(loop, tmp_path):
    classes = [ParticleClass(1, "ring", 200.0), ParticleClass(2, "rod", 200.0)]
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.mrc", np.zeros((24, 80, 96), np.int8), 10.0)
        grid = np.stack(np.meshgrid([12.0], [15.0, 45], [15.0, 45, 75], indexing="ij"), -1).reshape(-1, 3)
        write_coordinates(tmp_path / f"{name}.csv", CoordinateTable(grid, np.array([1, 2, 1, 2, 1, 2]), np.ones(6)))
    items = loop.items_from_folder(tmp_path)
    args = argparse.Namespace(voxel_size=10.0, hand=0.5, seen=0.5)
    annotator = loop.Annotator(items, classes, args, seed=0)
    made = dict(loop.labels("random", [4, 10, 99], annotator, tmp_path / "out"))
    assert {n: (few.particles, few.negatives) for n, few in made.items()} == {4: (4, 0), 10: (10, 0), 99: (12, 0)}
    tables = [read_coordinates(pathlib.Path(made[99].folder) / f"{name}.csv") for name in "ab"]
    for table in tables:
        assert sorted(table.class_ids) == [1, 1, 1, 2, 2, 2]
        away = np.linalg.norm(table.positions_zyx_vox[:, None] - annotator.truth["a"].positions_zyx_vox, axis=2).min(1)
        assert 0 < away.max() < 3  # a hand, and no two at one place
    first = np.concatenate([read_coordinates(path).class_ids for path in pathlib.Path(made[4].folder).glob("?.csv")])
    assert sorted(first) == [1, 1, 2, 2]  # shared out among the classes

    with Session(tmp_path / "asked") as session:
        annotator.begin(session)
        annotator.answer(session, "a", (12.0, 18.0, 44.0))  # 3 voxels from a rod: accepted as that, at its centre
        annotator.answer(session, "a", (12.0, 30.0, 60.0))
        (particle,) = session.particles("a").values()
        assert (particle.class_id, len(session.negatives("a"))) == (2, 1)
        assert np.linalg.norm(np.subtract(particle.position_zyx_vox, (12, 15, 45))) < 2


def test_figures_of_several_runs_become_one_table(loop, tmp_path):
    for way, n, seed, f1 in (("random", 10, 0, 0.6), ("random", 10, 1, 0.7), ("all", 80, 0, 0.8)):
        (tmp_path / f"{way}_{n}_{seed}.json").write_text(json.dumps(
            {"way": way, "answers": n, "seed": seed, "particles": n, "negatives": 0, "F1": f1, "train_cpu_s": 30}))
    one, whole = loop.table(tmp_path).splitlines()
    assert "F1 0.650 (lowest 0.600, 2 seeds), 0.81 of that with all labels" in one
    assert "80 particles" in whole
