"""Real installations in fresh environments, as users make them; slow, and they need a package index.

After each of them Scipion lists the protocols, and tomograms are simulated and picked in a real project.
"""

from __future__ import annotations

import contextlib
import http.server
import importlib.metadata
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List

import pytest

import deepetpicker

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = deepetpicker.__version__
PLUGIN = "scipion-em-deepetpicker"
OURS = {f"ProtDeepETPicker{name}" for name in ("Compare", "Evaluate", "ImportModel", "Pick", "Simulate", "Threshold",
                                               "Train")}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "demo", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
pytestmark = pytest.mark.slow

# Simulates two small tomograms and picks one with an untrained model, which the engine's own Python wrote.
WORKFLOW = """
import json, os, sys
import pyworkflow
pyworkflow.Config.setDomain("pwem")
from pwem import Domain
from pyworkflow.project import Manager
project = Manager().createProject("installed")
os.chdir(project.path)
known = Domain.getProtocols()
def run(name, **settings):
    protocol = project.newProtocol(known["ProtDeepETPicker" + name], **settings)
    errors = protocol.validate()
    if errors:
        sys.exit("validation: " + "; ".join(errors))
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        sys.exit(name + ": " + str(protocol.getErrorMessage()))
    return protocol
made = run("Simulate", n=2, shape="32,64,48", particles=6, phantoms="ring", gold=0, membranes=0, tiltStep=10.0)
model = run("ImportModel", modelFile=sys.argv[1])
picked = run("Pick", inputTomograms=made.tomograms, inputModel=model.model, threshold=0.3)
script = open(picked._getExtraPath("picks", "batch_001", "engine.sh")).read()
with open(picked._getExtraPath("picks", "batch_001", "manifest.json")) as stream:
    manifest = json.load(stream)
import deepetpicker
print(json.dumps({"tomograms": made.tomograms.getSize(), "picks": picked.coordinates.getSize(), "script": script,
                  "version": manifest["version"], "engine": os.path.dirname(deepetpicker.__file__)}))
"""

# scipion-app asks the public index what is published; here that address alone is another one.
PUBLISHED = """
import sys
import scipion.install.plugin_funcs as functions
functions.PIP_BASE_URL = sys.argv.pop(1)
from scipion.__main__ import main
main()
"""


class Scipion:
    """A Scipion in an environment of its own, with a home of its own."""

    def __init__(self, folder: pathlib.Path, environ: Dict[str, str]) -> None:
        self.folder, self.python = folder, folder / "env" / "bin" / "python"
        home = folder / "home"
        (home / "config").mkdir(parents=True)
        (home / "user").mkdir()
        config = home / "config" / "scipion.conf"
        self.environ = {**environ, "SCIPION_HOME": str(home), "SCIPION_USER_DATA": str(home / "user"),
                        "SCIPION_CONFIG": str(config), "SCIPION_LOCAL_CONFIG": str(config), "SCIPION_DOMAIN": "pwem",
                        "SCIPION_NOTIFY": "False", "PATH": f"{self.python.parent}:{environ['PATH']}"}
        self.scipion("config", "--unattended")

    def run(self, *words: str, **more: str) -> str:
        """Return the output of ``python WORDS``, both streams; it must end well."""
        return checked([str(self.python), *words], {**self.environ, **more}, self.folder)

    def scipion(self, *words: str, **more: str) -> str:
        """Return the output of ``python -m scipion WORDS``."""
        return self.run("-m", "scipion", *words, **more)

    def protocols(self) -> set:
        """Return the names of our protocols in Scipion's list."""
        return {word for word in self.scipion("protocols").replace("(", " ").split() if word in OURS}

    def workflow(self, model: pathlib.Path) -> Dict[str, Any]:
        """Return what a small workflow in a real project gave."""
        output = self.run("-c", WORKFLOW, str(model))
        return json.loads(output.strip().splitlines()[-1])


