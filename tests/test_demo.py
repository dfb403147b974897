"""The demonstration in Scipion: every step of it works, from tomograms without a label to RELION's star file."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from deepetpicker.io.manifest import read_manifest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "demo_scipion.py"
LABELS = ("import tomograms: held_out_bin2", "propose particles", "annotate: 10 clicks", "train on 10 clicks", "pick",
          "import the true centres", "evaluate picks", "extract 3D coordinates (other binning)")


@pytest.mark.scipion
@pytest.mark.long
def test_every_step_of_the_demonstration_works_in_small(tmp_path):
    pytest.importorskip("reliontomo", reason="install the extra 'test'")
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SCIPION_")}  # a user has none
    done = subprocess.run([sys.executable, SCRIPT, "--quick", "--out", tmp_path / "demo"], capture_output=True,
                          text=True, timeout=900, env=mine, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert [label for label in LABELS if f"\n{label}: " not in done.stdout] == []
    assert "10 particles clicked, 1.3 voxels from their centres" in done.stdout
    assert done.stdout.count("positions equal the picks") == 2  # on tomograms of twice the voxel size, in the star file
    assert {path.name for path in (tmp_path / "demo" / "report").glob("*.html")} == {
        "report.html", "training.html", "picks.html"}
    (manifest,) = (tmp_path / "demo").rglob("*_ProtDeepETPickerPick/extra/picks/batch_001/manifest.json")
    assert [item["status"] for item in read_manifest(manifest)["items"]] == ["done", "done"]
