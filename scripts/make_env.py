"""Make the project's own Python environment; a second run reuses it.

Only the standard library is used. torch is installed first, in the build that suits the machine: PyTorch's default
build where there is an NVIDIA GPU, the CPU build elsewhere (the default build would bring gigabytes of CUDA). A
constraint then keeps that torch while everything else is installed.

Variables: ``TORCH_BUILD`` (auto, cpu or default) overrides the choice; ``TORCH_INDEX`` names the package index that
holds CPU builds.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_VERSION = {(3, 9): "2.8.0"}  # the last one for that Python; all others take the next line
TORCH_VERSION_DEFAULT = "2.13.0"
OPTIONAL = ("zarr", "cluster")  # extras of the engine that the tests use; found after the rest, or pip finds no end
OLDEST, NEWEST = (3, 9), (3, 12)  # Scipion's packages do not resolve on 3.13, the engine needs 3.9
OTHER_PYTHONS = ("python3.11", "python3.12", "python3.10", "python3.9")
HASHED = ("setup.py", "pyproject.toml", "engine/setup.py", "engine/pyproject.toml", "scripts/make_env.py")
FOLDERS = {"deepetpicker": ROOT / "engine", "scipion-em-deepetpicker": ROOT}
STAMP = "deepetpicker-stamp.json"
SHOWN = ("Collecting", "Downloading", "Building", "Installing")  # the lines of pip that say what it does
ADVICE = (
    ("no space left", "The disk is full: free about 3 GB (10 GB for a GPU build) and run the same command again."),
    ("no matching distribution", "The package index has no build for this Python and machine: check that pip reaches "
     "its index (pip config list), or set TORCH_INDEX to an index that has one, or TORCH_BUILD=default."),
    ("resolutionimpossible", "Two requirements exclude each other: a constraint of your own (PIP_CONSTRAINT, pip "
     "config list) may be the reason."),
    ("externally-managed", "Use a Python whose venv module works (Debian: apt install python3-venv)."),
)
NETWORK = ("name resolution", "max retries", "timed out", "connection", "ssl", "proxy", "temporary failure")


class EnvError(Exception):
    """The environment could not be made; the text says why and what to do."""


def choose_python() -> Tuple[str, str]:
    """Return the interpreter to build with and its version, such as ``("/usr/bin/python3.11", "3.11.7")``."""
    for name in (sys.executable, *OTHER_PYTHONS):
        path = shutil.which(name)
        version = probe_python(path) if path else None
        if version:
            if name != sys.executable:
                print(f"Python {platform.python_version()} cannot be used here (Scipion's packages install on "
                      f"3.9 to 3.12, with the venv module): taking {path}, Python {version}.", flush=True)
            return path, version
    raise EnvError(f"Expected Python 3.9 to 3.12 with its venv module, found {sys.executable} (Python "
                   f"{platform.python_version()}) and none of {', '.join(OTHER_PYTHONS)} on PATH. Install one "
                   "(Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11 ...")


def probe_python(path: str) -> Optional[str]:
    """Return the version of an interpreter that can make an environment, else None."""
    if path == sys.executable and not OLDEST <= sys.version_info[:2] <= NEWEST:
        return None
    code = "import ensurepip, sqlite3, sys, venv; print('%d.%d.%d' % sys.version_info[:3])"
    found = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    version = found.stdout.strip()
    if found.returncode or not OLDEST <= tuple(map(int, version.split(".")[:2])) <= NEWEST:
        return None
    return version


def choose_build() -> Tuple[str, str]:
    """Return "cpu" or "default" and the reason."""
    asked = os.environ.get("TORCH_BUILD", "auto")
    if asked not in ("auto", "cpu", "default"):
        raise EnvError(f"TORCH_BUILD must be auto, cpu or default, got {asked!r}")
    if asked != "auto":
        return asked, f"TORCH_BUILD={asked}"
    if sys.platform != "linux":
        return "default", f"the default build has no CUDA on {sys.platform}"
    if has_gpu():
        return "default", "an NVIDIA GPU is present"
    return "cpu", "no NVIDIA GPU found"


def has_gpu() -> bool:
    """Return whether the machine has a working NVIDIA driver."""
    if os.path.exists("/dev/nvidia0"):
        return True
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0


def environment_key(version: str) -> str:
    """Return the hash of everything that decides what is installed: also the layout, the version and where it lies."""
    digest = hashlib.sha256(f"{version} {ROOT}".encode())
    for name in HASHED:
        digest.update((ROOT / name).read_bytes())
    packages = [*ROOT.glob("*/__init__.py"), *ROOT.glob("engine/*/__init__.py")]
    digest.update(repr(sorted(path.parent.relative_to(ROOT).as_posix() for path in packages)).encode())
    for path in packages:
        digest.update(b"".join(line for line in path.read_bytes().splitlines() if line.startswith(b"__version__")))
    return digest.hexdigest()


def installed_elsewhere(path: pathlib.Path) -> List[str]:
    """Return our distributions that an environment has not, or has from somewhere else than this checkout."""
    wrong: List[str] = []
    for name, folder in FOLDERS.items():
        found = [read_json(record) for record in path.glob(
            f"lib/python3*/site-packages/{name.replace('-', '_')}-*.dist-info/direct_url.json")]
        if [entry.get("url") for entry in found] != [folder.as_uri()]:
            wrong.append(name)
    return wrong


class Steps:
    """Runs commands one after another and shows each with its time while it runs."""

    def __init__(self, total: int, log: pathlib.Path) -> None:
        self.total, self.log, self.number, self.live = total, log, 0, sys.stderr.isatty()

    def run(self, title: str, command: Sequence[str]) -> Tuple[int, str]:
        """Return the exit status and the output (both streams) of one step."""
        self.number += 1
        head, start = f"[{self.number}/{self.total}] {title}", time.monotonic()
        lines: List[str] = []
        if not self.live:
            print(head + " ...", file=sys.stderr, flush=True)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              env=clean_environ(), cwd=ROOT) as process:
            try:
                reader = threading.Thread(target=collect, args=(process.stdout, lines), daemon=True)
                reader.start()
                self.watch(process, head, start, lines)
            except BaseException:
                process.terminate()
                raise
            reader.join()
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {' '.join(command)}\n" + "".join(lines))
        state = "done" if process.returncode == 0 else "failed"
        print(f"{self.erase()}{head}: {state}, {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
        return process.returncode, "".join(lines)

    def watch(self, process: subprocess.Popen[str], head: str, start: float, lines: List[str]) -> None:
        """Show the time and what pip does now until the process ends."""
        shown = time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if now - shown < (0.2 if self.live else 10.0):
                continue
            shown, packages = now, sum(line.startswith("Collecting ") for line in lines)
            doing = next((line.strip() for line in reversed(lines) if line.strip().startswith(SHOWN)), "")
            text = f"{head} {now - start:4.0f} s  {packages} packages  {doing}"
            width = shutil.get_terminal_size((100, 24)).columns - 1
            print(self.erase() + text[:width], end="" if self.live else "\n", file=sys.stderr, flush=True)

    def erase(self) -> str:
        """Return what clears the live line."""
        return "\r\x1b[K" if self.live else ""


def collect(stream: Any, lines: List[str]) -> None:
    """Append the lines of a stream to a list as they come."""
    for line in stream:
        lines.append(line)


def clean_environ() -> Dict[str, str]:
    """Return the environment without what would make pip look or write elsewhere."""
    drop = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return {**kept, "PYTHONUNBUFFERED": "1", "DEEPETPICKER_ENGINE": "index", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def fail(what: str, output: str, log: pathlib.Path) -> EnvError:
    """Return the error that shows the end of pip's output and what to do."""
    low = output.lower()
    advice = [text for word, text in ADVICE if word in low]
    if any(word in low for word in NETWORK):
        advice.append("The package index was not reached: check the network and the proxy, then run it again.")
    tail = "".join(output.splitlines(keepends=True)[-15:])
    return EnvError(f"{tail}\n{what} failed; the whole output is in {log}.\n"
                    + ("\n".join(advice) or "Run the same command again, or look at that file."))


