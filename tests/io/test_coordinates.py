"""One table, many formats: round trips, conventions, odd files and wrong columns."""

import argparse
import logging

import numpy as np
import pytest

from deepetpicker.cli import convert as convert_command
from deepetpicker.errors import FormatError, InputError, OutputError
from deepetpicker.io.coordinates import (
    FORMATS,
    SUFFIXES,
    CoordinateTable,
    Frame,
    check_against_volume,
    convert,
    find_coordinates,
    read_coordinates,
    write_coordinates,
)

SHAPE = (24, 33, 40)
FRAME = Frame(13.48, SHAPE, 18, "TS_01")
FORMAT_SUFFIX = {"csv": ".csv", "coords": ".coords", "relion3": ".star", "relion4": ".star", "relion5": ".star",
                 "box": ".box", "cbox": ".cbox", "imod": ".pts"}
EXACT = ("csv", "coords", "box")


def random_table(n=17, scores=True, seed=0):
    rng = np.random.default_rng(seed)
    return CoordinateTable(rng.uniform(0, SHAPE, (n, 3)), rng.integers(1, 4, n),
                           rng.random(n) if scores else np.full(n, np.nan))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


# --- the table -----------------------------------------------------------------------------------------------------

def test_table_checks_shapes_numbers_and_classes():
    with pytest.raises(InputError, match=r"\(N, 3\)"):
        CoordinateTable(np.zeros((2, 4)), np.ones(2), np.zeros(2))
    with pytest.raises(InputError, match="as many class ids"):
        CoordinateTable(np.zeros((2, 3)), np.ones(3), np.zeros(2))
    with pytest.raises(InputError, match=r"finite numbers.*row 2"):
        CoordinateTable([[0, 0, 0], [0, np.nan, 0]], np.ones(2), np.zeros(2))
    with pytest.raises(InputError, match="whole numbers"):
        CoordinateTable(np.zeros((1, 3)), [1.5], [0.0])
    table = CoordinateTable([], [], [])
    assert table.positions_zyx_vox.shape == (0, 3)
    assert table.equals(CoordinateTable.empty())


def test_table_select_sort_concatenate():
    table = CoordinateTable(np.arange(12.0).reshape(4, 3), [1, 2, 1, 2], [0.5, np.nan, 0.9, 0.5], {1: "ring"})
    assert table.sorted_by_score().positions_zyx_vox[:, 0].tolist() == [6, 0, 9, 3]
    assert table.select(table.class_ids == 2).scores[1] == 0.5
    assert len(table.select([])) == 0
    both = CoordinateTable.concatenate([table, CoordinateTable.empty(), table.select([0])])
    assert len(both) == 5
    assert both.class_names == {1: "ring"}
    assert CoordinateTable.concatenate([]).equals(CoordinateTable.empty())
    with pytest.raises(InputError, match="named 'ring'"):
        CoordinateTable.concatenate([table, CoordinateTable([[0, 0, 0]], [1], [0.0], {1: "rod"})])
    assert not table.equals(table.select([3, 2, 1, 0]))


# --- round trips ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(FORMAT_SUFFIX))
@pytest.mark.parametrize("n", [0, 1, 17])
def test_round_trip_of_none_one_and_many(tmp_path, name, n):
    table, path = random_table(n), tmp_path / f"t{FORMAT_SUFFIX[name]}"
    write_coordinates(path, table, FRAME, name)
    back = read_coordinates(path, FRAME, name)
    assert len(back) == n
    if name in EXACT:
        assert np.array_equal(back.positions_zyx_vox, table.positions_zyx_vox)
    np.testing.assert_allclose(back.positions_zyx_vox, table.positions_zyx_vox, atol=1e-6)
    loses = FORMATS.by_name(name).loses
    assert np.array_equal(back.class_ids, np.ones(n) if "classes" in loses else table.class_ids)
    np.testing.assert_allclose(back.scores, np.full(n, np.nan) if "scores" in loses else table.scores, rtol=1e-12)
    if name == "csv":
        assert back.equals(table)


