"""Forms, checks and registration: nothing is run, no data is needed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from pwem import Domain
from pyworkflow.protocol import params

import deepetpicker_plugin
from deepetpicker.config import EvaluateOptions, PickOptions, SimulateOptions, TrainOptions
from deepetpicker_plugin import Plugin, forms, protocols
from deepetpicker_plugin.epochs import readRows
from deepetpicker_plugin.protocols import (
    ProtDeepETPickerCompare,
    ProtDeepETPickerEvaluate,
    ProtDeepETPickerImportModel,
    ProtDeepETPickerPick,
    ProtDeepETPickerSimulate,
    ProtDeepETPickerThreshold,
    ProtDeepETPickerTrain,
)
from deepetpicker_plugin.sets import picked
from deepetpicker_plugin.tests.base import PluginTest

SCIPIONS = ("runName", "runMode", "hostName", "streamingSleepOnWait", "streamingWarning", "numberOfThreads",
            "binThreads", "useGpu", "gpuList")
NAMES = ("Annotate", "Propose", "Check", "Train", "Refine", "Pick", "ImportModel", "Threshold", "Review", "Evaluate",
         "Compare", "Simulate")


class TestForms(PluginTest):
    def parameters(self, kind):
        return dict(self.newProtocol(kind).getDefinition().iterParams())

    def test_every_protocol_is_registered_and_in_the_tree(self):
        from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig

        known = Domain.getProtocols()
        wanted = {f"ProtDeepETPicker{name}" for name in NAMES}
        self.assertLessEqual(wanted, set(known))
        self.assertEqual(set(protocols.__all__), wanted)
        tree = ProtocolTreeConfig.load(Domain, "none.conf")["Tomography"]
        self.assertEqual(self.below(tree, ["Particles", "Picking", "DeepETPicker"]), wanted)

    def test_the_page_of_first_picks_names_what_there_is(self):
        page = pathlib.Path(deepetpicker_plugin.__file__).parents[1] / "docs" / "first_picks.rst"
        if not page.exists():
            self.skipTest("not a checkout")
        text = " ".join(page.read_text("utf-8").split())
        labels = {str(one.label) for kind in Domain.getProtocols().values() if kind.__name__ in protocols.__all__
                  for one in self.parameters(kind).values()}
        fields = set(re.findall(r"\*\*(.+?)\*\*", text))
        self.assertEqual(fields - labels, set())
        self.assertGreater(len(fields), 8)
        ours = {kind.getClassLabel(prependPackageName=False) for kind in Domain.getProtocols().values()
                if kind.__name__ in protocols.__all__}
        named = {name for name in ours if f"*{name}*" in text}
        self.assertEqual(named, ours - {"check coordinates", "compare picks", "import model", "simulate tomograms"})

    def below(self, node, path):
        for text in path:
            node = next(child for child in node if child.text == text)
        return {child.value for child in node}

    def test_plugin(self):
        self.assertEqual(Plugin.validateInstallation(), [])
        elsewhere = os.environ.get("DEEPETPICKER_ENV_ACTIVATION", "")  # as where Scipion's Python is 3.8
        self.assertEqual(Plugin.getActivation(), elsewhere)
        self.assertEqual(os.path.isabs(Plugin.getPython()), not elsewhere)
        self.assertIn("Liu2024", deepetpicker_plugin._references)

    def test_a_training_shows_its_first_part_until_the_second_begins(self):
        protocol = self.newProtocol(ProtDeepETPickerTrain)
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        protocol._getExtraPath = lambda *parts: os.path.join(folder, *parts)
        for path, epochs, told in (("model_first_run", 3, "First training, epochs: *3*"),
                                   (".", 2, "Second training, epochs: *2*")):
            where = os.path.join(folder, "training", "model_run", path)
            os.makedirs(where, exist_ok=True)
            with open(os.path.join(where, "metrics.csv"), "w", encoding="utf-8") as stream:
                stream.write("epoch,train_loss,kept\n" + "".join(f"{k},0.5,0\n" for k in range(epochs)))
            self.assertIn(told, "\n".join(protocol._summary()))
            self.assertEqual(len(readRows(protocol.getMetricsFile())), epochs)

    def test_flags_of_the_engine_are_said_in_the_words_of_the_form(self):
        train, pick = self.newProtocol(ProtDeepETPickerTrain), self.newProtocol(ProtDeepETPickerPick)
        self.assertEqual(forms.inFormWords("train longer (--epochs or --minutes)", train),
                         'train longer ("Epochs" or "Time limit")')
        self.assertEqual(forms.inFormWords("train with --unannotated unknown, else not", train),
                         'train with "What is not annotated": unknown, else not')
        self.assertEqual(forms.inFormWords("ask for a rate (--fdr), and look", pick),
                         'ask for a rate ("False-discovery rate"), and look')
        for text in ("--class-map says it", "a -- b", "--unheard-of 3"):
            self.assertEqual(forms.inFormWords(text, train), text)

    def test_activation_of_another_environment(self):
        before = Plugin._vars["DEEPETPICKER_ENV_ACTIVATION"]
        Plugin._vars["DEEPETPICKER_ENV_ACTIVATION"] = ". /opt/env/bin/activate && "
        try:
            self.assertEqual(Plugin.getActivation(), ". /opt/env/bin/activate")
            self.assertEqual(Plugin.getPython(), "python")
        finally:
            Plugin._vars["DEEPETPICKER_ENV_ACTIVATION"] = before

    def test_every_parameter_has_label_and_help(self):
        for name in protocols.__all__:
            for parameter, definition in self.parameters(getattr(protocols, name)).items():
                if parameter in SCIPIONS:
                    continue  # Scipion's own
                self.assertTrue(definition.label.get(), f"{name}.{parameter}")
                self.assertTrue(definition.help.get(), f"{name}.{parameter}")
                self.assertLessEqual(len(definition.label.get()), 35, "Scipion's form is as wide as its longest label")

    def test_defaults_are_the_engine_s(self):
        for kind, cls, fixed in (
                (ProtDeepETPickerTrain, TrainOptions, {"device": "auto"}), (ProtDeepETPickerPick, PickOptions, {}),
                (ProtDeepETPickerEvaluate, EvaluateOptions, {}), (ProtDeepETPickerSimulate, SimulateOptions,
                                                                  {"prefix": "TS"})):
            found = forms.readOptions(self.newProtocol(kind), cls)
            self.assertEqual(found, {**cls().to_dict(), **{k: v for k, v in fixed.items() if k in found}})

    def test_picking_shares_out_tomograms_by_itself(self):
        protocol = self.newProtocol(ProtDeepETPickerPick)
        self.assertNotIn("shard", self.parameters(ProtDeepETPickerPick))
        self.assertNotIn("shard", protocol._options())
        self.assertIn("slab", protocol._options())

    def test_no_tab_is_empty_at_the_normal_level(self):
        def shown(node):
            if getattr(node, "isExpert", lambda: False)():
                return []
            inner = [p for _, p in node.iterParams()] if hasattr(node, "iterParams") else None
            return [node] if inner is None else [leaf for child in inner for leaf in shown(child)]

        for name in protocols.__all__:
            for section in self.newProtocol(getattr(protocols, name)).getDefinition().iterSections():
                self.assertTrue(shown(section) or section.getLabel() == "General", f"{name}: {section.getLabel()}")

    def test_units_are_in_the_labels(self):
        shown = self.parameters(ProtDeepETPickerTrain)
        self.assertEqual(shown["diameterAngstrom"].label.get(), "Particle diameter (Å)")
        self.assertEqual(shown["patch"].label.get(), "Patch (voxels; 0: by recipe)")
        self.assertEqual(shown["minutes"].label.get(), "Time limit (minutes; 0: none)")
        self.assertEqual(shown["learningRate"].expertLevel.get(), params.LEVEL_ADVANCED)
        self.assertEqual(shown["epochs"].expertLevel.get(), params.LEVEL_NORMAL)

    def test_all_problems_at_once_in_the_engine_s_words(self):
        protocol = self.newProtocol(ProtDeepETPickerTrain, patch=30, epochs=-1, seed=-1, rotation=500.0)
        text = "\n".join(protocol.validate())
        for part in ("*Particle coordinates* cannot be EMPTY", "*Patch (voxels; 0: by recipe)* must be a multiple of "
                     "8, at least 32, got 30",
                     "*Epochs (0: by recipe or time)* must be a number >= 0, got -1", "*Seed*", "between 0 and 180"):
            self.assertIn(part, text)
        self.assertNotIn("Traceback", text)

    def test_no_problem_is_said_twice(self):
        for kind, wrong in ((ProtDeepETPickerTrain, {"patch": 30}), (ProtDeepETPickerPick, {"threshold": 3.0}),
                            (ProtDeepETPickerEvaluate, {"beta": -1.0}),
                            (ProtDeepETPickerCompare, {"radiusAngstrom": -1.0}), (ProtDeepETPickerSimulate, {"n": 0})):
            errors = [e for e in self.newProtocol(kind, **wrong).validate() if "EMPTY" not in e]
            self.assertEqual(len(errors), 1, errors)
            self.assertIn("must be", errors[0])
            self.assertTrue(errors[0].startswith("*"), errors[0])  # it names the field as the form does

    def test_names_in_the_tree(self):
        for name in protocols.__all__:
            label = getattr(protocols, name).getClassLabel()
            self.assertEqual(label, f"deepetpicker - {getattr(protocols, name)._label}")
        plugin = ProtDeepETPickerTrain.getPlugin()
        self.assertEqual([t.getObjId() for t in plugin.getTemplates()], ["deepetpicker-train_and_pick"])

    def test_nothing_heavy_is_loaded_at_start(self):
        heavy = ("torch", "lightning", "matplotlib", "deepetpicker.network", "deepetpicker.cli", "tkinter")
        code = ("import pwem.protocols, pwem.viewers, tomo.protocols, tomo.viewers, pyworkflow.wizard, sys\n"
                "before = set(sys.modules)\n"
                "import deepetpicker_plugin, deepetpicker_plugin.bibtex\n"
                "from deepetpicker_plugin import objects, protocols, viewers, wizards\n"
                f"print([m for m in set(sys.modules) - before if m.startswith({heavy!r})])\n"
                "print([m for m in sys.modules if m.partition('.')[0] in ('torch', 'lightning')])\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines()[-2:], ["[]", "[]"], done.stdout)

    def test_picking_needs_threads(self):
        text = "\n".join(self.newProtocol(ProtDeepETPickerPick, numberOfThreads=2, threshold=3.0).validate())
        self.assertIn("expected 3 or more", text)
        self.assertIn("must be a number between -1 and 1", text)

    def test_what_computes_long_asks_for_threads(self):
        for kind in (ProtDeepETPickerTrain, ProtDeepETPickerSimulate):
            self.assertEqual(self.newProtocol(kind)._engineThreads(), 4, kind)
            self.assertIn("numberOfThreads", self.parameters(kind))

    def test_import_says_all_that_a_checkpoint_lacks(self):
        protocol = self.newProtocol(ProtDeepETPickerImportModel, modelFile="/nowhere/a.ckpt", importFrom=1)
        errors = protocol.validate()
        self.assertEqual(len(errors), 3, errors)
        for diameters, names, words in (("250", "", ["--diameter-angstrom", "250"]),
                                        ("250, 140", "", ["--diameter-angstrom", "250,140"]),
                                        ("2: 140, 0: 250", "", ["--classes", "0:class_0:250,2:class_2:140"]),
                                        ("250 140", "ribosome, 20S", ["--classes", "1:ribosome:250,2:20S:140"]),
                                        ("250", "ribosome", ["--classes", "1:ribosome:250"])):
            form = self.newProtocol(ProtDeepETPickerImportModel, importFrom=1, diameters=diameters, classNames=names)
            self.assertEqual(form._classWords(), words)
        ours = self.newProtocol(ProtDeepETPickerImportModel, modelFile=__file__)
        self.assertIn("not a safetensors file", "\n".join(ours.validate()))

    def test_threshold_needs_numbers(self):
        text = "\n".join(self.newProtocol(ProtDeepETPickerThreshold, threshold="high").validate())
        self.assertIn("cannot be EMPTY", text)

    def test_option_names_round_trip(self):
        for cls in (TrainOptions, PickOptions, SimulateOptions, EvaluateOptions):
            names = [forms.paramName(f.name) for f in dataclasses.fields(cls)]
            self.assertEqual(len(set(names)), len(names))
        self.assertEqual(forms.paramName("learning_rate"), "learningRate")

    def test_output_names(self):
        self.assertEqual(picked.outputNames("coordinates", [1, 2], ["a b", "c"]),
                         {1: "coordinates_a_b", 2: "coordinates_c"})
        self.assertEqual(picked.outputNames("coordinates", [1, 2], ["a b", "a-b"]),
                         {1: "coordinates_1", 2: "coordinates_2"})
