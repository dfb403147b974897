"""Options: defaults pass their own checks, every way in (flags, file, mapping) gives the same values."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import re
import sys
from typing import Any, List, Tuple, Type

import pytest

from deepetpicker import config
from deepetpicker.config import (
    BenchmarkOptions,
    CheckOptions,
    ClusterOptions,
    CompareOptions,
    EvaluateOptions,
    NetworkOptions,
    Options,
    PickOptions,
    ProposeOptions,
    RefineOptions,
    ReportOptions,
    SimulateOptions,
    StudyOptions,
    TrainOptions,
    add_arguments,
    from_arguments,
    from_mapping,
    opt,
    read_params,
    suggestion,
)
from deepetpicker.errors import InputError

CLASSES: List[Type[Options]] = [NetworkOptions, TrainOptions, RefineOptions, PickOptions, ClusterOptions,
                                SimulateOptions,
                                EvaluateOptions, CompareOptions, CheckOptions, ProposeOptions, ReportOptions,
                                StudyOptions, BenchmarkOptions]


def parse(cls: Type[Options], words: List[str], **extra: Any) -> Options:
    """Return the options a command line gives."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, cls)
    return from_arguments(cls, argparse.Namespace(**vars(parser.parse_args(words)), **extra))


def every_field() -> List[Tuple[Type[Options], dataclasses.Field[Any]]]:
    """Return each option class with each of its fields."""
    return [(cls, field) for cls in CLASSES for field in dataclasses.fields(cls)]


def name_of(cls: Type[Options], field: dataclasses.Field[Any]) -> str:
    """Return what a field is called in a message."""
    return f"{cls.__name__}.{field.name}"


def test_every_option_class_of_the_module_is_tested():
    found = [c for c in vars(config).values() if isinstance(c, type) and issubclass(c, Options) and c is not Options]
    assert set(found) == set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_pass_their_own_checks(cls: Type[Options]):
    made = cls()
    assert dataclasses.asdict(made) == {f.name: f.default for f in dataclasses.fields(cls)}


def test_every_option_is_described():
    for cls, field in every_field():
        text, name = field.metadata["help"], name_of(cls, field)
        assert len(text) >= 5, name
        assert not text.endswith("."), name
        assert isinstance(field.default, (bool, int, float, str, tuple)), name
        assert not isinstance(field.default, int) or isinstance(field.default, bool) or field.type == "int", name
        assert all(isinstance(word, str) for word in field.metadata["choices"]), name


def test_every_option_is_read_by_some_command():
    files = [path for path in pathlib.Path(config.__file__).parent.rglob("*.py")
             if path.name not in ("config.py", "options.py")]
    read = set(re.findall(r"\.([a-z_]+)\b", "\n".join(path.read_text("utf-8") for path in files)))
    assert [name_of(cls, field) for cls, field in every_field() if field.name not in read] == []


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip_through_json(cls: Type[Options]):
    made = cls()
    assert from_mapping(cls, json.loads(json.dumps(made.to_dict()))) == made


def test_round_trip_of_values_that_are_not_defaults():
    made = TrainOptions(diameter_angstrom=(120.0, 240.5), validation=("TS_01", "TS_02.5"), epochs=3, mirror=False,
                        label="ball", learning_rate=2e-4)
    again = from_mapping(TrainOptions, json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert isinstance(again.diameter_angstrom, tuple)


@pytest.mark.parametrize("cls", CLASSES)
def test_no_flag_gives_the_defaults(cls: Type[Options]):
    assert parse(cls, []) == cls()


@pytest.mark.parametrize("cls", CLASSES)
def test_every_flag_takes_its_own_default(cls: Type[Options]):
    parser = argparse.ArgumentParser()
    add_arguments(parser, cls)
    wrong = []
    for field in dataclasses.fields(cls):
        word, expected = "--" + field.name.replace("_", "-"), field.default
        if isinstance(field.default, bool):
            expected = True
        elif isinstance(field.default, tuple):
            word += "=" + ",".join(map(str, field.default))
        else:
            word += f"={field.default}"
        found = getattr(from_arguments(cls, parser.parse_args([word])), field.name)
        if found != expected or isinstance(found, bool) != isinstance(expected, bool):
            wrong.append((word, found))
    assert wrong == []


def test_flags_become_their_types():
    made = parse(TrainOptions, ["--diameter-angstrom", "120,240.5", "--validation", "a, b", "--epochs", "7",
                                "--no-mirror", "--jitter", "0.1"])
    assert made.diameter_angstrom == (120.0, 240.5)
    assert made.validation == ("a", "b")
    assert (made.epochs, made.mirror, made.jitter) == (7, False, 0.1)
    assert type(made.epochs) is int


def test_switches_need_nothing_that_python_3_8_lacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(argparse, "BooleanOptionalAction", raising=False)  # as there
    assert parse(TrainOptions, ["--no-mirror"]).mirror is False
    assert parse(TrainOptions, ["--no-mirror", "--mirror"]).mirror is True
    assert parse(TrainOptions, ["--no-mir"]).mirror is False
    with pytest.raises(SystemExit):
        parse(TrainOptions, ["--no-mirror=1"])
    parser = argparse.ArgumentParser()
    add_arguments(parser, TrainOptions)
    assert "--mirror, --no-mirror" in parser.format_help()
    assert sys.version_info < (3, 9) or "[--mirror | --no-mirror]" in parser.format_usage()  # 3.8 names the first only


def test_file_then_flags(tmp_path: pathlib.Path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"options": {"epochs": 5, "batch": 2, "mirror": False}, "items": []}), "utf-8")
    made = parse(TrainOptions, ["--batch", "4"], params=str(path))
    assert (made.epochs, made.batch, made.mirror) == (5, 4, False)


