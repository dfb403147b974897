"""Continue takes up what was changed, other inputs too, and Restart replaces; a reference checkpoint is imported."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
from pyworkflow.protocol import MODE_RESTART

from deepetpicker_plugin.protocols import (
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerImportModel,
    ProtDeepETPickerSimulate,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.tests.base import RATE, TINY, PluginTest, dataFolder, positions, python, tinyModel

# A checkpoint as the reference implementation lays it out: its names of the weights, and a class of its own inside.
CHECKPOINT = """
import argparse, re, sys, torch
from deepetpicker.config import NetworkOptions
from deepetpicker.network.resunet import ResUNet3D
def name(key):
    key = re.sub(r"\\.unit(\\d)\\.conv\\.", r".basic_module.conv\\1.conv.", key)
    key = re.sub(r"\\.unit(\\d)\\.norm\\.", r".basic_module.conv\\1.batchnorm.", key)
    key = re.sub(r"^upsamplers\\.(\\d)\\.", r"decoders.\\1.upsampling.upsample.", key)
    return "model." + key.replace("head.", "final_conv.")
torch.manual_seed(0)
state = ResUNet3D(NetworkOptions(n_classes=2, widths=(4, 6, 8, 10))).state_dict()
torch.save({"epoch": 7, "state_dict": {name(k): v for k, v in state.items()},
            "hyper_parameters": {"args": argparse.Namespace(block_size=48, pad_size=10)}}, sys.argv[1])
"""


class TestContinue(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = cls.simulate(n=1, phantoms="ring", particles=8)
        cls.other = cls.simulate(n=1, phantoms="ring", particles=8, seed=5)  # same tsIds, number and ids of items
        cls.truth, cls.wrong = cls.simulation.coordinates, cls.other.coordinates

    def goOn(self, protocol, restart=False, **settings):
        """Change the settings of a protocol that has run and run it again; read it anew."""
        for name, value in settings.items():
            getattr(protocol, name).set(value)
        if restart:
            protocol.runMode.set(MODE_RESTART)
        self.proj.launchProtocol(protocol, wait=True, force=restart)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        return self.proj.getProtocol(protocol.getObjId(), fromRuns=False)

    def xyz(self, coordinates):
        return positions(coordinates)["TS_00"][:, :3]

    def test_evaluate(self):
        protocol = self.run_(ProtDeepETPickerEvaluate, inputCoordinates=self.wrong, inputReference=self.truth)
        self.assertLess(protocol.evaluation.getF1(), 1.0)
        protocol = self.goOn(protocol, inputCoordinates=self.truth)
        self.assertEqual(protocol.evaluation.getF1(), 1.0)
        protocol = self.goOn(protocol, restart=True, inputReference=self.wrong)
        self.assertLess(protocol.evaluation.getF1(), 1.0)
        self.assertEqual([name for name, _ in protocol.iterOutputAttributes()], ["evaluation"])
        self.assertEqual(len(protocol.getRelations()), 2)
        self.assertTrue(os.path.isfile(protocol.evaluation.getReport()))
        self.assertIn(f"F1 {protocol.evaluation.getF1():.3f}", " ".join(protocol.summary()))

    def test_compare(self):
        n = self.truth.getSize()
        protocol = self.run_(ProtDeepETPickerCompare, inputFirst=self.truth, inputSecond=self.wrong, radiusAngstrom=1.0)
        self.assertEqual((protocol.onlyInFirst.getSize(), protocol.onlyInSecond.getSize()),
                         (n, self.wrong.getSize()))
        protocol = self.goOn(protocol, inputSecond=self.truth)
        self.assertEqual(protocol.inBoth.getSize(), n)
        self.assertEqual(protocol.onlyInFirst.getSize(), 0)  # no longer what it was
        self.assertEqual(protocol.onlyInSecond.getSize(), 0)
        self.assertEqual(positions(protocol.onlyInFirst), {})
        protocol = self.goOn(protocol, restart=True)
        self.assertEqual([name for name, _ in protocol.iterOutputAttributes()], ["inBoth"])

    def test_threshold(self):
        protocol = self.run_(ProtDeepETPickerThreshold, inputCoordinates=self.wrong, threshold="0")
        np.testing.assert_array_equal(self.xyz(protocol.coordinates), self.xyz(self.wrong))
        protocol = self.goOn(protocol, inputCoordinates=self.truth)
        np.testing.assert_array_equal(self.xyz(protocol.coordinates), self.xyz(self.truth))

    def test_simulate(self):
        protocol = self.run_(ProtDeepETPickerSimulate, n=1, shape="28,40,48", particles=2, phantoms="ring", gold=0,
                             membranes=0, tiltStep=20.0)
        self.assertGreater(protocol.coordinates.getSize(), 0)
        protocol = self.goOn(protocol, particles=0, seed=4)
        self.assertEqual(protocol.tomograms.getSize(), 1)
        self.assertEqual(protocol.coordinates.getSize(), 0)

    def test_train_form(self):
        two = self.simulate(n=2, phantoms="ring", shape="28,40,48", particles=2, tiltStep=20.0)
        protocol = self.newProtocol(ProtDeepETPickerTrain, inputCoordinates=two.coordinates,
                                    inputTomograms=self.simulation.tomograms,
                                    diameterAngstrom="168", **{**TINY, "validation": "TS_01"})
        errors = protocol.validate()
        self.assertEqual(len(errors), 1, errors)
        self.assertIn("no coordinates in TS_01", errors[0])
        self.assertIn("choose among TS_00", errors[0])

    def test_reference_checkpoint(self):
        path = os.path.join(dataFolder(), "epoch_7.ckpt")
        subprocess.run([python(), "-c", CHECKPOINT, path], check=True)
        protocol = self.run_(ProtDeepETPickerImportModel, modelFile=f" {path} ", importFrom=1, diameters="200, 100",
                             samplingRate=RATE)
        card = protocol.model.getCard()
        self.assertEqual(protocol.model.getDiameters(), [200.0, 100.0])
        self.assertEqual((protocol.model.getSamplingRate(), len(protocol.model.getClassIds())), (RATE, 2))
        self.assertEqual((card.patch_vox, card.border_vox, card.classes[0].label_diameter_vox), (48, 10, 7.0))
        self.assertEqual(protocol.model.getFileName(), protocol._getExtraPath("epoch_7.safetensors"))
        self.assertIn("diameter 200 Å (20.0 voxels)", " ".join(protocol.summary()))
        protocol = self.goOn(protocol, patch=64, labelDiameter=5.0)
        card = protocol.model.getCard()
        self.assertEqual((card.patch_vox, card.classes[0].label_diameter_vox), (64, 5.0))

    def test_an_imported_model_whose_file_is_exchanged_is_imported_again(self):
        path = os.path.join(dataFolder(), "same_name.safetensors")
        shutil.copyfile(tinyModel("ring"), path)
        protocol = self.run_(ProtDeepETPickerImportModel, modelFile=path)
        self.assertEqual([c.name for c in protocol.model.getClasses()], ["ring"])
        shutil.copyfile(tinyModel("ring,rod"), path)
        protocol = self.goOn(protocol)
        self.assertEqual([c.name for c in protocol.model.getClasses()], ["ring", "rod"])
