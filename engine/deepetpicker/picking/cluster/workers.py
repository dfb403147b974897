"""Workers of dask.distributed: processes on this machine, jobs of a queue, or those of a scheduler that is there.

dask is an optional requirement; nothing of it is imported before somebody asks for a cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import pathlib
import shlex
import shutil
import signal
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Type

from deepetpicker.config import QUEUES, ClusterOptions
from deepetpicker.errors import InputError
from deepetpicker.io.atomic import explain

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MOST_JOBS = 8  # unless the user says another number
CONNECT_S = 15
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
ONE_GPU = {"slurm": "--gres=gpu:1", "pbs": "", "sge": "-l gpu=1", "lsf": '-gpu "num=1"'}  # PBS: in its select
SETTINGS: Dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 1,  # of workers that had a tomogram, before it is given up
    "distributed.scheduler.worker-saturation": 1.0,  # none waits at a worker while another one is free
    "distributed.scheduler.unknown-task-duration": "1h",  # so that a worker is asked for each
    "distributed.worker.profile.enabled": False,
    # The engine plans its memory itself; pages of mapped tomograms are not what a worker holds.
    "distributed.worker.memory.target": False, "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False, "distributed.worker.memory.terminate": False,
}


@dataclasses.dataclass
class Answers:
    """What a queue has answered so far; grows.

    Attributes
    ----------
    accepted : int
        Number of jobs that it took.
    refused : list of str
        What it said of each other one.
    """

    accepted: int = 0
    refused: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Workers:
    """Workers that are there, or will be.

    Attributes
    ----------
    client : distributed.Client
        Hands them tasks.
    place : str
        What they are, for messages.
    advice : str
        What to look at when no worker comes.
    answers : Answers
        Of the queue.
    """

    client: Any
    place: str
    advice: str
    answers: Answers


def require(kind: str) -> None:
    """Raise InputError when a package that a kind of cluster needs is missing."""
    names = ["distributed", *(["cryptography"] if kind in ("local", *QUEUES) else []),
             *(["dask_jobqueue"] if kind in QUEUES else [])]
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"--cluster {kind} needs the Python package {name.replace('_', '-')!r}, which this Python "
                         "has not: pip install 'deepetpicker[cluster]'") from error
    finally:
        if signal.getsignal(signal.SIGINT) is not interrupt:  # dask-jobqueue leaves with status 0 at Ctrl-C
            signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def open_workers(options: ClusterOptions, device: str, count: int, folder: pathlib.Path) -> Iterator[Workers]:
    """Yield workers for some tomograms; those that were started for it end with the block.

    Parameters
    ----------
    options : ClusterOptions
        Which.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    count : int
        Number of tomograms.
    folder : path
        Output folder, which all workers see.

    Raises
    ------
    InputError
        If a package or the queue's command is missing, or nobody answers at the address.
    """
    kind = options.cluster
    require(kind)
    import dask

    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        # Deaths of workers are told in our words; for good, since it speaks of lost connections after the end.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if kind == "local":
            workers = stack.enter_context(_local(options, device, count))
        elif kind in QUEUES:
            workers = stack.enter_context(_queue(options, device, count, folder))
        else:
            workers = stack.enter_context(_existing(kind))
        logger.info("%s; dashboard: %s", workers.place, _dashboard(workers.client, is_ours=kind in ("local", *QUEUES)))
        yield workers


def _dashboard(client: Any, is_ours: bool) -> str:
    """Return the address of a scheduler's dashboard; ours listen on the loopback of this machine alone."""
    port = client.scheduler_info()["services"].get("dashboard")
    return f"http://{LOOPBACK}:{port}/status" if is_ours and port else str(client.dashboard_link or "none")