def test_file_without_options_gives_the_defaults(tmp_path: pathlib.Path):
    path = tmp_path / "params.json"
    path.write_text("{}", "utf-8")
    assert parse(PickOptions, [], params=str(path)) == PickOptions()
    assert parse(PickOptions, [], params=None) == PickOptions()


def test_flag_may_return_to_the_default(tmp_path: pathlib.Path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"options": {"epochs": 5}}), "utf-8")
    assert parse(TrainOptions, ["--epochs", "60"], params=str(path)).epochs == 60


def test_byte_order_mark_is_no_trouble(tmp_path: pathlib.Path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"options": {"seed": 3}}), "utf-8-sig")
    assert read_params(str(path)) == {"options": {"seed": 3}}


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '"text"', "nonsense"])
def test_damaged_file_is_named(tmp_path: pathlib.Path, content: str):
    path = tmp_path / "broken.json"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"--params must .*broken\.json"):
        read_params(str(path))


def test_missing_file_is_named(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_params(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("options", [[], [1], "epochs=3", 5])
def test_options_of_a_file_must_be_an_object(tmp_path: pathlib.Path, options: Any):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"options": options}), "utf-8")
    with pytest.raises(InputError, match="options"):
        parse(PickOptions, [], params=str(path))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"unknown option 'epoch' for TrainOptions; did you mean 'epochs'\?"):
        from_mapping(TrainOptions, {"epoch": 3})


def test_unknown_name_far_from_all_suggests_nothing():
    with pytest.raises(InputError) as caught:
        from_mapping(TrainOptions, {"zzzzzz": 3})
    assert "did you mean" not in str(caught.value)


def test_suggestion():
    assert suggestion("tresh", ["threshold", "tile"]) == "; did you mean 'threshold'?"
    assert suggestion("qqq", ["threshold"]) == ""


def test_none_means_default():
    assert from_mapping(PickOptions, {"threshold": None, "tile": None}) == PickOptions()


@pytest.mark.parametrize(("name", "value", "words"), [
    ("epochs", "three", "epochs must be of type int, got 'three'"),
    ("epochs", 2.5, "epochs must be of type int, got 2.5"),
    ("epochs", [3], "epochs must be of type int"),
    ("epochs", float("inf"), "epochs must be"),
    ("jitter", "x", "jitter must be of type float"),
    ("mirror", "perhaps", "mirror must be of type bool, got 'perhaps'"),
    ("diameter_angstrom", "120;240", "diameter_angstrom must be"),
    ("diameter_angstrom", ["a"], "diameter_angstrom must be"),
    ("widths", "24,x", "widths must be"),
])
def test_wrong_type_says_name_type_and_value(name: str, value: Any, words: str):
    with pytest.raises(InputError) as caught:
        from_mapping(TrainOptions, {name: value})
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("YES", True), ("false", False),
                                             ("0", False), ("No", False), (True, True), (0, False)])
def test_words_for_yes_and_no(text: Any, value: bool):
    assert from_mapping(TrainOptions, {"mirror": text}).mirror is value


@pytest.mark.parametrize(("text", "value"), [("60", 60), (60.0, 60), ("6e1", 60)])
def test_whole_numbers_in_any_spelling(text: Any, value: int):
    made = from_mapping(TrainOptions, {"epochs": text})
    assert made.epochs == value
    assert type(made.epochs) is int


@pytest.mark.parametrize(("value", "expected"), [("", ()), ([], ()), (120, (120.0,)), ("120", (120.0,)),
                                                 ([120, "240"], (120.0, 240.0)), ("120, 240,", (120.0, 240.0))])
def test_lists_in_any_spelling(value: Any, expected: Tuple[float, ...]):
    assert from_mapping(TrainOptions, {"diameter_angstrom": value}).diameter_angstrom == expected


@pytest.mark.parametrize("name", ["TS_01", "1e3", "007", "12", "nan"])
def test_names_stay_words(name: str):
    assert from_mapping(TrainOptions, {"validation": name}).validation == (name,)


