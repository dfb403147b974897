"""One number for all classes or one for each."""

from __future__ import annotations

import pytest

from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.perclass import canonical, parse, problem, resolve, text_of

CLASSES = (ParticleClass(1, "ring"), ParticleClass(4, "big rod"))
OWN = {1: 0.31, 4: 0.52}


@pytest.mark.parametrize(("value", "found"), [
    (0.4, [("", 0.4)]), ("-1", [("", -1.0)]), ("1:0.4,2:0.6", [("1", 0.4), ("2", 0.6)]),
    (" 2: 0.6 ; big rod :0.4", [("2", 0.6), ("big rod", 0.4)]), ("0.4, 2:0.6", [("", 0.4), ("2", 0.6)])])
def test_spellings(value, found):
    assert parse(value) == found


@pytest.mark.parametrize("value", ["", "high", "1:", ":0.4", "1:x", "nan", "1:inf", None, ",", "0.4 0.6"])
def test_what_it_is_not(value):
    with pytest.raises(InputError, match=r"must be a number, .*such as 1:0\.4,2:0\.6"):
        parse(value)
    assert "such as 1:0.4,2:0.6" in problem(value, -1, 1)


def test_one_spelling_for_the_manifest():
    assert canonical("0.40") == 0.4
    assert canonical("3:0.50, 1: -1") == "3:0.5,1:-1"
    assert canonical(canonical("0.4; ring: 0.6")) == "0.4,ring:0.6"


def test_bounds():
    assert problem("0.2,2:1", -1, 1) is None
    assert problem("0.2,2:1.5", -1, 1) == "a number between -1 and 1"


@pytest.mark.parametrize(("value", "expected"), [
    (-1.0, OWN), (0.2, {1: 0.2, 4: 0.2}), ("4:0.7", {1: 0.31, 4: 0.7}), ("0.1, 4:-1", {1: 0.1, 4: 0.52}),
    ("0.1, big rod: 0.3", {1: 0.1, 4: 0.3}), ("0.1, 0.3", {1: 0.1, 4: 0.3}), (0, {1: 0.0, 4: 0.0})])
def test_each_class_gets_its_number(value, expected):
    assert resolve(value, CLASSES, OWN, "threshold") == expected


@pytest.mark.parametrize(("value", "words"), [
    ("2:0.7", r"threshold: there is no class '2', but class 1 \(ring\), class 4 \(big rod\)"),
    ("4:0.1, big rod:0.2", "comes twice"), ("0.1,0.2,0.3", "got 3"), ("0.1,0.2,4:0.3", "threshold: expected CLASS")])
def test_classes_that_there_are_not(value, words):
    with pytest.raises(InputError, match=words):
        resolve(value, CLASSES, OWN, "threshold")


def test_text_for_people():
    assert text_of({1: 0.4, 2: 0.4}) == "0.40"
    assert text_of({2: 0.6, 1: 0.4}) == "1:0.40, 2:0.60"