def checked(command: List[str], environ: Dict[str, str], folder: pathlib.Path) -> str:
    """Return the output of a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          env=environ, cwd=folder)
    logging.getLogger(__name__).info("$ %s -> %d\n%s", " ".join(word if len(word) < 200 else "..." for word in command),
                                     done.returncode, "\n".join(done.stdout.splitlines()[-6:]))
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """Return the variables of a user whose pip takes the torch that is installed here, and nothing of this checkout."""
    constraints = tmp_path_factory.mktemp("pip") / "constraints.txt"
    constraints.write_text(f"torch=={importlib.metadata.version('torch')}\nsetuptools<80\n", encoding="utf-8")
    stamp = pathlib.Path(sys.prefix) / "deepetpicker-stamp.json"
    source = json.loads(stamp.read_text("utf-8")).get("torch_source", "") if stamp.exists() else ""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("SCIPION", "DEEPETPICKER")) and name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if not p.startswith(sys.prefix))
    extra = {"PIP_EXTRA_INDEX_URL": source} if "://" in source else {}
    return {**kept, **extra, "PIP_CONSTRAINT": str(constraints), "PIP_NO_COMPILE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a copy of the sources, with nothing that was built; Scipion takes the name of the plugin from its name."""
    return pathlib.Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / PLUGIN, ignore=LEFT_OUT))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, checkout: pathlib.Path) -> pathlib.Path:
    """Return a folder with the source distributions and wheels of both, built as ``make dist`` does."""
    folder = tmp_path_factory.mktemp("dist")
    for source in (checkout / "engine", checkout):
        checked([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
                {**os.environ, "PYTHONPATH": ""}, folder)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, environ: Dict[str, str]) -> pathlib.Path:
    """Return an environment with Scipion and its tomography, and no torch; the others are made from it."""
    folder = tmp_path_factory.mktemp("scipion")
    make_venv(folder / "env", environ)
    python = str(folder / "env" / "bin" / "python")
    checked([python, "-m", "pip", "install", "-q", "setuptools<80", "wheel"], environ, folder)
    checked([python, "-m", "pip", "install", "-q", "scipion-app", "scipion-em-tomo>=3.12"], environ, folder)
    return folder / "env"


@pytest.fixture
def scipion(tmp_path: pathlib.Path, bare: pathlib.Path, environ: Dict[str, str]) -> Scipion:
    """Return a fresh Scipion; its packages are links to those of the bare one."""
    make_venv(tmp_path / "env", environ)
    packages = next((tmp_path / "env" / "lib").glob("python3*")) / "site-packages"
    shutil.rmtree(packages)
    shutil.copytree(bare / packages.relative_to(tmp_path / "env"), packages, symlinks=True, copy_function=os.link)
    return Scipion(tmp_path, environ)


def make_venv(path: pathlib.Path, environ: Dict[str, str]) -> None:
    """Make an empty environment with the Python that this one was made with."""
    base = pathlib.Path(getattr(sys, "_base_executable", sys.executable))
    checked([str(base), "-m", "venv", str(path)], environ, path.parent)


def tiny_model(python: pathlib.Path, environ: Dict[str, str], path: pathlib.Path) -> pathlib.Path:
    """Let an interpreter with the engine write a small untrained model."""
    text = (ROOT / "deepetpicker_plugin/tests/base.py").read_text("utf-8")
    code = text.partition('MODEL_CODE = """')[2].partition('"""')[0]
    checked([str(python), "-c", code, str(path), "ring", "0.0"], environ, path.parent)
    return path


def check_workflow(scipion: Scipion, python: pathlib.Path) -> Dict[str, Any]:
    """Check the list of protocols and a workflow, with the engine in an interpreter."""
    assert scipion.protocols() == OURS
    found = scipion.workflow(tiny_model(python, scipion.environ, scipion.folder / "model.safetensors"))
    assert found["tomograms"] == 2
    assert found["picks"] > 0
    assert found["version"] == VERSION
    return found


def plugin_info(scipion: Scipion) -> List[str]:
    """Return the folder and the class that scipion-app sees in the plugin."""
    code = ("from scipion.install.plugin_funcs import PluginInfo as P; p = P('scipion-em-deepetpicker', remote=False); "
            "print(p.getDirName(), type(p.getPluginClass()).__module__, *p.getBinVersions())")
    return scipion.run("-c", code).strip().splitlines()[-1].split()


VALIDATED = "from pwem import Domain; print(Domain.getPlugin('deepetpicker_plugin').Plugin.validateInstallation())"


def test_installp_of_a_checkout(scipion: Scipion, checkout: pathlib.Path):
    """The README's command brings the engine that lies there; after a pull the protocols use the engine that came."""
    checkout = pathlib.Path(shutil.copytree(checkout, scipion.folder / PLUGIN))
    output = scipion.scipion("installp", "-p", str(checkout), "--devel")
    assert "Successfully installed" in output
    assert "Traceback" not in output
    assert plugin_info(scipion) == ["deepetpicker_plugin", "deepetpicker_plugin", f"deepetpicker-{VERSION}"]
    found = check_workflow(scipion, scipion.python)
    assert found["engine"] == str(checkout / "engine" / "deepetpicker")
    assert f"export PYTHONPATH={checkout / 'engine'}\"" in found["script"]
    assert scipion.run("-m", "deepetpicker", "--version").strip() == f"deepetpicker {VERSION}"
    (checkout / "engine" / "deepetpicker" / "pulled.py").write_text("", encoding="utf-8")
    scipion.run("-c", "import deepetpicker_plugin, deepetpicker.pulled")
    init = checkout / "engine" / "deepetpicker" / "__init__.py"
    init.write_text(init.read_text("utf-8").replace(f'"{VERSION}"', '"99.0.0"'), "utf-8")
    asked = scipion.run("-c", VALIDATED)
    assert f"installed in version {VERSION}, and the engine it finds is version 99.0.0" in asked
    assert f"scipion3 installp -p {checkout} --devel" in asked
    scipion.scipion("installp", "-p", str(checkout), "--devel")
    assert scipion.run("-c", VALIDATED).strip().splitlines()[-1] == "[]"


