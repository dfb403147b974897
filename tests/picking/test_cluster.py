"""Picking on workers of dask: the tables of one process, also when workers die; what is refused or missing."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from deepetpicker import pick
from deepetpicker.__main__ import main
from deepetpicker.config import ClusterOptions, NetworkOptions, PickOptions
from deepetpicker.errors import InputError
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.cluster import workers as cluster_workers
from tests.moments import heard
from tests.slurm import missing, slurm

distributed = pytest.importorskip("distributed", reason="needs the extra cluster")
dask = pytest.importorskip("dask")
ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ["TS_2", "a b", "it's $HOME;ls \"x\"", "caf\u00e9"]
SET = {"device": "cpu", "precision": "float32", "threshold": 0.2, "tile": 32, "border": 4}
WORDS = [word for key, value in SET.items() for word in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of an odd name with a small untrained model and four tomograms."""
    folder = tmp_path_factory.mktemp("it's $PWD; data")
    torch.manual_seed(0)
    network = NetworkOptions(widths=(4, 6))
    card = ModelCard(network=network.to_dict(), classes=(ClassCard(1, "blob", 60.0, 5.0),), voxel_size_ang=10.0,
                     patch_vox=32, border_vox=4, label="tball", normalisation="robust", threshold=0.2, score_floor=0.1)
    save_model(folder / "m.safetensors", ResUNet3D(network), card)
    random_zyx = np.random.default_rng(0)
    for name in NAMES:
        write_volume(folder / f"{name}.mrc", random_zyx.normal(size=(24, 32, 40)).astype(np.float32), 10.0)
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(data, folder)
    assert all((folder / f"{name}.csv").read_bytes().count(b"\n") > 1 for name in NAMES)
    return folder


@pytest.fixture
def quick_start():
    """Workers that are forked from a process that has loaded PyTorch; afterwards none of them is left."""
    multiprocessing.set_forkserver_preload(["deepetpicker.picking.cluster.tasks"])
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield
    assert not [name for name in processes() if "Nanny" in name or "dask" in name]


def processes():
    """Return the names of the processes that multiprocessing knows."""
    return [process.name for process in multiprocessing.active_children()]


def run(data, out, names=NAMES, cluster=None, **values):
    """Pick; return the manifest that pick returns."""
    return pick(data / "m.safetensors", [data / f"{name}.mrc" for name in names], out,
                PickOptions(**{**SET, **values}), quiet=True, cluster=cluster or ClusterOptions())


def tables(out):
    """Return the bytes of every table in an output folder, by name; hidden is what a killed worker was writing."""
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(out).glob("[!.]*.csv"))}


def whole(out):
    """Return manifest.json of a run without times and places."""
    content = read_manifest(pathlib.Path(out, "manifest.json"))
    for key in ("started", "seconds", "argv", "directory"):
        del content[key]
    for item in content["items"]:
        del item["seconds"]
        for key in ("picks", "candidates"):
            item[key] = pathlib.Path(item[key]).name
    return content


def kill_one_at_work():
    """Kill a worker that has a tomogram; return its process, 0 when none has one."""
    client = distributed.default_client()
    busy = [address for address, keys in client.processing().items() if keys]
    pid = client.run(os.getpid, workers=busy[:1], on_error="ignore").get(busy[0], 0) if busy else 0
    if pid:
        os.kill(pid, signal.SIGKILL)
    return pid


@contextlib.contextmanager
def killing(kill):
    """Call a function that may kill a worker, ten times a second, beside the block."""
    over = threading.Event()

    def again():
        while not over.wait(0.1):
            with contextlib.suppress(ValueError, OSError, RuntimeError):  # before the cluster is there, or after
                kill()

    killer = threading.Thread(target=again)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


def wait_for(look, count):
    """Return what there is to see as soon as it is so much; fail after a minute."""
    end = time.monotonic() + 60
    while len(seen := look()) < count:
        assert time.monotonic() < end, f"expected {count}, saw {seen}"
        time.sleep(0.002)
    return seen


# ---- the result

def refusal_of(address):
    """Return what a scheduler answers somebody who knows its address and has no key."""
    host, port = address.rpartition("/")[2].rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as secure:
            return secure.recv(1)
    except ssl.SSLError as error:
        return error.reason


