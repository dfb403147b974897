"""What the protocols share: running the engine, looking at inputs, making sets."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, List, Optional

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol import GPU_LIST, USE_GPU, params
from tomo.objects import SetOfCoordinates3D
from tomo.protocols.protocol_base import ProtTomoBase

from deepetpicker.errors import DeepETPickerError
from deepetpicker_plugin.engine import devices
from deepetpicker_plugin.engine.earlier import endProcess, rollBack
from deepetpicker_plugin.engine.process import EngineMixin, stopLeftovers


class ProtDeepETPickerBase(EMProtocol, ProtTomoBase, EngineMixin):
    """Base of the plugin's protocols."""

    _devStatus = BETA
    _references = ["Liu2024"]

    # ---- form
    @staticmethod
    def _defineGpuParams(form: Any) -> None:
        """Add the choice of GPUs to a form."""
        form.addHidden(USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
                       help="Yes: the engine computes on the GPUs below; on a machine without any it uses the CPU. "
                       "No: CPU only.")
        form.addHidden(GPU_LIST, params.StringParam, default="0", label="GPU IDs",
                       help="GPUs to use, such as 0 or 0,1 or 0-3. Picking gives each tomogram to one GPU and uses all "
                       "of them at once, whatever the number of threads; training uses all of them together.")

    # ---- paths
    def _ensureExtra(self, *names: str) -> str:
        """Return a folder below extra/, relative to the project, made when missing."""
        folder = self._getExtraPath(*names)
        os.makedirs(folder, exist_ok=True)
        return folder

    def makePathsAndClean(self) -> None:
        """Make the protocol's folders for a launch, when no earlier process of it writes its state any more."""
        endProcess(self._getExtraPath())
        rollBack(self.getDbPath())
        super().makePathsAndClean()

    def cleanWorkingDir(self) -> None:
        """Delete the protocol's files, for *Restart* and *Delete*.

        An engine that outlived its protocol is ended first: it would write into the folders of the next run.

        Raises
        ------
        EngineError
            If one may still run on another machine.
        """
        stopLeftovers(self._getExtraPath())
        super().cleanWorkingDir()

    # ---- checks
    def _warnings(self) -> List[str]:
        """Return what the user should know before the run: here of the devices, where the form has them."""
        return devices.warnings(self) if self.allowsGpu() else []

    @staticmethod
    def _collect(errors: List[str], check: Callable[[], Any], label: str = "") -> Any:
        """Return what check returns; an error of the engine's kind becomes one more message."""
        try:
            return check()
        except DeepETPickerError as error:
            errors.append(f"*{label}* {error}" if label else str(error))
            return None

    def _checkedOptions(self, errors: List[str]) -> Optional[Dict[str, Any]]:
        """Return the engine's options that the form gives; None when one of them is wrong.

        A wrong field says so itself when Scipion checks the form: here only what none of them says becomes a message.
        """
        own: List[str] = []
        options = self._collect(own, self._options)
        if own and not any(param.validate(self.getAttributeValue(name)) for name, param in
                           self.getDefinition().iterParams()):
            errors += own
        return options

    @staticmethod
    def _digestOf(content: Any) -> str:
        """Return a short digest of JSON-ready values: what must make a step run again goes in."""
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @staticmethod
    def _stateOf(*sets: Any) -> List[List[int]]:
        """Return what tells a state of some input sets from others, to go into a digest.

        Scipion's *Continue* compares the arguments of steps, and not what the inputs are.
        """
        return [[s.getObjId(), s.getSize(), os.stat(s.getFileName()).st_mtime_ns] for s in sets]

    def _outputsFinished(self) -> bool:
        """Tell whether the protocol has an output."""
        return any(True for _ in self.iterOutputAttributes())

    # ---- sets
    def _newCoordinates(self, precedents: Any, suffix: str, samplingRate: float, box: int) -> SetOfCoordinates3D:
        """Return an empty set of coordinates in the protocol's folder.

        Parameters
        ----------
        precedents : Pointer or SetOfTomograms
            Tomograms the coordinates lie in; a pointer where there is one.
        suffix : str
            End of the file name: two sets of one protocol must differ in it.
        samplingRate : float
            Voxel size in angstrom.
        box : int
            Box size in voxels.
        """
        found = SetOfCoordinates3D.create(self._getPath(), suffix=suffix)
        found.setPrecedents(precedents)
        found.setSamplingRate(samplingRate)
        found.setBoxSize(box)
        return found

    @staticmethod
    def _warnings_of(manifest: Optional[Dict[str, Any]]) -> List[str]:
        """Return the warnings of a manifest as summary lines."""
        return [f"_{text}_" for text in (manifest or {}).get("warnings", [])]
