"""Where the engine is installed: the environment that Scipion can make for it, and whether what is there fits."""

from __future__ import annotations

import functools
import importlib.util
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any, Dict, List, Optional
from urllib.parse import urlparse
from urllib.request import url2pathname

from deepetpicker import __version__
from deepetpicker_plugin.constants import DEEPETPICKER_ENV_ACTIVATION, PLUGIN_DISTRIBUTION
from deepetpicker_plugin.engine.checkout import ROOT, engineFolder, exportOwnEngine

ENVIRONMENT = "env"  # below DEEPETPICKER_HOME
READY = "environment_ready"  # beside it, once everything is installed
PYTHONS = ("python3.11", "python3.12", "python3.10", "python3.9")
CHECK_S = 120.0  # a conda environment on a slow network file system takes its time


def environmentCommand(condaActivation: str) -> str:
    """Return the shell command that makes the engine's environment in the current folder.

    The Python is Scipion's own where that can hold PyTorch, else one that conda brings, else the first on PATH that
    works. Either way the environment is a folder with ``bin/python``, and no conda is needed to use it.

    Parameters
    ----------
    condaActivation : str
        What makes conda usable in a shell, with ``&&`` at its end; empty where Scipion knows of none.
    """
    own = [sys.executable] if sys.version_info >= (3, 9) else []
    ways = [f"{shlex.quote(python)} -m venv {ENVIRONMENT}" for python in own]
    ways.append(f"{condaActivation} command -v conda >/dev/null && "
                f'conda create -y -p "$PWD/{ENVIRONMENT}" python=3.11 pip')
    ways += [f"{python} -m venv {ENVIRONMENT}" for python in PYTHONS]
    made = " || ".join(f"( rm -rf {ENVIRONMENT} && {way.strip()} )" for way in ways)
    failed = "echo 'No Python 3.9 to 3.12 was found that can make an environment: see docs/installation.rst'"
    pip = f"{ENVIRONMENT}/bin/python -m pip install"
    return (f"unset PYTHONPATH; {{ {made} || {{ {failed}; false; }}; }} && {pip} {engineSource()} && "
            f"{ENVIRONMENT}/bin/python -m deepetpicker --version && touch {READY}")


def engineSource(root: pathlib.Path = ROOT) -> str:
    """Return what pip is to install as the engine: this checkout's, ours again, or the published one."""
    folder = engineFolder(root)
    if folder:
        return f"--editable {shlex.quote(folder)}"
    return shlex.quote(engineOrigin() or f"deepetpicker=={__version__}")


def engineOrigin() -> str:
    """Return the folder, file or repository that the engine was installed from; empty when it came from an index."""
    url = urlparse(directUrl("deepetpicker").get("url", ""))
    path = url2pathname(url.path) if url.scheme == "file" else ""
    if path and pathlib.Path(path).exists():
        return path
    plugin = directUrl(PLUGIN_DISTRIBUTION)  # pip's copy of a repository is gone by now
    if "vcs_info" in plugin:
        return "{vcs}+{url}@{commit_id}#subdirectory=engine".format(url=plugin["url"], **plugin["vcs_info"])
    return ""


def directUrl(name: str) -> Dict[str, Any]:
    """Return what pip noted of the place that a distribution was installed from; empty when it came from an index."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    return json.loads(text) if text else {}


def environmentActivation(home: str) -> str:
    """Return the shell command that activates the environment below DEEPETPICKER_HOME; empty where none is finished."""
    if not home:
        return ""
    folder = pathlib.Path(home).resolve()
    ready = (folder / READY).is_file() and (folder / ENVIRONMENT / "bin" / "python").exists()
    return f'export PATH={shlex.quote(str(folder / ENVIRONMENT / "bin"))}:"$PATH"' if ready else ""


def installationErrors(activation: str) -> List[str]:
    """Return what keeps the engine from running, or from being the plugin's own; empty when all is well."""
    installed = pluginVersion()
    if installed and installed != __version__:
        return [f"The plugin was installed in version {installed}, and the engine it finds is version {__version__}, "
                f"in {enginePath()}. Install the plugin again, so that both and what they need are of one version: "
                f"{installAgain()}"]
    if activation:
        return activationErrors(activation)
    if importlib.util.find_spec("torch") is None:
        return [f"The engine needs PyTorch, which this Python ({sys.version.split()[0]}) has not. Either install it "
                "here (Python 3.9 or later), or make an environment with 'scipion3 installb deepetpicker', "
                f"or set {DEEPETPICKER_ENV_ACTIVATION} in the Scipion configuration to the command that activates one."]
    return []


def activationErrors(activation: str) -> List[str]:
    """Return what is wrong with the activated environment; asked once as long as all is well."""
    found = environmentVersion(activation)
    if found == f"deepetpicker {__version__}":
        return []
    environmentVersion.cache_clear()
    return [f"Expected the engine deepetpicker {__version__} in the environment that '{activation}' activates, found: "
            f"{found or 'nothing'}. Install it there (pip install {engineSource()}), correct "
            f"{DEEPETPICKER_ENV_ACTIVATION} in the Scipion configuration, or make the environment anew with "
            "'scipion3 installb deepetpicker'."]


@functools.lru_cache(maxsize=4)
def environmentVersion(activation: str) -> str:
    """Return what the engine of an activated environment says of its version, or the last line of the error."""
    try:
        done = subprocess.run(["bash", "-c", f"{exportOwnEngine()}\n{activation} && python -m deepetpicker --version"],
                              capture_output=True, text=True, timeout=CHECK_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else ""


def pluginVersion() -> Optional[str]:
    """Return the version that the plugin was installed in; None when it only lies on the path."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PLUGIN_DISTRIBUTION)
    except PackageNotFoundError:
        return None


def enginePath() -> str:
    """Return the folder of the engine that this process imported."""
    import deepetpicker

    return str(pathlib.Path(deepetpicker.__file__).parent)


def installAgain() -> str:
    """Return the command that installs the plugin again."""
    return (f"scipion3 installp -p {ROOT} --devel" if engineFolder()
            else f"scipion3 installp -p {PLUGIN_DISTRIBUTION}, or scipion3 pip install with the files of both")


def addBinaries(env: Any, condaActivation: str) -> None:
    """Offer the engine's environment among Scipion's binaries.

    The archive of a binary without one is made here: Scipion would download an empty one.
    """
    env.addPackage("deepetpicker", version=__version__, tar="void.tgz", url=f"file:{pathlib.Path(__file__).resolve()}",
                   commands=[(environmentCommand(condaActivation), [READY])], default=False)
