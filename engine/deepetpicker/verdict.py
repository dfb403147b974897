"""A verdict in words: on a trained model, on the picks of a tomogram, on those of a run."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any, Dict, List, Mapping, Sequence, Tuple

GOOD, DOUBTFUL, NOT_USABLE = "good", "doubtful", "not usable"
FEWEST_TO_COMPARE = 5  # tomograms whose numbers of picks tell which is unusual
UNUSUAL, UNUSUAL_FACTOR = 4.0, 3.0  # robust deviations, and times more or fewer than the middle one


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


def unusual_counts(counts: Mapping[str, int]) -> Dict[str, str]:
    """Return which tomograms have an unusual number of picks among those of a run, and what to say of them.

    Parameters
    ----------
    counts : mapping
        Number of picks by name. With fewer than five tomograms none is unusual.

    Notes
    -----
    Unusual is more than four robust deviations from the median, on the scale of logarithms, and three times more or
    fewer than it. The deviation is never taken smaller than that of counting.
    """
    if len(counts) < FEWEST_TO_COMPARE:
        return {}
    logs = {name: math.log1p(n) for name, n in counts.items()}
    middle = statistics.median(logs.values())
    typical = math.expm1(middle)
    spread = max(1.4826 * statistics.median(abs(v - middle) for v in logs.values()), 1 / math.sqrt(typical + 1))
    found = {}
    for name, value in logs.items():
        if abs(value - middle) > max(UNUSUAL * spread, math.log(UNUSUAL_FACTOR)):
            found[name] = (f"{name}: {counts[name]} picks, about {typical:.0f} in the middle one of {len(counts)} "
                           "tomograms: look at it before its picks are used")
    return found


def of_run(items: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Return the verdict on a run of ``pick`` as JSON-ready values, from the items of its manifest.

    Parameters
    ----------
    items : sequence of mapping
        ``name``, ``status``, ``n_picks`` and ``verdict`` of each tomogram; items of older runs may lack the last two.
    """
    done = [item for item in items if item.get("status") == "done"]
    said = {item["name"]: item["verdict"] for item in done if isinstance(item.get("verdict"), Mapping)}
    doubts: List[str] = [f"{name}: {one.get('text', '')}" for name, one in said.items() if one.get("grade") != GOOD]
    unusual = unusual_counts({item["name"]: item["n_picks"] for item in done if isinstance(item.get("n_picks"), int)})
    n_doubtful = len({name for name, one in said.items() if one.get("grade") != GOOD} | set(unusual))
    grade = DOUBTFUL if n_doubtful else GOOD
    text = f"{grade}: {len(done)} tomogram(s) picked" + (f", {n_doubtful} of them to look at" if n_doubtful else "")
    return {"grade": grade, "text": text, "doubts": doubts, "unusual": list(unusual.values())}
