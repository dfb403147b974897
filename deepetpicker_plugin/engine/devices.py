"""What computes: the GPUs of a form, those of this machine, how many engines run at once and what stays idle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any, Dict, List, Optional

from pyworkflow.protocol.constants import VOID_GPU
from pyworkflow.protocol.executor import QueueStepExecutor, ThreadStepExecutor

from deepetpicker.io.atomic import write_text

QUERY = ("--query-gpu=index,name", "--format=csv,noheader")
PATIENCE_S = 20.0
OTHER_THREADS = 2  # of Scipion's, beside those that pick: one waits for tomograms, one writes outputs
NO_GPU = ("*No GPU was found on this machine* (nvidia-smi is missing or lists none): the engine computes on the CPU, "
          "which takes many times longer. Is this the right machine, is its driver installed? Choose *No* beside "
          "*GPU IDs* where the CPU is meant.")


def gpusHere() -> Dict[int, str]:
    """Return the names of this machine's GPUs by number, as the driver lists them; empty where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return {}
    try:
        done = subprocess.run([command, *QUERY], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        rows = [line.split(",", 1) for line in done.stdout.splitlines() if "," in line]
        return {int(number): name.strip() for number, name in rows}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def gpuList(protocol: Any) -> List[int]:
    """Return the GPUs that a form lists, without Scipion's "none"; empty when it chooses the CPU.

    Raises
    ------
    ValueError
        If the list cannot be read.
    """
    return [g for g in protocol.getGpuList() if g != VOID_GPU] if protocol.usesGpu() else []


def runsHere(protocol: Any) -> bool:
    """Tell whether a protocol computes on this machine, so that its GPUs say something about the run."""
    return not protocol.useQueue() and (protocol.getHostName() or "localhost") == "localhost"


def submitsSteps(protocol: Any) -> bool:
    """Tell whether each step of a protocol becomes a job of its own, and not the protocol as a whole."""
    queue = protocol.getQueueParams()
    return bool(queue and len(queue) > 1 and queue[1].get("QUEUE_FOR_JOBS") == "Y")


def words(numbers: List[int]) -> str:
    """Return GPUs as people call them: ``GPU 0``, ``GPUs 0, 2``."""
    return ("GPU " if len(numbers) == 1 else "GPUs ") + ", ".join(map(str, numbers))


def errors(protocol: Any) -> List[str]:
    """Return why the GPUs of a form cannot be used."""
    try:
        listed = gpuList(protocol)
    except ValueError:
        return [f"*GPU IDs* expected numbers such as 0 or 0,1 or 0-3, got {protocol.gpuList.get()!r}"]
    if protocol.usesGpu() and not listed:
        return ["*GPU IDs* expected at least one number such as 0, found none: give one, or choose *No* beside it"]
    here = gpusHere() if listed and runsHere(protocol) else {}
    missing = sorted(set(listed) - set(here))
    if here and missing:
        return [f"*GPU IDs* this machine has {words(sorted(here))}, and no {words(missing)}: the engine would compute "
                "on the CPU instead"]
    return []


def warnings(protocol: Any) -> List[str]:
    """Return what a user should know of the devices before a run."""
    return [NO_GPU] if gpuList(protocol) and runsHere(protocol) and not gpusHere() else []


def pickingWarnings(protocol: Any, nTomograms: Optional[int]) -> List[str]:
    """Return what a user should know of the devices before picking, where each tomogram is picked by one of them.

    Parameters
    ----------
    protocol : Protocol
        Its form.
    nTomograms : int, optional
        Number of tomograms; None when more may come.
    """
    lines, listed = warnings(protocol), gpuList(protocol)
    if lines and len(listed) > 1:
        lines.append(f"{len(listed)} engines would run at once on the CPU, one for each entry of *GPU IDs*.")
    if nTomograms is not None and nTomograms < len(listed):
        lines.append(f"{words(listed[nTomograms:])} will stay idle: a tomogram is picked by one GPU, and there "
                     f"{'is 1 tomogram' if nTomograms == 1 else f'are {nTomograms} tomograms'}.")
    steps = protocol.useQueue() and submitsSteps(protocol)
    if steps and len(listed) > 1:
        lines.append(f"The job of each step asks the queue for {len(listed)} GPUs and uses one of them: list one GPU, "
                     "or submit the whole protocol as one job.")
    needed = len(listed) + OTHER_THREADS + 1
    if protocol.useQueue() and not steps and listed and protocol.numberOfThreads.get() < needed:
        lines.append(f"The queue is asked for {protocol.numberOfThreads.get()} threads. {len(listed)} engines at once, "
                     f"with {protocol.binThreads.get()} threads each, run better with more: set *Scipion threads* to "
                     f"{needed} or higher.")
    return lines


def giveEachGpuASlot(executor: Any) -> None:
    """Arrange an executor so that as many engines run at once as GPUs are listed, each with one of them.

    Scipion shares out more GPUs than it has threads in groups, of which an engine, that picks a tomogram with one GPU,
    would use the first and leave the others idle.

    Parameters
    ----------
    executor : StepExecutor
        One that runs steps in threads is changed: its number of threads and its slots.
    """
    listed = [g for g in executor.gpuList or [] if g != VOID_GPU]
    if isinstance(executor, ThreadStepExecutor) and listed:
        executor.numberOfProcs = max(executor.numberOfProcs, len(listed) + OTHER_THREADS)
        ownJobs = isinstance(executor, QueueStepExecutor)  # each step's job counts the GPUs it was given from 0
        executor.gpuDict = {-n: [0 if ownJobs else gpu] for n, gpu in enumerate(listed, 1)}


def record(protocol: Any, path: str) -> Dict[str, Any]:
    """Write down, on the machine that computes, what does so; return it.

    Parameters
    ----------
    protocol : Protocol
        A running one.
    path : str
        Path of the file, JSON.
    """
    content = {"listed": gpuList(protocol), "here": {str(n): name for n, name in gpusHere().items()},
               "atOnce": atOnce(protocol), "threads": protocol.getBinThreads(), "queue": bool(protocol.useQueue())}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return content


def describe(content: Dict[str, Any]) -> List[str]:
    """Return what :func:`record` wrote as lines of a summary."""
    listed, here = content["listed"], {int(n): name for n, name in content["here"].items()}
    some = engines(content["atOnce"])
    each = "1 thread each" if content["threads"] == 1 else f"{content['threads']} threads each"
    if not listed:
        return [f"Computes on the CPU: {some}, {each}"]
    if not here:
        return [f"*No GPU was found: computes on the CPU*, {some}, {each}; *GPU IDs* says "
                f"{', '.join(map(str, listed))}"]
    if content["queue"]:  # its devices are chosen by the queue
        return [f"Computes on {len(listed)} of the queue's GPUs ({', '.join(sorted(set(here.values())))}): {some}"]
    names = ", ".join(f"{n} ({here[n]})" if n in here else f"{n} (missing)" for n in listed)
    idle = sorted(set(here) - set(listed))
    return [f"Computes on GPU {names}: {some}" + (f"; idle, as not in *GPU IDs*: {words(idle)}" if idle else "")]


def planned(protocol: Any) -> List[str]:
    """Return what will compute, as far as the form of a picking protocol can say it; nothing when it is wrong."""
    try:
        listed = gpuList(protocol)
    except ValueError:
        return []
    return [f"Will compute on {words(listed) if listed else 'the CPU'}: {engines(atOnce(protocol))}"]


def atOnce(protocol: Any) -> int:
    """Return how many engines of a picking protocol run at once."""
    return len(gpuList(protocol)) or max(1, protocol.numberOfThreads.get() - OTHER_THREADS)


def engines(number: int) -> str:
    """Return so many engines in words."""
    return f"{number} engine{'s' if number != 1 else ''} at once"


def readRecord(path: str) -> Optional[Dict[str, Any]]:
    """Return what :func:`record` wrote, None when it did not."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as stream:
        return dict(json.load(stream))
