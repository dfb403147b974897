"""What each kind of study compares."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Sequence, Tuple

from deepetpicker.config import suggestion
from deepetpicker.errors import InputError

NETWORK, BLOBS, TEMPLATE, CLUSTERS = "network", "blobs", "template", "clusters"  # methods
ALL = "all"
NUMBERS = ("5", "10", "20", "40", ALL)
NOISES = ("0", "1", "2", "3")
SHIFTS = ("0", "0.3", "0.5", "0.7")
LABEL_SHAPES = {"tball": "truncated ball", "ball": "ball", "cubic": "cube"}
LABEL_DIAMETERS = (3, 5, 7, 9, 11)
TILE, BORDER = 64, 12  # of the ablation's scans, in voxels, so that only the overlap differs
NO_AUGMENTATION = {"mirror": False, "rotation": 0.0, "elastic": 0.0, "scaling": 0.0}
ADDED: Tuple[Tuple[str, str, str, Dict[str, Any]], ...] = (  # name, words, options of what, and without it
    ("residual", "residual sums", "train", {"residual": False}),
    ("coordinates", "coordinates", "train", {"coordinates": False}),
    ("pyramid", "image pyramid", "train", {"pyramid": False}),
    ("augmentation", "augmentation", "train", NO_AUGMENTATION),
    ("overlap", "overlap-tile", "pick", {"border": 0}),
    ("deduplication", "deduplication", "pick", {"min_distance_angstrom": 0.0}))


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the things that a study compares.

    Attributes
    ----------
    name : str
        Short and good for a file name; what ``--values`` calls it.
    title : str
        What tables and figures call it.
    method : str
        How it picks.
    train, pick : dict
        Options of ``train`` and ``pick`` that differ from those of the study.
    labels : int
        Number of labels it gets; 0 takes those of the study.
    noise : float
        Standard deviation of the noise added to every tomogram, in that of the tomogram.
    shift : float
        By how much every label is moved, in radii of its particle.
    value : float
        Where it stands on the axis of the figure; NaN for a category.
    """

    name: str
    title: str
    method: str = NETWORK
    train: Dict[str, Any] = dataclasses.field(default_factory=dict)
    pick: Dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: int = 0
    noise: float = 0.0
    shift: float = 0.0
    value: float = float("nan")

    @property
    def is_untrained(self) -> bool:
        """Whether it gives the same with every seed, as long as the labels are the same."""
        return self.method in (BLOBS, TEMPLATE)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the variants of a study depend on.

    Attributes
    ----------
    n_labels : int
        Labels that there are.
    n_classes : int
        Classes of particles.
    smallest_vox : float
        Diameter of the smallest class in working voxels.
    """

    n_labels: int
    n_classes: int
    smallest_vox: float


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of study.

    Attributes
    ----------
    question : str
        What it asks.
    axis : str
        What the values of its variants are; empty for categories.
    notes : str
        What a reader has to know of how it is done.
    make : callable
        The words of ``--values`` (none for the kind's own) and the facts to its variants.
    """

    question: str
    axis: str
    notes: str
    make: Callable[[Sequence[str], Facts], List[Variant]]


