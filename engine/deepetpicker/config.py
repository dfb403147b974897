"""Options of every command, written once.

Each command has one frozen dataclass. Its fields are made by :func:`opt`, which holds the default, the help text,
the unit and the check. The command line (:func:`add_arguments`), Scipion's forms and the manifest are all made from
these fields, so that a default or a help text exists in one place. ``options.py`` has the machinery.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional, Tuple, Union

from deepetpicker.options import (
    Options,
    above,
    add_arguments,
    all_above,
    at_least,
    between,
    from_arguments,
    from_mapping,
    multiple_of,
    numbers,
    opt,
    read_params,
    suggestion,
)
from deepetpicker.perclass import problem

__all__ = ["Options", "add_arguments", "from_arguments", "from_mapping", "numbers", "opt", "read_params", "suggestion"]

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
QUEUES = ("slurm", "pbs", "sge", "lsf")


def _is_cluster(value: str) -> Optional[str]:
    """Return what was expected when a value names no cluster."""
    if value in ("", "local", *QUEUES) or re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+", value):
        return None
    return (f"local, {', '.join(QUEUES)} or the address of a scheduler, such as tls://host:8786"
            + suggestion(value, ("local", *QUEUES)))


def _is_word(value: str) -> Optional[str]:
    """Return what was expected when a value is no name of a queue or account."""
    return None if re.fullmatch(r"[\w.,@:+/-]*", value) else "a name of letters, digits and . , _ @ : + / -"


def _is_line(value: str) -> Optional[str]:
    """Return what was expected when a value is not one line."""
    return None if value.isprintable() else "one line"


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
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 takes that of classes.json or the header",
                            unit="angstrom", check=at_least(0))
    validation: Tuple[str, ...] = opt(
        (), "names of the tomograms kept for validation; default: about a fifth of them, so that all classes are on "
        "both sides; a slab of one where there are too few")
    recipe: str = opt("default", "what trains where the options below are left to it: 'default' is ours, made for "
                      "minutes; 'published' is that of Liu et al. 2024; 'refine' goes on from a model",
                      choices=("default", "published", "refine"))
    minutes: float = opt(0.0, "time that training may take: the number of epochs is fitted to it; 0 sets none",
                         unit="minutes", check=at_least(0))
    epochs: int = opt(0, "passes over the patches; 0 leaves it to the recipe, or to --minutes", check=at_least(0))
    patch: int = opt(0, "edge of the cubic training patch; 0 leaves it to the recipe", unit="voxels",
                     check=lambda v: None if v == 0 else multiple_of(8, 32)(v))
    batch: int = opt(0, "patches per optimiser step; 0 leaves it to the recipe", check=at_least(0))
    init: str = opt("", "what to start from: a model file (warm start), 'generic' (the model that comes with the "
                    "package and knows particles in general) or 'none' (chance); default: the recipe's")
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
        "auto", "what voxels far from any annotation are: 'background' when every particle was annotated, "
        "'unknown' when many were not (what the network itself takes for a particle is then left out of the loss); "
        "'auto' is unknown outside the boxes of complete annotation in what was annotated by hand here, and wherever "
        "there are such boxes, else background", choices=("auto", "background", "unknown"))
    self_training: str = opt(
        "auto", "train twice: what a short first training surely finds where nothing is annotated become labels of the "
        "second: 'yes', 'no', or 'auto': as the recipe does where many particles are not annotated (the default recipe "
        "does)", choices=("auto", "yes", "no"))
    refit: str = opt(
        "auto", "at the end go on with what was held out, when it has served to judge the training, as labels, too: "
        "'yes', 'no', or 'auto': as the recipe does (the default one does), but not with --epochs, --validation, or "
        "where many particles are not annotated", choices=("auto", "yes", "no"))
    check: bool = opt(True, "look before the training whether the coordinates mark anything in their tomograms")
    background_fraction: float = opt(0.1, "share of the patches drawn anywhere instead of around a particle",
                                     check=between(0, 0.9))
    negative_fraction: float = opt(0.2, "largest share of the patches drawn around places without a particle, where "
                                   "there are any", check=between(0, 0.9), expert=True)
    patches_per_epoch: int = opt(0, "patches in an epoch; 0 means one per annotated particle, at least 64",
                                 check=at_least(0))
    learning_rate: float = opt(0.0, "peak of the one-cycle schedule; 0 leaves it to the recipe", check=at_least(0),
                               expert=True)
    weight_decay: float = opt(0.01, "AdamW weight decay", check=at_least(0), expert=True)
    cross_entropy: float = opt(-1.0, "weight of the cross-entropy added to the Dice loss, 0 for none; negative leaves "
                               "it to the recipe", check=at_least(-1), expert=True)
    balance: float = opt(-1.0, "weight of a class's voxels in the cross-entropy: background over class voxels to this "
                         "power, 0 weighs all voxels alike; negative leaves it to the recipe",
                         check=lambda v: None if v < 0 else between(0, 1)(v), expert=True)
    prior: float = opt(-1.0, "probability of each class that an untrained network gives everywhere, 0 leaves that to "
                       "chance; negative leaves it to the recipe",
                       check=lambda v: None if v < 0 else between(0, 0.5)(v), expert=True)
    averaging: float = opt(-1.0, "share of the old in the running mean of the weights, which picks: 0.98 is a mean of "
                           "about 50 steps, 0 keeps none; negative leaves it to the recipe",
                           check=lambda v: None if v < 0 else between(0, 0.9999)(v), expert=True)
    select: str = opt("picks", "what chooses the kept epoch: the picks on the held-out part (mean F1 of the classes; "
                      "of those as good, the lowest loss) or its voxels (F_alpha), as published",
                      choices=("picks", "voxels"), expert=True)
    alpha: float = opt(3.0, "weight of recall in the F_alpha of voxels", check=above(0), expert=True)
    jitter: float = opt(0.2, "largest random shift of a patch, as a share of its edge", check=between(0, 0.5),
                        expert=True)
    mirror: bool = opt(True, "augment by mirroring (it also mirrors handedness)", expert=True)
    rotation: float = opt(15.0, "largest random rotation about each axis; 0 switches it off", unit="degrees",
                          check=between(0, 180), expert=True)
    elastic: float = opt(0.05, "largest elastic deformation as a share of the patch; 0 switches it off",
                         check=between(0, 0.3), expert=True)
    scaling: float = opt(0.05, "largest random change of scale; 0 switches it off", check=between(0, 0.5),
                         expert=True)
    patience: int = opt(-1, "validations without better picks after which training comes to its end; 0 never ends it "
                        "early, negative leaves it to the recipe", check=at_least(-1), expert=True)
    validate_every: int = opt(0, "epochs between validations; 0 leaves it to the recipe", check=at_least(0),
                              expert=True)
    validation_tiles: int = opt(64, "largest number of tiles scanned in one validation", check=at_least(1),
                                expert=True)
    workers: int = opt(0, "processes that prepare patches; 0: with a GPU one per core, at most 8, else the training "
                       "process itself", check=at_least(0), expert=True)
    devices: int = opt(1, "GPUs (or CPU processes) to train on", check=at_least(1), expert=True)
    nodes: int = opt(1, "machines to train on, under torchrun or SLURM", check=at_least(1), expert=True)
    precision: str = opt("auto", "arithmetic; auto takes bfloat16 where the hardware has it", choices=PRECISIONS,
                         expert=True)
    residual: bool = opt(True, NetworkOptions.__dataclass_fields__["residual"].metadata["help"], expert=True)
    coordinates: bool = opt(True, NetworkOptions.__dataclass_fields__["coordinates"].metadata["help"], expert=True)
    pyramid: bool = opt(True, NetworkOptions.__dataclass_fields__["pyramid"].metadata["help"], expert=True)
    activation: str = opt("elu", NetworkOptions.__dataclass_fields__["activation"].metadata["help"],
                          choices=("elu", "relu", "leaky_relu"), expert=True)
    widths: Tuple[int, ...] = opt((), "feature channels of each level of the network, finest first; default: the "
                                  "recipe's", unit="channels", check=all_above(0), expert=True)
    max_resampling: float = opt(
        4.0, "a tomogram is made at most so many times coarser; more looks like a wrong voxel size and is refused",
        check=at_least(1), expert=True)
    resume: bool = opt(True, "go on from the last epoch of an interrupted run with the same options")


@dataclasses.dataclass(frozen=True)
class RefineOptions(TrainOptions):
    """Options of ``deepetpicker refine``: those of ``train`` with other defaults."""

    recipe: str = opt("refine", "what trains where the options below are left to it", choices=("refine",))
    unannotated: str = opt(
        "unknown", "what voxels far from any annotation are: 'unknown' leaves out of the loss what the network itself "
        "takes for a particle there; 'background' when every particle was annotated; 'auto' is what train's is",
        choices=("auto", "background", "unknown"))


@dataclasses.dataclass(frozen=True)
class PickOptions(Options):
    """Options of ``deepetpicker pick``."""

    threshold: Union[float, str] = opt(
        -1.0, "lowest score (the probability of being right, where the model is calibrated) written to the pick "
        "tables: one number, or one per class id or name such as 1:0.4,2:0.6; negative takes the model's own",
        check=lambda v: problem(v, -1, 1), per_class=True)
    fdr: float = opt(0.0, "share of false picks that is accepted: the threshold of each class and tomogram is the "
                     "lowest that keeps the estimated false-discovery rate at or below it; 0 picks by the threshold "
                     "alone", check=between(0, 0.5))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 takes that of classes.json or the header",
                            unit="angstrom", check=at_least(0))
    save_map: bool = opt(False, "also write the probability of each class as NAME_probability_CLASS.mrc")
    mask: str = opt("", "MRC mask, or folder of NAME.mrc masks: picks outside voxels > 0 are dropped")
    device: str = opt("auto", "where to compute", choices=DEVICES)
    mirrors: int = opt(0, "looks at each tile: as it is (1), and mirrored along x (2), y (4) and z (8); their mean "
                       "tells classes apart and centres better, and takes so many times as long; 0: 4 where the model "
                       "has several classes or learnt from a part of the particles, else 1",
                       check=lambda v: None if v in (0, 1, 2, 4, 8) else "0, 1, 2, 4 or 8")
    faint: str = opt("auto", "picks that stand out of the tomogram less than half as far as the faintest annotated "
                     "particle: keep or drop them; auto drops them where the model learnt from a part of the "
                     "particles", choices=("auto", "keep", "drop"))
    max_picks: int = opt(0, "keep at most so many picks per class and tomogram, best first; 0 keeps all",
                         check=at_least(0))
    min_distance_angstrom: Union[float, str] = opt(
        -1.0, "picks closer than this are one particle: one number, or one per class id or name such as 1:80,2:50; "
        "negative takes what the nearest pairs of the training say, else half the diameter", unit="angstrom",
        check=lambda v: problem(v, -1), per_class=True)
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
    max_resampling: float = opt(
        4.0, "a tomogram is made at most so many times coarser; more looks like a wrong voxel size and is refused",
        check=at_least(1), expert=True)
    floor: float = opt(0.1, "candidates whose peak is lower are not kept at all (0.75 is that of an ideal label)",
                       check=between(0.001, 0.9), expert=True)
    precision: str = opt("auto", "arithmetic; auto takes bfloat16 where the hardware has it", choices=PRECISIONS,
                         expert=True)
    shard: str = opt("", "i/n picks every n-th tomogram from the i-th on: n processes, on one machine or many, get the "
                     "same list and output folder, and each another i (docs/many_machines.rst)", expert=True)
    resume: bool = opt(False, "skip the tomograms that were picked into the output folder before, from the same files "
                       "with the same model and options")


@dataclasses.dataclass(frozen=True)
class ClusterOptions(Options):
    """Options of ``deepetpicker pick`` that say which workers pick; they do not change what is found."""

    cluster: str = opt("", "pick on many workers: 'local' (processes on this machine), 'slurm', 'pbs', 'sge' or "
                       "'lsf' (jobs), or the address of a dask scheduler such as tls://host:8786; needs "
                       "deepetpicker[cluster] (docs/clusters.rst)", check=_is_cluster)
    workers: int = opt(0, "most workers at once, a tomogram each; 0: locally one per GPU, on the CPU as many as there "
                       "are cores for, of jobs 8", check=at_least(0))
    threads: int = opt(4, "processor cores of each worker", check=at_least(1))
    worker_memory: float = opt(16.0, "memory of each job", unit="GB", check=above(0))
    hours: float = opt(4.0, "time limit of each job; a tomogram that it cuts off is picked again", unit="hours",
                       check=above(0))
    queue: str = opt("", "queue or partition of the jobs", check=_is_word)
    account: str = opt("", "account or project that the jobs are charged to", check=_is_word)
    directives: str = opt("", "further directives of the queue, separated by semicolons, such as --gres=gpu:a100:1; "
                          "without a GPU among them one is asked for, but with --device cpu", check=_is_line)


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
class ReportOptions(Options):
    """Options of ``deepetpicker report``."""

    crops: int = opt(12, "crops in each group of a contact sheet; 0 leaves pictures of tomograms out",
                     check=at_least(0))
    anonymous: bool = opt(False, "take folders, user and host names out of the page, so that it can be shared")


@dataclasses.dataclass(frozen=True)
class CompareOptions(Options):
    """Options of ``deepetpicker compare``."""

    radius_angstrom: float = opt(0.0, "picks at most this far apart are the same particle; about half its diameter",
                                 unit="angstrom", check=at_least(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms", unit="angstrom", check=at_least(0))
    same_class: bool = opt(False, "only picks of the same class can be the same particle")
    shape: Tuple[int, ...] = opt((), "tomogram shape z,y,x, for files that count from its centre (RELION 5)",
                                 unit="voxels", check=lambda v: None if len(v) in (0, 3) and all(n > 0 for n in v) else
                                 "three numbers > 0")
    tomogram: str = opt("", "name of the tomogram in files that list several (STAR)")


@dataclasses.dataclass(frozen=True)
class CheckOptions(Options):
    """Options of ``deepetpicker check``."""

    diameter_angstrom: Tuple[float, ...] = opt(
        (), "particle diameter, one for all classes or one per class in the order of the class ids; default: "
        "what DIR/classes.json says", unit="angstrom", check=all_above(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 takes that of classes.json or the header",
                            unit="angstrom", check=at_least(0))


@dataclasses.dataclass(frozen=True)
class ProposeOptions(Options):
    """Options of ``deepetpicker propose``."""

    diameter_angstrom: float = opt(0.0, "particle diameter", unit="angstrom", check=at_least(0))
    method: str = opt("generic", "'generic': the model that comes with the package and knows particles in general; "
                      "'blob': a difference of Gaussians, in a second; 'map': the particle's own density map is "
                      "simulated and learnt, in minutes", choices=("generic", "blob", "map"))
    map: str = opt("", "density map of the particle (MRC, bright), for the method 'map'")
    minutes: float = opt(4.0, "training on simulated tomograms, for the method 'map'", unit="minutes", check=above(0))
    seed: int = opt(0, "seed of everything random, for the method 'map'", check=at_least(0), expert=True)
    most: int = opt(200, "candidates per tomogram, best first: about twice as many as there may be particles",
                    check=at_least(1))
    contrast: str = opt("auto", "particles are darker or brighter than what surrounds them; auto takes what stands out "
                        "more in each tomogram", choices=("auto", "dark", "bright"))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 reads it from each header", unit="angstrom",
                            check=at_least(0))


@dataclasses.dataclass(frozen=True)
class StudyOptions(Options):
    """Options of ``deepetpicker study``."""

    seeds: int = opt(0, "times that every variant is computed, each with a seed of its own; 0 takes 3, with --quick 1",
                     check=at_least(0))
    minutes: float = opt(0.0, "time of every training; 0 lets every training see the same number of voxels instead",
                         unit="minutes", check=at_least(0))
    megavoxels: float = opt(0.0, "what every training sees: steps x patches x their voxels; 0 takes 30, with --quick "
                            "0.2", unit="million voxels", check=at_least(0))
    values: Tuple[str, ...] = opt((), "what to compare instead of all: numbers (number, noise, shift) or names of "
                                  "variants, as in study.csv")
    labels: int = opt(0, "labels that every variant gets, drawn by the seed from the labelled tomograms; 0 takes all",
                      check=at_least(0))
    test: Tuple[str, ...] = opt((), "names of the tomograms that are scored, the others being labelled; default: the "
                                "last half")
    diameter_angstrom: Tuple[float, ...] = opt(
        (), "particle diameter, one for all classes or one per class in the order of the class ids; default: "
        "what DIR/classes.json says", unit="angstrom", check=all_above(0))
    voxel_size: float = opt(0.0, "voxel size of the tomograms; 0 takes that of classes.json or the header",
                            unit="angstrom", check=at_least(0))
    maps: Tuple[str, ...] = opt((), "peers: density maps (MRC) of the classes in the order of their ids, for template "
                                "matching; default: of simulated tomograms their own, else the mean of the labels")
    orientations: int = opt(300, "peers: orientations of a map that are tried", check=at_least(1), expert=True)
    tilt_range: float = opt(60.0, "peers: largest tilt angle, about the y axis, for the missing wedge of maps",
                            unit="degrees", check=between(10, 90), expert=True)
    device: str = opt("auto", "where to compute", choices=DEVICES)
    seed: int = opt(0, "first of the seeds", check=at_least(0))
    quick: bool = opt(False, "a trial run in seconds, with a tiny network and, without data, tiny tomograms: its "
                      "figures mean nothing")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of ``deepetpicker benchmark``."""

    shape: Tuple[int, ...] = opt((128, 256, 256), "shape z,y,x of the simulated tomogram", unit="voxels",
                                 check=lambda v: None if len(v) == 3 and min(v) >= 16 else "three numbers >= 16")
    repeats: int = opt(5, "times each algorithm runs, in turn", check=at_least(1))
    device: str = opt("auto", "where to compute", choices=DEVICES)
    precision: str = opt("auto", "our arithmetic; the published algorithm is timed in float32", choices=PRECISIONS)
