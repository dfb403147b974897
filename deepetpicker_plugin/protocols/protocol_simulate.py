"""Simulate tomograms with known particles."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Sequence

import mrcfile
import numpy as np
from pwem.objects import Volume
from pyworkflow.protocol import params
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D, SetOfTomograms, TomoAcquisition, Tomogram

from deepetpicker.config import SimulateOptions
from deepetpicker.io.classes import read_classes
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker_plugin.constants import SIMULATION_DIR
from deepetpicker_plugin.engine.process import readManifest, writeParams
from deepetpicker_plugin.forms import addOption, addOptions, readOptions
from deepetpicker_plugin.protocols.protocol_base import ProtDeepETPickerBase
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.sets.classes import setClasses, tableLines

VOLTAGE_KV, CS_MM, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1


class ProtDeepETPickerSimulate(ProtDeepETPickerBase):
    """Simulate cryo-electron tomograms with known particles.

    Tilt series of randomly placed and turned particles with CTF, noise and missing wedge are reconstructed by weighted
    back-projection. The particles are built-in phantoms or density maps: with a map alone, and no annotation, a picker
    can be trained.
    """

    _label = "simulate tomograms"
    _possibleOutputs = {"tomograms": SetOfTomograms, "coordinates": SetOfCoordinates3D}

    def _defineParams(self, form: Any) -> None:
        """Define the form."""
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam("inputVolumes", params.MultiPointerParam, pointerClass="Volume,SetOfVolumes", allowsNull=True,
                      minNumObjects=0, label="Density maps (optional)",
                      help="Maps of particles, bright density, each a class. Empty: the built-in phantoms.")
        addOption(form, SimulateOptions, "phantoms", "Built-in phantoms")
        addOption(form, SimulateOptions, "n", "Number of tomograms")
        addOption(form, SimulateOptions, "shape", "Tomogram size z,y,x")
        addOptions(form, SimulateOptions, ["voxel_size", "particles"])
        addOption(form, SimulateOptions, "snr", "Signal-to-noise ratio")
        form.addSection(label="Imaging")
        addOptions(form, SimulateOptions, ["tilt_range", "tilt_step", "defocus"])
        addOption(form, SimulateOptions, "gold", "Gold beads per tomogram")
        addOption(form, SimulateOptions, "membranes", "Vesicles per tomogram")
        addOption(form, SimulateOptions, "prefix", "Start of the tsIds", default="TS")
        addOption(form, SimulateOptions, "seed", "Random seed")
        form.addParallelSection(threads=4, mpi=0)

    def _insertAllSteps(self) -> None:
        """Insert the steps; the digest makes them run again when anything in the form changes."""
        digest = self._digestOf([self._options(), [v.getFileName() for v in self._volumes()]])
        self._insertFunctionStep(self.simulateStep, digest, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, digest, needsGPU=False)

    def simulateStep(self, digest: str) -> List[str]:
        """Run the engine; returns the tomograms, which must exist."""
        folder = self._getExtraPath(SIMULATION_DIR)
        if os.path.isdir(folder):  # tomograms of an earlier run with other settings must not stay among the new ones
            shutil.rmtree(folder)
        self._ensureExtra(SIMULATION_DIR)
        words = ["simulate", folder, "--params", writeParams(folder, self._options(self._maps()), [])]
        self.runEngine(folder, words)
        return [item["tomogram"] for item in self._doneManifest(folder)["items"]]

    def createOutputStep(self, digest: str) -> None:
        """Make tomograms and coordinates outputs."""
        folder = self._getExtraPath(SIMULATION_DIR)
        rate, classes = float(self.voxelSize.get()), read_classes(folder)[0]
        tomograms = SetOfTomograms.create(self._getPath())
        tomograms.setSamplingRate(rate)
        tomograms.setAcquisition(self._acquisition())
        entries = [item for item in self._doneManifest(folder)["items"] if item["status"] == "done"]
        for item in entries:
            tomogram = Tomogram(tsId=item["name"])
            tomogram.setLocation(item["tomogram"])
            tomogram.setSamplingRate(rate)
            tomogram.setAcquisition(self._acquisition())
            tomogram.setOrigin()
            tomograms.append(tomogram)
        self._defineOutputs(tomograms=tomograms)
        box = convert.boxSize(max(c.diameter_ang for c in classes), rate)
        coordinates = self._newCoordinates(tomograms, "", rate, box)
        setClasses(coordinates, classes)
        byId = convert.tomogramsOf(tomograms)
        for item in entries:
            tomogram = byId[item["name"]]
            table = read_coordinates(item["coordinates"])
            convert.appendTable(coordinates, tomogram, convert.Place.of(tomogram), table)
        if coordinates.getSize() or hasattr(self, "coordinates"):  # what an earlier run had must not stay
            self._defineOutputs(coordinates=coordinates)
            self._defineSourceRelation(tomograms, coordinates)

    def _acquisition(self) -> TomoAcquisition:
        """Return the acquisition that was simulated."""
        acquisition = TomoAcquisition(angleMin=-self.tiltRange.get(), angleMax=self.tiltRange.get(),
                                      step=self.tiltStep.get())
        acquisition.setVoltage(VOLTAGE_KV)
        acquisition.setSphericalAberration(CS_MM)
        acquisition.setAmplitudeContrast(AMPLITUDE_CONTRAST)
        return acquisition

    # ---- what the form says
    def _volumes(self) -> List[Volume]:
        """Return clones of the maps."""
        found: List[Volume] = []
        for pointer in self.inputVolumes:
            volume = pointer.get()
            if volume is not None:
                found += [v.clone() for v in volume] if hasattr(volume, "iterItems") else [volume]
        return found

    def _maps(self) -> List[str]:
        """Return the paths of the maps, copied where a header does not say Scipion's sampling rate."""
        paths = []
        for number, volume in enumerate(self._volumes(), start=1):
            path, rate = convert.localFile(volume.getFileName()), float(volume.getSamplingRate())
            with mrcfile.open(path, permissive=True, header_only=True) as header:
                known = float(header.voxel_size.x)
            if abs(known - rate) > 0.001 * rate:
                copy = os.path.join(self._ensureExtra("maps"), f"map_{number}.mrc")
                with mrcfile.open(path, permissive=True) as source, mrcfile.new(copy, overwrite=True) as target:
                    target.set_data(np.asarray(source.data, np.float32))
                    target.voxel_size = rate
                path = copy
            paths.append(path)
        return paths

    def _options(self, maps: Sequence[str] = ()) -> Dict[str, Any]:
        """Return the engine's options that the form gives."""
        return readOptions(self, SimulateOptions, maps=list(maps))

    # ---- information
    def _validate(self) -> List[str]:
        """Return everything that is wrong with the form."""
        errors: List[str] = []
        self._checkedOptions(errors)
        for volume in self._volumes():
            if not volume.getSamplingRate():
                errors.append(f"*Density maps* {volume.getFileName()} has no sampling rate: import it again with one")
        return errors

    def _summary(self) -> List[str]:
        """Return what was simulated."""
        manifest = readManifest(os.path.join(self._getExtraPath(SIMULATION_DIR), "manifest.json"))
        if manifest is None or not hasattr(self, "tomograms"):
            return ["Nothing was simulated yet."]
        rate = float(self.voxelSize.get())
        classes = read_classes(self._getExtraPath(SIMULATION_DIR))[0]
        return [f"*{self.tomograms.getSize()} tomograms* with {sum(i['n_particles'] for i in manifest['items'])} "
                "particles",
                *tableLines(classes, rate),
                *self._warnings_of(manifest)]

    def _methods(self) -> List[str]:
        """Return a sentence for a methods section."""
        return [f"Tomograms were simulated with a signal-to-noise ratio of {self.snr.get():g} per projection, tilts of "
                f"±{self.tiltRange.get():g}° in steps of {self.tiltStep.get():g}° and {self.defocus.get():g} µm "
                "defocus."]