@contextlib.contextmanager
def _local(options: ClusterOptions, device: str, count: int) -> Iterator[Workers]:
    """Yield processes on this machine, which talk over its loopback with keys that nobody else has."""
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    security = Security.temporary()
    common = {"host": LOOPBACK, "protocol": "tls", "security": security}
    of_worker = {**common, "nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}
    devices = _devices(options, device)
    number = min(options.workers or len(devices), count)
    if devices[0] and number > len(devices):
        raise InputError(f"workers: expected at most {len(devices)}, one per GPU of this machine, got {number}")
    workers = {}
    for n in range(number):
        env = {"OMP_NUM_THREADS": str(options.threads)}
        if devices[0]:
            env["CUDA_VISIBLE_DEVICES"] = devices[n]
        workers[n] = {"cls": Nanny, "options": {**of_worker, "env": env}}
    scheduler = {"cls": Scheduler, "options": {**common, "dashboard": True, "dashboard_address": f"{LOOPBACK}:0"}}
    with SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
                     ) as cluster, Client(cluster) as client:
        what = f"a GPU ({', '.join(devices)})" if devices[0] else f"{options.threads} thread(s)"
        yield Workers(client, f"{number} worker(s) on this machine, each with {what}", "", Answers())


def _devices(options: ClusterOptions, device: str) -> List[str]:
    """Return the GPU of each worker as CUDA counts it; without GPUs an empty text for each that the cores are for."""
    if device != "cpu":
        import torch

        given = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
        found = torch.cuda.device_count()
        if found:
            return (given or [str(n) for n in range(found)])[:found]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [""] * max(1, cores // options.threads)


@contextlib.contextmanager
def _existing(address: str) -> Iterator[Workers]:
    """Yield the workers of a scheduler that is there already."""
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"cluster: expected a dask scheduler at {address}, none answers ({error}): start one with "
                         "'dask scheduler', or check the address (and for tls:// the keys in dask's configuration)"
                         ) from error
    with client:
        yield Workers(client, f"the workers of {address}", f"start some with 'dask worker {address} --nthreads 1'",
                      Answers())


@contextlib.contextmanager
def _queue(options: ClusterOptions, device: str, count: int, folder: pathlib.Path) -> Iterator[Workers]:
    """Yield jobs of a queue, a worker each: as many as there are tomograms left, at most those allowed."""
    kind = options.cluster
    if shutil.which(SUBMIT[kind]) is None:
        raise InputError(f"--cluster {kind} expected the command {SUBMIT[kind]!r} on this machine, found none: start "
                         "it where jobs are submitted, or use --cluster local")
    import dask
    import dask_jobqueue
    from distributed import Client

    answers = Answers()
    with _private_folder(folder) as jobs, dask.config.set(_keys(jobs)):
        cluster_class: Any = getattr(dask_jobqueue, f"{kind.upper()}Cluster")
        with cluster_class(job_cls=_reporting(cluster_class.job_cls, answers), protocol="tls://",
                           silence_logs=logging.ERROR, scheduler_options={"dashboard_address": f"{LOOPBACK}:0"},
                           **_job(options, device, jobs)) as cluster:
            most = min(options.workers or MOST_JOBS, count)
            cluster.adapt(minimum_jobs=0, maximum_jobs=most, target_duration="1s")
            with Client(cluster) as client:
                yield Workers(client, f"up to {most} job(s) of {kind}",
                              f"look at the queue, and at what jobs said in {jobs}", answers)


@contextlib.contextmanager
def _private_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a folder in the output folder for keys and the jobs' messages; only the messages of a failure stay."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        jobs = pathlib.Path(tempfile.mkdtemp(prefix="jobs_", dir=folder))  # for the user alone
    except OSError as error:
        raise InputError(explain(folder, error)) from error
    try:
        yield jobs
    except BaseException:
        for path in jobs.glob("*.pem"):
            path.unlink()
        with contextlib.suppress(OSError):
            jobs.rmdir()  # where no job said anything
        raise
    shutil.rmtree(jobs, ignore_errors=True)


