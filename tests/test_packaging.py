"""The distribution: one version, complete metadata, every dependency with its reason, and a wheel that holds it all."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from typing import Any, Dict, List, Set

import pytest

import deepetpicker

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMPORT_NAMES = {"scipion-em-tomo": "tomo", "scipion-app": "scipion", "pytest-cov": "pytest_cov"}
COMES_WITH = {"pyworkflow": "scipion-em-tomo", "pwem": "scipion-em-tomo", "reliontomo": "", "pandas": "starfile",
              "PIL": "matplotlib"}
SCIPION_PINS = {"numpy": "1.26.1", "matplotlib": "3.8.1", "pillow": "10.1.0"}


@pytest.fixture(scope="module")
def metadata() -> Dict[str, Any]:
    """Return what setup.py hands to setuptools."""
    import setuptools

    taken: Dict[str, Any] = {}
    original, here = setuptools.setup, os.getcwd()
    setuptools.setup = lambda **values: taken.update(values)
    os.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
        os.chdir(here)
    return taken


def project(requirement: str) -> str:
    """Return the project name of a requirement, in lower case."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower()


def third_party_imports(package: str) -> Set[str]:
    """Return the top-level names a package imports that are neither Python's nor its own."""
    names: Set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"deepetpicker", "deepetpicker_plugin", "scripts"}


def test_version_is_written_once(metadata: Dict[str, Any]):
    assert metadata["version"] == deepetpicker.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", deepetpicker.__version__)
    holders = [path.name for path in [*ROOT.glob("*.toml"), ROOT / "setup.py", *ROOT.glob("deepetpicker*/**/*.py")]
               if f'"{deepetpicker.__version__}"' in path.read_text("utf-8")]
    assert holders == ["__init__.py"]
    assert (ROOT / "CHANGES.txt").read_text("utf-8").startswith(deepetpicker.__version__ + " ")


def test_every_folder_with_code_is_packaged(metadata: Dict[str, Any]):
    folders = {".".join(path.parent.relative_to(ROOT).parts) for top in ("deepetpicker", "deepetpicker_plugin")
               for path in (ROOT / top).rglob("*.py")}
    assert set(metadata["packages"]) == folders, "each folder with Python files needs an __init__.py"


def test_entry_points(metadata: Dict[str, Any]):
    assert metadata["entry_points"] == {
        "console_scripts": ["deepetpicker = deepetpicker.__main__:main"],
        "pyworkflow.plugin": ["deepetpicker_plugin = deepetpicker_plugin"],
    }


def test_data_files_of_the_plugin_are_covered(metadata: Dict[str, Any]):
    patterns = metadata["package_data"]["deepetpicker_plugin"]
    folder = ROOT / "deepetpicker_plugin"
    covered = {path for pattern in patterns for path in folder.glob(pattern)}
    present = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert present <= covered


def test_licence_is_the_gpl_in_full(metadata: Dict[str, Any]):
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert metadata["license"] == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) > 600


def test_every_import_has_its_requirement(metadata: Dict[str, Any]):
    required = {project(r) for r in metadata["install_requires"]}
    provided = {IMPORT_NAMES.get(name, name) for name in required}
    provided |= {name for name, by in COMES_WITH.items() if not by or by in required}
    assert third_party_imports("deepetpicker") | third_party_imports("deepetpicker_plugin") <= provided


def test_every_dependency_has_its_reason(metadata: Dict[str, Any]):
    text = (ROOT / "docs/dependencies.rst").read_text("utf-8")
    wanted = [*metadata["install_requires"], *(r for extra in metadata["extras_require"].values() for r in extra)]
    explained = {name for line in re.findall(r"^``.+``$", text, re.M) for name in re.findall(r"``([^`]+)``", line)}
    assert {project(r) for r in wanted} == explained


def test_python_3_8_gets_the_base_only(metadata: Dict[str, Any]):
    from packaging.requirements import Requirement

    def names(version: str) -> Set[str]:
        found = [Requirement(r) for r in metadata["install_requires"]]
        return {r.name for r in found if r.marker is None or r.marker.evaluate({"python_version": version})}

    assert metadata["python_requires"] == ">=3.8"
    assert names("3.8") == {"numpy", "mrcfile", "tqdm", "scipion-em-tomo"}
    assert names("3.11") >= {"torch", "lightning", "scipy", "starfile", "scipion-em-tomo"}
    assert names("3.13") >= {"torch", "lightning"}
    assert "scipion-em-tomo" not in names("3.13")


def test_no_upper_bounds(metadata: Dict[str, Any]):
    wanted = [r.partition(";")[0] for r in metadata["install_requires"]]
    assert [r for r in wanted if "<" in r or "==" in r] == [], "new cards need new torch; Scipion pins what it must"


def test_installed_beside_scipions_pins():
    installed = {name: importlib.metadata.version(name) for name in SCIPION_PINS}
    assert installed == SCIPION_PINS
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    ours = {"scipion-em-deepetpicker", "scipion-em-tomo", "scipion-em", "scipion-pyworkflow", "scipion-app"}
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


@pytest.mark.parametrize(("chosen", "told"), [("not slow", ["windows", "slow"]), ("not scipion", ["plugin"])])
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
def built(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, List[str]]:
    """Return the file names inside a source distribution and a wheel built from a copy of the sources."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with tarfile.open(next(out.glob("*.tar.gz"))) as source, zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return {"sdist": [name.partition("/")[2] for name in source.getnames()], "wheel": wheel.namelist()}


@pytest.mark.slow
def test_wheel_holds_both_packages_and_nothing_else(built: Dict[str, List[str]]):
    names = set(built["wheel"])
    sources = {str(path.relative_to(ROOT)) for top in ("deepetpicker", "deepetpicker_plugin")
               for path in (ROOT / top).rglob("*.py")}
    assert sources <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} <= {
        "deepetpicker", "deepetpicker_plugin", "scipion_em_deepetpicker"}
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.slow
def test_source_distribution_can_test_itself(built: Dict[str, List[str]]):
    wanted = {"LICENSE", "README.rst", "CHANGES.txt", "Makefile", "setup.py", "pyproject.toml", "scripts/make_env.py",
              "docs/dependencies.rst", *(f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py"))}
    assert wanted <= set(built["sdist"])


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
