"""Running the engine as a child process: by files only, safe against what an earlier start left running."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import signal
import socket
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from deepetpicker.errors import DeepETPickerError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.manifest import read_manifest
from deepetpicker_plugin.constants import (
    ENGINE_ERRORS,
    ENGINE_EXIT,
    ENGINE_LOG,
    ENGINE_PID,
    ENGINE_SCRIPT,
    MANIFEST_FILE,
    PARAMS_FILE,
)
from deepetpicker_plugin.engine.checkout import exportOwnEngine

GRACE_S = 30.0
ASKED_TO_END = (130, 143)  # how a shell reports Ctrl-C and SIGTERM
OWN_ERRORS = (2, 3)  # bad input, and an error of the program itself

# The shell that starts the engine outlives a killed protocol: it notes when and where the engine runs and how it ended,
# which is all that a queue system lets the protocol see. $1 holds the GPUs as Scipion numbers them.
SCRIPT = """#!/bin/bash
cd {cwd} || exit 3
gpus="$1"
if [ -n "$gpus" ]; then
    if [ "{queued}" = yes ] && [ -n "$CUDA_VISIBLE_DEVICES" ]; then
        IFS=, read -r -a given <<< "$CUDA_VISIBLE_DEVICES"  # the queue's devices; Scipion counts them from 0
        chosen=()
        for gpu in $gpus; do chosen+=("${{given[$gpu]:-$gpu}}"); done
        gpus="${{chosen[*]}}"
    fi
    export CUDA_VISIBLE_DEVICES="${{gpus// /,}}"
fi
{ownEngine}
{environment}
{activation}
rm -f {exit}
{command} 2> >(tee {errors} >&2) &
engine=$!
trap 'kill -TERM $engine' TERM INT
echo "$(hostname) $engine $$" > {pid}
echo "$(date +%s.%N) start host=$(hostname) pid=$engine devices=$CUDA_VISIBLE_DEVICES" >> {log}
wait $engine; code=$?
while kill -0 $engine 2>/dev/null; do wait $engine; code=$?; done
echo "$(date +%s.%N) end pid=$engine exit=$code" >> {log}
rm -f {pid}
echo $code > {exit}
exit $code
"""


class EngineError(DeepETPickerError, RuntimeError):
    """The engine did not do what it was started for; the message is its own last error."""


def writeScript(folder: str, words: Sequence[str], plugin: Any, threads: int = 0, queued: bool = False) -> str:
    """Write the shell script that starts the engine; return its path, relative to the working directory.

    Parameters
    ----------
    folder : str
        Folder of this start; holds the script, the process number and the messages.
    words : sequence of str
        Command line behind ``python -m deepetpicker``.
    plugin : type
        The plugin, which knows interpreter and activation.
    threads : int
        Threads the engine may use on the CPU; 0 leaves it the choice.
    queued : bool
        Whether a queue system chose the devices.
    """
    activation = plugin.getActivation()
    names = {"pid": ENGINE_PID, "exit": ENGINE_EXIT, "log": ENGINE_LOG, "errors": ENGINE_ERRORS}
    command = " ".join(shlex.quote(word) for word in (plugin.getPython(), "-m", "deepetpicker", *words))
    text = SCRIPT.format(
        cwd=shlex.quote(os.getcwd()), queued="yes" if queued else "no", command=command,
        ownEngine=exportOwnEngine(),
        environment=f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}" if threads else "",
        activation=f"{activation} || {{ echo 3 > {shlex.quote(os.path.join(folder, ENGINE_EXIT))}; exit 3; }}"
        if activation else "",
        **{key: shlex.quote(os.path.join(folder, name)) for key, name in names.items()})
    path = os.path.join(folder, ENGINE_SCRIPT)
    write_text(path, text)
    return path


def backgroundCommand(plugin: Any) -> Callable[[Sequence[str]], List[str]]:
    """Return what makes the command line of a process that runs the engine beside a window, in its environment.

    Parameters
    ----------
    plugin : type
        The plugin, which knows interpreter and activation.
    """
    def command(words: Sequence[str]) -> List[str]:
        engine = " ".join(shlex.quote(word) for word in (plugin.getPython(), "-m", "deepetpicker", *words))
        steps = [exportOwnEngine(), plugin.getActivation(), f"exec {engine}"]
        return ["bash", "-c", " && ".join(step for step in steps if step)]

    return command


def writeParams(folder: str, options: Mapping[str, Any], items: Sequence[Mapping[str, Any]],
                classes: Sequence[Mapping[str, Any]] = ()) -> str:
    """Write params.json into a folder; return its path."""
    path = os.path.join(folder, PARAMS_FILE)
    content = {"options": dict(options), "items": list(items)}
    if classes:
        content["classes"] = list(classes)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def readManifest(path: str) -> Optional[Dict[str, Any]]:
    """Return the content of a manifest.json, None when there is none that can be read."""
    try:
        return read_manifest(path)
    except DeepETPickerError:
        return None


def stopLeftovers(top: str) -> None:
    """End the engines that an earlier, killed run of a protocol left running anywhere below a folder.

    Raises
    ------
    EngineError
        If one may still run on another machine, or cannot be ended.
    """
    for path in sorted(pathlib.Path(top).rglob(ENGINE_PID)):
        stopLeftover(str(path.parent))


def stopLeftover(folder: str, grace_s: float = GRACE_S) -> bool:
    """End an engine that an earlier, killed run of the protocol left running in a folder.

    The engine keeps finished epochs and tomograms when it is asked to end.

    Parameters
    ----------
    folder : str
        Folder of the start.
    grace_s : float
        Seconds it gets to end by itself.

    Returns
    -------
    bool
        Whether there was one.

    Raises
    ------
    EngineError
        If it may still run on another machine, or cannot be ended.
    """
    path = pathlib.Path(folder, ENGINE_PID)
    try:
        host, *numbers = path.read_text("utf-8").split()
        pid, shell = map(int, [*numbers, 0][:2])
    except (OSError, ValueError):
        return False
    if host != socket.gethostname():
        raise EngineError(
            f"an engine was started on {host} (process {pid}) and has not reported its end: it may still be writing "
            f"into {folder}. Make sure that it has ended, remove {path}, then continue")
    found = isEngine(pid) and worksHere(pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        if found and isEngine(pid):
            os.kill(pid, number)
        while found and isEngine(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
    if found and isEngine(pid):
        raise EngineError(f"process {pid} on {host} still writes into {folder} and cannot be ended: end it, then "
                          "continue")
    deadline = time.monotonic() + grace_s
    while _runs(shell, b"bash") and worksHere(shell) and time.monotonic() < deadline:
        time.sleep(0.05)  # it notes in the folder how the engine ended
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return found


def isEngine(pid: int) -> bool:
    """Tell whether a process of that number exists on this machine, is an engine and is not a zombie."""
    return _runs(pid, b"deepetpicker")


def _runs(pid: int, word: bytes) -> bool:
    """Tell whether a process of that number exists on this machine, has a word in its command line and is no zombie."""
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return word in words and beginOf(pid) != ""


def worksHere(pid: int) -> bool:
    """Tell whether a process works in this project, and not in the one that this one is a copy of."""
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", os.curdir)
    except OSError:  # it is gone, or keeps it to itself
        return True


def beginOf(pid: int) -> str:
    """Return when a process of this machine began, in ticks of its clock; empty where there is none, or a zombie."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()
        return fields[19] if fields[0] != "Z" else ""
    except (OSError, IndexError):
        return ""