def install_torch(steps: Steps, pip: List[str], build: str, version: str) -> str:
    """Install torch in the chosen build and return where it came from."""
    index = os.environ.get("TORCH_INDEX", "")
    if build == "default":
        # === takes the exact name, so that a CPU wheel lying among pip's sources is not preferred
        attempts = [(f"torch==={version}", [])]
    else:
        pin = f"torch=={version}+cpu"
        attempts = [(pin, ["--index-url", index])] if index else [(pin, []), (pin, ["--index-url", TORCH_INDEX])]
    for pin, where in attempts:
        source = where[-1] if where else "the configured package index"
        status, output = steps.run(f"install {pin} from {source}", [*pip, pin, *where])
        if status == 0:
            return source
        if "no matching distribution" not in output.lower():
            break
        steps.number -= 1  # the next attempt is the same step
    raise fail(f"Installing torch ({build} build)", output, steps.log)


def build_environment(path: pathlib.Path, python: str, version: str, extras: Sequence[str],
                      install: Sequence[str]) -> Dict[str, Any]:
    """Make the environment from nothing and return what the stamp says about it."""
    build, reason = choose_build()
    torch_version = TORCH_VERSION.get(tuple(map(int, version.split(".")[:2])), TORCH_VERSION_DEFAULT)  # type: ignore[call-overload]
    print(f"Making {path} with Python {version}; torch {torch_version}, {build} build: {reason}.", file=sys.stderr)
    steps = Steps(4 + takes_optional(extras, install), path / "make_env.log")
    status, output = steps.run("create the environment", [python, "-m", "venv", "--clear", str(path)])
    if status:
        raise fail("Creating the environment", output, steps.log)
    pip = [str(path / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    source = install_torch(steps, pip, build, torch_version)
    installed = subprocess.run([pip[0], "-c", "from importlib.metadata import version as v; print(v('torch'))"],
                               capture_output=True, text=True, check=True, env=clean_environ()).stdout.strip()
    (path / "constraints.txt").write_text(f"torch=={installed}\nsetuptools<80\n", encoding="utf-8")
    status, output = steps.run("install build tools", [*pip, "setuptools<80", "wheel"])
    if status:
        raise fail("Installing setuptools", output, steps.log)
    install_package(steps, pip, extras, install)
    return {"build": build, "torch": installed, "torch_source": source}


def install_package(steps: Steps, pip: List[str], extras: Sequence[str], install: Sequence[str]) -> None:
    """Install engine and plugin (in place, or from built files) with the plugin's extras, keeping torch as it is."""
    suffix = f"[{','.join(extras)}]" if extras else ""
    target = list(install) or [
        "--no-build-isolation", "--editable", str(ROOT / "engine"), "--editable", f"{ROOT}{suffix}"]
    constraint = pathlib.Path(pip[0]).parent.parent / "constraints.txt"
    what = " and ".join(pathlib.Path(name).name for name in install) or f"engine and plugin{suffix}, in place"
    status, output = steps.run(f"install {what}", [*pip, "--constraint", str(constraint), *target])
    if status:
        raise fail(f"Installing {what}", output, steps.log)
    if takes_optional(extras, install):
        install_optional(steps, pip, constraint)


def takes_optional(extras: Sequence[str], install: Sequence[str]) -> bool:
    """Return True if the engine's extras belong into an environment: that of the tests."""
    return "test" in extras and not install


def install_optional(steps: Steps, pip: List[str], constraint: pathlib.Path) -> None:
    """Install what the engine's extras need beside what is there, all of whose versions stay."""
    code = ("from importlib.metadata import distributions\n"
            "found = {(d.metadata['Name'] or '').lower(): d.version for d in distributions()}\n"
            "print('\\n'.join(f'{name}=={v}' for name, v in sorted(found.items()) if name and 'deepet' not in name))")
    there = subprocess.run([pip[0], "-c", code], capture_output=True, text=True, check=True, env=clean_environ()).stdout
    kept = constraint.with_name("kept.txt")
    kept.write_text(there, encoding="utf-8")
    wanted = f"{ROOT / 'engine'}[{','.join(OPTIONAL)}]"
    status, output = steps.run(f"install the engine's extras {', '.join(OPTIONAL)}", [
        *pip, "--constraint", str(kept), "--no-build-isolation", "--editable", wanted])
    if status:
        raise fail("Installing the engine's extras", output, steps.log)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold the folder for this process: two ``make`` at once must not build the same environment twice."""
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is making {path}; waiting for it ...", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_json(path: pathlib.Path) -> Dict[str, Any]:
    """Return what a file of JSON says, or an empty mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_stamp(path: pathlib.Path) -> Dict[str, Any]:
    """Return what the stamp of a finished environment says, or an empty mapping."""
    return read_json(path / STAMP) if (path / "bin" / "python").exists() else {}


def make(path: pathlib.Path, extras: Sequence[str], install: Sequence[str] = ()) -> None:
    """Make or reuse the environment.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the environment; what it held is removed when it must be made anew.
    extras : sequence of str
        Extras of the plugin's setup.py; extras that a present environment lacks are added to it.
    install : sequence of str
        Built files to install instead of this checkout.

    Raises
    ------
    EnvError
        With the end of pip's output and what to do.
    """
    python, version = choose_python()
    with locked(path):
        key, stamp = environment_key(version), read_stamp(path)
        asked = os.environ.get("TORCH_BUILD", "auto")
        reusable = not install and stamp.get("key") == key and asked in ("auto", stamp.get("build"))
        missing = set(extras) - set(stamp.get("extras", []))
        elsewhere = installed_elsewhere(path) if reusable else []
        if elsewhere:
            print(f"Repairing {path}: {' and '.join(elsewhere)} must be installed from {ROOT}.", file=sys.stderr)
        if reusable and not missing and not elsewhere:
            print(f"Reusing {path} (torch {stamp['torch']}, {stamp['build']} build).", file=sys.stderr)
            return
        start = time.monotonic()
        (path / STAMP).unlink(missing_ok=True)
        if reusable:
            extras = sorted({*extras, *stamp["extras"]})
            pip = [str(path / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
            steps = Steps(1 + takes_optional(extras, install), path / "make_env.log")
            install_package(steps, pip, extras, install)
        else:
            stamp = build_environment(path, python, version, extras, install)
        stamp.update(key=key, extras=sorted(extras), python=version)
        (path / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        print(f"Ready: {path}, {time.monotonic() - start:.0f} s.", file=sys.stderr)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=pathlib.Path, default=ROOT / ".venv", help="where (default: .venv)")
    parser.add_argument("--extras", default="scipion,test", help="extras of the plugin (default: scipion,test)")
    parser.add_argument("--install", nargs="+", default=[], metavar="FILE",
                        help="install these built files, without extras, instead of the checkout")
    args = parser.parse_args(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # pip must not outlive this process
    try:
        make(args.path.resolve(), [name for name in args.extras.split(",") if name], args.install)
    except EnvError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the environment is not finished; the next run makes it anew.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
