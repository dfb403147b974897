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
        window = xdotool("search", "--onlyvisible", "--sync", "--name", self.title)[0]
        xdotool("windowfocus", "--sync", window)
        time.sleep(1.0)
        return window

    def launched(self, protocol: Any) -> str:
        """Execute a protocol and return the number of its window."""
        self.proj.launchProtocol(protocol, wait=False)
        return self.opened()

    def closed(self, protocol: Any) -> Any:
        """Close the window with the keyboard and wait for the protocol."""
        def ended() -> bool:
            for window in subprocess.run(["xdotool", "search", "--onlyvisible", "--name", self.title],
                                         capture_output=True, text=True, check=False).stdout.split():
                subprocess.run(["xdotool", "windowfocus", window, "key", "ctrl+w"], capture_output=True, check=False)
            with contextlib.suppress(AssertionError):  # a busy window may miss a key, which is then pressed again
                self.waitFor(lambda: self.refresh(protocol).getStatus() not in ("running", "launched"), 2)
                return True
            return False

        self.waitFor(ended, 90, "the end")
        return protocol
