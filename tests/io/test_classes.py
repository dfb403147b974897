"""The class table: ids from 0 that mean the same everywhere, and which class of one table is which of another."""

import pytest

from deepetpicker.errors import InputError
from deepetpicker.io.classes import (
    ParticleClass,
    class_named,
    classes_from_params,
    classes_to_json,
    described,
    news_of,
    numbers_by_class,
    parse_classes,
    read_classes,
    same_particle,
    values_by_class,
    write_classes,
)
from deepetpicker.io.classmatch import match_classes

RING, ROD = ParticleClass(0, "ring", 100.0), ParticleClass(1, "rod", 300.0)


def unnamed(*ids):
    """Return classes of which only the ids are known."""
    return classes_from_params({"classes": [{"id": i} for i in ids]})


def test_the_table_round_trips_with_class_zero(tmp_path):
    write_classes(tmp_path, (ROD, RING))
    assert read_classes(tmp_path) == ((RING, ROD), 0.0)
    assert classes_from_params({"classes": classes_to_json((ROD, RING))}) == (RING, ROD)
    assert described((RING, ParticleClass(4, "x"))) == "class 0 (ring): 100 angstrom, class 4 (x): diameter not known"


def test_command_line_text():
    assert parse_classes("1:rod:300, 0:ring:100") == (RING, ROD)
    assert parse_classes("3, 2::140, 0:ring") == (ParticleClass(0, "ring"), ParticleClass(2, "class_2", 140.0),
                                                  ParticleClass(3, "class_3"))
    for text, word in (("a:ring:1", "id must be a whole number >= 0"), ("1:a:b:c", "ID:NAME:DIAMETER"),
                       ("1,1", "must differ"), ("1:a:big", "diameter_angstrom must be"), ("1.5", "whole number")):
        with pytest.raises(InputError, match=word):
            parse_classes(text)


def test_values_are_given_by_id_by_name_or_by_ascending_id():
    both = (ROD, RING)
    assert numbers_by_class("250", both, "Diameter") == {0: 250, 1: 250}
    assert numbers_by_class("100, 300", both, "Diameter") == {0: 100, 1: 300}
    assert numbers_by_class("100 300", both, "Diameter") == {0: 100, 1: 300}
    assert numbers_by_class("1: 300; 0: 100", both, "Diameter") == {0: 100, 1: 300}
    assert numbers_by_class("rod: 300\nring: 100", both, "Diameter") == {0: 100, 1: 300}
    assert numbers_by_class("rod: 300", both, "Diameter") == {1: 300}
    assert numbers_by_class("100, rod: 300", both, "Diameter") == {0: 100, 1: 300}
    assert numbers_by_class("", both, "Diameter") == {}
    assert values_by_class("0: my ring, 1: rod", both, "Names") == {0: "my ring", 1: "rod"}
    assert class_named("1", both) is ROD
    assert class_named("2", both) is None


@pytest.mark.parametrize(("text", "word"), [
    ("1, 2, 3", r"Diameter: expected one for all classes or one for each of class 0 \(ring\), class 1 \(rod\), got 3"),
    ("2: 5", r"no class '2', but class 0 \(ring\), class 1 \(rod\)"), ("0: 5, ring: 6", "comes twice"),
    ("0: 5, 6, 7", "expected CLASS: VALUE"), ("0: x", "class 0 must be a number >= 0"),
    ("-5", "must be a number >= 0")])
def test_wrong_values_name_the_classes(text, word):
    with pytest.raises(InputError, match=word):
        numbers_by_class(text, (RING, ROD), "Diameter")


def test_the_same_particle_needs_name_or_id_and_diameter():
    assert same_particle(RING, ParticleClass(7, "ring", 105.0))
    assert same_particle(RING, ParticleClass(0, "class_0", 100.0))
    assert not same_particle(RING, ParticleClass(0, "ring", 300.0))
    assert not same_particle(RING, ParticleClass(0, "rod", 100.0))
    assert not same_particle(RING, ParticleClass(1, "class_1", 100.0))
    assert news_of((RING, ROD), (ROD, RING)) == []
    assert news_of((ParticleClass(0, "ring", 300.0),), (RING, ROD)) == [
        "class 0 (ring): 100 angstrom in the model, 300 in the data"]
    assert news_of((ParticleClass(5, "new", 10.0),), (RING,)) == ["class 5 (new) is not in the model"]
    assert news_of((ParticleClass(0, "new", 10.0),), (RING,)) == ["class 0 (new) is not in the model, where 0 is ring"]


def test_evaluation_matches_by_id():
    match = match_classes(unnamed(0, 1), unnamed(0, 1))
    assert match.of_picks == {0: 0, 1: 1}
    assert match.warnings == ()
    few = match_classes(unnamed(0, 1, 2), unnamed(1))  # the model found particles of one class only
    assert (few.of_picks, few.warnings) == ({1: 1}, ())
    more = match_classes(unnamed(1), unnamed(1, 2))
    assert more.of_picks == {1: 1, 2: 2}
    assert "class 2 (class_2) of the picks: not in the reference" in more.warnings[0]


def test_evaluation_matches_by_name_across_numberings():
    match = match_classes((RING, ROD), (ParticleClass(1, "ring"), ParticleClass(2, "rod", 290.0)))
    assert match.of_picks == {1: 0, 2: 1}
    assert match.classes == (RING, ROD)
    swapped = match_classes((RING, ROD), (ParticleClass(0, "rod"), ParticleClass(1, "ring")))
    assert swapped.of_picks == {0: 1, 1: 0}
    other = match_classes((RING, ROD), (ParticleClass(0, "gold"), ParticleClass(1, "rod")))
    assert other.of_picks == {1: 1, 0: 2}  # gold is no ring, whatever its number
    assert [(c.id, c.name) for c in other.classes] == [(0, "ring"), (1, "rod"), (2, "gold")]


def test_one_class_on_each_side_is_the_same():
    match = match_classes(unnamed(0), (ParticleClass(1, "ribosome", 250.0),))
    assert match.of_picks == {1: 0}
    assert match.classes == (ParticleClass(0, "ribosome", 250.0),)
    assert match.warnings == ()
    assert "taken for the same" in match_classes((RING,), (ParticleClass(1, "rod"),)).warnings[0]


@pytest.mark.parametrize(("reference", "picks"), [
    (unnamed(0, 1), unnamed(1, 2)), (unnamed(0, 1), unnamed(2, 3)), (unnamed(0, 1), (ParticleClass(2, "ring"),)),
    ((RING, ROD), (ParticleClass(0, "a"), ParticleClass(1, "b")))])
def test_what_cannot_be_told_is_an_error_that_says_how_to_tell(reference, picks):
    with pytest.raises(InputError, match=r"cannot tell which is which: say it as PICKS: REFERENCE, for example"):
        match_classes(reference, picks)


def test_a_given_mapping_wins():
    assert match_classes(unnamed(0, 1), unnamed(1, 2), "1: 0, 2: 1").of_picks == {1: 0, 2: 1}
    assert match_classes((RING, ROD), unnamed(1, 2), "1: rod, 2: ring").of_picks == {1: 1, 2: 0}
    for text, word in (("5: 0", "no class '5'"), ("1: 7", "reference has no class '7'"), ("1", "PICKS: REFERENCE"),
                       ("1: 0, 2: 0", "two classes of the picks")):
        with pytest.raises(InputError, match=word):
            match_classes(unnamed(0, 1), unnamed(1, 2), text)
