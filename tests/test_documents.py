"""The documents: what they name is there, and the commands they show have these options."""

from __future__ import annotations

import pathlib
import re

import pytest

from deepetpicker.__main__ import VERBS, main

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_files_that_how_to_change_names_exist():
    text = (ROOT / "docs/how_to_change.rst").read_text("utf-8")
    named = [path for path in re.findall(r"``([^`\s]+/[^`\s]*)``", text) if not re.search("VERB|NAME", path)]
    assert len(named) > 20
    folders = (ROOT, ROOT / "engine/deepetpicker", ROOT / "deepetpicker_plugin")
    assert [path for path in named if not any((folder / path).exists() for folder in folders)] == []
    bare = [name for name in re.findall(r"``([\w.]+\.(?:py|jinja|rst|txt|conf))``", text) if "NAME" not in name]
    assert len(bare) > 5
    assert [name for name in bare if not any(next(folder.rglob(name), None) for folder in folders[1:])] == []


def test_architecture_names_every_module_and_no_other():
    house = (ROOT / "docs/architecture.rst").read_text("utf-8").partition("Arrows\n")[0]
    named = set(re.findall(r"\w+\.py\b", house))
    ours = [path for folder in ("engine/deepetpicker", "deepetpicker_plugin", "scripts")
            for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts]
    files = {path.name for path in [*ours, *(ROOT / "tests").rglob("*.py")]}
    assert named - files == {"test_MODULE.py", "setup.py"}
    told_apart = {"cli", "protocols", "volumes", "coordinates", "modelcard"}  # named as a whole
    assert sorted(str(path) for path in ours if path.name not in named | {"__init__.py"}
                  and path.parent.name not in told_apart) == []


def test_the_tests_that_known_defects_names_exist():
    text = (ROOT / "docs/known_defects.rst").read_text("utf-8")
    named = re.findall(r"(?<!`)\b(\w+)::(\w+)(\.\.\.)?", text)
    assert len(named) > 25
    files = {path.stem: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [f"{file}::{test}" for file, test, is_cut in named
            if f"def test_{test}{'' if is_cut else '('}" not in files.get(f"test_{file}", "")] == []


@pytest.mark.parametrize("verb", VERBS)
def test_commands_of_the_documents_have_only_options_that_there_are(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z0-9-]+", capsys.readouterr().out))
    pages = [*ROOT.glob("docs/*.rst"), ROOT / "README.rst", ROOT / "engine/README.rst"]
    text = "\n".join(page.read_text("utf-8") for page in pages).replace("\\\n", " ")
    shown = re.findall(rf"\bdeepetpicker {verb}\b([^\n`]*)", text)
    assert shown, "no document shows it"
    assert {option for words in shown for option in re.findall(r"--[a-z][a-z0-9-]+", words)} <= options
