"""What picking and training reach on a GPU: one call, a table, one JSON file.

Usage: python benchmarks/gpu.py [--json FILE] [--budget 480] [--parts picking published ...]
       python benchmarks/gpu.py --device cpu --shape 48,64,72 --quick

The parts are measured in a process of their own, in the order of their importance. One that fails is reported with the
last line of its traceback; one that brings the process down, or does not end, costs only itself. When the budget is
spent no further measurement begins; what was left out is named. --quick takes tiny sizes and one repeat: it shows that
everything runs, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, Dict, Iterator, List, Tuple

PARTS = ("machine", "ceiling", "picking", "published", "equality", "post_processing", "memory_limit", "forward", "step",
         "training", "profile", "compile")
TARGETS = {"<=": lambda value, goal: value <= goal, ">=": lambda value, goal: value >= goal}
CAP_S, CAPS_S = 120.0, {"training": 400.0}  # of one part
GRACE_S = 30.0


def main() -> int:
    """Measure and print; return 0 when no part failed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--shape", default="200,512,512", metavar="Z,Y,X", help="tomogram to pick (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat")
    parser.add_argument("--budget", type=float, default=480.0, metavar="SECONDS", help="(%(default)s)")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART",
                        help="some of: " + ", ".join(PARTS))
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args, pathlib.Path(args.work[0]), float(args.work[1]))
    begin = time.time()
    result: Dict[str, Any] = {"arguments": sys.argv[1:], "budget_s": args.budget,
                              "parts": {name: {"status": "left out", "figures": []} for name in args.parts}}
    with tempfile.TemporaryDirectory(prefix="gpu_") as folder:
        supervise(args, folder, begin + args.budget, result)
    result["seconds"] = time.time() - begin
    say(summary(result))
    write(args, result)
    return int(any(part["status"] == "failed" for part in result["parts"].values()))


def supervise(args: argparse.Namespace, folder: str, deadline: float, result: Dict[str, Any]) -> None:
    """Have all parts measured; start a new process for the rest where one ends early or hangs."""
    todo = list(args.parts)
    while todo and time.time() < deadline:
        command = [sys.executable, os.path.abspath(__file__), "--device", args.device, "--shape", args.shape,
                   *["--quick"] * args.quick, "--work", folder, repr(deadline), "--parts", *todo]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                   preexec_fn=os.setpgrp)  # so that it can be ended with its children
        current, why, before = "", "", len(todo)
        for event in events(process, deadline):
            current = event["part"]
            why = event.get("stopped", why)
            if "part_status" in event:
                todo.remove(current)
            note(result["parts"][current], event)
            write(args, result)
        if todo and current not in todo and len(todo) == before and time.time() < deadline:
            current = todo[0]  # it ended before it began anything
        if current in todo:
            todo.remove(current)
            reason = why or f"the measuring process ended with status {process.returncode}"
            note(result["parts"][current], {"part": current, "part_status": "failed", "reason": reason, "seconds": 0.0})


