"""The two distributions: one version, complete metadata, every dependency with its reason, files that hold it all."""

from __future__ import annotations

import ast
import email
import importlib.metadata
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import Any, Dict, List, Set, Tuple

import pytest

import deepetpicker

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENGINE, PLUGIN = "deepetpicker", "scipion-em-deepetpicker"
FOLDERS = {ENGINE: ROOT / "engine", PLUGIN: ROOT}
PACKAGES = {ENGINE: "deepetpicker", PLUGIN: "deepetpicker_plugin"}
IMPORT_NAMES = {"scipion-em-tomo": "tomo", "scipion-app": "scipion", "pytest-cov": "pytest_cov",
                "dask-jobqueue": "dask_jobqueue"}
COMES_WITH = {"pyworkflow": "scipion-em-tomo", "pwem": "scipion-em-tomo", "pandas": "starfile", "PIL": "matplotlib",
              "dask": "distributed", "numcodecs": "zarr"}
ONLY_IN_TESTS = {"reliontomo", "emantomo", "dynamo", "starfile"}
SCIPION_PINS = {"numpy": "1.26.1", "matplotlib": "3.8.1", "pillow": "10.1.0"}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "demo", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


def read_metadata(folder: pathlib.Path, *commands: str) -> Dict[str, Any]:
    """Return what a folder's setup.py hands to setuptools when it is run with some commands."""
    import setuptools

    taken: Dict[str, Any] = {}
    original, here, words = setuptools.setup, os.getcwd(), sys.argv
    setuptools.setup = lambda **values: taken.update(values)
    os.chdir(folder)
    sys.argv = ["setup.py", *commands]
    try:
        runpy.run_path(str(folder / "setup.py"))
    finally:
        setuptools.setup, sys.argv = original, words
        os.chdir(here)
    return taken


@pytest.fixture(scope="module")
def metadata() -> Dict[str, Dict[str, Any]]:
    """Return what each distribution's setup.py hands to setuptools."""
    return {name: read_metadata(folder) for name, folder in FOLDERS.items()}


