"""What is shared (info, a copy of a model, the page of a run) can be freed of folders, user and host names."""

from __future__ import annotations

import html
import json
import re
import socket

import pytest
import torch
from test_run_page import card, page_of, table, write_picks

from deepetpicker.__main__ import main
from deepetpicker.config import NetworkOptions
from deepetpicker.io.anonymous import Anonymous
from deepetpicker.io.modelcard import read_card
from deepetpicker.network.modelfile import load_model, save_model
from deepetpicker.network.resunet import ResUNet3D

USER, HOST = "jdoe", "cryo42"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return the home folder, with a blank in its name, of a user on a machine."""
    folder = tmp_path / "lab disk" / USER
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{HOST}.example.org")
    return folder


def leaks(text, home):
    """Return what a text still says of folders, user and host."""
    return [word for word in (str(home), str(home.parent), home.parent.name, USER, HOST, "anna") if word in text]


@pytest.mark.parametrize(("text", "expected"), [
    ("/data/jane doe/proj/TS 1.mrc", "TS 1.mrc"), ("~/models/m.safetensors", "m.safetensors"),
    ("cannot read /data/jane doe/proj/TS 1.mrc: no such file", "cannot read TS 1.mrc: no such file"),
    ("pick /home/anna/x.mrc, ratio 3/4 and a/b; see ~/x/y.csv", "pick x.mrc, ratio 3/4 and a/b; see y.csv"),
    ("--out=/data/q/out", "--out=out"), ("1.0 Å / 3", "1.0 Å / 3"),
    ("anna's, by jdoe at cryo42", "user's, by user at host"),
    ("jdoes annas cryo421", "jdoes annas cryo421"), ("file:///home/anna/a.zarr/", "a.zarr"),
    ("http://example.org/a/b", "http://example.org/a/b"), ("data/TS_01.mrc", "data/TS_01.mrc")])
def test_paths_become_names_and_names_of_people_and_machines_words(home, text, expected):
    clean = Anonymous({"directory": "/data/jane doe/proj", "argv": ["x", "/home/anna/x.mrc"]})
    assert clean.text(text) == expected


def test_values_keep_their_form_and_markup_stays(home):
    clean = Anonymous()
    value = {"n": [1, 2.5, None, True], "/home/anna/x": {"path": f"{home}/t.mrc"}}
    assert clean.value(value) == {"n": [1, 2.5, None, True], "x": {"path": "t.mrc"}}
    page = (f'<style>a{{b:url(/x/y)}}</style><img src="data:image/png;base64,/9j/4AAQ{USER}" alt="{home}/t.mrc"/>'
            f"<b title='{home}/a'>{html.escape(str(home))}/t &amp; u.mrc</b>")
    assert clean.page(page) == (f'<style>a{{b:url(/x/y)}}</style><img src="data:image/png;base64,/9j/4AAQ{USER}" '
                                'alt="t.mrc"/><b title="a">t &amp; u.mrc</b>')


@pytest.mark.long
def test_the_page_of_a_run_names_no_folder_no_user_and_no_host(home, monkeypatch):
    folder = write_picks(home / "picks", {"TS_01": table(20)}, failed=["bad"])
    content = json.loads((folder / "manifest.json").read_text())
    content["argv"] = ["deepetpicker", "pick", f"{home}/m.safetensors", "/home/anna/t.mrc", "--out", str(folder)]
    content["warnings"] = [f"bad: cannot read {home}/data/bad.mrc on {HOST}"]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert main(["report", str(folder), "--crops", "2"]) == 0
    plain = (folder / "report.html").read_text("utf-8")
    assert str(home) in plain
    assert main(["report", str(folder), "--crops", "2", "--anonymous"]) == 0
    page_of(folder / "report.html")
    clean = (folder / "report.html").read_text("utf-8")
    assert leaks(clean, home) == []
    assert "bad: cannot read bad.mrc on host" in clean
    pictures = [re.findall(r'base64,[^"]*', text) for text in (plain, clean)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 2


@pytest.mark.long
def test_info_and_a_copy_of_the_model_name_none_either(home, capsys):
    options = NetworkOptions(widths=(4, 6), n_classes=2)
    told = card(network=options.to_dict(), notes={"made by": f"{USER} on {HOST}", "from": "/home/anna/w.ckpt"},
                warnings=[f"{home}/data/TS_01.mrc: odd"])
    training = {**told.training, "options": {"init": f"{home}/old.safetensors"}}
    told.training.update(training)
    model, copy = home / "m.safetensors", home / "shared.safetensors"
    torch.manual_seed(0)
    save_model(model, ResUNet3D(options), told)
    for words in ([], ["--json"]):
        assert main(["info", str(model), *words]) == 0
        assert str(home) in capsys.readouterr().out
        assert main(["info", str(model), "--anonymous", *words]) == 0
        assert leaks(capsys.readouterr().out, home) == []
    assert main(["info", str(model), "--anonymous", "--out", str(copy)]) == 0
    assert leaks(copy.read_bytes().decode("latin-1"), home) == []
    assert read_card(copy).training["options"] == {"init": "old.safetensors"}
    assert read_card(copy).classes == read_card(model).classes
    for name, weights in load_model(model)[0].state_dict().items():
        assert torch.equal(load_model(copy)[0].state_dict()[name], weights)
    capsys.readouterr()
    for words, said in ((["--anonymous", "--out", str(copy)], "is there already"),
                        (["--out", "x"], "expected --anonymous")):
        assert main(["info", str(model), *words]) == 2
        assert said in capsys.readouterr().err