@contextlib.contextmanager
def index() -> Iterator[str]:
    """Serve what scipion-app asks for: the list of plugins, and what the index says of ours."""
    entry = {"pipName": PLUGIN, "name": "deepetpicker", "pluginSourceUrl": ""}
    release = {"comment_text": "scipion-3.0", "upload_time": "2026-01-01"}
    answers = {"/getplugins/": {PLUGIN: entry},
               f"/pypi/{PLUGIN}/json": {"info": {"summary": "", "author": ""}, "releases": {VERSION: [release]}}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send_response(200 if answer else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer or {}).encode())

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def links(dist: pathlib.Path, folder: pathlib.Path, suffix: str) -> Dict[str, str]:
    """Return the variables with which pip finds the built files of one kind, as if they were on the index."""
    folder.mkdir()
    for path in dist.glob(f"*{suffix}"):
        shutil.copy(path, folder)
    return {"PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {folder}".strip()}


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_installp_of_what_is_published(scipion: Scipion, dist: pathlib.Path, suffix: str):
    """From an index ``installp -p scipion-em-deepetpicker`` brings both, as wheels or as source distributions."""
    with index() as address:
        output = scipion.run("-c", PUBLISHED, f"{address}/pypi", "installp", "-p", PLUGIN,
                             SCIPION_PLUGIN_REPO_URL=f"{address}/getplugins/", no_proxy="127.0.0.1",
                             **links(dist, scipion.folder / "links", suffix))
    assert "Traceback" not in output
    assert plugin_info(scipion) == ["deepetpicker_plugin", "deepetpicker_plugin", f"deepetpicker-{VERSION}"]
    found = check_workflow(scipion, scipion.python)
    assert "site-packages" in found["engine"]
    assert "PYTHONPATH" not in found["script"]


def test_installb_makes_an_environment_for_the_engine(scipion: Scipion, dist: pathlib.Path):
    """A Scipion without torch runs the engine in an environment that ``installb`` made, with nothing to configure."""
    files = [str(path) for path in dist.glob("*.whl")]
    scipion.run("-m", "pip", "install", "-q", "--no-deps", *files)
    scipion.run("-m", "pip", "install", "-q", "tqdm")
    assert scipion.protocols() == OURS
    assert "scipion3 installb deepetpicker" in scipion.run("-c", VALIDATED)
    output = scipion.scipion("installb", "deepetpicker")
    assert f"deepetpicker {VERSION}" in output
    home = scipion.folder / "home" / "software" / "em" / f"deepetpicker-{VERSION}"
    assert scipion.run("-c", VALIDATED).strip().splitlines()[-1] == "[]"
    found = check_workflow(scipion, home / "env" / "bin" / "python")
    assert f"export PATH={home}/env/bin:" in found["script"]
    assert "All targets exist" in scipion.scipion("installb", "deepetpicker")


def test_engine_alone(tmp_path: pathlib.Path, checkout: pathlib.Path, environ: Dict[str, str]):
    """``pip install ./engine`` is one command, gives a working command line, and no package of Scipion."""
    make_venv(tmp_path / "env", environ)
    binaries = tmp_path / "env" / "bin"
    checked([str(binaries / "python"), "-m", "pip", "install", "-q", str(checkout / "engine")], environ, tmp_path)
    command = str(binaries / "deepetpicker")
    words = ["simulate", "data", "--n", "1", "--shape", "32,64,48", "--particles", "6", "--phantoms", "ring", "--quiet"]
    checked([command, *words], environ, tmp_path)
    model = tiny_model(binaries / "python", environ, tmp_path / "model.safetensors")
    tomograms = [str(path) for path in (tmp_path / "data").glob("*.mrc") if "instances" not in path.name]
    checked([command, "pick", str(model), *tomograms, "--out", "picks", "--threshold", "0.3"], environ, tmp_path)
    assert json.loads((tmp_path / "picks" / "manifest.json").read_text("utf-8"))["version"] == VERSION
    names = json.loads(checked([str(binaries / "python"), "-m", "pip", "list", "--format", "json"], environ, tmp_path)
                       .strip().splitlines()[0])
    installed = {package["name"] for package in names}
    assert "deepetpicker" in installed
    assert not {name for name in installed if name.startswith("scipion")}