def _number(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return a variant per number of labels; numbers that there are not are left out."""
    every = facts.n_labels
    numbers = sorted({every if word == ALL else int(_number_of(word, whole=True)) for word in words or NUMBERS})
    if numbers[0] < facts.n_classes:
        raise InputError(f"values must give each of {facts.n_classes} classes a label, got {numbers[0]}")
    return [Variant(str(n), f"{n} labels" + (" (all)" if n == every else ""), labels=n, value=n)
            for n in numbers if n <= every]


def _noise(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return a variant per strength of added noise."""
    return [Variant(f"noise_{word}", f"noise {float(word):g}", noise=float(word), value=float(word))
            for word in sorted(words or NOISES, key=_number_of)]


def _shift(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return a variant per shift of the labels."""
    return [Variant(f"shift_{word}", f"off by {float(word):g} radii", shift=float(word), value=float(word))
            for word in sorted(words or SHIFTS, key=_number_of)]


def _labels(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return the shapes of a label with the diameter chosen for the particle, and the usual shape with others."""
    shapes = [Variant(shape, text, train={"label": shape}) for shape, text in LABEL_SHAPES.items()]
    sizes = [Variant(f"tball_{d}", f"truncated ball, {d} voxels", train={"label": "tball", "label_diameter": d})
             for d in LABEL_DIAMETERS if d <= facts.smallest_vox]
    return chosen([*shapes, *sizes], words)


def _ablation(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return the plain network and, one after the other, what is added to it: all of it is ours."""
    variants = []
    for n in range(len(ADDED) + 1):
        train: Dict[str, Any] = {}
        pick: Dict[str, Any] = {"tile": TILE, "border": BORDER}
        for _, _, what, without in ADDED[n:]:
            (train if what == "train" else pick).update(without)
        name, title = (ADDED[n - 1][0], f"+ {ADDED[n - 1][1]}") if n else ("plain", "plain 3D U-Net")
        variants.append(Variant(name, title, train=train, pick=pick))
    return chosen(variants, words)


def _peers(words: Sequence[str], facts: Facts) -> List[Variant]:
    """Return other ways to pick, and ours."""
    ball = max(3, 2 * int((facts.smallest_vox - 1) // 2) + 1)
    plain = {"residual": False, "coordinates": False, "pyramid": False, "activation": "relu", "label": "ball",
             "label_diameter": ball}
    return chosen([Variant("blobs", "difference of Gaussians", BLOBS),
                   Variant("template", "template matching", TEMPLATE),
                   Variant("unet_clusters", "plain 3D U-Net, clusters", CLUSTERS, train=plain),
                   Variant("published", "published recipe", train={"recipe": "published"}), Variant("ours", "ours")],
                  words)


def _number_of(word: str, whole: bool = False) -> float:
    """Return a word of ``--values`` as a number from 0 on, or a whole one from 1 on; raise InputError for another."""
    try:
        value = float(word)
        if value >= 0 and value != float("inf") and not (whole and (value != int(value) or value < 1)):
            return value
    except ValueError:
        pass
    raise InputError(f"values must be {'whole numbers from 1' if whole else 'numbers from 0'}, separated by commas, "
                     f"got {word!r}")


def chosen(variants: Sequence[Variant], words: Sequence[str]) -> List[Variant]:
    """Return the variants that are named, in their own order; all of them when none is.

    Parameters
    ----------
    variants : sequence of Variant
        What there is.
    words : sequence of str
        Names.

    Raises
    ------
    InputError
        For a name that no variant has.
    """
    names = [variant.name for variant in variants]
    for word in words:
        if word not in names:
            raise InputError(f"values must be among {', '.join(names)}, got {word!r}{suggestion(word, names)}")
    return [variant for variant in variants if not words or variant.name in words]


KINDS: Dict[str, Kind] = {
    "labels": Kind(
        "Which shape and size should the weak label have?", "",
        "Where no diameter is said, it is chosen for each class (0.45 of the particle's); else all classes have the "
        "same, in working voxels.", _labels),
    "ablation": Kind(
        "What does each part of the method add?", "",
        "From the top down a part is added, and all before it are kept. Tomograms are scanned with tiles of "
        f"{TILE} voxels, of which the overlap-tile scan discards {BORDER} on each inner side. Overlap and "
        "deduplication matter to picking alone: the last three variants share their model, and its seconds.",
        _ablation),
    "number": Kind(
        "How many labels does a model need?", "labels",
        "Labels are drawn by the seed, of all classes in turn; fewer are among the more. Where some particles have no "
        "label, what the network takes for one far from any label is left out of the loss (--unannotated unknown "
        "--self-training no).",
        _number),
    "noise": Kind(
        "How much noise does picking stand?", "added noise [deviations of the tomogram]",
        "Noise with the spectrum of the tomogram itself, missing wedge included, is added to every tomogram, labelled "
        "or scored; its standard deviation is given in that of the tomogram. It is the same noise, scaled.", _noise),
    "shift": Kind(
        "How exact must labels be?", "shift of the labels [particle radii]",
        "Every label is moved by the same share of its particle's radius, each in its own direction, which is the same "
        "for all shifts.", _shift),
    "peers": Kind(
        "How good are other ways to pick, and ours?", "",
        "Difference of Gaussians: at the size of each class, dark or bright as the labels are; the larger class "
        "has the first choice, of one size that of the higher threshold. Template matching: locally normalised "
        "cross-correlation with each class's map in many orientations behind the missing wedge or, without maps, "
        "with the mean of its labels as they lie. Plain 3D U-Net: without residual sums, coordinates and pyramid,"
        " trained on balls as large as the smallest class, its voxels clustered by mean shift. These three get "
        "the score threshold of each class that is best for the labels; published recipe and ours that of their "
        "own training, and they pick alike. For a method without training, seconds of training are those of "
        "finding its threshold, and it is computed once: with the same labels a seed changes nothing.",
        _peers),
}
