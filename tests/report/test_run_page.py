"""The page of a training or of picks: it says what matters, stands alone, and survives empty and vanished files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
from matplotlib.image import imread
from test_report import Reader, read

from deepetpicker.__main__ import main
from deepetpicker.config import EvaluateOptions, ReportOptions
from deepetpicker.errors import InputError
from deepetpicker.io.classes import write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.modelcard import METADATA_KEY, ClassCard, ModelCard
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker.report.pages.crops import PANEL_PX, cuts
from deepetpicker.report.run import evaluate, report, write_results
from deepetpicker.report.sources import find_run

SHAPE = (30, 40, 52)
VOXEL = 10.0
NAMES = {0: "_ring $x$", 3: "<rod>"}
REASON = {"cause": "too few held out", "found": "3 particles <held> out", "advice": "label more & look"}


class Pages(Reader):
    """Also collects the pictures with what they say to those who cannot see them."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = []

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag == "img":
            self.pictures.append(dict(attrs))


def page_of(path) -> Pages:
    """Return a page that was read, and found whole and in need of nothing else."""
    text = pathlib.Path(path).read_text("utf-8")
    reader = Pages()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert "script" not in reader.tags
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in reader.links)
    assert "http" not in re.sub(r'base64,[^"]*', "", text).replace("http-equiv", "")
    assert all(picture["alt"].strip() for picture in reader.pictures)
    return reader


def card(**changes) -> ModelCard:
    classes = tuple(ClassCard(i, name, 80.0, 5.0, 0.5) for i, name in NAMES.items())
    picks = [{"class_id": 0, "name": NAMES[0], "f1": 0.9, "precision": 0.85, "recall": 0.95, "n_true": 20,
              "average_precision": 0.93, "threshold": 0.5, "n_picks": 22}]
    training = {"epochs": 3, "kept_epoch": 1, "chosen_by": "picks", "particles": {"0": 40, "3": 2}, "picks": picks,
                "items": [{"name": "old", "role": "validation", "particles": 42}],
                "verdict": {"grade": "doubtful", "text": "doubtful: few", "reasons": [REASON]}}
    rows = [{"epoch": e, "train_loss": 1 - e / 4, "pick_f1": 0.5 + e / 10, "kept": float(e == 1)} for e in range(3)]
    return ModelCard(**{"network": {"widths": (4, 6)}, "classes": classes, "voxel_size_ang": VOXEL, "patch_vox": 32,
                        "border_vox": 8, "label": "tball", "normalisation": "robust", "threshold": 0.5,
                        "score_floor": 0.1, "training": training, "validation": rows, "created": "2026-01-31T12:00:00",
                        "version": "0.1.0", **changes})


