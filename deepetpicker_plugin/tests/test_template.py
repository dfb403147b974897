"""The workflow template makes the whole chain, with parameters that the protocols know."""

from __future__ import annotations

import json
import os

from pwem import Domain
from pyworkflow.template import LocalTemplate
from tomo.protocols import ProtImportCoordinates3D

import deepetpicker_plugin
from deepetpicker_plugin.tests.base import PluginTest

FOLDER = os.path.join(os.path.dirname(deepetpicker_plugin.__file__), "templates")
SETTINGS = {"tomograms": FOLDER, "coordinates": FOLDER, "heldout": FOLDER, "apix": "12.5", "pattern": "{TS}.mrc",
            "diameter": "150", "epochs": "7"}


class TestTemplate(PluginTest):
    def workflow(self):
        template = LocalTemplate("deepetpicker_plugin", os.path.join(FOLDER, "train_and_pick.json.template"))
        template.replaceEnvVariables()
        template.parseContent()
        self.assertEqual(sorted(p.getAlias() for p in template.params.values()), sorted(SETTINGS))
        for alias, value in SETTINGS.items():
            template.setParamValue(alias, value)
        return template.createTemplateFile()

    def test_parameters_are_known(self):
        with open(self.workflow(), encoding="utf-8") as stream:
            entries = json.load(stream)
        for entry in entries:
            protocol = self.newProtocol(Domain.getProtocols()[entry["object.className"]])
            known = {name for name, _ in protocol.iterDefinitionAttributes()}
            given = {key for key in entry if not key.startswith(("object.", "_"))}
            self.assertLessEqual(given, known, entry["object.className"])

    def test_what_it_does_not_ask_for_is_as_in_a_new_form(self):
        asked = {"ProtDeepETPickerTrain": {"diameterAngstrom", "epochs"}}
        with open(self.workflow(), encoding="utf-8") as stream:
            entries = [e for e in json.load(stream) if "DeepETPicker" in e["object.className"]]
        self.assertEqual(len(entries), 3)
        for entry in entries:
            name = entry["object.className"]
            protocol = self.newProtocol(Domain.getProtocols()[name])
            for key, _ in protocol.getDefinition().iterParams():
                if key in entry and not getattr(protocol, key).isPointer() and key not in asked.get(name, set()):
                    fresh = getattr(protocol, key).get()
                    self.assertIn(entry[key], (fresh, fresh or None), f"{name}.{key}")

    def test_it_makes_the_chain(self):
        made = {p.getClassName(): p for p in self.proj.loadProtocols(self.workflow()).values()}
        train, pick = made["ProtDeepETPickerTrain"], made["ProtDeepETPickerPick"]
        self.assertEqual((train.diameterAngstrom.get(), train.epochs.get()), ("150", 7))
        self.assertEqual(made["ProtImportTomograms"].samplingRate.get(), 12.5)
        self.assertIs(pick.inputModel.getObjValue(), train)
        self.assertEqual(pick.inputModel.getExtended(), "model")
        evaluation = made["ProtDeepETPickerEvaluate"]
        self.assertEqual(evaluation.inputCoordinates.getExtended(), "coordinates")
        self.assertIs(evaluation.inputCoordinates.getObjValue(), pick)
        reference = evaluation.inputReference.getObjValue()
        self.assertIsInstance(reference, ProtImportCoordinates3D)
        self.assertNotEqual(reference.getObjId(), train.inputCoordinates.getObjValue().getObjId())  # held out