@pytest.mark.parametrize("name", sorted(FORMAT_SUFFIX))
def test_round_trip_without_scores(tmp_path, name):
    table, path = random_table(5, scores=False), tmp_path / f"t{FORMAT_SUFFIX[name]}"
    write_coordinates(path, table, FRAME, name)
    assert np.isnan(read_coordinates(path, FRAME, name).scores).all()


def test_extreme_numbers_survive_csv_and_coords_to_the_bit(tmp_path):
    positions = [[0.1 + 0.2, 1e-300, 1 / 3], [-0.5, 123456789.123456789, np.nextafter(7, 8)]]
    table = CoordinateTable(positions, [1, 2], [np.nextafter(0, 1), np.nan])
    write_coordinates(tmp_path / "t.csv", table)
    write_coordinates(tmp_path / "t.coords", table)
    assert read_coordinates(tmp_path / "t.csv").equals(table)
    assert np.array_equal(read_coordinates(tmp_path / "t.coords").positions_zyx_vox, table.positions_zyx_vox)


def test_csv_has_the_agreed_header_and_order(tmp_path):
    table = CoordinateTable([[3, 7, 11.25]], [2], [0.5], {2: "ring"})
    write_coordinates(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b"class,x,y,z,score\n2,11.25,7.0,3.0,0.5\n"


def test_coords_keep_fractions(tmp_path):
    # Upstream cut 10.9 to 10: a mean shift of half a voxel on every axis.
    write(tmp_path / "in.txt", "10.9 20.9 3.9\n")
    assert convert(tmp_path / "in.txt", tmp_path / "out.coords") == 1
    assert read_coordinates(tmp_path / "out.coords").positions_zyx_vox.tolist() == [[3.9, 20.9, 10.9]]


def test_txt_and_coords_are_read_alike(tmp_path):
    # Upstream wrote .txt and then looked for .coords.
    text = "1\t11\t7\t3\n2\t12\t8\t4\n"
    tables = [read_coordinates(write(tmp_path / f"t{s}", text)) for s in (".txt", ".coords")]
    assert tables[0].equals(tables[1])
    assert tables[0].class_ids.tolist() == [1, 2]
    assert tables[0].positions_zyx_vox.tolist() == [[3, 7, 11], [4, 8, 12]]


# --- tolerances of text --------------------------------------------------------------------------------------------

EXPECTED = [[3.5, 7, 11]]


@pytest.mark.parametrize("text", [
    "11 7 3.5", "11,7,3.5\n", "11\t7\t3.5\r\n", "\ufeff11,7,3.5\n", "  11   7  3.5   \n\n\n",
    "# made by hand\n11 7 3.5\n",
    "x,y,z\n11,7,3.5\n", "x y z\n11 7 3.5\n", "X;Y;Z\r\n11;7;3,5\r\n", "# x y z\n11 7 3.5\n", "11, 7, 3.5,\n",
    "z,x,y\n3.5,11,7\n", '"x","y","z"\n"11","7","3.5"\n', "11 7 3.5\r# end\r", "x\ty\tz\n11\t7\t3.5\t\n",
    "id,x,y,z,phi\n9,11,7,3.5,40\n"])
@pytest.mark.parametrize("suffix", [".csv", ".coords"])
def test_one_position_in_many_dresses(tmp_path, text, suffix):
    table = read_coordinates(write(tmp_path / f"t{suffix}", text))
    assert table.positions_zyx_vox.tolist() == EXPECTED
    assert table.class_ids.tolist() == [1]


def test_utf16_from_windows_is_read(tmp_path):
    table = read_coordinates(write(tmp_path / "t.csv", "x,y,z\r\n11,7,3.5\r\n", "utf-16"))
    assert table.positions_zyx_vox.tolist() == EXPECTED


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "# nothing\n", "class,x,y,z,score\n", "x y z\r\n"])
def test_empty_files_are_valid(tmp_path, text):
    for suffix in (".csv", ".coords", ".txt", ".box", ".pts"):
        assert read_coordinates(write(tmp_path / f"t{suffix}", text)).equals(CoordinateTable.empty())


