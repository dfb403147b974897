"""One number for all classes or one for each."""

from __future__ import annotations

import pytest

from deepetpicker.errors import InputError
from deepetpicker.perclass import canonical, parse, problem, resolve, text_of


@pytest.mark.parametrize(("value", "others", "named"), [
    (0.4, 0.4, {}), ("0.4", 0.4, {}), (-1, -1.0, {}), ("1:0.4,2:0.6", None, {1: 0.4, 2: 0.6}),
    (" 2: 0.6 ; 1:0.4", None, {1: 0.4, 2: 0.6}), ("0.4, 2:0.6", 0.4, {2: 0.6}), ("0:0.5", None, {0: 0.5})])
def test_spellings(value, others, named):
    assert parse(value) == (others, named)


@pytest.mark.parametrize("value", ["", "high", "1:", ":0.4", "1:x", "a:0.4", "0.4,0.6", "1:0.4,1:0.6", "nan", "1:inf",
                                   "1.5:0.3", None])
def test_what_it_is_not(value):
    with pytest.raises(InputError, match=r"such as 1:0\.4,2:0\.6"):
        parse(value)
    assert "such as 1:0.4,2:0.6" in problem(value, -1, 1)


def test_one_spelling_for_the_manifest():
    assert canonical("0.40") == 0.4
    assert canonical("3:0.50, 1:-1") == "1:-1,3:0.5"
    assert canonical("2:0.6, 0.4") == "0.4,2:0.6"
    assert canonical(canonical("2:0.6, 0.4")) == "0.4,2:0.6"


def test_bounds():
    assert problem("0.2,2:1", -1, 1) is None
    assert problem("0.2,2:1.5", -1, 1) == "a number between -1 and 1"


def test_each_class_gets_its_number():
    own = {1: 0.31, 4: 0.52}
    assert resolve(-1.0, own, "threshold") == own
    assert resolve(0.2, own, "threshold") == {1: 0.2, 4: 0.2}
    assert resolve("4:0.7", own, "threshold") == {1: 0.31, 4: 0.7}
    assert resolve("0.1,4:-1", own, "threshold") == {1: 0.1, 4: 0.52}
    with pytest.raises(InputError, match=r"threshold names class 2.*1 \(ring\), 4"):
        resolve("2:0.7", own, "threshold", {1: "ring"})
    with pytest.raises(InputError, match="threshold must be a number"):
        resolve("high", own, "threshold")


def test_text_for_people():
    assert text_of({1: 0.4, 2: 0.4}) == "0.40"
    assert text_of({2: 0.6, 1: 0.4}) == "1:0.40, 2:0.60"
