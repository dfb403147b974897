"""Pictures and the HTML page: what they show, that they stand alone, that odd names and empty sets do no harm."""

from __future__ import annotations

import html.parser
import pathlib
import subprocess
import sys
from typing import List, Tuple

import numpy as np
import pytest

from deepetpicker.cli.evaluate import report_text
from deepetpicker.config import EvaluateOptions
from deepetpicker.errors import InputError, OutputError
from deepetpicker.evaluation import curve_of, distance_candidates, evaluate, hits_of, match_by_distance
from deepetpicker.evaluation.reliability import reliability
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import write_volume
from deepetpicker.report import (
    PictureStyle,
    choose_planes,
    curve_figure,
    distance_figure,
    orthogonal_views,
    score_histogram,
    slices_with_picks,
    training_figure,
    z_profile_figure,
)
from deepetpicker.report.pages.evaluation import (
    Picture,
    page,
    reliability_figure,
    report_pictures,
    write_report,
    write_slices,
)
from deepetpicker.windows import charts

SHAPE = (24, 32, 40)
EMPTY = CoordinateTable.empty()


def particles(n: int = 12, seed: int = 0, classes: int = 2) -> CoordinateTable:
    rng = np.random.default_rng(seed)
    return CoordinateTable(rng.random((n, 3)) * (np.array(SHAPE) - 1), np.arange(n) % classes + 1, rng.random(n),
                           {1: "_ring $x$", 2: "<rod>"})


@pytest.fixture
def volume_zyx() -> np.ndarray:
    return noise()


def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def evaluated(place: pathlib.Path):
    """Return the evaluation of four tomograms whose truth and picks are written into folders of a place."""
    truth, picks = place / "truth", place / "picks"
    for folder in (truth, picks):
        folder.mkdir()
    for index, name in enumerate(("a<script>", "b", "c", "d")):
        table = particles(seed=index)
        moved = np.clip(table.positions_zyx_vox + 0.5 + index / 2, 0, np.array(SHAPE) - 1)
        shifted = CoordinateTable(moved, table.class_ids, table.scores)
        write_coordinates(truth / f"{name}.csv", table)
        write_coordinates(picks / f"{name}.csv", shifted)
        write_volume(truth / f"{name}.mrc", noise(), 10.0)
    (truth / "classes.json").write_text('{"classes": [{"id": 1, "name": "_ring $x$"}, {"id": 2, "name": "<rod>"}]}')
    return evaluate(truth, picks, EvaluateOptions(radius_angstrom=30))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="module")
def written(report, tmp_path_factory) -> pathlib.Path:
    """The page of that evaluation, in a folder that did not exist."""
    path = tmp_path_factory.mktemp("written") / "out" / "r.html"
    write_report(report, path)
    return path


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """The evaluation of a tomogram without particles and without picks."""
    place = tmp_path_factory.mktemp("nothing")
    for name in ("truth", "picks"):
        (place / name).mkdir()
        write_coordinates(place / name / "t.csv", EMPTY)
    return evaluate(place / "truth", place / "picks", EvaluateOptions(radius_angstrom=30, voxel_size=10))


