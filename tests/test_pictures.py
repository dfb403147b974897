"""The pictures of the documents: each is shown, and each that the script makes is said to be made by it."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def test_every_picture_is_shown_and_every_shown_one_is_there():
    pages = [ROOT / "README.rst", *DOCS.glob("*.rst")]
    words = " ".join(page.read_text("utf-8") for page in pages)
    shown = set(re.findall(r"image:: (?:docs/)?pictures/(\S+)", words))
    there = {path.name for path in (DOCS / "pictures").iterdir()}
    assert shown <= there
    assert there - shown <= {"form_messages.png", "wizard_names.png"}


def test_the_script_makes_what_the_page_says():
    help_ = subprocess.run([sys.executable, ROOT / "scripts" / "pictures.py", "--help"], capture_output=True, text=True,
                           check=True).stdout
    said = (DOCS / "windows.rst").read_text("utf-8").split("scripts/pictures.py")[1].split("DEEPETPICKER_PICTURES")[0]
    made = set(re.findall(r"\w+\.png", help_.split("positional arguments:")[1])) - {"NAME.png"}
    assert made == set(re.findall(r"``(\w+\.png)``", said))
    assert all((DOCS / "pictures" / name).is_file() for name in made)
