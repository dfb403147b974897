"""The Scipion face of DeepETPicker: protocols, objects, viewers and wizards around the engine ``deepetpicker``."""

from __future__ import annotations

import os
import sys
from typing import Any, List

import pwem
from pyworkflow.utils import Environ

from deepetpicker_plugin.engine import checkout  # noqa: F401 - before the engine: it decides which one is imported

# isort: split
from deepetpicker import __version__
from deepetpicker_plugin.constants import DEEPETPICKER_ENV_ACTIVATION, DEEPETPICKER_HOME, URL
from deepetpicker_plugin.engine import installation

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
                         description="Folder of the engine's own environment, which 'scipion3 installb deepetpicker' "
                         "makes; once it is there the engine runs in it.")
        cls._defineVar(DEEPETPICKER_ENV_ACTIVATION, "",
                       description="Command that activates another environment with the engine, such as 'conda "
                       "activate deepetpicker'. Empty: the engine runs in the environment below DEEPETPICKER_HOME if "
                       "there is one, else in Scipion's own Python.")

    def getName(self) -> str:
        """Return the name that stands before the labels of the protocols and the names of the templates."""
        return "deepetpicker"

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
        return activation or installation.environmentActivation(cls.getVar(DEEPETPICKER_HOME) or "")

    @classmethod
    def getPython(cls) -> str:
        """Return the interpreter of the engine: this one, or that of the activated environment."""
        return "python" if cls.getActivation() else sys.executable

    @classmethod
    def validateInstallation(cls) -> List[str]:
        """Return what keeps the engine from running; empty when all is there and of one version."""
        return installation.installationErrors(cls.getActivation())

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """Offer an environment with the engine, for sites whose Scipion Python has no PyTorch.

        Not installed by default: plugin and engine share Scipion's Python where that can hold PyTorch.
        """
        installation.addBinaries(env, cls.getCondaActivationCmd() or "")
