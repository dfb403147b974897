"""Which tomograms the model behind some picks has seen before: scores on those say nothing about new ones."""

from __future__ import annotations

import dataclasses
from typing import Any, FrozenSet, Iterable, List, Optional, Tuple

from deepetpicker.errors import DeepETPickerError
from deepetpicker_plugin.objects import DeepETPickerModel

LEAVE_OUT, SCORE = 0, 1
CHOICES = ("leave them out", "score them too")
SOURCES = ("inputCoordinates", "inputFirst")  # where protocols that choose among picks, or move them, name them


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model has seen.

    Attributes
    ----------
    training : frozenset of str
        tsIds of the tomograms whose particles changed its weights.
    validation : frozenset of str
        Those that only chose its epoch and threshold.
    isOurs : bool
        Whether it was trained in the project, where a tsId is always the same tomogram.
    """

    training: FrozenSet[str] = frozenset()
    validation: FrozenSet[str] = frozenset()
    isOurs: bool = False

    def leftOut(self, choice: int, tsIds: Iterable[str]) -> List[str]:
        """Return those of some tomograms that an evaluation leaves out; ``choice`` is one of ``CHOICES``."""
        return sorted(self.training & set(tsIds)) if self.isOurs and choice == LEAVE_OUT else []

    def role(self, tsId: str) -> str:
        """Return what a tomogram was to the model: ``training``, ``validation`` or nothing that is known."""
        if not self.isOurs:
            return ""
        return "training" if tsId in self.training else "validation" if tsId in self.validation else ""

    def lines(self, choice: int, tsIds: Iterable[str]) -> List[str]:
        """Return what the user must know of the scores of some tomograms."""
        tsIds = set(tsIds)
        trained, chose = sorted(self.training & tsIds), sorted((self.validation - self.training) & tsIds)
        if not self.isOurs:
            known = sorted({*trained, *chose})
            return [f"The model, which was not trained in this project, has seen tomograms of the names "
                    f"{some(known)}: if these are the same, the figures are better than on new tomograms."
                    ] if known else []
        lines = []
        if trained and choice == LEAVE_OUT:
            lines.append(f"Left out, because the model was trained on them: {some(trained)}")
        elif trained:
            lines.append(f"*The model was trained on {len(trained)} of the {len(tsIds)} tomograms that are scored* "
                         f"({some(trained)}): the figures are better than on new tomograms.")
        if chose:
            lines.append(f"{some(chose)} chose the model's epoch and threshold: the figures are a little better than "
                         "on new tomograms.")
        return lines


def seenBy(coordinates: Any, project: Any) -> Seen:
    """Return what the model behind some picks has seen; nothing where no model is known."""
    model, isOurs = modelOf(coordinates, project)
    if model is None:
        return Seen()
    try:
        training = model.getCard().training
    except DeepETPickerError:
        return Seen()
    return Seen(frozenset(training.get("tomograms") or ()), frozenset(training.get("validation") or ()), isOurs)


def modelOf(coordinates: Any, project: Any) -> Tuple[Optional[DeepETPickerModel], bool]:
    """Return the model that made some picks, and whether it was trained in the project.

    Picks are followed through the protocols that choose among them, compare them or move them to other tomograms.
    """
    known = set()
    while coordinates is not None and project is not None and coordinates.getObjParentId() is not None:
        number = int(coordinates.getObjParentId())
        if number in known:
            break
        known.add(number)
        maker = project.getProtocol(number)
        model = maker.inputModel.get() if hasattr(maker, "inputModel") else None
        if isinstance(model, DeepETPickerModel):
            trainer = project.getProtocol(int(model.getObjParentId())) if model.getObjParentId() is not None else None
            return model, hasattr(trainer, "initModel")
        coordinates = next((getattr(maker, name).get() for name in SOURCES if hasattr(maker, name)), None)
    return None, False


def some(names: List[str]) -> str:
    """Return a few names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
