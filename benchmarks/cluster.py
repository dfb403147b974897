"""Many small tomograms on workers of dask: seconds, whether the tables are those of one process, also after a kill.

``python benchmarks/cluster.py [--tomograms 100] [--kinds local,slurm]`` prints the table of docs/clusters.rst. SLURM is
started for it on this machine (tests/slurm.py says what that needs); without it those rows are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Dict, Iterator, List, Sequence

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "engine"), str(ROOT)]

from deepetpicker.config import NetworkOptions  # noqa: E402
from deepetpicker.io.manifest import read_manifest  # noqa: E402
from deepetpicker.io.modelcard import ClassCard, ModelCard  # noqa: E402
from deepetpicker.io.volumes import write_volume  # noqa: E402
from deepetpicker.network.modelfile import save_model  # noqa: E402
from deepetpicker.network.resunet import ResUNet3D  # noqa: E402
from tests.slurm import missing, slurm  # noqa: E402

SHAPE_ZYX, VOXEL_ANG = (24, 40, 48), 10.0


def make(folder: pathlib.Path, count: int) -> None:
    """Write an untrained model and tomograms of noise."""
    torch.manual_seed(0)
    network = NetworkOptions(widths=(4, 6, 8))
    card = ModelCard(network=network.to_dict(), classes=(ClassCard(1, "blob", 60.0, 5.0),), voxel_size_ang=VOXEL_ANG,
                     patch_vox=32, border_vox=4, label="tball", normalisation="robust", threshold=0.1, score_floor=0.1)
    save_model(folder / "model.safetensors", ResUNet3D(network), card)
    for n in range(count):
        grey = np.random.default_rng(n).normal(size=SHAPE_ZYX).astype(np.float32)
        write_volume(folder / f"tomo {n:03d}.mrc", grey, VOXEL_ANG)


def pick(data: pathlib.Path, out: pathlib.Path, words: Sequence[str], environment: Dict[str, str], kill_at: int = 0
         ) -> float:
    """Pick all tomograms of a folder; return the seconds it took.

    Parameters
    ----------
    data, out : path
        Folder with model and tomograms, and output folder.
    words : sequence of str
        More options.
    environment : dict
        Of the command.
    kill_at : int
        After so many tomograms a worker is killed (SIGKILL); 0 kills none.
    """
    arguments = [sys.executable, "-m", "deepetpicker", "pick", str(data / "model.safetensors"), str(data), "--out",
                 str(out), "--device", "cpu", "--quiet", *words]
    begin = time.perf_counter()
    with open(out.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(arguments, env=environment, stderr=log)
        if kill_at:
            threading.Thread(target=kill_a_worker, args=(process, environment, out, kill_at), daemon=True).start()
        process.wait()
    seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(out.with_suffix(".log").read_text("utf-8", "replace"))
    return seconds


def kill_a_worker(process: subprocess.Popen, environment: Dict[str, str], out: pathlib.Path, at: int) -> None:
    """Kill a worker of a run when so many tomograms are done."""
    while process.poll() is None:
        if len(list((out / "records").glob("*.json"))) >= at:
            victim = workers_of(process.pid, environment.get("SLURM_CONF", ""))[0]
            os.kill(victim, signal.SIGKILL)
            out.with_suffix(".killed").write_text(str(victim))
            return
        time.sleep(0.05)


def workers_of(pid: int, configuration: str) -> List[int]:
    """Return the processes that pick for a run: below it, or in the jobs of the SLURM of a configuration file."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_worker = "multiprocessing.spawn" in " ".join(process.cmdline())
            seen = process.environ() if is_worker else {}
            in_job = "SLURM_JOB_ID" in seen and seen.get("SLURM_CONF") == configuration
            if is_worker and (in_job or pid in {parent.pid for parent in process.parents()}):
                found.append(process.pid)
    return found


def tables(out: pathlib.Path) -> Dict[str, bytes]:
    """Return the bytes of all tables of a run."""
    assert read_manifest(out / "manifest.json")["outputs"]["missing"] == []
    return {path.name: path.read_bytes() for path in out.glob("*.csv")}


@contextlib.contextmanager
def environment_of(kind: str) -> Iterator[Dict[str, str]]:
    """Yield the environment of the command for a kind of cluster."""
    paths = os.pathsep.join([str(ROOT / "engine"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    if kind != "slurm":
        yield own
        return
    with slurm() as environment:
        yield {**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tomograms", type=int, default=100)
    parser.add_argument("--kinds", default="local,slurm")
    args = parser.parse_args()
    kinds = [kind for kind in args.kinds.split(",") if kind != "slurm" or not missing()]
    print(f"{args.tomograms} tomograms of {' x '.join(map(str, SHAPE_ZYX))} voxels, {os.cpu_count()} cores, one thread "
          "for each process")
    print(f"{'who picks':14s} {'workers':>7s} {'killed':>6s} {'seconds':>8s}  tables")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "data").mkdir()
        make(folder / "data", args.tomograms)
        with environment_of("") as environment:
            seconds = pick(folder / "data", folder / "alone", [], environment)
        expected = tables(folder / "alone")
        print(f"{'one process':14s} {'':>7s} {'':>6s} {seconds:8.1f}  {len(expected)}", flush=True)
        for kind in kinds:
            with environment_of(kind) as environment:
                for workers, kill_at in ((1, 0), (2, 0), (2, args.tomograms // 3)):
                    out = folder / f"{kind}{workers}{kill_at}"
                    words = ["--cluster", kind, "--workers", str(workers), "--threads", "1", "--worker-memory", "1"]
                    seconds = pick(folder / "data", out, words, environment, kill_at)
                    killed = int(out.with_suffix(".killed").is_file())
                    same = "the same bytes" if tables(out) == expected else "DIFFERENT"
                    print(f"{kind:14s} {workers:7d} {killed:6d} {seconds:8.1f}  {same}", flush=True)


if __name__ == "__main__":
    main()
