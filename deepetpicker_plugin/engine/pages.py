"""The page of a training or of picks: made by the engine when somebody wants to see it, from what is there then."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Callable, List, Mapping, Optional, Sequence

from deepetpicker_plugin.constants import MANIFEST_FILE, METRICS_FILE, MODEL_FILE, PAGE_DIR, PAGE_FILE
from deepetpicker_plugin.engine.process import EngineError, lastError, writeScript
from deepetpicker_plugin.sets import picked

Names = Mapping[str, str]


def pageOfTraining(protocol: Any, names: Optional[Names] = None) -> Callable[[], str]:
    """Return what makes the page of a training, which may still run; models, by their files, are called by names."""
    model, folder = protocol._getExtraPath(MODEL_FILE), protocol._getExtraPath(os.path.dirname(METRICS_FILE))
    return _maker(protocol, lambda: [model if os.path.exists(model) else folder], names)


def pageOfPicks(protocol: Any, folder: str, names: Optional[Names] = None) -> Callable[[], str]:
    """Return what makes the page of all that the engine's starts below a folder have picked."""
    def places() -> List[str]:
        files = [os.path.join(batch, name) for batch in picked.batches(folder)
                 for name in (MANIFEST_FILE, picked.CRASH_FILE)]
        return [path for path in files if os.path.exists(path)]

    return _maker(protocol, places, names)


def pageOfModel(protocol: Any, model: str, names: Optional[Names] = None) -> Callable[[], str]:
    """Return what makes the page of a model that some protocol has brought in."""
    return _maker(protocol, lambda: [model], names)


def _maker(protocol: Any, places: Callable[[], Sequence[str]], names: Optional[Names] = None) -> Callable[[], str]:
    """Return what makes a page in a protocol's folder; it may be called in any thread."""
    folder, page = protocol._getExtraPath(PAGE_DIR), protocol._getExtraPath(PAGE_FILE)
    plugin = protocol.getClassPackage().Plugin
    called = ["--names", *(f"{path}={' '.join(name.split())}" for path, name in (names or {}).items() if name.strip())]
    called = called if len(called) > 1 else []

    def make() -> str:
        about = places()
        if not about:
            raise EngineError("there is nothing to report yet")
        os.makedirs(folder, exist_ok=True)
        script = writeScript(folder, ["report", *about, "--out", page, *called], plugin, threads=1)
        done = subprocess.run(["bash", script], capture_output=True, check=False)
        if done.returncode:
            raise EngineError(lastError(folder) or f"the engine ended with status {done.returncode}")
        return page

    return make
