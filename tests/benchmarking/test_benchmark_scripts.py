"""The measuring scripts run, without a GPU and on tiny sizes, and say what they did not measure."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPTS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_every_part_of_the_gpu_benchmark_runs_on_a_cpu(gpu, tmp_path):
    out = tmp_path / "gpu.json"
    done = subprocess.run([sys.executable, SCRIPTS / "gpu.py", "--device", "cpu", "--shape", "24,32,40", "--quick",
                           "--json", out], capture_output=True, text=True)
    result = json.loads(out.read_text())
    reasons = {name: part.get("reason") for name, part in result["parts"].items() if part["status"] != "done"}
    assert reasons == {}, done.stderr[-2000:]
    assert done.returncode == 0
    assert tuple(result["parts"]) == gpu.PARTS
    for part in result["parts"].values():
        assert part["figures"]
        for figure in part["figures"]:
            assert all(figure["min"] <= v <= figure["max"] for v in figure["values"])
            assert figure["what"].strip() in done.stdout
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
