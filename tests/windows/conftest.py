"""A virtual screen for the tests of windows, and the hands of the plugin's tests, which do not need Scipion."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import sys
from typing import Any, Iterator, Tuple

import numpy as np
import pytest

from deepetpicker.io.volumes import write_volume
from deepetpicker.windows.scene import Scene, TomogramFile, make_layer

SCREEN = pathlib.Path(__file__).resolve().parents[2] / "deepetpicker_plugin" / "tests" / "screen.py"
spec = importlib.util.spec_from_file_location("virtual_screen", SCREEN)
assert spec is not None
assert spec.loader is not None
hands = importlib.util.module_from_spec(spec)
sys.modules["virtual_screen"] = hands
spec.loader.exec_module(hands)

SHAPE = (24, 40, 56)
POSITIONS = np.array([[5.0, 10, 20], [8, 11, 21], [18, 30, 40]])


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """Yield the name of a virtual screen."""
    if not shutil.which("Xvfb"):
        pytest.skip("needs a virtual screen: install Xvfb (Debian: xvfb)")
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = hands.startScreen()
    yield os.environ["DISPLAY"]
    if before is None:
        del os.environ["DISPLAY"]
    else:
        os.environ["DISPLAY"] = before


@pytest.fixture
def root(display: str) -> Iterator[Any]:
    """Yield a hidden root window."""
    from deepetpicker.windows.window import open_screen

    window = open_screen()
    yield window
    window.destroy()


def bright_voxel(at_zyx: Tuple[int, int, int] = (5, 10, 20)) -> np.ndarray:
    """Return an empty tomogram with one bright voxel."""
    volume = np.zeros(SHAPE, np.float32)
    volume[at_zyx] = 100.0
    return volume


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Scene:
    """Return two tomograms with picks of two classes in the first."""
    write_volume(tmp_path / "a.mrc", bright_voxel(), 10.0)
    write_volume(tmp_path / "b.mrc", np.random.default_rng(0).normal(size=(20, 64, 48)).astype(np.float32), 12.0)
    layers = [make_layer(0, "ring", 60.0, {"a": [(POSITIONS, np.array([0.9, 0.4, 0.7]))]}),
              make_layer(1, "rod", 90.0, {"a": [(np.array([[12.0, 20, 30]]), np.array([0.6]))]})]
    return Scene([TomogramFile("a", str(tmp_path / "a.mrc")), TomogramFile("b", str(tmp_path / "b.mrc"))], layers)
