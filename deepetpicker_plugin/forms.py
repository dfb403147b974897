"""Form parameters made from the engine's options, so that defaults, help, units and checks are written once."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Dict, List, Sequence, Type

from pyworkflow.protocol import params

from deepetpicker.config import Options, from_mapping
from deepetpicker.errors import InputError

HINTS = {"minutes": "0: none", "epochs": "0: by recipe or time", "patch": "0: by recipe", "batch": "0: by recipe",
         "patches_per_epoch": "0: by particles", "label_diameter": "0: auto"}
UNITS = {"angstrom": "Å", "voxels": "voxels", "degrees": "°", "micrometres": "µm", "channels": "channels"}


class OptionCheck(params.Validator):
    """Checks a form value as the engine would, with the engine's words.

    Parameters
    ----------
    cls : type
        Option class of ``deepetpicker.config``.
    name : str
        Field of the class.
    """

    def __init__(self, cls: Type[Options], name: str) -> None:
        self.cls, self.name = cls, name

    def __call__(self, value: Any) -> List[str]:
        """Return the problems of a value; an empty value means the default."""
        field = self.cls.__dataclass_fields__[self.name]
        try:
            from_mapping(self.cls, {self.name: formToOption(field, value)})
        except InputError as error:
            return [str(error)[len(self.name):].strip() if str(error).startswith(self.name) else str(error)]
        return []


def paramName(option: str) -> str:
    """Return the name of the form parameter of an option: ``learning_rate`` becomes ``learningRate``."""
    first, *others = option.split("_")
    return first + "".join(word.capitalize() for word in others)


def labelOf(field: Any, label: str = "", hint: str = "") -> str:
    """Return the label of an option with its unit and a hint; the name of the option in words without a label."""
    words = label or field.name.replace("_angstrom", "").replace("_", " ").capitalize()
    unit = UNITS.get(field.metadata["unit"], field.metadata["unit"])
    inside = "; ".join(part for part in (unit, hint) if part)
    return f"{words} ({inside})" if inside else words


def inFormWords(text: str, protocol: Any) -> str:
    """Return what the engine says in the words of a form: flags that are parameters there become their labels.

    ``train longer (--epochs or --minutes)`` becomes ``train longer ("Epochs" or "Time limit")``.

    Parameters
    ----------
    text : str
        Of the engine, with flags of its command line; those that the form has not stay.
    protocol : Protocol
        Has the form.
    """
    def label(found: Any) -> str:
        param = protocol.getParam(paramName(found[1].replace("-", "_")))
        if param is None:
            return str(found[0])
        words = re.sub(r" \(.*\)$", "", str(param.label.get()))
        return f'"{words}"' + (f": {found[2]}" if found[2] else "")

    return re.sub(r"--([a-z][a-z-]*[a-z])(?: (unknown|background|yes|no)\b)?", label, text)


def addOption(form: Any, cls: Type[Options], name: str, label: str = "", hint: str = "", **overrides: Any) -> None:
    """Add the parameter of one option to a form, section or group.

    Parameters
    ----------
    form : Form, Section or Group
        Gets the parameter.
    cls : type
        Option class of ``deepetpicker.config``.
    name : str
        Field of the class.
    label : str
        Label without the unit; default: the name in words.
    hint : str
        What a special value means, for the label, such as "0: all".
    **overrides
        Anything else of the parameter: ``default``, ``condition``, ``expertLevel``, ``important``, ``help``.
    """
    field = cls.__dataclass_fields__[name]
    meta, default = field.metadata, field.default
    text = meta["help"][0].upper() + meta["help"][1:] + "."
    given: Dict[str, Any] = {
        "label": labelOf(field, label, hint), "help": text, "default": default,
        "expertLevel": params.LEVEL_ADVANCED if meta["expert"] else params.LEVEL_NORMAL}
    if meta["choices"]:
        kind = params.EnumParam
        given.update(choices=list(meta["choices"]), default=meta["choices"].index(default))
    elif meta["per_class"]:
        kind = params.StringParam
        given.update(default=f"{default:g}", validators=[OptionCheck(cls, name)])
    elif isinstance(default, bool):
        kind = params.BooleanParam
    elif isinstance(default, (int, float)):
        kind = params.IntParam if isinstance(default, int) else params.FloatParam
        given["validators"] = [OptionCheck(cls, name)]
    else:
        kind = params.StringParam
        given.update(default=",".join(map(str, default)) if isinstance(default, tuple) else default,
                     validators=[OptionCheck(cls, name)])
    form.addParam(paramName(name), kind, **{**given, **overrides})


def addOptions(form: Any, cls: Type[Options], names: Sequence[str], **overrides: Any) -> None:
    """Add the parameters of several options, as :func:`addOption`."""
    for name in names:
        addOption(form, cls, name, **overrides)


def addTrainingOptions(form: Any, cls: Type[Options], names: Sequence[str]) -> None:
    """Add the parameters of options of a training; their labels say what 0 means."""
    for name in names:
        addOption(form, cls, name, {"minutes": "Time limit"}.get(name, ""), HINTS.get(name, ""))


def expertNames(cls: Type[Options], without: Sequence[str] = ()) -> List[str]:
    """Return the names of the options that most users never touch."""
    return [f.name for f in dataclasses.fields(cls) if f.metadata["expert"] and f.name not in without]


def formToOption(field: Any, value: Any) -> Any:
    """Return the value of a form parameter as the option takes it; None for the default."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if field.metadata["choices"] and not isinstance(value, str):
        return field.metadata["choices"][int(value)]
    if isinstance(field.default, tuple) and isinstance(value, str):
        return value.replace(";", ",").replace(" ", ",") if "," not in value else value
    return value


def readOptions(protocol: Any, cls: Type[Options], **others: Any) -> Dict[str, Any]:
    """Return the options that a protocol's form holds, checked, as JSON-ready values.

    Parameters
    ----------
    protocol : Protocol
        Its attributes are the form's values.
    cls : type
        Option class of ``deepetpicker.config``. Options that the form does not show keep their defaults.
    **others
        Options that the protocol sets itself.

    Raises
    ------
    InputError
        For a value that the engine would refuse.
    """
    values = dict(others)
    for field in dataclasses.fields(cls):
        attribute = getattr(protocol, paramName(field.name), None)
        if field.name not in values and attribute is not None and hasattr(attribute, "get"):
            values[field.name] = formToOption(field, attribute.get())
    return from_mapping(cls, values).to_dict()