def test_simulated_truth_is_read_by_header(tmp_path):
    text = "class_id,class_name,x,y,z,rot,tilt,psi\n2,rod,11,7,3,1,2,3\n1,ring,5,6,7,0,0,0\n"
    table = read_coordinates(write(tmp_path / "t.csv", text))
    assert table.class_names == {2: "rod", 1: "ring"}
    assert table.class_ids.tolist() == [2, 1]
    assert table.positions_zyx_vox.tolist() == [[3, 7, 11], [7, 6, 5]]
    assert np.isnan(table.scores).all()


def test_headerless_five_columns_end_in_the_score(tmp_path):
    table = read_coordinates(write(tmp_path / "t.csv", "2,11,7,3,0.75\n"))
    assert table.scores.tolist() == [0.75]
    assert table.class_ids.tolist() == [2]
    with pytest.raises(FormatError, match="--from imod"):
        read_coordinates(write(tmp_path / "t.txt", "1 1 11 7 3\n"))


@pytest.mark.parametrize(("text", "message"), [
    ("x,y,z\n1,2,3\n1,two,3\n", r"t\.csv, line 3: y must be a finite number, found 'two'"),
    ("x,y,z\n\n# c\n1,2,nan\n", r"line 4: z must be a finite number"),
    ("1 2 3\n1 2\n", r"line 2: expected 3 columns"),
    ("1 2 3\n1 2 3 4\n", r"line 2: expected 3 columns"),
    ("1.5 2 3 4\n", r"line 1: the class must be a whole number.*add a header"),
    ("-1 2 3 4\n", r"line 1: the class must be"),
    ("1 2\n", r"line 1: without a header"),
    ("a,b,c\n1,2,3\n", r"header must name x, y and z, found a, b, c"),
    ("class,x,y,z\n1,2,3\n", r"line 2: expected 4 columns"),
    ("x,y,z,score\n1,2,3,high\n", r"line 2: score must be"),
    ("x,y,z,class_name\n1,2,3,a\n1,2,3,b\n", r"line 3: class 1 is named 'b'"),
    ("1 2 3\0\n", r"not a text file")])
