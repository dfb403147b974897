"""An engine without a network, for tests of what the plugin does around it: it copies tables that another run made.

It is started as the real one, reads params.json and writes tables and manifests as the real one does, but needs no
torch, so that a start takes a fraction of a second. Either engine can be made to end or to wait at a tomogram.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import tempfile
from typing import Iterator
from unittest import mock

from deepetpicker_plugin import Plugin
from deepetpicker_plugin.constants import DEEPETPICKER_ENV_ACTIVATION
from deepetpicker_plugin.tests.base import python as interpreter

TRAP = """
import os, signal, sys, time
def trap(name):
    if name in os.environ["TRAPS"].split():
        os.kill(os.getpid(), signal.SIGKILL)
    while name in os.environ["WAITS"].split():
        time.sleep(0.1)
"""
REAL = """
import logging, runpy
class Listener(logging.Handler):
    def emit(self, record):
        name, _, said = record.getMessage().partition(": ")
        if " voxels, " in said:  # the plan of the scan that begins
            trap(name)
logging.getLogger("deepetpicker").addHandler(Listener())
sys.argv = sys.argv[2:]
runpy.run_module("deepetpicker", run_name="__main__", alter_sys=True)
"""
PRETENDED = """
import json, pathlib, shutil
from deepetpicker.io.manifest import Manifest, read_manifest
words = sys.argv[sys.argv.index("deepetpicker") + 1:]
if words == ["--version"]:
    import deepetpicker
    sys.exit(print("deepetpicker", deepetpicker.__version__))
assert words[0] == "pick", words
params, out = (words[words.index(flag) + 1] for flag in ("--params", "--out"))
known = {item["name"]: item for item in read_manifest(os.environ["KNOWN"])["items"]}
manifest = Manifest("pick", {})
for item in json.loads(pathlib.Path(params).read_text("utf-8"))["items"]:
    trap(item["name"])
    facts = {key: value for key, value in known[item["name"]].items() if key not in ("name", "status", "reason")}
    for table in ("picks", "candidates"):
        facts[table] = shutil.copy(facts[table], out)
    manifest.add_item(item["name"], "done", **facts)
    manifest.write(os.path.join(out, "manifest.json"))
"""

# Without the variable of the plugin, which the engine does not read: a process that starts warm has the tests' own.
SCRIPT = f"""#!/bin/sh
unset {DEEPETPICKER_ENV_ACTIVATION}
exec {{python}} -c 'import sys; exec(open("{{folder}}/engine.py").read())' "$@"
"""


@contextlib.contextmanager
def engine(known: str = "", traps: str = "", waits: str = "") -> Iterator[None]:
    """Let the protocols that are started meanwhile use another engine.

    Parameters
    ----------
    known : str
        Manifest of the picking that the pretended engine repeats; empty: the real engine, with traps.
    traps, waits : str
        Names of tomograms, parted by blanks, at which it is killed, as too little memory does, or waits for ever.
    """
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "engine.py").write_text(TRAP + (PRETENDED if known else REAL), "utf-8")
        python = pathlib.Path(folder, "python")
        python.write_text(SCRIPT.format(python=interpreter(), folder=folder), "utf-8")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        activation = {DEEPETPICKER_ENV_ACTIVATION: f"export PATH={folder}:$PATH"}
        with mock.patch.dict(os.environ, TRAPS=traps, WAITS=waits, KNOWN=os.path.abspath(known), **activation), \
                mock.patch.dict(Plugin.getVars(), activation):  # for steps that are called in this process
            yield