def drawn(figure) -> Tuple[int, int, int]:
    """Render a figure; return its size in pixels and the number of distinct grey values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    return pixels.shape[1], pixels.shape[0], len(np.unique(pixels[..., 0]))


def circles(axes) -> List[int]:
    """Return how many circles each collection of the axes holds."""
    return [len(c.get_paths()) for c in axes.collections]


def test_slices_show_hits_false_positives_and_misses(volume_zyx):
    truth = CoordinateTable.from_positions([[10, 8, 8], [10, 20, 20], [10, 26, 33]])
    picks = CoordinateTable.from_positions([[10, 8, 9], [10, 26, 33], [10, 5, 30], [20, 5, 30]])
    picks = CoordinateTable(picks.positions_zyx_vox, np.array([1, 2, 1, 1]), picks.scores)
    style = PictureStyle(planes=(10,), voxel_size_ang=10.0, diameters_ang={1: 80.0, 2: 80.0}, title="T $1$")
    figure = slices_with_picks(volume_zyx, picks, truth, match_by_distance(truth, picks, 3.0), style)
    assert circles(figure.axes[0]) == [1, 1, 1, 1]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["hits (1)", "hits, other class (1)", "false positives (2)", "misses (1)"]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["z = 10", "5 nm"]
    assert drawn(figure)[2] > 50


def test_circles_shrink_with_distance_from_the_plane(volume_zyx):
    table = CoordinateTable.from_positions([[10, 15, 15], [13, 15, 15], [18, 15, 15]])
    style = PictureStyle(planes=(10,), voxel_size_ang=10.0, diameters_ang={1: 100.0})
    figure = slices_with_picks(volume_zyx, table, style=style)
    widths = [p.get_extents().width for p in figure.axes[0].collections[0].get_paths()]
    assert widths == pytest.approx([10.0, 8.0], rel=0.01)


def test_picks_alone_get_a_look_per_class_and_odd_names_do_no_harm(volume_zyx):
    figure = slices_with_picks(volume_zyx, particles(), style=PictureStyle(n_planes=2))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [r" _ring \$x\$ (6)", "<rod> (6)"]
    assert len(figure.axes) == 2
    assert figure.axes[0].texts[-1].get_text() == "5 voxels"
    assert drawn(figure)[0] > 500


def test_truth_without_match_is_drawn_beside_the_picks(volume_zyx):
    figure = slices_with_picks(volume_zyx, particles(seed=1), particles(seed=2))
    assert figure.legends[0].get_texts()[0].get_text() == "true particles (12)"


@pytest.mark.parametrize("fill", [np.nan, 3.0])
def test_slices_of_nothing(fill):
    volume = np.full(SHAPE, fill, dtype=np.float32)
    figure = slices_with_picks(volume, EMPTY, EMPTY, match_by_distance(EMPTY, EMPTY, 1.0))
    assert len(figure.axes) == 4
    assert drawn(figure)[0] > 500


def test_slices_refuse_what_does_not_fit(volume_zyx):
    with pytest.raises(InputError, match="plane 24"):
        slices_with_picks(volume_zyx, EMPTY, style=PictureStyle(planes=(24,)))
    with pytest.raises(InputError, match="three axes"):
        slices_with_picks(volume_zyx[0], EMPTY)
    with pytest.raises(InputError, match="tables that were matched"):
        slices_with_picks(volume_zyx, particles(5), particles(4), match_by_distance(particles(4), particles(4), 1.0))


def test_planes_follow_the_particles():
    table = CoordinateTable.from_positions([[3, 0, 0]] * 5 + [[20, 0, 0]] * 5)
    assert choose_planes(24, [table], 2) == (3, 20)
    assert choose_planes(24, [EMPTY], 2) == (6, 18)
    assert choose_planes(1, [EMPTY], 4) == (0,)


def test_a_large_plane_is_thinned_but_keeps_its_frame():
    volume = np.zeros((2, 1500, 3000), dtype=np.int8)
    figure = slices_with_picks(volume, EMPTY, style=PictureStyle(planes=(1,), voxel_size_ang=10.0))
    image = figure.axes[0].images[0]
    assert max(image.get_array().shape) <= 1400
    assert image.get_extent() == [-0.5, 2999.5, -0.5, 1499.5]


@pytest.mark.parametrize("position", [[12, 16, 20], [0.4, 0, 39.5], [23, 31, 0]])
def test_orthogonal_views_cross_the_particle(volume_zyx, position):
    z, y, x = np.rint(position).astype(int)
    volume_zyx[z, y, min(x, 39)] = 100.0
    style = PictureStyle(voxel_size_ang=10.0, diameters_ang={1: 80.0}, smooth_vox=0.0, average=0, title="a_$b$")
    figure = orthogonal_views(volume_zyx, position, style)
    labels = [(a.get_xlabel(), a.get_ylabel()) for a in figure.axes]
    assert labels == [("x", "y"), ("x", "z"), ("z", "y")]
    for axes in figure.axes:
        image = axes.images[0].get_array()
        middle = image.shape[0] // 2
        if x < 40:
            assert image[middle, middle] == 100
    assert drawn(figure)[0] == 900


def test_curve_figure_marks_best_and_threshold():
    truth, picks = particles(seed=1), particles(seed=1)
    curve = curve_of(hits_of([(distance_candidates(truth, picks, 1.0), picks.scores)]))
    figure = curve_figure(curve, threshold=0.5)
    texts = [t.get_text() for a in figure.axes for t in a.get_legend().get_texts()]
    assert texts[0].startswith("best F1 1.000")
    assert texts.count("threshold 0.5") == 2
    assert "F4" in texts
    assert len(curve_figure(curve, ("threshold",)).axes) == 1


def test_scores_that_are_nearly_the_same_do_not_run_into_each_other():
    truth, picks = particles(seed=1), particles(seed=1)
    scores = np.linspace(0.7550, 0.7749, len(picks))
    curve = curve_of(hits_of([(distance_candidates(truth, picks, 1.0), scores)]))
    rows = [{"threshold": f"{score}", "F1": "0.5", "precision": "0.5", "recall": "0.5"} for score in scores]
    for figure, width in ((curve_figure(curve, threshold=0.5), 11), (charts.curve_figure(rows), 10)):
        figure.set_size_inches(width, 5.6)  # as wide as in a window, where there is room for many numbers
        figure.canvas.draw()
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
            shown = sorted((box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1),
                           key=lambda box: box.x0)
            assert len(shown) >= 2
            assert all(left.x1 + 6 < right.x0 for left, right in zip(shown, shown[1:])), axes.get_xlabel()


def test_reliability_has_a_line_per_class_and_counts_below():
    scores = np.array([0.95, 0.95, 0.35, 0.05])
    figure = reliability_figure({"_ring": reliability(scores, np.array([1, 1, 0, 0], bool)),
                                 "rod": reliability(scores[:1], np.array([False])),
                                 "none": reliability(np.zeros(0), np.zeros(0, bool))})
    above, below = figure.axes
    assert [t.get_text() for t in above.get_legend().get_texts()] == [" _ring, ECE 0.125", "rod, ECE 0.950"]
    assert above.lines[1].get_xydata().tolist() == pytest.approx(np.array([[0.05, 0], [0.35, 0], [0.95, 1]]))
    assert (below.get_ylabel(), len(below.patches)) == ("picks", 2)


def test_empty_charts_say_why():
    nothing = np.zeros(0)
    curve = curve_of(hits_of([(distance_candidates(particles(), EMPTY, 1.0), nothing)]))
    profile = {"edges_vox": np.arange(3.0), "truth": np.zeros(2), "picks": np.zeros(2), "hits": np.zeros(2)}
    figures = [curve_figure(curve, ("threshold",)), score_histogram(nothing, np.array([np.nan])),
               distance_figure({"edges_vox": np.arange(3.0), "hits": np.zeros(2)}), z_profile_figure(profile),
               training_figure([]), reliability_figure({})]
    assert [f.axes[0].texts[0].get_text() for f in figures] == [
        "no scores to draw", "no scores to draw", "no hits", "no particles", "no epoch is finished yet",
        "no scores that could be probabilities"]


def test_histograms_have_both_units_and_both_sets():
    figure = score_histogram(np.array([0.9, 0.8, np.nan]), np.array([0.2]), 0.5)
    texts = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert texts == ["hits", "false positives", "threshold 0.5"]
    alone = score_histogram(np.zeros(0), np.array([0.2]))
    assert [t.get_text() for t in alone.axes[0].get_legend().get_texts()] == ["picks"]
    figure = distance_figure({"edges_vox": np.array([0.0, 1.0, 2.0]), "hits": np.array([3, 4])}, 10.0)
    drawn(figure)
    assert [a.get_xlabel() for a in [figure.axes[0], *figure.axes[0].child_axes]] == [
        "distance to the true centre [voxels]", "[Å]"]


def test_training_figure_reads_text_rows_and_skips_gaps():
    rows = [{"epoch": str(e), "train_loss": str(1 / (e + 1)), "val_loss": "" if e % 2 else 0.5, "f_alpha": e / 10 % 0.7,
             "voxel_f1": "nan", "learning_rate": 0.1} for e in range(9)]
    left, right = training_figure(rows).axes
    assert [(line.get_label(), len(line.get_xdata())) for line in left.lines] == [("training loss", 9),
                                                                                 ("validation loss", 5)]
    assert right.lines[0].get_label() == "F\u03b1"
    assert right.get_title() == "best F\u03b1 0.600 in epoch 6"


def test_training_figure_names_the_epoch_that_the_picks_have_chosen():
    """Not the one of the best F alpha: the model has the weights of the last row that was kept."""
    rows = [{"epoch": e, "train_loss": 1, "f_alpha": fa, "pick_f1": f1, "kept": kept} for e, fa, f1, kept in
            ((0, 0.1, "", 0), (1, 0.4, 0.5, 1), (2, 0.2, 0.8, 1), (3, 0.3, 0.7, 0))]
    right = training_figure(rows).axes[1]
    assert right.get_title() == "kept: epoch 2, picking F1 0.800"
    assert right.lines[-1].get_xdata()[0] == 2
    for row in rows:
        row["pick_f1"] = ""
    assert training_figure(rows).axes[1].get_title() == "kept: epoch 2"
    for row in rows:
        del row["kept"]
        row["pick_f1"] = row["f_alpha"] / 2
    assert training_figure(rows).axes[1].get_title() == "best picking F1 0.200 in epoch 1"


def test_training_figure_shows_the_picking_metrics_first():
    names = ("voxel_precision", "voxel_recall", "voxel_f1", "f_alpha", "pick_precision", "pick_recall", "pick_f1")
    right = training_figure([dict.fromkeys(("epoch", "train_loss", *names), "0.5")]).axes[1]
    assert [line.get_label() for line in right.lines[:5]] == ["picking F1", "picking precision", "picking recall",
                                                             "F\u03b1", "voxel F1"]


class Reader(html.parser.HTMLParser):
    """Collects tags, their attributes and the visible text; complains of tags that do not close."""

    VOID = ("meta", "img", "br", "rect", "circle", "path", "use")

    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []
        self.tags: List[str] = []
        self.links: List[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_page_is_whole_and_stands_alone(written):
    text = written.read_text("utf-8")
    reader = read(text)
    assert reader.open == []
    assert "script" not in reader.tags
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in reader.links)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(http" not in text
    assert len([link for link in reader.links if link.startswith("data:")]) == 3 * 4
    assert [p.name for p in written.parent.iterdir()] == ["r.html"]


def test_page_shows_the_numbers_and_escapes_names(report):
    text = page(report)
    reader = read(text)
    assert "a<script>" in reader.text
    assert "<rod>" in reader.text
    total = report.overall
    for value in (f"{total['F1']:.3f}", f"{total['AD_vox']:.2f}", f"{total['AD_ang']:.1f}", "within 30 Å", "Confusion"):
        assert value in reader.text
    assert reader.tags.count("svg") == 6
    assert "currentColor" in text


@pytest.mark.long
@pytest.mark.parametrize(("radius", "rule"), [
    (30, "A hit lies within 30 Å of the centre."),
    (0, "A hit lies within half the diameter of the centre: ring 40 Å, <rod> 25 Å.")])
def test_page_and_terminal_say_the_hit_radius_beside_the_figures(tmp_path, radius, rule):
    evaluated(tmp_path)
    (tmp_path / "truth/classes.json").write_text(
        '{"classes": [{"id": 1, "name": "ring", "diameter_angstrom": 80}, '
        '{"id": 2, "name": "<rod>", "diameter_angstrom": 50}]}')
    one = evaluate(tmp_path / "truth", tmp_path / "picks", EvaluateOptions(radius_angstrom=radius))
    assert one.to_dict()["hit_rule"] == rule
    assert rule in read(page(one)).text
    assert rule.replace("Å", "A") in report_text(one)


def test_wide_tables_fit_paper():
    """In print nothing scrolls: what is wider than the paper would be cut off, so cells may wrap there."""
    style = (pathlib.Path(page.__code__.co_filename).parent / "report.css").read_text("utf-8")
    printed = style[style.index("@media print"):]
    assert "white-space:normal" in printed
    assert "nowrap" not in printed


def test_pictures_go_from_the_poorest_to_the_best_tomogram(report):
    scores = {name: row["F1"] for name, row in report.per_tomogram.items()}
    shown = list(dict.fromkeys(p.title.split(":")[0] for p in report_pictures(report, limit=2)))
    assert [scores[name] for name in shown] == [min(scores.values()), max(scores.values())]


def test_page_of_nothing(nothing):
    reader = read(page(nothing, report_pictures(nothing)))
    assert reader.open == []
    assert "0 picks against 0 true particles in 1 tomogram" in reader.text


def test_own_pictures_replace_the_slices(nothing, volume_zyx):
    figure = slices_with_picks(volume_zyx, particles(), style=PictureStyle(planes=(3,), bare=True))
    reader = read(page(nothing, [Picture("mine & yours", "z = 3", figure)]))
    assert reader.tags.count("img") == 1
    assert "mine & yours" in reader.text


def test_a_vanished_tomogram_is_left_out_of_the_pictures(tmp_path):
    report = evaluated(tmp_path)
    for path in (tmp_path / "truth").glob("*.mrc"):
        path.unlink()
    assert report_pictures(report) == []


def test_an_unwritable_page_leaves_nothing_behind(nothing, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(nothing, tmp_path / "file" / "r.html", [])
    assert (tmp_path / "file").read_text() == ""


def test_figures_leave_matplotlib_and_torch_alone_at_import():
    code = ("import sys, deepetpicker.evaluation, deepetpicker.report, deepetpicker.report.pages.evaluation; "
            "print([m for m in ('matplotlib', 'matplotlib.pyplot', 'torch') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.long
def test_each_shown_tomogram_gets_a_picture_file(report, tmp_path):
    paths = write_slices(report, tmp_path / "pictures", limit=2)
    assert len(paths) == 2
    for path in paths.values():
        assert pathlib.Path(path).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