def test_errors_name_file_and_line(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        read_coordinates(write(tmp_path / "t.csv", text))


def test_missing_folder_unknown_suffix_and_unknown_format(tmp_path):
    with pytest.raises(InputError, match="no such coordinate file"):
        read_coordinates(tmp_path / "none.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="got a folder"):
        read_coordinates(tmp_path / "d.csv")
    with pytest.raises(FormatError, match=r"suffix '\.xyz'.*\.csv"):
        read_coordinates(tmp_path / "t.xyz")
    with pytest.raises(InputError, match="did you mean 'relion5'"):
        read_coordinates(tmp_path / "t.csv", format="relion55")


# --- RELION --------------------------------------------------------------------------------------------------------

def star(columns, rows, block="particles"):
    head = "".join(f"_{c} #{i}\n" for i, c in enumerate(columns, 1))
    body = "".join(" ".join(map(str, r)) + "\n" for r in rows)
    return f"\n# version 30001\n\ndata_{block}\n\nloop_\n{head}{body}\n"


XYZ = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
CENTERED = ["rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst"]


@pytest.mark.parametrize("block", ["", "particles"])
def test_relion_pixels_are_zero_based_voxels(tmp_path, block):
    path = write(tmp_path / "t.star", star([*XYZ, "rlnClassNumber", "rlnAutopickFigureOfMerit"],
                                           [(11.5, 7, 3, 2, 0.75)], block))
    table = read_coordinates(path)
    assert table.positions_zyx_vox.tolist() == [[3, 7, 11.5]]
    assert table.class_ids.tolist() == [2]
    assert table.scores.tolist() == [0.75]


def test_relion_origins_are_subtracted(tmp_path):
    origins = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
    path = write(tmp_path / "t.star", star([*XYZ, *origins], [(11, 7, 3, 20, -10, 5)]))
    assert read_coordinates(path, Frame(10.0)).positions_zyx_vox.tolist() == [[2.5, 8, 9]]
    with pytest.raises(InputError, match="--voxel-size"):
        read_coordinates(path)
    old = write(tmp_path / "o.star", star([*XYZ, "rlnOriginX", "rlnOriginY", "rlnOriginZ"], [(11, 7, 3, 2, -1, 0.5)]))
    assert read_coordinates(old).positions_zyx_vox.tolist() == [[2.5, 8, 9]]
    none = write(tmp_path / "n.star", star([*XYZ, *origins], [(11, 7, 3, 0, 0, 0)]))
    assert read_coordinates(none).positions_zyx_vox.tolist() == [[3, 7, 11]]


def test_relion4_unbinned_pixels_are_scaled_by_the_optics_table(tmp_path):
    optics = star(["rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize"], [(1, 2.5)], "optics")
    path = write(tmp_path / "t.star", optics + star(["rlnTomoName", *XYZ], [("TS_01", 44, 28, 12)]))
    assert read_coordinates(path, Frame(10.0)).positions_zyx_vox.tolist() == [[3, 7, 11]]
    assert read_coordinates(path).positions_zyx_vox.tolist() == [[12, 28, 44]]


@pytest.mark.parametrize("shape", [(24, 32, 40), (25, 33, 41)])
def test_relion5_counts_angstrom_from_half_the_size_for_both_parities(tmp_path, shape):
    # RELION: pixel = angstrom / pixel size + size / 2 with a fractional half; Scipion: index - size / 2.
    path = write(tmp_path / "t.star", star(["rlnTomoName", *CENTERED], [("TS_01", 0, 0, 0), ("TS_01", -205, 10, -35)]))
    table = read_coordinates(path, Frame(10.0, shape))
    z, y, x = (n / 2 for n in shape)
    assert table.positions_zyx_vox.tolist() == [[z, y, x], [z - 3.5, y + 1, x - 20.5]]
    table = CoordinateTable.from_positions([[10, 20, 30]])
    write_coordinates(tmp_path / "o.star", table, Frame(10.0, shape), "relion5")
    written = (tmp_path / "o.star").read_text()
    assert f"{(30 - x) * 10!r}\t{(20 - y) * 10!r}\t{(10 - z) * 10!r}" in written


def test_relion5_names_the_missing_flag(tmp_path):
    path = write(tmp_path / "t.star", star(CENTERED, [(0, 0, 0)]))
    with pytest.raises(InputError, match="--voxel-size"):
        read_coordinates(path)
    with pytest.raises(InputError, match="--shape"):
        read_coordinates(path, Frame(10.0))
    with pytest.raises(InputError, match="--voxel-size"):
        write_coordinates(tmp_path / "o.star", random_table(1), format="relion5")
    assert not (tmp_path / "o.star").exists()


@pytest.mark.parametrize("column", ["rlnTomoName", "rlnMicrographName"])
def test_tomograms_are_matched_by_exact_name(tmp_path, column):
    rows = [("TS_1", 1, 2, 3), ("TS_11", 4, 5, 6), ("TS_1", 7, 8, 9)]
    path = write(tmp_path / "t.star", star([column, *XYZ], rows))
    assert read_coordinates(path, Frame(tomogram="TS_1")).positions_zyx_vox.tolist() == [[3, 2, 1], [9, 8, 7]]
    assert len(read_coordinates(path, Frame(tomogram="TS_11"))) == 1
    with pytest.raises(InputError, match=r"no tomogram named 'TS_'.*TS_1, TS_11"):
        read_coordinates(path, Frame(tomogram="TS_"))
    with pytest.raises(InputError, match=r"2 tomograms \(TS_1, TS_11\).*--tomogram"):
        read_coordinates(path)


@pytest.mark.parametrize("name", ["TS_1.mrc", "TS_1.tomostar", "rec/TS_1_b/TS_1.rec", "D:\\data\\TS_1.MRC",
                                  "TS_1.mrcs"])
@pytest.mark.parametrize("wanted", ["TS_1", "TS_1.mrc"])
def test_a_file_name_in_a_star_file_is_the_tomogram_of_its_name(tmp_path, name, wanted):
    path = write(tmp_path / "t.star", star(["rlnTomoName", *XYZ], [("TS_11.mrc", 4, 5, 6), (name, 1, 2, 3)]))
    assert read_coordinates(path, Frame(tomogram=wanted)).positions_zyx_vox.tolist() == [[3, 2, 1]]


def test_an_equal_name_wins_over_file_names_and_two_file_names_are_refused(tmp_path):
    rows = [("raw/TS_1.mrc", 1, 2, 3), ("den/TS_1.mrc", 4, 5, 6)]
    path = write(tmp_path / "t.star", star(["rlnTomoName", *XYZ], rows))
    with pytest.raises(InputError, match=r"raw/TS_1\.mrc, den/TS_1\.mrc may each be.*convert t\.star TS_1\.csv"):
        read_coordinates(path, Frame(tomogram="TS_1"))
    assert len(read_coordinates(path, Frame(tomogram="den/TS_1.mrc"))) == 1
    path = write(tmp_path / "u.star", star(["rlnTomoName", *XYZ], [*rows, ("TS_1", 7, 8, 9)]))
    assert read_coordinates(path, Frame(tomogram="TS_1")).positions_zyx_vox.tolist() == [[9, 8, 7]]


def test_a_name_that_is_not_in_the_star_file_has_a_remedy(tmp_path):
    path = write(tmp_path / "t.star", star(["rlnTomoName", *XYZ], [("TS_1", 1, 2, 3)]))
    with pytest.raises(InputError, match=r"no tomogram named 'grid_1'.*holds TS_1; name the tomogram's file so.*"
                                         r"convert t\.star grid_1\.csv --tomogram TS_1"):
        read_coordinates(path, Frame(tomogram="grid_1"))


def test_each_particle_has_the_pixel_size_of_its_optics_group(tmp_path):
    optics = star(["rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize"], [(1, 2.5), (7, 5.0)], "optics")
    columns = ["rlnTomoName", "rlnOpticsGroup", *XYZ]
    path = write(tmp_path / "t.star", optics + star(columns, [("a", 1, 44, 28, 12), ("a", 7, 44, 28, 12)]))
    found = read_coordinates(path, Frame(voxel_size_ang=10.0, tomogram="a"))
    assert found.positions_zyx_vox.tolist() == [[3, 7, 11], [6, 14, 22]]
    assert read_coordinates(path).positions_zyx_vox.tolist() == [[12, 28, 44]] * 2  # not known: as they are
    path = write(tmp_path / "u.star", optics + star(["rlnTomoName", *XYZ], [("a", 44, 28, 12)]))
    with pytest.raises(FormatError, match=r"optics groups differ in rlnTomoTiltSeriesPixelSize.*lack the column"):
        read_coordinates(path, Frame(voxel_size_ang=10.0))
    path = write(tmp_path / "v.star", optics + star(columns, [("a", 3, 44, 28, 12)]))
    with pytest.raises(FormatError, match=r"optics group 3, which data_optics does not list \(it lists 1, 7\)"):
        read_coordinates(path, Frame(voxel_size_ang=10.0))


def test_shifts_in_angstrom_are_divided_by_the_pixel_size_of_the_group(tmp_path):
    optics = star(["rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize"], [(1, 2.5), (2, 5.0)], "optics")
    rows = [("a", 1, 11, 7, 3, 5, 0, 10), ("a", 2, 11, 7, 3, 5, 0, 10)]
    origin = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
    path = write(tmp_path / "t.star", optics + star(["rlnTomoName", "rlnOpticsGroup", *XYZ, *origin], rows))
    assert read_coordinates(path).positions_zyx_vox.tolist() == [[-1, 7, 9], [1, 7, 10]]


def test_numeric_tomogram_names_are_names(tmp_path):
    path = write(tmp_path / "t.star", star(["rlnTomoName", *XYZ], [("01", 1, 2, 3), ("02", 4, 5, 6)]))
    assert read_coordinates(path, Frame(tomogram="02")).positions_zyx_vox.tolist() == [[6, 5, 4]]


def test_written_star_names_the_tomogram(tmp_path):
    write_coordinates(tmp_path / "TS 03.star", random_table(2), Frame(10.0))
    assert len(read_coordinates(tmp_path / "TS 03.star", Frame(tomogram="TS 03"))) == 2
    assert "data_particles" in (tmp_path / "TS 03.star").read_text()


def test_star_with_bom_crlf_and_foreign_suffix(tmp_path):
    text = "\ufeff" + star(XYZ, [(11, 7, 3.5)], "").split("\n", 3)[3].replace("\n", "\r\n")
    assert text.startswith("\ufeffdata_\r\n")
    assert read_coordinates(write(tmp_path / "t.coords", text)).positions_zyx_vox.tolist() == EXPECTED


def test_damaged_star_files(tmp_path):
    path = write(tmp_path / "t.star", star(XYZ, [(1, 2, 3), (4, "x", 6)]))
    with pytest.raises(FormatError, match=r"t\.star, line 11: rlnCoordinateY must be a finite number, found 'x'"):
        read_coordinates(path)
    with pytest.raises(FormatError, match="not a STAR file"):
        read_coordinates(write(tmp_path / "t.star", "11 7 3\n"))
    with pytest.raises(FormatError, match="rlnCoordinateZ"):
        read_coordinates(write(tmp_path / "t.star", star(XYZ[:2], [(1, 2)])))
    with pytest.raises(FormatError, match="holds no coordinates"):
        read_coordinates(write(tmp_path / "t.star", star(["rlnTomoName"], [("a",)])))
    with pytest.raises(FormatError, match="lists other files"):
        read_coordinates(write(tmp_path / "t.star", star(["rlnTomoName", "rlnTomoImportParticleFile"], [("a", "b")])))
    with pytest.raises(FormatError, match="damaged STAR"):
        read_coordinates(write(tmp_path / "t.star", star(XYZ, [(1, 2, 3), (4, 5, 6, 7)])))


# --- other programs ------------------------------------------------------------------------------------------------

def test_eman2_box_is_the_centre_and_six_columns_are_corner_and_edges(tmp_path):
    assert read_coordinates(write(tmp_path / "t.box", "11\t7\t3\n")).positions_zyx_vox.tolist() == [[3, 7, 11]]
    assert read_coordinates(write(tmp_path / "t.box", "1 2 3 10 12 14\n")).positions_zyx_vox.tolist() == [[10, 8, 6]]
    with pytest.raises(FormatError, match="2D image"):
        read_coordinates(write(tmp_path / "t.box", "1 2 30 30\n"))


def test_imod_counts_x_and_y_from_pixel_edges(tmp_path):
    for text in ("0.5 0.5 0\n", "1 0.5 0.5 0\n", "1 4 0.50 0.50 0.00\n"):
        assert read_coordinates(write(tmp_path / "t.pts", text)).positions_zyx_vox.tolist() == [[0, 0, 0]]
    table = CoordinateTable([[3, 7, 11]], [2], [0.5])
    write_coordinates(tmp_path / "o.pts", table)
    assert (tmp_path / "o.pts").read_text() == "2\t1\t11.5\t7.5\t3.0\n"
    with pytest.raises(InputError, match="from 1"):
        write_coordinates(tmp_path / "o.pts", CoordinateTable([[3, 7, 11]], [0], [0.5]))


def test_cbox_has_the_corner_in_xy_and_the_centre_in_z(tmp_path):
    write_coordinates(tmp_path / "t.cbox", CoordinateTable([[3, 17, 31]], [1], [0.5]), Frame(box_size_vox=10))
    text = (tmp_path / "t.cbox").read_text()
    assert "26.0\t12.0\t3.0\t10.0\t10.0\t10.0" in text
    for block in ("data_global", "data_cryolo", "data_cryolo_include"):
        assert block in text
    columns = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "EstWidth", "Confidence"]
    path = write(tmp_path / "r.cbox", "data_global\n\n_cbox_format_version 1.0\n\n"
                 + star(columns, [(26, 12, 3, 10, 10, 1, "<NA>", 0.5)], "cryolo"))
    assert read_coordinates(path).equals(CoordinateTable([[3, 17, 31]], [1], [0.5]))
    with pytest.raises(InputError, match="--box-size"):
        write_coordinates(tmp_path / "n.cbox", random_table(1))


# --- beside a tomogram ---------------------------------------------------------------------------------------------

def test_coordinates_are_found_by_exact_stem_only(tmp_path):
    tomogram = write(tmp_path / "model_7.mrc", "")
    for name in ("model_7.coords:Zone.Identifier", "model_70.coords", "model_7_a.csv", ".model_7.csv", "model_7.json"):
        write(tmp_path / name, "")
    assert find_coordinates(tomogram) is None
    write(tmp_path / "model_7.star", "")
    assert find_coordinates(tomogram).name == "model_7.star"
    write(tmp_path / "model_7.coords", "")
    assert find_coordinates(tomogram).name == "model_7.coords"
    write(tmp_path / "model_7.CSV", "")
    assert find_coordinates(tomogram).name == "model_7.CSV"
    assert find_coordinates(tmp_path / "nowhere" / "a.mrc") is None
    assert SUFFIXES[0] == ".csv"


# --- does it fit ---------------------------------------------------------------------------------------------------

def inside_table(n=20, shape=(24, 100, 200), seed=3):
    rng = np.random.default_rng(seed)
    return CoordinateTable(rng.uniform(1, np.array(shape) - 2, (n, 3)), np.ones(n), np.full(n, np.nan)), shape


def with_positions(table, positions):
    return CoordinateTable(positions, table.class_ids, table.scores)


def test_all_inside_passes_unchanged_and_empty_too():
    table, shape = inside_table()
    kept, warnings = check_against_volume(table, shape, 10.0, "TS_01")
    assert kept.equals(table)
    assert warnings == []
    assert check_against_volume(CoordinateTable.empty(), shape, 10.0, "TS_01")[1] == []


@pytest.mark.parametrize("n", [1, 30])
def test_fractions_of_the_size_are_refused_with_the_remedy(n):
    table = CoordinateTable.from_positions(np.random.default_rng(0).random((n, 3)))
    with pytest.raises(InputError, match=f"expected positions in voxels, found all {n} of them between 0 and 1 .*"
                                         "multiply x by 200, y by 100 and z by 24"):
        check_against_volume(table, (24, 100, 200), 10.0, "TS_01")


def test_particles_in_the_first_voxels_are_no_fractions():
    for positions in ([[0, 0, 0]], [[0, 1, 1], [1, 0, 1]], [[0.5, 0.5, 1.25]], [[-0.25, 0.5, 0.5]]):
        assert len(check_against_volume(CoordinateTable.from_positions(positions), (24, 33, 40), 10.0, "a")[0])


def test_outer_voxel_edges_are_inside():
    table = CoordinateTable.from_positions([[-0.5, 0, 0], [23.5, 99.5, 199.5], [3, 3, 3]])
    assert len(check_against_volume(table, (24, 100, 200), 10.0, "a")[0]) == 3


def test_a_few_outside_are_dropped_with_a_warning():
    table, shape = inside_table()
    positions = table.positions_zyx_vox.copy()
    positions[4] = [3, 4, 400]
    kept, warnings = check_against_volume(with_positions(table, positions), shape, 10.0, "TS_01")
    assert len(kept) == 19
    assert warnings == ["TS_01: 1 of 20 positions are outside the tomogram of 200 x 100 x 24 voxels and are left out "
                        "(the first is x, y, z = 400, 4, 3)"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda p, s: p * 13.48, "divided by the voxel size.*angstrom"),
    (lambda p, s: p[:, ::-1], "x, y, z is reversed"),
    (lambda p, s: p - np.array(s) / 2, "counted from the tomogram's centre"),
    (lambda p, s: (p - np.array(s) / 2) * 13.48, "angstrom from the tomogram's centre"),
    (lambda p, s: p * 4, "divided by 4"),
    (lambda p, s: p + 5000, "check that they belong to this tomogram")])
