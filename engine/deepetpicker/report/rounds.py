"""The rounds of a model: models that went on from each other, side by side, for windows and pages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import textwrap
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from deepetpicker.errors import DeepETPickerError
from deepetpicker.io.atomic import whole
from deepetpicker.io.modelcard import ModelCard, read_card
from deepetpicker.report.charts import CYCLE, GREY, INK, chart, finish as finish_axes, plain, say_nothing

MOST = 8  # rounds that have room side by side: the newest
PANELS = ("f1", "threshold", "labels")
NAME_LETTERS = 18


@dataclasses.dataclass(frozen=True)
class Round:
    """One of the models that went on from each other.

    Attributes
    ----------
    number : int
        The first is 1.
    name : str
        What made it, or its file.
    f1 : float or None
        Mean F1 of its picks on its held-out part; None where that says little, as particles lack an annotation.
    before, after : float or None
        F1 of the model it started from, and its own, on the same held-out particles; of what is certain alone, each at
        its best threshold, where particles lack an annotation.
    n_true : int
        Number of these.
    thresholds : dict of str to float
        Score threshold of each class by its name.
    particles, negatives, boxes : int or None
        What it was trained with, held-out particles too; None when not known.
    is_running : bool
        It is being made.
    recall : float or None
        Mean recall on its held-out part, at the thresholds that it picks with.
    is_partial : bool
        Particles lack an annotation: its F1 is of what is certain.
    """

    number: int
    name: str
    f1: Optional[float] = None
    before: Optional[float] = None
    after: Optional[float] = None
    n_true: int = 0
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    particles: Optional[int] = None
    negatives: int = 0
    boxes: int = 0
    is_running: bool = False
    recall: Optional[float] = None
    is_partial: bool = False

    @classmethod
    def of(cls, card: ModelCard, name: str) -> Round:
        """Return what the card of a model says of its round."""
        training, items = card.training, card.training.get("items") or []
        picks = [one for one in training.get("picks") or [] if one.get("n_true")]
        f1, recall = (sum(float(one[key]) for one in picks) / len(picks) if picks else None for key in ("f1", "recall"))
        origin = training.get("started_from") or {}
        names = {c.id: c.name for c in card.classes}
        return cls(int(training.get("round", 1)), name, None if card.is_partial else f1, origin.get("f1_before"),
                   origin.get("f1_after"),
                   int(origin.get("n_true") or sum(int(one["n_true"]) for one in picks)),
                   {names[i]: float(t) for i, t in card.thresholds.items()},
                   sum(int(i.get("particles", 0)) for i in items) if items else None,
                   sum(int(i.get("negatives", 0)) for i in items), sum(int(i.get("regions", 0)) for i in items),
                   recall=recall, is_partial=card.is_partial)

    def __str__(self) -> str:
        if self.is_running:
            return f"round {self.number} ({self.name}): running"
        words = [] if self.particles is None else [f"{self.particles} particles"]
        words += [f"{n} {what}{'' if n == 1 else end}" for n, what, end in (
            (self.negatives, "without one", ""), (self.boxes, "complete box", "es")) if n]
        held = f"{self.n_true} held-out particle{'' if self.n_true == 1 else 's'}"
        if self.is_partial and self.recall is not None:
            words.append(f"recall {self.recall:.2f} on {held}")
        if self.before is not None and self.after is not None:
            certain = " of what is certain" if self.is_partial else ""
            words.append(f"F1{certain} {self.before:.2f} -> {self.after:.2f} on the same {held}")
        elif self.f1 is not None:
            words.append(f"F1 {self.f1:.2f} on {held}")
        return f"round {self.number} ({self.name}): {', '.join(words) or 'nothing more is known'}"


def origin_of(card: ModelCard) -> Optional[Round]:
    """Return what a card says of the model that it went on from; None when it began anew."""
    facts: Dict[str, Any] = card.training.get("started_from") or {}
    return Round(int(facts.get("round", 1)), str(facts.get("file", "?"))) if facts else None


def rounds_of_file(path: pathlib.Path, names: Optional[Mapping[str, str]] = None) -> List[Round]:
    """Return the rounds that lead to a model file, oldest first.

    The models before it are looked for in its folder and where the manifest of its training says, by the digest that
    its card has of the file. Of one that is not there, what the card says of it is the first. None where there is no
    such file.

    Parameters
    ----------
    path : pathlib.Path
        The model file.
    names : mapping of str to str, optional
        What model files, by their paths, are called; others have the names of their files and folders.
    """
    files: List[Tuple[pathlib.Path, ModelCard]] = []
    first: List[Round] = []
    model: Optional[pathlib.Path] = path if path.is_file() else None
    while model is not None:
        card, before = read_card(model), model
        files.append((model, card))
        model = _model_before(before, card.training.get("started_from") or {})
        origin = origin_of(card)
        if origin is not None and model is None:
            first = [origin]
    called = [name_of(file, names or {}) or other for (file, _), other in zip(files, told_apart([f for f, _ in files]))]
    return first + [Round.of(card, name) for name, (_, card) in zip(called, files)][::-1]


def name_of(file: Union[str, pathlib.Path], names: Mapping[str, str]) -> str:
    """Return what a model file is called in names by path, however the path is written; empty when it is not there."""
    real = os.path.realpath(file)
    return next((name for path, name in names.items() if os.path.realpath(path) == real), "")


def told_apart(files: Sequence[pathlib.Path]) -> List[str]:
    """Return names of files without their suffix; where some have the same, the folders in which they differ."""
    names = [file.stem for file in files]
    if len(set(names)) == len(names):
        return names
    ways = [(*file.absolute().parent.parts, file.stem) for file in files]
    common = next((at for at, parts in enumerate(zip(*ways)) if len(set(parts)) > 1), min(map(len, ways)) - 1)
    firsts = [way[common] for way in ways]
    return firsts if len(set(firsts)) == len(firsts) else ["/".join(way[common:]) for way in ways]


def _model_before(path: pathlib.Path, origin: Mapping[str, Any]) -> Optional[pathlib.Path]:
    """Return the file that a model went on from, beside it or where its training found it; None where there is none."""
    if not origin.get("sha256"):
        return None
    named = path.parent / os.path.basename(str(origin.get("file")))  # in this folder, whatever the card says
    others = [one for one in whole(path.parent.glob(f"*{path.suffix}")) if one not in (path, named)]
    for one in (named, *_start_of_run(path), *others):
        try:
            if one != path and hashlib.sha256(one.read_bytes()).hexdigest() == origin["sha256"]:
                read_card(one)
                return one
        except (OSError, ValueError, DeepETPickerError):  # it is gone, or no model: it cannot be shown
            continue
    return None


def _start_of_run(path: pathlib.Path) -> List[pathlib.Path]:
    """Return the model file that the training of a model was told to start from, where its manifest says and it is."""
    try:
        content = json.loads(path.with_name(f"{path.stem}_run").joinpath("manifest.json").read_text("utf-8"))
        named = content["options"]["init"]
        near = [pathlib.Path(), *path.absolute().parents]  # as written, or below a folder that holds both
        return [base / named for base in near if named.endswith(path.suffix) and (base / named).is_file()][:1]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # there is no manifest that can be read
        return []


def rounds_figure(rounds: Sequence[Round], panels: Sequence[str] = PANELS) -> Any:
    """Return rounds side by side, the oldest on the left, as a matplotlib figure.

    Parameters
    ----------
    rounds : sequence of Round
        The newest of them are shown.
    panels : sequence of str
        From left to right: ``"f1"``, ``"threshold"``, ``"labels"``.
    """
    figure, cells = chart(len(panels))
    shown = list(rounds)[-MOST:]
    certain = ", of what is certain" if any(one.is_partial for one in shown) else ""
    draw = {"f1": (_draw_f1, f"F1 on held-out particles{certain}"), "threshold": (_draw_thresholds, "score threshold"),
            "labels": (_draw_labels, "labels")}
    for panel, axes in zip(panels, cells):
        draw_it, what = draw[panel]
        if not draw_it(axes, shown):
            say_nothing(axes, "not known")
            continue
        finish_axes(axes, "", what, legend=bool(axes.get_legend_handles_labels()[0]))
        axes.set_xticks(range(len(shown)), [f"{one.number}: {_short(one.name)}" + ("\n(running)" if one.is_running
                                                                                  else "") for one in shown],
                        rotation=20, ha="right", fontsize=8)
        axes.set_xlim(-0.6, len(shown) - 0.4)
        if panel == "labels":
            axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
        else:
            axes.set_ylim(0, 1.05)
            if axes.get_legend():  # above, where no point can lie
                axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=3, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def _draw_thresholds(axes: Any, rounds: Sequence[Round]) -> bool:
    """Draw the thresholds of each class; return whether there are any."""
    names = sorted({name for one in rounds for name in one.thresholds})
    for name, (colour, dashes) in zip(names, CYCLE * (1 + len(names) // len(CYCLE))):
        points = [(x, one.thresholds[name]) for x, one in enumerate(rounds) if name in one.thresholds]
        axes.plot(*zip(*points), color=colour, linestyle=dashes, marker="o", markersize=5, label=plain(name))
    return bool(names)


def _draw_labels(axes: Any, rounds: Sequence[Round]) -> bool:
    """Draw how many labels each round had; return whether that is known."""
    for word, colour, hatch, below, values in _stacks(rounds):
        axes.bar(range(len(rounds)), values, 0.6, bottom=below, color=colour, hatch=hatch, edgecolor="white",
                 label=word)
    return any(one.particles is not None for one in rounds)


def _draw_f1(axes: Any, rounds: Sequence[Round]) -> bool:
    """Draw F1 of rounds, and from which one on the same particles each of them went on; return True."""
    own = [(x, one.f1 if one.after is None else one.after) for x, one in enumerate(rounds)]
    known = [(x, value) for x, value in own if value is not None]
    if known:
        axes.plot(*zip(*known), color=CYCLE[0][0], linestyle="none", marker="o", markersize=7, label="this round",
                  zorder=3)
    earlier = [(x, one.before, one.after) for x, one in enumerate(rounds) if one.before is not None]
    if earlier:
        axes.plot([x for x, _, _ in earlier], [b for _, b, _ in earlier], color=GREY, linestyle="none", marker="o",
                  markerfacecolor="none", markeredgewidth=1.5, markersize=10,
                  label="the model it started from,\nsame particles")
    for x, before, after in earlier:
        if after is not None:
            axes.annotate("", (x, after), (x, before), arrowprops={"arrowstyle": "->", "color": GREY})
    for x, value in known:
        axes.annotate(f"{value:.2f}", (x, value), (9, -3), textcoords="offset points", fontsize=8, color=INK)
    return True


def _stacks(rounds: Sequence[Round]) -> List[Tuple[str, str, str, List[int], List[int]]]:
    """Return name, colour, hatch, foot and height of the bars of labels."""
    particles = [one.particles or 0 for one in rounds]
    found = [("particles", CYCLE[2][0], "", [0] * len(rounds), particles)]
    if any(one.negatives for one in rounds):
        found.append(("places without one", CYCLE[1][0], "//", particles, [one.negatives for one in rounds]))
    return found


def _short(name: str) -> str:
    """Return a name as matplotlib shows it, in at most two lines, cut where it is longer."""
    lines = textwrap.wrap(name, NAME_LETTERS, max_lines=2, placeholder="\u2026") or [""]
    return plain("\n".join(line if len(line) <= NAME_LETTERS else line[:NAME_LETTERS - 1] + "\u2026" for line in lines))