def _keys(jobs: pathlib.Path) -> Dict[str, Any]:
    """Return settings of dask with credentials made for this run, which are also written for jobs.

    They are settings, and not paths: dask takes a path with a line end for a key.
    """
    from distributed import Security

    made = Security.temporary()
    for name, content in (("ca", made.tls_ca_file), ("key", made.tls_worker_key)):
        path = jobs / f"{name}.pem"
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as stream:
            stream.write(content)
    settings: Dict[str, Any] = {"distributed.comm.require-encryption": True,
                                "distributed.comm.tls.ca-file": made.tls_ca_file}
    for role in ("client", "scheduler"):
        settings[f"distributed.comm.tls.{role}.cert"] = made.tls_ca_file
        settings[f"distributed.comm.tls.{role}.key"] = made.tls_worker_key
    return settings


def _reporting(job_class: Type[Any], answers: Answers) -> Type[Any]:
    """Return a class of jobs that notes what the queue answers.

    The queue is asked in the background, where nobody would see an error.
    """
    from distributed.core import Status

    class Job(job_class):  # type: ignore[misc]
        """A job."""

        async def start(self) -> None:
            """Submit it; one that is refused passes for one that waits."""
            try:
                await super().start()
                answers.accepted += 1
            except (RuntimeError, ValueError, OSError) as error:
                answers.refused.append(_said(str(error)))
                self.status = Status.running

        async def close(self) -> None:
            """Cancel it."""
            await super().close()
            self.status = Status.closed

    return Job


def _said(text: str) -> str:
    """Return what the queue's command said, in one line, without the words around it."""
    return " ".join((text.partition("stderr:")[2] or text).split())


def _job(options: ClusterOptions, device: str, jobs: pathlib.Path) -> Dict[str, Any]:
    """Return what dask-jobqueue has to know of a job; what is left open is what its own configuration says.

    Paths are words of a shell script, quoted: no directive of a queue has one.
    """
    import dask

    kind = options.cluster
    of_site = f"jobqueue.{kind}"
    given = [word.strip() for word in options.directives.split(";") if word.strip()]
    wants_gpu = device != "cpu" and "gpu" not in options.directives.lower()
    there = shlex.quote(str(jobs))
    settings = {"COMM__TLS__CA_FILE": f'"$(cat {there}/ca.pem)"', "COMM__TLS__WORKER__CERT": f'"$(cat {there}/ca.pem)"',
                "COMM__TLS__WORKER__KEY": f'"$(cat {there}/key.pem)"', "COMM__REQUIRE_ENCRYPTION": "True"}
    settings.update({key.partition(".")[2].replace(".", "__").replace("-", "_").upper(): str(value)
                     for key, value in SETTINGS.items() if ".worker." in key})
    lines = [f"exec >>{there}/job-$$.log 2>&1",
             *(f"export DASK_DISTRIBUTED__{name}={value}" for name, value in settings.items())]
    if os.environ.get("PYTHONPATH"):
        lines.append(f"export PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}")
    minutes = max(1, round(60 * options.hours))
    clock = f"{minutes // 60:02d}:{minutes % 60:02d}" + ("" if kind == "lsf" else ":00")
    made = {"cores": options.threads, "processes": 1, "memory": f"{options.worker_memory} GB",
            "walltime": clock, "python": shlex.quote(sys.executable), "worker_extra_args": ["--no-dashboard"],
            "job_script_prologue": [*(dask.config.get(f"{of_site}.job-script-prologue", None) or []), *lines],
            "job_extra_directives": [*(dask.config.get(f"{of_site}.job-extra-directives", None) or []),
                                     "-o /dev/null", *(["-e /dev/null"] if kind != "sge" else []),
                                     *([ONE_GPU[kind]] if wants_gpu and ONE_GPU[kind] else []), *given]}
    made.update({"queue": options.queue} if options.queue else {})
    account = "account" if kind in ("slurm", "pbs") else "project"
    made.update({account: options.account} if options.account else {})
    if kind == "pbs" and wants_gpu and not dask.config.get(f"{of_site}.resource-spec", None):
        made["resource_spec"] = (f"select=1:ncpus={options.threads}:mem={round(1000 * options.worker_memory)}mb"
                                 ":ngpus=1")
    return made
