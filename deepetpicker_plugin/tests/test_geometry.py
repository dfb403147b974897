"""Positions keep their place: conversion alone, and the chain from the engine's tables to what other plugins write."""

from __future__ import annotations

import os
import unittest

import mrcfile
import numpy as np
from tomo.protocols import ProtTomoExtractCoords

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker_plugin.protocols import ProtDeepETPickerCompare, ProtDeepETPickerEvaluate, ProtDeepETPickerPick
from deepetpicker_plugin.sets import convert
from deepetpicker_plugin.tests.base import PluginTest, dataFolder, noiseTomograms, positions, tinyModel

NEAR = 0.01  # voxel
SHAPES = {"TS_01": (28, 60, 44), "TS_02": (32, 52, 48)}
ORIGIN = {"setOrigCoord": True, "x": 103.0, "y": 157.0, "z": 61.0}


def place(dims=(44, 60, 28), rate=10.0, shifts=None):
    return convert.Place("TS", "a.mrc", rate, dims, shifts or tuple(-n / 2 * rate for n in dims))


class TestTransfer(unittest.TestCase):
    XYZ = np.array([[3.25, 41.5, 17.75], [0, 0, 0], [43, 59, 27]])

    def test_same_tomogram_changes_nothing(self):
        np.testing.assert_allclose(convert.transfer(self.XYZ, place(), place()), self.XYZ)

    def test_other_binning_keeps_the_centre(self):
        np.testing.assert_allclose(convert.transfer(self.XYZ, place(), place((22, 30, 14), 20.0)), self.XYZ / 2)
        odd = convert.transfer([[30, 20, 10]], place((61, 41, 21)), place((30, 20, 10), 20.0))
        np.testing.assert_allclose(odd, [[14.75, 9.75, 4.75]])  # as tomo's extract 3D coordinates

    def test_back_and_forth(self):
        other = place((22, 30, 14), 20.0, (5.0, -3.0, 0.0))
        there = convert.transfer(self.XYZ, place(), other)
        np.testing.assert_allclose(convert.transfer(there, other, place()), self.XYZ)

    def test_one_box_with_two_origins(self):
        np.testing.assert_allclose(convert.transfer(self.XYZ, place(shifts=(0.0, 0.0, 0.0)), place()), self.XYZ)

    def test_a_part_of_a_tomogram_goes_by_the_origin(self):
        whole = place()
        part = place((20, 60, 28), 10.0, tuple(s + d for s, d in zip(whole.shifts, (150.0, 0.0, 0.0))))
        np.testing.assert_allclose(convert.transfer([[20, 5, 6]], whole, part), [[5, 5, 6]])


class TestWords(unittest.TestCase):
    def test_box_is_the_diameter(self):
        self.assertEqual(convert.boxSize(168.0, 10.0), 17)
        self.assertEqual(convert.boxSize(1.0, 10.0), 1)
        self.assertEqual(convert.inBoth(200.0, 10.0), "200 Å (20.0 voxels)")

    def test_reader_suffix_of_a_path(self):
        self.assertEqual(convert.localFile("a/b.rec:mrc"), "a/b.rec")
        self.assertEqual(convert.localFile("a/b:c.mrc"), "a/b:c.mrc")

    def test_numbers(self):
        self.assertEqual(convert.parseNumbers("1, 2.5;3 4", "x"), [1, 2.5, 3, 4])
        self.assertEqual(convert.parseNumbers(None, "x"), [])
        with self.assertRaises(InputError):
            convert.parseNumbers("1, two", "x")