def test_most_outside_is_an_error_that_finds_the_cause(change, message):
    table, shape = inside_table()
    with pytest.raises(InputError, match=f"TS_01: .* of 20 positions are outside.*{message}"):
        check_against_volume(with_positions(table, change(table.positions_zyx_vox, shape)), shape, 13.48, "TS_01")


def test_swapped_class_and_x_columns_are_found(tmp_path):
    rng, shape = np.random.default_rng(0), (24, 400, 100)
    xyz = np.stack([rng.integers(10, 95, 30), rng.integers(100, 390, 30), rng.integers(1, 20, 30)], axis=1)
    extra = read_coordinates(write(tmp_path / "a.txt", "".join(f"{x} {y} {z} 1\n" for x, y, z in xyz)))
    with pytest.raises(InputError, match="first column is taken as x"):
        check_against_volume(extra, shape, 10.0, "a")
    warnings = check_against_volume(extra, (24, 400, 400), 10.0, "a")[1]
    assert "different classes: if the first column is x" in warnings[0]
    text = "x,y,z,score\n" + "".join(f"1,{x},{y},{z}\n" for x, y, z in xyz)
    table = read_coordinates(write(tmp_path / "b.csv", text))
    with pytest.raises(InputError, match="a class column was taken as x"):
        check_against_volume(table, shape, 10.0, "b")


