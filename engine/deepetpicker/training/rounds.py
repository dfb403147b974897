"""A model that goes on from another one: which it was, and whether the new one is better."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch

from deepetpicker.io.classes import ParticleClass, same_particle
from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.training.validation import Looked, Validator
from deepetpicker.training.verdict import Change

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CertainChange(Change):
    """How a model picks that goes on from another one, as far as it is known which picks are right.

    Unlike the recall of the verdict, which is that at the threshold the model picks with, this counts false picks too
    where they are certain, and each model at the threshold that suits it best.
    """

    def __str__(self) -> str:
        return (f"of what is certain, known particles and places without one alone, each model at its best threshold, "
                f"{super().__str__()}")


@dataclasses.dataclass
class Origin:
    """The model that a training starts from.

    Attributes
    ----------
    file, sha256 : str
        Its file's name, and the digest of the file.
    card : ModelCard
        What it says about itself.
    f1 : float
        Of its picks on the held-out part of this training, mean over the classes that it knows; NaN when not known.
    class_ids : list of int
        Those classes.
    """

    file: str
    sha256: str
    card: ModelCard
    f1: float = float("nan")
    class_ids: List[int] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, path: str, card: ModelCard) -> Origin:
        """Return the origin of a model file and its card."""
        file = pathlib.Path(path)
        return cls(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), card)

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """What each tomogram served for when the model was trained."""
        return self.card.training.get("items") or []

    @property
    def round(self) -> int:
        """Its number among the models that went on from each other; the first is 1."""
        return int(self.card.training.get("round", 1))

    def look(self, network: torch.nn.Module, validator: Validator, arithmetic: Arithmetic,
             classes: Sequence[ParticleClass]) -> None:
        """Pick the held-out part with the network as it starts.

        Parameters
        ----------
        network : ResUNet3D
            Not modified.
        validator : Validator
            Of the training.
        arithmetic : Arithmetic
            How to compute.
        classes : sequence of ParticleClass
            Those that are trained.
        """
        self.class_ids = [one.id for one in classes if any(same_particle(one, c) for c in self.card.classes)]
        if not (self.class_ids and validator.n_particles):
            return
        validator(network.to(arithmetic.device), arithmetic)
        self.f1 = self._f1(validator.looked, validator)

    def change(self, looked: Sequence[Mapping[str, Any]], validator: Validator) -> Optional[Change]:
        """Return what became of the picks of the classes that the model knew; None when nothing is held out.

        Parameters
        ----------
        looked : sequence of mapping
            What the kept epoch found in the held-out part, from ``callbacks.rows_of``.
        validator : Validator
            Of the training.
        """
        if self.f1 != self.f1 or not looked:
            return None
        after = self._f1([looked_of(one) for one in looked], validator)
        held = {region.name for region in validator.regions}
        seen = any(item.get("role") != "validation" and "held_out_zyx_vox" not in item for item in self.items
                   if item.get("name") in held)
        kind = CertainChange if validator.is_unknown else Change
        return kind(self.f1, after, validator.n_particles, not seen)

    def _f1(self, looked: Sequence[Looked], validator: Validator) -> float:
        """Return the mean F1 of the classes that the model knows, on what is certain in the held-out part."""
        scores = validator.on_certain(looked)
        values = [one.f1 for one in scores.classes if one.n_true and one.class_id in self.class_ids]
        return float(np.mean(values)) if values else float("nan")

    def to_dict(self, change: Optional[Change]) -> Dict[str, Any]:
        """Return ``round`` and ``started_from`` for the card of the new model, JSON-ready."""
        facts: Dict[str, Any] = {"file": self.file, "sha256": self.sha256, "round": self.round}
        if change is not None:
            facts.update(f1_before=round(change.before, 4), f1_after=round(change.after, 4), n_true=change.n_true)
        return {"round": self.round + 1, "started_from": facts}


def looked_of(rows: Mapping[str, Any]) -> Looked:
    """Return what ``callbacks.rows_of`` has put down."""
    truth, found = (np.asarray(rows[key], float) for key in ("truth", "found"))
    scores = np.full(len(truth), np.nan), found[:, 4] if len(found) else np.zeros(0)
    return Looked(rows["name"], *(CoordinateTable(t[:, 1:4], t[:, 0].astype(np.int64), s)
                                  for t, s in zip((truth, found), scores)))
