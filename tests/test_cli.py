"""The command line: verbs, exit status, one line per error, help without numpy or torch."""

from __future__ import annotations

import argparse
import ast
import errno
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import types
import warnings
from typing import Any, Callable, Iterator, List

import pytest

import deepetpicker
from deepetpicker import __main__ as command
from deepetpicker.errors import DeviceMemoryError, FormatError, InputError, ModelFileError, OutputError

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXISTING = [verb for verb in command.VERBS if (ROOT / f"engine/deepetpicker/cli/{verb.replace('-', '_')}.py").exists()]


def run(words: List[str], code: str = "", timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line (or Python code) in a process of its own."""
    start = ["-c", code] if code else ["-m", "deepetpicker"]
    return subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, cwd=ROOT, check=False,
                          timeout=timeout, **options)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], types.ModuleType]]:
    """Return a function that puts a module in the place of ``info``; its main does what it is given."""
    def put(action: Callable[[argparse.Namespace], Any]) -> types.ModuleType:
        module = types.ModuleType("deepetpicker.cli.info")
        module.add_arguments = lambda parser: parser.add_argument("model", nargs="?")  # type: ignore[attr-defined]
        module.main = action  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "deepetpicker.cli.info", module)
        return module

    return put


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    """Return a main that raises error."""
    def action(args: argparse.Namespace) -> int:
        raise error

    return action


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"deepetpicker {deepetpicker.__version__}\n"


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]):
    assert command.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for verb, line in command.VERBS.items():
        assert f"{verb} {line}" in text


def test_every_function_of_the_package_is_a_verb():
    assert set(deepetpicker.__all__) <= {verb.replace("-", "_") for verb in command.VERBS}


def test_every_verb_has_its_module_and_every_module_its_verb():
    others = {path.stem for path in (ROOT / "engine/deepetpicker/cli").glob("*.py")} - {"__init__"}
    assert others == {verb.replace("-", "_") for verb in command.VERBS}


@pytest.mark.parametrize("verb", EXISTING)
def test_every_module_has_the_two_functions(verb: str):
    tree = ast.parse((ROOT / f"engine/deepetpicker/cli/{verb.replace('-', '_')}.py").read_text("utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"add_arguments", "main"} <= names
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("words", [["--version"], ["--help"], [], *[[verb, "--help"] for verb in EXISTING]],
                         ids=" ".join)
def test_help_loads_neither_numpy_nor_torch(words: List[str]):
    code = ("import sys; from deepetpicker.__main__ import main; status = main(sys.argv[1:]); "
            "print('LOADED', sorted({'numpy', 'torch', 'lightning', 'scipy', 'mrcfile', 'matplotlib', 'pandas'} "
            "& set(sys.modules))); sys.exit(status)")
    done = run(words, code)
    assert done.stdout.rstrip().endswith("LOADED []"), done.stdout[-300:] + done.stderr
    assert done.returncode == (0 if words else 2)


@pytest.mark.parametrize("verb", EXISTING)
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]):
    assert command.main([verb, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: deepetpicker {verb}")
    assert all(flag in text for flag in ("--debug", "--quiet", "--params FILE"))
    for one in re.split(r" (?=--[a-z])", text):  # an option has one default, in words or as a value
        assert one.count("default: ") <= 1, one


def test_no_verb_shows_help_and_is_bad_input(capsys: pytest.CaptureFixture[str]):
    assert command.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "simulate" in shown.err


@pytest.mark.parametrize(("word", "near"), [("pik", "pick"), ("import_reference", "import-reference"),
                                            ("Train", "train"), ("evaluat", "evaluate")])
def test_unknown_verb_suggests_the_nearest(word: str, near: str, capsys: pytest.CaptureFixture[str]):
    assert command.main([word, "x"]) == 2
    text = capsys.readouterr().err
    assert f"unknown verb '{word}'; did you mean '{near}'?" in text
    assert text.count("\n") == 1


def test_unknown_verb_far_from_all_lists_them(capsys: pytest.CaptureFixture[str]):
    assert command.main(["zzz"]) == 2
    assert "there are simulate, propose, check, train, refine, " in capsys.readouterr().err


@pytest.mark.parametrize(("words", "expected"), [
    (["info", "--jsn"], "unknown option --jsn"),
    (["info", "--quite", "m"], "unknown option --quite; did you mean '--quiet'?"),
    (["train", "--diamter", "200"], "unknown option --diamter; did you mean '--diameter-angstrom'?"),
    (["pick", "--min-distanc", "9"], "unknown option --min-distanc; did you mean '--min-distance-angstrom'?"),
    (["info", "--deb"], "unknown option --deb"),
    (["info", "a", "b"], "unrecognized arguments: b"),
    (["info", "--params"], "argument --params: expected one argument"),
])
def test_wrong_arguments_are_one_line(verb: Any, words: List[str], expected: str, capsys: pytest.CaptureFixture[str]):
    verb(lambda args: 0)
    assert command.main(words) == 2
    text = capsys.readouterr().err
    assert expected in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(("returned", "status"), [(0, 0), (None, 0), (1, 1), (2, 2)])
def test_status_is_what_the_verb_returns(verb: Any, returned: Any, status: int):
    verb(lambda args: returned)
    assert command.main(["info", "m"]) == status


@pytest.mark.parametrize(("given", "seen"), [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_taking_the_cores_of_others(given: str, seen: str):
    code = ("import os, sys, types; from deepetpicker import __main__ as command; command.load = lambda verb: "
            "types.SimpleNamespace(add_arguments=lambda parser: None, main=lambda args: print("
            "'torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])); command.main(['info'])")
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment.update({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", seen]


@pytest.mark.parametrize("words", [["--debug", "--quiet", "info"], ["info", "--debug", "--quiet"]])
def test_common_options_stand_before_or_behind_the_verb(verb: Any, words: List[str]):
    seen: List[argparse.Namespace] = []
    verb(seen.append)
    assert command.main(words) == 0
    assert (seen[0].debug, seen[0].quiet, seen[0].params, seen[0].verb) == (True, True, None, "info")


def test_common_options_are_off_by_default(verb: Any):
    seen: List[argparse.Namespace] = []
    verb(seen.append)
    assert command.main(["info", "m", "--params", "p.json"]) == 0
    assert (seen[0].debug, seen[0].quiet, seen[0].params, seen[0].model) == (False, False, "p.json", "m")


@pytest.mark.parametrize(("error", "status", "expected"), [
    (InputError("expected a, got b"), 2, "deepetpicker info: error: expected a, got b\n"),
    (FormatError("line 1\n  line 2"), 2, "deepetpicker info: error: line 1 line 2\n"),
    (ModelFileError("no model"), 2, "error: no model\n"),
    (OutputError("cannot write"), 2, "error: cannot write\n"),
    (DeviceMemoryError("too big"), 2, "error: too big\n"),
    (OSError(errno.ENOSPC, "No space left on device", "out/a.csv"), 2, "no space left for out/a.csv"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "no space left: free some"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: not enough memory: Default"),
    (OSError(errno.EFBIG, "File too large"), 2, "a file would be larger than is allowed here: free some"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.mrc"), 2,
     "error: No such file or directory: a.mrc\n"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: Permission denied: /x\n"),
    (MemoryError(), 2, "error: not enough memory: close other programs"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "error: not enough memory: [Errno 12]"),
    (OSError(errno.ENOMEM, "Cannot allocate memory", "a.mrc"), 2, "error: not enough memory: [Errno 12]"),
    (RuntimeError("can't start new thread"), 2, "error: not enough memory: can't start new thread: close"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 2, "error: not enough memory: libtorch"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "info needs the Python package 'torch'"),
    (ModuleNotFoundError("No module named 'deepetpicker.x'", name="deepetpicker.x"), 3, "internal error: Module"),
    (KeyboardInterrupt(), 130, "deepetpicker info: interrupted: files that were finished are kept\n"),
    (KeyboardInterrupt("epoch 3 is kept"), 130, "interrupted: epoch 3 is kept\n"),
    (OSError("strange"), 3, "internal error: OSError: strange (run again with --debug"),
    (ZeroDivisionError("division by zero"), 3, "internal error: ZeroDivisionError: division by zero (run again"),
    (AssertionError(), 3, "internal error: AssertionError"),
    (RecursionError("too deep"), 3, "internal error: RecursionError: too deep"),
])
def test_every_error_is_one_line_and_a_status(verb: Any, error: BaseException, status: int, expected: str,
                                              capsys: pytest.CaptureFixture[str]):
    verb(raising(error))
    assert command.main(["info", "m"]) == status
    shown = capsys.readouterr()
    assert expected in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("error", [InputError("bad"), ValueError("worse"), KeyboardInterrupt()])
def test_debug_shows_the_traceback_and_keeps_the_status(verb: Any, error: BaseException,
                                                        capsys: pytest.CaptureFixture[str]):
    verb(raising(error))
    plain = command.main(["info"])
    capsys.readouterr()
    assert command.main(["info", "--debug"]) == plain
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert text.rstrip().splitlines()[-1].startswith("deepetpicker info: ")


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (4, 4), ("text", 3)])
def test_leaving_through_sys_exit_keeps_the_status(verb: Any, code: Any, status: int):
    verb(raising(SystemExit(code)))
    assert command.main(["info"]) == status


def test_a_module_that_does_not_import_is_an_internal_error(monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(command, "load", raising(SyntaxError("broken")))  # type: ignore[arg-type]
    assert command.main(["info"]) == 3
    assert "internal error: SyntaxError: broken" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "shown"), [([], ["told", "warned"]), (["--quiet"], ["warned"]),
                                              (["--debug"], ["detail", "told", "warned"])])
def test_messages_follow_quiet_and_debug(verb: Any, words: List[str], shown: List[str],
                                         caplog: pytest.LogCaptureFixture):
    def speak(args: argparse.Namespace) -> None:
        log = logging.getLogger("deepetpicker.anything")
        log.debug("detail")
        log.info("told")
        log.warning("warned")

    verb(speak)
    caplog.handler.setLevel(logging.DEBUG)
    assert command.main(["info", *words]) == 0
    assert caplog.messages == shown
    assert logging.getLogger("deepetpicker").level == logging.NOTSET


def test_a_warning_is_one_line_without_the_place(verb: Any, caplog: pytest.LogCaptureFixture):
    def warn(args: argparse.Namespace) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("the header says 10 A,\n 12 A was given", stacklevel=1)

    verb(warn)
    before = warnings.showwarning
    assert command.main(["info"]) == 0
    assert "warning: the header says 10 A, 12 A was given" in caplog.messages
    assert warnings.showwarning is before


CHILD = """
import signal, sys, types, time, pathlib, subprocess
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore them (nohup, &)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
def wait():  # in parts: a signal that comes just before a sleep is heard after it
    while True: time.sleep(0.1)
module = types.ModuleType("deepetpicker.cli.train")
module.add_arguments = lambda parser: parser.add_argument("path", nargs="?")
def work(args):
    temporary = pathlib.Path(args.path)
    temporary.write_text("half")
    try:
        print("ready", flush=True)
        {body}
    finally:
        temporary.unlink()
module.main = work
sys.modules["deepetpicker.cli.train"] = module
from deepetpicker.__main__ import main
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("body", [
    pytest.param("wait()", id="plain"),
    pytest.param("exec('try: wait()\\nexcept KeyboardInterrupt: sys.exit(1)')", id="a library leaves with 1"),
])
def test_signals_clean_up_and_say_what_is_kept(tmp_path: pathlib.Path, number: int, body: str):
    path = tmp_path / "x.part"
    with subprocess.Popen([sys.executable, "-c", CHILD.format(body=body), str(path)], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert path.exists()
        os.kill(process.pid, number)
        _, text = process.communicate(timeout=20)
    assert process.returncode == 130
    assert text == ("deepetpicker train: interrupted: finished epochs are kept, and the same command goes on from the "
                    "last of them\n")
    assert not path.exists()


def test_a_worker_process_dies_of_sigterm_without_a_word(tmp_path: pathlib.Path):
    body = ("import os; child = os.fork()\n"
            "        if child == 0: time.sleep(30)\n"
            "        time.sleep(0.2); os.kill(child, signal.SIGTERM)\n"
            "        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))")
    done = run([str(tmp_path / "x.part")], CHILD.format(body=body))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n-15\n", "")


def test_a_second_signal_at_once_belongs_to_the_first(monkeypatch: pytest.MonkeyPatch):
    ended: List[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    handler = command.Interrupts()
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    handler.ended()
    handler(signal.SIGTERM, None)
    assert ended == []
    assert handler.first is not None
    handler.first -= command.GRACE_S + 1
    handler(signal.SIGINT, None)
    assert ended == [130]


def test_an_interrupt_ends_what_waits_for_a_disk_that_does_not_answer(tmp_path: pathlib.Path):
    body = ("import threading, deepetpicker.__main__ as command; command.STUCK_S = 0.2\n"
            "        waiting = threading.Thread(target=time.sleep, args=(30,)); waiting.start()\n"
            "        import os; os.kill(os.getpid(), signal.SIGTERM)\n"
            "    except KeyboardInterrupt:\n"
            "        waiting.join()")
    done = run([str(tmp_path / "x.part")], CHILD.format(body=body), timeout=20)
    assert done.returncode == 130
    assert done.stderr == ("deepetpicker train: interrupted; did not wait for what hangs (a disk that does not "
                           "answer?): finished epochs are kept, and the same command goes on from the last of them\n")


def test_a_file_that_is_cut_while_it_is_mapped_is_named(tmp_path: pathlib.Path):
    path = tmp_path / "a b.mrc"
    path.write_bytes(bytes(100_000))
    body = ("import mmap, os; file = open(" + repr(str(path)) + ", 'r+b')\n"
            "        mapped = mmap.mmap(file.fileno(), 0); os.truncate(file.fileno(), 10)\n"
            "        mapped[50_000]")
    done = run([str(tmp_path / "x.part")], CHILD.format(body=body))
    assert done.returncode == 2
    assert done.stderr == (f"deepetpicker: error: cannot read {path} any more: it was cut or overwritten while it was "
                           "used, or its disk failed or is full; put it back and run the same command again\n")


def test_signal_handlers_are_put_back(verb: Any):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside: List[Any] = []
    verb(lambda args: inside.append(signal.getsignal(signal.SIGTERM)))
    assert command.main(["info"]) == 0
    assert isinstance(inside[0], command.Interrupts)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_reader_that_goes_away_is_no_error_message(tmp_path: pathlib.Path):
    body = "sys.stdout.write('x' * 1000000)"
    shell = f"{sys.executable} -c \"$CODE\" {tmp_path / 'x.part'} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    # unbuffered, Python forgets what a pipe did not take of one write, and so never hears that the reader went away
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
                          env={**environ, "CODE": CHILD.format(body=body)})
    assert done.stdout == "141\n"
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["nothing.safetensors"], ["--params", "nothing.json", "nothing.safetensors"]])
def test_a_missing_model_is_bad_input_in_one_line(words: List[str]):
    done = run(["info", *words])
    assert done.returncode == 2
    assert re.fullmatch(r"deepetpicker info: error: .*nothing.*\n", done.stderr)