class TestChain(PluginTest):
    """Non-cubic tomograms of two sizes with a shifted origin; every fractional pick is followed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = noiseTomograms(os.path.join(dataFolder(), "chain"), SHAPES)
        half = os.path.join(dataFolder(), "chain_bin2")
        os.makedirs(half, exist_ok=True)
        for name, (z, y, x) in SHAPES.items():
            volume = mrcfile.read(os.path.join(folder, f"{name}.mrc"))
            with mrcfile.new(os.path.join(half, f"{name}.mrc"), overwrite=True) as mrc:
                mrc.set_data(volume.reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean((1, 3, 5)).astype(np.float32))
                mrc.voxel_size = 20.0
        cls.full, cls.half = cls.importTomograms(folder, 10.0, **ORIGIN), cls.importTomograms(half, 20.0, **ORIGIN)
        model = cls.importModel(tinyModel("ring,rod"))
        cls.pick = cls.run_(ProtDeepETPickerPick, inputTomograms=cls.full, inputModel=model, binThreads=1)
        cls.engine = {}
        for number in (1, 2):
            table = read_coordinates(cls.pick._getExtraPath("picks", "batch_001", f"TS_0{number}.csv"))
            rows = np.column_stack([table.positions_zyx_vox[:, ::-1], table.class_ids, table.scores])
            cls.engine[f"TS_0{number}"] = np.array(sorted(map(tuple, rows)))

    def assertNear(self, found, wanted, tolerance=NEAR):
        self.assertEqual(sorted(found), sorted(wanted))
        for tsId, rows in found.items():
            np.testing.assert_allclose(rows, wanted[tsId], atol=tolerance, rtol=0)

    def test_engine_to_sqlite(self):
        self.assertEqual([t.getShiftsFromOrigin()[0] for t in self.full], [-103.0, -103.0])
        self.assertTrue((np.abs(self.engine["TS_01"][:, :3] % 1 - 0.5) < 0.49).any())  # fractional ones are among them
        self.assertNear(positions(self.pick.coordinates), self.engine)
        reopened = self.proj.getProtocol(self.pick.getObjId()).coordinates
        self.assertNear(positions(reopened), self.engine)

    def test_back_to_the_engine(self):
        rows, places = convert.readCoordinates(self.pick.coordinates)
        self.assertEqual({ts: p.dims for ts, p in places.items()}, {ts: s[::-1] for ts, s in SHAPES.items()})
        found = {ts: np.array(sorted(map(tuple, np.column_stack([r.positions_xyz_vox, r.groups, r.scores]))))
                 for ts, r in rows.items()}
        self.assertNear(found, self.engine)

    def test_extract_onto_bin_2(self):
        protocol = self.run_(ProtTomoExtractCoords, inputSubTomos=self.pick.coordinates, inputTomos=self.half)
        wanted = {ts: rows * [0.5, 0.5, 0.5, 1, 1] for ts, rows in self.engine.items()}
        self.assertNear(positions(protocol.coordinates3d), wanted)
        self.assertEqual(protocol.coordinates3d.getBoxSize(), 3)
        again = self.run_(ProtDeepETPickerEvaluate, inputCoordinates=protocol.coordinates3d,
                          inputReference=self.pick.coordinates, radiusAngstrom=1.0)
        self.assertEqual(again.evaluation.getF1(), 1.0)  # two binnings in one evaluation
        self.assertLess(again.evaluation._meanDistance.get(), 0.1)
        same = self.run_(ProtDeepETPickerCompare, inputFirst=self.pick.coordinates, inputSecond=protocol.coordinates3d,
                         radiusAngstrom=1.0)
        self.assertEqual(same.inBoth.getSize(), self.pick.coordinates.getSize())

    def test_relion_5_star(self):
        writer = needs("reliontomo.convert.convert50_tomo").Writer
        starfile = needs("starfile")
        folder = self.proj.getTmpPath("relion5")
        os.makedirs(folder)
        tomograms = convert.tomogramsOf(self.pick.coordinates.getPrecedents())
        writer().coords2Star(self.pick.coordinates, tomograms, folder, coordsScale=1.0)
        table = starfile.read(os.path.join(folder, "inParticles.star"))
        self.assertNear(grouped(table), self.xyz())

    def test_relion_4_star(self):
        write = needs("reliontomo.convert").writeSetOfCoordinates
        starfile = needs("starfile")
        path = self.proj.getTmpPath("relion4.star")
        write(self.pick.coordinates, path, self.pick.coordinates.getTSIds(), sRate=10.0, coordsScale=1)
        table = starfile.read(path)
        table = table["particles"] if isinstance(table, dict) else table
        self.assertNear(grouped(table), self.xyz())

    def test_eman_text_and_json(self):
        import json

        write = needs("emantomo.convert.convert").writeTomoCoordsJson
        protocol = self.prepared("EmanProtTomoExtraction")
        found, boxes = {}, {}
        for tsId in SHAPES:
            protocol.writeSetOfCoordinates3D(tsId)
            found[tsId] = np.loadtxt(protocol._getCoordsFile(tsId))
            path = self.proj.getTmpPath(f"{tsId}_info.json")
            write(self.pick.coordinates, tsId, path)
            with open(path, encoding="utf-8") as stream:
                boxes[tsId] = np.array([row[:3] for row in json.load(stream)["boxes_3d"]], float)
        self.assertNear(ordered(found), self.xyz())
        self.assertNear(ordered(boxes), self.xyz())

    def test_dynamo_tables(self):
        needs("dynamo")
        protocol = self.prepared("DynamoExtraction", "inputCoords")
        found = {}
        for tsId in SHAPES:
            protocol.writeSetOfCoordinates3D(tsId)
            found[tsId] = np.loadtxt(protocol._getCoordsFileName(tsId))[:, :3]
        self.assertNear(ordered(found), ordered({ts: np.round(rows, 2) for ts, rows in self.xyz().items()}),
                  tolerance=0.0101)  # it writes two decimals

    def test_tomo_export(self):
        from pwem import Domain

        kind = Domain.getProtocols()["ProtExportCoordinates3D"]
        choices = list(kind._getExportChoices())
        protocol = self.run_(kind, inputCoordinates=self.pick.coordinates, outputFormat=choices.index("txt"))
        found = {ts: np.loadtxt(protocol._getPath("Export", f"{ts}.txt")) for ts in SHAPES}
        cut = ordered({ts: np.floor(rows) for ts, rows in self.xyz().items()})  # as that export does
        self.assertNear(ordered(found), cut)

    def xyz(self):
        return ordered({ts: rows[:, :3] for ts, rows in self.engine.items()})

    def prepared(self, name, pointer="inputCoordinates"):
        """Return another plugin's extraction protocol, ready to write its input files."""
        from pwem import Domain

        protocol = self.newProtocol(Domain.getProtocols()[name], boxSize=24)
        getattr(protocol, pointer).set(self.pick)
        getattr(protocol, pointer).setExtended("coordinates")
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        protocol._initialize()
        return protocol


def needs(module):
    """Return a module of another plugin; the test is skipped where it is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise unittest.SkipTest(f"{error}: install the extra 'test'") from error


def ordered(tables):
    return {ts: np.array(sorted(map(tuple, rows))) for ts, rows in tables.items()}


def grouped(table):
    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    return ordered({name: rows[columns].to_numpy(float) for name, rows in table.groupby("rlnTomoName")})


