"""The ``deepetpicker`` command: reads the command line, runs one verb, turns every error into one line.

Only the module of the chosen verb is imported, and that imports torch inside its ``main``; so help and version need
neither torch nor numpy.

Exit status: 0 done, 1 some items failed, 2 bad input, 3 an error of the program itself, 130 interrupted (Ctrl-C,
SIGTERM or SIGHUP), 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from deepetpicker import __version__
from deepetpicker.errors import DeepETPickerError, suggestion
from deepetpicker.memory import NO_MEMORY, on_lost_file, take_blas_memory
from deepetpicker.terminal import OneLine, printable, printable_lines

# What help says of each verb; written here so that help imports no module.
VERBS: Dict[str, str] = {
    "simulate": "Simulate tomograms with known particles.",
    "propose": "Propose candidates without a model: blobs of the right size, or what looks like a few examples.",
    "check": "Tell whether coordinates fit their tomograms, or would flipped, swapped, scaled or shifted.",
    "train": "Train a picker from tomograms and labelled centres.",
    "refine": "Go on training a model with corrected picks, for a few minutes.",
    "pick": "Pick particles in tomograms with a trained model.",
    "rerun": "Repeat a run of train, pick or propose from its manifest and tell whether the result is the same.",
    "evaluate": "Score picks against known positions.",
    "report": "Write one page about a training or about picks: what to think of it, pictures, what went in.",
    "compare": "Compare two pick sets: what they share and what only one of them has.",
    "study": "Compare variants of training or methods on the same labels and budget.",
    "view": "See tomograms and picks in a window.",
    "annotate": "Annotate particles in tomograms, in a window.",
    "review": "Look through picks on contact sheets, in a window; keep what is right, refuse what is not.",
    "benchmark": "Time picking against the published algorithm on this machine.",
    "info": "Show what a model file says about itself.",
    "import-reference": "Turn a checkpoint of the published reference implementation into a model file.",
    "convert": "Convert a coordinate table from one format to another; picks from and to copick projects.",
}
KEPT: Dict[str, str] = {
    "train": "finished epochs are kept, and the same command goes on from the last of them",
    "refine": "finished epochs are kept, and the same command goes on from the last of them",
    "pick": "tomograms that were finished are kept",
    "study": "variants that were finished are kept, and the same command goes on with the others",
    "annotate": "everything that was annotated is kept, and the same command goes on with it",
    "review": "every answer is kept, and the same command goes on with the rest",
    "simulate": "tomograms that were finished are kept",
}
KEPT_ELSE = "files that were finished are kept"
DONE, SOME_FAILED, BAD_INPUT, INTERNAL, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WITHOUT_ARRAYS = ("info", "rerun")
WITH_TORCH = ("propose", "train", "refine", "pick", "study", "benchmark", "import-reference")
GRACE_S, STUCK_S = 2.0, 5.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal or the connection went away
starved: List[str] = []  # verbs that ended for want of memory


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest known option."""

    def error(self, message: str) -> Any:
        """Print one line and leave with status 2."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")

    def options(self) -> List[str]:
        """Return every flag that the parser knows."""
        return [flag for action in self._actions for flag in action.option_strings]


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, so that temporary files are removed on the way out.

    A second signal within two seconds belongs to the first (a shell may send both); a later one ends the process. So
    does what hangs: a thread that waits for a disk that does not answer cannot be interrupted.

    Parameters
    ----------
    verb : str
        What is interrupted, for the message.
    """

    def __init__(self, verb: str = "") -> None:
        self.first: Optional[float] = None
        self.owner, self.verb = os.getpid(), verb
        self.timer: Optional[threading.Timer] = None

    def __call__(self, number: int, frame: Optional[types.FrameType]) -> None:
        """Handle a signal."""
        if os.getpid() != self.owner:  # a worker process that inherited the handler dies as it would without
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.first is None:
            self.first = now
            self.timer = threading.Timer(STUCK_S, self.give_up)
            self.timer.daemon = True
            self.timer.start()
            raise KeyboardInterrupt
        if now - self.first > GRACE_S:
            os._exit(INTERRUPTED)

    def give_up(self) -> None:
        """End the process although something in it still waits."""
        with contextlib.suppress(OSError):
            os.write(2, f"deepetpicker {self.verb}: interrupted; did not wait for what hangs (a disk that does not "
                        f"answer?): {KEPT.get(self.verb, KEPT_ELSE)}\n".encode())
        os._exit(INTERRUPTED)

    def ended(self) -> None:
        """Do not give up: everything has ended in time."""
        if self.timer is not None:
            self.timer.cancel()