@pytest.mark.long
def test_workers_on_this_machine_give_what_one_process_gives(data, alone, tmp_path, quick_start, caplog):
    """Nobody without the keys of the run can talk to them."""
    answers = []

    def ask(text):
        if "picks >=" in text:
            answers.append(refusal_of(distributed.default_client().scheduler.address))

    with caplog.at_level(logging.INFO, "deepetpicker"), heard(ask):
        run(data, tmp_path / "out", cluster=ClusterOptions(cluster="local", workers=2, threads=1))
    assert answers == ["TLSV13_ALERT_CERTIFICATE_REQUIRED"] * len(NAMES)
    assert tables(tmp_path / "out") == tables(alone)
    assert whole(tmp_path / "out") == whole(alone)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in alone.iterdir())
    said = "\n".join(caplog.messages)
    assert "2 worker(s) on this machine, each with 1 thread(s); dashboard: http://127.0.0.1:" in said
    assert all(f"{name}: " in said and "3 of 4 tomograms done" in said for name in NAMES)


@pytest.mark.long
def test_what_a_killed_worker_had_is_picked_by_another_one(data, alone, tmp_path, quick_start):
    killed = []
    with killing(lambda: None if any(killed) else killed.append(kill_one_at_work())):
        run(data, tmp_path, cluster=ClusterOptions(cluster="local", workers=2, threads=1))
    killed = [pid for pid in killed if pid]
    assert killed[-1] > 0
    assert not pathlib.Path(f"/proc/{killed[-1]}").exists()
    assert tables(tmp_path) == tables(alone)
    assert whole(tmp_path) == whole(alone)


@pytest.mark.long
def test_what_was_done_on_a_worker_that_died_before_anybody_asked_is_done_again(data, alone, tmp_path, quick_start):
    """While the first tomogram is told, another one ends, and then the workers that hold both results are killed."""
    lost = []

    def kill(text):
        if "picks >=" not in text or lost:
            return
        client = distributed.default_client()
        done = wait_for(lambda: [key for key, state in client.futures.items() if state.status == "finished"], 2)
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        lost.extend(wait_for(lambda: [key for key in done if client.futures[key].status != "finished"], len(done)))

    with heard(kill):
        run(data, tmp_path, cluster=ClusterOptions(cluster="local", workers=2, threads=1))
    assert len(lost) >= 2
    assert tables(tmp_path) == tables(alone)
    assert whole(tmp_path) == whole(alone)


@pytest.mark.long
def test_a_tomogram_whose_workers_all_die_fails_and_the_one_beside_it_does_not(data, alone, tmp_path, quick_start,
                                                                              monkeypatch):
    monkeypatch.setitem(cluster_workers.SETTINGS, "distributed.scheduler.allowed-failures", 0)
    failing, killed = tmp_path / "large" / "b.mrc", []
    # large, so that its worker is still at work when it is killed
    write_volume(failing, np.random.default_rng(1).normal(size=(96, 160, 160)).astype(np.float32), 10.0)

    def kill():
        if not any(killed) or (tmp_path / "records" / f"{NAMES[0]}.json").exists():  # together, the second alone
            killed.append(kill_one_at_work())

    with killing(kill):
        found = pick(data / "m.safetensors", [data / f"{NAMES[0]}.mrc", failing], tmp_path, PickOptions(**SET),
                     quiet=True, cluster=ClusterOptions(cluster="local", workers=1, threads=1))
    assert [item["status"] for item in found["items"]] == ["done", "failed"]
    assert found["items"][1]["reason"].startswith("each worker that picked it died: no memory left")
    assert tables(tmp_path) == {name: table for name, table in tables(alone).items() if name.startswith(NAMES[0])}


def test_a_scheduler_that_is_there_is_used_and_failures_are_gathered(data, alone, tmp_path, caplog):
    from distributed import LocalCluster

    caplog.set_level(logging.INFO, "deepetpicker")
    (tmp_path / "bad.mrc").write_bytes(b"cut")
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, host="127.0.0.1", protocol="tcp://",
                      dashboard_address=None) as cluster:
        words = [str(data / "m.safetensors"), str(tmp_path / "bad.mrc"), *(str(data / f"{n}.mrc") for n in NAMES)]
        threads = torch.get_num_threads()
        try:
            assert main(["pick", *words, "--out", str(tmp_path / "o"), "--cluster", cluster.scheduler_address, *WORDS,
                         "--threads", "1"]) == 1
        finally:
            torch.set_num_threads(threads)
    assert tables(tmp_path / "o") == tables(alone)
    items = read_manifest(tmp_path / "o" / "manifest.json")["items"]
    assert [item["status"] for item in items] == ["failed", *["done"] * len(NAMES)]
    said = "\n".join(caplog.messages)
    assert "bad: failed:" in said
    assert "4 of 5 tomograms done" in said


