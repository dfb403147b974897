"""What option classes are made of: documented and checked fields, read from files, mappings and the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from deepetpicker.errors import InputError, suggestion
from deepetpicker.io.jsonvalues import parse
from deepetpicker.io.plainfile import LARGEST_JSON, check_plain
from deepetpicker.perclass import canonical, problem

Check = Callable[[Any], Optional[str]]
T = TypeVar("T")
METAVARS = {int: "N", float: "X", str: "TEXT", tuple: "A,B,..."}


def opt(default: Any, help: str, unit: str = "", check: Optional[Check] = None, choices: Sequence[str] = (),
        expert: bool = False, per_class: bool = False) -> Any:
    """Return a dataclass field with its documentation and its check.

    Parameters
    ----------
    default : Any
        Value when the user says nothing. Its type is the option's type; a tuple makes a comma-separated list.
    help : str
        One sentence for command-line help and for the Scipion form.
    unit : str
        "angstrom", "voxels", ... shown behind the help and in form labels.
    check : callable, optional
        Gets the value; returns what was expected when the value is wrong, else None.
    choices : sequence of str
        The legal words, for options that take one of a few.
    expert : bool
        True for options that most users never touch.
    per_class : bool
        True for a number that may also be text with one per class, see :mod:`deepetpicker.perclass`.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "unit": unit, "check": check, "choices": tuple(choices), "expert": expert,
        "per_class": per_class})


def at_least(low: float) -> Check:
    """Return a check that a number is >= low."""
    return lambda v: None if v >= low else f"a number >= {low}"


def above(low: float) -> Check:
    """Return a check that a number is > low."""
    return lambda v: None if v > low else f"a number > {low}"


def between(low: float, high: float) -> Check:
    """Return a check that low <= number <= high."""
    return lambda v: None if low <= v <= high else f"a number between {low} and {high}"


def multiple_of(step: int, low: int) -> Check:
    """Return a check that an integer is a multiple of step and >= low."""
    return lambda v: None if v >= low and v % step == 0 else f"a multiple of {step}, at least {low}"


def all_above(low: float) -> Check:
    """Return a check that every number of a list is > low."""
    return lambda vs: None if all(v > low for v in vs) else f"numbers > {low}"


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of the option classes: checks every field when it is made.

    Raises
    ------
    InputError
        Naming the option, what was expected and what was found.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            choices, check = field.metadata.get("choices"), field.metadata.get("check")
            if choices and value not in choices:
                raise InputError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}"
                                 + suggestion(str(value), choices))
            expected = check(value) if check else None
            if expected:
                raise InputError(f"{field.name} must be {expected}, got {value!r}")

    def to_dict(self) -> Dict[str, Any]:
        """Return the fields as JSON-ready values (tuples become lists)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def from_mapping(cls: Type[T], values: Mapping[str, Any]) -> T:
    """Return an option object from a mapping such as a JSON file; unknown names are an error.

    Parameters
    ----------
    cls : type
        One of the option classes of :mod:`deepetpicker.config`.
    values : mapping
        Field names to values. Lists become tuples; None means the default.

    Raises
    ------
    InputError
        For an unknown name or a value of the wrong type, with the nearest known name.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"options must be an object of names and values, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    out = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"unknown option {name!r} for {cls.__name__}{suggestion(name, list(fields))}")
        if value is not None:
            out[name] = _coerce(fields[name], value)
    return cls(**out)


