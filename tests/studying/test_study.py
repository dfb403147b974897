"""Studies: the same labels and budget for all, nothing computed twice, and a table, a figure and a page of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import re
from typing import Any, Dict, List

import pytest

from deepetpicker import __main__ as command
from deepetpicker.cli import study as verb
from deepetpicker.config import StudyOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.studying import run as running, study
from deepetpicker.studying.data import drawn_labels, open_data
from deepetpicker.studying.variants import KINDS
from tests.moments import SCANS, heard

QUICK = StudyOptions(quick=True)
TWO = StudyOptions(quick=True, values=("overlap", "deduplication"), labels=6)  # they share a model


def rows_of(folder: pathlib.Path) -> List[Dict[str, str]]:
    """Return the rows of a study's table."""
    with open(folder / "study.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def tomograms(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a folder with the two tiny tomograms of a quick study."""
    folder = tmp_path_factory.mktemp("study") / "data"
    open_data("", folder, QUICK, quiet=True)
    return folder


@pytest.fixture(scope="module")
def parts(tomograms: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the folder of a study of two variants that was killed in its second one and went on."""
    folder = tmp_path_factory.mktemp("parts")

    def kill(text: str) -> None:
        """Interrupt the study when it picks with the second variant."""
        if SCANS in text and (folder / "results/overlap_seed0.json").exists():
            raise KeyboardInterrupt

    with heard(kill), pytest.raises(KeyboardInterrupt):
        study("ablation", folder, tomograms, TWO, quiet=True)
    (folder / "before").mkdir()
    for name in ("study.csv", "results/overlap_seed0.json"):
        (folder / "before" / pathlib.Path(name).name).write_bytes((folder / name).read_bytes())
    manifest = study("ablation", folder, tomograms, TWO, quiet=True)
    assert [item["status"] for item in manifest["items"]] == ["done", "done"]
    return folder


@pytest.mark.long
def test_a_killed_study_keeps_what_was_finished_and_goes_on(parts: pathlib.Path):
    before = (parts / "before/study.csv").read_text("utf-8").splitlines()
    after = (parts / "study.csv").read_text("utf-8").splitlines()
    assert len(before) == 2
    assert before == after[:2], "the first variant was computed again"
    assert [row["variant"] for row in rows_of(parts)] == ["overlap", "deduplication"]
    assert (parts / "before/overlap_seed0.json").read_bytes() == (parts / "results/overlap_seed0.json").read_bytes()


@pytest.mark.long
def test_a_finished_study_computes_nothing(parts: pathlib.Path, tomograms: pathlib.Path):
    said: List[str] = []
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*/*") if path.parent.name in ("results", "models")}
    table = (parts / "study.csv").read_bytes()
    with heard(said.append):
        study("ablation", parts, tomograms, TWO, quiet=True)
    assert not [text for text in said if ", seed " in text or SCANS in text]
    assert len(before) >= 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (parts / "study.csv").read_bytes() == table


@pytest.mark.long
@pytest.mark.parametrize("change", [{"megavoxels": 0.4}, {"labels": 5}, {"seed": 1}])
def test_another_budget_label_or_seed_is_another_run(parts: pathlib.Path, tomograms: pathlib.Path, change):
    asked: List[str] = []

    def begins(text: str) -> None:
        """Note the first run that is computed, and leave it at that."""
        if ", seed " in text:
            asked.append(text)
            raise KeyboardInterrupt

    with heard(begins), pytest.raises(KeyboardInterrupt):
        study("ablation", parts, tomograms, dataclasses.replace(TWO, **change), quiet=True)
    assert asked == [f"ablation: + overlap-tile, seed {change.get('seed', 0)}"]


@pytest.mark.long
def test_all_variants_have_the_same_labels_and_budget(parts: pathlib.Path, tomograms: pathlib.Path):
    rows = rows_of(parts)
    assert [(row["seed"], row["n_labels"], row["n_truth"]) for row in rows] == [("0", "6", "8")] * 2
    assert len({(row["labels_sha256"], row["steps"], row["megavoxels"]) for row in rows}) == 1
    assert 0.1 <= float(rows[0]["megavoxels"]) <= 0.3
    drawn = drawn_labels(open_data(tomograms, parts, TWO), 6, 0)["tomo_00"]
    written = [read_coordinates(path) for path in (parts / "labels").glob("*/tomo_00.csv")]
    assert [table.digest() for table in written] == [drawn.digest()], "what trains is what was drawn, and once"


@pytest.mark.long
def test_table_figure_and_page_say_what_was_run(parts: pathlib.Path):
    rows = rows_of(parts)
    assert all(float(row["training_s"]) > 0 and 0 <= float(row["F1"]) <= 1 for row in rows)
    assert (parts / "study.png").read_bytes()[:4] == b"\x89PNG"
    page = (parts / "study.html").read_text("utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for text in ("Study: ablation", "2 of 2 runs are finished", "+ overlap-tile", "+ deduplication",
                 "have the same labels", "0.2 million voxels", "tomo_00 with 8 particles", "cage (124",
                 rows[0]["labels_sha256"][:8], "Seeds 0 to 0", "trial run"):
        assert text in words, text
    assert "<svg" in page
    manifest = json.loads((parts / "manifest.json").read_text("utf-8"))
    assert (manifest["options"]["kind"], manifest["options"]["megavoxels"]) == ("ablation", 0.2)


def test_what_a_seed_cannot_change_is_computed_once(tomograms: pathlib.Path, tmp_path: pathlib.Path, monkeypatch):
    def asked(seeds: int, labels: int) -> List[str]:
        """Return the runs that a study of three peers asks for."""
        names: List[str] = []
        for method in running.METHODS:
            monkeypatch.setitem(running.METHODS, method, lambda task: names.append(task.name) or refuse())
        study("peers", tmp_path, tomograms, StudyOptions(quick=True, seeds=seeds, labels=labels, values=(
            "blobs", "ours")), quiet=True)
        return names

    def refuse() -> None:
        """Fail as a method does."""
        raise InputError("not computed")

    assert asked(2, 0) == ["blobs_seed0", "ours_seed0", "ours_seed1"]
    assert asked(2, 5) == ["blobs_seed0", "ours_seed0", "blobs_seed1", "ours_seed1"], "other labels are drawn"


def test_fewer_labels_are_among_the_more(tomograms: pathlib.Path, tmp_path: pathlib.Path):
    data = open_data(tomograms, tmp_path, QUICK)
    few, more = (drawn_labels(data, n, 1)["tomo_00"] for n in (3, 6))
    assert (len(few), len(more)) == (3, 6)
    assert {tuple(p) for p in few.positions_zyx_vox} < {tuple(p) for p in more.positions_zyx_vox}
    assert drawn_labels(data, 0, 1)["tomo_00"].equals(data.labelled[0].table)
    assert not drawn_labels(data, 3, 2)["tomo_00"].equals(few), "another seed draws others"


def test_bad_wishes_are_one_line_before_anything_is_computed(tomograms: pathlib.Path, tmp_path: pathlib.Path, capsys):
    words = ["study", "number", "--out", str(tmp_path / "s"), "--data", str(tomograms), "--quick"]
    assert command.main([*words, "--values", "5,few"]) == 2
    assert "got 'few'" in capsys.readouterr().err
    assert command.main([*words, "--test", "tomo_02"]) == 2
    assert "test must name tomograms of the data (tomo_00, tomo_01), got 'tomo_02'" in capsys.readouterr().err
    with pytest.raises(InputError, match="did you mean 'number'"):
        study("numbre", tmp_path / "s", tomograms, QUICK)
    assert not (tmp_path / "s" / "models").exists()


def test_a_variant_that_fails_is_said_and_the_others_go_on(tomograms: pathlib.Path, tmp_path: pathlib.Path,
                                                           monkeypatch, capsys):
    def fails(task: Any) -> Any:
        """Fail as a training on bad input does."""
        raise InputError("no good")

    monkeypatch.setitem(running.METHODS, "network", fails)
    assert command.main(["study", "number", "--out", str(tmp_path), "--data", str(tomograms), "--quick", "--values",
                         "4,all"]) == 1
    assert "0 of 2 runs finished" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert [item["status"] for item in manifest["items"]] == ["failed", "failed"]
    assert "no good" in manifest["warnings"][0]


def test_the_command_lists_every_kind():
    assert list(verb.KINDS) == list(KINDS)
