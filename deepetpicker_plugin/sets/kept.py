"""What a continued picking keeps of earlier runs: picks made with the same settings in the same tomograms."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Set

from deepetpicker.config import PickOptions
from deepetpicker.io.atomic import write_text
from deepetpicker_plugin.constants import PICKS_DIR, SIGNATURE_FILE
from deepetpicker_plugin.sets import convert, picked


class KeptMixin:
    """What a picking protocol does with what it picked before."""

    def _kept(self) -> Set[str]:
        """Return the tsIds of the tomograms that need not be picked again.

        What was picked in a tomogram whose file, mask or tables hold something else now is taken out of the outputs and
        set aside first.
        """
        folder = self._getExtraPath(PICKS_DIR)
        done = picked.done(folder)
        items = self._engineItems(sorted(done)) if done else {}
        stale = picked.stale(folder, items)
        if stale:
            self.warning("exchanged since they were picked, or their tables are damaged; picked again: "
                         + ", ".join(stale))
            with self._lock:
                self._dropPicks(stale)
            picked.setAside(folder, stale)
        return done - set(stale)

    def _signature(self) -> Dict[str, Any]:
        """Return what must not change while picks of earlier starts are kept."""
        changing = ("device", "batch", "slab", "precision", "memory_limit")
        return {"options": {k: v for k, v in self._options().items() if k not in changing},
                "model": self.inputModel.get().getObjId(), "split": self.splitClasses.get(),
                "masks": self._maskFiles(), "tomograms": self.inputTomograms.get().getObjId()}

    def _maskFiles(self) -> Optional[Dict[str, str]]:
        """Return the file of each mask by tsId, as it is told from others; None without masks.

        Imported files are links, and the same file may be imported twice. In a project that is moved, files outside
        keep their absolute paths and those inside the relative ones.
        """
        masks = self.inputMasks.get()
        if masks is None:
            return None
        with self._lock:
            files = {m.getTsId(): os.path.realpath(convert.localFile(m.getFileName())) for m in masks.iterItems()}
            masks.close()
        inside = {ts: os.path.relpath(path) for ts, path in files.items()}
        return {ts: files[ts] if path.startswith(os.pardir) else path for ts, path in inside.items()}

    def _sign(self) -> None:
        """Write down with what settings the picks of this run are made."""
        self._ensureExtra(PICKS_DIR)
        write_text(self._getExtraPath(SIGNATURE_FILE), json.dumps(self._signature(), indent=1) + "\n")

    def _changed(self) -> List[str]:
        """Return what was changed since earlier picks of this protocol, which Continue would keep, were made.

        Masks may be added for tomograms that were not picked yet.
        """
        path, done = self._getExtraPath(SIGNATURE_FILE), picked.done(self._getExtraPath(PICKS_DIR))
        if not self.isContinued() or not os.path.exists(path) or not done:
            return []
        with open(path, encoding="utf-8") as stream:
            before = json.load(stream)
        now = json.loads(json.dumps(self._signature()))
        earlierOptions = {**PickOptions().to_dict(), **before["options"]}  # it may be older than an option
        changed = [key for key, value in now["options"].items() if earlierOptions.get(key) != value]
        changed += [key for key in now if key not in ("options", "masks") and before.get(key) != now[key]]
        masks, earlier = now["masks"], before["masks"]
        if (masks is None) != (earlier is None) or (masks and any(masks.get(t) != earlier.get(t) for t in done)):
            changed.append("masks")
        return changed
