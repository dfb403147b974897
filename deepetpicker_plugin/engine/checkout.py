"""Which engine the plugin uses: one that runs from a checkout takes the engine of that checkout.

Scipion installs a plugin in development in place, but what it requires as a copy. After a ``git pull`` the copy would
be older than the plugin; so the checkout's own engine goes before whatever is installed, here and in the processes that
the plugin starts. Imported before anything of the engine; it uses the standard library only.
"""

from __future__ import annotations

import importlib.util
import pathlib
import shlex
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def engineFolder(root: pathlib.Path = ROOT) -> str:
    """Return the folder with the engine of the checkout that the plugin runs from; empty when there is none."""
    folder = root / "engine"
    return str(folder) if (folder / "deepetpicker" / "__init__.py").is_file() else ""


def exportOwnEngine(root: pathlib.Path = ROOT) -> str:
    """Return the shell command that lets a process use the engine of the checkout; empty when there is none."""
    folder = engineFolder(root)
    return f'export PYTHONPATH={shlex.quote(folder)}"${{PYTHONPATH:+:$PYTHONPATH}}"' if folder else ""


def preferOwnEngine(root: pathlib.Path = ROOT) -> None:
    """Let ``import deepetpicker`` find the engine of the checkout, if there is one, whatever else is installed."""
    folder = engineFolder(root)
    if not folder or "deepetpicker" in sys.modules:
        return
    found = importlib.util.find_spec("deepetpicker")
    origin = found.origin if found else None
    if not origin or pathlib.Path(origin).resolve().parent.parent != pathlib.Path(folder):
        sys.path.insert(0, folder)


preferOwnEngine()
