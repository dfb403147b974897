"""Names that a shell, SQL or a path could take for something else go through a project unharmed."""

from __future__ import annotations

import os

from tomo.objects import SetOfTomograms

from deepetpicker.io.manifest import read_manifest
from deepetpicker_plugin.protocols import ProtDeepETPickerEvaluate, ProtDeepETPickerPick
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, positions, tinyModel

ODD = ("a b", "it's", 'say "x"', "$HOME", "x;touch ran", "100%d", "back\\slash", "caf\u00e9", "cafe\u0301", "-n",
       "TS_1", "TS_10", "S_1", "x" * 150)
KINDS = ("it's \"one\"; $(touch ran)", "100%s d\u00e9")


class TestNames(PluginTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = noiseTomograms(os.path.join(dataFolder(), "it's (odd); $x \\ *?[y]"),
                                {f"t{n:02d}": (20, 32, 28) for n in range(len(ODD))})
        link = os.path.join(dataFolder(), "plain")  # tomo's import takes the folder's name for a regular expression
        os.symlink(folder, link)
        cls.tomograms = cls.renamed(cls.importTomograms(link))
        cls.model = cls.importModel(tinyModel(",".join(KINDS)))

    @classmethod
    def renamed(cls, tomograms):
        """Give the tomograms of a set other tsIds, as other plugins may."""
        items, path = [item.clone() for item in tomograms.iterItems()], tomograms.getFileName()
        tomograms.close()
        os.remove(path)
        fresh = SetOfTomograms(filename=path)
        fresh.copyInfo(tomograms)
        for item, tsId in zip(items, ODD):
            item.setObjId(None)
            item.setTsId(tsId)
            fresh.append(item)
        fresh.write()
        fresh.close()
        tomograms.copy(fresh, copyId=False)
        return tomograms

    def test_names_of_tomograms_and_classes_are_picked_stored_and_scored(self):
        done = self.run_(ProtDeepETPickerPick, inputTomograms=self.tomograms, inputModel=self.model, threshold=0.3,
                         binThreads=1)
        found = positions(done.coordinates)
        self.assertEqual(set(found), set(ODD))
        listed = read_manifest(done._getExtraPath("picks", "batch_001", "manifest.json"))["items"]
        self.assertEqual({item["name"]: item["n_picks"] for item in listed},
                         {tsId: len(rows) for tsId, rows in found.items()})
        self.assertEqual(tuple(self.model.getClassNames()), KINDS)
        scores = self.run_(ProtDeepETPickerEvaluate, inputCoordinates=done.coordinates, inputReference=done.coordinates)
        self.assertEqual(scores.evaluation.getF1(), 1.0)
        self.assertFalse(os.path.exists("ran"))
