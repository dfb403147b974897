"""Options of every command, written once.

Each command has one frozen dataclass. Its fields are made by :func:`opt`, which holds the default, the help text,
the unit and the check. The command line (:func:`add_arguments`), Scipion's forms and the manifest are all made from
these fields, so that a default or a help text exists in one place.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from deepetpicker.errors import InputError, suggestion

Check = Callable[[Any], Optional[str]]
T = TypeVar("T")
METAVARS = {int: "N", float: "X", str: "TEXT", tuple: "A,B,..."}


def opt(default: Any, help: str, unit: str = "", check: Optional[Check] = None, choices: Sequence[str] = (),
        expert: bool = False) -> Any:
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
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "unit": unit, "check": check, "choices": tuple(choices), "expert": expert})


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
        One of the option classes of this module.
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


def add_arguments(parser: argparse.ArgumentParser, cls: Type[Options], skip: Sequence[str] = ()) -> None:
    """Add one command-line flag per field of cls; flags that are not given stay out of the namespace.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Changed in place. ``tile_size`` becomes ``--tile-size``; a bool gets ``--x`` and ``--no-x``.
    cls : type
        One of the option classes of this module.
    skip : sequence of str
        Fields the command sets by itself.
    """
    plain = parser.add_argument_group("options")
    expert = parser.add_argument_group("expert options")
    for field in dataclasses.fields(cls):
        if field.name in skip:
            continue
        meta, flag = field.metadata, "--" + field.name.replace("_", "-")
        unit = f" [{meta['unit']}]" if meta["unit"] else ""
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        text = (f"{meta['help']}{unit} (default: {shown if shown != '' else 'none'})").replace("%", "%%")
        group = expert if meta["expert"] else plain
        if isinstance(field.default, bool):
            group.add_argument(flag, help=text, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction
                               if hasattr(argparse, "BooleanOptionalAction") else "store_true")
        else:
            group.add_argument(flag, help=text, default=argparse.SUPPRESS, choices=meta["choices"] or None,
                               metavar=None if meta["choices"] else METAVARS[type(field.default)])


def from_arguments(cls: Type[T], args: argparse.Namespace, skip: Sequence[str] = ()) -> T:
    """Return the options from parsed arguments: the ``--params`` file first, flags override it.

    Parameters
    ----------
    cls : type
        One of the option classes of this module.
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
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
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


DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """The 3D-ResUNet and its customisations; all on is the published network, all off a plain 3D U-Net."""

    n_classes: int = opt(1, "number of particle classes", check=at_least(1))
    widths: Tuple[int, ...] = opt((24, 48, 72, 108), "feature channels of each level, finest first",
                                  unit="channels", check=all_above(0))
    residual: bool = opt(True, "add the output of a block's first convolution to its third")
    coordinates: bool = opt(True, "append the three coordinate channels to the input of every block")
    pyramid: bool = opt(True, "append the down-sampled image to every encoder level below the first")
    activation: str = opt("elu", "activation after the residual sum", choices=("elu", "relu", "leaky_relu"))