def project(requirement: str) -> str:
    """Return the project name of a requirement, in lower case."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower()


def third_party_imports(name: str) -> Set[str]:
    """Return the top-level names that a distribution's package imports and that are neither Python's nor its own."""
    names: Set[str] = set()
    for path in (FOLDERS[name] / PACKAGES[name]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGES[name]}


def test_version_is_written_once(metadata: Dict[str, Any]):
    assert {name: values["version"] for name, values in metadata.items()} == dict.fromkeys(FOLDERS,
                                                                                           deepetpicker.__version__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", deepetpicker.__version__)
    sources = [path for folder in FOLDERS.values() for path in (*folder.glob("*.toml"), folder / "setup.py")]
    sources += [path for name, folder in FOLDERS.items() for path in (folder / PACKAGES[name]).rglob("*.py")]
    holders = [path.relative_to(ROOT) for path in sources
               if f'"{deepetpicker.__version__}"' in path.read_text("utf-8")]
    assert holders == [pathlib.Path("engine/deepetpicker/__init__.py")]
    assert (ROOT / "CHANGES.txt").read_text("utf-8").startswith(deepetpicker.__version__ + " ")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_with_code_is_packaged(metadata: Dict[str, Any], name: str):
    folder = FOLDERS[name]
    found = {".".join(path.parent.relative_to(folder).parts) for path in (folder / PACKAGES[name]).rglob("*.py")}
    assert set(metadata[name]["packages"]) == found, "each folder with Python files needs an __init__.py"
    assert {package.partition(".")[0] for package in metadata[name]["packages"]} == {PACKAGES[name]}


def test_entry_points(metadata: Dict[str, Any]):
    assert metadata[ENGINE]["entry_points"] == {"console_scripts": ["deepetpicker = deepetpicker.__main__:command"]}
    assert metadata[PLUGIN]["entry_points"] == {"pyworkflow.plugin": ["deepetpicker_plugin = deepetpicker_plugin"]}


def test_scipion_knows_it_by_its_keywords(metadata: Dict[str, Any]):
    from pyworkflow import CORE_VERSION

    keywords = metadata[PLUGIN]["keywords"].split()
    assert {"scipion", "cryoem", "imageprocessing", f"scipion-{CORE_VERSION.rpartition('.')[0]}"} <= set(keywords)
    assert metadata[PLUGIN]["url"].endswith(f"/{PLUGIN}")


def test_data_files_of_the_plugin_are_covered(metadata: Dict[str, Any]):
    patterns = metadata[PLUGIN]["package_data"]["deepetpicker_plugin"]
    folder = ROOT / "deepetpicker_plugin"
    covered = {path for pattern in patterns for path in folder.glob(pattern)}
    present = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert present <= covered


@pytest.mark.parametrize("name", FOLDERS)
def test_licence_is_the_gpl_in_full(metadata: Dict[str, Any], name: str):
    text = (FOLDERS[name] / "LICENSE").read_text("utf-8")
    assert metadata[name]["license"] == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) > 600


@pytest.mark.long
@pytest.mark.parametrize("name", FOLDERS)
def test_every_import_has_its_requirement(metadata: Dict[str, Any], name: str):
    asked = [*metadata[name]["install_requires"],
             *(r for extra in metadata[ENGINE]["extras_require"].values() for r in extra)]
    required = {project(r) for r in asked}
    provided = {IMPORT_NAMES.get(r, r) for r in required} | {name for name, by in COMES_WITH.items() if by in required}
    assert third_party_imports(name) <= provided | (ONLY_IN_TESTS if name == PLUGIN else set())


def test_every_dependency_has_its_reason(metadata: Dict[str, Any]):
    text = (ROOT / "docs/dependencies.rst").read_text("utf-8")
    wanted = [r for values in metadata.values() for r in values["install_requires"]]
    wanted += [r for values in metadata.values() for extra in values["extras_require"].values() for r in extra]
    explained = {name for line in re.findall(r"^``.+``$", text, re.M) for name in re.findall(r"``([^`]+)``", line)}
    assert {project(r) for r in wanted} == explained


def test_python_3_8_gets_the_base_only(metadata: Dict[str, Any]):
    from packaging.requirements import Requirement

    def names(name: str, version: str) -> Set[str]:
        found = [Requirement(r) for r in metadata[name]["install_requires"]]
        return {r.name for r in found if r.marker is None or r.marker.evaluate({"python_version": version})}

    assert {values["python_requires"] for values in metadata.values()} == {">=3.8"}
    told = {name: [line for line in values["classifiers"] if "Python" in line] for name, values in metadata.items()}
    assert told[ENGINE] == told[PLUGIN], "both are for the same versions of Python"
    assert [line.rpartition(" ")[2] for line in told[ENGINE]] == ["3", *(f"3.{minor}" for minor in range(8, 13))]
    assert names(ENGINE, "3.8") == {"numpy", "mrcfile", "tqdm"}
    assert names(ENGINE, "3.11") >= {"torch", "lightning", "scipy", "starfile"}
    assert names(PLUGIN, "3.8") == names(PLUGIN, "3.11") == {"deepetpicker", "scipion-em-tomo", "numpy", "matplotlib",
                                                             "mrcfile"}


def test_python_3_9_gets_every_extra(metadata: Dict[str, Any]):
    """The first versions that went without Python 3.9: a bound at or above them leaves nothing to install there."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    newer = {"dask-jobqueue": "0.9.0", "distributed": "2024.8.1", "bokeh": "3.5.0", "zarr": "3.0.0", "torch": "2.9.0",
             "scipy": "1.14.0", "matplotlib": "3.10.0", "numpy": "2.1.0"}
    for values in metadata.values():
        wanted = [Requirement(r) for lists in values["extras_require"].values() for r in lists]
        wanted += [Requirement(r) for r in values["install_requires"]]
        for one in wanted:
            least = [bound.version for bound in one.specifier if bound.operator == ">="]
            if one.name in newer:
                assert Version(least[0]) < Version(newer[one.name]), one


def test_no_upper_bounds(metadata: Dict[str, Any]):
    wanted = [r.partition(";")[0] for values in metadata.values() for r in values["install_requires"]]
    assert [r for r in wanted if "<" in r or "==" in r] == [], "new cards need new torch; Scipion pins what it must"