# ---- what is refused

@pytest.mark.parametrize(("values", "text"), [
    ({"cluster": "slrum"}, "cluster must be local, slurm, pbs, sge, lsf or the address .* did you mean 'slurm'"),
    ({"cluster": "host:8786"}, "the address of a scheduler, such as tls://host:8786"),
    ({"cluster": "local", "workers": -1}, "workers must be a number >= 0"),
    ({"cluster": "slurm", "queue": "a b"}, "queue must be a name of letters"),
    ({"cluster": "slurm", "account": "a\n#SBATCH --uid=0"}, "account must be a name of letters"),
    ({"cluster": "slurm", "directives": "-p x\nrm -r /"}, "directives must be one line")])
def test_wrong_options_are_refused(values, text):
    with pytest.raises(InputError, match=text):
        ClusterOptions(**values)


@pytest.mark.parametrize(("words", "text"), [
    (["--cluster", "local", "--shard", "1/2"], "--shard and --cluster both share out the tomograms"),
    (["--workers", "2"], "no --cluster: say which, such as --cluster local"),
    (["--cluster", "lsf"], "--cluster lsf expected the command 'bsub' on this machine, found none"),
    (["--cluster", "tcp://127.0.0.1:1"], "expected a dask scheduler at tcp://127.0.0.1:1, none answers")])
def test_what_cannot_be_had_is_said_in_one_line_before_anything_is_written(data, tmp_path, monkeypatch, capsys, words,
                                                                          text):
    monkeypatch.setattr(cluster_workers, "CONNECT_S", 0.5)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = [str(data / "m.safetensors"), str(data / "TS_2.mrc"), "--out", str(tmp_path / "o"), *words]
    assert main(["pick", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert text in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("module", "kind"), [("distributed", "tcp://127.0.0.1:1"), ("cryptography", "local"),
                                              ("dask_jobqueue", "slurm")])
def test_what_to_install_is_said_where_the_extra_is_missing(data, tmp_path, monkeypatch, capsys, module, kind):
    monkeypatch.setitem(sys.modules, module, None)  # importing it is an ImportError
    assert main(["pick", str(data / "m.safetensors"), str(data / "TS_2.mrc"), "--out", str(tmp_path / "o"),
                 "--cluster", kind]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [f"deepetpicker pick: error: --cluster {kind} needs the Python package "
                    f"{module.replace('_', '-')!r}, which this Python has not: pip install 'deepetpicker[cluster]'"]
    assert not (tmp_path / "o").exists()


def test_a_worker_of_this_machine_has_a_gpu_of_its_own_or_the_cores_it_was_given(monkeypatch):
    def devices(threads, device):
        return cluster_workers._devices(ClusterOptions(cluster="local", threads=threads), device)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices(4, "auto") == ["", ""]
    assert devices(16, "cpu") == [""]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(4, "auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert devices(4, "cuda") == ["3", "7"]
    assert devices(4, "cpu") == ["", ""]


# ---- jobs

def test_ctrl_c_stays_ours():
    """Importing dask-jobqueue takes it, so that an interrupted run would end with status 0."""
    code = ("import signal; before = signal.getsignal(signal.SIGINT)\n"
            "from deepetpicker.picking.cluster import workers; workers.require('slurm')\n"
            "import contextlib, dask_jobqueue\n"
            "with contextlib.suppress(ModuleNotFoundError): import dask_jobqueue.runner  # which 0.9 brings\n"
            "assert signal.getsignal(signal.SIGINT) is before")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "engine")})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("kind", "name", "asked"), [
    ("slurm", "SLURMCluster", ["-p gpus", "-A lab", "-t 01:30:00", "--gres=gpu:1"]),
    ("pbs", "PBSCluster", ["-q gpus", "-A lab", "-l walltime=01:30:00", "ngpus=1"]),
    ("sge", "SGECluster", ["-q gpus", "-P lab", "-l h_rt=01:30:00", "-l gpu=1"]),
    ("lsf", "LSFCluster", ["-q gpus", '-P "lab"', "-W 01:30", '-gpu "num=1"'])])