@dataclasses.dataclass(frozen=True)
class TrainOptions(Options):
    """Options of ``deepetpicker train``."""

    diameter_angstrom: Tuple[float, ...] = opt(
        (), "particle diameter, one for all classes or one per class in the order of the class ids; default: "
        "what DIR/classes.json says", unit="angstrom", check=all_above(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 reads it from each header", unit="angstrom",
                            check=at_least(0))
    validation: Tuple[str, ...] = opt(
        (), "names of the tomograms kept for validation; default: the last fifth (at least one) when there are two "
        "or more, else a slab of the only one")
    epochs: int = opt(60, "passes over the patches", check=at_least(1))
    patch: int = opt(72, "edge of the cubic training patch", unit="voxels", check=multiple_of(8, 32))
    batch: int = opt(8, "patches per optimiser step", check=at_least(1))
    init: str = opt("", "model file to start from (warm start)")
    device: str = opt("auto", "where to compute", choices=DEVICES)
    seed: int = opt(0, "seed of everything random", check=at_least(0))
    working_diameter: float = opt(
        20.0, "the smallest class is resampled to this diameter when the tomogram is finer", unit="voxels",
        check=between(4, 64))
    label: str = opt("tball", "shape of the weak label: truncated ball, ball or cube",
                     choices=("tball", "ball", "cubic"))
    label_diameter: float = opt(0.0, "diameter of the label in working voxels; 0 chooses it from the particle",
                                unit="voxels", check=at_least(0))
    unannotated: str = opt(
        "background", "what voxels far from any annotation are: 'background' when every particle was annotated, "
        "'unknown' when many were not (they then do not enter the loss)", choices=("background", "unknown"))
    background_fraction: float = opt(0.1, "share of the patches drawn anywhere instead of around a particle",
                                     check=between(0, 0.9))
    patches_per_epoch: int = opt(0, "patches in an epoch; 0 means one per annotated particle, at least 64",
                                 check=at_least(0))
    learning_rate: float = opt(1e-3, "peak of the one-cycle schedule", check=above(0), expert=True)
    weight_decay: float = opt(0.01, "AdamW weight decay", check=at_least(0), expert=True)
    cross_entropy: float = opt(0.0, "weight of the cross-entropy added to the Dice loss; 0 is the published loss",
                               check=at_least(0), expert=True)
    alpha: float = opt(3.0, "weight of recall in F_alpha, which chooses the kept epoch", check=above(0), expert=True)
    jitter: float = opt(0.2, "largest random shift of a patch, as a share of its edge", check=between(0, 0.5),
                        expert=True)
    mirror: bool = opt(True, "augment by mirroring (it also mirrors handedness)", expert=True)
    rotation: float = opt(15.0, "largest random rotation about each axis; 0 switches it off", unit="degrees",
                          check=between(0, 180), expert=True)
    elastic: float = opt(0.05, "largest elastic deformation as a share of the patch; 0 switches it off",
                         check=between(0, 0.3), expert=True)
    scaling: float = opt(0.05, "largest random change of scale; 0 switches it off", check=between(0, 0.5),
                         expert=True)
    patience: int = opt(0, "stop after so many validations without a better model; 0 never stops early",
                        check=at_least(0), expert=True)
    validate_every: int = opt(1, "epochs between validations", check=at_least(1), expert=True)
    validation_tiles: int = opt(64, "largest number of tiles scanned in one validation", check=at_least(1),
                                expert=True)
    workers: int = opt(0, "processes that prepare patches; 0 prepares them in the training process",
                       check=at_least(0), expert=True)
    devices: int = opt(1, "GPUs (or CPU processes) to train on", check=at_least(1), expert=True)
    nodes: int = opt(1, "machines to train on, under torchrun or SLURM", check=at_least(1), expert=True)
    precision: str = opt("auto", "arithmetic; auto takes bfloat16 where the hardware has it", choices=PRECISIONS,
                         expert=True)
    residual: bool = opt(True, NetworkOptions.__dataclass_fields__["residual"].metadata["help"], expert=True)
    coordinates: bool = opt(True, NetworkOptions.__dataclass_fields__["coordinates"].metadata["help"], expert=True)
    pyramid: bool = opt(True, NetworkOptions.__dataclass_fields__["pyramid"].metadata["help"], expert=True)
    activation: str = opt("elu", NetworkOptions.__dataclass_fields__["activation"].metadata["help"],
                          choices=("elu", "relu", "leaky_relu"), expert=True)
    widths: Tuple[int, ...] = opt((24, 48, 72, 108), NetworkOptions.__dataclass_fields__["widths"].metadata["help"],
                                  unit="channels", check=all_above(0), expert=True)
    resume: bool = opt(True, "go on from the last epoch of an interrupted run with the same options")


@dataclasses.dataclass(frozen=True)
class PickOptions(Options):
    """Options of ``deepetpicker pick``."""

    threshold: float = opt(-1.0, "lowest score written to the pick tables; negative takes the model's own",
                           check=between(-1, 1))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 reads it from each header", unit="angstrom",
                            check=at_least(0))
    save_map: bool = opt(False, "also write the probability of each class as NAME_probability_CLASS.mrc")
    mask: str = opt("", "MRC mask, or folder of NAME.mrc masks: picks outside voxels > 0 are dropped")
    device: str = opt("auto", "where to compute", choices=DEVICES)
    max_picks: int = opt(0, "keep at most so many picks per class and tomogram, best first; 0 keeps all",
                         check=at_least(0))
    min_distance_angstrom: Tuple[float, ...] = opt(
        (), "picks closer than this are one particle, one value or one per class; default: half the diameter",
        unit="angstrom", check=all_above(0))
    memory_limit: float = opt(
        0.0, "memory that picking may take, of the GPU if it computes there, else of the process: tiles and batch "
        "shrink to fit; 0 sets no limit", unit="GB", check=at_least(0), expert=True)
    tile: int = opt(0, "edge of the cubic tile the network sees; 0 chooses the fastest along each axis, from the "
                    "training patch up to 96", unit="voxels",
                    check=lambda v: None if v == 0 else multiple_of(8, 32)(v), expert=True)
    border: int = opt(12, "voxels discarded on each inner side of a tile", unit="voxels", check=at_least(0),
                      expert=True)
    batch: int = opt(0, "tiles per forward pass; 0 chooses", check=at_least(0), expert=True)
    slab: int = opt(0, "planes of probability in which peaks are looked for at once; 0 chooses", unit="voxels",
                    check=at_least(0), expert=True)
    floor: float = opt(0.1, "candidates below this score are not kept at all", check=between(0.001, 0.9),
                       expert=True)
    precision: str = opt("auto", "arithmetic; auto takes bfloat16 where the hardware has it", choices=PRECISIONS,
                         expert=True)
    shard: str = opt("", "i/n picks every n-th tomogram from the i-th on: n processes, on one machine or many, get the "
                     "same list and output folder, and each another i (docs/many_machines.rst)", expert=True)
    resume: bool = opt(False, "skip the tomograms that the manifests in the output folder list as done with the same "
                       "model and options")