def test_a_checkout_brings_its_own_engine_and_what_is_published_the_published_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DEEPETPICKER_ENGINE", raising=False)
    own, published = f"deepetpicker @ {(ROOT / 'engine').as_uri()}", f"deepetpicker=={deepetpicker.__version__}"
    assert own in read_metadata(ROOT, "editable_wheel")["install_requires"]
    assert own in read_metadata(ROOT, "bdist_wheel")["install_requires"]
    assert published in read_metadata(ROOT, "sdist")["install_requires"]
    monkeypatch.setenv("DEEPETPICKER_ENGINE", "index")
    assert published in read_metadata(ROOT, "bdist_wheel")["install_requires"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a copy of the sources, in which building leaves what it leaves."""
    return pathlib.Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / PLUGIN, ignore=LEFT_OUT))


SCIPIONS_VIEW = """
import site, sys
site.addsitedir(sys.argv[1])
from scipion.install.plugin_funcs import PluginInfo
info = PluginInfo("scipion-em-deepetpicker", remote=False)
kind = type(info.getPluginClass())
print(info.getDistribution().locate_file(""), info.getDirName(), f"{kind.__module__}.{kind.__name__}",
      *info.getBinVersions())
"""


@pytest.mark.long
@pytest.mark.parametrize("hook", ["build_editable", "build_wheel"])
def test_scipions_installer_finds_the_plugin(sources: pathlib.Path, tmp_path: pathlib.Path, hook: str):
    """As scipion-app looks for the plugin of a distribution, by its first package or its first top-level name."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=sources, capture_output=True, text=True,
                          check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.strip().splitlines()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    information = next((tmp_path / "site").glob("*.dist-info"))
    if hook == "build_editable":
        (information / "direct_url.json").write_text(json.dumps({"url": sources.as_uri()}), "utf-8")
        with (information / "RECORD").open("a", encoding="utf-8") as record:
            record.write(f"{information.name}/direct_url.json,,\n")
    path = str(ROOT / "engine") if hook == "build_wheel" else ""
    done = subprocess.run([sys.executable, "-c", SCIPIONS_VIEW, str(tmp_path / "site")], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{path}"}, check=True)
    assert done.stdout.split()[-4:] == [str(tmp_path / "site"), "deepetpicker_plugin", "deepetpicker_plugin.Plugin",
                                        f"deepetpicker-{deepetpicker.__version__}"]


@pytest.mark.long
def test_installed_beside_scipions_pins():
    installed = {name: importlib.metadata.version(name) for name in SCIPION_PINS}
    assert installed == SCIPION_PINS
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    ours = {ENGINE, PLUGIN, "scipion-em-tomo", "scipion-em", "scipion-pyworkflow", "scipion-app"}
    assert [line for line in done.stdout.splitlines() if line.split()[0] in ours] == []


def test_the_two_commands_stand_in_the_first_screen_of_the_readme():
    head = (ROOT / "README.rst").read_text("utf-8").splitlines()[:20]
    assert any("make demo" in line for line in head)
    assert any("make test" in line for line in head)


def test_make_help_lists_every_target():
    text = subprocess.run(["make", "-s", "help"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert phony is not None
    assert {line.split()[0] for line in text.splitlines()} == set(phony[1].split())


@pytest.mark.long
@pytest.mark.parametrize(("chosen", "told"), [
    ("not slow", ["windows", "slow"]), ("not slow and not scipion", ["plugin", "windows", "slow"]),
    ("not scipion", ["plugin", "windows", "queue", "browser"])])
def test_the_first_lines_say_what_is_not_tested(chosen: str, told: List[str]):
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-m", chosen, "tests/test_geometry.py"],
                          capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PATH": "/nowhere"}, check=True)
    lines = [line for line in done.stdout.splitlines()[:8] if line.startswith("not tested here: ")]
    for word in told:
        assert any(word in line for line in lines), (word, lines)
    assert len(lines) == len(told) + (not pathlib.Path("/dev/nvidia0").exists()), lines


SKIPPING = """
import pytest

def test_in_the_body(): pytest.skip("no screen")

@pytest.mark.skip(reason="by a mark")
def test_by_mark(): pass

@pytest.mark.gpu
def test_hardware(): pytest.skip("no GPU")

@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert 0

def test_good(): assert 1
"""


@pytest.mark.long
@pytest.mark.parametrize(("ci", "summary"), [("true", "3 failed, 1 passed, 1 skipped, 1 xfailed"),
                                             ("", "1 passed, 4 skipped, 1 xfailed")])
def test_in_ci_a_skip_is_a_failure(tmp_path: pathlib.Path, ci: str, summary: str):
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text("utf-8"), "utf-8")
    (tmp_path / "test_a.py").write_text(SKIPPING, "utf-8")
    (tmp_path / "test_b.py").write_text("import pytest\npytest.importorskip('no_such_module')\n", "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: hardware\n", "utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
                           "--continue-on-collection-errors", str(tmp_path)], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "CI": ci}, check=False)
    counts = dict(reversed(pair.split()) for pair in  # type: ignore[arg-type, misc]
                  re.sub(r" in .*", "", done.stdout.strip().splitlines()[-1]).replace("errors", "error").split(", "))
    failed = int(counts.get("failed", 0)) + int(counts.get("error", 0))
    told = f"{failed} failed, " if failed else ""
    assert (f"{told}{counts['passed']} passed, {counts['skipped']} skipped, {counts['xfailed']} xfailed") == summary
    assert ("In CI nothing may be skipped: Skipped: no screen" in done.stdout) == (ci == "true")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sources: pathlib.Path) -> Dict[str, pathlib.Path]:
    """Return the four files that ``make dist`` builds, by distribution and kind, as in "deepetpicker sdist"."""
    files = {}
    for name, folder in {ENGINE: sources / "engine", PLUGIN: sources}.items():
        out = tmp_path_factory.mktemp("dist")
        done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder)],
                              capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        files[f"{name} sdist"], files[f"{name} wheel"] = next(out.glob("*.tar.gz")), next(out.glob("*.whl"))
    return files


