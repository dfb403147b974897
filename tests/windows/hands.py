"""Mouse and keyboard of the virtual screen, for windows of other processes."""

from __future__ import annotations

import subprocess
import time
from typing import Any, List

APPEARS_S = 90


def xdotool(*words: Any) -> List[str]:
    """Use mouse or keyboard; return the words that it prints."""
    done = subprocess.run(["xdotool", *map(str, words)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def window_named(name: str) -> str:
    """Wait until a window is there whose title has a name, give it the keyboard, and return its number.

    xdotool's own waiting (--sync) ends with an error when another window closes while it looks.
    """
    end = time.monotonic() + APPEARS_S
    while time.monotonic() < end:
        found = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", name], capture_output=True, text=True,
                               timeout=60, check=False).stdout.split()
        if found:
            xdotool("windowfocus", "--sync", found[0])
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no window with {name!r} in its title within {APPEARS_S} s")