def _coerce(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return value in the type of the field, or raise InputError."""
    kind = type(field.default)
    inner = next((k for k in (int, float) if f"[{k.__name__}," in str(field.type)), str)
    if field.metadata.get("per_class"):
        return value if problem(value) else canonical(value)  # the field's check says what is wrong
    try:
        if kind is not tuple:
            return _scalar(value, kind)
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        return tuple(_scalar(v, inner) for v in items if str(v).strip())
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        expected = f"a list of {inner.__name__}" if kind is tuple else f"of type {kind.__name__}"
        raise InputError(f"{field.name} must be {expected}, got {value!r}") from error


def _scalar(value: Any, kind: type) -> Any:
    """Return one value as a bool, int, float or stripped word; ValueError, TypeError or KeyError when it is none."""
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
    if kind is int and float(value) != int(float(value)):
        raise ValueError
    if kind is str:
        return str(value).strip()
    return int(float(value)) if kind is int else kind(value)


def add_arguments(parser: argparse.ArgumentParser, cls: Type[Options], skip: Sequence[str] = (), title: str = ""
                  ) -> None:
    """Add one command-line flag per field of cls; flags that are not given stay out of the namespace.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Changed in place. ``tile_size`` becomes ``--tile-size``; a bool gets ``--x`` and ``--no-x``.
    cls : type
        One of the option classes of :mod:`deepetpicker.config`.
    skip : sequence of str
        Fields the command sets by itself.
    title : str
        Heading of all of them in the help; default: options, and expert options.
    """
    plain = parser.add_argument_group(title or "options")
    expert = parser.add_argument_group("expert options") if not title else plain
    for field in dataclasses.fields(cls):
        if field.name in skip:
            continue
        meta, flag = field.metadata, "--" + field.name.replace("_", "-")
        unit = f" [{meta['unit']}]" if meta["unit"] else ""
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        is_said = shown == "" and "default: " in meta["help"]
        default = "" if is_said else f" (default: {'none' if shown == '' else shown})"
        text = f"{meta['help']}{unit}{default}".replace("%", "%%")
        group = expert if meta["expert"] else plain
        if isinstance(field.default, bool):
            group.add_argument(flag, help=text, default=argparse.SUPPRESS, action=_Switch)
        else:
            group.add_argument(flag, help=text, default=argparse.SUPPRESS, choices=meta["choices"] or None,
                               metavar=None if meta["choices"] else METAVARS[type(field.default)])


class _Switch(argparse.Action):
    """What ``--x`` and ``--no-x`` do: ``argparse.BooleanOptionalAction``, which Python 3.8 lacks."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        flags = [flag for name in option_strings for flag in (name, "--no-" + name[2:])]
        super().__init__(flags, dest, nargs=0, **rest)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: Optional[str] = None) -> None:
        """Store what the flag says."""
        setattr(namespace, self.dest, not str(option_string).startswith("--no-"))

    def format_usage(self) -> str:
        """Return both flags, for the line of the usage."""
        return " | ".join(self.option_strings)


def from_arguments(cls: Type[T], args: argparse.Namespace, skip: Sequence[str] = ()) -> T:
    """Return the options from parsed arguments: the ``--params`` file first, flags override it.

    Parameters
    ----------
    cls : type
        One of the option classes of :mod:`deepetpicker.config`.
    args : argparse.Namespace
        Parsed by a parser that :func:`add_arguments` filled; may have ``params``, the path of a JSON file whose
        member ``"options"`` holds field names and values.
    skip : sequence of str
        Fields the command sets by itself.
    """
    given = read_params(args.params).get("options", {}) if getattr(args, "params", None) else {}
    names = [f.name for f in dataclasses.fields(cls) if f.name not in skip]  # type: ignore[arg-type]
    values = {n: getattr(args, n) for n in names if hasattr(args, n)}
    return from_mapping(cls, {**given, **values} if isinstance(given, Mapping) else given)


def read_params(path: str) -> Dict[str, Any]:
    """Return the content of a params.json (an object), or raise InputError naming the file."""
    try:
        check_plain(path, "a JSON file", LARGEST_JSON)
        content = parse(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"--params must be a readable JSON file, got {path}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"--params must hold a JSON object, got {type(content).__name__} in {path}")
    return content


def numbers(text: str) -> Tuple[float, ...]:
    """Return the numbers of a comma-separated list; an argparse type."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from error
