"""What tests of interactive protocols share: a virtual screen, their real window, mouse and keys."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import time
from typing import Any, List

from deepetpicker_plugin.tests.base import PluginTest
from deepetpicker_plugin.tests.screen import pump, startScreen


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


class FormTest(PluginTest):
    """Tests of forms and of what opens from them, in the process of the test."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = startScreen()
        super().setUpClass()
        importlib.import_module("pyworkflow.gui.project")  # before any other module of that package
        from pyworkflow.gui import Window
        cls.master = Window("tests")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.master.root.destroy()
        if cls.before is None:
            del os.environ["DISPLAY"]
        else:
            os.environ["DISPLAY"] = cls.before

    def form(self, protocol: Any) -> Any:
        """Open the form of a protocol."""
        from pyworkflow.gui.form import FormWindow

        self.executed = []
        form = FormWindow("form", protocol, lambda p, *args, **kwargs: (self.executed.append(p), "")[1], self.master)
        form.root.deiconify()
        self.addCleanup(lambda: form.root.winfo_exists() and form.root.destroy())
        pump(form.root, 0.1)
        return form

    def wand(self, form: Any, parameter: str) -> Any:
        """Click the wand beside a parameter; return the window of the wizard, None when a message came instead."""
        from deepetpicker_plugin.wizards import DeepETPickerWizard

        windows, original = [], DeepETPickerWizard.show

        def show(wizard, *args):
            original(wizard, *args)
            windows.append(getattr(wizard, "window", None))

        DeepETPickerWizard.show = show
        try:
            form.widgetDict[parameter]._showWizard()
        finally:
            DeepETPickerWizard.show = original
        self.assertEqual(len(windows), 1)
        if windows[0] is not None:
            self.addCleanup(windows[0].close)
            pump(windows[0].top, 0.4)
        return windows[0]
