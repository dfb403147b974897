"""Processes that start warm: forked from one that has Scipion and torch loaded, which takes 5 s each time anew.

A protocol and the engine run in processes of their own here as everywhere; only loading the packages is done once, and
Scipion looks more often whether a step has ended, which takes up to 3 s for every step of a protocol with threads. The
program that :class:`WarmPython` writes stands for ``python``. It hands command line, environment, working directory and
open files to the loaded process, passes signals on, and ends as the process that was forked for it does. Where the
environment is not the tests', and for other programs, it becomes the real interpreter.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import pathlib
import random
import runpy
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import types
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Tuple

LOADED = ("deepetpicker.simulation.run", "deepetpicker.report.run", "deepetpicker.picking.run",
          "deepetpicker.training.run", "deepetpicker.checking.run", "deepetpicker.proposing.run",
          "matplotlib.backends.backend_agg", "tensorboard.compat.proto.event_pb2", "deepetpicker_plugin.protocols",
          "tomo.protocols", "pyworkflow.protocol")
READ_ONCE = ("SCIPION_", "DEEPETPICKER_", "PYTHON")  # variables that packages read when they are loaded
OF_A_RUN = ("SCIPION_PROJ_ID", "SCIPION_PROT_ID")  # and those that they do not
LONGEST_S = 0.05  # between two looks whether a step of a protocol has ended
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

CLIENT = """#!{python} -IS
import array, json, os, signal, socket, sys
words, loaded = sys.argv[1:], socket.socket(socket.AF_UNIX)
try:
    if words[0] != "-c" and words[:2] != ["-m", "deepetpicker"] and not words[0].endswith("pw_protocol_run.py"):
        raise ConnectionRefusedError
    loaded.connect({address!r})
    for number in {signals}:
        signal.signal(number, lambda number, frame: loaded.send(bytes([number])))
    request = json.dumps([words, dict(os.environ), os.getcwd()]).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    loaded.sendmsg([len(request).to_bytes(4, "big")], files)
    loaded.sendall(request)
    is_taken = loaded.recv(1) == b"y"
except (OSError, IndexError):
    is_taken = False
if not is_taken:
    for number in {signals}:
        signal.signal(number, signal.SIG_DFL)
    os.execv({python!r}, [{python!r}, *words])
status = int.from_bytes(loaded.recv(4) or (70).to_bytes(4, "big"), "big", signed=True)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class WarmPython:
    """The program that stands for python; it is the real one until :meth:`start`.

    Parameters
    ----------
    folder : str
        Where it is written.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "python")
        self._address = os.path.join(folder, "loaded")
        self._process: Optional[subprocess.Popen] = None
        signals = [int(number) for number in SIGNALS]
        text = CLIENT.format(python=sys.executable, address=self._address, signals=signals)
        pathlib.Path(self.path).write_text(text, "utf-8")
        os.chmod(self.path, os.stat(self.path).st_mode | stat.S_IXUSR)

    def start(self) -> None:
        """Begin to load; whoever comes meanwhile waits. It ends with this process."""
        if self._process is not None:
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen([sys.executable, __file__, str(listener.fileno()), self.path],
                                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                             pass_fds=[listener.fileno()], start_new_session=True)


class Request(NamedTuple):
    """What is to be run: words behind python, environment, working directory, and open files for 0, 1 and 2."""

    words: List[str]
    environ: Dict[str, str]
    folder: str
    files: List[int]


def receive(connection: socket.socket) -> Request:
    """Return what a client asks for."""
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(12))
    files = array.array("i", ancillary[0][2])
    wanted, parts = int.from_bytes(head, "big"), b""
    while len(parts) < wanted:
        parts += connection.recv(wanted - len(parts)) or sys.exit("the client went away")
    return Request(*json.loads(parts), list(files))


def read_once(environ: Mapping[str, str]) -> List[Tuple[str, Tuple[str, ...]]]:
    """Return the variables that packages read when they are loaded; a folder counts once in a search path."""
    return sorted((name, tuple(dict.fromkeys(value.split(os.pathsep)))) for name, value in environ.items()
                  if name.startswith(READ_ONCE) and name not in OF_A_RUN)


def serve(listener: socket.socket) -> Optional[Request]:
    """Fork for each client, until the tests end; return, in the process that shall run it, what a client asks for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return None
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return attend(connection)
        connection.close()


def attend(connection: socket.socket) -> Request:
    """Return, in a forked process, what the client asks for; in this one pass signals on and report the end."""
    request = receive(connection)
    if read_once(request.environ) != read_once(os.environ):
        os._exit(connection.send(b"n"))
    connection.sendall(b"y")
    process = os.fork()
    if not process:
        connection.close()
        return request
    for file in request.files:
        os.close(file)
    end = os.pidfd_open(process)
    while end not in select.select([end, connection], [], [])[0]:
        for number in connection.recv(16) or [signal.SIGKILL]:  # a killed client takes its process along
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
    status = os.waitpid(process, 0)[1]
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    with contextlib.suppress(OSError):
        connection.sendall(code.to_bytes(4, "big", signed=True))
    os._exit(0)


def run(request: Request, python: str) -> None:
    """Become the process that was asked for."""
    import numpy as np
    import torch

    for number, file in enumerate(request.files):
        os.dup2(file, number)
        os.close(file)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environ)
    random.seed()
    np.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    sys.executable = python
    first, *more = request.words
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *more[1:]], ""
        exec(compile(more[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = more, os.getcwd()
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = request.words, os.path.dirname(first)
        runpy.run_path(first, run_name="__main__")


def end(request: Request, python: str) -> NoReturn:
    """Run what was asked for and end as Python ends, but leave the memory of the loaded packages to the system."""
    code: Any = 0
    try:
        run(request, python)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 255)


def look_often() -> None:
    """Let Scipion's executors of steps sleep for no more than a moment."""
    from pyworkflow.protocol import executor

    executor.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, LONGEST_S)))


def main() -> None:
    """Load the packages, then fork for whoever asks."""
    for name in LOADED:
        importlib.import_module(name)
    import pyworkflow

    look_often()
    pyworkflow.Config.getDomain().getProtocols()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        request, python = serve(listener), sys.argv[2]
    if request is not None:
        end(request, python)


if __name__ == "__main__":
    main()
