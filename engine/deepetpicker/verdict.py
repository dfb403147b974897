"""A verdict in words: on a trained model, on the picks of a tomogram, on those of a run."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from deepetpicker.outliers import Spread, unlike_others

GOOD, DOUBTFUL, NOT_USABLE = "good", "doubtful", "not usable"


@dataclasses.dataclass(frozen=True)
class Reason:
    """One thing that speaks against a result: its cause in a word or two, what was found, and what to do next."""

    cause: str
    found: str
    advice: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What to think of a result.

    Attributes
    ----------
    grade : str
        ``good``, ``doubtful`` or ``not usable``.
    reasons : tuple of Reason
        The likeliest first; none for a good result.
    figures : str
        What a good one is good by.
    """

    grade: str
    reasons: Tuple[Reason, ...]
    figures: str

    def __str__(self) -> str:
        if not self.reasons:
            return f"{self.grade}: {self.figures}"
        first = self.reasons[0]
        more = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        return f"{self.grade}: {first.cause}: {first.found}; next: {first.advice}{more}; {self.figures}"

    def to_dict(self) -> Dict[str, Any]:
        """Return the verdict as JSON-ready values: ``grade``, ``text`` and ``reasons``."""
        return {"grade": self.grade, "text": str(self), "reasons": [dataclasses.asdict(one) for one in self.reasons]}


def of_run(items: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Return the verdict on a run of ``pick`` as JSON-ready values, from the items of its manifest.

    Parameters
    ----------
    items : sequence of mapping
        ``name``, ``status``, ``n_picks``, ``spread`` and ``verdict`` of each tomogram; items of older runs may lack the
        last three.
    """
    done = [item for item in items if item.get("status") == "done"]
    said = {item["name"]: item["verdict"] for item in done if isinstance(item.get("verdict"), Mapping)}
    doubts: List[str] = [f"{name}: {one.get('text', '')}" for name, one in said.items() if one.get("grade") != GOOD]
    spreads = {item["name"]: Spread.of_item(item) for item in done}
    others = unlike_others({name: one for name, one in spreads.items() if one is not None})
    unusual = {name: f"{name}: {', '.join(one.reasons)}: look at it before its picks are used"
               for name, one in others.items() if one.reasons}
    n_doubtful = len({name for name, one in said.items() if one.get("grade") != GOOD} | set(unusual))
    grade = DOUBTFUL if n_doubtful else GOOD
    count = f"{len(done)} tomogram{'' if len(done) == 1 else 's'}"
    text = f"{grade}: {count} picked" + (f", {n_doubtful} of them to look at" if n_doubtful else "")
    return {"grade": grade, "text": text, "doubts": doubts, "unusual": list(unusual.values())}