def write_model(path: pathlib.Path, content: ModelCard) -> pathlib.Path:
    """Write a model file without weights, which pages do not look at."""
    header = json.dumps({"__metadata__": {METADATA_KEY: content.to_json()}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def table(n: int, seed: int = 0, low: float = 0.1, high: float = 1.0) -> CoordinateTable:
    """Return candidates of both classes, best first."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(low, high, n))[::-1]
    return CoordinateTable(rng.random((n, 3)) * (np.array(SHAPE) - 1), np.where(np.arange(n) % 2, 3, 0), scores)


def write_picks(folder: pathlib.Path, tables, failed=(), model=None) -> pathlib.Path:
    """Write what ``pick`` leaves: tables of tomograms, a manifest, the classes; tomograms lie in ``tomograms``."""
    tomograms = folder.parent / "tomograms"
    tomograms.mkdir(exist_ok=True)
    folder.mkdir()
    manifest = Manifest("pick", {"threshold": -1.0, "border": 12}, ["x/__main__.py", "pick"])
    for number, (name, candidates) in enumerate(tables.items()):
        path = tomograms / f"{name}.mrc"
        if not path.exists():
            write_volume(path, np.random.default_rng(number).normal(size=SHAPE).astype(np.float32), VOXEL)
        manifest.add_input(open_volume(path))
        write_coordinates(folder / f"{name}_candidates.csv", candidates)
        write_coordinates(folder / f"{name}.csv", candidates.select(candidates.scores >= 0.5))
        manifest.add_item(name, "done", tomogram=str(path), picks=str(folder / f"{name}.csv"), seconds=2.0,
                          candidates=str(folder / f"{name}_candidates.csv"), thresholds={"0": 0.5, "3": 0.5})
    for name in failed:
        manifest.add_item(name, "failed", "no valid <header>", tomogram="nowhere.mrc", seconds=0.1)
    manifest.outputs["model"] = str(model or "gone.safetensors")
    manifest.write(folder / "manifest.json")
    write_classes(folder, card().classes)
    return folder


@pytest.fixture
def picks(tmp_path):
    model = write_model(tmp_path / "m.safetensors", card())
    tables = {f"a<script>{i}": table(40, i) for i in range(4)}
    return write_picks(tmp_path / "picks", {**tables, "poor": table(4, 9)}, ["broken"], model)


@pytest.fixture
def run(tmp_path):
    """Return a model file beside the folder of its training, with a held-out part of twelve particles."""
    model = write_model(tmp_path / "m.safetensors", card())
    folder = tmp_path / "m_run"
    folder.mkdir()
    path = tmp_path / "old.mrc"
    write_volume(path, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), VOXEL)
    manifest = Manifest("train", {"epochs": 3, "patch": 24}, ["x/__main__.py", "train"])
    manifest.add_input(open_volume(path))
    manifest.add_item("old", "done", tomogram=str(path), role="validation", particles=12)
    manifest.outputs.update(verdict=card().training["verdict"], classes=card().training["picks"])
    manifest.warn("old: a <warning>")
    manifest.write(folder / "manifest.json")
    (folder / "params.json").write_text("{}")
    with open(folder / "metrics.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["epoch", "train_loss", "pick_f1", "kept"])
        writer.writeheader()
        writer.writerows(card().validation)
    truth = CoordinateTable.from_positions(np.random.default_rng(1).permutation(
        [(z, y, x) for z in (8, 22) for y in (8, 30) for x in (8, 26, 44)]).astype(float), 0)
    found = CoordinateTable(np.concatenate([truth.positions_zyx_vox[:10] + 0.5, [[15.0, 19.0, 17.0]]]),
                            np.zeros(11, int), np.array([*np.linspace(0.9, 0.6, 9), 0.2, 0.7]))
    write_coordinates(folder / "held_out/old_truth.csv", truth)
    write_coordinates(folder / "held_out/old.csv", found)
    return model


def test_the_page_of_picks_says_what_was_picked_and_what_to_look_into(picks):
    page = page_of(report([picks], options=ReportOptions(crops=2)))
    assert "picks in 5 tomograms" in page.text
    for text in ("_ring $x$ (0)", "<rod> (3)", "a<script>0", "failed broken: no valid <header>", "poor: few picks",
                 "the model is doubtful: few", "F1 0.900 on 20", "80 Å", "52 x 40 x 30"):
        assert text in page.text
    for heading in ("Best picks", "Borderline, just picked", "Borderline, just rejected", "Rejected"):
        assert page.text.count(heading) == 2  # of each class
    assert "Scores of <rod>" in page.text
    assert page.tags.count("svg") >= 4  # scores of two classes, depths, picks per tomogram
    sheets = [picture for picture in page.pictures if "three central slices" in picture["alt"]]
    assert len(sheets) == 2 * (2 + 1 + 1 + 2)
    assert "<rod>, Best picks, score 0." in sheets[6]["alt"]


@pytest.mark.long
def test_what_the_picking_said_of_a_tomogram_is_not_said_again(picks):
    path = picks / "manifest.json"
    (said,) = re.findall(r"<li>(poor: few picks[^<]*)</li>", report([picks]).read_text("utf-8"))
    content = json.loads(path.read_text("utf-8"))
    content["warnings"] = [f"{said}, and more: look at it before its picks are used"]
    path.write_text(json.dumps(content), "utf-8")
    notes = re.findall(r"<li>(poor: few picks[^<]*)</li>", report([picks]).read_text("utf-8"))
    assert notes == content["warnings"]


@pytest.mark.long
def test_the_best_pick_is_shown_at_its_place(picks, tmp_path):
    """The first picture of the sheet is dark where the tomogram of the best pick has a hole, in all three slices."""
    best = max((float(t.scores[0]), name) for name, t in ((f"a<script>{i}", table(40, i)) for i in range(4)))[1]
    centre = np.rint(table(40, int(best[-1])).positions_zyx_vox[0]).astype(int)
    volume = np.full(SHAPE, 5.0, np.float32)
    z, y, x = centre
    volume[max(z - 2, 0):z + 3, max(y - 2, 0):y + 3, max(x - 2, 0):x + 3] = 0.0
    write_volume(tmp_path / f"tomograms/{best}.mrc", volume, VOXEL)
    page = page_of(report([picks], options=ReportOptions(crops=1)))
    first = page.pictures[0]["src"].split(",")[1]
    greys = imread(io.BytesIO(base64.b64decode(first)), format="jpeg")[..., 0].astype(float)
    assert greys.shape[0] == PANEL_PX
    for panel in np.split(greys[:, :3 * PANEL_PX + 6], [PANEL_PX + 1, 2 * PANEL_PX + 4], axis=1):
        middle = panel[40:56, 40:56]
        assert middle.mean() < 60


@pytest.mark.parametrize("n", [0, 1])
def test_no_pick_and_one_pick(tmp_path, n):
    page = page_of(report([write_picks(tmp_path / "p", {"one": table(n, low=0.6)})]))
    assert f"{n} pick{'s' if not n else ''} in 1 tomogram" in page.text
    assert ("nothing was picked" in page.text) == (not n)
    assert "gone.safetensors is not there any more" in page.text


def test_candidates_without_a_pick_say_how_good_the_best_is(tmp_path):
    page = page_of(report([write_picks(tmp_path / "p", {"one": table(9, high=0.4)})]))
    assert "the best candidate scores 0.3" in page.text


@pytest.mark.long
def test_a_tomogram_that_is_not_there_any_more_is_noted_and_can_be_named(picks, tmp_path):
    (tmp_path / "tomograms").rename(tmp_path / "moved")
    page = page_of(report([picks], options=ReportOptions(crops=1)))
    assert "which cannot be read" in page.text
    assert "tomogram not there" in page.text
    assert page.pictures == []
    page = page_of(report([picks], options=ReportOptions(crops=1), tomograms=[tmp_path / "moved"]))
    assert "tomogram not there" not in page.text
    assert len(page.pictures) > 4


def test_a_result_in_one_folder_goes_before_a_failure_in_another(tmp_path):
    one = write_picks(tmp_path / "p1", {"a": table(8)}, ["b"])
    two = write_picks(tmp_path / "p2", {"b": table(8, 1)}, ["a"])
    page = page_of(report([one, two]))
    assert "in 2 tomograms" in page.text
    assert "failed" not in page.text


def test_without_crops_there_are_no_pictures(picks):
    assert page_of(report([picks], options=ReportOptions(crops=0))).pictures == []


def test_the_page_of_a_training_gives_the_verdict_with_cause_and_next_step(run):
    page = page_of(report([run]))
    for text in ("The model is doubtful", "Too few held out.", "3 particles <held> out", "Next: label more & look.",
                 "old: a <warning>", "_ring $x$ (0)", "80 Å, 8.0 voxels", "52 x 40 x 30", "kept: epoch 1"):
        assert text in page.text, text
    assert run.with_name("m_run").joinpath("report.html").is_file()


def test_the_held_out_part_is_shown_with_hits_false_picks_and_misses(run):
    """Twelve particles: nine are picked, one is found below the threshold, two are not; one pick hits nothing."""
    page = page_of(report([run], options=ReportOptions(crops=4)))
    assert "The best of 9 hits." in page.text
    assert "1 pick, best scores first" in page.text
    assert "3 missed" in page.text
    kinds = [picture["alt"].split(", ")[1] for picture in page.pictures]
    assert [kinds.count(k) for k in ("Found", "Picked", "Annotated")] == [8, 1, 3]
    assert "Scores of _ring $x$" in page.text


@pytest.mark.long
def test_the_folder_of_a_training_does_as_well_also_before_it_has_ended(run):
    folder = run.with_name("m_run")
    assert page_of(report([folder])).text == page_of(report([run])).text
    for path in (run, folder / "manifest.json"):
        path.unlink()
    assert "has not ended: 3 epochs so far" in page_of(report([folder])).text


@pytest.mark.long
def test_where_many_particles_are_not_annotated_recall_counts(run, picks):
    """The held-out figures of a few clicks would frighten: what is picked beside them is mostly right."""
    training = {**card().training, "options": {"unannotated": "unknown"}}
    write_model(run, card(training=training))
    page = page_of(report([run]))
    assert "precision and F1 say little" in page.text
    assert "F1 of the picks" not in page.text
    assert "recall 0.950 on 20" in page_of(report([picks])).text  # its model is the same file


def refined(folder, f1s, before=None, more=()) -> pathlib.Path:
    """Write models that went on from each other, each in a folder of its own, with the manifests of their trainings.

    ``f1s`` are theirs; the second and later ones have it from the value of ``before`` on the same particles. Their
    cards say ``more`` of the trainings.
    """
    path = pathlib.Path()
    for number, f1 in enumerate(f1s, start=1):
        training = {**card().training, **dict(more),
                    "picks": [{**card().training["picks"][0], "f1": f1, "n_true": 20}],
                    "items": [{"name": "old", "role": "both", "particles": 30 * number, "negatives": 9 * (number - 1)}]}
        start = ""
        if number > 1:
            start = str(path.relative_to(folder.parent))
            origin = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "round": number - 1}
            if before:
                origin.update(f1_before=before[number - 2], f1_after=f1, n_true=20)
            training.update(round=number, started_from=origin)
        path = folder / f"00{number}_train/extra/model.safetensors"
        (path.parent / "model_run").mkdir(parents=True)
        write_model(path, card(training=training))
        Manifest("train", {"init": start}).write(path.parent / "model_run/manifest.json")
    return path


def rounds_in(path):
    """Return the cells of the table of rounds of a page, without the thresholds."""
    table = path.read_text("utf-8").split("<h2>Rounds</h2>")[1].split("</tbody>")[0].split("<tbody>")[1]
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row)[:-1] for row in table.split("<tr>")[1:]]


def test_the_rounds_that_led_to_a_model_are_side_by_side(tmp_path):
    path = report([refined(tmp_path / "Runs", (0.7, 0.85, 0.8), (0.75, 0.88))])
    page_of(path)
    assert rounds_in(path) == [["1: 001_train", "30", "0", "0", "20", "0.950", "-", "0.700", "-"],
                               ["2: 002_train", "60", "9", "0", "20", "0.950", "0.750", "0.850", "+0.100"],
                               ["3: 003_train", "90", "18", "0", "20", "0.950", "0.880", "0.800", "-0.080"]]
    spoken = path.read_text("utf-8")  # for those who cannot see the chart
    assert "F1 0.75 -&gt; 0.85 on the same 20 held-out particles" in spoken


@pytest.mark.long
def test_recall_of_a_partial_annotation_is_told_apart_from_the_f1_of_what_is_certain(tmp_path):
    path = report([refined(tmp_path / "Runs", (1.0, 1.0), (1.0,), {"options": {"unannotated": "unknown"}})])
    words = " ".join(page_of(path).text.split())
    assert "20 held-out particles at its threshold" in words
    assert "F1 is of what is certain alone" in words
    assert "F1 of what is certain 1.00 -&gt; 1.00" in path.read_text("utf-8")
    whole = report([refined(tmp_path / "Others", (1.0, 1.0), (1.0,))])
    assert "of what is certain" not in whole.read_text("utf-8")


@pytest.mark.long
def test_rounds_and_the_model_of_picks_have_the_names_that_are_given(tmp_path, picks, capsys):
    last = refined(tmp_path / "Runs", (0.7, 0.85, 0.8))
    first = tmp_path / "Runs/001_train/extra/../extra/model.safetensors"
    page = tmp_path / "page.html"
    assert main(["report", str(last), "--out", str(page), "--names", f"{first}=ten clicks = a start",
                 f"{last}=after the review"]) == 0
    assert [row[0] for row in rounds_in(page)] == ["1: ten clicks = a start", "2: 002_train", "3: after the review"]
    model = find_run([str(picks)]).model
    words = page_of(report([picks], page, names={model: "second round"})).text
    assert f"picked with the model of second round ({model})" in " ".join(words.split())
    for wrong in ("ten clicks", "=name", f"{last}= "):
        assert main(["report", str(last), "--out", str(page), "--names", wrong]) == 2
        assert "MODEL=NAME" in capsys.readouterr().err


@pytest.mark.long
def test_a_first_model_has_no_rounds_and_a_lost_one_is_known_by_its_file(tmp_path):
    last = refined(tmp_path / "Runs", (0.7, 0.85))
    assert "Rounds" not in page_of(report([tmp_path / "Runs/001_train/extra/model.safetensors"])).text
    shutil.rmtree(tmp_path / "Runs/001_train")
    assert [row[0] for row in rounds_in(report([last]))] == ["1: model.safetensors", "2: model"]
    assert set(rounds_in(report([last]))[0][1:]) == {"-"}


def test_a_model_within_the_folder_of_its_training_is_said_to_be_there(run, tmp_path):
    folder = (tmp_path / "m_run").rename(tmp_path / "training")
    run.rename(folder / "m.safetensors")
    assert str(folder / "m.safetensors") in page_of(report([folder])).text


@pytest.mark.parametrize("kept", [True, False])
def test_a_refitted_model_says_that_its_figures_are_of_the_one_before(tmp_path, kept):
    training = {**card().training, "refit": {"kept": kept, "particles": 42, "new": 20}}
    model = write_model(tmp_path / "m.safetensors", card(training=training))
    words = " ".join(page_of(report([model], tmp_path / "page.html")).text.split())
    assert ("no figure here is its own" in words) is kept
    assert ("then went on with" in words) is kept
    assert ("not kept: went on with" in words) is not kept
    assert "all 42 particles, 20 of them held out until then" in words


def test_a_model_alone(tmp_path):
    model = write_model(tmp_path / "alone.safetensors", card())
    page = page_of(report([model], tmp_path / "page.html"))
    assert "The model is doubtful" in page.text
    assert page.pictures == []


def test_the_verb_writes_the_page_and_says_where(picks, tmp_path, capsys):
    assert main(["report", str(picks), "--out", str(tmp_path / "x/p.html"), "--crops", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x/p.html")
    assert "Best picks" in page_of(tmp_path / "x/p.html").text


def test_what_killed_writers_left_is_no_model_and_no_table(run, tmp_path):
    (tmp_path / ".m.123-0a1b2c3d.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"give \S+/m\.safetensors$"):
        report([tmp_path])
    folder = (tmp_path / "m_run").rename(tmp_path / "training")
    run.rename(folder / "m.safetensors")
    (folder / ".m.123-0a1b2c3d.safetensors").write_bytes(b"half")
    assert find_run([str(folder)]).name == "m"


def test_other_places_are_refused_with_advice(picks, run, tmp_path):
    with pytest.raises(InputError, match=r"expected a model file.*there is a model in it: give .*m\.safetensors"):
        report([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        report([tmp_path / "nothing"])
    with pytest.raises(InputError, match="one training, or about one or several folders of picks"):
        report([picks, run])
    with pytest.raises(InputError, match="no such file or folder"):
        report([picks], tomograms=[tmp_path / "nowhere"])
    evaluation = tmp_path / "e"
    Manifest("evaluate", {}).write(evaluation / "manifest.json")
    with pytest.raises(InputError, match="has its page already"):
        report([evaluation])


class Counted(np.ndarray):
    """An array that counts the voxels which are read."""

    read = 0

    def __getitem__(self, key):
        found = np.asarray(super().__getitem__(key))
        Counted.read += found.size
        return found


def test_of_a_tomogram_only_what_is_shown_is_read():
    Counted.read = 0
    volume = np.zeros((100, 200, 300), np.int8).view(Counted)
    cuts(volume, (50, 100, 150), 20.0)
    assert 0 < Counted.read < 0.01 * volume.size


MEASURED = """
import re, sys
from deepetpicker.config import ReportOptions
from deepetpicker.report.run import report
peaks = []
for crops in (0, 12):
    report([sys.argv[1]], options=ReportOptions(crops=crops))
    peaks.append(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
def test_a_large_tomogram_is_not_drawn_into_memory(tmp_path):
    """The pages of a mapped file that are touched are given back after each crop; they would be most of 300 MB."""
    (tmp_path / "tomograms").mkdir()
    with mrcfile.new_mmap(tmp_path / "tomograms/big.mrc", shape=(300, 1000, 1000), mrc_mode=0) as mrc:
        mrc.data[:] = 1  # in the system's cache, from which it maps more than is touched
        mrc.voxel_size = VOXEL
    picks = table(300)
    picks = CoordinateTable(picks.positions_zyx_vox * [10, 25, 19], picks.class_ids, picks.scores)
    folder = write_picks(tmp_path / "p", {"big": picks})
    done = subprocess.run([sys.executable, "-c", MEASURED, str(folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


@pytest.mark.parametrize("position", [(0.0, 0.0, 0.0), (29, 39, 51), (-40, 10, 10)])
def test_crops_at_and_beyond_the_border_are_empty_outside(position):
    for panel in cuts(np.ones(SHAPE, np.float32), position, 12.0):
        assert panel.shape == (PANEL_PX, PANEL_PX)
        assert np.isnan(panel).any()
        assert np.isfinite(panel).any() == (position[0] >= 0)


def test_slices_show_x_to_the_right_and_the_other_axis_upwards():
    volume = np.zeros((41, 41, 41), np.float32)
    volume[20, 20, 24:28] = 1.0   # to the right of the centre along x
    volume[20, 24:28, 20] = 2.0   # above it along y
    volume[24:28, 20, 20] = 4.0   # above it along z
    xy, xz, zy = cuts(volume, (20, 20, 20), 20.0)
    half = PANEL_PX // 2
    sides = [(p[:, half + 12:].max(), p[half + 12:].max()) for p in (xy, xz, zy)]
    assert [up > right > 0 for right, up in sides] == [True, True, False]
    assert sides[2][0] > sides[2][1] > 0  # z to the right is stronger than y upwards
    assert all(p[:, :half - 12].max() < 0.1 * p.max() for p in (xy, xz, zy))


CHECK = """<script>addEventListener("load", () => {
const wide = document.documentElement.clientWidth, out = [];
for (const one of document.querySelectorAll("th, td, h1, h2, h3, p, li, img, figcaption, dd"))
  if (one.getBoundingClientRect().right > wide + 1) out.push(one.tagName + " " + one.textContent.slice(0, 40));
document.title = "CHECKED " + document.documentElement.scrollWidth + "/" + wide + " " + out.slice(0, 5).join(" | ");
});</script></body>"""


@pytest.mark.slow
def test_pages_in_a_browser_have_no_errors_and_fit_paper(picks, run, tmp_path):
    """Nothing is written to the console, and with the rules for print nothing reaches beyond the width of A4."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium or google-chrome")
    (tmp_path / "truth").mkdir()
    for path in picks.glob("*_candidates.csv"):
        shutil.copy(path, tmp_path / "truth" / path.name.replace("_candidates", ""))
    long = [ClassCard(i, f"a_rather_long_name_of_a_particle_{i}", 80.0) for i in range(12)]
    write_classes(tmp_path / "truth", long)
    write_results(evaluate(tmp_path / "truth", picks, EvaluateOptions(voxel_size=10)), tmp_path / "e")
    rounds = report([refined(tmp_path / "Runs", (0.7, 0.85, 0.8), (0.75, 0.88))])
    for number, path in enumerate((report([picks]), report([run]), rounds, tmp_path / "e/report.html")):
        text = path.read_text("utf-8")
        assert "@media print" in text
        text = text.replace(str(tmp_path), "/" + 40 * "a_long_folder")  # paths have no blanks where they could break
        copy = tmp_path / f"page_{number}.html"
        copy.write_text(text.replace("@media print", "@media screen").replace("</body>", CHECK), "utf-8")
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
                 f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run([*words, "--window-size=718,1000", "--dump-dom", copy.as_uri()], capture_output=True,
                              text=True, check=True, timeout=120)
        assert "CONSOLE" not in done.stderr
        title = done.stdout.split("<title>")[1].split("</title>")[0]
        assert title.strip() == "CHECKED 718/718", path
        subprocess.run([*words, f"--print-to-pdf={tmp_path / 'page.pdf'}", path.as_uri()], capture_output=True,
                       check=True, timeout=120)
        assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_read_finds_what_does_not_close():
    """The reader of these tests sees a page that is not whole."""
    assert read("<p>a").open == ["p"]