def test_a_class_like_x_column_inside_the_volume_is_warned_about():
    rng = np.random.default_rng(0)
    positions = np.stack([rng.uniform(1, 90, 30), rng.uniform(1, 90, 30), rng.integers(1, 3, 30)], axis=1)
    _, warnings = check_against_volume(CoordinateTable.from_positions(positions), (100, 100, 100), 10.0, "a")
    assert len(warnings) == 1
    assert "x takes only the values 1, 2" in warnings[0]


# --- the command ---------------------------------------------------------------------------------------------------

def run(*argv):
    parser = argparse.ArgumentParser()
    convert_command.add_arguments(parser)
    return convert_command.main(parser.parse_args([str(a) for a in argv]))


def test_convert_command(tmp_path, caplog):
    source = write(tmp_path / "TS_01.csv", "class,x,y,z,score\n2,11,7,3,0.5\n")
    with caplog.at_level(logging.INFO):
        assert run(source, tmp_path / "o.star", "--voxel-size", 10, "--shape", "24,32,40", "--to", "relion5") == 0
        assert run(tmp_path / "o.star", tmp_path / "o.coords", "--voxel-size", 10, "--shape", "24,32,40") == 0
    assert (tmp_path / "o.coords").read_text() == "2\t11.0\t7.0\t3.0\n"
    assert "cannot hold scores" in caplog.text
    with pytest.raises(InputError, match="--shape must be"):
        run(source, tmp_path / "p.star", "--shape", "1,2")
    with pytest.raises(OutputError, match="cannot write"):
        run(source, source / "p.csv")


def test_frame_checks_its_numbers():
    for bad in ({"voxel_size_ang": -1.0}, {"box_size_vox": -1}, {"shape_zyx": (0, 1, 1)}, {"shape_zyx": (1, 1)}):
        with pytest.raises(InputError):
            Frame(**bad)