def build_parser(argv: Sequence[str]) -> Tuple[Parser, Optional[Parser]]:
    """Return the parser of the whole command line and that of the verb in argv.

    Parameters
    ----------
    argv : sequence of str
        The words behind ``deepetpicker``. Only the module of their verb is imported.

    Returns
    -------
    tuple of Parser
        The second is None when argv names no verb.
    """
    top = Parser(prog="deepetpicker", allow_abbrev=False,
                 description="Pick particles in cryo-electron tomograms with a network trained on a few centres.",
                 epilog="deepetpicker VERB --help shows the options of a verb.")
    top.add_argument("--version", action="version", version=f"deepetpicker {__version__}")
    add_common(top, top_level=True)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    word = next((word for word in argv if not word.startswith("-")), None)
    if word is not None and word not in VERBS:
        near = suggestion(word.replace("_", "-"), list(VERBS)) or f"; there are {', '.join(VERBS)}"
        top.error(f"unknown verb {word!r}{near}")
    chosen = None
    for verb, text in VERBS.items():
        parser = verbs.add_parser(verb, help=text, description=text, allow_abbrev=False)
        if verb == word:
            load(verb).add_arguments(parser)
            add_common(parser)
            chosen = parser
    return top, chosen


def add_common(parser: argparse.ArgumentParser, top_level: bool = False) -> None:
    """Add the options that every verb has; before the verb only those that take no value."""
    group = parser.add_argument_group("options of every verb")
    unset: Any = False if top_level else argparse.SUPPRESS
    group.add_argument("--debug", action="store_true", default=unset, help="show the full traceback of an error")
    group.add_argument("--quiet", action="store_true", default=unset, help="show warnings and errors only")
    if not top_level:
        group.add_argument("--params", metavar="FILE", default=None,
                           help="JSON file with options and items; flags of the command line override it")


def load(verb: str) -> types.ModuleType:
    """Return the module of a verb."""
    return importlib.import_module(f"deepetpicker.cli.{verb.replace('-', '_')}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line, or leave with status 2 and one line.

    Raises
    ------
    SystemExit
        Also after ``--help`` and ``--version``.
    """
    top, chosen = build_parser(argv)
    if chosen is not None:
        check_flags(argv, chosen)  # before the parser would complain of what a mistyped flag left missing
    args = top.parse_args(argv)
    if chosen is None:
        top.print_help(sys.stderr)
        raise SystemExit(BAD_INPUT)
    return args


def check_flags(argv: Sequence[str], parser: Parser) -> None:
    """Leave with status 2 and the nearest known flag when argv holds one that parser does not know."""
    words = list(argv)
    flags = [word.split("=")[0] for word in words[:words.index("--") if "--" in words else None]]
    unknown = [flag for flag in flags if flag.startswith("--") and flag not in (*parser.options(), "--version")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}{suggestion(unknown[0], parser.options())}")


@contextlib.contextmanager
def console(debug: bool, quiet: bool, verb: str = "") -> Iterator[Interrupts]:
    """Set up messages and signals while a verb runs, and put back what was there before."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(OneLine("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[shown])  # what others have to say of less is not for users
    logger = logging.getLogger("deepetpicker")
    level, show = logger.level, warnings.showwarning
    logger.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    if not debug:
        warnings.showwarning = show_warning  # type: ignore[assignment]
    handler = Interrupts(verb)
    before: Dict[signal.Signals, Any] = {}
    try:
        with contextlib.suppress(ValueError):  # only the main thread may; elsewhere the caller handles signals
            before = {number: signal.signal(number, handler) for number in STOPS
                      if signal.getsignal(number) is not signal.SIG_IGN}
        yield handler
    finally:
        handler.ended()
        for number, old in before.items():
            signal.signal(number, old)
        warnings.showwarning = show
        logger.setLevel(level)