def test_a_job_asks_for_what_was_said_and_takes_odd_paths_unharmed(tmp_path, monkeypatch, kind, name, asked):
    import dask_jobqueue

    jobs = tmp_path / "it's $HOME; `ls` \"x\" caf\u00e9 %j\nend"
    jobs.mkdir()
    for part in ("ca", "key"):
        (jobs / f"{part}.pem").write_text(f"-----BEGIN\n{part} $x\n", encoding="ascii")
    program = tmp_path / "py thon$"
    program.write_text("#!/bin/sh\nenv -0\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PYTHONPATH", "/a b;c")
    options = ClusterOptions(cluster=kind, queue="gpus", account="lab", hours=1.5, directives="--x=1; --y 2")
    made = cluster_workers._job(options, "auto", jobs)
    job_class = cluster_workers._reporting(getattr(dask_jobqueue, name).job_cls, cluster_workers.Answers())
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):
        script = job_class("tls://192.0.2.1:1", name="w", **made).job_script()
    header = [line for line in script.splitlines() if line.startswith(("#SBATCH", "#PBS", "#$", "#BSUB"))]
    for text in [*asked, "--x=1", "--y 2", "-o /dev/null"]:
        assert any(text in line for line in header), text
    assert not [line for line in header if str(tmp_path) in line]
    subprocess.run(["bash", "-c", script], check=True, timeout=20)
    seen = dict(pair.partition("=")[::2] for pair in next(jobs.glob("job-*.log")).read_text("utf-8").split("\0"))
    assert seen["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] == "-----BEGIN\nca $x"
    assert seen["DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"] == "-----BEGIN\nkey $x"
    assert seen["DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE"] == "False"
    assert seen["PYTHONPATH"] == "/a b;c"
    for others, device in (("--gres=gpu:a100:2", "auto"), ("", "cpu")):  # a GPU is not asked for twice, or in vain
        made = cluster_workers._job(ClusterOptions(cluster=kind, directives=others), device, jobs)
        assert sum("gpu" in line for line in made["job_extra_directives"]) == bool(others)
        assert "gpu" not in made.get("resource_spec", "")


@pytest.fixture(scope="module")
def queue():
    """The environment of a SLURM of one node."""
    if missing():
        pytest.skip(missing())
    with slurm() as environment:
        yield environment


@contextlib.contextmanager
def on_slurm(queue, data, out, *words):
    """Yield a process that picks in jobs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deepetpicker", "pick", str(data / "m.safetensors"), str(data), "--out", str(out),
         *WORDS, "--cluster", "slurm", "--threads", "1", *words], stderr=subprocess.PIPE, text=True,
        env={**queue, "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), os.environ.get("PYTHONPATH", "")])})
    try:
        yield process
    finally:
        process.kill()  # where the test went wrong
        process.wait()


def jobs_of(queue):
    """Return the numbers of the jobs that wait or run."""
    return subprocess.run(["squeue", "-h", "-t", "PD,R", "-o", "%i"], env=queue, capture_output=True, text=True,
                          check=True).stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("cancelled", [False, True])
def test_jobs_of_slurm_give_what_one_process_gives(queue, data, alone, tmp_path, cancelled):
    """Also when the queue ends one of them; the output folder has an odd name, and no job is left."""
    out = tmp_path / "it's $HOME; `ls` \"x\" caf\u00e9 %j\nend"
    with on_slurm(queue, data, out, "--workers", "2", "--worker-memory", "1") as process:
        if cancelled:
            end = time.monotonic() + 60
            while not jobs_of(queue) and time.monotonic() < end:
                time.sleep(0.2)
            time.sleep(3)  # it has begun to start Python
            subprocess.run(["scancel", jobs_of(queue)[0]], env=queue, check=True)
        said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    assert tables(out) == tables(alone)
    assert [item["status"] for item in read_manifest(out / "manifest.json")["items"]] == ["done"] * len(NAMES)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert jobs_of(queue) == []


@pytest.mark.slow
def test_what_slurm_refuses_is_said_in_one_line(queue, data, tmp_path):
    with on_slurm(queue, data, tmp_path / "o", "--worker-memory", "100000") as process:
        said = process.communicate(timeout=120)[1].strip().splitlines()
    assert process.returncode == 2
    assert said[-1].startswith("deepetpicker pick: error: the queue refused the jobs: sbatch: error: Memory spec")
    assert not list((tmp_path / "o").glob("jobs_*"))
    assert jobs_of(queue) == []


@pytest.mark.slow
def test_an_interrupted_run_takes_its_jobs_back(queue, data, tmp_path):
    with on_slurm(queue, data, tmp_path / "o", "--worker-memory", "1") as process:
        end = time.monotonic() + 60
        while not jobs_of(queue) and time.monotonic() < end:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert "interrupted: tomograms that were finished are kept" in process.communicate(timeout=60)[1]
        assert process.returncode == 130
    assert not list((tmp_path / "o").rglob("*.pem"))
    assert jobs_of(queue) == []
