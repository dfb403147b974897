"""What tests of interactive protocols share: a virtual screen, their real window, mouse and keys."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import Any, List

from deepetpicker_plugin.tests.base import PluginTest
from deepetpicker_plugin.tests.screen import startScreen


def xdotool(*words: Any) -> List[str]:
    """Use mouse and keyboard of the virtual screen."""
    return subprocess.run(["xdotool", *map(str, words)], capture_output=True, text=True, timeout=90,
                          check=True).stdout.split()


def windowsNamed(title: str) -> List[str]:
    """Return the numbers of the windows that are there now and whose titles have a text."""
    return subprocess.run(["xdotool", "search", "--onlyvisible", "--name", title], capture_output=True, text=True,
                          timeout=90, check=False).stdout.split()


def windowNamed(title: str, seconds: float = 90.0) -> str:
    """Wait until a window is there, give it the keyboard, and return its number.

    xdotool's own waiting (--sync) ends with an error when another window closes while it looks.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = windowsNamed(title)
        if found:
            xdotool("windowfocus", "--sync", found[0])
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no window with {title!r} in its title within {seconds:g} s")


class WindowTest(PluginTest):
    """Tests of a protocol that opens a window; ``title`` is how the window's title begins."""

    title = ""

    @classmethod
    def setUpClass(cls) -> None:
        cls.before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = startScreen()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.before is None:
            del os.environ["DISPLAY"]
        else:
            os.environ["DISPLAY"] = cls.before

    def opened(self) -> str:
        """Wait for the window, and return its number."""
        window = windowNamed(self.title)
        time.sleep(1.0)
        return window

    def launched(self, protocol: Any) -> str:
        """Execute a protocol and return the number of its window."""
        self.proj.launchProtocol(protocol, wait=False)
        return self.opened()

    def closed(self, protocol: Any) -> Any:
        """Close the window with the keyboard and wait for the protocol."""
        def ended() -> bool:
            for window in windowsNamed(self.title):
                subprocess.run(["xdotool", "windowfocus", window, "key", "ctrl+w"], capture_output=True, check=False)
            with contextlib.suppress(AssertionError):  # a busy window may miss a key, which is then pressed again
                self.waitFor(lambda: self.refresh(protocol).getStatus() not in ("running", "launched"), 2)
                return True
            return False

        self.waitFor(ended, 90, "the end")
        return protocol
