"""The kinds of faults: each disturbs one run of a verb, lets it go on, and says what is wrong afterwards.

Every kind is a function of bench, verb, folder and random numbers. It returns how the disturbed run ended; whoever
calls it goes on with the same command and compares.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
from bench import VERBS, Bench, Ended, half_written, orphans, result

from deepetpicker.io.volumes import open_volume, write_volume

Fault = Callable[[Bench, str, pathlib.Path, np.random.Generator], Ended]
FULL = r"disk is full|no space left|larger than (is )?allowed"
MEMORY = r"memory|start new thread|cannot allocate"
UNREADABLE = r"truncated|cut while|cannot read|changed while|empty|not an MRC file|no valid header"
DAMAGED = ("truncated", "zeros", "flipped")


def moment(bench: Bench, verb: str, rng: np.random.Generator) -> None:
    """Wait for a random part of what the verb takes."""
    time.sleep(float(rng.uniform(0.02, 1)) * bench.seconds[verb])


# ---- signals
def signalled(number: int, bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Send a signal at a random moment."""
    run = bench.start(verb, folder)
    moment(bench, verb, rng)
    run.signal(number)
    return checked(run, run.wait(30))


def paused(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Stop the process at a random moment for half a second, as a disk that does not answer does."""
    run = bench.start(verb, folder)
    moment(bench, verb, rng)
    run.signal(signal.SIGSTOP)
    time.sleep(0.5)
    run.signal(signal.SIGCONT)
    return checked(run, run.wait())


def checked(run: Any, ended: Ended) -> Ended:
    """Return how a run ended, with what else is wrong in its text."""
    left = orphans(run.pid)
    return dataclasses.replace(ended, told=f"{ended.told}\nWRONG: {left}") if left else ended


# ---- limits
@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: int) -> Iterator[Callable[[], None]]:
    """Put a file system of size bytes where outputs go; yield what makes it large. Needs root."""
    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)

    mount(f"size={size}")
    try:
        yield functools.partial(mount, "remount,size=64m")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def full_disk(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Let the outputs' file system be too small; what was written is carried over to a larger one."""
    size = 4096 * int(rng.integers(1, NEEDED[verb]))
    with small_disk(folder / "out", size):
        run = bench.start(verb, folder)
        ended = checked(run, run.wait())
        shutil.copytree(folder / "out", folder / "kept", symlinks=True)
    shutil.rmtree(folder / "out")
    os.rename(folder / "kept", folder / "out")
    return ended


def limit(what: int, value: int) -> None:
    """Limit a resource of this process."""
    resource.setrlimit(what, (value, value))


def small_files(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Let no file be larger than two to some hundred kilobytes, as a quota does."""
    size = int(np.exp(rng.uniform(np.log(2000), np.log(3e5))))
    run = bench.start(verb, folder, functools.partial(limit, resource.RLIMIT_FSIZE, size))
    return checked(run, run.wait())


def limit_memory(spare: int) -> None:
    """Let this process have so many bytes more than it has."""
    with open("/proc/self/statm") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    limit(resource.RLIMIT_AS, used + spare)


def little_memory(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Leave 1 to 200 MB of memory."""
    spare = int(np.exp(rng.uniform(np.log(1e6), np.log(2e8))))
    run = bench.start(verb, folder, functools.partial(limit_memory, spare))
    return checked(run, run.wait())


NEEDED: Dict[str, int] = {"pick": 20, "train": 60, "propose": 60, "annotate": 14, "report": 70}  # blocks of 4 kB


# ---- permissions
class _Rights(ctypes.Structure):
    """What Linux calls ``cap_user_data_t``, twice."""

    _fields_ = (("bits", ctypes.c_uint32 * 6),)


def give_up_rights() -> None:
    """Give up what root may do beyond others, so that permissions hold for this process."""
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if os.geteuid() == 0 and ctypes.CDLL(None).capset(ctypes.byref(version), ctypes.byref(_Rights())):
        raise OSError("cannot give up the rights of root")


def no_permission(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Take the right to write away at a random moment, from the output folder and all folders in it."""
    run = bench.start(verb, folder, give_up_rights)
    moment(bench, verb, rng)
    try:
        rights(folder / "out", 0o500)
        return checked(run, run.wait())
    finally:
        rights(folder / "out", 0o700)


def rights(folder: pathlib.Path, mode: int) -> None:
    """Change the permissions of folders."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, mode)


# ---- inputs
def cut_under_way(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Cut a tomogram at a random moment, as a failing copy or disk does, and put it back afterwards."""
    path = folder / "data" / f"tomo_{int(rng.integers(3)):02d}.mrc"
    content, state = path.read_bytes(), path.stat()
    run = bench.start(verb, folder)
    moment(bench, verb, rng)
    os.truncate(path, int(rng.integers(0, len(content))))
    ended = checked(run, run.wait())
    with open(path, "r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return ended


def reading_hangs(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Let reading a tomogram hang for ever, then interrupt; it must end within ten seconds."""
    run = bench.start(verb, folder, functools.partial(hang, int(rng.integers(0, HANGS[verb]))))
    time.sleep(bench.seconds[verb] + 0.5)
    run.signal((signal.SIGTERM, signal.SIGINT)[int(rng.integers(2))])
    ended = run.wait(10)
    return checked(run, dataclasses.replace(ended, told=ended.told + "\nWRONG: it hangs") if ended.status == -99
                   else ended)


HANGS: Dict[str, int] = {"pick": 10, "train": 12, "propose": 6, "annotate": 3, "report": 6}  # calls that may hang


def hang(call: int) -> None:
    """Let one call that reads or opens a tomogram hang, as a network file system does."""
    from deepetpicker.io.volumes import reading

    calls = iter(range(10 ** 9))

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def slowly(*args: Any, **given: Any) -> Any:
            if next(calls) == call:
                while True:
                    time.sleep(1)
            return function(*args, **given)

        return slowly

    reading.Volume.read = slow(reading.Volume.read)  # type: ignore[method-assign]
    reading._read_header_bytes = slow(reading._read_header_bytes)  # type: ignore[assignment]


def other_data(data: pathlib.Path, in_place: bool = False) -> None:
    """Replace the second tomogram by its negative: another file of the same size."""
    path = data / "tomo_01.mrc"
    volume = open_volume(path, quiet=True)
    write_volume(data / "new.mrc", -np.array(volume.data_zyx), volume.voxel_size_ang)
    if in_place:
        content = (data / "new.mrc").read_bytes()
        with open(path, "r+b") as stream:
            stream.write(content)
        (data / "new.mrc").unlink()
    else:
        os.replace(data / "new.mrc", path)


def input_changed(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Change a tomogram at a random moment; what follows must give what the changed one gives."""
    run = bench.start(verb, folder)
    moment(bench, verb, rng)
    other_data(folder / "data", in_place=bool(rng.integers(2)))
    return checked(run, run.wait())


# ---- what was written is damaged
def damaged(pattern: str, bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Kill the run at a random moment, or let it end, and damage the newest file of a kind."""
    run = bench.start(verb, folder)
    if rng.random() < 0.7:
        moment(bench, verb, rng)
        run.signal(signal.SIGKILL)
    ended = checked(run, run.wait())
    found = sorted((p for p in (folder / "out").rglob(pattern) if p.is_file() and not p.is_symlink()),
                   key=lambda p: p.stat().st_mtime_ns)
    if found:
        spoil(found[-1], DAMAGED[int(rng.integers(3))], rng)
    return ended


def spoil(path: pathlib.Path, how: str, rng: np.random.Generator) -> None:
    """Damage a file: cut it, write zeros over a part, or flip one to four bits."""
    data = bytearray(path.read_bytes())
    if how == "truncated" or not data:
        del data[int(rng.integers(0, len(data) + 1)):]
    elif how == "zeros":
        at = int(rng.integers(0, len(data)))
        end = min(len(data), at + int(rng.integers(1, 4096)))
        data[at:end] = bytes(end - at)
    else:
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(bytes(data))


def picks_damaged(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Damage a file of the picks that are reported on; it is put back afterwards."""
    found = sorted(path for path in (folder / "picks").rglob("*") if path.is_file())
    path = found[int(rng.integers(len(found)))]
    content, state = path.read_bytes(), path.stat()
    spoil(path, DAMAGED[int(rng.integers(3))], rng)
    run = bench.start(verb, folder)
    ended = checked(run, run.wait())
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return ended


# ---- the clock
def clock_back(bench: Bench, verb: str, folder: pathlib.Path, rng: np.random.Generator) -> Ended:
    """Kill a run whose files are of tomorrow; it goes on today, with a clock that goes back on the way."""
    run = bench.start(verb, folder)
    moment(bench, verb, rng)
    run.signal(signal.SIGKILL)
    ended = checked(run, run.wait())
    tomorrow = time.time() + 86400
    for path in (folder / "out").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (tomorrow, tomorrow))
    again = bench.start(verb, folder, functools.partial(turn_back, int(rng.integers(1, 20))))
    after = checked(again, again.wait())
    return after if after.status else ended


def turn_back(calls: int) -> None:
    """Let the clock of this process go back by a day after some calls."""
    real, seen = time.time, iter(range(10 ** 9))
    time.time = lambda: real() - (86400 if next(seen) >= calls else 0)  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    fault : callable
        Disturbs a run.
    verbs : tuple of str
        Where it can strike.
    says : str
        Regular expression of what a run that did not end well must say.
    statuses : tuple of int
        How a disturbed run may end.
    changed : callable, optional
        What the fault does to the data for good: results are those of a run with such data.
    may_refuse : str
        Regular expression; going on may be refused with it, when nothing else would be right.
    """

    fault: Fault
    verbs: Tuple[str, ...] = VERBS
    says: str = ""
    statuses: Tuple[int, ...] = (0, 1, 2)
    changed: Optional[Callable[[pathlib.Path], Any]] = None
    may_refuse: str = ""


def damage(pattern: str, *verbs: str, may_refuse: str = "") -> Kind:
    """Return the kind of fault that damages files of a name."""
    return Kind(functools.partial(damaged, pattern), verbs, "", (0, -9), may_refuse=may_refuse)


KINDS: Dict[str, Kind] = {
    "SIGKILL": Kind(functools.partial(signalled, signal.SIGKILL), statuses=(0, -9)),
    "SIGTERM": Kind(functools.partial(signalled, signal.SIGTERM), says="interrupted", statuses=(0, 130, -15)),
    "Ctrl-C": Kind(functools.partial(signalled, signal.SIGINT), says="interrupted", statuses=(0, 130, 1)),
    "paused": Kind(paused, statuses=(0,)),
    "full disk": Kind(full_disk, says=FULL),
    "file size": Kind(small_files, says=FULL),
    "little memory": Kind(little_memory, says=MEMORY),
    "no permission": Kind(no_permission, says="[Pp]ermission"),
    "tomogram cut": Kind(cut_under_way, says=UNREADABLE),
    "reading hangs": Kind(reading_hangs, says="interrupted", statuses=(0, 130)),
    "input changed": Kind(input_changed, ("pick", "train", "propose", "report"), UNREADABLE, changed=other_data),
    "checkpoint damaged": damage("last.ckpt", "train"),
    "model damaged": damage("m.safetensors", "train"),
    "metrics damaged": damage("metrics.csv", "train"),
    "params damaged": damage("params.json", "train"),
    "manifest damaged": damage("manifest.json", "pick", "train", "propose"),
    "record damaged": damage("records/*.json", "pick"),
    "table damaged": damage("tomo_*.csv", "pick", "propose"),
    "journal damaged": damage("journal.jsonl", "annotate", may_refuse="is damaged|makes no sense|is missing before"),
    "snapshot damaged": damage("annotation.json", "annotate", may_refuse="is damaged|makes no sense|format version"),
    "picks damaged": Kind(picks_damaged, ("report",), "damaged|cannot be read|expected|is no |is not "),
    "clock": Kind(clock_back, statuses=(0, -9)),
}

NEED_ROOT = ("full disk",)


def places() -> List[Tuple[str, str]]:
    """Return all pairs of a kind and a verb where it can strike."""
    return [(name, verb) for name, kind in KINDS.items() for verb in kind.verbs]


def survive(bench: Bench, name: str, verb: str, rng: np.random.Generator) -> str:
    """Disturb a run once, go on, and return what is wrong; empty when nothing is."""
    kind = KINDS[name]
    expected, folder = bench.expected(verb, kind.changed), bench.place()
    try:
        first = kind.fault(bench, verb, folder, rng)
        problem = wrong_end(kind, first) or ("" if "damaged" in name else half_written(folder / "out"))
        if problem:
            return problem
        again = bench.start(verb, folder)
        ended = again.wait()
        if ended.status == 2 and kind.may_refuse and re.search(kind.may_refuse, ended.told):
            return ""
        if ended.status:
            return f"going on ended with {ended.status}: {ended.told[-400:]}"
        for aside in (folder / "out").glob("m_run_*"):  # the damaged run is kept as it was
            shutil.rmtree(aside)
        problem = half_written(folder / "out") or orphans(again.pid)
        return problem or ("" if result(verb, folder) == expected else "another result")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wrong_end(kind: Kind, ended: Ended) -> str:
    """Return what is wrong with how a disturbed run ended; empty when nothing is."""
    if "WRONG: " in ended.told:
        return ended.told.rpartition("WRONG: ")[2]
    if ended.status not in kind.statuses:
        return f"ended with {ended.status}: {ended.told[-400:]}"
    if ended.status > 0 and not re.search(kind.says, ended.told):
        return f"does not say what happened: {ended.told[-400:]}"
    return ""