def lastError(folder: str) -> str:
    """Return the last error line the engine wrote in a folder; empty when there is none."""
    try:
        lines = pathlib.Path(folder, ENGINE_ERRORS).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    errors = [line.strip() for line in lines if "error:" in line]
    return errors[-1] if errors else next((line.strip() for line in reversed(lines) if line.strip()), "")


def exitCode(folder: str) -> Optional[int]:
    """Return how the last engine in a folder ended; None while it runs or when it was killed with its shell."""
    try:
        return int(pathlib.Path(folder, ENGINE_EXIT).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def signalOf(folder: str) -> int:
    """Return the signal that ended the last engine in a folder, as too little memory does; 0 when none did.

    One that asks a program to end, as Scipion's *Stop* and a queue's time limit do, does not count.
    """
    code = exitCode(folder) or 0
    return 0 if code in ASKED_TO_END else max(0, code - 128)


def whyEnded(folder: str) -> str:
    """Return why the last engine in a folder, which did not end well, ended."""
    number, code = signalOf(folder), exitCode(folder)
    if number:
        return f"the engine was ended by signal {number}" + (
            ", as happens when memory runs out" if number == signal.SIGKILL else "")
    said = lastError(folder)
    if code in ASKED_TO_END and "interrupted" not in said:  # before it began, or when it had said all
        return "the engine was interrupted, something has asked it to end: choose *Continue*"
    return said or f"the engine ended with status {code}: see the output log, and {folder}"


class EngineMixin:
    """What protocols that start the engine share."""

    def runEngine(self, folder: str, words: Sequence[str], gpu: bool = False) -> int:
        """Start the engine in a step and wait for it; return its exit status.

        Parameters
        ----------
        folder : str
            Folder of this start, relative to the project; made when missing.
        words : sequence of str
            Command line behind ``python -m deepetpicker``.
        gpu : bool
            Whether it may use the GPUs that Scipion gave the step.

        Returns
        -------
        int
            0 done, 1 some items failed.

        Raises
        ------
        EngineError
            If it ended in any other way; the message is the engine's own.
        """
        os.makedirs(folder, exist_ok=True)
        if stopLeftover(folder):
            self.info(f"{folder}: ended the engine that an earlier run had left running")
        for name in (ENGINE_EXIT, ENGINE_ERRORS):
            with contextlib.suppress(FileNotFoundError):
                pathlib.Path(folder, name).unlink()
        script = writeScript(folder, words, self.getClassPackage().Plugin, self._engineThreads(), bool(self.useQueue()))
        devices = ' "%(GPU)s"' if gpu and self.usesGpu() and self._stepsExecutor.getGpuList() else ""
        try:
            self.runJob("bash", script + devices, numberOfMpi=1)
        except Exception as error:  # how the job runner fails is its own affair: what counts is the exit status
            self.info(f"{folder}: the engine's job ended with: {error}")
        code = exitCode(folder)
        if code in (0, 1):
            return code
        raise EngineError(whyEnded(folder))

    def _engineThreads(self) -> int:
        """Return how many CPU threads the engine may use."""
        return int(self.getBinThreads() if self.modeParallel() else self.numberOfThreads.get())

    def _device(self) -> str:
        """Return the engine's device option: a GPU where there is one, unless the form says no."""
        return "auto" if self.usesGpu() else "cpu"

    def _doneManifest(self, folder: str) -> Dict[str, Any]:
        """Return the manifest in a folder.

        Raises
        ------
        EngineError
            If there is none.
        """
        manifest = readManifest(os.path.join(folder, MANIFEST_FILE))
        if manifest is None:
            raise EngineError(f"the engine left no {MANIFEST_FILE} in {folder}: see the output log")
        return manifest