@pytest.mark.parametrize(("cls", "values", "words"), [
    (TrainOptions, {"epochs": -1}, "epochs must be a number >= 0, got -1"),
    (TrainOptions, {"patch": 70}, "patch must be a multiple of 8, at least 32, got 70"),
    (TrainOptions, {"patch": 24}, "patch must be a multiple of 8, at least 32, got 24"),
    (TrainOptions, {"patch": 0, "cross_entropy": -1.0, "averaging": -1.0, "widths": ()}, None),
    (TrainOptions, {"learning_rate": -0.1}, "learning_rate must be a number >= 0, got -0.1"),
    (TrainOptions, {"averaging": 1.0}, "averaging must be a number between 0 and 0.9999, got 1.0"),
    (TrainOptions, {"diameter_angstrom": (100.0, -1.0)}, "diameter_angstrom must be numbers > 0"),
    (TrainOptions, {"label": "cube"}, "label must be one of tball, ball, cubic, got 'cube'"),
    (TrainOptions, {"device": "gpu"}, "device must be one of auto, cpu, cuda"),
    (TrainOptions, {"background_fraction": 0.95}, "background_fraction must be a number between 0 and 0.9, got 0.95"),
    (PickOptions, {"tile": 40}, None),
    (PickOptions, {"tile": 41}, "tile must be a multiple of 8, at least 32, got 41"),
    (PickOptions, {"threshold": 1.5}, "threshold must be a number between -1 and 1, got 1.5"),
    (PickOptions, {"threshold": "1:1.5"}, "threshold must be a number between -1 and 1, got '1:1.5'"),
    (PickOptions, {"threshold": "high"}, "threshold must be a number, or a number per class such as 1:0.4,2:0.6"),
    (SimulateOptions, {"shape": (96, 192)}, "shape must be three numbers >= 16"),
    (SimulateOptions, {"tilt_range": 91.0}, "tilt_range must be a number between 10 and 90"),
    (EvaluateOptions, {"rule": "masks"}, "rule must be one of auto, mask, distance, got 'masks'; did you mean 'mask'?"),
])
def test_checks_say_what_was_expected_and_found(cls: Type[Options], values: Any, words: Any):
    if words is None:
        assert dataclasses.asdict(cls(**values)).items() >= values.items()
        return
    with pytest.raises(InputError) as caught:
        cls(**values)
    assert words in str(caught.value)


def test_not_a_number_is_refused():
    numbers = [(cls, field) for cls, field in every_field() if isinstance(field.default, float)]
    assert len(numbers) > 20
    for cls, field in numbers:
        with pytest.raises(InputError, match=field.name):
            raise AssertionError(f"{name_of(cls, field)} took {cls(**{field.name: float('nan')})}")


@pytest.mark.parametrize(("text", "value"), [("0.40", 0.4), ("-1", -1.0), ("2:0.60, 1:0.4", "2:0.6,1:0.4")])
def test_a_threshold_per_class_is_kept_in_one_spelling(text: str, value: Any):
    parser = argparse.ArgumentParser()
    add_arguments(parser, PickOptions)
    made = from_arguments(PickOptions, parser.parse_args([f"--threshold={text}"]))
    assert made.threshold == value
    assert from_mapping(PickOptions, made.to_dict()) == made


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PickOptions().threshold = 0.5  # type: ignore[misc]


def test_skip_leaves_a_field_out():
    parser = argparse.ArgumentParser()
    add_arguments(parser, PickOptions, skip=("mask",))
    text = parser.format_help()
    assert "--mask" not in text
    assert "--save-map" in text
    assert from_arguments(PickOptions, argparse.Namespace(mask="a.mrc"), skip=("mask",)).mask == ""


def test_help_shows_unit_default_and_groups():
    parser = argparse.ArgumentParser(prog="x")
    add_arguments(parser, TrainOptions)
    text = " ".join(parser.format_help().split())
    assert "[angstrom]" in text
    assert "(default: 0.1)" in text
    assert "or 'none' (chance); default: the recipe's --device" in text  # said in words, not again as "none"
    assert text.index("expert options:") > text.index("--epochs")
    assert text.index("--learning-rate", text.index("expert options:")) > 0


def test_percent_in_a_help_text_survives():
    @dataclasses.dataclass(frozen=True)
    class Percent(Options):
        share: float = opt(0.5, "share, 50 % of all")

    parser = argparse.ArgumentParser()
    add_arguments(parser, Percent)
    assert "50 % of all" in parser.format_help()


def test_network_options_of_a_training_equal_those_of_the_network():
    network, training = NetworkOptions(), TrainOptions()
    for name in ("residual", "coordinates", "pyramid", "activation"):
        assert getattr(training, name) == getattr(network, name)