@dataclasses.dataclass(frozen=True)
class SimulateOptions(Options):
    """Options of ``deepetpicker simulate``."""

    maps: Tuple[str, ...] = opt((), "density maps (MRC) to use as particles instead of the built-in phantoms")
    phantoms: Tuple[str, ...] = opt((), "built-in phantoms to use, default: all of them")
    n: int = opt(3, "number of tomograms", check=at_least(1))
    shape: Tuple[int, ...] = opt((96, 192, 192), "tomogram shape z,y,x", unit="voxels",
                                 check=lambda v: None if len(v) == 3 and min(v) >= 16 else "three numbers >= 16")
    voxel_size: float = opt(10.0, "voxel size", unit="angstrom", check=above(0))
    particles: int = opt(60, "particles per tomogram, shared among the classes", check=at_least(0))
    snr: float = opt(0.1, "signal-to-noise variance ratio of each projection image", check=above(0))
    seed: int = opt(0, "seed of everything random", check=at_least(0))
    tilt_range: float = opt(60.0, "largest tilt angle", unit="degrees", check=between(10, 90))
    tilt_step: float = opt(3.0, "tilt increment", unit="degrees", check=between(0.1, 30))
    defocus: float = opt(3.0, "defocus", unit="micrometres", check=between(0, 20))
    gold: int = opt(4, "gold beads per tomogram", check=at_least(0))
    membranes: int = opt(1, "vesicles per tomogram", check=at_least(0))
    prefix: str = opt("tomo", "start of the file names")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(Options):
    """Options of ``deepetpicker evaluate``."""

    rule: str = opt("auto", "when a pick hits: inside the instance mask (SHREC) or within a distance; auto takes "
                    "the mask where NAME_instances.mrc lies beside the truth", choices=("auto", "mask", "distance"))
    radius_angstrom: float = opt(0.0, "distance rule: radius; 0 takes half of each class's diameter",
                                 unit="angstrom", check=at_least(0))
    threshold: float = opt(0.0, "picks with a lower score are ignored", check=between(0, 1))
    beta: float = opt(4.0, "weight of recall in F-beta", check=above(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 reads it from the headers or classes.json",
                            unit="angstrom", check=at_least(0))
    margin: float = opt(0.0, "true and picked particles closer than this to the border are left out",
                        unit="voxels", check=at_least(0), expert=True)


@dataclasses.dataclass(frozen=True)
class CompareOptions(Options):
    """Options of ``deepetpicker compare``."""

    radius_angstrom: float = opt(0.0, "picks at most this far apart are the same particle; about half its diameter",
                                 unit="angstrom", check=at_least(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms", unit="angstrom", check=at_least(0))
    same_class: bool = opt(False, "only picks of the same class can be the same particle")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of ``deepetpicker benchmark``."""

    shape: Tuple[int, ...] = opt((128, 256, 256), "shape z,y,x of the simulated tomogram", unit="voxels",
                                 check=lambda v: None if len(v) == 3 and min(v) >= 16 else "three numbers >= 16")
    repeats: int = opt(5, "times each algorithm runs, in turn", check=at_least(1))
    device: str = opt("auto", "where to compute", choices=DEVICES)
    precision: str = opt("auto", "our arithmetic; the published algorithm is timed in float32", choices=PRECISIONS)
