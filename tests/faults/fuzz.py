"""Feed broken and hostile files to every reader and count what becomes of them.

``python tests/faults/fuzz.py --inputs 20000 --seed 1`` prints a row per reader: how many files were tried, refused with
a documented error, read, and anything else. Anything else is a defect: another exception, more than 5 s of the
processor or 30 s of waiting, more memory than the limit, a process started, or a file written outside the folder. Such
files are kept with ``--keep DIR``, each in a folder of its own.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import logging
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
from mutations import mutate
from readers import READERS, Reader, seeds

from deepetpicker.errors import DeepETPickerError

SLOWEST_S, LONGEST_S = 5.0, 30.0  # of the processor, and in all: other programs may take it
SPARE_BYTES = 1 << 30
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.remove",
             "os.rename", "os.rmdir", "os.chmod", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")


class Watch:
    """Notes what the interpreter does while a file is read; stands for a sandbox."""

    def __init__(self) -> None:
        self.folder, self.seen = "", []  # type: Tuple[str, List[str]]
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: Tuple[Any, ...]) -> None:
        """Note processes that are started, and files that are changed outside the folder."""
        if not self.folder:
            return
        if event in FORBIDDEN and not self._inside(args):
            self.seen.append(f"{event}{args!r:.200}")
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not self._inside(args) and str(args[0]) != os.devnull:
            self.seen.append(f"open for writing {args[0]!r:.200}")

    def _inside(self, args: Tuple[Any, ...]) -> bool:
        """Tell whether the first argument is a path in the folder, or no path."""
        first = args[0] if args else ""
        if not isinstance(first, (str, bytes)):
            return isinstance(first, int)
        return os.path.realpath(os.fsdecode(first)).startswith(self.folder + os.sep)


WATCH = Watch()


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Raise TimeoutError after 5 s of the processor or 30 s in all, and MemoryError for 1 GB more than there is now."""
    def late(number: int, frame: Any) -> None:
        raise TimeoutError("more than 5 s of the processor" if number == signal.SIGPROF else "more than 30 s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SLOWEST_S), (signal.SIGALRM, signal.ITIMER_REAL, LONGEST_S))
    handlers = [signal.signal(number, late) for number, _, _ in timers]
    with open("/proc/self/statm") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, before[1]))
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, handlers):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(reader: Reader, path: pathlib.Path) -> str:
    """Return ``refused``, ``read``, or what else happened when a file is read."""
    WATCH.seen, WATCH.folder = [], os.path.realpath(path.parents[reader.filename.count("/")])
    try:
        with limits(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            reader.read(path)
        found = "read"
    except DeepETPickerError as error:
        found = "refused" if str(error) else "an error without a text"
    except BaseException as error:  # whatever it is, it is what we look for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{pathlib.Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        found = f"{type(error).__name__} at {where}"
    finally:
        WATCH.folder = ""
    return f"it did {WATCH.seen[0]}" if WATCH.seen else found


def attack(reader: Reader, valid: List[Any], inputs: int, seed: int, keep: str = "") -> Dict[str, int]:
    """Return how often each outcome came; the same seed gives the same files."""
    rng, found = np.random.default_rng([seed, *reader.name.encode()]), collections.Counter()  # type: Any
    work = pathlib.Path(tempfile.mkdtemp())
    try:
        for _ in range(inputs):
            one, other = (valid[int(rng.integers(0, len(valid)))] for _ in range(2))
            change = reader.mutate or mutate
            content = reader.generate(rng) if reader.generate and rng.random() < 0.4 else change(rng, one, other)
            path = work / "in" / reader.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            reader.write(path, content)
            kind = outcome(reader, path)
            found[kind] += 1
            if keep and kind not in ("read", "refused") and found[kind] == 1:
                kept = pathlib.Path(keep, f"{reader.name}_{len(found)}", reader.filename)
                kept.parent.mkdir(parents=True, exist_ok=True)
                reader.write(kept, content)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return dict(found)


def main() -> int:
    """Run the command line; return 1 when anything else than a refusal or a table came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000, help="files per reader of weight 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=sorted(READERS))
    parser.add_argument("--keep", default="", help="folder for files that made trouble")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    bad, total = 0, collections.Counter()  # type: Any
    print(f"{'reader':14}{'tried':>8}{'refused':>9}{'read':>8}{'other':>7}{'seconds':>9}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.readers:
            start, reader = time.monotonic(), READERS[name]
            found = attack(reader, seeds(reader, pathlib.Path(folder)), max(1, int(args.inputs * reader.weight)),
                           args.seed, args.keep)
            tried, others = sum(found.values()), {k: n for k, n in found.items() if k not in ("read", "refused")}
            row = (tried, found.get("refused", 0), found.get("read", 0), sum(others.values()))
            total.update(dict(zip(("tried", "refused", "read", "other"), row)))
            print(f"{name:14}{row[0]:8}{row[1]:9}{row[2]:8}{row[3]:7}"
                  f"{time.monotonic() - start:9.1f}", flush=True)
            for kind, count in sorted(others.items(), key=lambda pair: -pair[1]):
                print(f"    {count:6} {kind}", flush=True)
            bad += len(others)
    print(f"{'in all':14}{total['tried']:8}{total['refused']:9}{total['read']:8}{total['other']:7}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
