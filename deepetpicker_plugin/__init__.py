"""The Scipion face of DeepETPicker: protocols, objects, viewers and wizards around the engine ``deepetpicker``."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from typing import Any, List

import pwem
from pyworkflow.utils import Environ

from deepetpicker import __version__
from deepetpicker_plugin.constants import DEEPETPICKER_ENV_ACTIVATION, DEEPETPICKER_HOME, URL

_logo = "logo.png"
_references = ["Liu2024"]


class Plugin(pwem.Plugin):
    """Where the engine is and how it is started."""

    _homeVar = DEEPETPICKER_HOME
    _pathVars = []
    _supportedVersions = [__version__]
    _url = URL

    @classmethod
    def _defineVariables(cls) -> None:
        """Define the variables of the plugin with their defaults."""
        cls._defineEmVar(DEEPETPICKER_HOME, f"deepetpicker-{__version__}",
                         description="Folder of the engine's own environment, used only if it was installed.")
        cls._defineVar(DEEPETPICKER_ENV_ACTIVATION, "",
                       description="Command that activates an environment with the engine, such as 'conda activate "
                       f"{cls.getEnvName()}'. Empty: the engine runs in Scipion's own Python.")

    def getName(self) -> str:
        """Return the name that stands before the labels of the protocols and the names of the templates."""
        return "deepetpicker"

    @classmethod
    def getEnvName(cls) -> str:
        """Return the name of the conda environment that the plugin can make."""
        return f"deepetpicker-{__version__}"

    @classmethod
    def getEnviron(cls) -> Environ:
        """Return the environment of the engine's processes."""
        return Environ(os.environ)

    @classmethod
    def getActivation(cls) -> str:
        """Return the shell command to run before the engine; empty for Scipion's own Python."""
        activation = (cls.getVar(DEEPETPICKER_ENV_ACTIVATION) or "").strip().rstrip("&;").rstrip()
        if activation.startswith("conda "):
            return f"{cls.getCondaActivationCmd() or ''} {activation}".strip()
        return activation

    @classmethod
    def getPython(cls) -> str:
        """Return the interpreter of the engine: this one, or that of the activated environment."""
        return "python" if cls.getActivation() else sys.executable

    @classmethod
    def validateInstallation(cls) -> List[str]:
        """Return what is missing for the engine to run; empty when all is there."""
        if cls.getActivation() or importlib.util.find_spec("torch") is not None:
            return []
        return [f"The engine needs PyTorch, which this Python ({sys.version.split()[0]}) has not. Either install it "
                f"here, or make the engine's own environment with 'scipion3 installb deepetpicker' and set "
                f"{DEEPETPICKER_ENV_ACTIVATION} = conda activate {cls.getEnvName()} in the Scipion configuration."]

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """Offer a conda environment with the engine, for sites whose Scipion Python has no PyTorch.

        Not installed by default: plugin and engine share Scipion's Python where that can hold PyTorch.
        """
        installed = "deepetpicker_installed"
        source = pathlib.Path(__file__).resolve().parent.parent
        wanted = str(source) if (source / "setup.py").is_file() else f"scipion-em-deepetpicker=={__version__}"
        command = " ".join([
            cls.getCondaActivationCmd() or "", f"conda create -y -n {cls.getEnvName()} python=3.11 &&",
            f"conda activate {cls.getEnvName()} &&", f"pip install --no-deps '{wanted}' &&",
            "pip install", " ".join(f"'{r}'" for r in engineRequirements()), f"&& touch {installed}"])
        env.addPackage("deepetpicker", version=__version__, tar="void.tgz", commands=[(command, installed)],
                       neededProgs=[] if cls.getCondaActivationCmd() else ["conda"], default=False,
                       vars={"PATH": os.environ.get("PATH", "")})


def engineRequirements() -> List[str]:
    """Return what the engine needs besides itself, as the distribution's metadata says."""
    from importlib.metadata import requires

    wanted = [r.split(";")[0].strip() for r in requires("scipion-em-deepetpicker") or [] if "extra ==" not in r]
    return [r for r in wanted if not r.startswith("scipion")]