def test_pages_that_were_built_stay_out_of_the_source_distribution(tmp_path: pathlib.Path,
                                                                   monkeypatch: pytest.MonkeyPatch):
    from setuptools.command.egg_info import FileList

    for name in ("docs/a.rst", "docs/conf.py", "docs/pictures/p.png", "docs/_build/a.html", "docs/_build/.doctrees/a.x",
                 "docs/api/b.rst", "deepetpicker_plugin/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    found = FileList()
    for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            found.process_template_line(line)
    assert set(found.files) == {"docs/a.rst", "docs/conf.py", "docs/pictures/p.png", "deepetpicker_plugin/a.py"}


def contents(path: pathlib.Path) -> Tuple[Set[str], List[str]]:
    """Return the names of the files in a wheel or source distribution, and its requirements."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            text = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
    else:
        with tarfile.open(path) as source:
            top = source.getnames()[0].partition("/")[0]
            stream = source.extractfile(f"{top}/PKG-INFO")
            assert stream is not None
            names, text = [name.partition("/")[2] for name in source.getnames()], stream.read()
    return set(names), email.message_from_bytes(text).get_all("Requires-Dist") or []


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_built_files_are_complete(built: Dict[str, pathlib.Path], name: str):
    """The plugin's wheel is built from its source distribution, so that is enough to build it from."""
    folder, package = FOLDERS[name], PACKAGES[name]
    wanted = {str(path.relative_to(folder)) for path in (folder / package).rglob("*")
              if path.is_file() and path.suffix != ".pyc"}
    wheel, sdist = contents(built[f"{name} wheel"])[0], contents(built[f"{name} sdist"])[0]
    assert wanted <= wheel
    assert {entry.partition("/")[0].partition("-")[0] for entry in wheel} == {package, name.replace("-", "_")}
    assert any(entry.endswith("LICENSE") for entry in wheel)
    assert wanted | {"LICENSE", "README.rst", "setup.py", "pyproject.toml"} <= sdist
    if name == PLUGIN:
        assert {"CHANGES.txt", "docs/installation.rst", "docs/pictures/form_train.png"} <= sdist
        assert not {entry for entry in sdist if entry.startswith(("engine", "tests", "scripts"))}


@pytest.mark.slow
def test_built_files_name_no_folder_of_this_machine(built: Dict[str, pathlib.Path]):
    for kind in ("sdist", "wheel"):
        required = contents(built[f"{PLUGIN} {kind}"])[1]
        assert f"deepetpicker=={deepetpicker.__version__}" in required
        assert [r for r in required + contents(built[f"{ENGINE} {kind}"])[1] if "://" in r] == []


@pytest.mark.slow
def test_everything_resolves_beside_scipions_pins(tmp_path: pathlib.Path):
    """Resolve from nothing, as for a new user; needs a package index. torch stays the one that is installed."""
    report = tmp_path / "report.json"
    (tmp_path / "constraints.txt").write_text(f"torch=={importlib.metadata.version('torch')}\n", "utf-8")
    stamp = pathlib.Path(sys.prefix) / "deepetpicker-stamp.json"
    source = json.loads(stamp.read_text("utf-8")).get("torch_source", "") if stamp.exists() else ""
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
                           "--no-build-isolation", "--report", str(report), "-c", str(tmp_path / "constraints.txt"),
                           *(["--extra-index-url", source] if "://" in source else []), f"{ROOT}[scipion,test]"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    chosen = {item["metadata"]["name"].lower(): item["metadata"]["version"]
              for item in json.loads(report.read_text("utf-8"))["install"]}
    assert {name: chosen[name] for name in SCIPION_PINS} == SCIPION_PINS
    assert chosen["torch"] == importlib.metadata.version("torch")
    assert tuple(map(int, chosen["scipy"].split(".")[:2])) <= (1, 11)
    assert tuple(map(int, chosen["mrcfile"].split("."))) <= (1, 4, 3)
