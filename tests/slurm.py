"""A SLURM of one node, made of the distribution's packages (Debian: slurm-wlm and munge), for tests and measurements.

``python tests/slurm.py COMMAND...`` runs a command inside one; everything it needs lies in a temporary folder and
ends with it. Needs the right to run slurmd, which is root's.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Dict, Iterator, List

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "scancel")
START_S = 30
CONFIGURATION = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory={megabytes} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def missing() -> str:
    """Return what this machine lacks to start SLURM, for the reason of a skipped test; empty when it lacks nothing."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "needs root, to start slurmd"


def _program(name: str) -> str | None:
    """Return the path of a program, daemons included."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


@contextlib.contextmanager
def slurm() -> Iterator[Dict[str, str]]:
    """Yield the environment in which sbatch and its like reach a SLURM of one node, until the block ends.

    Raises
    ------
    RuntimeError
        If it does not start, with what its daemons said.
    """
    with tempfile.TemporaryDirectory(prefix="slurm_") as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        folder.chmod(0o755)  # munge's socket must be within everybody's reach
        for part in ("state", "spool"):
            (folder / part).mkdir()
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(
            folder=folder, host=host, cpus=os.cpu_count(), megabytes=_megabytes(),
            controller_port=_port(), node_port=_port()))
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        files = [f"--{what}-file={folder}/munge.{what}" for what in ("pid", "log", "seed", "key")]
        for words in (["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
                      ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            stack.enter_context(_daemon(words, folder, environment))
            if words[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), folder, "munge's socket")
        _wait(lambda: _output(["sinfo", "-h", "-o", "%t"], environment) == "idle", folder, "an idle node")
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user", "root"], env=environment, check=False)
            _wait(lambda: not _output(["squeue", "-h"], environment), folder, "end of its jobs")


@contextlib.contextmanager
def _daemon(words: List[str], folder: pathlib.Path, environment: Dict[str, str]) -> Iterator[None]:
    """Run a daemon in the foreground until the block ends."""
    with open(folder / f"{words[0]}.out", "wb") as out:
        ends_with_us = ["setpriv", "--pdeathsig", "TERM"]  # also where this process is killed
        process = subprocess.Popen([*ends_with_us, _program(words[0]), *words[1:]], stdout=out, stderr=out,
                                   env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_there, folder: pathlib.Path, what: str) -> None:
    """Wait until something is there, or raise RuntimeError with what the daemons said."""
    end = time.monotonic() + START_S
    while not is_there():
        if time.monotonic() > end:
            said = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.[lo][ou][gt]"))
            raise RuntimeError(f"SLURM: no {what} within {START_S} s\n{said}")
        time.sleep(0.1)


def _output(words: List[str], environment: Dict[str, str]) -> str:
    """Return what a command says."""
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _megabytes() -> int:
    """Return most of the memory of this machine."""
    return int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 20))


def _port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    with slurm() as inside:
        sys.exit(subprocess.run(sys.argv[1:], env=inside, check=False).returncode)