def show_warning(message: Any, category: type, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Show a warning as one line without the place in the code."""
    logging.getLogger(__name__).warning("warning: %s", one_line(message))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words behind ``deepetpicker``; default: those of the process.

    Returns
    -------
    int
        The exit status; see the top of this module.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    on_lost_file(lost)
    debug, verb = "--debug" in words, "deepetpicker"
    try:
        args = parse(words)
        debug, verb = args.debug, args.verb
        return run(args)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else DONE if leaving.code is None else INTERNAL
    except BaseException as error:  # whatever happens, the user gets one line and a status
        if debug:
            sys.stderr.write(printable_lines(traceback.format_exc()))
        return report(verb, error)


def lost(path: str) -> None:
    """Say that a file that is mapped into memory can be read no more, and end the process."""
    text = (f"deepetpicker: error: cannot read {printable(path) or 'a file that is in use'} any more: it was cut or "
            "overwritten while it was used, or its disk failed or is full; put it back and run the same command "
            "again\n")
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "replace"))
    os._exit(BAD_INPUT)


def run(args: argparse.Namespace) -> int:
    """Run the verb of a parsed command line and return the exit status.

    Raises
    ------
    KeyboardInterrupt
        After a signal, also where a library turned it into SystemExit.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait take the
    # cores from others, and crawl beside them (docs/performance.rst)
    with console(args.debug, args.quiet, args.verb) as interrupts:
        try:
            verb = load(args.verb)
            if args.verb not in WITHOUT_ARRAYS:
                take_blas_memory(args.verb in WITH_TORCH)
            status = int(verb.main(args) or DONE)
            sys.stdout.flush()
        except SystemExit:
            if interrupts.first is None:
                raise
            raise KeyboardInterrupt from None
    return status


def report(verb: str, error: BaseException) -> int:
    """Write the one line an error deserves to standard error and return the exit status."""
    status, text = describe(verb, error)
    if is_for_memory(error):
        starved.append(verb)
    name = "deepetpicker" if verb == "deepetpicker" else f"deepetpicker {verb}"
    if status == PIPE_CLOSED:  # nothing more can be said there; keep the interpreter's last flush silent too
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{name}: {printable(text)}\n")
    return status


def describe(verb: str, error: BaseException) -> Tuple[int, str]:
    """Return the exit status of an error and the text behind ``deepetpicker VERB:``."""
    text = one_line(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted: {text or KEPT.get(verb, KEPT_ELSE)}"
    if isinstance(error, DeepETPickerError):
        return BAD_INPUT, f"error: {text}"
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED, ""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" for {error.filename}" if error.filename else ""
        what = "a file would be larger than is allowed here" if error.errno == errno.EFBIG else "no space left"
        return BAD_INPUT, (f"error: {what}{where}: free some space or choose another output folder; no half-written "
                           "file was left under its final name")
    if is_for_memory(error):
        return BAD_INPUT, f"error: not enough memory{': ' + text if text else ''}: close other programs or use a " \
                          "smaller tile, batch or volume"
    if isinstance(error, OSError) and error.filename:
        return BAD_INPUT, f"error: {error.strerror or type(error).__name__}: {error.filename}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("deepetpicker"):
        return BAD_INPUT, (f"error: {verb} needs the Python package {error.name!r}, which this Python "
                           f"({sys.version.split()[0]}) has not: install deepetpicker with its requirements "
                           "on Python 3.9 or newer")
    return INTERNAL, f"internal error: {type(error).__name__}: {text} (run again with --debug for the traceback)"


def is_for_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ended: Python's, the system's, or what PyTorch makes of it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, ImportError)) and any(
        one.lower() in str(error).lower() for one in NO_MEMORY))


def one_line(value: Any) -> str:
    """Return the text of value with every run of white space as one blank."""
    return " ".join(str(value).split())


def command() -> None:
    """Run the command line as a process of its own, and end that with its exit status.

    A process that had too little memory may have threads of libraries that ask for it without end. The system's way to
    end a process waits for them; so it is not taken then, once Python has cleaned up.
    """
    atexit.register(leave)  # the first that is registered is called last
    open_streams()
    sys.exit(main())


def open_streams() -> None:
    """Put the null device where standard input, output or error is closed: else the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def leave() -> None:
    """End the process at once if memory has ended."""
    if starved:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os._exit(BAD_INPUT)


if __name__ == "__main__":
    command()