def events(process: subprocess.Popen, deadline: float) -> Iterator[Dict[str, Any]]:
    """Yield what the measuring process says until it ends; end it when a part takes too long."""
    lines: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            if line.startswith("{"):  # a library may have something to say
                lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    current, cap = PARTS[0], deadline + GRACE_S
    try:
        while True:
            line = lines.get(timeout=max(0.1, cap - time.time()))
            if line is None:
                return
            event = json.loads(line)
            if event["part"] != current or "begins" in event:
                current = event["part"]
                cap = min(deadline + GRACE_S, time.time() + CAPS_S.get(current, CAP_S))
            yield event
    except queue.Empty:
        yield {"part": current, "stopped": "stopped, because it took too long"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stdout.close()  # type: ignore[union-attr]


def note(part: Dict[str, Any], event: Dict[str, Any]) -> None:
    """Enter an event into a part's record and print it."""
    if "begins" in event:
        part["status"] = "begun"
        say(f"\n{event['part']}")
    elif "figure" in event:
        part["figures"].append(event["figure"])
        say("  " + line_of(event["figure"]))
    elif "part_status" in event:
        part.update(status=event["part_status"], seconds=event["seconds"], reason=event.get("reason", ""))
        say(f"  {part['status']} ({part['seconds']:.1f} s) {part['reason']}".rstrip())


def line_of(figure: Dict[str, Any]) -> str:
    """Return a figure as a line of the table: median, range, number of repeats, whether the target is met, facts."""
    text = f"{figure['what']:66s}"
    if figure["values"]:
        text += (f" {figure['median']:10.4g} {figure['unit']:11s} ({figure['min']:.4g} to {figure['max']:.4g}, "
                 f"{len(figure['values'])} x)")
    if figure["target"]:
        text += f" target {figure['target']}: {'met' if figure['met'] else 'MISSED'}"
    facts = "; ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figure["facts"].items())
    return (text + ("  " + facts if facts else "")).rstrip()


def summary(result: Dict[str, Any]) -> str:
    """Return which targets were met or missed and which parts are not whole."""
    figures = [figure for part in result["parts"].values() for figure in part["figures"]]
    lines = ["\nTargets", *("  " + line_of({**f, "facts": {}}) for f in figures if f["target"])]
    lines += [f"  {name}: {part['status']} {part.get('reason', '')}".rstrip()
              for name, part in result["parts"].items() if part["status"] != "done"]
    return "\n".join([*lines, f"{result['seconds']:.0f} s of {result['budget_s']:.0f}"])


def write(args: argparse.Namespace, result: Dict[str, Any]) -> None:
    """Write what there is so far to the JSON file, whole or not at all."""
    if args.json:
        part = args.json.with_name(args.json.name + ".part")
        part.write_text(json.dumps(result, indent=1), encoding="utf-8")
        part.replace(args.json)


def work(args: argparse.Namespace, folder: pathlib.Path, deadline: float) -> int:
    """Measure parts one after the other and tell of each figure as a line of JSON; return 0."""
    from gpu_bench import Bench

    logging.basicConfig(level=logging.ERROR)
    functions = parts()
    bench = Bench(folder, args.device, tuple(int(n) for n in args.shape.split(",")), deadline, args.quick)
    for name in args.parts:
        if bench.left <= 0:
            return 0
        say(json.dumps({"part": name, "begins": True}))
        begin = time.time()
        status, reason = measure(name, functions[name], bench)
        say(json.dumps({"part": name, "part_status": status, "reason": reason, "seconds": time.time() - begin}))
        bench.wait()  # an error that broke the device ends this process here; the rest gets a new one
        bench.forget()
    return 0


def parts() -> Dict[str, Any]:
    """Return the function of each part."""
    import gpu_network as network
    import gpu_parts as plain
    import gpu_training as training

    return {"machine": plain.machine, "ceiling": network.ceiling, "picking": plain.picking,
            "published": plain.published, "equality": plain.equality, "post_processing": plain.post_processing,
            "memory_limit": plain.memory_limit, "step": training.step, "training": training.training,
            "forward": network.forward, "profile": network.profile, "compile": network.compiled}


def measure(name: str, function: Any, bench: Any) -> Tuple[str, str]:
    """Tell of the figures of one part; return its status and the reason."""
    try:
        for figure in function(bench):
            say(json.dumps({"part": name, "figure": plain_figure(figure)}, default=str))
            if bench.left <= 0:
                return "cut short", "the budget is spent"
    except Exception as error:  # whatever goes wrong in one part, the others are measured
        traceback.print_exc()
        return "failed", traceback.format_exception_only(type(error), error)[-1].strip()
    return "done", ""


def plain_figure(figure: Any) -> Dict[str, Any]:
    """Return a figure as JSON-ready values with median, min and max, and whether it meets its target."""
    values: List[float] = [float(v) for v in figure.values]
    out: Dict[str, Any] = {"what": figure.what, "unit": figure.unit, "values": values, "facts": figure.facts,
                           "target": figure.target}
    if values:
        out.update(median=statistics.median(values), min=min(values), max=max(values))
    if figure.target and values:
        sign, goal = figure.target.split()
        out["met"] = TARGETS[sign](out["median"], float(goal))
    return out


def say(text: str) -> None:
    """Write a line to the terminal at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
